"""What an epoch consists of: batches of the weight pass, the architecture pass and the evaluation, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from trainables.settings import Alternate


class Phase(Enum):
    """The part of an epoch that a batch belongs to."""

    WEIGHTS = "weights"
    ALPHA = "alpha"
    SELECTION = "selection"


@dataclass(frozen=True)
class PlannedBatch:
    """One batch: images ``start`` to ``stop`` of its phase's part of the training set, in the epoch's order."""

    phase: Phase
    start: int
    stop: int


def batch_bounds(images: int, batch_size: int) -> list[tuple[int, int]]:
    """(start, stop) of each batch; a last one of less than half the size joins the one before it.

    Batch statistics of a few images on maps of 1 x 1 pixels would be useless, and of a single one an error.

    Raises:
        ValueError: There are fewer than two images.
    """
    if images < 2:
        raise ValueError(f"a part of {images} images gives no batch statistics: each part of the data needs at least 2")
    starts = list(range(0, images, batch_size))
    if len(starts) > 1 and images - starts[-1] < max(2, batch_size / 2):
        starts.pop()
    return list(zip(starts, [*starts[1:], images], strict=True))


def plan_epoch(images: Mapping[Phase, int], batch_size: int, alternate: Alternate) -> tuple[PlannedBatch, ...]:
    """The batches of one epoch, the same for every epoch of a search.

    Args:
        images: Number of images of each phase. Those of the selection are evaluated after both passes.
        batch_size: Images of a batch.
        alternate: The architecture pass follows the weight pass, or its steps are spread evenly among the other's.
            Either way an epoch sees each image once.

    Raises:
        ValueError: A part has fewer than two images.
    """
    weight_pass, alpha_pass, evaluation = (
        [PlannedBatch(phase, start, stop) for start, stop in batch_bounds(images[phase], batch_size)]
        for phase in (Phase.WEIGHTS, Phase.ALPHA, Phase.SELECTION)
    )
    training = weight_pass + alpha_pass
    if alternate == "step":
        ends = [Fraction(i + 1, len(part)) for part in (weight_pass, alpha_pass) for i in range(len(part))]
        training = [batch for _, batch in sorted(zip(ends, training, strict=True), key=lambda pair: pair[0])]
    return tuple(training + evaluation)
