from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import ray
import torch
from ray import tune
from ray.tune import CheckpointConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner

from trainables.checkpoint import save_search
from trainables.manifest import MANIFEST
from trainables.nasib import NasibTrainable

Make = Callable[..., NasibTrainable]


@pytest.fixture
def make(tmp_path: Path, small_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Builds trainables outside of Tune; keyword arguments change the configuration."""
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "logs"))
    built: list[NasibTrainable] = []

    def build(**changes: Any) -> NasibTrainable:
        built.append(NasibTrainable({**small_config, **changes}))
        return built[-1]

    yield build
    for trainable in reversed(built):
        trainable.stop()


def _state(trainable: NasibTrainable, folder: Path) -> dict[str, Any]:
    """All that a checkpoint holds, tensors by their digest, without the wall seconds and what was told from outside."""
    folder.mkdir(parents=True, exist_ok=True)
    save_search(trainable.search, folder)
    return _state_in(folder)


def _state_in(folder: Path) -> dict[str, Any]:
    files = json.loads((folder / MANIFEST).read_text())["files"]
    search = json.loads((folder / "search.json").read_text())
    search["totals"].pop("seconds")
    (search["position"]["last_epoch"] or {}).pop("epoch_seconds", None)
    return {"search": json.dumps(search)} | {
        name: entry["sha256"] for name, entry in files.items() if name != "search.json"
    }


def _finish(trainable: NasibTrainable) -> dict[str, Any]:
    while not (report := trainable.train())["done"]:
        pass
    return dict(report)


REPORTED = {
    "epochs", "batches", "horizon", "clock", "p", "learning_rate", "train_loss", "architecture_loss", "val_accuracy",
    "val_accuracy_stderr", "best_val_accuracy", "architecture", "epoch_seconds", "epoch_fraction", "cut", "interrupted",
    "alpha_entropy", "effective_candidates", "effective_candidates_mean", "parameters", "device_name", "seed", "done",
    "should_checkpoint", "memory_bytes", "step_memory_bytes",
}  # fmt: skip


def assert_same_end(one: NasibTrainable, other: NasibTrainable, tmp_path: Path) -> None:
    """Both searches, run to their end, report and keep the same, bit for bit."""
    reports, others = _finish(one), _finish(other)
    for key in REPORTED - {"epoch_seconds", "memory_bytes", "step_memory_bytes"}:
        assert reports[key] == others[key], key
    assert _state(one, tmp_path / "one") == _state(other, tmp_path / "other")


def test_a_step_is_an_epoch_and_reports_it(make: Make) -> None:
    trainable = make(seed=3)
    reports = [trainable.step() for _ in range(3)]
    assert all(report.keys() == REPORTED for report in reports)
    assert [report["epochs"] for report in reports] == [1, 2, 3]
    assert [report["batches"] for report in reports] == [10, 20, 30]
    assert [report["clock"] for report in reports] == [0.0, 0.5, 1.0]
    assert [report["p"] for report in reports] == pytest.approx([1.0, math.sqrt(0.1), 0.1])
    assert [report["done"] for report in reports] == [False, False, True]
    assert [report["learning_rate"] for report in reports] == pytest.approx([0.05, 0.05 * 0.505, 0.0005])
    last = reports[-1]
    assert last["best_val_accuracy"] == max(report["val_accuracy"] for report in reports)
    assert len(last["architecture"]) == len(last["effective_candidates"]) == 2
    assert last["seed"] == 3
    assert last["parameters"] == sum(p.numel() for p in trainable.search.supernet.parameters())
    assert not any(report["cut"] or report["interrupted"] or report["should_checkpoint"] for report in reports)


def test_a_configuration_that_breaks_a_rule_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match=r"unknown configuration keys \['alpha'\]"):
        make(alpha=1)


def test_a_slice_that_is_over_cuts_the_epoch_and_the_part_has_no_value(make: Make) -> None:
    trainable = make(slice_seconds=1e-6)
    for batch in range(1, 10):
        report = trainable.step()
        assert report["batches"] == batch
        assert report["cut"]
        assert report["should_checkpoint"]
        assert math.isnan(report["val_accuracy"])
        assert report["epoch_seconds"] is None
        assert report["epochs"] == 0
    report = trainable.step()
    assert not report["cut"]
    assert report["epochs"] == 1
    assert 0 <= report["val_accuracy"] <= 1
    assert report["epoch_seconds"] > 0


def test_a_slice_is_counted_from_the_first_step_and_kept(make: Make) -> None:
    trainable = make(slice_seconds=0.3, horizon=1000)
    time.sleep(0.3)
    began = time.monotonic()
    reports = [trainable.step()]
    while not reports[-1]["cut"]:
        reports.append(trainable.step())
    seconds = time.monotonic() - began
    assert reports[-1]["batches"] > 1
    assert 0.1 < seconds < 0.6


def test_sigterm_ends_the_step_behind_its_batch(make: Make) -> None:
    trainable = make(horizon=1000)
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGTERM)).start()
    reports = [trainable.step()]
    while not reports[-1]["interrupted"]:
        reports.append(trainable.step())
    assert reports[-1]["should_checkpoint"]
    after = trainable.step()
    assert not after["interrupted"]
    assert after["epochs"] == reports[-1]["epochs"] + 1


def test_sigterm_between_two_steps_stops_the_next_at_once_and_a_reset_forgets_it(
    make: Make, small_config: dict[str, Any]
) -> None:
    trainable = make()
    os.kill(os.getpid(), signal.SIGTERM)
    report = trainable.step()
    assert (report["batches"], report["cut"], report["interrupted"]) == (1, True, True)
    os.kill(os.getpid(), signal.SIGTERM)
    assert trainable.reset_config(small_config)
    assert not trainable.step()["interrupted"]


def test_the_handler_is_given_back_and_is_not_needed(make: Make) -> None:
    before = signal.getsignal(signal.SIGTERM)
    trainable = make()
    assert signal.getsignal(signal.SIGTERM) == trainable._on_sigterm
    trainable.stop()
    assert signal.getsignal(signal.SIGTERM) == before
    built: list[NasibTrainable] = []
    thread = threading.Thread(target=lambda: built.append(make()))
    thread.start()
    thread.join()
    assert built[0].step()["epochs"] == 1
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_checkpoint_is_asked_for_once_its_time_has_come(make: Make, tmp_path: Path) -> None:
    trainable = make(checkpoint_seconds=0.0)
    assert trainable.step()["should_checkpoint"]
    trainable = make(checkpoint_seconds=0.5)
    assert not trainable.step()["should_checkpoint"]
    time.sleep(0.5)
    assert trainable.step()["should_checkpoint"]
    trainable.save(str(tmp_path))
    assert not trainable.step()["should_checkpoint"]


def test_a_search_whose_saves_are_slow_saves_less_often_within_a_limit(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainable = make(checkpoint_seconds=0.2)
    now = 1000.0
    monkeypatch.setattr("trainables.nasib.time.monotonic", lambda: now)

    def save_within(seconds: float) -> None:
        def slow_save(self: Any, checkpoint_dir: str | None = None) -> None:
            nonlocal now
            now += seconds
            self.save_checkpoint(str(tmp_path))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ray.tune.Trainable.save", slow_save)
            trainable.save()

    # A checkpoint of 0.01 s is 2% of 0.5 s; one of 1 s would be of 50 s, but ten times the setting is the most.
    for taken, due_after in ((0.001, 0.2), (0.01, 0.5), (1.0, 2.0)):
        save_within(taken)
        trainable.reset_config(trainable.config)
        saved_at = now
        now = saved_at + 0.99 * due_after
        assert not trainable.step()["should_checkpoint"]
        now = saved_at + 1.01 * due_after
        assert trainable.step()["should_checkpoint"]


def test_memory_is_reported(make: Make) -> None:
    report = make().step()
    assert 0 <= report["step_memory_bytes"] < report["memory_bytes"] < 2**40


def test_a_network_that_cannot_fit_is_refused_with_the_numbers(make: Make) -> None:
    with pytest.raises(ValueError, match=r"needs about [\d,]+ GB of memory .* but its device has .* GB: lower"):
        make(channels=20_000)


def test_a_reset_trainable_equals_a_fresh_one_bit_for_bit(
    make: Make, small_config: dict[str, Any], tmp_path: Path
) -> None:
    used = make(seed=1, candidates="narrow", batch_norm="layer")
    _finish(used)
    data = used._loaded
    new = {**small_config, "seed": 2, "horizon": 4, "k": 0.3}
    assert used.reset(dict(new))
    assert used._loaded is data, "the data set is kept"
    fresh = make(**new)
    assert_same_end(used, fresh, tmp_path)


def test_a_trial_that_goes_on_in_its_process_is_not_read_back(
    make: Make, small_config: dict[str, Any], tmp_path: Path
) -> None:
    trainable, elsewhere = make(horizon=6), make(horizon=6)
    trainable.step()
    before = trainable.search
    saved = tmp_path / "saved"
    saved.mkdir()
    trainable.save_checkpoint(str(saved))
    for other in (trainable, elsewhere):
        other.reset({**small_config, "horizon": 3})
        other.load_checkpoint(str(saved))
    assert trainable.search is before
    assert elsewhere.search is not before
    assert_same_end(trainable, elsewhere, tmp_path)


def test_a_trial_that_is_told_to_go_on_equals_one_that_was_saved_and_reset(
    make: Make, small_config: dict[str, Any], tmp_path: Path
) -> None:
    told, reset = make(horizon=6, slice_seconds=1000), make(horizon=6, slice_seconds=1000)
    for trainable in (told, reset):
        trainable.step()
    now = {"horizon": 4, "slice_seconds": 500.0}
    told.go_on(now)
    (tmp_path / "saved").mkdir()
    reset.save_checkpoint(str(tmp_path / "saved"))
    assert reset.reset_config({**small_config, **now})
    reset.load_checkpoint(str(tmp_path / "saved"))
    assert told.step()["horizon"] == 4
    reset.step()
    assert_same_end(told, reset, tmp_path)
    assert told.search.epochs == 4


def test_what_was_left_in_memory_is_used_only_for_its_own_newest_checkpoint(
    make: Make, small_config: dict[str, Any], tmp_path: Path
) -> None:
    trainable = make(horizon=6)
    trainable.save_checkpoint(str(tmp_path))
    trainable.step()
    trainable.reset({**small_config, "horizon": 6})
    trainable.load_checkpoint(str(tmp_path))
    assert trainable.search.position.batches == 0, "it had gone on since it was saved"
    trainable.step()
    trainable.save_checkpoint(str(tmp_path))
    trainable.reset({**small_config, "horizon": 6})
    assert trainable.search.position.batches == 0, "a new trial loads nothing"


def test_a_reset_with_other_data_loads_them(make: Make, small_config: dict[str, Any]) -> None:
    trainable = make()
    trainable.reset({**small_config, "data": {"name": "digits", "subset": 200}})
    assert len(trainable.search._images) == 200


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_slices_are_cut_changes_no_bit(
    make: Make, small_config: dict[str, Any], tmp_path: Path, seed: int
) -> None:
    whole = make(seed=7)
    expected = _finish(whole)
    chance = random.Random(seed)
    trainable, pieces = make(seed=7, slice_seconds=1e-6), 0
    report: dict[str, Any] = {"done": False}
    while not report["done"]:
        report = trainable.train()
        if chance.random() < 0.4 and not report["done"]:
            pieces += 1
            checkpoint = trainable.save(str(tmp_path / f"checkpoint {pieces}"))
            # Another trial runs on the actor before this one comes back.
            trainable.reset({**small_config, "seed": 99})
            trainable.train()
            trainable.reset({**small_config, "seed": 7, "slice_seconds": chance.choice([1e-6] * 9 + [None])})
            trainable.restore(checkpoint)
    assert pieces > 2
    for key in ("val_accuracy", "best_val_accuracy", "train_loss", "architecture", "effective_candidates"):
        assert report[key] == expected[key], key
    assert _state(trainable, tmp_path / "cut") == _state(whole, tmp_path / "whole")


IN_A_NEW_PROCESS = """
import json, sys, torch
from trainables.nasib import NasibTrainable
import ray.tune.trainable.trainable as module

config, pairs, logs = json.loads(sys.argv[1])
module.DEFAULT_STORAGE_PATH = logs
torch.set_num_threads(1)
for source, target in pairs:
    trainable = NasibTrainable(dict(config))
    trainable.restore(source)
    while not trainable.train()["done"]:
        pass
    trainable.save(target)
"""


def test_a_search_goes_on_in_a_new_process_bit_for_bit(
    make: Make, small_config: dict[str, Any], tmp_path: Path
) -> None:
    config = {**small_config, "batch_size": 16, "seed": 11}
    whole = make(**config)
    plan = [batch.phase.value for batch in whole.search.plan]
    # In the middle of each pass of epoch 2, and at the end of epoch 1.
    cuts = [len(plan) + plan.index(phase) + 1 for phase in ("weights", "alpha", "selection")] + [len(plan)]
    assert plan.count("alpha") == 2
    pairs = []
    partial = make(**config, slice_seconds=1e-6)
    while (batches := partial.train()["batches"]) < max(cuts):
        if batches in cuts:
            partial.save(str(tmp_path / f"from {batches}"))
    partial.save(str(tmp_path / f"from {max(cuts)}"))
    pairs = [(str(tmp_path / f"from {cut}"), str(tmp_path / f"to {cut}")) for cut in cuts]
    arguments = json.dumps([config, pairs, str(tmp_path / "logs")])
    subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS, arguments], check=True)
    _finish(whole)
    expected = _state(whole, tmp_path / "whole")
    for cut in cuts:
        assert _state_in(tmp_path / f"to {cut}") == expected, f"cut at batch {cut}"


def test_a_new_horizon_comes_with_the_configuration_never_with_the_checkpoint(
    make: Make, small_config: dict[str, Any], tmp_path: Path
) -> None:
    trainable = make(horizon=5, slice_seconds=1000)
    clocks = [trainable.train()["clock"] for _ in range(2)]
    checkpoint = trainable.save(str(tmp_path))
    trainable.reset({**small_config, "horizon": 4})
    trainable.restore(checkpoint)
    assert trainable.search.settings.slice_seconds is None
    reports = [trainable.train() for _ in range(2)]
    assert [report["horizon"] for report in reports] == [4, 4]
    assert clocks + [report["clock"] for report in reports] == pytest.approx([0, 0.25, 0.25 + 0.75 / 2, 1])
    assert reports[-1]["done"]
    assert trainable.search.position.history == [(0, 5), (20, 4)]


def test_a_horizon_that_is_past_finishes_the_search_without_a_batch(
    make: Make, small_config: dict[str, Any], tmp_path: Path
) -> None:
    trainable = make(horizon=5)
    before = [trainable.train() for _ in range(2)][-1]
    checkpoint = trainable.save(str(tmp_path))
    trainable.reset({**small_config, "horizon": 2})
    trainable.restore(checkpoint)
    report = trainable.train()
    assert report["done"]
    assert not report["cut"]
    assert report["batches"] == before["batches"]
    assert report["val_accuracy"] == before["val_accuracy"]


def test_the_first_epoch_needs_no_horizon_and_the_second_does(make: Make) -> None:
    trainable = make(horizon=None)
    assert not trainable.train()["done"]
    with pytest.raises(ValueError, match="epoch 2 needs a horizon"):
        trainable.train()


class WithResources(NasibTrainable):
    """A trial that Tune has given some resources."""

    bundles: ClassVar[list[dict[str, float]]] = []

    @property
    def trial_resources(self) -> PlacementGroupFactory:
        return PlacementGroupFactory(self.bundles)


@pytest.mark.parametrize(
    ("bundles", "threads"), [([{"CPU": 2.5}], 2), ([{"CPU": 0.5}], 1), ([{"GPU": 1}], 1), ([{"CPU": 1}, {"CPU": 2}], 3)]
)
def test_a_trial_uses_the_threads_that_it_was_given(
    make: Make,
    small_config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    bundles: list[dict[str, float]],
    threads: int,
) -> None:
    monkeypatch.setattr(WithResources, "bundles", bundles)
    torch.set_num_threads(4)
    trainable = WithResources(small_config)
    assert torch.get_num_threads() == threads
    torch.set_num_threads(4)
    trainable.reset(small_config)
    assert torch.get_num_threads() == threads
    trainable.stop()
    torch.set_num_threads(4)
    make()
    assert torch.get_num_threads() == 4


class Worker(NasibTrainable):
    """Reports also what the worker process is like."""

    def step(self) -> dict[str, Any]:
        handled = signal.getsignal(signal.SIGTERM) == self._on_sigterm
        return {**super().step(), "threads": torch.get_num_threads(), "handled": handled}


@pytest.mark.ray
def test_in_tune_on_a_reused_actor(make: Make, small_config: dict[str, Any], tmp_path: Path) -> None:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        results = Tuner(
            tune.with_resources(Worker, {"cpu": 1}),
            param_space={**small_config, "seed": tune.grid_search([1, 2])},
            tune_config=TuneConfig(metric="val_accuracy", mode="max", reuse_actors=True),
            run_config=RunConfig(
                storage_path=str(tmp_path / "results"),
                verbose=0,
                checkpoint_config=CheckpointConfig(checkpoint_at_end=True),
            ),
        ).fit()
    finally:
        ray.shutdown()
    assert not results.errors
    metrics = [result.metrics or {} for result in results]
    assert [one["threads"] for one in metrics] == [1, 1]
    assert all(one["handled"] for one in metrics)
    assert len({one["pid"] for one in metrics}) == 1
    for result in results:
        assert result.checkpoint is not None
        direct = make(seed=(result.metrics or {})["seed"])
        _finish(direct)
        assert _state_in(Path(result.checkpoint.path)) == _state(direct, tmp_path / "direct")
