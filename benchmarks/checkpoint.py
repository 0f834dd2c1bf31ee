"""How long checkpoints of large supernets take to save and to load, beside what the disk needs for as many bytes.

    python benchmarks/checkpoint.py --channels 32 64

Supernets of 12 layers with 81 kernels each, every candidate with its momentum. Saving writes all files and their
checksums; loading verifies the checksums and fills a search that is there. The disk's share is one file of as many
bytes, written from memory and read again in the same folder, in turns with them. Both are written until they are on the
disk (fsync), and read twice: from the disk, after the system was asked to forget its copy, and from the system's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from nasib_ray.sweep import versions
from trainables.checkpoint import load_search, save_search
from trainables.data import load_dataset
from trainables.device import settle_process
from trainables.search import Search
from trainables.settings import TrialSettings


def _search(channels: int) -> Search:
    """On the digits: what is saved depends on the channels alone."""
    settings = TrialSettings.from_config({"data": {"name": "digits"}, "channels": channels, "horizon": 2})
    search = Search(settings, load_dataset(settings.data), torch.device("cpu"))
    search.optimizer.momentum = {name: torch.rand_like(weight) for name, weight in search.supernet.named_parameters()}
    return search


def _to_disk(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _forget(folder: Path) -> None:
    """Let the system drop what it has in memory of the files, as if another machine had written them."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(channels: int, repeats: int, parent: str | None) -> dict[str, Any]:
    """Save and load one supernet several times."""
    saved, loaded = _search(channels), _search(channels)
    taken: dict[str, list[float]] = {}
    size = 0

    def timed(name: str, action: Callable[[], object]) -> None:
        began = time.perf_counter()
        action()
        taken.setdefault(name, []).append(time.perf_counter() - began)

    def save(folder: Path) -> None:
        save_search(saved, folder)
        _to_disk(folder)

    def write(folder: Path, block: bytes) -> None:
        (folder / "bytes").write_bytes(block)
        _to_disk(folder)

    for _ in range(repeats + 1):
        with tempfile.TemporaryDirectory(dir=parent) as ours, tempfile.TemporaryDirectory(dir=parent) as raw:
            folder, plain = Path(ours), Path(raw)
            timed("save", partial(save, folder))
            size = sum(path.stat().st_size for path in folder.iterdir())
            timed("write", partial(write, plain, bytes(size)))
            for place in ("disk", "cache"):
                if place == "disk":
                    _forget(folder)
                    _forget(plain)
                timed(f"load_from_{place}", partial(load_search, loaded, folder))
                timed(f"read_from_{place}", (plain / "bytes").read_bytes)
    # The first time is for what is prepared once.
    medians = {f"{name}_seconds": statistics.median(times[1:]) for name, times in taken.items()}
    spreads = {f"{name}_seconds_spread": [min(times[1:]), max(times[1:])] for name, times in taken.items()}
    return {"channels": channels, "bytes": size, **medians, **spreads}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="where to write; the system's temporary folder unless told")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = parser.parse_args()
    settle_process(1, 0)
    rows = [measure(channels, options.repeats, options.folder) for channels in options.channels]
    table = Table(title=f"seconds, medians of {options.repeats}")
    for column in ("channels", "MB", "", "ours", "the bytes alone", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        kinds = {"save": "write", "load_from_disk": "read_from_disk", "load_from_cache": "read_from_cache"}
        for ours, alone in kinds.items():
            first = ours == "save"
            mine, theirs = row[f"{ours}_seconds"], row[f"{alone}_seconds"]
            table.add_row(
                f"{row['channels']}" if first else "",
                f"{row['bytes'] / 1e6:.0f}" if first else "",
                ours.replace("_", " "),
                f"{mine:.2f}",
                f"{theirs:.2f}",
                f"{mine / theirs:.1f}",
            )
        table.add_section()
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "versions": versions()}, indent=2))


if __name__ == "__main__":
    main()
