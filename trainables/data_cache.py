"""Data sets decoded once into a folder of memory-mapped arrays, which all trials of a node share."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from trainables.data_sources import Contents, Progress, Source
from trainables.image_decoding import ImageFormat
from trainables.labels import number_classes, stratified_order

logger = logging.getLogger(__name__)

# To be raised whenever the files, the decoding or the choice of the test part change.
_FORMAT_VERSION = 1
_TEST_FRACTION = 0.2
_TEST_SEED = 20
_STATISTICS_BYTES = 2**22
_PROGRESS_PARTS = 50
_CACHE_HINT = "set data.cache, or the environment's NASIB_RAY_CACHE, to a folder with room that can be written to"


@dataclass(frozen=True)
class Description:
    """What is known of a decoded data set beside its arrays.

    Attributes:
        train_images: How many images are for training; those after them are for testing.
        class_names: One for each label.
        mean: Per channel, of the training images, in 0..1.
        std: Standard deviation, likewise.
        fingerprint: Hash of the decoded images, their labels and class names: equal where the data are equal, whatever
            path or machine they come from.
    """

    train_images: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str


@dataclass(frozen=True)
class DecodedData:
    """A data set in the cache, training part first: memory-mapped uint8 [N, C, H, W] and int64 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    description: Description


def cache_folder(setting: str | None) -> Path:
    """The folder of prepared data: as set, else the environment's NASIB_RAY_CACHE, else ~/.cache/nasib-ray."""
    return Path(setting or os.environ.get("NASIB_RAY_CACHE") or "~/.cache/nasib-ray").expanduser().resolve()


def open_decoded(
    name: str, source: Source, size: tuple[int, int] | None, cache: Path, progress: Progress
) -> DecodedData:
    """The decoded data of a source, from the cache if they are there.

    Several processes may ask at once: one decodes, the others wait for it. The folder in the cache appears as a whole
    or not at all.

    Args:
        name: The data set's, for the folder's name and for messages.
        source: Where the images come from.
        size: (height, width) in pixels that all images are brought to. None: as they are.
        cache: Holds one folder for each source and size.
        progress: Told what is being done, and how many images of how many are done.

    Raises:
        ValueError: The source's data break a rule, or the cache cannot be written.
    """
    identity = json.dumps([_FORMAT_VERSION, source.identity, size])
    slug = re.sub(r"\W+", "-", Path(name).name).strip("-")[:40]
    folder = cache / f"{slug}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if not folder.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{folder}.lock").acquire()
        except OSError as error:
            raise ValueError(f"cannot write to the cache of decoded data {cache} ({error}): {_CACHE_HINT}") from error
        with lock:
            if not folder.exists():
                _fill(folder, source, size, progress)
    try:
        description = _read_description(folder / "description.json")
        # Copy-on-write: tensors made of read-only arrays would warn. Nothing writes, so that all processes share pages.
        images = np.load(folder / "images.npy", mmap_mode="c")
        labels = np.load(folder / "labels.npy")
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"the decoded data in {folder} are damaged ({error}): remove that folder") from error
    return DecodedData(images, labels, description)


def _fill(folder: Path, source: Source, size: tuple[int, int] | None, progress: Progress) -> None:
    """Decode into a temporary folder, then give it its name. The caller holds the lock."""
    contents = source.read(progress)
    temporary = folder.with_name(f"{folder.name}.partial")
    # What a killed process left.
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _decode(temporary, contents, size, progress)
        for file in temporary.iterdir():
            # The folder must not have its name before its files have their contents, also if power fails.
            with file.open("rb+") as written:
                os.fsync(written.fileno())
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    logger.info("decoded data are in %s", folder)


