from __future__ import annotations

import pytest
import torch

from trainables.device import MemoryWatch, device_memory, device_name, find_device, settle_process
from trainables.memory import machine_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(("cpus", "threads"), [(0, 1), (0.5, 1), (2, 2), (2.9, 2)])
def test_a_trial_computes_with_its_whole_cpus(cpus: float, threads: int) -> None:
    settle_process(cpus, 0)
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_the_cpu() -> None:
    assert find_device() == CPU
    assert device_name(CPU)
    assert device_memory(CPU, 0.0) == machine_memory()


def test_peaks_of_memory_only_rise() -> None:
    watch = MemoryWatch(CPU)
    first, _ = watch.peaks(0)
    tensor = torch.ones(max(1, first // 4) + 50_000_000)
    peak, of_a_step = watch.peaks(0)
    assert peak > first
    assert of_a_step >= 0.9 * tensor.nbytes - first
    assert watch.peaks(tensor.nbytes) == (peak, max(0, of_a_step - tensor.nbytes))
