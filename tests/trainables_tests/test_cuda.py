"""What only a GPU can show. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainables.checkpoint import load_search, save_search
from trainables.data import Dataset
from trainables.device import MemoryWatch, choose_algorithms, device_memory, device_name
from trainables.epoch_plan import Phase
from trainables.search import Search
from trainables.settings import TrialSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

GPU = torch.device("cuda", 0)


@pytest.fixture
def make(digits: Dataset, small_config: dict[str, Any]) -> Callable[..., Search]:
    def build(device: torch.device = GPU, **changes: Any) -> Search:
        return Search(TrialSettings.from_config({**small_config, **changes}), digits, device)

    return build


@pytest.fixture(autouse=True)
def _plain_algorithms() -> Iterator[None]:
    yield
    choose_algorithms(GPU, deterministic=False)


def _run(search: Search, batches: int) -> None:
    for _ in range(batches):
        search.run_batch()


def _state(search: Search) -> dict[str, Tensor]:
    return {**search.supernet.state_dict(), "alpha": search.parameters.alpha.clone()}


def test_a_search_computes_on_both_devices_about_the_same(make: Callable[..., Search]) -> None:
    searches = [make(device, deterministic=True) for device in (GPU, torch.device("cpu"))]
    for search in searches:
        _run(search, 3)
    for (name, one), other in zip(_state(searches[0]).items(), _state(searches[1]).values(), strict=True):
        assert torch.allclose(one.cpu(), other, atol=1e-2), name


def test_weight_pass_and_evaluation_never_wait_for_the_device(make: Callable[..., Search]) -> None:
    search = make()
    _run(search, 2 * len(search.plan))
    for batch in search.plan[:-1]:  # At the end of the epoch its results are read.
        torch.cuda.set_sync_debug_mode("default" if batch.phase is Phase.ALPHA else "error")
        try:
            search.run_batch()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert search.batches == 3 * len(search.plan) - 1


def test_bfloat16_learns(make: Callable[..., Search]) -> None:
    search = make(precision="bfloat16", horizon=10)
    _run(search, 10 * len(search.plan))
    assert search.position.best_val_accuracy > 0.2
    assert {weight.dtype for weight in search.supernet.parameters()} == {torch.float32}


def test_cut_and_continued_a_deterministic_search_is_bit_exact(make: Callable[..., Search], tmp_path: Path) -> None:
    choose_algorithms(GPU, deterministic=True)
    whole, cut = make(deterministic=True), make(deterministic=True)
    _run(whole, 12)
    _run(cut, 5)
    save_search(cut, tmp_path)
    continued = make(deterministic=True)
    load_search(continued, tmp_path)
    _run(continued, 7)
    for (name, one), other in zip(_state(whole).items(), _state(continued).values(), strict=True):
        assert torch.equal(one, other), name


def test_memory_and_name_are_those_of_the_gpu(make: Callable[..., Search]) -> None:
    total = torch.cuda.get_device_properties(GPU).total_memory
    assert device_memory(GPU, 0.5) == int(total / 2)
    assert device_memory(GPU, 2.0) == total
    assert device_name(GPU) == torch.cuda.get_device_name(GPU)
    search = make()
    watch = MemoryWatch(GPU)
    _run(search, 2)
    peak, of_a_step = watch.peaks(search.optimizer.momentum_bytes)
    assert 0 < of_a_step < peak <= torch.cuda.max_memory_allocated(GPU)
