from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainables_tests.ends import assert_same_end, finish, state_in, state_of
from trainables.nasib import NasibTrainable

Make = Callable[..., NasibTrainable]


def test_a_reset_trainable_equals_a_fresh_one_bit_for_bit(
    make: Make, small_config: dict[str, Any], tmp_path: Path
) -> None:
    used = make(seed=1, candidates="narrow", batch_norm="layer")
    finish(used)
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
    expected = finish(whole)
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
    assert state_of(trainable, tmp_path / "cut") == state_of(whole, tmp_path / "whole")


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
    finish(whole)
    expected = state_of(whole, tmp_path / "whole")
    for cut in cuts:
        assert state_in(tmp_path / f"to {cut}") == expected, f"cut at batch {cut}"


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
