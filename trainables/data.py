"""Data sets as uint8 tensors: what ``data.name`` means, and the three disjoint parts of the training images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainables.augmentation import BatchTransform
from trainables.candidates import is_import_path
from trainables.data_cache import cache_folder, open_decoded
from trainables.data_place import check_place
from trainables.data_sources import Source, builtin_source, own_source
from trainables.image_files import folder_source, parquet_source
from trainables.labels import stratified_order
from trainables.settings import BUILTIN_NAMES, DataSettings

__all__ = ["BatchTransform", "Dataset", "ImageSet", "Splits", "load_dataset", "make_splits"]

_SUBSET_SEED = 21
_LEAST_WEIGHT_IMAGES_PER_CLASS = 4


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels.

    Attributes:
        images: uint8, of shape [N, C, H, W]; may be memory-mapped, and is never to be written to.
        labels: int64, of shape [N], in 0..n-1 for n classes.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """A data set for classification.

    Attributes:
        name: As in ``DataSettings.name``.
        train: Training images, only the subset if one is asked for.
        test: Test images: read only where a found network is judged at the very end.
        class_names: One for each label.
        mean: Per channel, of all training images (whatever the subset), in 0..1.
        std: Standard deviation, likewise.
        fingerprint: Hash of all decoded images, labels and class names; independent of path, machine and subset.
    """

    name: str
    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    def with_images_on(self, device: torch.device) -> Dataset:
        """The same set, its training images on a device."""
        return replace(self, train=replace(self.train, images=self.train.images.to(device)))


@dataclass(frozen=True)
class Splits:
    """Three disjoint parts of the training images (section 4.1 of the paper has two of them), as rising int64 indices.

    Attributes:
        weights: Images that train the weights.
        alpha: Images that train the architecture parameters.
        selection: Images on which architectures are judged.
    """

    weights: Tensor
    alpha: Tensor
    selection: Tensor


def load_dataset(settings: DataSettings, progress: Callable[[str, int, int], None] | None = None) -> Dataset:
    """The data set that the settings name: decoded at the first use on a node, memory-mapped from then on.

    A set without a test part gives up a fifth of its images for one; which ones depends on its labels alone. A subset
    is copied to memory; smaller subsets lie within larger ones. Both draws are stratified and independent of any seed.

    Args:
        settings: The section ``data`` of a configuration.
        progress: Called with a text and with how much of how much is done, while anything is downloaded or decoded.

    Raises:
        ValueError: No such data set, data that break a rule, a failed download, or a cache that cannot be written. The
            message says what to do.
    """
    cache = cache_folder(settings.cache)
    source = _find_source(settings, cache / "downloads")
    size = settings.image_size
    decoded = open_decoded(
        settings.name,
        source,
        (size, size) if isinstance(size, int) else size,
        cache,
        progress or (lambda text, done, total: None),
    )
    description = decoded.description
    images, labels = torch.from_numpy(decoded.images), torch.from_numpy(decoded.labels)
    count = description.train_images
    train = ImageSet(images[:count], labels[:count])
    if settings.subset is not None:
        train = _subset(train, settings.subset)
    return Dataset(
        name=settings.name,
        train=train,
        test=ImageSet(images[count:], labels[count:]),
        class_names=description.class_names,
        mean=description.mean,
        std=description.std,
        fingerprint=description.fingerprint,
    )


def make_splits(labels: Tensor, settings: DataSettings, seed: int) -> Splits:
    """Draw the three parts of the training images, stratified.

    By default alpha takes a tenth, as the paper's 5,000 of CIFAR-10's 50,000, and selection another tenth, but in small
    sets up to a fifth until it has 1,000 images, with which the standard error of an accuracy of 0.9 is 0.01.

    Args:
        labels: Of all training images, int64, of shape [N].
        settings: ``alpha_images`` and ``selection_images``, counts or fractions of N.
        seed: The sweep's, so that all its searches share their splits.

    Raises:
        ValueError: A part would be too small: fewer than 4 images a class in the mean for the weights, or none of some
            class, or fewer than 2 for another part.
    """
    total = len(labels)
    alpha = _image_count(settings.alpha_images, total, default=round(total / 10))
    selection = _image_count(
        settings.selection_images, total, default=max(round(total / 10), min(1000, round(total / 5)))
    )
    weights = total - alpha - selection
    classes = len(torch.unique(labels))
    least = _LEAST_WEIGHT_IMAGES_PER_CLASS * classes
    if weights < least:
        raise ValueError(
            f"of {total} training images alpha takes {alpha} and selection {selection}: that leaves {max(0, weights)} "
            f"for the weights, which need at least {least} ({_LEAST_WEIGHT_IMAGES_PER_CLASS} for each of {classes} "
            "classes); lower data.alpha_images or data.selection_images, or raise data.subset"
        )
    if min(alpha, selection) < 2:
        raise ValueError(
            f"of {total} training images alpha gets {alpha} and selection {selection}; each needs at least 2: raise "
            "data.alpha_images, data.selection_images or data.subset"
        )
    order = torch.from_numpy(stratified_order(labels.numpy(), seed))
    trained = order[alpha + selection :].sort().values
    if gone := sorted(set(labels.tolist()) - set(labels[trained].tolist())):
        raise ValueError(
            f"of class {gone[0]} alpha and selection take all {int((labels == gone[0]).sum())} training images: lower "
            "data.alpha_images or data.selection_images, or leave out classes of so few images"
        )
    return Splits(
        weights=trained,
        alpha=order[:alpha].sort().values,
        selection=order[alpha : alpha + selection].sort().values,
    )


def _find_source(settings: DataSettings, downloads: Path) -> Source:
    check_place(settings)
    name = settings.name
    path = Path(name).expanduser()
    if name in BUILTIN_NAMES:
        return builtin_source(settings, downloads)
    if is_import_path(name) and not path.exists():
        return own_source(settings)
    if path.is_file() or any(path.glob("*.parquet")):
        return parquet_source(path)
    return folder_source(path)


def _subset(train: ImageSet, count: int) -> ImageSet:
    total = len(train.labels)
    if count > total:
        raise ValueError(f"data.subset = {count} is more than the {total} training images that there are")
    if count == total:
        return train
    chosen = torch.from_numpy(np.sort(stratified_order(train.labels.numpy(), _SUBSET_SEED)[:count]))
    return ImageSet(train.images[chosen], train.labels[chosen])


def _image_count(setting: int | float | None, total: int, default: int) -> int:
    if setting is None:
        return default
    return round(setting * total) if isinstance(setting, float) else setting
