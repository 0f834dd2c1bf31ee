from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from trainables.momentum_sgd import MomentumSGD
from trainables.sampling import random_stream


@pytest.mark.parametrize("gradient_clip", [0.5, 1e9])
def test_it_computes_what_torchs_own_does(gradient_clip: float) -> None:
    generator = random_stream(0, "test")
    shapes = [(3,), (4, 2), (2, 3, 3, 3)]
    ours = {str(n): nn.Parameter(torch.randn(shape, generator=generator)) for n, shape in enumerate(shapes)}
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours.values()]
    optimizer = MomentumSGD(ours.items(), momentum=0.9, weight_decay=0.01, gradient_clip=gradient_clip)
    reference = torch.optim.SGD(theirs, lr=0.0, momentum=0.9, weight_decay=0.01)
    for step in range(20):
        rate = 0.1 / (step + 1)
        for number, (one, other) in enumerate(zip(ours.values(), theirs, strict=True)):
            # Some have no gradient now and then, and the last has its first one late.
            drawn = (step + number) % 3 and (number < 2 or step > 7)
            one.grad = torch.randn(one.shape, generator=generator) if drawn else None
            other.grad = None if one.grad is None else one.grad.clone()
        nn.utils.clip_grad_norm_(theirs, gradient_clip)
        reference.param_groups[0]["lr"] = rate
        reference.step()
        optimizer.step(rate, ours.values())
        for one, other in zip(ours.values(), theirs, strict=True):
            assert torch.equal(one, other)
            assert one.grad is None


def test_what_has_no_gradient_stays_with_its_momentum() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = MomentumSGD({"used": used, "unused": unused}.items(), 0.9, weight_decay=0.1, gradient_clip=5.0)
    unused.grad = torch.ones(2)
    optimizer.step(0.1, [used, unused])
    before, momentum = unused.detach().clone(), optimizer.momentum["unused"].clone()
    used.grad = torch.ones(2)
    optimizer.step(0.1, [used, unused])
    assert torch.equal(unused, before)
    assert torch.equal(optimizer.momentum["unused"], momentum)
    assert not torch.equal(used, torch.ones(2))


def test_the_whole_gradient_is_clipped() -> None:
    weights = {name: nn.Parameter(torch.zeros(4)) for name in "ab"}
    for parameter in weights.values():
        parameter.grad = torch.full((4,), 100.0)
    MomentumSGD(weights.items(), 0.9, weight_decay=0.0, gradient_clip=0.5).step(1.0, weights.values())
    norm = math.sqrt(sum(float(parameter.detach().square().sum()) for parameter in weights.values()))
    assert norm == pytest.approx(0.5, rel=1e-5)


def test_a_worker_does_not_pay_for_the_compiler() -> None:
    code = """
import sys, torch
from trainables.momentum_sgd import MomentumSGD
weight = torch.nn.Parameter(torch.ones(2))
weight.sum().backward()
MomentumSGD([("weight", weight)], 0.9, 0.0, 1.0).step(0.1, [weight])
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
