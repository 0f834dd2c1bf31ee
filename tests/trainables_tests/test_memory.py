from __future__ import annotations

import subprocess
import sys

import pytest

from trainables.memory import (
    MemoryEstimate,
    check_memory,
    estimate_memory,
    machine_memory,
    process_bytes,
    process_peak,
)
from trainables.settings import SearchSettings
from trainables.supernet import Supernet, count_parameters


@pytest.mark.parametrize(
    "settings",
    [
        SearchSettings(layers=3, reductions=(2,), channels=8),
        SearchSettings(layers=2, reductions=(1, 2), channels=4, m=4, K=20, batch_norm="layer"),
        SearchSettings(layers=2, reductions=(), channels=6, candidates="narrow"),
    ],
)
def test_the_weights_are_counted_exactly(settings: SearchSettings) -> None:
    estimate = estimate_memory(settings, (3, 12, 12), 7, images=10)
    assert estimate.weights == 4 * count_parameters(Supernet(settings, (3, 12, 12), 7))
    assert estimate.momentum == estimate.weights
    assert estimate.images == 10 * 3 * 12 * 12


STEPS = """
import sys, torch
from trainables.memory import estimate_memory, process_bytes, process_peak
from trainables.momentum_sgd import MomentumSGD
from trainables.search_step import weight_step
from trainables.settings import SearchSettings
from trainables.supernet import Supernet
torch.set_num_threads(1)
channels, batch = int(sys.argv[1]), int(sys.argv[2])
settings = SearchSettings(channels=channels, batch_size=batch, layers=4, reductions=(3,))
supernet = Supernet(settings, (3, 32, 32), 10)
optimizer = MomentumSGD(supernet.named_parameters(), 0.9, 3e-4, 5.0)
def step(images):
    pairs = torch.tensor([[80, 79]] * 4)
    weight_step(supernet, optimizer, torch.randn(images, 3, 32, 32), torch.randint(10, (images,)), pairs,
                pair_scale="sum", learning_rate=0.01)
step(2)
before = process_bytes()
step(batch)
print(process_peak() - before, estimate_memory(settings, (3, 32, 32), 10, 0).step)
"""


@pytest.mark.parametrize(("channels", "batch"), [(16, 64), (8, 192), (32, 48)])
def test_a_batch_needs_about_what_was_estimated(channels: int, batch: int) -> None:
    ran = subprocess.run([sys.executable, "-c", STEPS, f"{channels}", f"{batch}"], capture_output=True, check=True)
    measured, estimated = map(int, ran.stdout.split())
    # The last batch of a pass may be half as large again, which the estimate allows for. Here all shapes are known;
    # those of other draws bring buffers of their own.
    assert 1.0 < estimated / (1.5 * measured) < 1.7


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    estimate = MemoryEstimate(weights=2 * 10**9, momentum=2 * 10**9, step=3 * 10**9, images=10**8, process=10**9)
    assert estimate.total == 8_100_000_000
    check_memory(estimate, 8_100_000_000, "this machine")
    with pytest.raises(
        ValueError, match=r"about 8\.1 GB .*weights 2 GB.*a batch 3 GB.* but this machine has 8 GB: lower search.chan"
    ):
        check_memory(estimate, 8_000_000_000, "this machine")


def test_the_process_and_the_machine_are_read() -> None:
    assert 10**7 < process_bytes() < 1.1 * process_peak() < machine_memory()
