"""A script of somebody else's, with a budget, whose Trainable misbehaves as it is told.

Run as ``python -m benchmarks.drills.driver '{"storage": ..., "budget": ..., ...}'``; the same command again goes on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune

from nasib_ray import with_budget

ROOT = Path(__file__).parents[2]
EPOCHS = 16
LONG_SECONDS = 1e5
SAVE_SECONDS = 60.0
SLOWER = 10
BATCHES = 8
CHECKPOINT_BYTES = 100_000


class ForeignTrainable(tune.Trainable):  # type: ignore[misc]
    """Sleeps instead of learning. Its fault happens once in the sweep, or always if it is a crash loop."""

    def setup(self, config: dict[str, Any]) -> None:
        self.epochs = self.saves = 0
        if self._due("setup-hangs"):
            time.sleep(LONG_SECONDS)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.epochs = 0
        return True

    def step(self) -> dict[str, Any]:
        self._stumble()
        time.sleep(self._epoch_seconds())
        self.epochs += 1
        return self._value()

    def _stumble(self) -> None:
        if self.config["fault"] == "crash-loop" and self.config["x"] < 0.5:
            raise RuntimeError("the drill's own error")
        if self.epochs >= 2 and self._due("step-hangs"):
            time.sleep(LONG_SECONDS)

    def _epoch_seconds(self) -> float:
        slow = self.epochs >= 2 and self._due("step-slow")
        return float(self.config["seconds"]) * (SLOWER if slow else 1)

    def _value(self) -> dict[str, Any]:
        return {"value": self.config["x"] * (1 - 0.8**self.epochs)}

    def save_checkpoint(self, folder: str) -> None:
        self.saves += 1
        if self.saves > 2 and self._due("save-slow"):
            time.sleep(SAVE_SECONDS)
        Path(folder, "epochs.json").write_text(json.dumps({"epochs": self.epochs, "x": self.config["x"]}))
        Path(folder, "weights").write_bytes(os.urandom(CHECKPOINT_BYTES))

    def load_checkpoint(self, folder: str) -> None:
        saved = json.loads(Path(folder, "epochs.json").read_text())
        if saved["x"] != self.config["x"] or Path(folder, "weights").stat().st_size != CHECKPOINT_BYTES:
            raise ValueError("the checkpoint is of another trial, or damaged")
        self.epochs = saved["epochs"]

    def _due(self, fault: str) -> bool:
        if self.config["fault"] != fault:
            return False
        try:
            os.close(os.open(Path(self.config["folder"], "done"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


class BootingTrainable(ForeignTrainable):
    """Cannot be reset: every slice boots a process."""

    reset_config = tune.Trainable.reset_config


class ToldTrainable(ForeignTrainable):
    """Declares horizon and slice: stops by itself behind a batch, and on SIGTERM."""

    def setup(self, config: dict[str, Any]) -> None:
        self.stopped = False
        signal.signal(signal.SIGTERM, self._stop)
        self._begin()
        super().setup(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin()
        return super().reset_config(new_config)

    def _begin(self) -> None:
        self.batch, self.stopped = 0, False
        self.ends: float | None = None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True

    def step(self) -> dict[str, Any]:
        began = time.monotonic()
        ends = self.ends = self.ends or began + float(self.config["slice_seconds"])
        self._stumble()
        batch_seconds = self._epoch_seconds() / BATCHES
        while self.batch < BATCHES and not self.stopped and time.monotonic() + batch_seconds < ends:
            time.sleep(batch_seconds)
            self.batch += 1
        cut, interrupted, self.stopped = self.batch < BATCHES, self.stopped, False
        if not cut:
            self.batch = 0
            self.epochs += 1
        return {
            **self._value(),
            "epochs": self.epochs,
            "cut": cut,
            "interrupted": interrupted,
            "epoch_seconds": None if cut else time.monotonic() - began,
            "epoch_fraction": self.batch / BATCHES if cut else 1.0,
            "done": self.config["horizon"] is not None and self.epochs >= self.config["horizon"],
            "should_checkpoint": cut or interrupted,
        }

    def save_checkpoint(self, folder: str) -> None:
        super().save_checkpoint(folder)
        Path(folder, "batch.json").write_text(json.dumps(self.batch))

    def load_checkpoint(self, folder: str) -> None:
        super().load_checkpoint(folder)
        self.batch = json.loads(Path(folder, "batch.json").read_text())


_TRAINABLES: dict[str, tuple[type[ForeignTrainable], dict[str, Any]]] = {
    "foreign": (ForeignTrainable, {"max_t": EPOCHS}),
    "booting": (BootingTrainable, {"max_t": EPOCHS}),
    "told": (ToldTrainable, {"epochs_key": "epochs", "horizon_key": "horizon", "slice_key": "slice_seconds"}),
}


def main(told: dict[str, Any]) -> int:
    """Run a sweep to its end; the exit status."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    own = {"address": "local", "num_cpus": told["slots"], "include_dashboard": False}
    where = own if told["address"] is None else {"address": told["address"]}
    ray.init(logging_level="ERROR", log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}, **where)
    _await_observer(Path(told["folder"]))
    trainable, terms = _TRAINABLES[told["trainable"]]
    if trainable is ToldTrainable:
        from schedulers import AsyncHalving

        terms = {**terms, "allocator": AsyncHalving(), "full_epochs": None}
    tune_config, run_config = with_budget(
        told["budget"],
        tune.TuneConfig(metric="value", mode="max"),
        tune.RunConfig(storage_path=told["storage"], name=told["name"], verbose=0),
        **terms,
        **told["terms"],
    )
    space = {"x": tune.uniform(0, 1), "fault": told["fault"], "folder": told["folder"], "seconds": told["seconds"]}
    tune.Tuner(trainable, param_space=space, tune_config=tune_config, run_config=run_config).fit()
    state = tune_config.scheduler.state
    print(state.end, state.end_why)
    return 0 if state.end == "finished" else 1


def _await_observer(folder: Path) -> None:
    until = time.monotonic() + 20
    while not Path(folder, "observed").exists() and time.monotonic() < until:
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
