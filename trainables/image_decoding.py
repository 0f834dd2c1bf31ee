"""From encoded images (PNG, JPEG, ...) or raw pixels to uint8 blocks of one size and channel count."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from torch.nn import functional

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_GREY_MODES = ("1", "L", "LA", "La", "I")
BLOCK_IMAGES = 64


class ImageFormat(NamedTuple):
    """Height and width in pixels, and number of channels."""

    height: int
    width: int
    channels: int


class Images(ABC):
    """The images of one part of a data set, in the order of its labels."""

    @abstractmethod
    def formats(self) -> Iterator[Counter[ImageFormat]]:
        """How many images have which format, block by block. Read before decoding, to settle the format of all.

        Raises:
            ValueError: An image cannot be read; the message says which.
        """

    @abstractmethod
    def blocks(self, target: ImageFormat) -> Iterator[NDArray[np.uint8]]:
        """Blocks of shape [n, channels, height, width], brought to the target format by antialiased bilinear resizing.

        The aspect ratio is not kept. Called once the format is settled, to fill the cache.

        Raises:
            ValueError: An image cannot be decoded; the message says which.
        """


class ArrayImages(Images):
    """Images that are already decoded.

    Args:
        pixels: uint8, of shape [N, H, W, C].
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        assert pixels.ndim == 4, f"{pixels.shape} is not [N, H, W, C]"
        self._pixels = pixels

    def formats(self) -> Iterator[Counter[ImageFormat]]:
        count, *shape = self._pixels.shape
        yield Counter({ImageFormat(*shape): count})

    def blocks(self, target: ImageFormat) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(self._pixels), BLOCK_IMAGES):
            block = self._pixels[start : start + BLOCK_IMAGES].transpose(0, 3, 1, 2)
            if block.shape[1] != target.channels:
                assert block.shape[1] == 1, f"{block.shape[1]} channels cannot become {target.channels}"
                block = np.repeat(block, target.channels, axis=1)
            if block.shape[2:] != (target.height, target.width):
                # Pillow resizes only 1, 3 or 4 channels.
                resized = functional.interpolate(
                    torch.from_numpy(block.astype(np.float32)),
                    size=(target.height, target.width),
                    mode="bilinear",
                    antialias=True,
                )
                block = resized.round_().clamp_(0, 255).to(torch.uint8).numpy()
            yield block


class EncodedImage(NamedTuple):
    """An image file, or its content, and where it comes from, for error messages."""

    content: Path | bytes
    origin: str


class EncodedImages(Images):
    """Images that Pillow decodes.

    Args:
        read: Starts anew, at every call, an iterator over all images in blocks.
        workers: Threads that decode (see ``decoding_threads``).
    """

    def __init__(self, read: Callable[[], Iterable[Sequence[EncodedImage]]], workers: int) -> None:
        self._read = read
        self._workers = workers

    def formats(self) -> Iterator[Counter[ImageFormat]]:
        def formats_of(block: Sequence[EncodedImage]) -> Counter[ImageFormat]:
            return Counter(_decode(image, _format_of) for image in block)

        return _map_in_threads(formats_of, self._read(), self._workers)

    def blocks(self, target: ImageFormat) -> Iterator[NDArray[np.uint8]]:
        def pixels_of(block: Sequence[EncodedImage]) -> NDArray[np.uint8]:
            return np.stack([_decode(image, lambda opened: _pixels_of(opened, target)) for image in block])

        return _map_in_threads(pixels_of, self._read(), self._workers)


def decoding_threads(image_bytes: float) -> int:
    """How many threads should decode images of so many encoded bytes each.

    Passing the interpreter lock to a thread and back costs more than decoding a small image that is in memory: with two
    threads, JPEG files of 32 x 32 pixels took 1.3 times as long as with one.
    """
    return 1 if image_bytes < 4096 else min(8, os.cpu_count() or 1)


def _decode(image: EncodedImage, use: Callable[[Image.Image], _Result]) -> _Result:
    source = io.BytesIO(image.content) if isinstance(image.content, bytes) else image.content
    try:
        with Image.open(source) as opened:
            return use(opened)
    # Pillow's decoders raise whatever their format made them: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise ValueError(
            f"{image.origin} is not an image that can be decoded ({error}): repair it or take it out"
        ) from error


def _format_of(image: Image.Image) -> ImageFormat:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of no known range")
    if image.format == "TIFF" and image.mode == "I":
        raise ValueError("its pixels are signed numbers or have 32 bits, of no known range: save it with 8 or 16 bits")
    grey = image.mode in _GREY_MODES or image.mode.startswith("I;16")
    return ImageFormat(image.height, image.width, 1 if grey else 3)


def _bits_of(image: Image.Image) -> int:
    """Bits of a grey pixel, of which Pillow tells more than 8; those of a TIFF as its tag BitsPerSample has them."""
    return int(image.tag_v2.get(258, (16,))[0]) if isinstance(image, TiffImageFile) else 16


def _pixels_of(image: Image.Image, target: ImageFormat) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        # Grey of 12 or 16 bits a pixel, which convert() would clip at 255.
        image = Image.fromarray((np.asarray(image) >> (_bits_of(image) - 8)).clip(0, 255).astype(np.uint8))
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    # From a mode with alpha, convert() drops that channel.
    image = image.convert("L" if target.channels == 1 else "RGB")
    if image.size != (target.width, target.height):
        image = image.resize((target.width, target.height), Image.Resampling.BILINEAR)
    shape = (target.height, target.width, target.channels)
    pixels: NDArray[np.uint8] = np.asarray(image).reshape(shape).transpose(2, 0, 1)
    return pixels


def _map_in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int) -> Iterator[_Result]:
    """The results in order; unlike Executor.map it reads no further ahead than its threads need."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
