"""The fast supernet against the one that is written without a thought of speed, in float64."""

from __future__ import annotations

import random

import pytest
import torch
from straightforward import StraightforwardSupernet
from torch import Tensor
from torch.nn import functional

from trainables.alpha import ArchitectureParameters
from trainables.search_step import architecture_step, count_correct
from trainables.settings import BatchNormPlace, SearchSettings
from trainables.supernet import Supernet

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

TOLERANCE = 1e-10


def _settings(rng: random.Random, batch_norm: BatchNormPlace) -> SearchSettings:
    layers = rng.randint(1, 4)
    return SearchSettings(
        layers=layers,
        reductions=tuple(sorted(rng.sample(range(1, layers + 1), rng.randint(0, min(2, layers))))),
        channels=rng.choice([1, 2, 3, 5, 8]),
        m=rng.randint(2, 11),
        K=rng.choice([0, 4, 9, 20]),
        batch_norm=batch_norm,
    )


def _both(
    settings: SearchSettings, shape: tuple[int, int, int], classes: int
) -> tuple[Supernet, StraightforwardSupernet]:
    ours = Supernet(settings, shape, classes).double()
    theirs = StraightforwardSupernet(settings, shape, classes).double()
    theirs.take_weights(ours)
    return ours, theirs


def _close(ours: Tensor | None, theirs: Tensor | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return bool((ours - theirs).abs().max() <= TOLERANCE * (1 + theirs.abs().max()))


@pytest.mark.parametrize("batch_norm", ["candidate", "layer"])
@pytest.mark.parametrize("seed", range(12))
def test_outputs_and_gradients_of_both_steps_are_equal(seed: int, batch_norm: BatchNormPlace) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    settings = _settings(rng, batch_norm)
    shape = rng.choice([1, 3]), rng.randint(7, 12), rng.randint(7, 12)
    ours, theirs = _both(settings, shape, 4)
    for _ in range(4):
        images = torch.randn(6, *shape, dtype=torch.float64)
        drawn = torch.rand(settings.layers, settings.m**2).topk(2).indices.tolist()
        scales = torch.rand(settings.layers, 2, dtype=torch.float64, requires_grad=True)
        half = torch.full_like(scales, 0.5, requires_grad=False)
        for factors in (None, half, scales):
            outputs = [net(images, drawn, factors) for net in (ours, theirs)]
            assert _close(*outputs)
            wanted = [scales] if factors is scales else []
            direction = torch.randn_like(outputs[0])
            found = [
                torch.autograd.grad(output, [*net.parameters(), *wanted], direction, allow_unused=True)
                for output, net in zip(outputs, (ours, theirs), strict=True)
            ]
            for name, one, other in zip([*dict(ours.named_parameters()), "scales"], *found, strict=False):
                assert _close(one, other), (name, settings)
        one_each = [(columns[0],) for columns in drawn]
        with torch.no_grad():
            assert _close(ours(images, one_each), theirs(images, one_each))


@pytest.mark.parametrize("batch_norm", ["candidate", "layer"])
def test_the_steps_themselves_are_equal(batch_norm: BatchNormPlace) -> None:
    settings = SearchSettings(layers=3, reductions=(2,), channels=4, m=6, batch_norm=batch_norm, alpha_optimizer="sgd")
    ours, theirs = _both(settings, (3, 9, 9), 5)
    parameters = ArchitectureParameters(settings)
    for _ in range(5):
        images, labels = torch.randn(8, 3, 9, 9, dtype=torch.float64), torch.randint(5, (8,))
        pairs = torch.rand(3, 36).topk(2).indices
        before = parameters.alpha.clone()
        leaf = before.gather(1, pairs).requires_grad_()
        loss = functional.cross_entropy(theirs(images, pairs.tolist(), torch.softmax(leaf, dim=1)), labels)
        (gradient,) = torch.autograd.grad(loss, leaf)
        moments = parameters.first_moment.gather(1, pairs)
        assert _close(architecture_step(ours, parameters, images, labels, pairs), loss.detach())
        moved = (before - parameters.alpha).gather(1, pairs)
        assert _close(moved, settings.alpha_learning_rate * (settings.momentum * moments + gradient))
        one_each = pairs[:, :1].tolist()
        correct = (theirs(images, one_each).argmax(dim=1) == labels).sum()
        assert int(count_correct(ours, images, labels, pairs[:, 0].tolist())) == int(correct)
