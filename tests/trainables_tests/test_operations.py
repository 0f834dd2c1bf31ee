from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.candidates import NARROW_NAMES, check_name, kernel_of, superkernel_names
from trainables.operations import build_operation


def test_the_superkernel_of_the_paper() -> None:
    names = superkernel_names(9, 9)
    assert len(names) == len(set(names)) == 81
    for name in names:
        kind, i, j = kernel_of(name) or ("", 0, 0)
        assert 1 <= i <= 9
        assert 1 <= j <= 9
        assert kind == ("conv" if i * j <= 9 else "sepconv")
    assert {"conv3x3", "conv1x9", "conv9x1", "sepconv2x5", "sepconv9x9"} <= set(names)


@pytest.mark.parametrize("name", [*superkernel_names(9, 9), *NARROW_NAMES])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 7)])
def test_every_operation_keeps_the_shape(name: str, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    assert build_operation(name, 3)(x).shape == x.shape


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(("i", "j"), [(1, 1), (3, 3), (2, 2), (1, 4), (8, 3), (6, 9)])
def test_a_convolution_equals_the_plain_one_in_output_and_gradient(i: int, j: int) -> None:
    operation = build_operation(f"conv{i}x{j}", 3)
    x = torch.randn(2, 3, 10, 11, dtype=torch.float64, requires_grad=True)
    (weight,) = operation.double().parameters()
    plain = functional.conv2d(x, weight, padding="same")
    ours = operation(x)
    assert torch.equal(ours, plain)
    g = torch.randn_like(plain)
    gradients = [torch.autograd.grad(y, (x, weight), g) for y in (ours, plain)]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


def test_an_even_kernel_sits_in_the_middle() -> None:
    operation = build_operation("conv2x4", 1)
    (weight,) = operation.parameters()
    nn.init.ones_(weight)
    x = torch.zeros(1, 1, 7, 7)
    x[0, 0, 3, 3] = 1
    rows, columns = operation(x)[0, 0].nonzero().unbind(1)
    assert sorted(set(rows.tolist())) == [2, 3]
    assert sorted(set(columns.tolist())) == [1, 2, 3, 4]


def test_separable_is_depthwise_then_pointwise() -> None:
    depthwise, pointwise = build_operation("sepconv5x3", 6).parameters()
    assert depthwise.shape == (6, 1, 5, 3)
    assert pointwise.shape == (6, 6, 1, 1)


def test_pooling() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert build_operation("max_pool3x3", 1)(x)[0, 0].tolist() == [[4, 5, 5], [7, 8, 8], [7, 8, 8]]
    assert build_operation("avg_pool3x3", 1)(x)[0, 0, 0].tolist() == [2.0, 2.5, 3.0]
    assert torch.equal(build_operation("identity", 1)(x), x)
    with pytest.raises(ValueError, match="odd height and width"):
        build_operation("max_pool2x2", 1)
    with pytest.raises(ValueError, match="avg_pool3x4: a pooling window has odd height and width"):
        check_name("avg_pool3x4")


OWN = """
from torch import nn

class Scale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.norm(x))

def number(channels):
    return channels
"""


def test_an_operation_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_operations.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    operation = build_operation("own_operations:Scale", 4)
    x: Tensor = torch.randn(2, 4, 5, 5)
    assert operation(x).shape == x.shape
    with pytest.raises(ValueError, match=r"made a int, not a torch\.nn\.Module"):
        build_operation("own_operations:number", 4)
    with pytest.raises(ValueError, match=r"cannot import the operation 'own_operations:Missing'.*package.module:Class"):
        build_operation("own_operations:Missing", 4)
    with pytest.raises(ValueError, match="cannot import the operation 'no_such_package:Missing'"):
        build_operation("no_such_package:Missing", 4)


@pytest.mark.parametrize("name", ["conv", "conv03x3", "conv3x3x3", "dilconv3x3", "module.Class", ""])
def test_an_unknown_name_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"no operation is called.*convIxJ"):
        build_operation(name, 4)
