"""The convolution of a candidate: any height and width, same size, few distinct shapes, a fast gradient on CPUs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Up to this width oneDNN has a kernel of its own for the weight gradient of a depthwise convolution.
_STRIP_COLUMNS = 3


# More work than this for the sake of an odd window costs more than a padded copy of the input.
_MOST_WORK_IN_ODD_WINDOW = 4 / 3


class SameConvolution(nn.Conv2d):
    """A convolution without bias that keeps height and width, as padding="same" does.

    An even size has its odd pixel of padding below and to the right. Such a kernel runs in the next odd window, of
    which the first row or column is zero, so that nothing has to be copied, and the 81 kernels of a superkernel have
    few shapes for each of which libraries choose and keep an algorithm. Only small standard kernels, whose odd window
    would be far more work, get a padded copy of the input.

    Args:
        channels: Of input and output.
        i: Height of the kernel.
        j: Width of the kernel.
        depthwise: Whether each channel has a kernel of its own and sees no other.

    Attributes:
        odd_window: The least odd height and width that hold the kernel.
        taps: Of the window in which it runs.
    """

    def __init__(self, channels: int, i: int, j: int, depthwise: bool = False) -> None:
        super().__init__(channels, channels, (i, j), groups=channels if depthwise else 1, bias=False)
        self.odd_window = (i | 1, j | 1)
        odd_taps = self.odd_window[0] * self.odd_window[1]
        self._runs_in_odd_window = depthwise or odd_taps <= _MOST_WORK_IN_ODD_WINDOW * i * j
        self.taps = odd_taps if self._runs_in_odd_window else i * j

    def weight_in(self, window: tuple[int, int]) -> Tensor:
        """The kernel, centred in a window of odd height and width that is at least its own."""
        (rows, columns), (i, j) = window, self.kernel_size
        if (rows, columns) == (i, j):
            return self.weight
        above, left = rows // 2 - (i - 1) // 2, columns // 2 - (j - 1) // 2
        return functional.pad(self.weight, (left, columns - j - left, above, rows - i - above))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        if self._runs_in_odd_window:
            return same_convolution(x, self.weight_in(self.odd_window), self.groups)
        i, j = self.kernel_size
        return functional.conv2d(functional.pad(x, ((j - 1) // 2, j // 2, (i - 1) // 2, i // 2)), self.weight)


def same_convolution(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Convolve [B, C, H, W] with an odd window [C', C / groups, i, j], keeping height and width."""
    weight = _reaching(weight, x)
    own_gradients = torch.is_grad_enabled() and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if groups == x.shape[1] > 1 and own_gradients:
        y: Tensor = _DepthwiseConvolution.apply(x, weight)
        return y
    return functional.conv2d(x, weight, padding=_padding(weight), groups=groups)


def _reaching(weight: Tensor, x: Tensor) -> Tensor:
    """An odd window without the rows and columns that see nothing but padding, wherever it stands on so small a map."""
    for dimension in (2, 3):
        beyond = weight.shape[dimension] // 2 - (x.shape[dimension] - 1)
        if beyond > 0:
            weight = weight.narrow(dimension, beyond, weight.shape[dimension] - 2 * beyond)
    return weight


class _DepthwiseConvolution(torch.autograd.Function):
    """A depthwise convolution whose gradients avoid what oneDNN is slow at.

    The gradient of the input is the convolution of the output's with the kernel turned around, and forwards oneDNN is
    faster. That of the weight is put together from strips of few columns: neighbouring columns of it are the gradient
    of a narrower convolution on an input that is shifted, and only up to three columns oneDNN has a fast kernel for it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return functional.conv2d(x, weight, padding=_padding(weight), groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = functional.conv2d(gradient, weight.flip(2, 3), padding=_padding(weight), groups=gradient.shape[1])
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(gradient, x, weight)
        return of_x, of_weight


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """[channels, 1, i, j] for a depthwise convolution."""
    i, j = weight.shape[2:]
    # Of so high a window on a map of so few rows oneDNN's fast kernel cannot do the padding.
    rows = i // 2 if 2 * (i // 2) >= x.shape[2] else 0
    strips = []
    for start, stop in pairwise(_strip_borders(j)):
        left, right = j // 2 - start, stop - 1 - j // 2
        shifted, padding = x, (i // 2 - rows, left)
        if rows or left != right:
            shifted, padding = functional.pad(x, (left, right, rows, rows)), (i // 2 - rows, 0)
        strips.append(_strip_gradient(gradient, shifted, weight[..., start:stop], padding))
    return torch.cat(strips, dim=3) if len(strips) > 1 else strips[0]


def _strip_gradient(gradient: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    found: tuple[Tensor | None, Tensor, Tensor | None] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], x.shape[1], [False, True, False]
    )
    return found[1]


def _strip_borders(columns: int) -> list[int]:
    """Where an odd number of columns is cut: the strip in the middle needs no shifted copy of the input."""
    cuts = range(columns // 2 - _STRIP_COLUMNS // 2, 0, -_STRIP_COLUMNS)
    return [0, *reversed(cuts), *(columns - cut for cut in cuts), columns]


def _padding(weight: Tensor) -> tuple[int, int]:
    return weight.shape[2] // 2, weight.shape[3] // 2
