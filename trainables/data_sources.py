"""What a source of images is, and two kinds of them: the built-in data sets and a function of the user's."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from trainables.image_decoding import ArrayImages, Images
from trainables.settings import DataSettings

Progress = Callable[[str, int, int], None]

# Our names of torchvision's classes.
_TORCHVISION_CLASSES = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "svhn": "SVHN",
}


@dataclass(frozen=True)
class Part:
    """The training or the test part of a data set.

    Attributes:
        images: N images.
        labels: Their labels as they were found, int64, of shape [N].
    """

    images: Images
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Contents:
    """What a source holds. No ``test``: the source has no test part. No ``class_names``: the labels are the names."""

    train: Part
    test: Part | None
    class_names: tuple[str, ...] | None


@dataclass(frozen=True)
class Source:
    """Data that were found, but not yet read.

    Attributes:
        identity: Changes where the data change: paths with sizes and times of modification. Quick to tell.
        read: Opens the data (and downloads them, if need be); images are decoded only as they are asked for. Raises
            ValueError where the data are not what they should be.
    """

    identity: tuple[str, ...]
    read: Callable[[Progress], Contents]


def file_stamps(root: Path, files: Iterable[Path]) -> tuple[str, ...]:
    """An identity (see ``Source``) of files under a folder: their paths, sizes and times of modification."""
    stats = ((file, file.stat()) for file in files)
    return (str(root), *(f"{file.relative_to(root)}:{stat.st_size}:{stat.st_mtime_ns}" for file, stat in stats))


def builtin_source(settings: DataSettings, downloads: Path) -> Source:
    """A set of BUILTIN_NAMES; what is missing in ``settings.root`` (by default a folder in downloads) is downloaded."""
    name = settings.name
    if name == "digits":
        return Source((name,), _read_digits)
    root = Path(settings.root).expanduser().resolve() if settings.root else downloads / name
    place = (str(root),) if settings.root else ()
    return Source(("torchvision", name, *place), partial(_read_torchvision, name, root, settings.download))


def _read_digits(progress: Progress) -> Contents:
    digits: Any = importlib.import_module("sklearn.datasets").load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # Pixels are 0 to 16.
    return Contents(Part(ArrayImages(images[..., None]), digits.target.astype(np.int64)), None, None)


def _read_torchvision(name: str, root: Path, download: bool, progress: Progress) -> Contents:
    try:
        datasets: Any = importlib.import_module("torchvision.datasets")
    except ImportError as error:
        raise ValueError(f"data.name = {name!r} needs torchvision ({error}): pip install torchvision") from error
    build = getattr(datasets, _TORCHVISION_CLASSES[name])
    part_argument = ({"split": "train"}, {"split": "test"}) if name == "svhn" else ({"train": True}, {"train": False})

    def open_parts(download: bool) -> list[Any]:
        return [build(root, download=download, **argument) for argument in part_argument]

    try:
        try:
            parts = open_parts(download=False)
        except RuntimeError:
            if not download:
                raise
            root.mkdir(parents=True, exist_ok=True)
            progress(f"downloading {name}", 0, 1)
            with FileLock(root / f".{name}.lock"):
                parts = open_parts(download=True)
            progress(f"downloading {name}", 1, 1)
    # Besides what downloads and torchvision's checks raise, half a file may make its reader raise anything.
    except Exception as error:
        raise ValueError(
            f"{name} is not complete in {root}{' and could not be downloaded' if download else ''} ({error}): set "
            "data.root to a folder that has it as torchvision keeps it, or give its images in folders or in Parquet "
            "files by data.name (--data PATH)"
        ) from error
    train, test = (Part(ArrayImages(_torchvision_pixels(part)), _torchvision_labels(part)) for part in parts)
    classes = getattr(parts[0], "classes", None)
    return Contents(train, test, tuple(classes) if classes else None)


def _torchvision_pixels(part: Any) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.asarray(part.data)
    if pixels.ndim == 3:
        return pixels[..., None]
    return pixels.transpose(0, 2, 3, 1) if pixels.shape[1] == 3 else pixels


def _torchvision_labels(part: Any) -> NDArray[np.int64]:
    return np.asarray(part.targets if hasattr(part, "targets") else part.labels).astype(np.int64)


def own_source(settings: DataSettings) -> Source:
    """Data that the user's function returns.

    It is called as function(settings) and returns (train, test): each is a pair (images, labels) of arrays, images
    uint8 of shape [N, H, W, C] or [N, H, W], labels integers of shape [N]; test may be None. What it returns is cached
    until its module's file, or a file in ``settings.root`` (the function's to use), changes.
    """
    module_name, _, function_name = settings.name.partition(":")
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, function_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"cannot import data.name = {settings.name!r}: {error}; it is written package.module:function, and the "
            "package must be importable where the trial runs"
        ) from error
    stamps: tuple[str, ...] = ()
    if module.__file__:
        file = Path(module.__file__)
        stamps = file_stamps(file.parent, [file])
    if settings.root:
        root = Path(settings.root).expanduser().resolve()
        if not root.exists():
            raise ValueError(f"data.root = {settings.root!r} does not exist")
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        stamps = (*stamps, *file_stamps(root.parent, files))

    def read(progress: Progress) -> Contents:
        returned = function(settings)
        if not isinstance(returned, (tuple, list)) or len(returned) != 2:
            raise ValueError(
                f"{settings.name} returned {type(returned).__name__}: it must return (train, test), each a pair "
                "(images, labels), test possibly None"
            )
        train, test = returned
        test_part = None if test is None else _own_part(settings.name, "test", test)
        return Contents(_own_part(settings.name, "train", train), test_part, None)

    return Source(("own", settings.name, *stamps), read)


def _own_part(name: str, part: str, returned: Any) -> Part:
    try:
        images, labels = (np.asarray(array) for array in returned)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} returned as {part} something else than a pair (images, labels): {error}") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{name} returned {part} images {images.dtype} of shape {list(images.shape)}: they must be uint8 of shape "
            "[N, H, W, C] or [N, H, W]"
        )
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[2] == images.shape[3] > 4:
        raise ValueError(
            f"{name} returned {part} images of shape {list(images.shape)}, which looks like [N, C, H, W]: channels "
            "come last; use images.transpose(0, 2, 3, 1)"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{name} returned {part} labels {labels.dtype} of shape {list(labels.shape)} for {len(images)} images: "
            f"they must be integers of shape [{len(images)}]"
        )
    return Part(ArrayImages(images if images.ndim == 4 else images[..., None]), labels.astype(np.int64))
