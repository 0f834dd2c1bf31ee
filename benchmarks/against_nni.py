"""The supernet's speed beside that of NNI 3.0's one-shot supernets, on the same space, batches and processor.

    python3 -m venv nni-venv
    nni-venv/bin/python -m pip install torch torchvision
    nni-venv/bin/python -m pip install "nni==3.0" "pytorch-lightning>=2,<3" pydantic
    python benchmarks/against_nni.py --nni-python nni-venv/bin/python --strategies proxyless
    python benchmarks/against_nni.py --nni-python nni-venv/bin/python --strategies darts --batch 32

NNI 3.0 needs no patch beside torch 2.14, pytorch-lightning 2.6 and numpy 2.4 on Python 3.11. Give both environments the
same torch.

The space is the default one: 12 layers of 81 kernels, reductions before layers 4, 7 and 10, each candidate with a batch
norm of its own. Both networks are ``trainables.supernet.MacroNetwork``; NNI's holds a LayerChoice in each layer, among
convolutions of torch.nn with padding="same". All batch norms use the batch's statistics and keep none. A unit of work
is one weight step on a batch and one architecture step on another of the same size, of images of 3 x 32 x 32 and 10
classes, in float32 on one thread; images a second are 2 B / seconds. What is computed in one unit:

* Ours, NASIB: two candidates of each layer, drawn anew, forward and backward for the weights; two drawn candidates
  forward and backward for their alphas, without gradients of the weights. SGD on the drawn weights, Adam on the drawn
  alphas.
* NNI's Proxyless: in either step one candidate of each layer, drawn by alpha, forward and backward for weights and
  alpha. For alpha's gradient, which it computes in both steps, it runs all the other candidates forward during the
  backward pass, and sums in Python over 81 x 81 pairs of candidates in each layer. Those sums do not depend on the
  batch: with ``--batch 2`` they are most of what is left. SGD on the drawn weights, Adam on alpha.
* NNI's DARTS: in either step all candidates forward and backward, for weights and alpha. SGD on all weights, Adam on
  alpha. It keeps the outputs of all candidates: 6 GiB with batches of 32, more than 10 GiB with batches of 64.

So it compares what a pass over the same images costs in each: not the same arithmetic done faster or slower, and not
what a search finds. The strategies are NNI's own, unaltered, in Lightning's loop, and are timed between the loop's
hooks before and behind a training step; checkpoints and metrics are off, loaders are not timed. They get our learning
rate, momentum, L2 penalty and gradient clipping. NNI runs twice: in PyTorch's default memory format, as it comes, and
with the model and images brought to channels_last.

Every side is a process of its own with the same environment: one thread, freed memory is kept for the next step, and
oneDNN may keep all kernels that it made. Those of all shapes are made in the warm-up, which is not timed. A round asks
ours for a few units, as they differ by what they draw, and takes their mean, and then NNI for one. Seconds are those of
the processor (time.process_time): other work on the machine stretches those of the clock. The speed-up is the median of
the rounds' ratios, its spread the least and the largest of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table

OUR_UNITS_A_ROUND = 4

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),  # The largest that glibc takes.
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**30),
}


class ChildFailed(Exception):
    """A side could not be measured."""


class Side:
    """A process that has a supernet and does a unit of work when asked."""

    def __init__(self, python: str, told: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("against_nni_child.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ENVIRONMENT,
        )
        self._memory_gib = told["memory_gib"]
        self.peak_gib = 0.0
        try:
            ready = self._ask(json.dumps(told))
        except BaseException:
            self.end()
            raise
        self.versions: dict[str, str] = ready["ready"]
        self.parameters: int = ready["parameters"]

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        print(line, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise ChildFailed(f"ended with status {self._process.wait()}, perhaps for want of memory")
        message: dict[str, Any] = json.loads(answer)
        if message.get("failed") == "memory":
            raise ChildFailed(f"needs more than {self._memory_gib:g} GiB with this batch; give a smaller --batch")
        if "failed" in message:
            raise ChildFailed(f"reported {message['failed']}")
        return message

    def work(self) -> tuple[float, float]:
        """Do one unit and return its seconds of the processor and of the clock."""
        answer = self._ask("unit")
        self.peak_gib = answer["peak_gib"]
        return answer["cpu_seconds"], answer["wall_seconds"]

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def mean_unit(side: Side, units: int) -> tuple[float, float]:
    """Seconds a unit, of the processor and of the clock."""
    cpu, wall = zip(*(side.work() for _ in range(units)), strict=True)
    return statistics.fmean(cpu), statistics.fmean(wall)


def summary(rounds: list[tuple[float, float]], batch: int, side: Side) -> dict[str, Any]:
    """What is reported of one side."""
    cpu, wall = (list(seconds) for seconds in zip(*rounds, strict=True))
    median = statistics.median(cpu)
    return {
        "cpu_seconds": median,
        "wall_seconds": statistics.median(wall),
        "images_a_second": 2 * batch / median,
        "peak_gib": side.peak_gib,
        "rounds_cpu_seconds": cpu,
        "rounds_wall_seconds": wall,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure ours against each strategy in each memory format, one after the other."""
    told = {"channels": options.channels, "batch": options.batch, "memory_gib": options.memory_gib}
    result: dict[str, Any] = {"channels": options.channels, "batch": options.batch, "sides": {}, "failed": {}}
    with Side(sys.executable, {**told, "side": "ours"}) as ours:
        versions = {"ours": ours.versions}
        for strategy in options.strategies:
            for channels_last in (False, True):
                name = strategy + ("_channels_last" if channels_last else "")
                mine, theirs = [], []
                try:
                    with Side(
                        options.nni_python, {**told, "side": strategy, "channels_last": channels_last}
                    ) as opponent:
                        assert opponent.parameters == ours.parameters, "the networks differ"
                        versions["nni"] = opponent.versions
                        for _ in range(options.repeats):
                            mine.append(mean_unit(ours, OUR_UNITS_A_ROUND))
                            theirs.append(mean_unit(opponent, 1))
                except ChildFailed as failure:
                    result["failed"][name] = str(failure)
                    continue
                ratios = [their / my for (their, _), (my, _) in zip(theirs, mine, strict=True)]
                result[f"speedup_over_{name}"] = statistics.median(ratios)
                result[f"speedup_over_{name}_spread"] = [min(ratios), max(ratios)]
                result["sides"][name] = {
                    "nni": summary(theirs, options.batch, opponent),
                    "ours": summary(mine, options.batch, ours),
                }
        result["parameters"] = ours.parameters
    return {**result, "versions": versions, "machine": machine(), "environment": ENVIRONMENT}


