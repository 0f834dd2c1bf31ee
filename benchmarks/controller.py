"""What the driver of a sweep takes for each result when there are many trials.

    python benchmarks/controller.py --trials 100

Trials whose steps only sleep, on two processors; measured from the time at which there are so many trials: processor
time of the thread that runs Tune's controller (scheduler, journal, search algorithm and loggers included) for each
result, the same of the whole driver with Ray's own threads, and how long a trial's process waits for its next step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from rich.console import Console
from rich.table import Table

from nasib_ray import with_budget
from nasib_ray.sweep import versions


class Sleeper(tune.Trainable):  # type: ignore[misc]
    """Its steps cost no processor time; it saves a few bytes and can become another trial."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._value = new_config["value"]
        self._ended: float | None = None
        return True

    def step(self) -> dict[str, Any]:
        waited = None if self._ended is None else time.perf_counter() - self._ended
        time.sleep(self.config["step_seconds"])
        self._ended = time.perf_counter()
        return {"accuracy": self._value + 0.001 * self.iteration, "waited_seconds": waited}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "state.json").write_text(json.dumps(self._value))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self._value = json.loads(Path(checkpoint_dir, "state.json").read_text())


class Watch(tune.Callback):  # type: ignore[misc]
    """Notes processor time and the process's wait at every result from a number of trials on."""

    def __init__(self, trials: int) -> None:
        self._from = trials
        self.noted: list[tuple[float, float, float | None]] = []

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if len(trials) >= self._from:
            self.noted.append((time.thread_time(), time.process_time(), result["waited_seconds"]))


def measure(trials: int, results: int, step_seconds: float) -> dict[str, Any]:
    """Run a sweep in which about so many results come after there are so many trials."""
    watch = Watch(trials)
    with tempfile.TemporaryDirectory() as storage:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        # A trial's first slice is one step long.
        budget = f"{(trials + results) * (step_seconds + 0.05):.0f} cpu-seconds"
        tune_config, run_config = with_budget(
            budget,
            tune.TuneConfig(metric="accuracy", mode="max"),
            tune.RunConfig(storage_path=storage, verbose=0, callbacks=[watch]),
        )
        space = {"value": tune.uniform(0, 1), "step_seconds": step_seconds}
        tune.Tuner(Sleeper, param_space=space, tune_config=tune_config, run_config=run_config).fit()
        ray.shutdown()
    if len(watch.noted) < 2:
        raise SystemExit(f"{trials} trials were not reached: lower --trials, or raise --results")
    of_controller = watch.noted[-1][0] - watch.noted[0][0]
    of_driver = watch.noted[-1][1] - watch.noted[0][1]
    waits = [waited for _, _, waited in watch.noted if waited is not None]
    return {
        "trials": trials,
        "results": len(watch.noted) - 1,
        "controller_ms_per_result": 1e3 * of_controller / (len(watch.noted) - 1),
        "driver_ms_per_result": 1e3 * of_driver / (len(watch.noted) - 1),
        "wait_between_steps_ms": 1e3 * statistics.median(waits),
        "step_seconds": step_seconds,
        "versions": versions(),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--results", type=int, default=500, help="about so many results more")
    parser.add_argument("--step-seconds", type=float, default=0.05)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = parser.parse_args()
    result = measure(options.trials, options.results, options.step_seconds)
    table = Table(title=f"{result['results']} results among {result['trials']} trials and more")
    table.add_column("")
    table.add_column("ms", justify="right")
    table.add_row("controller's processor time for a result", f"{result['controller_ms_per_result']:.1f}")
    table.add_row("the whole driver's", f"{result['driver_ms_per_result']:.1f}")
    table.add_row("wait between two steps, median", f"{result['wait_between_steps_ms']:.1f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
