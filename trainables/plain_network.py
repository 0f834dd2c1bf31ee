"""A trained network as a module that needs nothing but PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from trainables.stock import stock_network
from trainables.supernet import DerivedNetwork


class _WithNormalisation(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, network: DerivedNetwork, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        # A channel that never changes has no scale; rounding may have left it a tiny one.
        self.register_buffer("std", torch.tensor([value if value > 1e-6 else 1.0 for value in std]).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def plain_network(network: DerivedNetwork, mean: Sequence[float], std: Sequence[float]) -> fx.GraphModule:
    """A network of PyTorch's own modules, with the normalisation in front, in evaluation mode.

    It can be trained, saved by ``torch.save`` and loaded where only PyTorch is installed, unless operations of the
    user's own are among its layers: these need their package.

    Args:
        network: With its weights, which are shared, not copied.
        mean: Of each channel, in [0, 1].
        std: Standard deviation, likewise.

    Returns:
        A module from images, float32 [B, C, H, W] in [0, 1], to logits [B, classes].
    """

    # A class within the function, as the module would keep, and so need, one that can be imported.
    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            """Only this package's own modules are taken apart; an operation of the user's own stays what it is."""
            return not (m.__module__.startswith("trainables.") or isinstance(m, nn.Sequential))

    whole = _WithNormalisation(stock_network(network), mean, std).eval()
    return fx.GraphModule(whole, Tracer().trace(whole), "FoundNetwork").eval()
