from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional

from trainables.alpha import ArchitectureParameters
from trainables.momentum_sgd import MomentumSGD
from trainables.sampling import random_stream
from trainables.search_step import architecture_step, count_correct, weight_step
from trainables.settings import BatchNormPlace, PairScale, SearchSettings
from trainables.supernet import Supernet
from trainables.training import correctly_classified

LAYERS, N = 3, 9


def _settings(batch_norm: BatchNormPlace = "candidate") -> SearchSettings:
    return SearchSettings(layers=LAYERS, reductions=(2,), channels=4, m=3, K=4, batch_norm=batch_norm)


def _batch(number: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = random_stream(number, "test")
    images = torch.randn(8, 1, 8, 8, generator=generator)
    labels = torch.randint(5, (8,), generator=generator)
    return images, labels, torch.rand(LAYERS, N, generator=generator).topk(2).indices


def _optimizer(supernet: Supernet, gradient_clip: float = 5.0) -> MomentumSGD:
    return MomentumSGD(supernet.named_parameters(), momentum=0.9, weight_decay=3e-4, gradient_clip=gradient_clip)


def _state(supernet: Supernet, optimizer: MomentumSGD) -> dict[str, Tensor]:
    state = {name: value.clone() for name, value in supernet.state_dict().items()}
    return state | {f"momentum of {name}": buffer.clone() for name, buffer in optimizer.momentum.items()}


def _is_drawn(name: str, pairs: Tensor) -> bool:
    """Whether a tensor belongs to a drawn candidate or to what all paths share."""
    parts = name.removeprefix("momentum of ").split(".")
    return not (parts[0] == "layers" and parts[2] in ("candidates", "norms")) or int(parts[3]) in pairs[int(parts[1])]


@pytest.mark.parametrize("pair_scale", ["sum", "mean"])
def test_a_weight_step_leaves_undrawn_weights_and_their_momentum_bit_identical(pair_scale: PairScale) -> None:
    supernet = Supernet(_settings(), (1, 8, 8), 5)
    optimizer = _optimizer(supernet)
    for number in range(12):
        images, labels, pairs = _batch(number)
        before = _state(supernet, optimizer)
        weight_step(supernet, optimizer, images, labels, pairs, pair_scale=pair_scale, learning_rate=0.1)
        after = _state(supernet, optimizer)
        for name, value in after.items():
            if _is_drawn(name, pairs):
                assert name not in before or not torch.equal(value, before[name]), name
            else:
                assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(("pair_scale", "factor"), [("sum", 1.0), ("mean", 0.5)])
def test_the_weight_pass_sums_or_averages_the_pair(pair_scale: PairScale, factor: float) -> None:
    supernet = Supernet(_settings(), (1, 8, 8), 5)
    images, labels, pairs = _batch(0)
    with torch.no_grad():
        expected = functional.cross_entropy(supernet(images, pairs.tolist(), torch.full((LAYERS, 2), factor)), labels)
    loss = weight_step(supernet, _optimizer(supernet), images, labels, pairs, pair_scale=pair_scale, learning_rate=0.1)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("batch_norm", ["candidate", "layer"])
def test_an_architecture_step_follows_the_gradient_of_eq_2_and_moves_nothing_else(batch_norm: BatchNormPlace) -> None:
    settings = _settings(batch_norm).model_copy(
        update={"alpha_optimizer": "sgd", "alpha_learning_rate": 1.0, "momentum": 0}
    )
    supernet, parameters = Supernet(settings, (1, 8, 8), 5), ArchitectureParameters(settings)
    parameters.alpha.copy_(torch.randn(LAYERS, N, generator=random_stream(9, "test")))
    images, labels, pairs = _batch(1)
    weights = {name: value.clone() for name, value in supernet.state_dict().items()}
    alpha = parameters.alpha.clone()

    # Eq. 2 by hand: softmax over all candidates but the two drawn set to minus infinity.
    leaf = alpha.float().requires_grad_()
    undrawn = torch.ones(LAYERS, N, dtype=torch.bool).scatter_(1, pairs, False)
    scales = torch.softmax(leaf.masked_fill(undrawn, -torch.inf), dim=1).gather(1, pairs)
    loss = functional.cross_entropy(supernet(images, pairs.tolist(), scales), labels)
    (gradient,) = torch.autograd.grad(loss, leaf)

    assert float(architecture_step(supernet, parameters, images, labels, pairs)) == pytest.approx(loss.item())
    assert torch.equal(parameters.alpha[undrawn], alpha[undrawn])
    assert torch.allclose(parameters.alpha, alpha - gradient, atol=1e-7)
    assert (gradient[~undrawn] != 0).all()
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert all(parameter.grad is None for parameter in supernet.parameters())


def test_evaluation_runs_one_unscaled_operation_a_layer() -> None:
    supernet = Supernet(_settings(), (1, 8, 8), 5)
    images, labels, _ = _batch(2)
    logits = supernet(images, [(4,), (0,), (8,)])
    correct = count_correct(supernet, images, labels, [4, 0, 8])
    assert int(correct) == int((logits.argmax(1) == labels).sum())


def test_what_is_not_finite_is_not_classified() -> None:
    logits = torch.tensor([[2.0, 1.0], [math.nan, math.nan], [math.inf, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert int(correctly_classified(logits, torch.tensor([0, 0, 0, 1, 0]))) == 2


def _kept_bytes(step: Callable[[], object]) -> int:
    """What autograd keeps of activations during a step, weights and shared storages counted once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(kept.values())


def test_an_architecture_step_computes_and_keeps_nothing_for_the_weights() -> None:
    settings = SearchSettings(layers=LAYERS, reductions=(), channels=8, m=9)
    supernet, parameters = Supernet(settings, (3, 16, 16), 5), ArchitectureParameters(settings)
    images, labels = torch.randn(16, 3, 16, 16), torch.randint(5, (16,))
    pairs = torch.tensor([[settings.candidate_names.index(name) for name in ("sepconv9x9", "sepconv5x4")]] * LAYERS)
    asked: list[list[bool]] = []
    backward = torch.ops.aten.convolution_backward

    class Noting(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is backward.default:
                asked.append(args[-1])
            return func(*args, **(kwargs or {}))

    with Noting():  # type: ignore[no-untyped-call]
        architecture_step(supernet, parameters, images, labels, pairs)
    # The pointwise convolutions of two candidates in each layer; in front of the first layer nothing needs a gradient,
    # and that of a depthwise one's input is a forward convolution.
    assert asked == [[True, False, False]] * (2 * (LAYERS - 1))
    of_alpha = _kept_bytes(lambda: architecture_step(supernet, parameters, images, labels, pairs))
    optimizer = _optimizer(supernet)
    of_weights = _kept_bytes(
        lambda: weight_step(supernet, optimizer, images, labels, pairs, pair_scale="sum", learning_rate=0.1)
    )
    assert of_alpha < 0.75 * of_weights


def test_a_weight_step_and_an_evaluation_never_wait_for_the_device() -> None:
    settings = _settings()
    parts = Supernet(settings, (1, 8, 8), 5), torch.randn(8, 1, 8, 8), torch.randint(5, (8,))
    pairs = torch.tensor([[0, 8], [4, 1], [2, 5]])
    # A tensor without values cannot answer the host: whatever asks for one raises.
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        supernet, images, labels = copy.deepcopy(parts[0]), mode.from_tensor(parts[1]), mode.from_tensor(parts[2])
        with pytest.raises(DataDependentOutputException):
            float(images.sum())
        weight_step(supernet, _optimizer(supernet), images, labels, pairs, pair_scale="mean", learning_rate=0.1)
        count_correct(supernet, images, labels, [4, 0, 8])


def test_bfloat16_computes_about_the_same() -> None:
    settings = _settings()
    supernet = Supernet(settings, (1, 8, 8), 5)
    mixed = Supernet(settings.model_copy(update={"precision": "bfloat16"}), (1, 8, 8), 5)
    mixed.load_state_dict(supernet.state_dict())
    images, labels, pairs = _batch(4)
    losses = [
        weight_step(net, _optimizer(net), images, labels, pairs, pair_scale="sum", learning_rate=0.1)
        for net in (supernet, mixed)
    ]
    assert losses[0].dtype == losses[1].dtype == torch.float32
    assert float(losses[1]) == pytest.approx(float(losses[0]), rel=0.05)
    assert losses[0] != losses[1]
    for name, weight in mixed.named_parameters():
        assert weight.dtype == torch.float32
        assert torch.allclose(weight, supernet.get_parameter(name), atol=0.05), name
