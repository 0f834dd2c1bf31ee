from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.architecture import Architecture, MacroShape
from trainables.checkpoint import load_search, save_search
from trainables.data import Dataset
from trainables.retrain import RetrainTrainable
from trainables.settings import SearchSettings
from trainables.training import Judgement, LabelledImages, judge
from trainables.training_settings import Recipe, RetrainSettings

Make = Callable[..., RetrainTrainable]

MACRO = MacroShape((1, 8, 8), 10, layers=3, reductions=(2,), channels=6)
FOUND = Architecture(("conv3x2", "sepconv5x4", "identity"), MACRO)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "logs"))
    built: list[RetrainTrainable] = []

    def build(**changes: Any) -> RetrainTrainable:
        config = {
            "architecture": FOUND.to_plain(),
            "recipe": {"batch_size": 32, "learning_rate": 0.1},
            "data": {"name": "digits", "subset": 300},
            "horizon": 4,
        }
        built.append(RetrainTrainable({**config, **changes}))
        return built[-1]

    yield build
    for trainable in reversed(built):
        trainable.stop()


def _run(trainable: RetrainTrainable) -> list[dict[str, Any]]:
    reports = [trainable.train()]
    while not reports[-1]["done"]:
        reports.append(trainable.train())
    return reports


def _weights(trainable: RetrainTrainable) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainable.training.network.state_dict().items()}


def test_a_network_learns_and_is_tested_once_behind_its_last_epoch(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def judge_and_note(network: torch.nn.Module, data: LabelledImages, *more: Any) -> Judgement:
        looks.append(len(data.part))
        return judge(network, data, *more)

    monkeypatch.setattr("trainables.retrain.judge", judge_and_note)
    trainable = make(horizon=12)
    reports = _run(trainable)
    assert [report["epochs"] for report in reports] == [*range(1, 13)]
    assert all(math.isnan(report["test_accuracy"]) for report in reports[:-1])
    assert reports[-1]["test_accuracy"] > 0.6
    assert reports[-1]["train_loss"] < 0.5 * reports[0]["train_loss"]
    assert looks == [359]
    assert reports[0]["parameters"] > 1000
    rates = [report["learning_rate"] for report in reports]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.001)


def test_judged_on_the_selection_part_the_test_set_is_not_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainable = make(trained_on="weights", judged_on="selection")
    monkeypatch.setattr(Dataset, "test", property(lambda self: pytest.fail("the test set was read")), raising=False)
    reports = _run(trainable)
    assert all(0 <= report["val_accuracy"] <= 1 for report in reports)
    assert all(math.isnan(report["test_accuracy"]) for report in reports)


@pytest.mark.parametrize("changes", [{}, {"recipe": {"batch_size": 32, "drop_path": 0.5, "label_smoothing": 0.1}}])
def test_cut_and_continued_it_is_the_same_bit_for_bit(make: Make, tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = make(**changes)
    expected = _run(whole)[-1]
    cut = make(**changes, slice_seconds=1e-6)
    for _ in range(13):
        assert cut.train()["batches"] <= 13
    cut.save_checkpoint(str(tmp_path))
    continued = make(**changes)
    continued.load_checkpoint(str(tmp_path))
    assert continued.training.batches == 13
    report = _run(continued)[-1]
    for name in ("train_loss", "test_accuracy", "learning_rate"):
        assert report[name] == expected[name]
    for name, tensor in _weights(whole).items():
        assert torch.equal(tensor, _weights(continued)[name]), name


def test_a_new_horizon_leads_the_clock_on_from_where_it_is(make: Make) -> None:
    trainable = make(horizon=None)
    first = trainable.train()
    assert (first["clock"], first["done"]) == (0.0, False)
    assert trainable.train()["learning_rate"] == 0.1
    trainable.go_on({"horizon": 6, "slice_seconds": None})
    clocks = [trainable.train()["clock"], trainable.train()["clock"]]
    trainable.go_on({"horizon": 8, "slice_seconds": None})
    clocks += [report["clock"] for report in _run(trainable)]
    assert clocks == sorted(clocks)
    assert clocks[-1] == 1.0
    assert max(late - early for early, late in pairwise(clocks)) < 0.4


def test_a_checkpoint_of_another_training_or_of_a_search_is_refused(
    make: Make, make_search: Callable[..., Any], tmp_path: Path
) -> None:
    make().save_checkpoint(str(tmp_path))
    with pytest.raises(ValueError, match=r"another training, which differs in \['seed'\]"):
        make(seed=1).load_checkpoint(str(tmp_path))
    with pytest.raises(ValueError, match=r"differs in \['data.subset', 'data.cutout'\]"):
        make(data={"name": "digits", "subset": 400, "cutout": True}).load_checkpoint(str(tmp_path))
    make(data={"name": "digits", "subset": 300, "download": False}).load_checkpoint(str(tmp_path))
    with pytest.raises(ValueError, match="checkpoint of a network's training, not of a search"):
        load_search(make_search(), tmp_path)
    search = tmp_path / "search"
    search.mkdir()
    save_search(make_search(), search)
    with pytest.raises(ValueError, match="checkpoint of a search"):
        make().load_checkpoint(str(search))


def test_data_that_do_not_fit_the_network_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match=r"images of \(1, 8, 8\) and 10 classes, but digits has \(1, 16, 16\)"):
        make(data={"name": "digits", "image_size": 16})


def test_a_found_network_is_made_wider_and_deeper() -> None:
    wider = RetrainSettings(channels=32).scaled(FOUND)
    assert (wider.macro.channels, wider.operations) == (32, FOUND.operations)
    deeper = RetrainSettings(layers=7).scaled(FOUND)
    assert deeper.operations == ("conv3x2",) * 3 + ("sepconv5x4",) * 2 + ("identity",) * 2
    assert deeper.macro.reductions == (4,)
    assert RetrainSettings().scaled(FOUND) == FOUND
    with pytest.raises(ValueError, match=r"retrain.layers = 2 is less than the 3 layers"):
        RetrainSettings(layers=2).scaled(FOUND)


def test_what_is_not_told_is_as_in_the_search() -> None:
    search = SearchSettings(batch_size=32, learning_rate=0.05, momentum=0.8)
    recipe = RetrainSettings(learning_rate=0.2, label_smoothing=0.1).recipe(Recipe.of_search(search))
    assert recipe == Recipe(batch_size=32, learning_rate=0.2, momentum=0.8, label_smoothing=0.1)
