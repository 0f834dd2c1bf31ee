"""The two steps of a search (section 3.2) and the evaluation of one architecture inside the supernet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from trainables.alpha import ArchitectureParameters
from trainables.momentum_sgd import MomentumSGD
from trainables.settings import PairScale
from trainables.supernet import Supernet
from trainables.training import correctly_classified


def weight_step(
    supernet: Supernet,
    optimizer: MomentumSGD,
    images: Tensor,
    labels: Tensor,
    pairs: Tensor,
    *,
    pair_scale: PairScale,
    learning_rate: float,
) -> Tensor:
    """Train the drawn candidates' weights, and the weights that all paths share, on one batch (eq. 1).

    Candidates that were not drawn get no gradient, so the optimizer leaves them and their momentum alone.

    Args:
        supernet: Changed in place.
        optimizer: Of the supernet's weights.
        images: Augmented images [B, C, H, W].
        labels: int64 [B].
        pairs: Columns of the drawn candidates, int64 [layers, 2].
        pair_scale: Their sum (eq. 1 as printed) or their mean.
        learning_rate: Of this step.

    Returns:
        The mean loss of the batch before the step, a scalar on the device.
    """
    scales = torch.full(pairs.shape, 0.5, device=images.device) if pair_scale == "mean" else None
    drawn = pairs.tolist()
    loss = functional.cross_entropy(supernet(images, drawn, scales), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step(learning_rate, supernet.weights_of(drawn))
    return loss.detach()


def architecture_step(
    supernet: Supernet, parameters: ArchitectureParameters, images: Tensor, labels: Tensor, pairs: Tensor
) -> Tensor:
    """Train the drawn alphas on one batch, weights constant: outputs weighted by softmax over the two (eq. 2).

    Args:
        supernet: Not changed.
        parameters: alpha, changed in place in the drawn entries.
        images: Images [B, C, H, W].
        labels: int64 [B].
        pairs: Columns of the drawn candidates, int64 [layers, 2].

    Returns:
        The mean loss of the batch before the step, a scalar on the device.
    """
    alpha = parameters.alpha.gather(1, pairs).to(images.device, images.dtype).requires_grad_()
    drawn = pairs.tolist()
    with supernet.constant_weights(drawn):
        logits = supernet(images, drawn, torch.softmax(alpha, dim=1))
    loss = functional.cross_entropy(logits, labels)
    (gradient,) = torch.autograd.grad(loss, alpha)
    # The next batch's draw depends on this update: the one place where the host has to wait for the device.
    parameters.update(pairs, gradient.cpu())
    return loss.detach()


@torch.no_grad()
def count_correct(supernet: Supernet, images: Tensor, labels: Tensor, columns: Sequence[int]) -> Tensor:
    """How many images the network of one operation a layer, unscaled and with shared weights, classifies correctly.

    Args:
        supernet: Not changed; its batch norms use the statistics of this batch.
        images: Images [B, C, H, W].
        labels: int64 [B].
        columns: The column of each layer's operation.

    Returns:
        An int64 scalar on the device.
    """
    logits = supernet(images, [(column,) for column in columns])
    return correctly_classified(logits, labels)