def _decode(folder: Path, contents: Contents, size: tuple[int, int] | None, progress: Progress) -> None:
    if contents.test is not None and len(contents.test.labels) == 0:
        raise ValueError("the test part has no images: give it some, or leave it out, so that a fifth of all are taken")
    parts = [contents.train, contents.test] if contents.test else [contents.train]
    train, test, class_names = number_classes(
        contents.train.labels,
        contents.test.labels if contents.test else np.empty(0, dtype=np.int64),
        contents.class_names,
    )
    total = len(train) + len(test)
    formats: Counter[ImageFormat] = Counter()
    for part in parts:
        for counted in part.images.formats():
            formats += counted
            _tell(progress, "looking at images", counted.total(), formats.total(), total)
    target = _settle_format(formats, size)
    _check_space(folder, total * target.height * target.width * target.channels)

    labels = np.concatenate([train, test])
    train_count, order = len(train), np.arange(total)
    if contents.test is None:
        test_count = max(1, round(_TEST_FRACTION * total))
        drawn = stratified_order(labels, _TEST_SEED)
        train_count, order = (
            total - test_count,
            np.concatenate([np.sort(drawn[test_count:]), np.sort(drawn[:test_count])]),
        )
    rows = np.argsort(order)

    shape = (total, target.channels, target.height, target.width)
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    done = 0
    for part in parts:
        for block in part.images.blocks(target):
            images[rows[done : done + len(block)]] = block
            done += len(block)
            _tell(progress, "decoding images", len(block), done, total)
    assert done == total, f"{done} images were decoded for {total} labels"
    images.flush()
    np.save(folder / "labels.npy", labels[order])
    description = _describe(images, labels[order], train_count, class_names)
    (folder / "description.json").write_text(json.dumps(asdict(description)))


def _tell(progress: Progress, text: str, new: int, done: int, total: int) -> None:
    """Call progress at the end of the block that fills another part of the whole, and at the very end."""
    if done == total or done * _PROGRESS_PARTS // total > (done - new) * _PROGRESS_PARTS // total:
        progress(text, done, total)


def _read_description(path: Path) -> Description:
    fields = json.loads(path.read_text())
    return Description(
        train_images=fields["train_images"],
        class_names=tuple(fields["class_names"]),
        mean=tuple(fields["mean"]),
        std=tuple(fields["std"]),
        fingerprint=fields["fingerprint"],
    )


def _settle_format(formats: Counter[ImageFormat], size: tuple[int, int] | None) -> ImageFormat:
    """The one format that all images are brought to: grey becomes RGB where both occur.

    Raises:
        ValueError: The images are of several sizes and none is asked for, or their channels cannot be reconciled.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    for format_, count in formats.items():
        sizes[format_.height, format_.width] += count
    if size is None and len(sizes) > 1:
        seen = ", ".join(f"{height} x {width} ({count} images)" for (height, width), count in sizes.most_common(5))
        more = f" and {len(sizes) - 5} more" if len(sizes) > 5 else ""
        raise ValueError(
            f"the images are of {len(sizes)} sizes (height x width): {seen}{more}; set data.image_size to the size "
            "that they should be brought to"
        )
    channels = {format_.channels for format_ in formats}
    if len(channels) > 1 and channels != {1, 3}:
        raise ValueError(
            f"the images have {sorted(channels)} channels: all must have the same number, or be grey or RGB"
        )
    return ImageFormat(*(size or next(iter(sizes))), max(channels))


def _check_space(folder: Path, needed: int) -> None:
    # A memory map that outgrows the disk would end the process with a bus error.
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        raise ValueError(
            f"the decoded images take {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free in {folder.parent}: "
            f"{_CACHE_HINT}"
        )


def _describe(
    images: NDArray[np.uint8], labels: NDArray[np.int64], train_count: int, class_names: tuple[str, ...]
) -> Description:
    digest = hashlib.sha256(json.dumps([images.shape, train_count, class_names]).encode())
    digest.update(labels.astype("<i8").tobytes())
    channels = images.shape[1]
    levels = np.zeros((channels, 256), dtype=np.int64)
    step = max(1, _STATISTICS_BYTES // images[0].nbytes)
    for start in range(0, len(images), step):
        block = np.ascontiguousarray(images[start : start + step])
        digest.update(block.data)
        training = block[: max(0, train_count - start)]
        for channel in range(channels):
            levels[channel] += np.bincount(training[:, channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    share = levels / levels.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    return Description(train_count, class_names, tuple(mean.tolist()), tuple(std.tolist()), digest.hexdigest()[:16])
