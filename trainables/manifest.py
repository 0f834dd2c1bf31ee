"""The manifest of a checkpoint: its version, and the size and SHA-256 of each of its files. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

SEARCH = "nasib-ray search"
TRAINING = "nasib-ray training"
"""What a checkpoint is of."""

VERSION = 3
MANIFEST = "manifest.json"

_BLOCK_BYTES = 1 << 20


def write_manifest(directory: Path, names: Iterable[str], kind: str = SEARCH) -> None:
    """Describe the checkpoint's files, all of which must be written: without a manifest nothing of them counts."""
    files = {}
    for name in names:
        path = directory / name
        files[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    text = json.dumps({"format": kind, "version": VERSION, "files": files}, indent=2)
    (directory / MANIFEST).write_text(text, encoding="utf-8")


def verify_checkpoint(path: str | Path) -> str:
    """Check that a checkpoint is whole and of a version that this package reads. Nothing of it is executed.

    Args:
        path: A folder on this machine.

    Returns:
        What it is of, SEARCH or TRAINING.

    Raises:
        ValueError: What is wrong with it.
    """
    directory = Path(path)
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        kind, version, files = manifest["format"], manifest["version"], manifest["files"]
        expected = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except OSError as error:
        raise ValueError(f"{directory} is no checkpoint, or was not written to its end: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{directory / MANIFEST} is damaged: {error!r}") from error
    if kind not in (SEARCH, TRAINING) or version != VERSION:
        raise ValueError(
            f"{directory} is a checkpoint of format {kind!r}, version {version}; this package reads {SEARCH!r} and "
            f"{TRAINING!r}, version {VERSION}: continue it with the package that wrote it"
        )
    for name, (size, digest) in expected.items():
        file = directory / name
        if not file.is_file():
            raise ValueError(f"{directory} lacks its file {name}")
        if file.stat().st_size != size:
            raise ValueError(f"{file} has {file.stat().st_size} bytes where its manifest says {size}")
        if _sha256(file) != digest:
            raise ValueError(f"{file} differs from what was written: its SHA-256 is not the manifest's")
    return str(kind)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