def machine() -> dict[str, Any]:
    """The processor's name and number, and the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": name or platform.processor(), "cpus": os.cpu_count(), "system": platform.platform()}


def show(result: dict[str, Any]) -> None:
    """Print a result."""
    table = Table(title=f"batches of {result['batch']}, {result['channels']} channels, one thread; NNI's and ours")
    for column in ("NNI's", "CPU-seconds a unit", "images a second", "peak GiB", "our speed-up"):
        table.add_column(column, justify="left" if column == "NNI's" else "right")
    for name, sides in result["sides"].items():
        theirs, ours = sides["nni"], sides["ours"]
        least, largest = result[f"speedup_over_{name}_spread"]
        table.add_row(
            name.replace("_", "\n", 1),
            f"{theirs['cpu_seconds']:.2f}  {ours['cpu_seconds']:.3f}",
            f"{theirs['images_a_second']:.1f}  {ours['images_a_second']:.0f}",
            f"{theirs['peak_gib']:.1f}  {ours['peak_gib']:.1f}",
            f"{result[f'speedup_over_{name}']:.1f}\n{least:.1f} to {largest:.1f}",
        )
    console = Console()
    console.print(table)
    for name, reason in result["failed"].items():
        console.print(f"{name.replace('_', ' ', 1)} was not measured: it {reason}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nni-python", required=True, metavar="PYTHON", help="interpreter of NNI's environment")
    parser.add_argument("--strategies", nargs="+", choices=("proxyless", "darts"), default=["proxyless", "darts"])
    parser.add_argument("--channels", type=int, default=16, help="channels behind the stem")
    parser.add_argument("--batch", type=int, default=64, help="images of each of a unit's two batches")
    parser.add_argument("--repeats", type=int, default=7, help="rounds for each of NNI's variants")
    parser.add_argument("--memory-gib", type=float, default=10.0, help="a side that needs more is left out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = parser.parse_args()
    result = measure(options)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
