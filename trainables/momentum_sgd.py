"""SGD with momentum over weights of which each batch uses a few."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class MomentumSGD:
    """SGD with momentum, L2 penalty and gradient clipping (section 4.1) that touches only what a batch used.

    It computes what torch.optim.SGD computes. That one costs every worker process 1.4 CPU-seconds of imports (the
    compiler) before its first step, and set-up is paid from the budget.

    Args:
        parameters: (name, parameter) of all weights.
        momentum: Of every weight's own past gradients.
        weight_decay: L2 penalty.
        gradient_clip: Largest norm of the whole gradient.

    Attributes:
        momentum: The momentum buffers of the weights that ever had a gradient, by name.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], momentum: float, weight_decay: float, gradient_clip: float
    ) -> None:
        self.momentum: dict[str, Tensor] = {}
        self._names = {parameter: name for name, parameter in parameters}
        self._factor = momentum
        self._weight_decay = weight_decay
        self._gradient_clip = gradient_clip

    @property
    def momentum_bytes(self) -> int:
        """What the momentum takes."""
        return sum(buffer.nbytes for buffer in self.momentum.values())

    @torch.no_grad()
    def step(self, learning_rate: float, used: Iterable[nn.Parameter]) -> None:
        """Take one step with the gradients that there are, and drop them; the other weights and momenta stay as is.

        Args:
            learning_rate: Of this step.
            used: The weights that may have a gradient, each once: to look at all of a supernet's would take longer than
                the step.
        """
        with_gradient = [weight for weight in used if weight.grad is not None]
        for weight in with_gradient:
            if self._names[weight] not in self.momentum:
                self.momentum[self._names[weight]] = torch.zeros_like(weight)
        weights: list[Tensor] = [*with_gradient]
        buffers = [self.momentum[self._names[weight]] for weight in with_gradient]
        nn.utils.clip_grad_norm_(weights, self._gradient_clip)
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        torch._foreach_add_(gradients, weights, alpha=self._weight_decay)
        torch._foreach_mul_(buffers, self._factor)
        torch._foreach_add_(buffers, gradients)
        torch._foreach_add_(weights, buffers, alpha=-learning_rate)
        for weight in with_gradient:
            weight.grad = None
