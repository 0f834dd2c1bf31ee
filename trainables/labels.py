"""Class labels: checked, numbered from 0, and drawn from so that every class keeps its share."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


def stratified_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A random order of range(len(labels)) any prefix of which holds the classes in their proportions.

    An image of rank r among the n of its class (ranks are random) stands at (r + 1/2) / n of the way, ties at random. A
    prefix thus holds, with one t for all classes, t * n images of a class of n, rounded. Consecutive pieces of the
    order are disjoint and stratified; a class of one or two images is in none of the first quarter's pieces.
    """
    # RandomState, as its streams never change between versions of NumPy: a test set once drawn must stay the same.
    shuffled = np.random.RandomState(seed % 2**32).permutation(len(labels))
    turn = np.argsort(labels[shuffled], kind="stable")
    _, starts, counts = np.unique(labels[shuffled][turn], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(starts, counts)
    position = (rank + 0.5) / np.repeat(counts, counts)
    order: NDArray[np.int64] = shuffled[turn[np.lexsort((turn, position))]].astype(np.int64)
    return order


def number_classes(
    train: NDArray[np.int64], test: NDArray[np.int64], class_names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Labels of training and test images in 0..n-1, and the n names.

    With class names, a label is the number of its name and stays as it is. Without, the labels may have gaps or start
    anywhere from 0 on: they are numbered in rising order and are their own names.

    Args:
        train: Labels of the training images.
        test: Labels of the test images, empty where there are none.
        class_names: The names that come with the data, if any do.

    Raises:
        ValueError: A label is negative or has no name, the test images have a class that the training images lack, or
            the training images have fewer than two classes.
    """
    for part, labels in (("training", train), ("test", test)):
        if negative := int((labels < 0).sum()):
            raise ValueError(
                f"{negative} of {len(labels)} {part} images have a negative label, such as {labels.min()} (often the "
                "mark of an image without a label): labels count from 0; take those images out"
            )
    present = np.unique(train)
    if len(present) < 2:
        raise ValueError(
            f"the training images have the labels {present.tolist()}: classification needs at least two classes"
        )
    if lacking := np.setdiff1d(test, present).tolist():
        raise ValueError(
            f"the test images have the labels {lacking[:10]}, which no training image has: "
            "the two parts need the same classes"
        )
    if class_names is None:
        if present[-1] != len(present) - 1:
            logger.info("labels %s ... are numbered 0 to %d", present[:10].tolist(), len(present) - 1)
        return (
            np.searchsorted(present, train).astype(np.int64),
            np.searchsorted(present, test).astype(np.int64),
            tuple(str(label) for label in present),
        )
    if present[-1] >= len(class_names):
        raise ValueError(f"label {present[-1]} has no name: there are {len(class_names)} class names, counted from 0")
    if len(present) < len(class_names):
        logger.warning("%d of the %d classes have no training image", len(class_names) - len(present), len(class_names))
    return train, test, class_names
