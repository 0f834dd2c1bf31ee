"""Whether a search can be made of settings and data, asked before any device-time is spent."""

from __future__ import annotations

from trainables.architecture import MacroShape
from trainables.candidates import is_import_path
from trainables.data import Dataset, make_splits
from trainables.epoch_plan import Phase, plan_epoch
from trainables.memory import MemoryEstimate, check_memory, estimate_memory
from trainables.operations import build_operation
from trainables.settings import SearchSettings, TrialSettings


def check_fits(settings: TrialSettings, dataset: Dataset) -> None:
    """Make sure that settings and data go together, without building the network.

    Memory is not looked at: see ``check_memory_of``.

    Raises:
        ValueError: If the three parts, the epoch's batches or the reductions are not possible with these images, or
            an operation of the user's own cannot be built.
    """
    search = settings.search
    splits = make_splits(dataset.train.labels, settings.data, settings.split_seed)
    images = {Phase.WEIGHTS: splits.weights, Phase.ALPHA: splits.alpha, Phase.SELECTION: splits.selection}
    plan_epoch({phase: len(part) for phase, part in images.items()}, search.batch_size, search.alternate)
    channels, height, width = dataset.train.images.shape[1:]
    image_shape = (channels, height, width)
    MacroShape(image_shape, len(dataset.class_names), search.layers, search.reductions, search.channels)
    for name in filter(is_import_path, search.candidate_names):
        build_operation(name, search.channels)


def check_memory_of(search: SearchSettings, dataset: Dataset, there: int, where: str) -> MemoryEstimate:
    """Make sure that a search fits into memory.

    Args:
        search: The search.
        dataset: What on.
        there: Bytes that it may use.
        where: What has them, for the message.

    Returns:
        What it needs.

    Raises:
        ValueError: It does not fit; the numbers are told.
    """
    images, channels, height, width = dataset.train.images.shape
    estimate = estimate_memory(search, (channels, height, width), len(dataset.class_names), images)
    check_memory(estimate, there, where)
    return estimate
