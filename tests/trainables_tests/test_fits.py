"""What is found out before any device-time is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainables.data import Dataset, load_dataset
from trainables.fits import check_fits
from trainables.settings import DataSettings, TrialSettings


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(DataSettings(name="digits", cache=str(tmp_path_factory.mktemp("cache"))))


def settings(**changes: Any) -> TrialSettings:
    data = {"name": "digits", **changes.pop("data", {})}
    return TrialSettings.from_config({"layers": 4, "reductions": [3], "seed": 0, "data": data, **changes})


def test_what_goes_together_passes(digits: Dataset) -> None:
    check_fits(settings(), digits)
    check_fits(settings(reductions=[1, 2, 3], candidates=["conv3x3", "torch.nn:Identity"]), digits)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"alpha_images": 1400}}, "1400"),
        ({"reductions": [1, 2, 3, 4]}, "cannot be halved 4 times"),
        ({"candidates": ["conv3x3", "no_such_package:Thing"]}, "no_such_package"),
    ],
)
def test_what_does_not_is_refused(digits: Dataset, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_fits(settings(**changes), digits)


def test_the_network_is_not_built(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("a network was built")

    monkeypatch.setattr("trainables.supernet.Supernet.__init__", refuse)
    check_fits(settings(layers=12, channels=512, reductions=[4]), digits)


def test_the_place_of_data_is_checked_without_reading_them(tmp_path: Path) -> None:
    from trainables.data_place import check_place

    check_place(DataSettings(name="digits"))
    check_place(DataSettings(name=str(tmp_path)))
    check_place(DataSettings(name="package.module:function"))
    with pytest.raises(ValueError, match="no built-in data set"):
        check_place(DataSettings(name=str(tmp_path / "nothing")))
    (tmp_path / "file.txt").touch()
    with pytest.raises(ValueError, match="not a Parquet file"):
        check_place(DataSettings(name=str(tmp_path / "file.txt")))
