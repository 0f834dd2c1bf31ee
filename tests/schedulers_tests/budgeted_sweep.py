"""A script with a budget, as a user would write it, and Trainables that know nothing of us.

Run as ``python -m tests.schedulers_tests.budgeted_sweep '{"model": "Plain", ...}'``; see :class:`Script`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune

from nasib_ray import with_budget
from schedulers.sweep_state import SweepState


class Plain(tune.Trainable):  # type: ignore[misc]
    """Saves and loads, and notes each of its processes in the folder that it is given."""

    def setup(self, config: dict[str, Any]) -> None:
        Path(config["folder"], str(os.getpid())).touch()
        self.done_steps = 0

    def step(self) -> dict[str, Any]:
        time.sleep(self.config.get("seconds", 0.1))
        self.done_steps += 1
        return {"value": self.config["x"] * (1 - 0.8**self.done_steps)}

    def save_checkpoint(self, folder: str) -> None:
        Path(folder, "steps.json").write_text(json.dumps(self.done_steps))

    def load_checkpoint(self, folder: str) -> None:
        self.done_steps = json.loads(Path(folder, "steps.json").read_text())


class Reusable(Plain):
    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.done_steps = 0
        return True


class Choosy(Reusable):
    """Reports what it was made of; the first that comes to its third step fails there."""

    def step(self) -> dict[str, Any]:
        failed = Path(self.config["folder"], "failed")
        if self.done_steps == 2 and not failed.exists():
            failed.touch()
            raise RuntimeError("a step went wrong")
        return {**super().step(), "made_of": repr([self.config[key] for key in ("shape", "scale", "model", "inner")])}


class Heavy(Reusable):
    """Its checkpoints take a million bytes and a few."""

    def save_checkpoint(self, folder: str) -> None:
        super().save_checkpoint(folder)
        Path(folder, "weights.bin").write_bytes(os.urandom(1_000_000))


class RefusesReset(Plain):
    """Overrides reset_config to say that this time it cannot be."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return False


class Unsaved(Plain):
    save_checkpoint = tune.Trainable.save_checkpoint
    load_checkpoint = tune.Trainable.load_checkpoint


class EndsByItself(Reusable):
    def step(self) -> dict[str, Any]:
        return {**super().step(), "done": self.done_steps >= 3}


class FailsInStep(Reusable):
    """Fails in its second step if its x is below a half."""

    def step(self) -> dict[str, Any]:
        if self.config["x"] < 0.5 and self.done_steps == 1:
            raise RuntimeError("a step went wrong")
        return super().step()


class FailsInSetup(Plain):
    def setup(self, config: dict[str, Any]) -> None:
        raise RuntimeError("there is no data")


class Hangs(Reusable):
    """A step never returns: the third one, or the one after as many as it is told."""

    def step(self) -> dict[str, Any]:
        if self.done_steps == self.config.get("good_steps", 2):
            time.sleep(1e6)
        return super().step()


class Told(Reusable):
    """Declares both keys, stops by itself, and reports what it was told."""

    def step(self) -> dict[str, Any]:
        return {**super().step(), "horizon": self.config["horizon"], "slice_seconds": self.config["slice_seconds"]}


def function(config: dict[str, Any]) -> None:
    """Reports for ever, and saves with every so manyth report; with none of them if that is 0."""
    notes, checkpoint, steps = Path(config["folder"]), tune.get_checkpoint(), 0
    notes.joinpath(str(os.getpid())).touch()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            steps = json.loads(Path(folder, "steps.json").read_text())
    while True:
        time.sleep(0.1)
        steps += 1
        metrics = {"value": config["x"] * (1 - 0.8**steps), "steps": steps}
        if config["every"] == 0 or steps % config["every"]:
            tune.report(metrics)
            continue
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "steps.json").write_text(json.dumps(steps))
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


@dataclass(frozen=True)
class Script:
    """What a run is told.

    Attributes:
        model: The name of a class or function above.
        budget: As users write it.
        storage: Where results go; a folder, or a URI.
        notes: The folder in which processes are noted; None: ``processes`` in ``storage``.
        space: Over ``param_space``: {"x": ...}; a list is a grid.
        address: Of the Ray to join; None starts one of its own.
        terms: Keyword arguments of with_budget.
    """

    model: str
    budget: str
    storage: str
    notes: str | None = None
    name: str = "sweep"
    space: dict[str, Any] = field(default_factory=dict)
    mode: str = "max"
    optuna: bool = False
    address: str | None = None
    terms: dict[str, Any] = field(default_factory=dict)

    def run(self) -> SweepState:
        """Run it to its end, in a Ray that has been initialised."""
        folder = Path(self.notes or Path(self.storage, "processes"))
        folder.mkdir(parents=True, exist_ok=True)
        space: dict[str, Any] = {"x": tune.uniform(0, 1), "folder": str(folder)}
        space |= {key: tune.grid_search(one) if isinstance(one, list) else one for key, one in self.space.items()}
        search_alg = None
        if self.optuna:
            from ray.tune.search.optuna import OptunaSearch

            search_alg = OptunaSearch()
        tune_config, run_config = with_budget(
            self.budget,
            tune.TuneConfig(metric="value", mode=self.mode, search_alg=search_alg),
            tune.RunConfig(storage_path=self.storage, name=self.name, verbose=0),
            **self.terms,
        )
        model = globals()[self.model]
        tune.Tuner(model, param_space=space, tune_config=tune_config, run_config=run_config).fit()
        state: SweepState = tune_config.scheduler.state
        return state


def start_ray(address: str | None) -> None:
    """Join a Ray, or start one that disturbs no other; workers find this module and the project."""
    found = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}}
    own = {"address": "local", "num_cpus": 2, "include_dashboard": False}
    ray.init(
        logging_level="ERROR", log_to_driver=False, runtime_env=found, **({"address": address} if address else own)
    )


if __name__ == "__main__":
    script = Script(**json.loads(sys.argv[1]))
    start_ray(script.address)
    ended = script.run()
    print(json.dumps(ended.to_json()))
