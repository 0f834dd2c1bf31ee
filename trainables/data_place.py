"""Whether there are data at the place that a configuration names. No torch here: asked before anything is started."""

from __future__ import annotations

from pathlib import Path

from trainables.candidates import is_import_path
from trainables.settings import BUILTIN_NAMES, DataSettings


def check_place(settings: DataSettings) -> None:
    """Make sure that ``data.name`` is a built-in set, an import path, or a path of images.

    Raises:
        ValueError: If it is nothing of these; says what would be.
    """
    name = settings.name
    path = Path(name).expanduser()
    if name in BUILTIN_NAMES or (is_import_path(name) and not path.exists()):
        return
    if settings.root:
        raise ValueError(
            f"data.root = {settings.root!r} has no meaning for data.name = {name!r}: give the whole path as data.name "
            "(data.root is for built-in sets and for functions of your own)"
        )
    if path.is_dir() or (path.suffix == ".parquet" and path.is_file()):
        return
    what = (
        "is a file, but not a Parquet file"
        if path.exists()
        else f"is no built-in data set, and there is no {path.absolute()}"
    )
    raise ValueError(
        f"data.name = {name!r} {what}: give one of {', '.join(BUILTIN_NAMES)}, the path of a folder of images "
        "(ROOT/CLASS/*.png), the path of a Parquet file or of a folder of them, or package.module:function"
    )
