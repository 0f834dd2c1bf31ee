from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainables.augmentation import BatchTransform
from trainables.data import Dataset, ImageSet
from trainables.settings import DataSettings


def dataset(images: Tensor, name: str = "cifar10") -> Dataset:
    values = images.float() / 255
    part = ImageSet(images, torch.zeros(len(images), dtype=torch.int64))
    return Dataset(
        name=name,
        train=part,
        test=part,
        class_names=("a", "b"),
        mean=tuple(values.mean(dim=(0, 2, 3)).tolist()),
        std=tuple(values.std(dim=(0, 2, 3), unbiased=False).tolist()),
        fingerprint="",
    )


def random_images(*shape: int) -> Tensor:
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def transform(images: Tensor, name: str = "cifar10", **settings: Any) -> BatchTransform:
    switches = {"crop": False, "flip": False, "cutout": False, **settings}
    return BatchTransform(dataset(images, name), DataSettings(name=name, **switches), "cpu")


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(batch: BatchTransform, images: Tensor, generator: torch.Generator) -> Tensor:
    """Augmented images, normalisation undone."""
    done = batch(images, generator)
    values = images.float() / 255
    mean, std = values.mean(dim=(0, 2, 3)), values.std(dim=(0, 2, 3), unbiased=False)
    restored = (done * std.view(-1, 1, 1) + mean.view(-1, 1, 1)) * 255
    return restored.round().to(torch.uint8)


def test_without_a_generator_images_are_only_normalised() -> None:
    images = random_images(200, 3, 16, 20)
    batch = BatchTransform(dataset(images), DataSettings(name="cifar10"), "cpu")
    assert (batch.crop, batch.flip, batch.cutout) == (True, True, True)
    done = batch(images, None)
    assert done.dtype == torch.float32
    assert done.shape == images.shape
    torch.testing.assert_close(done.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(done.std(dim=(0, 2, 3), unbiased=False), torch.ones(3), atol=1e-5, rtol=0)


def test_a_channel_that_never_changes_becomes_zero() -> None:
    images = torch.full((4, 1, 16, 16), 51, dtype=torch.uint8)
    torch.testing.assert_close(transform(images)(images, None), torch.zeros(4, 1, 16, 16))


def test_every_crop_is_a_window_of_the_padded_image_and_all_windows_occur() -> None:
    images = random_images(1500, 3, 16, 40)
    cropped = pixels(transform(images, crop=True), images, seeded())
    padded = functional.pad(images, (5, 5, 2, 2))
    seen = set()
    for image, source in zip(cropped, padded, strict=True):
        windows = [(y, x) for y in range(5) for x in range(11) if torch.equal(image, source[:, y : y + 16, x : x + 40])]
        assert len(windows) == 1
        seen.update(windows)
    assert len(seen) == 5 * 11


def test_half_of_the_images_are_mirrored_left_to_right() -> None:
    images = random_images(400, 3, 4, 6)
    flipped = pixels(transform(images, flip=True), images, seeded())
    mirrored = [torch.equal(done, image.flip(2)) for done, image in zip(flipped, images, strict=True)]
    same = [torch.equal(done, image) for done, image in zip(flipped, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 150 < sum(mirrored) < 250


def test_crop_and_flip_together_mirror_a_window() -> None:
    images = random_images(60, 1, 16, 16)
    done = pixels(transform(images, crop=True, flip=True), images, seeded())
    padded = functional.pad(images, (2, 2, 2, 2))
    for image, source in zip(done, padded, strict=True):
        windows = [source[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
        assert sum(torch.equal(image, window) + torch.equal(image.flip(2), window) for window in windows) == 1


def test_cutout_blanks_a_square_of_half_the_shorter_side_around_any_pixel() -> None:
    images = random_images(2000, 3, 16, 24)
    batch = transform(images, cutout=True)
    plain, done = batch(images, None), batch(images, seeded())
    holes = (done == 0).all(dim=1)
    torch.testing.assert_close(done, plain.masked_fill(holes[:, None], 0.0), atol=0, rtol=0)
    rows, columns = holes.any(dim=2), holes.any(dim=1)
    assert torch.equal(holes, rows[:, :, None] & columns[:, None, :])
    # A centre on row y blanks rows y - 4 ... y + 3, as far as they are in the image.
    heights = {tuple(row.nonzero().flatten().tolist()) for row in rows}
    assert heights == {tuple(range(max(0, y - 4), min(16, y + 4))) for y in range(16)}
    widths = {tuple(column.nonzero().flatten().tolist()) for column in columns}
    assert widths == {tuple(range(max(0, x - 4), min(24, x + 4))) for x in range(24)}


def test_the_generator_alone_decides_and_images_stay_as_they_are() -> None:
    images = random_images(64, 3, 32, 32)
    before = images.clone()
    batch = BatchTransform(dataset(images), DataSettings(name="cifar10"), "cpu")
    generator = seeded(1)
    first, second = batch(images, generator), batch(images, generator)
    torch.manual_seed(99)
    again = seeded(1)
    assert torch.equal(batch(images, again), first)
    assert torch.equal(batch(images, again), second)
    assert not torch.equal(first, second)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("cifar10", (3, 32, 32), {"crop", "flip", "cutout"}),
        ("a/folder", (3, 64, 48), {"crop", "flip", "cutout"}),
        ("svhn", (3, 32, 32), {"crop", "cutout"}),
        ("fashion-mnist", (1, 28, 28), {"crop", "flip", "cutout"}),
        ("mnist", (1, 28, 28), {"crop"}),
        ("a/folder", (1, 32, 32), {"crop"}),
        ("my.data:load", (5, 32, 32), {"crop"}),
        ("digits", (1, 8, 8), set()),
        ("a/folder", (3, 8, 8), {"flip"}),
    ],
)
def test_auto_chooses_what_keeps_the_meaning(name: str, shape: tuple[int, ...], expected: set[str]) -> None:
    images = random_images(2, *shape)
    batch = BatchTransform(dataset(images, name), DataSettings(name=name), "cpu")
    assert {switch for switch in ("crop", "flip", "cutout") if getattr(batch, switch)} == expected


def test_what_is_asked_for_is_done_whatever_auto_would_say() -> None:
    images = random_images(32, 1, 8, 8)
    batch = BatchTransform(
        dataset(images, "digits"), DataSettings(name="digits", crop=True, flip=True, cutout=True), "cpu"
    )
    assert (batch.crop, batch.flip, batch.cutout) == (True, True, True)
    assert batch(images, seeded()).shape == (32, 1, 8, 8)
