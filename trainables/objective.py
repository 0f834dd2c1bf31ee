"""What a sweep maximises: what little work says of the network that a search prefers now."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch

from trainables.architecture import Architecture
from trainables.sampling import seeded_torch, stream_seed
from trainables.search_step import count_correct
from trainables.settings import Objective
from trainables.supernet import Supernet, build_network, network_with_shared_weights
from trainables.training import LabelledImages, Steps, Training, judging, recalibrating
from trainables.training_settings import Recipe

RECALIBRATION_IMAGES = 2000
"""Images that statistics of batch norms are taken from."""


def best_of_random(
    supernet: Supernet,
    candidates: int,
    selection: LabelledImages,
    bounds: Sequence[tuple[int, int]],
    samples: int,
    generator: torch.Generator,
) -> Steps[tuple[list[int], int]]:
    """The best of some random architectures, with shared weights on the selection part.

    Args:
        supernet: Not changed.
        candidates: Of each layer.
        selection: What they are judged on, in batches whose statistics batch norms use.
        bounds: (start, stop) of each batch.
        samples: How many are drawn, every candidate of a layer alike.
        generator: Of the draws, on the CPU.

    Returns:
        The column of each layer's operation, and how many images it classifies correctly.

    References:
        Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020.
    """
    best: tuple[list[int], int] = [], -1
    for _ in range(samples):
        columns = torch.randint(candidates, (supernet.shape.layers,), generator=generator).tolist()
        counts = []
        for start, stop in bounds:
            images, labels = selection.batch(selection.part[start:stop])
            counts.append(count_correct(supernet, images, labels, columns))
            yield
        if (correct := int(torch.stack(counts).sum())) > best[1]:
            best = columns, correct
    return best


def measure_objective(
    objective: Objective,
    supernet: Supernet,
    architecture: Architecture,
    recipe: Recipe,
    *,
    weights: LabelledImages,
    selection: LabelledImages,
    seed: int,
    epochs: int,
    trainings: int,
) -> Steps[float]:
    """Judge a network on the selection part after recalibrating it, training it further, or training it alone.

    A function of its arguments: nothing of the supernet is changed. It gives way after every batch, so that whoever
    runs it can leave it off; what was done is then lost.

    Args:
        objective: What to measure, but "shared-accuracy", which is measured without further work.
        supernet: Whose weights are copied.
        architecture: The network.
        recipe: How it is trained: the whole cosine, over ``epochs``.
        weights: What it is trained on, or its batch norms take their statistics from.
        selection: What it is judged on.
        seed: Of initial weights, order, augmentation.
        epochs: Of a training.
        trainings: How many, each from its own seed; recalibration is done once.

    Returns:
        The mean over trainings of the accuracy in [0, 1], or of the mean log-probability of an image's class, in nats.
    """
    work, _, measure = objective.rpartition("-")
    assert work != "shared", "the accuracy with shared weights needs no work"
    values = []
    for number in range(1 if work == "recalibrated" else trainings):
        own_seed = stream_seed(seed, "training", number)
        with seeded_torch(own_seed):
            if work == "trained":
                network = build_network(architecture).to(weights.images.device)
            else:
                network = network_with_shared_weights(supernet, architecture)
        if work == "recalibrated":
            images = RECALIBRATION_IMAGES
            yield from recalibrating(network, weights, recipe.batch_size, images, own_seed, recipe.precision)
        else:
            training = Training(network, recipe, weights, own_seed, epochs)
            while not training.finished:
                training.run_batch()
                yield
        judged = yield from judging(network, selection, 4 * recipe.batch_size, recipe.precision)
        values.append(judged.accuracy if measure == "accuracy" else -judged.loss)
    return statistics.fmean(values)
