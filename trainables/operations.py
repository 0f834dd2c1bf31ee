"""Candidate operations: maps from [batch, channels, height, width] to the same shape."""

from __future__ import annotations

import importlib

from torch import nn

from trainables.candidates import check_name, check_window, is_import_path, kernel_of
from trainables.convolution import SameConvolution


def convolution(channels: int, i: int, j: int) -> nn.Module:
    """A standard convolution of height i and width j, without bias, as batch norm follows."""
    return SameConvolution(channels, i, j)


def separable_convolution(channels: int, i: int, j: int) -> nn.Module:
    """A depthwise convolution of height i and width j, then a pointwise one; neither has a bias."""
    return nn.Sequential(SameConvolution(channels, i, j, depthwise=True), SameConvolution(channels, 1, 1))


def pooling(kind: str, i: int, j: int) -> nn.Module:
    """Average or maximum over windows of odd height i and width j; padding does not count in the average."""
    check_window(kind, i, j)
    padding = (i // 2, j // 2)
    if kind == "max_pool":
        return nn.MaxPool2d((i, j), stride=1, padding=padding)
    return nn.AvgPool2d((i, j), stride=1, padding=padding, count_include_pad=False)


def own_operation(path: str, channels: int) -> nn.Module:
    """A user's own operation "package.module:Class", called as Class(channels).

    Raises:
        ValueError: It cannot be imported or does not make a Module.
    """
    module_name, _, class_name = path.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"cannot import the operation {path!r}: {error}; it is written package.module:Class, and the package must "
            "be importable where the trial runs"
        ) from error
    operation = factory(channels)
    if not isinstance(operation, nn.Module):
        raise ValueError(f"the operation {path!r} made a {type(operation).__name__}, not a torch.nn.Module")
    return operation


def build_operation(name: str, channels: int) -> nn.Module:
    """The operation of that name (see ``candidates.check_name``) with fresh weights.

    Raises:
        ValueError: No operation can be built from the name.
    """
    check_name(name)
    if is_import_path(name):
        return own_operation(name, channels)
    kernel = kernel_of(name)
    if kernel is None:
        return nn.Identity()
    kind, i, j = kernel
    if kind == "conv":
        return convolution(channels, i, j)
    if kind == "sepconv":
        return separable_convolution(channels, i, j)
    return pooling(kind, i, j)
