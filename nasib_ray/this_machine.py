"""What this machine can hold at once."""

from __future__ import annotations

from nasib_ray.config import SweepConfig
from nasib_ray.quiet_ray import usable_cpus
from schedulers.node_room import slots_of_node
from trainables.data import Dataset
from trainables.device import device_memory, find_device
from trainables.fits import check_memory_of
from trainables.memory import MemoryEstimate, machine_memory
from trainables.settings import SearchSettings


def slots_here(config: SweepConfig, gpus_here: int) -> int:
    """How many trials of a configuration can run here at once.

    Args:
        config: The sweep's, with a budget.
        gpus_here: GPUs of this machine.

    Raises:
        ValueError: If not even one can.
    """
    cpus, gpus = config.resources.cpus or 0.0, config.resources.gpus or 0.0
    slots = slots_of_node({"CPU": usable_cpus(), "GPU": gpus_here}, {"CPU": cpus, "GPU": gpus})
    if slots < 1:
        raise ValueError(
            f"a trial holds {cpus:g} CPUs and {gpus:g} GPUs, but this machine has {usable_cpus()} and {gpus_here}: "
            "plan where the sweep will run"
        )
    return slots if config.max_concurrent is None else min(slots, config.max_concurrent)


def check_memory_here(config: SweepConfig, search: SearchSettings, dataset: Dataset, slots: int) -> MemoryEstimate:
    """Make sure that so many searches at once have room in this machine's memory, or one in its share of a GPU.

    Returns:
        What one of them needs.

    Raises:
        ValueError: They have not; the numbers are told.
    """
    gpus = config.resources.gpus or 0.0
    if gpus:
        return check_memory_of(search, dataset, device_memory(find_device(), gpus), f"{min(1.0, gpus):g} GPU")
    there = machine_memory() // slots
    return check_memory_of(search, dataset, there, f"this machine, for each of {slots} trials at once,")
