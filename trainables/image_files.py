"""Images in files: a folder for each class, or Parquet as image data sets are commonly published."""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainables.data_sources import Contents, Part, Progress, Source, file_stamps
from trainables.image_decoding import BLOCK_IMAGES, EncodedImage, EncodedImages, decoding_threads

logger = logging.getLogger(__name__)

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)")


class _File(NamedTuple):
    path: str
    stamp: str


def folder_source(root: Path) -> Source:
    """Images in ROOT/CLASS/, or in ROOT/train/CLASS/ and perhaps ROOT/test/CLASS/; classes are numbered as sorted.

    Raises:
        ValueError: The folder is not laid out so, or a class has no images.
    """
    root = root.resolve()
    test: dict[str, list[_File]] = {}
    if (root / "train").is_dir():
        train = _class_files(root / "train")
        if (root / "test").is_dir():
            test = _class_files(root / "test")
        unused = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name not in ("train", "test"))
        if unused:
            logger.warning("of %s only train and test are read, not %s", root, ", ".join(unused))
    elif (root / "test").is_dir():
        raise ValueError(f"{root} has a folder test, but none named train")
    else:
        train = _class_files(root)
    classes = tuple(train)
    if lacking := sorted(set(test) - set(classes)):
        raise ValueError(f"{root / 'test'} has the classes {', '.join(lacking)}, which {root / 'train'} lacks")

    def read(progress: Progress) -> Contents:
        return Contents(_folder_part(train, classes), _folder_part(test, classes) if test else None, classes)

    stamps = (f"{file.path}:{file.stamp}" for part in (train, test) for found in part.values() for file in found)
    return Source(("folder", *stamps), read)


def _folder_part(files: dict[str, list[_File]], classes: Sequence[str]) -> Part:
    paths = [file.path for name in classes for file in files.get(name, ())]
    labels = [number for number, name in enumerate(classes) for _ in files.get(name, ())]

    def read() -> Iterator[list[EncodedImage]]:
        for start in range(0, len(paths), BLOCK_IMAGES):
            yield [EncodedImage(Path(path), path) for path in paths[start : start + BLOCK_IMAGES]]

    # Threads hide the latency of files, whatever their size.
    return Part(EncodedImages(read, decoding_threads(math.inf)), np.array(labels, dtype=np.int64))


