"""How fast the steps of a search are, beside those of the supernet as one would write it first.

    python benchmarks/step.py            # channels 8, 16, 32; batches of 64 and 128; 12 layers, m = 9
    python benchmarks/step.py --channels 16 --batch 64 --profile
    python benchmarks/step.py --device cuda --precision bfloat16 --channels 32 --batch 256

Both sides get the same draws, in turns, in one process with one thread and the same settings of malloc and oneDNN.
Each is run once with a draw before it is timed, so that no library's preparation of a new shape counts. On the CPU
processor time is taken, which other load disturbs little; on a GPU the time until it has finished. A speed-up is the
median over the draws of straightforward / ours, its spread their quartiles; of several cells it is the geometric mean,
and the spread goes from the lowest cell to the highest.

The straightforward side (straightforward.py) has one nn.Sequential per candidate, padding="same" and PyTorch's default
memory format; it trains with torch.optim.SGD, and its architecture step goes back to the weights too.

GFLOP/s counts the multiplications and additions of the drawn convolutions that a step cannot do without: no padding, no
recomputation, no elementwise operations. The share of the roofline is the least time in which this device could do all
operations of a step, one after the other (roofline.py), over the time that it took.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from roofline import Roof, clock_of, measured_roof, needed
from straightforward import StraightforwardSupernet
from torch import Tensor
from torch.nn import functional

from nasib_ray.sweep import versions
from trainables.alpha import ArchitectureParameters
from trainables.device import MemoryWatch, choose_algorithms, device_name, settle_process
from trainables.momentum_sgd import MomentumSGD
from trainables.search_step import architecture_step, count_correct, weight_step
from trainables.settings import SearchSettings
from trainables.supernet import Supernet

IMAGE_SHAPE = (3, 32, 32)
CLASSES = 10
KINDS = ("weight_step", "architecture_step", "evaluation")

Step = Callable[[Tensor], object]


@dataclass
class Batch:
    """What all steps of a cell are done with."""

    images: Tensor
    labels: Tensor


def fast_steps(supernet: Supernet, settings: SearchSettings, batch: Batch) -> dict[str, Step]:
    """The steps of the product."""
    optimizer = MomentumSGD(
        supernet.named_parameters(), settings.momentum, settings.weight_decay, settings.gradient_clip
    )
    parameters = ArchitectureParameters(settings)
    images, labels = batch.images, batch.labels
    return {
        "weight_step": lambda pairs: weight_step(
            supernet, optimizer, images, labels, pairs, pair_scale="sum", learning_rate=settings.learning_rate
        ),
        "architecture_step": lambda pairs: architecture_step(supernet, parameters, images, labels, pairs),
        "evaluation": lambda pairs: count_correct(supernet, images, labels, pairs[:, 0].tolist()),
    }


def straightforward_steps(supernet: StraightforwardSupernet, settings: SearchSettings, batch: Batch) -> dict[str, Step]:
    """The steps as one would write them first."""
    optimizer = torch.optim.SGD(
        supernet.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )
    alpha = torch.zeros(settings.layers, len(settings.candidate_names), device=batch.images.device, requires_grad=True)
    alpha_optimizer = torch.optim.Adam([alpha], settings.alpha_learning_rate, (0.0, 0.999))

    def mixed() -> torch.autocast:
        enabled = settings.precision == "bfloat16"
        return torch.autocast(batch.images.device.type, torch.bfloat16, enabled=enabled)

    def of_weights(pairs: Tensor) -> None:
        with mixed():
            logits = supernet(batch.images, pairs.tolist())
        functional.cross_entropy(logits.float(), batch.labels).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(supernet.parameters(), settings.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()

    def of_alpha(pairs: Tensor) -> None:
        with mixed():
            scales = torch.softmax(alpha.gather(1, pairs.to(alpha.device)), dim=1)
            logits = supernet(batch.images, pairs.tolist(), scales)
        functional.cross_entropy(logits.float(), batch.labels).backward()  # type: ignore[no-untyped-call]
        alpha_optimizer.step()
        alpha_optimizer.zero_grad()
        optimizer.zero_grad()

    @torch.no_grad()
    def evaluation(pairs: Tensor) -> Tensor:
        with mixed():
            logits = supernet(batch.images, [(column,) for column in pairs[:, 0].tolist()])
        correct: Tensor = (logits.argmax(dim=1) == batch.labels).sum()
        return correct

    return {"weight_step": of_weights, "architecture_step": of_alpha, "evaluation": evaluation}


def seconds(step: Step, pairs: Tensor, clock: Callable[[], float]) -> float:
    """What one step takes."""
    began = clock()
    step(pairs)
    return clock() - began


def measure(
    settings: SearchSettings, batch_size: int, repeats: int, device: torch.device, roof: Roof
) -> dict[str, Any]:
    """One cell: a number of channels and a batch size."""
    supernet = Supernet(settings, IMAGE_SHAPE, CLASSES).to(device)
    plain = StraightforwardSupernet(settings, IMAGE_SHAPE, CLASSES).to(device)
    plain.take_weights(supernet)
    batch = Batch(
        torch.randn(batch_size, *IMAGE_SHAPE, device=device), torch.randint(CLASSES, (batch_size,), device=device)
    )
    memory = MemoryWatch(device)
    ours = fast_steps(supernet, settings, batch)
    pairs = torch.rand(settings.layers, len(settings.candidate_names)).topk(2).indices
    ours["weight_step"](pairs)
    _, of_a_step = memory.peaks(0)
    theirs = straightforward_steps(plain, settings, batch)
    cell: dict[str, Any] = {
        "channels": settings.channels,
        "batch": batch_size,
        # A process on the CPU keeps what it freed: its peak says nothing of one cell.
        "step_memory_bytes": of_a_step if device.type == "cuda" else None,
    }
    clock = clock_of(device)
    timed: dict[str, list[tuple[float, float, float, float]]] = {kind: [] for kind in KINDS}
    for _ in range(repeats):
        pairs = torch.rand(settings.layers, len(settings.candidate_names)).topk(2).indices
        operations = needed(settings, IMAGE_SHAPE, batch_size, pairs.tolist())
        for kind in KINDS:
            for steps in (ours, theirs):
                steps[kind](pairs)
            fast, slow = (seconds(steps[kind], pairs, clock) for steps in (ours, theirs))
            flops = sum(operation.flops for operation in operations[kind])
            timed[kind].append((fast, slow, flops / fast, roof.seconds(operations[kind]) / fast))
    for kind, rows in timed.items():
        ratios = [slow / fast for fast, slow, _, _ in rows]
        quartiles = statistics.quantiles(ratios, n=4, method="inclusive")
        milliseconds = statistics.median(1e3 * fast for fast, _, _, _ in rows)
        cell |= {
            f"{kind}_speedup": statistics.median(ratios),
            f"{kind}_speedup_spread": [quartiles[0], quartiles[2]],
            f"{kind}_ms": milliseconds,
            f"{kind}_straightforward_ms": statistics.median(1e3 * slow for _, slow, _, _ in rows),
            f"{kind}_images_per_second": 1e3 * batch_size / milliseconds,
            f"{kind}_gflops_per_second": statistics.median(rate for _, _, rate, _ in rows) / 1e9,
            f"{kind}_of_roofline": statistics.median(share for _, _, _, share in rows),
        }
    return cell


def profile(
    settings: SearchSettings, batch_size: int, repeats: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """The share of each kind of operation in our steps."""
    supernet = Supernet(settings, IMAGE_SHAPE, CLASSES).to(device)
    batch = Batch(
        torch.randn(batch_size, *IMAGE_SHAPE, device=device), torch.randint(CLASSES, (batch_size,), device=device)
    )
    steps = fast_steps(supernet, settings, batch)
    draws = [torch.rand(settings.layers, len(settings.candidate_names)).topk(2).indices for _ in range(repeats)]
    activity = torch.profiler.ProfilerActivity
    on_gpu = device.type == "cuda"
    shares: dict[str, dict[str, float]] = {}
    for kind, step in steps.items():
        for pairs in draws:
            step(pairs)
        with torch.profiler.profile(activities=[activity.CUDA if on_gpu else activity.CPU]) as recorded:
            for pairs in draws:
                step(pairs)
        taken: dict[str, float] = {}
        for event in recorded.key_averages():
            group = _group(event.key)
            own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            taken[group] = taken.get(group, 0.0) + own
        shares[kind] = {group: own / sum(taken.values()) for group, own in taken.items()}
    return shares


def _group(name: str) -> str:
    groups = {
        "convolutions, forward": ("mkldnn_convolution", "cudnn_convolution", "_conv_depthwise2d"),
        "convolutions, gradients": ("convolution_backward",),
        "batch norm": ("native_batch_norm", "cudnn_batch_norm"),
        "copies, padding": ("copy_", "fill_", "constant_pad", "cat", "contiguous", "clone", "zero_"),
        "sums, ReLU, pooling": ("add", "threshold", "clamp", "relu", "max_pool", "mean", "div"),
        "optimizer": ("_foreach", "norm", "stack"),
    }
    plain = name.removeprefix("aten::")
    return next((group for group, marks in groups.items() if plain.startswith(marks)), "the rest")


def show(console: Console, result: dict[str, Any]) -> None:
    """Print a result."""
    table = Table(title=f"{result['device_name']}, {result['precision']}, {result['repeats']} draws a cell")
    for column in (
        "ch.",
        "batch",
        "",
        "ours, ms",
        "other, ms",
        "speed-up",
        "spread",
        "images/s",
        "GFLOP/s",
        "of roofline",
    ):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for cell in result["cells"]:
        for kind in KINDS:
            low, high = cell[f"{kind}_speedup_spread"]
            rate = cell[f"{kind}_gflops_per_second"]
            table.add_row(
                f"{cell['channels']}" if kind == KINDS[0] else "",
                f"{cell['batch']}" if kind == KINDS[0] else "",
                kind.removesuffix("_step"),
                f"{cell[f'{kind}_ms']:.1f}",
                f"{cell[f'{kind}_straightforward_ms']:.0f}",
                f"{cell[f'{kind}_speedup']:.2f}",
                f"{low:.2f}-{high:.2f}",
                f"{cell[f'{kind}_images_per_second']:,.0f}",
                f"{rate:.0f}",
                f"{cell[f'{kind}_of_roofline']:.0%}",
            )
        table.add_section()
    console.print(table)
    for kind in KINDS:
        low, high = result[f"{kind}_speedup_spread"]
        console.print(f"{kind.replace('_', ' ')}: {result[f'{kind}_speedup']:.2f} times as fast ({low:.2f}-{high:.2f})")
    flops, moved = result["peak_flops_per_second"] / 1e9, result["peak_bytes_per_second"] / 1e9
    console.print(f"this device's highest rates: {flops:,.0f} GFLOP/s, {moved:,.1f} GB/s read and written")
    for cell in result["cells"]:
        if cell["step_memory_bytes"] is not None:
            size = f"{cell['step_memory_bytes'] / 1e6:,.0f} MB"
            console.print(f"memory of a weight step, {cell['channels']} channels, batch {cell['batch']}: {size}")
    for kind, shares in result.get("profile", {}).items():
        shown = Table(title=f"where the {kind.replace('_', ' ')} goes", show_header=False)
        for group, share in sorted(shares.items(), key=lambda item: -item[1]):
            shown.add_row(group, f"{share:.0%}")
        console.print(shown)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--repeats", type=int, default=7, help="draws of each cell, at least 2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch-norm", choices=("candidate", "layer"), default="candidate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="where our steps' time goes, of the last cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error(f"--repeats {options.repeats}: a spread needs at least 2")
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU that this PyTorch can use")
    settle_process(options.threads, 0)
    choose_algorithms(device, deterministic=False)
    torch.manual_seed(options.seed)
    roof = measured_roof(device, options.precision, clock_of(device))
    cells = []
    settings = SearchSettings()
    for channels in options.channels:
        settings = SearchSettings(channels=channels, batch_norm=options.batch_norm, precision=options.precision)
        cells += [measure(settings, batch, options.repeats, device, roof) for batch in options.batch]
    result: dict[str, Any] = {
        "cells": cells,
        "device_name": device_name(device),
        "precision": options.precision,
        "batch_norm": options.batch_norm,
        "threads": options.threads,
        "repeats": options.repeats,
        "seed": options.seed,
        "peak_flops_per_second": roof.flops_per_second,
        "peak_bytes_per_second": roof.bytes_per_second,
        "versions": versions(),
    }
    for kind in KINDS:
        speedups = [cell[f"{kind}_speedup"] for cell in cells]
        result[f"{kind}_speedup"] = statistics.geometric_mean(speedups)
        one = cells[0][f"{kind}_speedup_spread"]
        result[f"{kind}_speedup_spread"] = one if len(cells) == 1 else [min(speedups), max(speedups)]
    if options.profile:
        result["profile"] = profile(settings, options.batch[-1], options.repeats, device)
    show(Console(width=110), result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
