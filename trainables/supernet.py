"""The macro network: stem, layers with factorized reductions between them, head (section 4.1).

It is written once: the supernet puts all candidates in each layer, a derived network one operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.architecture import Architecture, MacroShape
from trainables.candidates import is_import_path
from trainables.operations import build_operation
from trainables.settings import SearchSettings
from trainables.superkernel import Superkernel


class FactorizedReduction(nn.Module):
    """Max-pooling and a 2 x 2 stride-2 convolution, concatenated: half the resolution, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 2 C, H // 2, W // 2]."""
        return torch.cat([functional.max_pool2d(x, 2), self.norm(self.convolution(x))], dim=1)


class MacroNetwork(nn.Module):
    """Stem 3 x 3 convolution and batch norm, layers, global average pooling, linear head.

    Args:
        shape: The network but for its layers' operations.
        build_layer: Makes a layer from its number (from 1) and its channels.
    """

    def __init__(self, shape: MacroShape, build_layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.shape = shape
        self.stem = nn.Sequential(
            nn.Conv2d(shape.image_shape[0], shape.channels, 3, padding=1, bias=False), nn.BatchNorm2d(shape.channels)
        )
        numbers = range(1, shape.layers + 1)
        self.reductions = nn.ModuleDict(
            {str(number): FactorizedReduction(shape.channels_of(number) // 2) for number in shape.reductions}
        )
        self.layers = nn.ModuleList(build_layer(number, shape.channels_of(number)) for number in numbers)
        self.head = nn.Linear(shape.channels_of(shape.layers), shape.classes)

    def run(self, images: Tensor, run_layer: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Logits [B, classes] of images [B, C, H, W]; ``run_layer`` gets a layer's index (from 0) and its input."""
        x: Tensor = self.stem(images.contiguous(memory_format=torch.channels_last))
        for index in range(self.shape.layers):
            if str(index + 1) in self.reductions:
                x = self.reductions[str(index + 1)](x)
            x = run_layer(index, x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


class Supernet(MacroNetwork):
    """The network of which every layer holds all candidates.

    Its batch norms always use the batch's statistics: running ones would mix all paths and mean nothing for one.

    Args:
        settings: Candidates, macro network and precision.
        image_shape: (channels, height, width) of an image.
        classes: Number of classes.

    Attributes:
        precision: What its convolutions compute in.
    """

    def __init__(self, settings: SearchSettings, image_shape: tuple[int, int, int], classes: int) -> None:
        names = settings.candidate_names
        super().__init__(
            MacroShape(image_shape, classes, settings.layers, settings.reductions, settings.channels),
            lambda number, channels: Superkernel(names, channels, settings.batch_norm),
        )
        self._made_for = (settings.candidate_names, settings.batch_norm)
        self.precision = settings.precision
        use_batch_statistics(self)
        self.to(memory_format=torch.channels_last)

    def fits(self, settings: SearchSettings, image_shape: tuple[int, int, int], classes: int) -> bool:
        """Whether a supernet made of these would differ from this one in its weights alone.

        Not so with a user's own operations, which may be made anew of anything.
        """
        shape = MacroShape(image_shape, classes, settings.layers, settings.reductions, settings.channels)
        made_for = (settings.candidate_names, settings.batch_norm)
        same = (self.shape, self._made_for, self.precision) == (shape, made_for, settings.precision)
        return same and not any(map(is_import_path, made_for[0]))

    @torch.no_grad()
    def begin_anew(self) -> None:
        """Draw all weights again, as a new supernet would, without making its thousands of modules."""
        for part in self.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
                own = {name: weight for name, weight in part.named_parameters(recurse=False)}
                # Drawn where and in the layout in which those of a new one are, or they would be other ones.
                for name, weight in own.items():
                    part.register_parameter(name, nn.Parameter(torch.empty(weight.shape)))
                part.reset_parameters()
                for name, weight in own.items():
                    weight.copy_(part.get_parameter(name))
                    weight.grad = None
                    part.register_parameter(name, weight)

    def train(self, mode: bool = True) -> Supernet:
        """As every module's; only operations of the user's own know the difference, the thousands of others do not."""
        if any(map(is_import_path, self._made_for[0])):
            return super().train(mode)
        self.training = mode
        return self

    def weights_of(self, drawn: Sequence[Sequence[int]]) -> list[nn.Parameter]:
        """All weights that a batch with these candidates uses, each once."""
        used = [*self.stem.parameters(), *self.reductions.parameters(), *self.head.parameters()]
        for layer, columns in zip(self.layers, drawn, strict=True):
            assert isinstance(layer, Superkernel), "all layers of a supernet are superkernels"
            used += layer.weights_of(columns)
        return used

    @contextmanager
    def constant_weights(self, drawn: Sequence[Sequence[int]]) -> Iterator[None]:
        """Within, a pass through these candidates keeps nothing that only the weights' gradients would need."""
        used = self.weights_of(drawn)
        for weight in used:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in used:
                weight.requires_grad_(True)

    def forward(self, images: Tensor, drawn: Sequence[Sequence[int]], scales: Tensor | None = None) -> Tensor:
        """Logits [B, classes] through the drawn candidates, float32 unless the weights are of another type.

        Args:
            images: [B, C, H, W].
            drawn: For each layer the columns of one or two candidates.
            scales: Factors of the drawn candidates, [layers, len(drawn[0])]; None: plain sums.
        """
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits = self.run(
                images,
                lambda index, x: self.layers[index](x, drawn[index], None if scales is None else scales[index]),
            )
        return logits.to(self.head.weight.dtype)


class ResidualLayer(nn.Module):
    """ReLU(x + BN(op(x))) with the one operation that a search chose.

    Attributes:
        drop_path: Probability with which an image goes without the operation in training (Huang et al. 2016); the
            others have it the stronger, so that nothing changes on average.
    """

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        self.operation = build_operation(name, channels)
        self.norm = nn.BatchNorm2d(channels)
        self.drop_path = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        y = self.norm(self.operation(x))
        if self.training and self.drop_path > 0:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop_path
            y = y * kept.to(y.dtype) / (1.0 - self.drop_path)
        return functional.relu(x + y)


class DerivedNetwork(MacroNetwork):
    """The plain network of an architecture, with fresh weights and ordinary batch norm."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(
            architecture.macro, lambda number, channels: ResidualLayer(architecture.operations[number - 1], channels)
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, C, H, W]."""
        return self.run(images, lambda index, x: self.layers[index](x))

    def drop_paths(self, most: float) -> None:
        """Leave operations out in training with a probability that rises from layer to layer, up to this."""
        for number, layer in enumerate(self.layers, start=1):
            assert isinstance(layer, ResidualLayer), "all layers of a derived network are residual"
            layer.drop_path = most * number / len(self.layers)


def build_network(architecture: Architecture) -> DerivedNetwork:
    """The plain network of an architecture, to be trained from scratch."""
    return DerivedNetwork(architecture)


@torch.no_grad()
def network_with_shared_weights(supernet: Supernet, architecture: Architecture) -> DerivedNetwork:
    """The plain network of an architecture, with a copy of the weights that a supernet has for it.

    Its batch norms have no statistics yet: those of a supernet mean nothing for one path.
    """
    network = DerivedNetwork(architecture).to(supernet.head.weight.device)
    for part in ("stem", "reductions", "head"):
        _copy_state(getattr(supernet, part), getattr(network, part))
    for name, shared, own in zip(architecture.operations, supernet.layers, network.layers, strict=True):
        assert isinstance(shared, Superkernel), "all layers of a supernet are superkernels"
        assert isinstance(own, ResidualLayer), "all layers of a derived network are residual"
        candidate, norm = shared.parts_of(shared.names.index(name))
        _copy_state(candidate, own.operation)
        _copy_state(norm, own.norm)
    return network


def _copy_state(of: nn.Module, to: nn.Module) -> None:
    """Copy what both have: the batch norms of a supernet have no running statistics."""
    state = of.state_dict()
    for name, tensor in to.state_dict().items():
        if name in state:
            tensor.copy_(state[name])


def use_batch_statistics(module: nn.Module) -> None:
    """Let every batch norm inside forget its running statistics and use the batch's, in training and evaluation."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.track_running_stats = False
            part.running_mean = part.running_var = part.num_batches_tracked = None


def count_parameters(module: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
