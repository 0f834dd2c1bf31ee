from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainables.data import Dataset, ImageSet
from trainables.epoch_plan import Phase
from trainables.search import Search


def _run(search: Search) -> Search:
    while not search.finished:
        search.run_batch()
    return search


def _tensors(search: Search) -> dict[str, Tensor]:
    parameters = search.parameters
    return {
        **search.supernet.state_dict(),
        **{f"momentum of {name}": buffer for name, buffer in search.optimizer.momentum.items()},
        "alpha": parameters.alpha,
        "second moment": parameters.second_moment,
        "frequency": search.sampler.frequency,
    }


def _assert_equal(one: Search, other: Search) -> None:
    tensors, others = _tensors(one), _tensors(other)
    assert tensors.keys() == others.keys()
    for name, value in tensors.items():
        assert torch.equal(value, others[name]), name
    assert one.position.best_val_accuracy == other.position.best_val_accuracy


def test_a_search_runs_its_horizon_and_anneals(make_search: Callable[..., Search]) -> None:
    search = make_search(horizon=4, k=0.2)
    ps = []
    while not search.finished:
        search.run_batch()
        if not search.in_epoch:
            ps.append(search.p)
    assert search.epochs == 4
    assert search.position.batches == 4 * len(search.plan)
    assert ps[0] == 1.0
    assert ps[-1] == 0.2
    # Each weight and each architecture batch drew two candidates in each layer; evaluation drew none.
    drawing = sum(batch.phase is not Phase.SELECTION for batch in search.plan)
    assert search.sampler.frequency.sum(1).tolist() == [4 * drawing * 2] * 2
    assert int(search.parameters.steps.sum()) == 4 * sum(batch.phase is Phase.ALPHA for batch in search.plan) * 2 * 2


def test_a_search_learns(make_search: Callable[..., Search]) -> None:
    search = make_search(horizon=20, pair_scale="mean", candidates="narrow")
    first = None
    while not search.finished:
        search.run_batch()
        first = first or search.position.last_epoch
    last = search.position.last_epoch
    assert first is not None
    assert last is not None
    assert last.train_loss < first.train_loss - 0.5
    assert search.position.best_val_accuracy > 0.6


def test_the_report_of_an_epoch_is_what_a_hand_count_gives(make_search: Callable[..., Search]) -> None:
    search = _run(make_search(horizon=1))
    result = search.position.last_epoch
    assert result is not None
    n = search.plan[-1].stop
    a = result.val_accuracy
    assert a * n == round(a * n)
    assert result.val_accuracy_stderr == pytest.approx(math.sqrt(a * (1 - a) / n))
    assert search.position.best_val_accuracy == a
    assert 0 < result.epoch_seconds < 60


@pytest.mark.parametrize("alternate", ["epoch", "step"])
def test_same_seed_same_search_and_another_seed_another(make_search: Callable[..., Search], alternate: str) -> None:
    one = _run(make_search(seed=5, alternate=alternate, horizon=2))
    torch.rand(3)  # The process's own generator has no say.
    _assert_equal(one, _run(make_search(seed=5, alternate=alternate, horizon=2)))
    other = _run(make_search(seed=6, alternate=alternate, horizon=2))
    assert not torch.equal(one.parameters.alpha, other.parameters.alpha)


