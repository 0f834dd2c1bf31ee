from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from nasib_ray import SweepConfig
from nasib_ray.export import export, real_images
from nasib_ray.networks import Network, read_network
from tests.nasib_ray_tests.conftest import Driver
from trainables.architecture import Architecture, MacroShape
from trainables.plain_network import plain_network
from trainables.supernet import build_network

OPERATIONS = ("conv2x3", "sepconv5x4", "max_pool3x3", "identity", "avg_pool3x3", "conv1x1")
CLASSES = tuple("0123456789")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASIB_RAY_CACHE", str(tmp_path / "cache"))


def _network(*operations: str) -> Network:
    torch.manual_seed(0)
    architecture = Architecture(operations, MacroShape((1, 8, 8), 10, len(operations), (2,), 6))
    network = build_network(architecture)
    network.train()
    for _ in range(3):  # Running statistics of its own.
        network(torch.randn(32, 1, 8, 8))
    mean, std = (0.3,), (0.4,)
    module = plain_network(network, mean, std)
    return Network(module, "made by a test", architecture, CLASSES, mean, std, {"name": "digits"})


def test_a_plain_network_computes_what_the_trained_one_does_with_the_normalisation_in_front() -> None:
    architecture = Architecture(OPERATIONS, MacroShape((3, 12, 10), 5, len(OPERATIONS), (3,), 4))
    network = build_network(architecture).eval()
    images = torch.rand(3, 3, 12, 10)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.0)  # A channel without a scale is left as it is.
    expected = network((images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor([0.5, 0.25, 1.0]).view(-1, 1, 1))
    assert torch.allclose(plain_network(network, mean, std)(images), expected, atol=1e-5)


READS = """
import sys, torch
module = torch.load(sys.argv[1], weights_only=False)
images = torch.load(sys.argv[2])
torch.save(module(images), sys.argv[3])
assert not {"nasib_ray", "trainables", "schedulers", "ray"} & set(sys.modules), "more than torch was needed"
module.train()(images).sum().backward()
"""


def test_a_plain_network_is_read_where_there_is_only_torch(tmp_path: Path) -> None:
    network = _network(*OPERATIONS).module
    images = torch.rand(4, 1, 8, 8)
    torch.save(network, tmp_path / "network.pt")
    torch.save(images, tmp_path / "images.pt")
    (tmp_path / "elsewhere").mkdir()
    arguments = [str(tmp_path / name) for name in ("network.pt", "images.pt", "logits.pt")]
    command = [sys.executable, "-I", "-c", READS, *arguments]
    run = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert torch.equal(torch.load(tmp_path / "logits.pt"), network(images))


def test_onnx_takes_any_batch_and_says_what_it_is(tmp_path: Path) -> None:
    network, file = _network(*OPERATIONS), tmp_path / "network.onnx"
    check = export(network, file, "onnx")
    assert check.images == 61
    assert check.largest_difference < 1e-4
    session = onnxruntime.InferenceSession(str(file))
    images = real_images(network, 17)
    (logits,) = session.run(None, {"images": images.numpy()})
    assert np.allclose(logits, network.module(images).detach().numpy(), atol=1e-4)
    told = {prop.key: prop.value for prop in onnx.load(file).metadata_props}
    assert json.loads(told["class_names"]) == list(CLASSES)
    assert json.loads(told["input"])["normalisation"] == {"mean": [0.3], "std": [0.4], "included": True}
    assert [child.name for child in tmp_path.iterdir() if child.is_file()] == ["network.onnx"]


def test_pt2_takes_any_batch_and_says_what_it_is(tmp_path: Path) -> None:
    network, file = _network(*OPERATIONS), tmp_path / "network.pt2"
    export(network, file, "pt2")
    told: dict[str, Any] = {"network.json": ""}
    program = torch.export.load(file, extra_files=told)
    images = real_images(network, 5)
    assert torch.allclose(program.module()(images), network.module(images), atol=1e-5)
    assert json.loads(told["network.json"])["architecture"]["operations"] == list(OPERATIONS)


def test_json_describes_the_network(tmp_path: Path) -> None:
    network, file = _network(*OPERATIONS), tmp_path / "network.json"
    assert export(network, file, "json").images == 0
    described = json.loads(file.read_text())
    assert Architecture.from_plain(described["architecture"]) == network.architecture
    assert described["parameters"] == sum(weight.numel() for weight in network.module.parameters())
    assert described["multiply_adds"] > 0


def test_a_file_that_computes_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "network.onnx"
    file.write_text("an older one")
    monkeypatch.setattr("nasib_ray.export._open_onnx", lambda _: lambda images: torch.zeros(len(images), 10))
    with pytest.raises(ValueError, match=r"was not kept: on 61 real images its logits differ"):
        export(_network("conv3x3", "identity"), file, "onnx")
    assert file.read_text() == "an older one"


def test_where_nothing_was_trained_it_is_said_what_would_be(
    make_driver: Callable[[], Driver], sweep_folder: Path
) -> None:
    driver = make_driver()
    driver.begin(config=SweepConfig(budget="3 cpu-minutes", data="digits").to_plain())
    driver.end()
    with pytest.raises(ValueError, match=f"`nasib-ray retrain {sweep_folder}` trains what it found"):
        read_network(str(sweep_folder))


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        export(_network("conv3x3", "identity"), tmp_path / "no" / "network.onnx", "onnx")
