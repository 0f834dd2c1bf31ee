"""What a search thinks of each kernel, as maps of height by width, one for each layer."""

from __future__ import annotations

import posixpath
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import fs

Map = Literal["alpha", "frequency", "sampling_probability"]

MAPS: tuple[Map, ...] = ("alpha", "frequency", "sampling_probability")

_NOW, _HISTORY = "architecture.arrow", "history.arrow"


def read_candidates(filesystem: fs.FileSystem, checkpoint: str) -> pa.Table | None:
    """The table of all candidates of all layers in a checkpoint of a search; None if it has none.

    Args:
        filesystem: Where the checkpoint is.
        checkpoint: Its folder there.

    Raises:
        OSError: It cannot be read.
    """
    return _read(filesystem, checkpoint, _NOW)


def read_history(filesystem: fs.FileSystem, checkpoint: str) -> dict[int, pa.Table]:
    """The same after the epochs 1, 2, 4, 8, ... and at the checkpoint itself, by epoch in rising order.

    Raises:
        OSError: It cannot be read.
    """
    tables: dict[int, pa.Table] = {}
    for name in (_HISTORY, _NOW):
        table = _read(filesystem, checkpoint, name)
        if table is not None:
            tables |= {epoch: table.filter(pc.field("epoch") == epoch) for epoch in table["epoch"].unique().to_pylist()}
    return dict(sorted(tables.items()))


def _read(filesystem: fs.FileSystem, checkpoint: str, name: str) -> pa.Table | None:
    path = posixpath.join(checkpoint, name)
    if filesystem.get_file_info(path).type != fs.FileType.File:
        return None
    with filesystem.open_input_file(path) as file:
        return pa.ipc.open_file(file).read_all()


def kernel_maps(candidates: pa.Table, kind: Map) -> dict[int, NDArray[np.float64]]:
    """For each layer, from 1, the values of all kernels: float64 [m, m], row i - 1 and column j - 1 for kernel i x j.

    NaN where no candidate has that size. Of several candidates of a size, as a convolution and a pooling, the largest
    value is taken; candidates without a size, as identity, are left out.
    """
    sizes = [size for name in ("i", "j") for size in candidates[name].to_pylist() if size is not None]
    if not sizes:
        return {}
    side = max(sizes)
    maps: dict[int, NDArray[np.float64]] = {}
    columns = (candidates[name].to_pylist() for name in ("layer", "i", "j", kind))
    for layer, i, j, value in zip(*columns, strict=True):
        shown = maps.setdefault(layer, np.full((side, side), np.nan))
        if i is not None and j is not None:
            shown[i - 1, j - 1] = np.fmax(shown[i - 1, j - 1], value)
    return maps
