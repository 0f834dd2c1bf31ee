"""Found networks trained from scratch, as a user has it done."""

from __future__ import annotations

import json
import math
import signal
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nasib_ray import SweepConfig, load_network, load_sweep
from nasib_ray.cli import main
from nasib_ray.results import Sweep
from nasib_ray.trained import trained_networks
from tests.nasib_ray_tests.command import DIGITS, Command, reports, wait_for
from tests.nasib_ray_tests.conftest import Driver
from trainables.data import load_dataset
from trainables.settings import DataSettings

SMALL = ("--set", "data.subset=300", "--set", "search.layers=2", "--set", "search.reductions=[2]")
SELECTION = ("--set", "finalists=2", "--set", "selection_share=0.5")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that has found something."""
    folder = tmp_path_factory.mktemp("swept")
    place = ("--budget", "40 cpu-seconds", "--storage", str(folder), "--name=a")
    sweep = Command(folder, "sweep", DIGITS, *SMALL, *SELECTION, *place)
    assert sweep.ends() == 0, sweep.said
    return folder / "a"


def _trainings(path: Path) -> Sweep:
    return load_sweep(path / "retrain")


@pytest.mark.ray
def test_a_sweep_ends_with_a_selection(swept: Path) -> None:
    sweep = load_sweep(swept)
    status = sweep.status()
    competing = [trial for trial in status["trials"] if trial["kind"] == "select"]
    assert len(competing) == 2
    # One is cut off before its end, and competes no more, only where epochs became slower than those of the plan.
    finished = [trial for trial in competing if trial["state"] == "finished"]
    assert finished
    assert all(trial["epochs"] == trial["horizon"] for trial in finished)
    if len(finished) < 2:
        timed = [record for record in sweep.records() if record["event"] == "report" and record["epoch_seconds"]]
        epochs = [[one["epoch_seconds"] for one in timed if one["trial"] == trial["id"]] for trial in competing]
        assert max(statistics.fmean(seconds[2:]) / seconds[1] for seconds in epochs if len(seconds) > 2) > 1
    grants = [record for record in sweep.records() if record["event"] == "grant"]
    first = {trial["id"]: next(one for one in grants if one["trial"] == trial["id"])["horizon"] for trial in competing}
    assert len(set(first.values())) == 1, "one horizon was planned for all"
    selected = status["selected"]
    assert selected is not None
    best = max(finished, key=lambda trial: trial["value"] or -math.inf)
    assert (selected["trial"], selected["val_accuracy"]) == (best["id"], best["val_accuracy"])
    assert status["spent_by_kind"]["select"] == pytest.approx(
        sum(trial["spent_device_seconds"] for trial in competing), abs=0.1
    )
    assert status["incumbent"] is not None
    assert status["incumbent"]["trial"] not in {trial["id"] for trial in competing}
    assert status["spent_device_seconds"] <= 40


@pytest.mark.ray
def test_found_networks_are_trained_resumed_extended_and_exported(swept: Path, tmp_path: Path) -> None:
    spent = load_sweep(swept).status()["spent_device_seconds"]
    selected = Command(tmp_path, "export", str(swept), "-o", str(tmp_path / "selected.onnx"))
    assert selected.ends() == 0, selected.said
    assert "chosen by the sweep's selection, not retrained" in selected.said

    begun = Command(tmp_path, "retrain", str(swept), "--seeds", "1", "--epochs", "300")
    wait_for(lambda: reports(swept / "retrain") >= 10)
    begun.process.send_signal(signal.SIGINT)
    assert begun.ends() == 130, begun.said
    assert "the same command goes on" in begun.said
    assert "Traceback" not in begun.said
    (training,) = _trainings(swept).state.searches.values()
    assert 10 <= training.epochs < 300

    wait_for(lambda: not _trainings(swept).alive)
    more = Command(tmp_path, "retrain", str(swept), "--seeds", "2", "--epochs", "300", "--json")
    assert more.ends() == 0, more.said
    (told,) = json.loads(more.said[more.said.index("{\n") :])["networks"]
    assert len(told["test_errors"]) == 2
    assert told["test_error"] == pytest.approx(sum(told["test_errors"]) / 2)
    assert told["test_error"] < 0.5
    assert told["latency_seconds"] > 0
    trainings = [*_trainings(swept).state.searches.values()]
    assert [(search.state, search.epochs) for search in trainings] == [("finished", 300)] * 2
    assert trainings[0].id == training.id, "it went on, and nothing was trained twice"

    other = Command(tmp_path, "retrain", str(swept), "--epochs", "2")
    assert other.ends() == 2
    assert "epochs (then 300, now 2): choose another --name" in other.said

    exported = Command(tmp_path, "export", str(swept), "-o", str(tmp_path / "network.onnx"))
    assert exported.ends() == 0, exported.said
    assert "retrained from scratch" in exported.said
    assert "run on 61 real images" in exported.said

    module = load_network(str(swept))
    test = load_dataset(DataSettings(name="digits", subset=300, cache=str(tmp_path / "cache"))).test
    with torch.inference_mode():
        correct = (module(test.images.float() / 255).argmax(1) == test.labels).float().mean()
    assert float(correct) == pytest.approx(trainings[0].latest["test_accuracy"], abs=0.01)
    assert module.meta["class_names"] == list("0123456789")
    assert load_sweep(swept).status()["spent_device_seconds"] == spent, "the sweep's account is untouched"


@pytest.mark.ray
@pytest.mark.slow
def test_under_a_budget_the_epochs_follow_from_it(swept: Path, tmp_path: Path) -> None:
    arguments = ("--top", "2", "--seeds", "1", "--budget", "20 cpu-seconds", "--name", "short", "--set")
    run = Command(tmp_path, "retrain", str(swept), *arguments, "retrain.channels=12")
    assert run.ends() == 0, run.said
    done = load_sweep(swept / "short")
    assert done.status()["spent_device_seconds"] <= 20
    networks = trained_networks(done)
    assert [network.architecture.macro.channels for network in networks] == [12] * len(networks)
    assert len(networks) >= 1
    for search in done.state.searches.values():
        assert search.epochs == search.horizon
        assert search.epochs > 5
        assert search.latest["learning_rate"] == pytest.approx(0.05 * 0.01)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--epochs", "2", "--budget", "1 cpu-minute"), "give one of them"),
        (("--set", "search.layers=2"), "only keys of the section retrain"),
        (("--set", "retrain.chanels=2"), "chanels"),
        (("--set", "retrain.layers=1"), "less than the 2 layers"),
        (("--budget", "1 gpu-hour"), "paid in CPU time"),
    ],
)
def test_mistakes_are_told(
    make_driver: Callable[[], Driver],
    sweep_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    told: str,
) -> None:
    driver = make_driver()
    config = SweepConfig(budget="3 cpu-minutes", data="digits", search={"layers": 2, "reductions": [2]})
    driver.begin(config=config.to_plain())
    driver.end()
    monkeypatch.setattr(sys, "argv", ["nasib-ray", "retrain", str(sweep_folder), *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 2
    assert told in capsys.readouterr().err
    assert not (sweep_folder / "retrain").exists()
