from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.data import Dataset, load_dataset
from trainables.nasib import NasibTrainable
from trainables.search import Search
from trainables.settings import DataSettings, TrialSettings


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASIB_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(_own_cache: None) -> Dataset:
    return load_dataset(DataSettings(name="digits", subset=300))


@pytest.fixture
def small_config() -> dict[str, Any]:
    """A search that takes a second: an epoch has 7 weight batches, 1 of alpha, 2 of selection."""
    return {
        "data": {"name": "digits", "subset": 300},
        "layers": 2,
        "reductions": [2],
        "channels": 4,
        "m": 3,
        "K": 4,
        "batch_size": 32,
        "horizon": 3,
        "learning_rate": 0.05,
    }


@pytest.fixture
def make_search(digits: Dataset, small_config: dict[str, Any]) -> Callable[..., Search]:
    """Builds a small search on digits; keyword arguments change its configuration."""

    def build(**changes: Any) -> Search:
        return Search(TrialSettings.from_config({**small_config, **changes}), digits, torch.device("cpu"))

    return build


@pytest.fixture
def make(
    tmp_path: Path, small_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., NasibTrainable]]:
    """Builds trainables outside of Tune; keyword arguments change the configuration."""
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "logs"))
    built: list[NasibTrainable] = []

    def build(**changes: Any) -> NasibTrainable:
        built.append(NasibTrainable({**small_config, **changes}))
        return built[-1]

    yield build
    for trainable in reversed(built):
        trainable.stop()
