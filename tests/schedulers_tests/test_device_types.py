"""Sweeps on nodes whose accelerators differ: what a second counts, and what becomes of a horizon."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from pyarrow import fs
from ray import tune
from ray.cluster_utils import Cluster

from nasib_ray import with_budget
from schedulers import SweepState
from schedulers.device_rates import ACCELERATOR, accelerator_of
from schedulers.journal_replay import read_journal
from tests.schedulers_tests.test_budget_scheduler import check_accounts

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("time_limit")]

STEP_SECONDS = {"A100": 0.1, "T4": 0.4}
RATES = {"A100": 1.0, "T4": 0.5}


def own_type() -> str:
    """The accelerator type of the node that this process is on."""
    own = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == own)
    return accelerator_of(node["Resources"])


class Typed(tune.Trainable):  # type: ignore[misc]
    """Steps that take what they do on the type of its node; it minds its horizon, and can be told another one."""

    def setup(self, config: dict[str, Any]) -> None:
        self.device, self.epochs = own_type(), 0
        signal.signal(signal.SIGTERM, self.leave)
        self.go_on(config)

    def go_on(self, told: dict[str, Any]) -> None:
        self.horizon, self.leaving = told["horizon"], False

    def leave(self, *_: Any) -> None:
        self.leaving = True

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.epochs = 0
        self.go_on(new_config)
        return True

    def step(self) -> dict[str, Any]:
        time.sleep(STEP_SECONDS[self.device])
        self.epochs += 1
        value = self.config["x"] * (1 - 0.9**self.epochs)
        told = {"told": self.horizon, "type": self.device, "interrupted": self.leaving}
        return {"value": value, "epochs": self.epochs, **told}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "epochs").write_text(str(self.epochs))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self.epochs = int(Path(checkpoint_dir, "epochs").read_text())


def add_node(cluster: Cluster, device: str) -> None:
    cluster.add_node(num_cpus=2, num_gpus=1, resources={f"{ACCELERATOR}{device}": 1}, object_store_memory=10**8)


class Grow(tune.Callback):  # type: ignore[misc]
    """Adds a T4 once an epoch was measured."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, **info: Any) -> None:
        if len(self.cluster.worker_nodes) == 1:
            add_node(self.cluster, "T4")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without room, and an A100 by name."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        arguments = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 10**8}
        made = Cluster(initialize_head=True, head_node_args=arguments)
        add_node(made, "A100")
        ray.init(made.address, logging_level="ERROR", log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


def run(budget: str, storage: Path, *callbacks: tune.Callback, rates: dict[str, float] = RATES) -> SweepState:
    tune_config, run_config = with_budget(
        budget,
        tune.TuneConfig(metric="value", mode="max"),
        tune.RunConfig(storage_path=str(storage), name="sweep", verbose=0, callbacks=list(callbacks)),
        horizon_key="horizon",
        slice_key="slice_seconds",
        epochs_key="epochs",
        full_epochs=None,
        device_rates=rates,
    )
    trainable = tune.with_resources(Typed, {"cpu": 2, "gpu": 0.5})
    tune.Tuner(trainable, param_space={"x": tune.uniform(0, 1)}, tune_config=tune_config, run_config=run_config).fit()
    return tune_config.scheduler.state  # type: ignore[no-any-return]


def test_seconds_count_by_type_and_horizons_follow_the_device(cluster: Cluster, tmp_path: Path) -> None:
    state = run("24 gpu-seconds", tmp_path, Grow(cluster))
    records = read_journal(fs.LocalFileSystem(), str(tmp_path / "sweep" / "journal"), from_start=True).records
    check_accounts(state)
    assert state.end == "finished"

    reports = [record for record in records if record["event"] == "report"]
    assert {record["device"] for record in reports} == {"A100", "T4"}
    assert all(record["device"] == record["metrics"]["type"] for record in reports)
    # Half a GPU each, two CPUs: one trial on each node.
    assert {(record["device"], record["price"]) for record in reports} == {("A100", 0.5), ("T4", 0.25)}
    trained = sum(record["epoch_seconds"] * record["price"] for record in reports)
    assert state.ledger.spent_by_kind["train"] == pytest.approx(trained, rel=0.1)

    # An epoch there takes four times as long and costs twice as much: half the epochs that a full search has left, and
    # towards the end no more than the slot can run.
    slower = [record for record in records if record["event"] == "horizon" and record["device"] == "T4"]
    assert state.plan_device == "A100"
    assert state.full_horizon is not None
    ahead, told_while_it_ran = [], 0
    for record in slower:
        of_trial = [report for report in reports if report["trial"] == record["trial"]]
        done = max(report["epochs"] for report in of_trial if report["number"] < record["number"])
        half = (state.full_horizon - done) / 2
        assert 1 <= record["horizon"] - done <= half + 2
        ahead.append((record["horizon"] - done) / half)
        after = [one for one in records if one.get("trial") == record["trial"] and one["number"] > record["number"]]
        next_one = next((one for one in after if one["event"] in ("report", "grant")), None)
        if next_one is not None and next_one["event"] == "report":
            told_while_it_ran += 1
            assert next_one["metrics"]["told"] == record["horizon"]
    assert told_while_it_ran
    assert max(ahead) == pytest.approx(1.0, abs=0.2)
    assert all(search.horizon is None or search.epochs <= search.horizon for search in state.searches.values())


def test_a_type_that_does_not_exist_is_told_at_once(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'A-100' is no accelerator type .* did you mean A100\?"):
        run("10 gpu-seconds", tmp_path, rates={"A-100": 2.0})
    assert not (tmp_path / "sweep" / "journal").exists()
