from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainables.image_decoding import ArrayImages, EncodedImage, EncodedImages, ImageFormat, decoding_threads


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def encoded(*images: Image.Image, workers: int = 1) -> EncodedImages:
    block = [EncodedImage(png(image), f"image {i}") for i, image in enumerate(images)]
    return EncodedImages(lambda: [block], workers)


def only_block(images: ArrayImages | EncodedImages, target: ImageFormat) -> NDArray[np.uint8]:
    (block,) = images.blocks(target)
    return block


RAMP = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
COLOUR = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=2)


@pytest.mark.parametrize(
    ("image", "channels"),
    [
        (Image.fromarray(RAMP), 1),
        (Image.fromarray(RAMP).convert("LA"), 1),
        (Image.fromarray(RAMP.astype(np.uint16) << 8), 1),
        (Image.fromarray(RAMP).convert("1"), 1),
        (Image.fromarray(COLOUR), 3),
        (Image.fromarray(COLOUR).convert("RGBA"), 3),
        (Image.fromarray(COLOUR).quantize(), 3),
    ],
)
def test_the_format_is_height_width_and_one_or_three_channels(image: Image.Image, channels: int) -> None:
    (formats,) = encoded(image).formats()
    assert formats == {ImageFormat(4, 6, channels): 1}
    assert only_block(encoded(image), ImageFormat(4, 6, channels)).shape == (1, channels, 4, 6)


def test_pixels_come_out_as_they_are_channels_first() -> None:
    block = only_block(encoded(Image.fromarray(COLOUR)), ImageFormat(4, 6, 3))
    assert np.array_equal(block[0], COLOUR.transpose(2, 0, 1))


def test_grey_becomes_rgb_where_rgb_is_wanted() -> None:
    block = only_block(encoded(Image.fromarray(RAMP)), ImageFormat(4, 6, 3))
    assert np.array_equal(block[0], np.stack([RAMP] * 3))


def test_alpha_is_dropped_not_blended() -> None:
    transparent = np.dstack([COLOUR, np.zeros_like(RAMP)])
    block = only_block(encoded(Image.fromarray(transparent)), ImageFormat(4, 6, 3))
    assert np.array_equal(block[0], COLOUR.transpose(2, 0, 1))


def test_sixteen_bits_are_scaled_to_eight() -> None:
    block = only_block(encoded(Image.fromarray(RAMP.astype(np.uint16) * 256 + 200)), ImageFormat(4, 6, 1))
    assert np.array_equal(block[0, 0], RAMP)


def test_resizing_is_antialiased_and_alike_for_files_and_arrays() -> None:
    checkered = np.indices((32, 48)).sum(axis=0) % 2 * np.uint8(255)
    checkered[:, :24] //= 2
    picture = np.stack([checkered.astype(np.uint8)] * 3, axis=2)
    target = ImageFormat(8, 6, 3)
    from_file = only_block(encoded(Image.fromarray(picture)), target)
    from_array = only_block(ArrayImages(picture[None]), target)
    assert from_file.shape == from_array.shape == (1, 3, 8, 6)
    assert np.abs(from_file.astype(int) - from_array.astype(int)).max() <= 1
    assert np.abs(from_file[0, :, :, :2].astype(int) - 64).max() <= 3
    assert np.abs(from_file[0, :, :, 4:].astype(int) - 128).max() <= 3


def test_arrays_of_any_number_of_channels_are_resized() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 10, 10, 5), dtype=np.uint8)
    assert only_block(ArrayImages(pixels), ImageFormat(20, 4, 5)).shape == (3, 5, 20, 4)
    assert np.array_equal(only_block(ArrayImages(pixels), ImageFormat(10, 10, 5)), pixels.transpose(0, 3, 1, 2))


def test_threads_keep_the_order() -> None:
    pictures = [Image.fromarray(np.full((3, 3), i, dtype=np.uint8)) for i in range(40)]
    blocks = [[EncodedImage(png(picture), "")] for picture in pictures]
    images = EncodedImages(lambda: iter(blocks), workers=4)
    values = [int(block[0, 0, 0, 0]) for block in images.blocks(ImageFormat(3, 3, 1))]
    assert values == list(range(40))


@pytest.mark.parametrize("content", [b"", b"no image at all", png(Image.fromarray(COLOUR))[:45]])
def test_a_corrupt_image_is_named(content: bytes) -> None:
    images = EncodedImages(lambda: [[EncodedImage(content, "row 7 of x.parquet")]], workers=2)
    with pytest.raises(ValueError, match=r"row 7 of x\.parquet is not an image that can be decoded"):
        list(images.blocks(ImageFormat(4, 6, 3)))


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"text")
    images = EncodedImages(lambda: [[EncodedImage(path, str(path))]], workers=2)
    with pytest.raises(ValueError, match=r"broken\.png is not an image"):
        list(images.formats())


def test_pixels_of_no_known_range_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RAMP.astype(np.float32)).save(buffer, "TIFF")
    images = EncodedImages(lambda: [[EncodedImage(buffer.getvalue(), "a.tif")]], workers=1)
    with pytest.raises(ValueError, match=r"a\.tif .*floating-point"):
        list(images.formats())


def tiff(pixels: np.ndarray[Any, Any], **tags: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF", **tags)
    return buffer.getvalue()


def test_a_tiff_of_32_bits_is_refused_and_one_of_16_is_read() -> None:
    images = EncodedImages(lambda: [[EncodedImage(tiff(RAMP.astype(np.int32)), "a.tif")]], workers=1)
    with pytest.raises(ValueError, match=r"a\.tif .*save it with 8 or 16 bits"):
        list(images.formats())
    images = EncodedImages(lambda: [[EncodedImage(tiff(RAMP.astype(np.uint16) * 256), "b.tif")]], workers=1)
    assert np.array_equal(only_block(images, ImageFormat(4, 6, 1))[0, 0], RAMP)


def test_a_tiff_of_12_bits_is_scaled_to_eight() -> None:
    # Two pixels in three bytes: 0xFFF and 0x800.
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 3}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<I", 12) + b"\xff\xf8\x00\0" + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    images = EncodedImages(lambda: [[EncodedImage(content, "c.tif")]], workers=1)
    assert only_block(images, ImageFormat(1, 2, 1))[0, 0].tolist() == [[255, 128]]


def test_small_images_are_decoded_by_one_thread() -> None:
    assert decoding_threads(1000) == 1
    assert decoding_threads(1e6) >= 1
