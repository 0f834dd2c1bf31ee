"""Random crop, mirroring, cutout and normalisation of whole batches, on the device that the batch is on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from trainables.settings import DataSettings

if TYPE_CHECKING:
    from trainables.data import Dataset

_LEAST_SIDE_FOR_AUTO = 16
_PADDING_FRACTION = 8


class BatchTransform:
    """Turns batches of uint8 images into normalised float32 ones, augmented where they are for training.

    * crop: the image is padded with black by an eighth of its height and width (at least a pixel) on every side, and a
      window of the original size is cut out at random. CIFAR-10: 4 pixels.
    * flip: every second image is mirrored, left to right.
    * cutout (DeVries and Taylor 2017): a square of half the image's shorter side, whose centre is anywhere on the image
      (so part of it may lie outside), is set to 0 after normalisation, that is to the mean.

    "auto" means yes where the change keeps what the image shows. Crop and cutout need sides of 16 pixels or more: in
    the 8 x 8 digits a pixel is much (crop took a small network's test accuracy from 0.990 to 0.983). Flip and cutout
    are for RGB images and fashion-mnist; others, grey or with more channels, may be digits, text or anything else. Flip
    is not for svhn (house numbers).

    Args:
        dataset: Its name, shape, mean and standard deviation are used.
        settings: ``crop``, ``flip`` and ``cutout``.
        device: Where the batches are.

    Attributes:
        crop: Whether training images are shifted.
        flip: Whether they are mirrored.
        cutout: Whether a square of them is blanked.
    """

    def __init__(self, dataset: Dataset, settings: DataSettings, device: torch.device | str) -> None:
        _, channels, height, width = dataset.train.images.shape
        large = min(height, width) >= _LEAST_SIDE_FOR_AUTO
        natural = channels == 3 or dataset.name == "fashion-mnist"
        self.crop = large if settings.crop == "auto" else settings.crop
        self.flip = (natural and dataset.name != "svhn") if settings.flip == "auto" else settings.flip
        self.cutout = (natural and large) if settings.cutout == "auto" else settings.cutout
        mean = torch.tensor(dataset.mean, device=device)
        # A channel that never changes has no scale; rounding may have left it a tiny one.
        std = torch.tensor([value if value > 1e-6 else 1.0 for value in dataset.std], device=device)
        self._factor = (1 / (255 * std)).view(-1, 1, 1)
        self._shift = (-mean / std).view(-1, 1, 1)

    def __call__(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Normalise a batch and, given a generator, augment it.

        Args:
            images: uint8, of shape [B, C, H, W]; stays as it is.
            generator: Drives everything random, on whichever device it is. None: only normalise (evaluation).

        Returns:
            float32, of shape [B, C, H, W], with mean 0 and standard deviation 1 per channel over the training set.
        """
        if generator is not None and (self.crop or self.flip):
            images = self._shifted(images, generator)
        normalised = images.float().mul_(self._factor).add_(self._shift)
        if generator is not None and self.cutout:
            normalised.masked_fill_(_holes(images, generator), 0.0)
        return normalised

    def _shifted(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop and flip at once: every pixel of the result is looked up in the padded image."""
        batch, channels, height, width = images.shape
        rows = torch.arange(height, device=images.device).expand(batch, height)
        columns = torch.arange(width, device=images.device).expand(batch, width)
        if self.flip:
            mirrored = _draw(batch, 2, generator, images.device) == 1
            columns = torch.where(mirrored, columns.flip(1), columns)
        if self.crop:
            down, across = max(1, height // _PADDING_FRACTION), max(1, width // _PADDING_FRACTION)
            rows = rows + _draw(batch, 2 * down + 1, generator, images.device)
            columns = columns + _draw(batch, 2 * across + 1, generator, images.device)
            images = functional.pad(images, (across, across, down, down))
        pixels = rows[:, :, None] * images.shape[3] + columns[:, None, :]
        index = pixels.view(batch, 1, height * width).expand(-1, channels, -1)
        return images.flatten(2).gather(2, index).view(batch, channels, height, width)


def _holes(images: Tensor, generator: torch.Generator) -> Tensor:
    """One square an image, as a mask of shape [B, 1, H, W]."""
    batch, _, height, width = images.shape
    side = min(height, width) // 2

    def span(length: int) -> Tensor:
        offset = torch.arange(length, device=images.device) - _draw(batch, length, generator, images.device)
        return (offset >= -(side // 2)) & (offset < side - side // 2)

    return (span(height)[:, :, None] & span(width)[:, None, :])[:, None]


def _draw(batch: int, below: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Integers from 0 to below - 1, of shape [B, 1]."""
    return torch.randint(below, (batch, 1), generator=generator, device=generator.device).to(device)
