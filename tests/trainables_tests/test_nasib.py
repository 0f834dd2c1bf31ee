from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import ray
import torch
from ray import tune
from ray.tune import CheckpointConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner

from tests.trainables_tests.ends import REPORTED, finish, state_in, state_of
from trainables.nasib import NasibTrainable

Make = Callable[..., NasibTrainable]


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
    trainable = make(slice_seconds=1e-6, objective="shared-accuracy")
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
    # Not kept it would be a minute; the last batch may take its time on a machine that does other work.
    assert 0.1 < seconds < 3.0


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
    monkeypatch.setattr("trainables.sliced.time.monotonic", lambda: now)

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


class WithResources(NasibTrainable):
    """A trial that Tune has given some resources."""

    bundles: ClassVar[list[dict[str, float]]] = []

    @property
    def trial_resources(self) -> PlacementGroupFactory:
        return PlacementGroupFactory(self.bundles)


@pytest.mark.parametrize(("bundles", "kind"), [([{"CPU": 1}], "cpu"), ([{"CPU": 1, "GPU": 0.5}], "cuda")])
def test_a_trial_computes_on_a_gpu_only_if_it_holds_one(
    make: Make,
    small_config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    bundles: list[dict[str, float]],
    kind: str,
) -> None:
    monkeypatch.setattr(WithResources, "bundles", bundles)
    trainable, alone = WithResources(small_config), make()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert trainable.device.type == kind
    assert alone.device.type == "cuda", "outside of Ray nobody counts"
    trainable.stop()


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
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
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
        finish(direct)
        assert state_in(Path(result.checkpoint.path)) == state_of(direct, tmp_path / "direct")