def _class_files(folder: Path) -> dict[str, list[_File]]:
    """The image files of every class of a folder of classes, all sorted."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise ValueError(
            f"{folder} has {len(classes)} folders: it must have one folder of images for each of at least two classes "
            f"({folder}/CLASS/*.png), or Parquet files"
        )
    files = {path.name: _image_files(path) for path in classes}
    if empty := [name for name, found in files.items() if not found]:
        raise ValueError(
            f"the class folder {folder / empty[0]} has no images ({', '.join(sorted(_IMAGE_SUFFIXES))} are read): "
            "fill it or remove it"
        )
    return files


def _image_files(folder: Path) -> list[_File]:
    # Every load looks at every file: Path objects would make that ten times slower.
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if os.path.splitext(entry.name)[1].lower() in _IMAGE_SUFFIXES and not entry.name.startswith("."):
                stat = entry.stat()
                found.append(_File(entry.path, f"{stat.st_size}:{stat.st_mtime_ns}"))
    return sorted(found)


def parquet_source(path: Path) -> Source:
    """Images in a Parquet file, or in the files train* and test* of a folder, or in all files of one without those.

    A column ``img`` or ``image`` (a struct with a field ``bytes``: an image file) and a column ``label`` (integers) are
    read; the names of the classes stand in the schema's ``huggingface`` metadata, if anywhere.

    Raises:
        ValueError: Shards are missing, or there are test files alone.
    """
    path = path.resolve()
    root, train, test = path.parent, [path], list[Path]()
    if path.is_dir():
        root, files = path, sorted(path.glob("*.parquet"))
        _check_shards(root, files)
        train = [file for file in files if file.name.startswith("train")]
        test = [file for file in files if file.name.startswith("test")]
        unused = sorted(file.name for file in {*files} - {*train, *test})
        if train and unused:
            logger.warning("of %s only train* and test* are read, not %s", root, ", ".join(unused))
        if test and not train:
            raise ValueError(f"{root} has Parquet files test*, but none train*")
        train = train or files

    def read(progress: Progress) -> Contents:
        return Contents(_parquet_part(train), _parquet_part(test) if test else None, _parquet_class_names(train[0]))

    return Source(("parquet", *file_stamps(root, [*train, *test])), read)


def _check_shards(root: Path, files: Sequence[Path]) -> None:
    found = [match for file in files if (match := _SHARD.fullmatch(file.stem))]
    for name, total in sorted({(match[1], match[3]) for match in found}):
        numbers = {int(match[2]) for match in found if (match[1], match[3]) == (name, total)}
        if missing := sorted(set(range(int(total))) - numbers):
            raise ValueError(f"{root} lacks {len(missing)} of the {total} shards {name}-*-of-{total}: {missing[:10]}")


def _open_parquet(file: Path) -> Any:
    try:
        return importlib.import_module("pyarrow.parquet").ParquetFile(file)
    except (OSError, ValueError) as error:  # Arrow's own errors are of these kinds.
        raise ValueError(f"{file} is not a Parquet file that can be read ({error})") from error


def _image_column(file: Path, schema: Any) -> str:
    types: Any = importlib.import_module("pyarrow").types
    for name in ("img", "image"):
        if name in schema.names:
            kind = schema.field(name).type
            if types.is_struct(kind) and any(kind.field(i).name == "bytes" for i in range(kind.num_fields)):
                return name
            raise ValueError(f"column {name!r} of {file} is {kind}: it must be a struct with a field 'bytes'")
    raise ValueError(
        f"{file} has no column 'img' or 'image' (a struct with a field 'bytes'): its columns are "
        f"{', '.join(schema.names)}"
    )


def _parquet_labels(file: Path) -> NDArray[np.int64]:
    types: Any = importlib.import_module("pyarrow").types
    with _open_parquet(file) as parquet:
        schema = parquet.schema_arrow
        if "label" not in schema.names:
            raise ValueError(f"{file} has no column 'label': its columns are {', '.join(schema.names)}")
        kind = schema.field("label").type
        if not types.is_integer(kind):
            raise ValueError(f"column 'label' of {file} is {kind}: labels must be integers, counted from 0")
        column = parquet.read(columns=["label"]).column("label")
    if column.null_count:
        raise ValueError(f"{column.null_count} rows of {file} have no label: take them out")
    labels: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    return labels


def _parquet_part(files: Sequence[Path]) -> Part:
    labels = np.concatenate([_parquet_labels(file) for file in files])
    encoded_bytes = 0
    for file in files:
        with _open_parquet(file) as parquet:
            _image_column(file, parquet.schema_arrow)
            metadata = parquet.metadata
            encoded_bytes += sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))

    def read() -> Iterator[list[EncodedImage]]:
        for file in files:
            with _open_parquet(file) as parquet:
                column = _image_column(file, parquet.schema_arrow)
                row = 0
                for cells in _cells(parquet, column, file):
                    yield [
                        EncodedImage((cell or {}).get("bytes") or b"", f"row {row + i} of {file}")
                        for i, cell in enumerate(cells)
                    ]
                    row += len(cells)

    return Part(EncodedImages(read, decoding_threads(encoded_bytes / max(1, len(labels)))), labels)


def _cells(parquet: Any, column: str, file: Path) -> Iterator[list[Any]]:
    try:
        for batch in parquet.iter_batches(batch_size=BLOCK_IMAGES, columns=[column]):
            yield batch.column(0).to_pylist()
    except OSError as error:
        raise ValueError(f"{file} is damaged ({error}): fetch it again") from error


def _parquet_class_names(file: Path) -> tuple[str, ...] | None:
    with _open_parquet(file) as parquet:
        described = (parquet.schema_arrow.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(described)["info"]["features"]["label"]["names"] if described else None
    except (KeyError, TypeError, ValueError):  # Other tools put other things under this key.
        return None
    return tuple(str(name) for name in names) if names else None
