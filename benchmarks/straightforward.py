"""The supernet as one would write it first: one nn.Sequential per candidate, nothing done for speed.

What the fast one must equal (the tests compare them in float64) and against which its speed is stated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.architecture import MacroShape
from trainables.candidates import kernel_of
from trainables.settings import SearchSettings
from trainables.supernet import MacroNetwork, Supernet, use_batch_statistics


def candidate(name: str, channels: int) -> nn.Sequential:
    """A convolution, or a depthwise and a pointwise one."""
    kernel = kernel_of(name)
    assert kernel is not None, f"{name} is no kernel"
    kind, i, j = kernel
    if kind == "conv":
        return nn.Sequential(nn.Conv2d(channels, channels, (i, j), padding="same", bias=False))
    return nn.Sequential(
        nn.Conv2d(channels, channels, (i, j), padding="same", groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
    )


class StraightforwardLayer(nn.Module):
    """ReLU(x + BN(op(x))), the candidates one after the other."""

    def __init__(self, names: Sequence[str], channels: int, norm_each: bool) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidate(name, channels) for name in names)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in (names if norm_each else [0]))
        self.norm_each = norm_each

    def forward(self, x: Tensor, drawn: Sequence[int], scales: Tensor | None) -> Tensor:
        """As ``Superkernel.forward``."""
        total = torch.zeros_like(x)
        for position, column in enumerate(drawn):
            y = self.candidates[column](x)
            if self.norm_each:
                y = self.norms[column](y)
            total = total + (y if scales is None else scales[position] * y)
        if not self.norm_each:
            total = self.norms[0](total)
        return functional.relu(x + total)


class StraightforwardSupernet(MacroNetwork):
    """The supernet of such layers, in PyTorch's default memory format."""

    def __init__(self, settings: SearchSettings, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(
            MacroShape(image_shape, classes, settings.layers, settings.reductions, settings.channels),
            lambda number, channels: StraightforwardLayer(
                settings.candidate_names, channels, settings.batch_norm == "candidate"
            ),
        )
        use_batch_statistics(self)

    def forward(self, images: Tensor, drawn: Sequence[Sequence[int]], scales: Tensor | None = None) -> Tensor:
        """As ``Supernet.forward``."""
        x: Tensor = self.stem(images)
        for index, layer in enumerate(self.layers):
            if str(index + 1) in self.reductions:
                x = self.reductions[str(index + 1)](x)
            x = layer(x, drawn[index], None if scales is None else scales[index])
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits

    def take_weights(self, supernet: Supernet) -> None:
        """Become a copy of a supernet that was made of the same settings."""
        self.load_state_dict(
            {name: theirs for name, theirs in zip(self.state_dict(), supernet.state_dict().values(), strict=True)}
        )
