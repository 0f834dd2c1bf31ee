"""The convolution of a candidate: any height and width, same size, few distinct shapes, a fast gradient on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Up to this width oneDNN has a kernel of its own for the weight gradient of a depthwise convolution.
_STRIP_COLUMNS = 3


class SameConvolution(nn.Conv2d):
    """A convolution without bias that keeps height and width, as padding="same" does.

    An even size has its odd pixel of padding below and to the right. It runs in the next odd window, whose first row or
    column is zero: the 81 kernels of a superkernel then have 25 shapes, for each of which libraries choose and keep an
    algorithm.

    Args:
        channels: Of input and output.
        i: Height of the kernel.
        j: Width of the kernel.
        depthwise: Whether each channel has a kernel of its own and sees no other.
    """

    def __init__(self, channels: int, i: int, j: int, depthwise: bool = False) -> None:
        groups = channels if depthwise else 1
        super().__init__(channels, channels, (i, j), padding=(i // 2, j // 2), groups=groups, bias=False)
        self.window = (i | 1, j | 1)

    def weight_in(self, window: tuple[int, int]) -> Tensor:
        """The kernel, centred in a window of odd height and width that is at least its own."""
        (rows, columns), (i, j) = window, self.kernel_size
        above, left = rows // 2 - (i - 1) // 2, columns // 2 - (j - 1) // 2
        if (rows, columns) == (i, j):
            return self.weight
        return functional.pad(self.weight, (left, columns - j - left, above, rows - i - above))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        return same_convolution(x, self.weight_in(self.window), self.groups)


def same_convolution(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Convolve [B, C, H, W] with an odd window [C', C / groups, i, j], keeping height and width."""
    i, j = weight.shape[2:]
    depthwise = groups == x.shape[1] > 1
    # A wider or, on a small map, higher window would fall to oneDNN's general kernel.
    slow = j > _STRIP_COLUMNS or 2 * (i // 2) >= x.shape[2]
    if depthwise and slow and weight.requires_grad and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        y: Tensor = _DepthwiseConvolution.apply(x, weight)
        return y
    return functional.conv2d(x, weight, padding=(i // 2, j // 2), groups=groups)


class _DepthwiseConvolution(torch.autograd.Function):
    """The same, with a gradient of the weight that is computed in strips of few columns.

    Any three neighbouring columns of the gradient are the weight gradient of a convolution of width three on an input
    that is shifted, and for that oneDNN has a fast kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return functional.conv2d(x, weight, padding=_padding(weight), groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x = _gradient(gradient, x, weight, _padding(weight), of_x=True) if ctx.needs_input_grad[0] else None
        of_weight = _weight_gradient(gradient, x, weight) if ctx.needs_input_grad[1] else None
        return of_x, of_weight


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """[channels, 1, i, j] for a depthwise convolution."""
    (i, j), width = weight.shape[2:], x.shape[3]
    padded = functional.pad(x, (j // 2, j // 2 + -j % _STRIP_COLUMNS, i // 2, i // 2))
    strips = []
    for left in range(0, j, _STRIP_COLUMNS):
        shifted = padded[..., left : left + width + _STRIP_COLUMNS - 1].contiguous(memory_format=torch.channels_last)
        shape_only = weight[..., :1].expand(-1, -1, -1, _STRIP_COLUMNS)
        strips.append(_gradient(gradient, shifted, shape_only, (0, 0), of_x=False))
    return torch.cat(strips, dim=3)[..., :j]


def _gradient(gradient: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], of_x: bool) -> Tensor:
    """Of a depthwise convolution's input or weight."""
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], x.shape[1], [of_x, not of_x, False]
    )
    return gradients[0] if of_x else gradients[1]


def _padding(weight: Tensor) -> tuple[int, int]:
    return weight.shape[2] // 2, weight.shape[3] // 2
