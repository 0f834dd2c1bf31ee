"""Whether ``schedulers`` and ``trainables`` are those of nasib-ray: others may well use such general names."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

ROOMS = ("schedulers", "trainables")

_RAY_MODULES = "py_modules_files"
"""The folder in which Ray unpacks the packages of a runtime environment, each in a folder of its own."""


def check_own_rooms() -> None:
    """Make sure that the rooms that Python finds are the ones that came with this package, and import them.

    The packages of one installation lie in the same folder, be it a clone, site-packages or an archive; those that Ray
    has brought to a node lie side by side. So another clone's rooms are found out as well. Nothing of a foreign package
    is run.

    Raises:
        ImportError: If one is missing, or is found elsewhere; names the path that shadows it.
    """
    home = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        expected, found = home / room, _place(room)
        if found is None:
            raise ImportError(f"nasib_ray needs its package {room!r} at {expected}, and there is none: reinstall it.")
        if found != expected and not _came_with_ray(home, found.parent):
            raise ImportError(
                f"nasib_ray needs its package {room!r} at {expected}, but `import {room}` finds {found}, which shadows "
                f"it: rename that one, or take {found.parent} off Python's path (the folder of the script or the "
                "current folder, PYTHONPATH, or another installation)."
            )
        # At once: what a program puts in front of Python's path later does not shadow it any more.
        import_module(room)


def _came_with_ray(home: Path, other: Path) -> bool:
    """Whether two packages' folders are what Ray has unpacked for the same node."""
    return home.parent == other.parent and home.parent.name == _RAY_MODULES


def _place(package: str) -> Path | None:
    """The folder or file of a package, imported already or not; None if there is no such package."""
    try:
        spec = find_spec(package)
    except ValueError:  # It was put into sys.modules by hand.
        origin = getattr(sys.modules[package], "__file__", None)
        return Path(origin or f"<{package}, which has no file>").resolve()
    if spec is None:
        return None
    if spec.origin is None:  # A folder without an __init__.py.
        return next((Path(folder).resolve() for folder in spec.submodule_search_locations or ()), None)
    origin = Path(spec.origin).resolve()
    return origin.parent if origin.stem == "__init__" else origin
