"""One layer of the supernet: all its candidates, of which a batch uses one or two (section 3.2)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.convolution import SameConvolution, same_convolution
from trainables.operations import build_operation
from trainables.settings import BatchNormPlace


class Superkernel(nn.Module):
    """ReLU(x + BN(op(x))) where op is the sum of the candidates that were drawn.

    Every candidate owns its weights and, where ``batch_norm`` is "candidate", its batch norm, so that a batch changes
    those that it drew and no others.

    Args:
        names: The candidates, in the order of the columns of alpha.
        channels: Channels of input and output.
        batch_norm: Behind each candidate, or once behind their sum.
    """

    def __init__(self, names: Sequence[str], channels: int, batch_norm: BatchNormPlace) -> None:
        super().__init__()
        self.names = tuple(names)
        self.candidates = nn.ModuleList(build_operation(name, channels) for name in names)
        norms = len(names) if batch_norm == "candidate" else 1
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(norms))
        self._norm_each = batch_norm == "candidate"

    def forward(self, x: Tensor, drawn: Sequence[int], scales: Tensor | None = None) -> Tensor:
        """The layer's output through the drawn candidates.

        Args:
            x: [batch, channels, height, width].
            drawn: Columns of one or two candidates.
            scales: A factor for each of them, [len(drawn)] (eq. 2); None: the plain sum (eq. 1).

        Raises:
            ValueError: A user's own operation changed the shape.
        """
        factors: list[Tensor | None] = [None] * len(drawn) if scales is None else list(scales)
        if self._norm_each:
            total = self._normalised(x, drawn[0], factors[0])
            for column, factor in zip(drawn[1:], factors[1:], strict=True):
                total += self._normalised(x, column, factor)
        else:
            total = self.norms[0](self._sum(x, drawn, factors))
        # No gradient needs what a batch norm made, so it may be written over: memory traffic is a third of a step.
        total += x
        return functional.relu_(total)

    def parts_of(self, column: int) -> tuple[nn.Module, nn.Module]:
        """A candidate and the batch norm behind it, which all have in common where it stands behind their sum."""
        return self.candidates[column], self.norms[column if self._norm_each else 0]

    def weights_of(self, drawn: Sequence[int]) -> list[nn.Parameter]:
        """All weights that a batch with these candidates uses."""
        used = dict.fromkeys(part for column in drawn for part in self.parts_of(column))
        return [weight for module in used for weight in module.parameters()]

    def _output(self, x: Tensor, column: int) -> Tensor:
        y: Tensor = self.candidates[column](x)
        if y.shape != x.shape:
            raise ValueError(
                f"the operation {self.names[column]!r} made {tuple(y.shape)} of {tuple(x.shape)}: a candidate "
                "keeps [batch, channels, height, width]"
            )
        return y

    def _normalised(self, x: Tensor, column: int, factor: Tensor | None) -> Tensor:
        """factor * BN(op(x)), the factor being part of the batch norm's own."""
        norm = self.norms[column]
        assert isinstance(norm, nn.BatchNorm2d), "a norm is a batch norm"
        y = self._output(x, column)
        scale, shift = (norm.weight, norm.bias) if factor is None else (norm.weight * factor, norm.bias * factor)
        return functional.batch_norm(y, None, None, scale, shift, training=True, eps=norm.eps)

    def _sum(self, x: Tensor, drawn: Sequence[int], factors: Sequence[Tensor | None]) -> Tensor:
        """The sum of the drawn candidates' outputs, by one convolution where that is less work."""
        constant = not any(factor is not None and factor.requires_grad for factor in factors)
        kernels = self._kernels_in_one_window(drawn) if constant else None
        if kernels is None:
            return _weighted_sum([self._output(x, column) for column in drawn], factors)
        return same_convolution(x, _weighted_sum(kernels, factors), groups=1)

    def _kernels_in_one_window(self, drawn: Sequence[int]) -> list[Tensor] | None:
        """The drawn kernels in a window that holds them all; None if it has more taps than theirs together."""
        candidates = [self.candidates[column] for column in drawn]
        kernels = [candidate for candidate in candidates if isinstance(candidate, SameConvolution)]
        if len(kernels) < len(drawn):
            return None
        rows, columns = (max(sizes) for sizes in zip(*(kernel.odd_window for kernel in kernels), strict=True))
        if rows * columns > sum(kernel.taps for kernel in kernels):
            return None
        return [kernel.weight_in((rows, columns)) for kernel in kernels]


def _weighted_sum(terms: Sequence[Tensor], factors: Sequence[Tensor | None]) -> Tensor:
    scaled = [term if factor is None else term * factor for term, factor in zip(terms, factors, strict=True)]
    return functools.reduce(torch.add, scaled)
