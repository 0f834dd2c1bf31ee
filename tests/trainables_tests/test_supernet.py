from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from trainables.architecture import Architecture, MacroShape
from trainables.settings import SearchSettings
from trainables.superkernel import Superkernel
from trainables.supernet import Supernet, build_network, count_parameters, use_batch_statistics

SMALL = SearchSettings(layers=3, reductions=(2,), channels=4, m=3, K=4)


@pytest.mark.parametrize("scales", [None, (0.3, 0.7), (0.5, 0.5)])
def test_a_layer_is_relu_of_input_plus_normalised_operations(scales: tuple[float, float] | None) -> None:
    layer = Superkernel(("conv3x3", "sepconv5x5", "identity"), 4, "candidate")
    x = torch.randn(5, 4, 6, 6)
    one, other = (layer.norms[column](layer.candidates[column](x)) for column in (1, 2))
    a, b = scales or (1.0, 1.0)
    ours = layer(x, (1, 2), None if scales is None else torch.tensor(scales))
    assert torch.allclose(ours, functional.relu(x + a * one + b * other), atol=1e-6)


def test_one_batch_norm_behind_the_sum() -> None:
    layer = Superkernel(("conv3x3", "sepconv5x5", "identity"), 4, "layer")
    assert len(layer.norms) == 1
    x = torch.randn(5, 4, 6, 6)
    total = layer.candidates[0](x) + layer.candidates[1](x)
    assert torch.allclose(layer(x, (0, 1)), functional.relu(x + layer.norms[0](total)), atol=1e-6)


def test_an_operation_that_changes_the_shape_is_named() -> None:
    layer = Superkernel(("conv3x3", "torch.nn:AdaptiveAvgPool2d"), 4, "candidate")
    with pytest.raises(ValueError, match=r"'torch\.nn:AdaptiveAvgPool2d' made"):
        layer(torch.randn(2, 4, 3, 3), (1,))


@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 32, 32), (2, 9, 17), (3, 2, 2)])
def test_any_image(image_shape: tuple[int, int, int]) -> None:
    supernet = Supernet(SMALL, image_shape, classes=7)
    logits = supernet(torch.randn(4, *image_shape), [(0, 5)] * 3, torch.full((3, 2), 0.5))
    assert logits.shape == (4, 7)


def test_reductions_halve_and_double() -> None:
    supernet = Supernet(SearchSettings(m=2, channels=4), (3, 32, 32), 10)
    shapes: list[tuple[int, ...]] = []

    def layer(index: int, x: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x.shape[1:]))
        return x

    supernet.run(torch.randn(2, 3, 32, 32), layer)
    assert shapes == [(4, 32, 32)] * 3 + [(8, 16, 16)] * 3 + [(16, 8, 8)] * 3 + [(32, 4, 4)] * 3
    reduction = supernet.reductions["4"]
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(reduction(x)[:, :4], functional.max_pool2d(x, 2))


def test_images_too_small_for_the_reductions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"4 x 9 pixels cannot be halved 3 times.*data.image_size"):
        Supernet(SearchSettings(m=2), (3, 4, 9), 10)


@pytest.mark.parametrize(("batch_norm", "parameters"), [("candidate", 13_777_162), ("layer", 13_661_962)])
def test_parameters_of_the_papers_network(batch_norm: str, parameters: int) -> None:
    # By hand: 12 layers of 81 candidates at 16, 32, 64 and 128 channels, stem, reductions and head.
    settings = SearchSettings.model_validate({"batch_norm": batch_norm})
    kernels = [(i, j) for i in range(1, 10) for j in range(1, 10)]
    expected = 27 * 16 + 32 + 128 * 10 + 10
    for stage, channels in enumerate((16, 32, 64, 128)):
        layer = sum(i * j * channels**2 if i * j <= 9 else i * j * channels + channels**2 for i, j in kernels)
        norms = 81 if batch_norm == "candidate" else 1
        expected += 3 * (layer + norms * 2 * channels)
        if stage:
            expected += 4 * (channels // 2) ** 2 + channels
    with torch.device("meta"):
        supernet = Supernet(settings, (3, 32, 32), 10)
    assert count_parameters(supernet) == expected == parameters


def test_the_supernet_has_no_running_statistics_and_evaluates_with_the_batchs() -> None:
    supernet = Supernet(SMALL, (1, 8, 8), 3)
    assert not list(supernet.buffers())
    x = torch.randn(6, 1, 8, 8)
    drawn = [(0,)] * 3
    assert torch.equal(supernet.train()(x, drawn), supernet.eval()(x, drawn))


def test_the_derived_network_is_the_path_of_the_supernet() -> None:
    supernet = Supernet(SMALL, (1, 8, 8), 3)
    names, columns = SMALL.candidate_names, (2, 8, 0)
    network = build_network(Architecture(tuple(names[column] for column in columns), supernet.shape))
    use_batch_statistics(network)
    own = {
        key.replace(f"candidates.{column}.", "operation.").replace(f"norms.{column}.", "norm."): value
        for key, value in supernet.state_dict().items()
        for column in ([columns[int(key.split(".")[1])]] if key.startswith("layers") else [0])
        if not key.startswith("layers") or f".{column}." in key[len("layers.0") :][:14]
    }
    network.load_state_dict({key: own[key] for key in network.state_dict()})
    x = torch.randn(5, 1, 8, 8)
    assert torch.allclose(network(x), supernet(x, [(column,) for column in columns]), atol=1e-6)


def test_a_derived_network_has_ordinary_batch_norm() -> None:
    network = build_network(Architecture(("identity",), MacroShape((1, 8, 8), 2, 1, (), 4)))
    assert {name.rsplit(".", 1)[-1] for name, _ in network.named_buffers()} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert network.eval()(torch.randn(1, 1, 8, 8)).shape == (1, 2)


@pytest.mark.parametrize("batch_norm", ["candidate", "layer"])
def test_a_supernet_that_begins_anew_equals_a_new_one_bit_for_bit(batch_norm: str) -> None:
    settings = SMALL.model_copy(update={"batch_norm": batch_norm})
    torch.manual_seed(7)
    new = Supernet(settings, (3, 8, 8), 5)
    torch.manual_seed(1)
    used = Supernet(settings, (3, 8, 8), 5)
    with torch.no_grad():
        for weight in used.parameters():
            weight.add_(1.0)
    used(torch.randn(2, 3, 8, 8), [(0, 4)] * 3).sum().backward()
    torch.manual_seed(7)
    used.begin_anew()
    expected = new.state_dict()
    assert used.state_dict().keys() == expected.keys()
    for name, weight in used.named_parameters():
        assert torch.equal(weight, expected[name]), name
        assert weight.stride() == expected[name].stride()
        assert weight.grad is None


def test_a_supernet_fits_what_it_was_made_for_alone() -> None:
    supernet = Supernet(SMALL, (3, 8, 8), 5)
    assert supernet.fits(SMALL.model_copy(update={"learning_rate": 0.3}), (3, 8, 8), 5)
    for other in ({"m": 2}, {"channels": 8}, {"layers": 4}, {"reductions": ()}, {"batch_norm": "layer"}):
        assert not supernet.fits(SMALL.model_copy(update=other), (3, 8, 8), 5), other
    assert not supernet.fits(SMALL, (3, 8, 8), 6)
    assert not supernet.fits(SMALL, (1, 8, 8), 5)
    own = SMALL.model_copy(update={"candidates": ("conv3x3", "torch.nn:ReLU6")})
    assert not Supernet(own, (3, 8, 8), 5).fits(own, (3, 8, 8), 5)
