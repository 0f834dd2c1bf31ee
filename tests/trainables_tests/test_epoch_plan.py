from __future__ import annotations

import pytest

from trainables.epoch_plan import Phase, batch_bounds, plan_epoch
from trainables.settings import Alternate


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (12, [(0, 4), (4, 8), (8, 12)]),
        (14, [(0, 4), (4, 8), (8, 12), (12, 14)]),
        (13, [(0, 4), (4, 8), (8, 13)]),
        (3, [(0, 3)]),
        (5, [(0, 5)]),
    ],
)
def test_a_last_batch_of_less_than_half_joins_the_one_before(images: int, expected: list[tuple[int, int]]) -> None:
    assert batch_bounds(images, 4) == expected


def test_no_batch_is_of_one_image() -> None:
    assert batch_bounds(5, 2) == [(0, 2), (2, 5)]


def test_a_part_without_two_images_is_refused() -> None:
    with pytest.raises(ValueError, match="a part of 1 images"):
        batch_bounds(1, 4)


@pytest.mark.parametrize("alternate", ["epoch", "step"])
def test_an_epoch_sees_every_image_once_and_evaluates_last(alternate: Alternate) -> None:
    plan = plan_epoch({Phase.WEIGHTS: 100, Phase.ALPHA: 30, Phase.SELECTION: 25}, 10, alternate)
    for phase, images in ((Phase.WEIGHTS, 100), (Phase.ALPHA, 30), (Phase.SELECTION, 25)):
        seen = [image for batch in plan if batch.phase is phase for image in range(batch.start, batch.stop)]
        assert seen == list(range(images))
    assert [batch.phase for batch in plan[13:]] == [Phase.SELECTION] * 3


def test_the_two_ways_of_alternating() -> None:
    images = {Phase.WEIGHTS: 70, Phase.ALPHA: 20, Phase.SELECTION: 10}
    by_epoch = "".join(batch.phase.value[0] for batch in plan_epoch(images, 10, "epoch"))
    by_step = "".join(batch.phase.value[0] for batch in plan_epoch(images, 10, "step"))
    assert by_epoch == "wwwwwwwaas"
    assert by_step == "wwwawwwwas"
