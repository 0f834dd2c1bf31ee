from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from trainables.sampling import (
    Sampler,
    draw_pairs,
    entropy,
    exploiting_log_probabilities,
    exploring_log_probabilities,
    random_stream,
    stream_seed,
)

DRAWS = 60_000
FREQUENCY = torch.tensor([3, 0, 1, 2, 1, 5])
ALPHA = torch.tensor([0.02, -0.01, 0.05, 0.0, 0.03, -0.04], dtype=torch.float64)


def _eq_3() -> Tensor:
    weights = torch.exp(-FREQUENCY.double())
    return weights / weights.sum()


def _eq_4(lambda_: float) -> Tensor:
    weights = torch.exp(ALPHA / lambda_)
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("log_probabilities", "expected"),
    [
        (lambda: exploring_log_probabilities(FREQUENCY), _eq_3),
        (lambda: exploiting_log_probabilities(ALPHA, 0.03), lambda: _eq_4(0.03)),
        (lambda: exploiting_log_probabilities(ALPHA, 1.0), lambda: _eq_4(1.0)),
    ],
    ids=["P1", "P2", "P2 soft"],
)
def test_draws_follow_the_paper(log_probabilities: Callable[[], Tensor], expected: Callable[[], Tensor]) -> None:
    probability = expected()
    pairs = draw_pairs(log_probabilities().expand(DRAWS, -1), random_stream(7, "test"))
    first, second = pairs[:, 0], pairs[:, 1]
    observed = torch.bincount(first, minlength=6)
    assert stats.chisquare(observed.numpy(), (probability * DRAWS).numpy()).pvalue > 0.01
    # The second draw, given each first one that is frequent enough: the rest, renormalised.
    for column in range(6):
        given = second[first == column]
        rest = probability.clone()
        rest[column] = 0
        rest /= rest.sum()
        others = [other for other in range(6) if other != column and rest[other] * len(given) > 5]
        if len(others) < 5:
            continue
        counts = torch.bincount(given, minlength=6)
        assert counts[column] == 0
        assert stats.chisquare(counts[others].numpy(), (rest[others] * len(given)).numpy()).pvalue > 0.001


def test_a_layer_explores_with_probability_p() -> None:
    # P1 and P2 each prefer one candidate beyond doubt, so that the first draw tells the policy.
    sampler = Sampler(layers=20_000, candidates=3, lambda_=1e-3)
    sampler.frequency[:, 1:] = 100
    alpha = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(20_000, -1)
    first = sampler.draw(alpha, 0.3, random_stream(1, "test"))[:, 0]
    explored = int((first == 0).sum())
    assert explored + int((first == 2).sum()) == 20_000
    assert stats.binomtest(explored, 20_000, 0.3).pvalue > 0.01


@pytest.mark.parametrize(("p", "column"), [(1.0, 0), (0.0, 2)])
def test_at_the_ends_only_one_policy_draws(p: float, column: int) -> None:
    sampler = Sampler(layers=1000, candidates=3, lambda_=1e-3)
    sampler.frequency[:, 1:] = 100
    alpha = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(1000, -1)
    assert (sampler.draw(alpha, p, random_stream(1, "test"))[:, 0] == column).all()


def test_a_softmax_that_is_one_hot_still_gives_a_fair_second_candidate() -> None:
    alpha = torch.tensor([5.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    log_probabilities = exploiting_log_probabilities(alpha, 1e-3)
    assert log_probabilities.exp().float().tolist() == [1.0, 0.0, 0.0, 0.0]
    pairs = draw_pairs(log_probabilities.expand(3000, -1), random_stream(3, "test"))
    assert (pairs[:, 0] == 0).all()
    assert stats.chisquare(torch.bincount(pairs[:, 1], minlength=4)[1:].numpy()).pvalue > 0.01


def test_limits_of_lambda() -> None:
    uniform = exploiting_log_probabilities(ALPHA, 1e9)
    assert torch.allclose(uniform.exp(), torch.full((6,), 1 / 6, dtype=torch.float64))
    hard = exploiting_log_probabilities(ALPHA, 1e-9)
    assert torch.isfinite(hard).all()
    assert hard.argmax() == 2


def test_every_draw_counts_and_the_pair_differs() -> None:
    sampler = Sampler(layers=4, candidates=5, lambda_=0.1)
    alpha = torch.zeros(4, 5, dtype=torch.float64)
    for batch in range(50):
        pairs = sampler.draw(alpha, 0.5, random_stream(0, "draw", batch))
        assert (pairs[:, 0] != pairs[:, 1]).all()
    assert (sampler.frequency.sum(1) == 100).all()


def test_exploring_alone_keeps_frequencies_together() -> None:
    sampler = Sampler(layers=3, candidates=9, lambda_=0.1)
    alpha = torch.zeros(3, 9, dtype=torch.float64)
    for batch in range(90):
        sampler.draw(alpha, 1.0, random_stream(0, "draw", batch))
    assert (sampler.frequency - 20).abs().max() <= 3


def test_streams_are_functions_of_seed_purpose_and_position() -> None:
    seeds = {stream_seed(s, purpose, *position) for s in (0, 1) for purpose in "ab" for position in ((), (0,), (1, 2))}
    assert len(seeds) == 12
    assert stream_seed(3, "draw", 5) == 2593828337411746288
    a, b = random_stream(3, "draw", 5), random_stream(3, "draw", 5)
    assert torch.equal(torch.rand(4, generator=a), torch.rand(4, generator=b))


def test_entropy_of_certainty_and_of_ignorance() -> None:
    log_probabilities = torch.log_softmax(torch.tensor([[0.0, -1e9, -1e9], [0.0, 0.0, 0.0]], dtype=torch.float64), -1)
    assert entropy(log_probabilities).exp().tolist() == pytest.approx([1.0, 3.0])
