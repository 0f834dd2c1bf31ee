"""Which two candidates of each layer a batch uses: the policies P1 and P2 and their frequency tables (section 3.3).

All randomness of a search comes from generators that are functions of (seed, purpose, position). Nothing has to be
remembered between two batches, so a search that is cut anywhere and continued elsewhere draws the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def stream_seed(seed: int, purpose: str, *position: int) -> int:
    """A seed of 63 bits for one purpose at one position (such as epoch and batch) of the search of that seed."""
    text = ":".join([str(seed), purpose, *map(str, position)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def random_stream(seed: int, purpose: str, *position: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for one purpose at one position of the search of that seed."""
    return torch.Generator(device).manual_seed(stream_seed(seed, purpose, *position))


@contextmanager
def seeded_torch(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Within, torch's own generators start from that seed; afterwards they are as they were before.

    Only what cannot be given a generator needs this: initial weights, and operations of the user's own (dropout).
    """
    on_gpu = torch.device(device).type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield


def exploring_log_probabilities(frequency: Tensor) -> Tensor:
    """Policy P1: log softmax(-freq) over each layer's candidates (eq. 3). [layers, N] counts -> float64."""
    return torch.log_softmax(-frequency.double(), dim=-1)


def exploiting_log_probabilities(alpha: Tensor, lambda_: float) -> Tensor:
    """Policy P2: log softmax(alpha / lambda) over each layer's candidates (eq. 4). [layers, N] -> float64."""
    return torch.log_softmax(alpha.double() / lambda_, dim=-1)


def draw_pairs(log_probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Two different candidates of each row, in the order drawn: the second from the rest, renormalised.

    The largest two of log probability plus Gumbel noise are such a draw without replacement, and stay one where the
    softmax is one-hot in floating point. [..., N] float64 -> [..., 2] int64.
    """
    assert log_probabilities.dtype == torch.float64, "a hard softmax needs the range of float64 logarithms"
    gumbel = -torch.empty_like(log_probabilities).exponential_(generator=generator).log()
    return (log_probabilities + gumbel).topk(2, dim=-1).indices


class Sampler:
    """Draws candidates for every batch and counts them.

    Attributes:
        frequency: How often each candidate of each layer has been drawn so far, int64 [layers, N].
    """

    def __init__(self, layers: int, candidates: int, lambda_: float) -> None:
        self.frequency = torch.zeros(layers, candidates, dtype=torch.int64)
        self._lambda = lambda_

    def draw(self, alpha: Tensor, p: float, generator: torch.Generator) -> Tensor:
        """Draw two candidates for each layer and count them; with probability p a layer explores (P1), else P2.

        Args:
            alpha: Architecture parameters, [layers, N] on the CPU.
            p: Probability of P1 in [0, 1].
            generator: The batch's own.

        Returns:
            int64 [layers, 2], the candidates' columns in alpha.
        """
        explore = torch.rand(len(alpha), 1, dtype=torch.float64, generator=generator) < p
        log_probabilities = torch.where(
            explore, exploring_log_probabilities(self.frequency), exploiting_log_probabilities(alpha, self._lambda)
        )
        pairs = draw_pairs(log_probabilities, generator)
        self.frequency.scatter_add_(1, pairs, torch.ones_like(pairs))
        return pairs


def entropy(log_probabilities: Tensor) -> Tensor:
    """Entropy in nats of each row of log probabilities: [..., N] -> [...]."""
    terms: Tensor = torch.special.entr(log_probabilities.exp())
    return terms.sum(-1)
