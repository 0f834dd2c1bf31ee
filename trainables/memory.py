"""How much memory a search needs, estimated beforehand and read afterwards. No torch here."""

from __future__ import annotations

import math
import os
import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainables.candidates import kernel_of
from trainables.settings import SearchSettings

_BYTES_OF_FLOAT = 4

# What Python, PyTorch and Ray take in a process before anything of a search is there; on a GPU, the CUDA context.
_PROCESS_BYTES = 700 << 20

# Maps that a layer keeps for its gradients: of a separable candidate what both convolutions made, of another one what
# it made; and the layer's output. Copies that libraries pad and reorder are half as much again of a separable one.
# Beside them the backward pass of the widest layer holds some at once.
_MAPS_OF_SEPARABLE, _MAPS_OF_OTHER, _MAPS_OF_OUTPUT, _MAPS_OF_BACKWARD = 3, 1, 1, 6


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one search needs.

    Attributes:
        weights: The supernet.
        momentum: As much again, once every candidate has been drawn.
        step: Activations and gradients of one batch of the weight pass, with the two largest candidates everywhere.
        images: The training images, one byte a value.
        process: What a process takes without any of it.
    """

    weights: int
    momentum: int
    step: int
    images: int
    process: int = _PROCESS_BYTES

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.momentum + self.step + self.images + self.process


def estimate_memory(
    search: SearchSettings, image_shape: tuple[int, int, int], classes: int, images: int
) -> MemoryEstimate:
    """Estimate what a search needs; a test holds it against measured peaks.

    Args:
        search: The search.
        image_shape: (channels, height, width) of an image.
        classes: Number of classes.
        images: Number of training images.

    Returns:
        The estimate; own operations count as separable 3 x 3 ones, as nobody knows them.
    """
    depth, height, width = image_shape
    channels, weights, kept, widest = search.channels, (9 * depth + 2) * search.channels, 0, 0
    maps = _MAPS_OF_OUTPUT + sum(sorted(_maps_of(name) for name in search.candidate_names)[-2:])
    kept += 2 * channels * height * width
    for layer in range(1, search.layers + 1):
        if layer in search.reductions:
            weights += (4 * channels + 2) * channels
            channels, height, width = 2 * channels, max(1, height // 2), max(1, width // 2)
            kept += 2 * channels * height * width
        weights += _weights_of(search.candidate_names, channels)
        weights += 2 * channels * (len(search.candidate_names) if search.batch_norm == "candidate" else 1)
        kept += maps * channels * height * width
        widest = max(widest, channels * height * width)
    weights += (channels + 1) * classes
    batch = math.ceil(1.5 * search.batch_size)  # The last batch of a pass may be so large.
    step = batch * (kept + _MAPS_OF_BACKWARD * widest)
    return MemoryEstimate(
        weights=_BYTES_OF_FLOAT * weights,
        momentum=_BYTES_OF_FLOAT * weights,
        step=_BYTES_OF_FLOAT * step,
        images=images * math.prod(image_shape),
    )


def check_memory(estimate: MemoryEstimate, there: int, where: str) -> None:
    """Make sure that a search fits.

    Args:
        estimate: What it needs.
        there: Bytes that it may use.
        where: What has them, as in "this machine, for each of 2 trials at once".

    Raises:
        ValueError: It does not fit; the numbers are told.
    """
    if estimate.total <= there:
        return
    raise ValueError(
        f"a search needs about {_size(estimate.total)} of memory (weights {_size(estimate.weights)}, their "
        f"momentum as much, a batch {_size(estimate.step)}, images {_size(estimate.images)}, the process "
        f"{_size(estimate.process)}), but {where} has {_size(there)}: lower search.channels, search.m, "
        "search.layers or search.batch_size, or run fewer trials at once (max_concurrent)"
    )


def machine_memory() -> int:
    """Bytes of memory that this machine has, or its container may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total


def process_bytes() -> int:
    """Bytes that this process holds; its peak so far where the system does not tell."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return process_peak()
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def process_peak() -> int:
    """The most bytes that this process has held so far."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.is_file() else []
    if (told := next((line for line in lines if line.startswith("VmHWM:")), None)) is not None:
        # In KiB. What getrusage has is also the peak of the process that started this one.
        return int(told.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def _maps_of(name: str) -> int:
    kernel = kernel_of(name)
    return _MAPS_OF_OTHER if name == "identity" or (kernel and kernel[0] != "sepconv") else _MAPS_OF_SEPARABLE


def _weights_of(names: Iterable[str], channels: int) -> int:
    total = 0
    for name in names:
        kind, i, j = kernel_of(name) or ("sepconv", 3, 3)
        if kind == "conv":
            total += channels * channels * i * j
        elif kind == "sepconv" and name != "identity":
            total += channels * i * j + channels * channels
    return total


def _size(count: int) -> str:
    if count < 1e9:
        return f"{count / 1e6:,.0f} MB"
    return f"{count / 1e9:.2g} GB" if count < 1e10 else f"{count / 1e9:,.0f} GB"