def test_a_search_leaves_the_processs_generator_alone(make_search: Callable[..., Search]) -> None:
    before = torch.get_rng_state()
    _run(make_search(horizon=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_searches_of_a_sweep_share_their_splits_whatever_their_seeds(make_search: Callable[..., Search]) -> None:
    one, same, other = make_search(seed=1), make_search(seed=2), make_search(split_seed=1)
    assert one.splits_fingerprint == same.splits_fingerprint != other.splits_fingerprint


def test_a_horizon_told_in_mid_epoch_waits_for_its_end(make_search: Callable[..., Search]) -> None:
    search = make_search(horizon=6)
    while search.position.batches < len(search.plan) + 3:
        search.run_batch()
    before = search.clock
    search.settings = search.settings.model_copy(update={"horizon": 3})
    search.tell_horizon()
    assert search.clock == before == pytest.approx(1 / 5)
    _run(search)
    assert search.epochs == 3
    assert search.clock == 1.0
    assert search.position.history == [(0, 6), (len(search.plan) + 3, 3)]


def test_a_horizon_that_is_already_past_finishes_the_search_at_the_epochs_end(
    make_search: Callable[..., Search],
) -> None:
    search = make_search(horizon=6)
    while search.position.batches < 2 * len(search.plan) + 1:
        search.run_batch()
    search.settings = search.settings.model_copy(update={"horizon": 1})
    search.tell_horizon()
    assert not search.finished
    _run(search)
    assert search.epochs == 3


def test_without_a_horizon_there_is_one_epoch_and_it_is_that_of_any_horizon(make_search: Callable[..., Search]) -> None:
    search = make_search(horizon=None, objective="shared-accuracy")
    for _ in search.plan:
        search.run_batch()
    assert not search.finished
    state = {name: value.clone() for name, value in _tensors(search).items()}
    with pytest.raises(ValueError, match="epoch 2 needs a horizon"):
        search.run_batch()
    for name, value in _tensors(search).items():
        assert torch.equal(value, state[name]), name
    search.settings = search.settings.model_copy(update={"horizon": 3})
    search.tell_horizon()
    _assert_equal(_run(search), _run(make_search(horizon=3)))


def test_a_diverged_search_goes_on_and_says_so_by_its_accuracy(make_search: Callable[..., Search]) -> None:
    search = make_search(learning_rate=1e30)
    _run(search)
    assert search.position.last_epoch is not None
    assert not math.isfinite(search.position.last_epoch.train_loss)
    assert 0 <= search.position.last_epoch.val_accuracy < 0.4
    assert torch.isfinite(search.parameters.alpha).all()


def test_effective_candidates_run_from_all_to_one(make_search: Callable[..., Search]) -> None:
    search = make_search()
    assert search.effective_candidates() == pytest.approx([9.0, 9.0])
    assert search.alpha_entropy() == pytest.approx(math.log(9))
    search.parameters.alpha[0, 4] = 100.0
    assert search.effective_candidates() == pytest.approx([1.0, 9.0])
    assert search.sampling_probabilities().sum(1).tolist() == pytest.approx([1.0, 1.0])


def test_evaluation_batches_are_not_sorted_by_class(make_search: Callable[..., Search]) -> None:
    # Batch statistics of a single class would not be those of training.
    classes = 3
    labels = torch.arange(90) % classes
    images = torch.randint(256, (90, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    by_class = labels.sort().indices
    data = ImageSet(images[by_class], labels[by_class])
    dataset = Dataset("synthetic", data, data, ("a", "b", "c"), (0.5,), (0.3,), "fingerprint")
    search = make_search()
    settings = search.settings.model_copy(
        update={
            "data": search.settings.data.model_copy(update={"subset": None, "selection_images": 30}),
            "search": search.settings.search.model_copy(update={"batch_size": 10}),
        }
    )
    search = Search(settings, dataset, torch.device("cpu"))
    for batch in search.plan:
        if batch.phase is Phase.SELECTION:
            _, seen = search._images_of(batch, augment=False)
            assert len(set(seen.tolist())) > 1
    _run(search)


OWN = """
from torch import nn

class Dropped(nn.Sequential):
    def __init__(self, channels):
        super().__init__(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.Dropout(0.3))
"""


def test_an_operation_of_the_users_own_that_draws_is_as_reproducible(
    make_search: Callable[..., Search], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dropping_operations.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    candidates = ["conv3x3", "dropping_operations:Dropped", "identity"]
    one = _run(make_search(candidates=candidates, horizon=2))
    torch.rand(5)
    _assert_equal(one, _run(make_search(candidates=candidates, horizon=2)))
    assert not list(one.supernet.buffers())
    columns = one.parameters.argmax(one.sampler.frequency, torch.Generator()).tolist()
    assert one.architecture().operations == tuple(candidates[column] for column in columns)


@pytest.mark.parametrize(
    "changes",
    [
        {"candidates": "narrow"},
        {"batch_norm": "layer"},
        {"anneal": "paper"},
        {"alpha_optimizer": "sgd"},
        {"priors": {"conv3x3": 0.1}},
        {"reductions": []},
    ],
)
def test_every_setting_runs(make_search: Callable[..., Search], changes: dict[str, object]) -> None:
    if "priors" in changes:
        changes = {**changes, "K": 9}
    search = _run(make_search(horizon=2, **changes))
    assert search.position.best_val_accuracy >= 0
    assert len(search.architecture().operations) == 2
