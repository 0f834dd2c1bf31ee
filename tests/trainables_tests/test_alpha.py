from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from trainables.alpha import ArchitectureParameters
from trainables.sampling import random_stream
from trainables.settings import SearchSettings

SMALL = SearchSettings(layers=3, reductions=(), m=3)


def _columns(generator: torch.Generator) -> Tensor:
    return torch.rand(3, 9, generator=generator).topk(2).indices


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_only_drawn_entries_change(optimizer: Literal["adam", "sgd"]) -> None:
    parameters = ArchitectureParameters(SMALL.model_copy(update={"alpha_optimizer": optimizer}))
    generator = random_stream(0, "test")
    for _ in range(30):
        before = {
            name: getattr(parameters, name).clone() for name in ("alpha", "first_moment", "second_moment", "steps")
        }
        pairs = _columns(generator)
        parameters.update(pairs, torch.randn(3, 2, generator=generator))
        undrawn = torch.ones(3, 9, dtype=torch.bool).scatter_(1, pairs, False)
        for name, value in before.items():
            assert torch.equal(getattr(parameters, name)[undrawn], value[undrawn]), name
        assert (parameters.alpha != before["alpha"])[~undrawn].all()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_an_entry_moves_as_under_torchs_own_optimizer(optimizer: Literal["adam", "sgd"]) -> None:
    settings = SMALL.model_copy(update={"alpha_optimizer": optimizer})
    parameters = ArchitectureParameters(settings)
    generator = random_stream(1, "test")
    entries = [[torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(9)] for _ in range(3)]
    optimizers = [
        [
            torch.optim.Adam([entry], lr=settings.alpha_learning_rate, betas=(0.0, 0.999))
            if optimizer == "adam"
            else torch.optim.SGD([entry], lr=settings.alpha_learning_rate, momentum=0.9)
            for entry in row
        ]
        for row in entries
    ]
    for _ in range(40):
        pairs, gradient = _columns(generator), torch.randn(3, 2, dtype=torch.float64, generator=generator)
        parameters.update(pairs, gradient)
        for layer in range(3):
            for place, column in enumerate(pairs[layer].tolist()):
                entries[layer][column].grad = gradient[layer, place]
                optimizers[layer][column].step()
    expected = torch.stack([torch.stack(row) for row in entries])
    assert torch.allclose(parameters.alpha, expected, rtol=1e-10)


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    parameters = ArchitectureParameters(SMALL.model_copy(update={"alpha_optimizer": "sgd"}))
    pairs = torch.tensor([[0, 1]] * 3)
    parameters.update(pairs, torch.tensor([[float("nan"), float("inf")]] * 3))
    assert (parameters.alpha == 0).all()


def _argmax(parameters: ArchitectureParameters, frequency: Tensor, seed: int = 0) -> list[int]:
    columns: list[int] = parameters.argmax(frequency, random_stream(seed, "test")).tolist()
    return columns


def test_priors_are_the_initial_alpha_and_decide_ties() -> None:
    settings = SearchSettings(layers=3, reductions=(), m=3, priors={"conv2x3": 0.5, "conv3x3": -1.0})
    parameters = ArchitectureParameters(settings)
    names = settings.candidate_names
    assert parameters.alpha[:, names.index("conv2x3")].tolist() == [0.5] * 3
    frequency = torch.zeros(3, 9, dtype=torch.int64)
    assert _argmax(parameters, frequency) == [names.index("conv2x3")] * 3
    # Equal alpha again, reached from other priors: the larger prior wins over a higher frequency.
    parameters.alpha[:] = 1.0
    frequency[:, 0] = 10
    assert _argmax(parameters, frequency) == [names.index("conv2x3")] * 3


def test_ties_go_to_the_higher_frequency_then_to_a_draw() -> None:
    parameters = ArchitectureParameters(SMALL)
    frequency = torch.zeros(3, 9, dtype=torch.int64)
    frequency[:, 4] = frequency[:, 7] = 3
    found = {tuple(_argmax(parameters, frequency, seed)) for seed in range(60)}
    assert {column for columns in found for column in columns} == {4, 7}
    assert len(found) == 8
    assert _argmax(parameters, frequency, 5) == _argmax(parameters, frequency, 5)


def test_the_largest_alpha_wins_over_everything() -> None:
    parameters = ArchitectureParameters(SMALL)
    parameters.alpha[0, 3] = parameters.alpha[1, 8] = parameters.alpha[2, 0] = 1e-12
    frequency = torch.arange(27).view(3, 9).flip(1)
    assert _argmax(parameters, frequency) == [3, 8, 0]
