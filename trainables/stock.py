"""Found networks out of PyTorch's own parts: to be used without this package, exported and counted."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trainables.architecture import Architecture
from trainables.convolution import SameConvolution
from trainables.supernet import DerivedNetwork, build_network


def stock_network(network: DerivedNetwork) -> DerivedNetwork:
    """The same network with PyTorch's convolutions in place of ours; it computes the same with the same weights.

    Args:
        network: Changed in place; it keeps its weights and their names.
    """
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, SameConvolution):
                setattr(part, name, _stock_convolution(child))
    return network


def _stock_convolution(convolution: SameConvolution) -> nn.Conv2d:
    i, j = convolution.kernel_size
    with torch.device("meta"):
        stock = nn.Conv2d(
            convolution.in_channels,
            convolution.out_channels,
            (i, j),
            # Where both are odd, as numbers: every exporter knows them.
            padding=(i // 2, j // 2) if i % 2 and j % 2 else "same",
            groups=convolution.groups,
            bias=False,
        )
    stock.weight = convolution.weight
    return stock


def count_multiply_adds(architecture: Architecture) -> int:
    """Multiply-adds of convolutions and linear layers for one image, by PyTorch's own counter of operations.

    Batch norms, additions and poolings are not counted, as is usual.
    """
    channels, height, width = architecture.macro.image_shape
    with torch.device("meta"):
        network = stock_network(build_network(architecture)).eval()
        image = torch.empty(1, channels, height, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), without_padding_warning():
        network(image)
    return int(counter.get_total_flops()) // 2


def widened(architecture: Architecture, multiply_adds: int) -> Architecture:
    """The same operations with the channels at which multiply-adds come nearest to some amount.

    Args:
        architecture: The network.
        multiply_adds: As :func:`count_multiply_adds` counts them; above 0.
    """

    def of(channels: int) -> Architecture:
        return replace(architecture, macro=replace(architecture.macro, channels=channels))

    above = 1
    while count_multiply_adds(of(above)) < multiply_adds:
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if count_multiply_adds(of(middle)) < multiply_adds else (below, middle)
    counts = {channels: count_multiply_adds(of(channels)) for channels in (below, above) if channels}
    return of(min(counts, key=lambda channels: abs(counts[channels] - multiply_adds)))


def latency_seconds(architecture: Architecture, device: torch.device) -> float:
    """Wall seconds that the network takes for one image, on a CPU in one thread; the median of a second of runs."""
    # Imported here alone, as it looks for compilers, and says so.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    channels, height, width = architecture.macro.image_shape
    network = stock_network(build_network(architecture)).eval().to(device)
    image = torch.rand(1, channels, height, width, device=device)
    with torch.inference_mode(), without_padding_warning():
        timer = Timer("network(image)", globals={"network": network, "image": image}, num_threads=1)
        return float(timer.blocked_autorange(min_run_time=1.0).median)


@contextmanager
def without_padding_warning() -> Iterator[None]:
    """Within, PyTorch does not say that an even kernel's input may be copied to be padded."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
        yield
