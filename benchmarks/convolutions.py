"""Whether the rules by which candidates are computed pay, operation by operation.

    python benchmarks/convolutions.py --maps 16x32 32x16 64x8 128x4

For maps of so many channels and pixels a side: the gradients of depthwise kernels as the product computes them beside
PyTorch's own; even standard kernels in an odd window beside a padded copy of the input, forwards and backwards, by how
many times the taps the odd window has; two standard kernels behind one batch norm as one convolution beside two, by the
taps of the common window over theirs together; and, where each has its own batch norm, as one with twice the output
channels. One thread, channels_last, float32; ratios of medians, above 1 where the first is faster.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from nasib_ray.sweep import versions
from trainables.convolution import SameConvolution, same_convolution
from trainables.device import device_name, settle_process
from trainables.superkernel import Superkernel

SMALL = [(i, j) for i in range(1, 10) for j in range(1, 10) if i * j <= 9]
DEPTHWISE = [(9, 9), (7, 7), (5, 5), (3, 9), (9, 5), (9, 3), (5, 3)]


def _ratios(repeats: int, ours: Callable[[], object], others: Callable[[], object]) -> float:
    """How many times as fast ours is, in turns."""
    taken: tuple[list[float], list[float]] = ([], [])
    ours(), others()
    for _ in range(repeats):
        for place, action in enumerate((ours, others)):
            began = time.process_time()
            action()
            taken[place].append(time.process_time() - began)
    return statistics.median(taken[1]) / statistics.median(taken[0])


def _map(batch: int, channels: int, side: int) -> Tensor:
    x = torch.randn(batch, channels, side, side)
    return x.contiguous(memory_format=torch.channels_last)


def depthwise(batch: int, channels: int, side: int, repeats: int) -> list[dict[str, Any]]:
    """Both gradients of depthwise kernels, beside PyTorch's."""
    rows = []
    for i, j in DEPTHWISE:
        x, g, weight = _map(batch, channels, side), _map(batch, channels, side), torch.randn(channels, 1, i, j)

        def gradient(
            convolved: Callable[[Tensor, Tensor], Tensor], of: str, x: Tensor = x, g: Tensor = g, w: Tensor = weight
        ) -> Callable[[], object]:
            # Only what is asked for may need a gradient: else both are computed.
            inputs = {"input": x.detach().clone().requires_grad_(of == "input")}
            inputs["weight"] = w.detach().clone().requires_grad_(of == "weight")
            made = convolved(inputs["input"], inputs["weight"])
            return lambda: torch.autograd.grad(made, inputs[of], g, retain_graph=True)

        def plain(x: Tensor, w: Tensor, padding: tuple[int, int] = (i // 2, j // 2)) -> Tensor:
            return functional.conv2d(x, w, padding=padding, groups=channels)

        def ours(x: Tensor, w: Tensor) -> Tensor:
            return same_convolution(x, w, channels)

        rows.append(
            {
                "kernel": f"{i}x{j}",
                "weight": _ratios(repeats, gradient(ours, "weight"), gradient(plain, "weight")),
                "input": _ratios(repeats, gradient(ours, "input"), gradient(plain, "input")),
            }
        )
    return rows


def even(batch: int, channels: int, side: int, repeats: int) -> list[dict[str, Any]]:
    """Even standard kernels: the odd window beside a padded copy, forwards and backwards."""
    rows = []
    for i, j in SMALL:
        if i % 2 and j % 2:
            continue
        kernel = SameConvolution(channels, i, j).to(memory_format=torch.channels_last)
        x, g = _map(batch, channels, side).requires_grad_(), _map(batch, channels, side)
        margins = ((j - 1) // 2, j // 2, (i - 1) // 2, i // 2)

        def odd(k: SameConvolution = kernel, x: Tensor = x, g: Tensor = g) -> object:
            return torch.autograd.grad(same_convolution(x, k.weight_in(k.odd_window), 1), (x, k.weight), g)

        def padded(
            k: SameConvolution = kernel, x: Tensor = x, g: Tensor = g, margins: tuple[int, ...] = margins
        ) -> object:
            return torch.autograd.grad(functional.conv2d(functional.pad(x, margins), k.weight), (x, k.weight), g)

        taps = kernel.odd_window[0] * kernel.odd_window[1] / (i * j)
        chosen = "odd" if kernel.taps > i * j else "padded"
        rows.append({"kernel": f"{i}x{j}", "taps": taps, "odd": _ratios(repeats, odd, padded), "chosen": chosen})
    return rows


def merged(batch: int, channels: int, side: int, repeats: int, pairs: int) -> list[dict[str, Any]]:
    """Two standard kernels: one convolution beside two, forwards and backwards."""
    rows = []
    drawn = random.Random(0).sample(list(itertools.combinations(SMALL, 2)), pairs)
    for sizes in drawn:
        layer = Superkernel([f"conv{i}x{j}" for i, j in sizes], channels, "candidate")
        layer.to(memory_format=torch.channels_last)
        first, second = (kernel for kernel in layer.candidates if isinstance(kernel, SameConvolution))
        window = tuple(max(pair) for pair in zip(first.odd_window, second.odd_window, strict=True))
        x, g = _map(batch, channels, side).requires_grad_(), _map(batch, channels, side)
        wanted = (x, first.weight, second.weight)
        norms = [norm for norm in layer.norms if isinstance(norm, torch.nn.BatchNorm2d)]
        both = [torch.cat([getattr(norm, name) for norm in norms]).detach() for name in ("weight", "bias")]

        def kernels(
            first: SameConvolution = first, second: SameConvolution = second, window: Any = window
        ) -> list[Tensor]:
            return [first.weight_in(window), second.weight_in(window)]

        def back(run: Callable[[], Tensor], wanted: tuple[Tensor, ...] = wanted, g: Tensor = g) -> object:
            return torch.autograd.grad(run(), wanted, g)

        def two(first: SameConvolution = first, second: SameConvolution = second, x: Tensor = x) -> Tensor:
            y: Tensor = first(x) + second(x)
            return y

        def one(x: Tensor = x, kernels: Callable[[], list[Tensor]] = kernels) -> Tensor:
            return same_convolution(x, kernels()[0] + kernels()[1], 1)

        def each_normed(layer: Superkernel = layer, x: Tensor = x) -> Tensor:
            y: Tensor = layer.norms[0](layer.candidates[0](x)) + layer.norms[1](layer.candidates[1](x))
            return y

        def wide(x: Tensor = x, kernels: Callable[[], list[Tensor]] = kernels, both: list[Tensor] = both) -> Tensor:
            y = same_convolution(x, torch.cat(kernels()), 1)
            y = functional.batch_norm(y, None, None, both[0], both[1], training=True)
            return y[:, :channels] + y[:, channels:]

        rows.append(
            {
                "kernels": " + ".join(f"{i}x{j}" for i, j in sizes),
                "taps": window[0] * window[1] / (first.taps + second.taps),
                "one": _ratios(repeats, partial(back, one), partial(back, two)),
                "wide": _ratios(repeats, partial(back, wide), partial(back, each_normed)),
            }
        )
    return rows


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})" if values else "none drawn"


def show(console: Console, result: dict[str, Any]) -> None:
    """Print what there is for all maps together, and by the rules."""
    rows = {kind: [row for part in result["maps"] for row in part[kind]] for kind in ("depthwise", "even", "merged")}
    table = Table(title=f"times as fast, median (lowest-highest); {result['device_name']}")
    table.add_column("what")
    table.add_column("ratio", justify="right")
    for name in dict.fromkeys(row["kernel"] for row in rows["depthwise"]):
        of_kernel = [row for row in rows["depthwise"] if row["kernel"] == name]
        table.add_row(f"depthwise {name}: gradient of the weight", _spread([row["weight"] for row in of_kernel]))
        table.add_row(f"depthwise {name}: gradient of the input", _spread([row["input"] for row in of_kernel]))
    for chosen, text in (("odd", "at most 4/3"), ("padded", "more than 4/3")):
        values = [row["odd"] for row in rows["even"] if row["chosen"] == chosen]
        table.add_row(f"odd window instead of a padded copy, where it has {text} of the taps", _spread(values))
    for least, most in ((0.0, 1.0), (1.0, 100.0)):
        values = [row["one"] for row in rows["merged"] if least < row["taps"] <= most]
        text = "at most" if most == 1.0 else "more than"
        table.add_row(f"one convolution for two, where it has {text} their taps together", _spread(values))
    table.add_row(
        "twice the output channels instead, each with its batch norm", _spread([r["wide"] for r in rows["merged"]])
    )
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", nargs="+", default=["16x32", "32x16", "64x8", "128x4"], metavar="CHANNELSxSIDE")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--pairs", type=int, default=12, help="pairs of standard kernels a map")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = parser.parse_args()
    settle_process(1, 0)
    maps = []
    for text in options.maps:
        channels, side = (int(part) for part in text.split("x"))
        maps.append(
            {
                "map": text,
                "depthwise": depthwise(options.batch, channels, side, options.repeats),
                "even": even(options.batch, channels, side, options.repeats),
                "merged": merged(options.batch, channels, side, options.repeats, options.pairs),
            }
        )
    result = {"maps": maps, "device_name": device_name(torch.device("cpu")), "versions": versions()}
    show(Console(width=110), result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
