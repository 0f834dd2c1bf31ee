"""The device that a trial computes on, how its process is set up for it, and what memory the trial takes there."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

import torch

from trainables.memory import machine_memory, process_bytes, process_peak


def settle_process(cpus: float, gpus: float) -> None:
    """Set the process up for a trial that holds so many CPUs and GPUs.

    It computes with as many threads as it has whole CPUs, at least one, and takes no more of a GPU's memory than its
    share.
    """
    torch.set_num_threads(max(1, math.floor(cpus)))
    if torch.cuda.is_available() and 0 < gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus)


def find_device() -> torch.device:
    """A GPU, if the process may use one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device; the host does not wait until it is there."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def choose_algorithms(device: torch.device, deterministic: bool) -> None:
    """Let CUDA take deterministic kernels, or try which are the fastest for each shape."""
    if device.type == "cuda":
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = not deterministic
        torch.use_deterministic_algorithms(deterministic)


def device_name(device: torch.device) -> str:
    """The kind of device: epochs take as long on two of the same name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine() or "cpu")


def device_memory(device: torch.device, gpus: float) -> int:
    """Bytes that a trial with so many GPUs may use: its share of the GPU, or all that the machine has."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * min(1.0, gpus or 1.0))
    return machine_memory()


class MemoryWatch:
    """Peaks of a search's memory, from now on: on a GPU of the search's tensors, else of the whole process.

    Args:
        device: Where it computes. Nothing has been computed there yet.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = process_bytes()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def peaks(self, momentum_bytes: int) -> tuple[int, int]:
        """(Of all, of what a batch needs beyond what stays), in bytes.

        Args:
            momentum_bytes: Of the momentum that there is by now, which stays.
        """
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
            return peak, peak - torch.cuda.memory_allocated(self._device)
        peak = process_peak()
        return peak, max(0, peak - self._before - momentum_bytes)
