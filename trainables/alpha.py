"""Architecture parameters (alpha): their priors, their optimizer, and the operations that they choose."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.settings import SearchSettings

# ProxylessNAS: without a first moment, so that no update outlives the batch that asked for it.
ADAM_BETAS = (0.0, 0.999)
ADAM_EPSILON = 1e-8


class ArchitectureParameters:
    """alpha with an optimizer whose state and step count are kept per entry; only drawn entries ever change.

    An optimizer that knows only whole tensors moves candidates that were not drawn: by their momentum, or by the decay
    of a shared step count. Everything is float64 on the CPU, where the sampler needs it.

    Args:
        settings: Candidates, priors, optimizer and learning rate.

    Attributes:
        alpha: [layers, N].
        prior: The initial alpha, [layers, N].
        first_moment: Adam's first moment or SGD's momentum buffer, [layers, N].
        second_moment: Adam's second moment, [layers, N]; zero for SGD.
        steps: Updates of each entry, int64 [layers, N].
    """

    def __init__(self, settings: SearchSettings) -> None:
        row = [settings.priors.get(name, 0.0) for name in settings.candidate_names]
        self.prior = torch.tensor([row] * settings.layers, dtype=torch.float64)
        self.alpha = self.prior.clone()
        self.first_moment = torch.zeros_like(self.alpha)
        self.second_moment = torch.zeros_like(self.alpha)
        self.steps = torch.zeros_like(self.alpha, dtype=torch.int64)
        self._optimizer = settings.alpha_optimizer
        self._momentum = settings.momentum
        self._learning_rate = settings.alpha_learning_rate

    def update(self, pairs: Tensor, gradient: Tensor) -> None:
        """Move the drawn entries down their gradient.

        Args:
            pairs: Columns of the drawn entries, int64 [layers, 2].
            gradient: Of the loss in those entries, [layers, 2]. What is not finite counts as zero, so that a search
                whose weights have diverged goes on, and says so by its accuracy.
        """
        gradient = torch.nan_to_num(gradient.double(), nan=0.0, posinf=0.0, neginf=0.0)
        steps = self.steps.gather(1, pairs) + 1
        self.steps.scatter_(1, pairs, steps)
        if self._optimizer == "sgd":
            change = self._momentum * self.first_moment.gather(1, pairs) + gradient
            self.first_moment.scatter_(1, pairs, change)
        else:
            change = self._adam(pairs, gradient, steps)
        self.alpha.scatter_(1, pairs, self.alpha.gather(1, pairs) - self._learning_rate * change)

    def _adam(self, pairs: Tensor, gradient: Tensor, steps: Tensor) -> Tensor:
        first_beta, second_beta = ADAM_BETAS
        first = first_beta * self.first_moment.gather(1, pairs) + (1 - first_beta) * gradient
        second = second_beta * self.second_moment.gather(1, pairs) + (1 - second_beta) * gradient**2
        self.first_moment.scatter_(1, pairs, first)
        self.second_moment.scatter_(1, pairs, second)
        count = steps.double()  # A power of a float and an integer tensor is only float32.
        second_root = (second / (1 - second_beta**count)).sqrt()
        return first / (1 - first_beta**count) / (second_root + ADAM_EPSILON)

    def argmax(self, frequency: Tensor, generator: torch.Generator) -> Tensor:
        """The column of each layer's largest alpha, int64 [layers].

        Ties go to the larger prior, then to the higher frequency, then to a draw: never to the lower index.

        Args:
            frequency: Sampling frequencies, [layers, N].
            generator: Decides what is still tied.
        """
        lot = torch.rand(self.alpha.shape, dtype=torch.float64, generator=generator)
        tied = torch.ones_like(self.alpha, dtype=torch.bool)
        for rank in (self.alpha, self.prior, frequency.double(), lot):
            tied &= rank == rank.masked_fill(~tied, -torch.inf).amax(dim=1, keepdim=True)
        return tied.int().argmax(dim=1)
