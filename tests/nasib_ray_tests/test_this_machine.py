from __future__ import annotations

import pytest
import torch

from nasib_ray.config import SweepConfig
from nasib_ray.searcher import first_trial
from nasib_ray.this_machine import check_memory_here, slots_here
from trainables.data import Dataset, ImageSet
from trainables.settings import TrialSettings


def _config(budget: str = "1 cpu-minute", /, **settings: object) -> SweepConfig:
    return SweepConfig.load(None, [f"{key}={value}" for key, value in settings.items()], budget=budget, data="digits")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasib_ray.this_machine.usable_cpus", lambda: 8)
    monkeypatch.setattr("nasib_ray.this_machine.machine_memory", lambda: int(16e9))
    monkeypatch.setattr("nasib_ray.this_machine.device_memory", lambda device, gpus: int(16e9 * gpus))


def _dataset() -> Dataset:
    images = ImageSet(torch.zeros(100, 3, 32, 32, dtype=torch.uint8), torch.zeros(100, dtype=torch.int64))
    return Dataset("digits", images, images, ("a", "b"), (0.5,) * 3, (0.2,) * 3, "f")


@pytest.mark.usefixtures("machine")
def test_so_many_trials_run_here_at_once() -> None:
    assert slots_here(_config(), 0) == 8
    assert slots_here(_config(**{"trial.cpus": 3}), 0) == 2
    assert slots_here(_config(max_concurrent=5), 0) == 5
    assert slots_here(_config("1 gpu-minute", **{"trial.gpus": 0.5}), 2) == 4
    with pytest.raises(ValueError, match="a trial holds 9 CPUs and 0 GPUs, but this machine has 8 and 0"):
        slots_here(_config(**{"trial.cpus": 9}), 0)


@pytest.mark.usefixtures("machine")
def test_a_search_must_fit_into_its_share_of_the_memory() -> None:
    config = _config(**{"search.channels": 64})
    search = TrialSettings.from_config(first_trial(config)).search
    estimate = check_memory_here(config, search, _dataset(), slots=1)
    assert 3e9 < estimate.total < 8e9
    with pytest.raises(ValueError, match=r"needs about .* but this machine, for each of 8 trials at once, has 2 GB"):
        check_memory_here(config, search, _dataset(), slots=8)
    on_a_gpu = _config("1 gpu-minute", **{"search.channels": 64, "trial.gpus": 0.1})
    with pytest.raises(ValueError, match=r"but 0\.1 GPU has 1\.6 GB"):
        check_memory_here(on_a_gpu, search, _dataset(), slots=8)
