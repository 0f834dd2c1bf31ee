"""One layer of the supernet: all its candidates, of which a batch uses one or two (section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from trainables.operations import build_operation
from trainables.settings import BatchNormPlace


class Superkernel(nn.Module):
    """ReLU(x + BN(op(x))) where op is the sum of the candidates that were drawn.

    Every candidate owns its weights and, where ``batch_norm`` is "candidate", its batch norm, so that a batch changes
    those that it drew and no others.

    Args:
        names: The candidates, in the order of the columns of alpha.
        channels: Channels of input and output.
        batch_norm: Behind each candidate, or once behind their sum.
    """

    def __init__(self, names: Sequence[str], channels: int, batch_norm: BatchNormPlace) -> None:
        super().__init__()
        self.names = tuple(names)
        self.candidates = nn.ModuleList(build_operation(name, channels) for name in names)
        norms = len(names) if batch_norm == "candidate" else 1
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(norms))
        self._norm_each = batch_norm == "candidate"

    def forward(self, x: Tensor, drawn: Sequence[int], scales: Tensor | None = None) -> Tensor:
        """The layer's output through the drawn candidates.

        Args:
            x: [batch, channels, height, width].
            drawn: Columns of one or two candidates.
            scales: A factor for each of them, [len(drawn)] (eq. 2); None: the plain sum (eq. 1).

        Raises:
            ValueError: A user's own operation changed the shape.
        """
        total: Tensor | None = None
        for position, column in enumerate(drawn):
            y: Tensor = self.candidates[column](x)
            if y.shape != x.shape:
                raise ValueError(
                    f"the operation {self.names[column]!r} made {tuple(y.shape)} of {tuple(x.shape)}: a candidate "
                    "keeps [batch, channels, height, width]"
                )
            if self._norm_each:
                y = self.norms[column](y)
            if scales is not None:
                y = y * scales[position]
            total = y if total is None else total + y
        assert total is not None, "a layer needs at least one drawn candidate"
        if not self._norm_each:
            total = self.norms[0](total)
        return functional.relu(x + total)
