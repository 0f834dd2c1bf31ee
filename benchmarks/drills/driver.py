"""A driver of somebody else's Trainable under a budget, which misbehaves as it is told.

Run as ``python -m benchmarks.drills.driver '{"storage": ..., "budget": ..., "fault": ...}'``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from nasib_ray import with_budget

ROOT = Path(__file__).parents[2]
LONG_SECONDS = 1e5


class DrillTrainable(tune.Trainable):  # type: ignore[misc]
    """Sleeps instead of learning. Its fault happens once in the sweep, or always if it is a crash loop."""

    def setup(self, config: dict[str, Any]) -> None:
        self.epochs = 0
        if self._due("setup-hangs"):
            time.sleep(LONG_SECONDS)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.epochs = 0
        return True

    def step(self) -> dict[str, Any]:
        config = self.config
        if config["fault"] == "crash-loop" and config["x"] < 0.5:
            raise RuntimeError("the drill's own error")
        slow = self.epochs >= 2
        if slow and self._due("step-hangs"):
            time.sleep(LONG_SECONDS)
        time.sleep(config["seconds"] * (10 if slow and self._due("step-slow") else 1))
        self.epochs += 1
        return {"value": config["x"] * (1 - 0.8**self.epochs)}

    def save_checkpoint(self, folder: str) -> None:
        if self._due("save-slow"):
            time.sleep(60)
        Path(folder, "epochs.json").write_text(json.dumps({"epochs": self.epochs, "x": self.config["x"]}))

    def load_checkpoint(self, folder: str) -> None:
        self.epochs = json.loads(Path(folder, "epochs.json").read_text())["epochs"]

    def _due(self, fault: str) -> bool:
        if self.config["fault"] != fault:
            return False
        try:
            os.close(os.open(Path(self.config["folder"], "done"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def main(told: dict[str, Any]) -> None:
    """Run a sweep to its end."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    where = {"address": told["address"]} if told.get("address") else {"num_cpus": 2, "include_dashboard": False}
    ray.init(logging_level="ERROR", log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}, **where)
    tune_config, run_config = with_budget(
        told["budget"],
        tune.TuneConfig(metric="value", mode="max"),
        tune.RunConfig(storage_path=told["storage"], name=told["name"], verbose=0),
        max_t=16,
        **told.get("terms", {}),
    )
    space = {"x": tune.uniform(0, 1), "fault": told["fault"], "folder": told["folder"], "seconds": 0.4}
    tune.Tuner(DrillTrainable, param_space=space, tune_config=tune_config, run_config=run_config).fit()
    state = tune_config.scheduler.state
    print(state.end, state.end_why)
    sys.exit(0 if state.end == "finished" else 1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
