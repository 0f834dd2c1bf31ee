from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.labels import number_classes, stratified_order


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    fraction=st.floats(0, 1),
    seed=st.integers(-(2**40), 2**40),
)
def test_any_prefix_holds_the_same_share_of_every_class(counts: list[int], fraction: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)) * 3, counts)
    order = stratified_order(labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    prefix = labels[order[: round(fraction * len(labels))]]
    drawn = [int((prefix == label).sum()) for label in np.unique(labels)]
    least = max((n_drawn - 0.5) / n for n_drawn, n in zip(drawn, counts, strict=True))
    most = min((n_drawn + 0.5) / n for n_drawn, n in zip(drawn, counts, strict=True))
    assert least <= most + 1e-9


def test_equal_classes_are_drawn_equally_and_a_remainder_falls_on_any_class() -> None:
    labels = np.tile(np.arange(10), 50)
    assert np.bincount(labels[stratified_order(labels, 3)[:120]]).tolist() == [12] * 10
    extra = {int(labels[stratified_order(labels, seed)[120]]) for seed in range(60)}
    assert len(extra) > 5


def test_an_order_never_changes() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 2, 2])
    assert stratified_order(labels, 7).tolist() == stratified_order(labels, 7).tolist()
    assert stratified_order(labels, 7).tolist() != stratified_order(labels, 8).tolist()
    # A test part is drawn anew on every machine: these very numbers must come out of every version of NumPy.
    assert stratified_order(labels, 7).tolist() == [5, 0, 8, 2, 1, 7, 6, 9, 3, 4]


def numbered(
    train: list[int], test: list[int] | None = None, names: tuple[str, ...] | None = None
) -> tuple[list[int], list[int], tuple[str, ...]]:
    a, b, c = number_classes(np.array(train, dtype=np.int64), np.array(test or [], dtype=np.int64), names)
    return a.tolist(), b.tolist(), c


def test_labels_with_gaps_are_numbered_in_rising_order(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert numbered([7, 2, 7, 40], [40, 2]) == ([1, 0, 1, 2], [2, 0], ("2", "7", "40"))
    assert "[2, 7, 40]" in caplog.text


def test_contiguous_labels_stay_as_they_are() -> None:
    assert numbered([1, 0, 2]) == ([1, 0, 2], [], ("0", "1", "2"))


def test_named_labels_are_never_renumbered(caplog: pytest.LogCaptureFixture) -> None:
    assert numbered([2, 0], [2], ("a", "b", "c")) == ([2, 0], [2], ("a", "b", "c"))
    assert "1 of the 3 classes" in caplog.text


@pytest.mark.parametrize(
    ("train", "test", "names", "message"),
    [
        ([0, -1, 1], [], None, "1 of 3 training images have a negative label, such as -1"),
        ([0, 1], [-1, -1], None, "2 of 2 test images have a negative label"),
        ([3, 3], [], None, r"labels \[3\]: classification needs at least two classes"),
        ([], [], None, r"labels \[\]"),
        ([0, 1], [0, 2], None, r"test images have the labels \[2\]"),
        ([0, 1, 2], [], ("a", "b"), "label 2 has no name: there are 2 class names"),
    ],
)
def test_labels_that_break_a_rule_are_refused(
    train: list[int], test: list[int], names: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        numbered(train, test, names)
