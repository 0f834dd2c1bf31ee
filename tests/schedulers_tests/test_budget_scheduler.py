"""Sweeps of Trainables that know nothing of us, in a real Ray."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.util import placement_group_table

from nasib_ray import with_budget
from schedulers import AsyncHalving, Budget, BudgetScheduler, Terms
from schedulers.allocation import Slice, SweepView
from schedulers.search_record import SearchRecord
from schedulers.sweep_run import SweepRun
from schedulers.sweep_state import SweepState
from schedulers.tune_internals import drop_idle
from tests.schedulers_tests.budgeted_sweep import Choosy, Plain, Script

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("time_limit")]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(ray_address: str, tmp_path: Path) -> Script:
    terms = {"max_t": 16}
    return Script("Reusable", "18 cpu-seconds", str(tmp_path), address=ray_address, terms=terms)


def journal_of(script: Script) -> dict[str, bytes]:
    folder = Path(script.storage, script.name, "journal")
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("lease")}


def records_of(script: Script, event: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for data in journal_of(script).values() for line in data.splitlines()]
    return [record for record in records if record.get("event") == event]


def grants_of(script: Script) -> list[dict[str, Any]]:
    return records_of(script, "grant")


def processes_of(script: Script) -> int:
    return len(os.listdir(Path(script.storage, "processes")))


def check_accounts(state: SweepState) -> None:
    """Nothing is promised to anybody, kinds sum to what was spent, and the budget has held."""
    ledger = state.ledger
    assert ledger.grants == {}
    assert ledger.spent <= ledger.budget
    of_trials = sum(sum(kinds.values()) for kinds in ledger.spent_by_trial.values())
    assert sum(ledger.spent_by_kind.values()) == pytest.approx(of_trials, abs=1e-3)
    assert all(held > -1e-3 for held in ledger.spent_by_kind.values())
    assert all(group["state"] == "REMOVED" for group in placement_group_table().values())


def states(state: SweepState) -> set[str]:
    return {search.state for search in state.searches.values()}


def test_it_spends_its_budget_ends_and_then_changes_nothing(script: Script) -> None:
    state = script.run()
    check_accounts(state)
    assert state.end == "finished"
    assert state.ledger.spent > 0.6 * state.ledger.budget
    assert state.ledger.spent_by_kind["lost"] == 0.0
    assert processes_of(script) <= 2, "no more are booted than there are slots"
    assert len(state.searches) >= 3
    assert states(state) <= {"paused", "finished"}
    assert {search.horizon for search in state.searches.values()} <= {None, 16}
    assert state.incumbent is not None

    written = journal_of(script)
    again = subprocess.run(
        [sys.executable, "-m", "tests.schedulers_tests.budgeted_sweep", json.dumps(asdict(script))],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert json.loads(again.stdout.splitlines()[-1])["ledger"] == state.ledger.to_json()
    assert journal_of(script) == written

    raised = replace(script, budget="45 cpu-seconds").run()
    check_accounts(raised)
    assert raised.ledger.spent > state.ledger.spent
    assert list(raised.searches)[: len(state.searches)] == list(state.searches), "no search is lost or doubled"
    assert (raised.runs, raised.full_horizon) == (2, 16)


def test_a_resumed_sweep_that_can_afford_nothing_ends(script: Script) -> None:
    state = script.run()
    unfinished = [search.id for search in state.searches.values() if search.state == "paused"]
    assert unfinished, "somebody waits who could go on"
    again = replace(script, budget=f"{state.ledger.budget + 0.1} cpu-seconds").run()
    check_accounts(again)
    assert (again.runs, again.end, again.ledger.spent) == (2, "finished", state.ledger.spent)


def test_a_grid_is_searched_and_finished(script: Script) -> None:
    """Without reset_config every slice boots a process."""
    few = replace(script, model="Plain", budget="60 cpu-seconds", space={"x": [0.2, 0.8]}, terms={"max_t": 3})
    state = few.run()
    check_accounts(state)
    assert [search.config["x"] for search in state.searches.values()] == [0.2, 0.8]
    assert states(state) == {"finished"}
    assert [search.epochs for search in state.searches.values()] == [3, 3]
    assert state.end == "finished"


def test_what_was_drawn_for_a_trial_stays_its_own_after_a_failure_and_a_resume(script: Script) -> None:
    chosen = {"shape": tune.choice([(3, 3), (5, 5)]), "model": tune.choice([Plain, Choosy])}
    inner = {"of_x": tune.sample_from(_of_x), "model": Plain, "shape": (7, 7)}
    drawn = {"scale": tune.sample_from(lambda spec: random.random()), "inner": inner}
    # So few that the second budget goes on with what the first one has paused.
    few = tune.grid_search([number / 10 for number in range(10)])
    space = {"x": few, "folder": script.storage, **chosen, **drawn}
    for budget in ("15 cpu-seconds", "30 cpu-seconds"):
        tune_config, run_config = with_budget(
            budget,
            tune.TuneConfig(metric="value", mode="max"),
            tune.RunConfig(storage_path=script.storage, name=script.name, verbose=0),
            max_t=16,
        )
        tune.Tuner(Choosy, param_space=space, tune_config=tune_config, run_config=run_config).fit()
    for search in tune_config.scheduler.state.searches.values():
        assert search.config["inner"]["of_x"] == 2 * search.config["x"]
        assert 0 <= search.config["scale"] <= 1
    reports = records_of(script, "report")
    made_of = {report["trial"]: report["metrics"]["made_of"] for report in reports}
    assert all(report["metrics"]["made_of"] == made_of[report["trial"]] for report in reports)
    assert len({*made_of.values()}) == len(made_of), "each has a scale of its own"
    assert all("(7, 7)" in told and "Plain" in told for told in made_of.values())
    runs = {(report["trial"], report["run"]) for report in reports}
    assert len(runs) > len(made_of), "some trial ran in both"
    failed = {record["trial"] for record in records_of(script, "failure")}
    assert failed & made_of.keys()


def _of_x(spec: Any) -> float:
    x: float = spec.config.x
    return 2 * x


def test_optuna_suggests(script: Script) -> None:
    state = replace(script, optuna=True).run()
    check_accounts(state)
    tried = [search.config["x"] for search in state.searches.values()]
    assert state.end == "finished"
    assert len(set(tried)) == len(tried) > 4


def test_what_cannot_be_saved_is_stopped_and_never_paused(script: Script) -> None:
    state = replace(script, model="Unsaved", mode="min").run()
    check_accounts(state)
    assert state.end == "finished"
    for search in state.searches.values():
        assert search.state == "finished" or search.failures, "only a crash leaves one that could go on"
        assert search.checkpoints == []
    lowest = min(value for search in state.searches.values() for _, value in search.curve)
    assert state.incumbent is not None
    assert state.incumbent.best_value == lowest, "mode is min"


def test_a_function_that_saves_is_paused_and_goes_on_later(script: Script) -> None:
    every = 3
    better_first = [x / 100 for x in range(98, 38, -2)]  # so that what the first run paused is worth going on with
    space = {"x": better_first, "every": every}
    functions = replace(script, model="function", budget="30 cpu-seconds", space=space)
    state = functions.run()
    check_accounts(state)
    assert state.end == "finished"
    assert state.saves_every == every
    resumed = 0
    for search in state.searches.values():
        saved = search.checkpoints[-1].epochs if search.checkpoints else 0
        assert search.latest["steps"] == search.latest["training_iteration"], "it went on where it had saved"
        assert search.state in ("finished", "paused")
        assert search.state == "finished" or (search.epochs == saved > 0 and saved % every == 0)
        grants = [grant for grant in grants_of(functions) if grant["trial"] == search.id]
        resumed += len(grants) > 1
    assert resumed

    raised = replace(functions, budget="76 cpu-seconds").run()
    check_accounts(raised)
    gone_on = [name for name in state.searches if raised.searches[name].epochs > state.searches[name].epochs]
    assert gone_on, "another driver goes on with what was paused"
    assert all(raised.searches[name].latest["steps"] == raised.searches[name].epochs for name in gone_on)


def test_a_function_that_never_saves_is_never_paused_and_that_is_said_once(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    # The first is the best, so that it goes on and those behind do not; the last ones of a grid always do.
    space = {"every": 0, "x": [0.9, 0.5, 0.4, 0.3, 0.2, 0.1]}
    state = replace(script, budget="240 cpu-seconds", model="function", space=space).run()
    check_accounts(state)
    assert state.end == "finished"
    assert states(state) == {"finished"}
    assert len(state.searches) == 6
    epochs = {search.epochs for search in state.searches.values()}
    assert min(epochs) == 1 < max(epochs), "only the best ones went on, and at once"
    said = [record.getMessage() for record in caplog.records if "stopped for good" in record.getMessage()]
    assert len(said) == 1
    assert "no checkpoint with its report" in said[0]


def test_a_trial_that_is_done_by_itself_is_finished(script: Script) -> None:
    state = replace(script, model="EndsByItself", terms={"max_t": 16, "grace_period": 16}).run()
    check_accounts(state)
    finished = [search for search in state.searches.values() if search.state == "finished"]
    assert len(finished) > 2
    assert {search.epochs for search in finished} == {3}, "its last report counts"


def test_a_trainable_that_refuses_to_be_reset_does_not_hang(script: Script) -> None:
    state = replace(script, model="RefusesReset").run()
    check_accounts(state)
    assert state.end == "finished"
    assert any(search.epochs for search in state.searches.values())


def test_three_failures_in_a_row_fail_a_search_and_not_the_sweep(script: Script) -> None:
    few = replace(script, model="FailsInStep", budget="60 cpu-seconds", space={"x": [0.2, 0.8]})
    state = replace(few, terms={"max_t": 4, "grace_period": 4}).run()
    check_accounts(state)
    bad, good = state.searches.values()
    assert (bad.state, bad.failures, good.state, good.epochs) == ("failed", 3, "finished", 4)
    assert "a step went wrong" in bad.why
    assert state.end == "finished"
    assert state.ledger.spent_by_trial[bad.id]["lost"] > 0


def test_a_setup_that_always_fails_ends_the_sweep_with_its_error(script: Script) -> None:
    state = replace(script, model="FailsInSetup", budget="10 cpu-minutes", space={"x": [0.5]}).run()
    check_accounts(state)
    assert state.end == "failed"
    assert "there is no data" in state.end_why
    assert [search.failures for search in state.searches.values()] == [3]
    assert state.ledger.spent < 120, "most of the budget is left"


def test_a_step_that_never_returns_is_killed(script: Script) -> None:
    state = replace(script, model="Hangs", terms={"max_t": 16, "grace_period": 16}).run()
    check_accounts(state)
    assert state.ledger.spent_by_kind["lost"] > 0
    assert any(search.failures for search in state.searches.values())


def test_a_bound_on_storage_and_more_checkpoints_are_refused() -> None:
    from nasib_ray import with_budget

    more = tune.RunConfig(checkpoint_config=tune.CheckpointConfig(num_to_keep=3))
    best = tune.RunConfig(checkpoint_config=tune.CheckpointConfig(checkpoint_score_attribute="value"))
    for wrong in (more, best):
        with pytest.raises(ValueError, match="leave these two out"):
            with_budget("1 cpu-hour", tune.TuneConfig(metric="value", mode="max"), wrong, max_storage_bytes=10**9)


def test_a_trainable_that_declares_the_keys_is_told_horizon_and_slice(script: Script) -> None:
    terms = {"horizon_key": "horizon", "slice_key": "slice_seconds", "full_epochs": 6}
    state = replace(script, model="Told", terms=terms).run()
    check_accounts(state)
    records = [json.loads(line) for data in journal_of(script).values() for line in data.splitlines()]
    told = [record["metrics"] for record in records if record["event"] == "report"]
    assert told[0]["horizon"] is None, "before the first epoch nobody knows"
    horizons = {metrics["horizon"] for metrics in told[2:]}
    assert 6 in horizons
    assert all(metrics["slice_seconds"] > 0 for metrics in told)
    for search in state.searches.values():
        assert search.horizon is None or search.epochs <= search.horizon


def test_a_scheduler_without_its_source_names_the_line_that_is_missing(script: Script) -> None:
    scheduler = BudgetScheduler(Terms(Budget.parse("20 cpu-seconds")), AsyncHalving())
    tuner = tune.Tuner(
        Plain,
        param_space={"x": 0.5, "folder": script.storage},
        tune_config=tune.TuneConfig(metric="value", mode="max", scheduler=scheduler),
        run_config=tune.RunConfig(storage_path=script.storage, name="bare", verbose=0),
    )
    with pytest.raises(Exception, match=r"nasib_ray\.with_budget"):
        tuner.fit()


def test_a_trial_whose_idle_process_is_taken_away_before_it_begins_keeps_its_grant(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    robbed: list[str] = []
    book = SweepRun.book

    def book_and_rob(run: SweepRun, piece: Slice, search: SearchRecord, view: SweepView) -> dict[str, Any]:
        told = book(run, piece, search, view)
        idle = [holding for holding in run._held.values() if holding.phase == "idle"]
        if idle and len(robbed) < 3 and run.controller is not None:
            robbed.append(search.id)
            drop_idle(run.controller)
        return told

    monkeypatch.setattr(SweepRun, "book", book_and_rob)
    check_accounts(script.run())
    assert robbed, "no process was ever used again"
    records = [json.loads(line) for data in journal_of(script).values() for line in data.splitlines()]
    open_grants: dict[str, str] = {}
    for record in sorted(records, key=lambda record: record["number"]):
        if record["event"] == "grant":
            open_grants[record["grant"]] = record["trial"]
        elif record["event"] == "release":
            open_grants.pop(record["grant"])
        elif record["event"] == "report":
            assert record["trial"] in open_grants.values(), f"report {record['number']} came without a grant"


@pytest.mark.parametrize(
    ("resources", "budget", "message"),
    [
        ({"cpu": 0, "node:none": 1}, "20 cpu-seconds", "holds no cpu"),
        ({"cpu": 1}, "20 gpu-seconds", "holds no gpu"),
        ({"cpu": 3}, "20 cpu-seconds", "no node"),
        ({"cpu": 1, "gpu": 1}, "20 gpu-seconds", "no node"),
    ],
)
def test_a_trial_that_the_budget_or_the_machine_cannot_have_is_refused(
    script: Script, resources: dict[str, Any], budget: str, message: str
) -> None:
    from nasib_ray import with_budget

    tune_config, run_config = with_budget(
        budget, tune.TuneConfig(metric="value", mode="max"), tune.RunConfig(storage_path=script.storage, name="none")
    )
    space = {"x": 0.5, "folder": script.storage}
    tuner = tune.Tuner(
        tune.with_resources(Plain, resources), param_space=space, tune_config=tune_config, run_config=run_config
    )
    with pytest.raises(Exception, match=message):
        tuner.fit()
