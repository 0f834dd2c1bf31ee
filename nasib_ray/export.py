"""Trained networks as files for other programs, checked by running them."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from nasib_ray.networks import Network
from trainables.data import load_dataset
from trainables.settings import DataSettings
from trainables.stock import without_padding_warning

Format = Literal["onnx", "pt2", "json"]
FORMATS: tuple[str, ...] = get_args(Format)

_BATCHES = (1, 2, 61)
"""Sizes of the batches that an exported network is checked with."""

_TOLERANCE = 1e-3
"""By which logits of the file and of the module may differ: libraries add in another order."""


@dataclass(frozen=True)
class Check:
    """How a file was checked.

    Attributes:
        images: How many real images it was run on; 0: it holds no weights.
        largest_difference: Of a logit, between file and module.
    """

    images: int
    largest_difference: float


def export(
    network: Network,
    file: str | os.PathLike[str],
    form: Format,
    progress: Callable[[str, int, int], None] | None = None,
) -> Check:
    """Write a network to a file and make sure that the file computes what the module does.

    Args:
        network: The network.
        file: Written whole, or not at all.
        form: "onnx"; "pt2", which ``torch.export.load`` reads; or "json", a description without weights. Class names
            and normalisation are in each; the batch size is free.
        progress: Told of the images' preparation, if they must be prepared: what, how much is done, of how much.

    Raises:
        ValueError: A package is missing, an operation cannot be exported, or the file computes something else.
        OSError: The file cannot be written.
    """
    target = Path(file).expanduser()
    if not target.parent.is_dir():
        raise ValueError(f"there is no folder {target.parent}: make it first, or name another file")
    partial = target.with_name(f".{target.stem}-{os.getpid()}.partial{_SUFFIXES[form]}")
    try:
        if form == "json":
            partial.write_text(json.dumps(network.described(), indent=2) + "\n", encoding="utf-8")
            check = Check(0, 0.0)
        else:
            write, opened = {"onnx": (_write_onnx, _open_onnx), "pt2": (_write_pt2, _open_pt2)}[form]
            with warnings.catch_warnings(), without_padding_warning():
                warnings.simplefilter("ignore", category=DeprecationWarning)
                write(network, partial)
                check = _check(network, opened(partial), form, progress)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return check


_SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "json": ".json"}


def _check(
    network: Network,
    run: Callable[[Tensor], Tensor],
    form: str,
    progress: Callable[[str, int, int], None] | None,
) -> Check:
    images = real_images(network, max(_BATCHES), progress)
    largest = 0.0
    with torch.inference_mode():
        for size in _BATCHES:
            batch = images[:size]
            largest = max(largest, float((run(batch) - network.module(batch)).abs().max()))
    if not largest <= _TOLERANCE:
        raise ValueError(
            f"the exported {form} file was not kept: on {len(images)} real images its logits differ from the network's "
            f"by up to {largest:.2g}, and {_TOLERANCE:g} is allowed"
        )
    return Check(len(images), largest)


def real_images(network: Network, count: int, progress: Callable[[str, int, int], None] | None = None) -> Tensor:
    """The first training images of the data set, float32 [count, C, H, W] in [0, 1]."""
    dataset = load_dataset(DataSettings.model_validate(network.data), progress)
    return dataset.train.images[:count].float() / 255


def _dynamic_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch", min=1)},)


def _example(network: Network) -> tuple[Tensor]:
    # Of a batch of one PyTorch would take the size for a constant.
    return (torch.rand(2, *network.architecture.macro.image_shape),)


def _write_pt2(network: Network, file: Path) -> None:
    try:
        program = torch.export.export(network.module, _example(network), dynamic_shapes=_dynamic_batch())
    except Exception as error:
        raise ValueError(f"torch.export cannot export this network: {_first_line(error)}") from error
    torch.export.save(program, file, extra_files={"network.json": json.dumps(network.described())})


def _open_pt2(file: Path) -> Callable[[Tensor], Tensor]:
    module = torch.export.load(file).module()

    def run(images: Tensor) -> Tensor:
        logits: Tensor = module(images)
        return logits

    return run


def _write_onnx(network: Network, file: Path) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"the package {error.name} is missing: `pip install 'nasib-ray[onnx]'` brings what ONNX needs"
        ) from error
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        program = torch.onnx.export(
            network.module,
            _example(network),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=_dynamic_batch(),
        )
    except Exception as error:
        raise ValueError(f"PyTorch cannot export this network to ONNX: {_first_line(error)}") from error
    assert program is not None, "the exporter gives a program"
    model = program.model_proto
    onnx.helper.set_model_props(
        model,
        {name: value if isinstance(value, str) else json.dumps(value) for name, value in network.described().items()},
    )
    onnx.save(model, str(file))


def _open_onnx(file: Path) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            "the package onnxruntime is missing, by which the file is checked: `pip install 'nasib-ray[onnx]'`"
        ) from error
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {"images": np.ascontiguousarray(images.numpy())})
        return torch.from_numpy(logits)

    return run


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
