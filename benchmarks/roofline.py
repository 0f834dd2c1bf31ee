"""What the steps of a search must compute and move at least, and how fast this device could do that.

Per operation the larger of two times counts: its multiplications and additions at the device's highest rate, and the
bytes of its inputs and outputs, each once, at the rate of a large copy. Operations are those of the steps as they are:
convolutions, batch norms, sums, ReLU and their gradients, one after the other and without fusion; padding, reordering
and what is kept in caches do not count. Reductions, head and optimizer, a few percent, are left out of the bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional

from trainables.candidates import kernel_of
from trainables.settings import SearchSettings

_BYTES_OF_FLOAT = 4

# Maps read and written. Batch norm reads its input once for the statistics and once more; its gradient likewise.
_BATCH_NORM, _BATCH_NORM_GRADIENT = 3, 5
_SUM, _RELU, _RELU_GRADIENT = 3, 2, 3


@dataclass(frozen=True)
class Operation:
    """One operation: floating-point operations and bytes."""

    flops: float
    moved_bytes: float


@dataclass(frozen=True)
class Roof:
    """What a device can do.

    Attributes:
        flops_per_second: Of the fastest of a large matrix product and a large convolution.
        bytes_per_second: Read and written by a large copy.
    """

    flops_per_second: float
    bytes_per_second: float

    def seconds(self, operations: list[Operation]) -> float:
        """The least time for operations one after the other."""
        return sum(
            max(operation.flops / self.flops_per_second, operation.moved_bytes / self.bytes_per_second)
            for operation in operations
        )


def needed(
    settings: SearchSettings, image_shape: tuple[int, int, int], batch: int, pairs: list[list[int]]
) -> dict[str, list[Operation]]:
    """The operations of each kind of step with these candidates."""
    depth, side, _ = image_shape
    channels, names = settings.channels, settings.candidate_names
    map_bytes: float = _BYTES_OF_FLOAT * batch * channels * side * side
    stem = Operation(18.0 * batch * depth * channels * side * side, map_bytes)
    weight, architecture, evaluation = [stem, stem], [stem], [stem]
    for layer, columns in enumerate(pairs, start=1):
        if layer in settings.reductions:
            side, channels, map_bytes = side // 2, 2 * channels, map_bytes / 2
            reduction = Operation(8.0 * batch * (channels // 2) ** 2 * side * side, 3 * map_bytes)
            weight += [reduction] * 3
            architecture += [reduction] * 2
            evaluation.append(reduction)
        for column in columns:
            for convolution in _convolutions(names[column], batch, channels, side, map_bytes):
                weight += [convolution] * 3
                # The architecture step has no gradient of weights, and none of the input in the first layer.
                architecture += [convolution] * (2 if layer > 1 else 1)
            weight += [Operation(0, _BATCH_NORM * map_bytes), Operation(0, _BATCH_NORM_GRADIENT * map_bytes)]
            architecture += [Operation(0, _BATCH_NORM * map_bytes), Operation(0, _BATCH_NORM_GRADIENT * map_bytes)]
        evaluation += _convolutions(names[columns[0]], batch, channels, side, map_bytes)
        evaluation += [Operation(0, _BATCH_NORM * map_bytes), Operation(0, (_SUM + _RELU) * map_bytes)]
        # The candidates, the skip connection; backwards what comes back through all three.
        outputs = Operation(0, (2 * _SUM + _RELU + _RELU_GRADIENT + 2 * _SUM) * map_bytes)
        weight.append(outputs)
        architecture.append(outputs)
    return {"weight_step": weight, "architecture_step": architecture, "evaluation": evaluation}


def _convolutions(name: str, batch: int, channels: int, side: int, map_bytes: float) -> list[Operation]:
    kind, i, j = kernel_of(name) or ("", 0, 0)
    pixels = 2.0 * batch * side * side
    if kind == "conv":
        return [Operation(pixels * i * j * channels**2, 2 * map_bytes)]
    return [Operation(pixels * i * j * channels, 2 * map_bytes), Operation(pixels * channels**2, 2 * map_bytes)]


def measured_roof(device: torch.device, precision: str, clock: Callable[[], float]) -> Roof:
    """Measure what a device can do.

    Args:
        device: The device.
        precision: "float32" or "bfloat16".
        clock: Seconds, read when the device has finished.
    """
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    side = 4096 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    x = torch.randn(64, 128, 16, 16, device=device, dtype=kind).to(memory_format=torch.channels_last)
    w = torch.randn(128, 128, 3, 3, device=device, dtype=kind).to(memory_format=torch.channels_last)
    source = torch.ones(64 << 20, device=device)
    target = torch.empty_like(source)

    def rates(amount: float, operation: Callable[[], object]) -> Iterator[float]:
        operation()
        for _ in range(7):
            began = clock()
            operation()
            yield amount / (clock() - began)

    products = rates(2.0 * side**3, lambda: a @ b)
    convolutions = rates(2.0 * 9 * 128 * 128 * 64 * 16 * 16, lambda: functional.conv2d(x, w, padding=1))
    copies = rates(2.0 * source.nbytes, lambda: target.copy_(source))
    return Roof(max(*products, *convolutions), max(copies))


def clock_of(device: torch.device) -> Callable[[], float]:
    """Processor time of the process on the CPU, which other load disturbs little; on a GPU the time when it is done."""
    if device.type != "cuda":
        return time.process_time

    def when_done() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return when_done
