"""The model of searches whose values depend on the horizon that they are told, and sweeps over it."""

from __future__ import annotations

import copy
import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nasib_ray.cli import app
from nasib_ray.horizon_model import HorizonModel, ModelWorkload, read_model
from nasib_ray.simulate import Setting, allocators_for, simulate
from schedulers.budget import Budget
from schedulers.population import PopulationBasedTraining, PopulationWorkload
from schedulers.rules import Rules
from schedulers.simulated_world import World
from schedulers.simulator import Simulator
from schedulers.workload import METRIC, Learner
from tests.schedulers_tests.tables import made_table

FULL = 20


def made_model(**told: object) -> HorizonModel:
    """Searches that are worth something once they exploit, and something else where k is high."""
    settings = {
        "name": "made", "metric": "objective", "comparing_epochs": None, "full_horizon": FULL, "level": 0.0,
        "learnt": 0.1, "exploited": 0.8, "exploited_early": -0.1, "learning_epochs": 5.0,
        "effects": (0.1, 0.0, 0.0, 0.0, 0.0), "trial_spread": 0.05, "noise_spread": 0.01, "noise_correlation": 0.5,
        "k": (0.01, 0.5), "lambda": (0.003, 0.07), "epoch_device_seconds": 600.0, "cost_spread": 0.2,
    }  # fmt: skip
    return HorizonModel.model_validate({**settings, **told})


def curve(learner: Learner, horizons: list[int], compared: bool = True) -> list[float]:
    """Its values under a horizon for each epoch."""
    return [learner.learn(horizon, compared)[METRIC] for horizon in horizons]


def test_a_search_comes_to_the_value_of_the_equation() -> None:
    plain = made_model(trial_spread=0.0, noise_spread=0.0, effects=(0.0,) * 5)
    config, learner = ModelWorkload(plain, 0).draw(0)
    values = curve(learner, [FULL] * FULL)
    assert 0.01 <= config["k"] <= 0.5
    assert 0.003 <= config["lambda"] <= 0.07
    # Half of the cosine's epochs, but for the last one, whose rate is zero, and the first one, whose rate is whole.
    learnt = 1 - 2.718281828 ** (-(FULL / 2) / 5)
    assert values[-1] == pytest.approx(0.1 * learnt + (1 - config["k"]) * (0.8 * learnt - 0.1), abs=1e-6)
    assert values[0] == pytest.approx(0.1 * (1 - 2.718281828 ** (-1 / 5)), abs=1e-6)


def test_what_a_search_comes_to_is_a_function_of_what_it_was_told() -> None:
    model = made_model(k=(0.2, 0.3), exploited=2.0)
    one, same, cut, other = (ModelWorkload(model, seed).draw(3)[1] for seed in (0, 0, 0, 1))
    whole = curve(one, [FULL] * FULL)
    assert curve(same, [FULL] * FULL) == whole
    shortened = curve(cut, [FULL] * 8 + [12] * 4)
    assert shortened[:8] == whole[:8]
    assert shortened[-1] > whole[11] + 0.1, "it exploits by then"
    assert curve(other, [FULL] * FULL) != whole


def test_a_checkpoint_goes_on_from_where_it_was() -> None:
    _, learner = ModelWorkload(made_model(), 0).draw(0)
    curve(learner, [FULL] * 5)
    saved = copy.copy(learner)
    assert curve(learner, [FULL] * 15) == curve(saved, [FULL] * 15)


def test_a_copy_goes_on_with_what_was_learnt_and_another_k() -> None:
    trials = ModelWorkload(made_model(noise_spread=0.0), 0)
    config, learner = trials.draw(0)
    curve(learner, [FULL] * 10)
    changed, child = trials.inherit(learner, 1)
    assert set(changed) == set(config)
    assert changed != config
    (next_value,), (first_of_all,) = curve(child, [FULL]), curve(trials.draw(2)[1], [FULL])
    assert next_value > first_of_all + 0.1
    assert curve(learner, [FULL]) != [next_value]


def test_what_is_measured_where_searches_are_compared_takes_time_there_alone() -> None:
    _, learner = ModelWorkload(made_model(comparing_epochs=0.5), 0).draw(0)
    assert learner.learn(FULL, False) == {}
    assert METRIC in learner.learn(FULL, True)
    assert learner.compare_seconds() == pytest.approx(0.5 * learner.epoch_seconds())
    assert ModelWorkload(made_model(), 0).draw(0)[1].compare_seconds() == 0.0


def test_regret_is_0_at_the_best_of_many_full_searches_and_1_at_the_median() -> None:
    model = made_model()
    ends = [curve(ModelWorkload(model, 7).draw(number)[1], [FULL] * FULL)[-1] for number in range(300)]
    regrets = [model.regret(end) for end in ends]
    assert statistics.median(regrets) == pytest.approx(1.0, abs=0.1)
    assert sum(regret == 0 for regret in regrets) <= 9
    assert model.regret(None) == 1.0
    assert made_model(mode="min").regret(-10.0) == 0.0


def test_every_allocator_spends_a_budget_over_a_model() -> None:
    model = made_model(comparing_epochs=0.3)
    for name in allocators_for([model]):
        for slots in (1, 4):
            run = simulate(model, Setting("made", name, 8, slots, seed=0))
            assert 0.95 < run.budget_used <= 1, name
            assert run.regrets == simulate(model, Setting("made", name, 8, slots, seed=0)).regrets, name
            assert run.anytime_regret >= run.final_regret, name
    assert {"pbt", "async-halving-fixed"} < set(allocators_for([model]))
    assert not {"pbt", "async-halving-fixed"} & set(allocators_for([model, made_table()]))


def test_a_horizon_that_is_planned_again_pays_where_annealing_does() -> None:
    model = made_model(k=(0.05, 0.3), exploited=2.0, learning_epochs=1.0)

    def regret(name: str) -> float:
        settings = [Setting("made", name, budget, slots, 0) for budget, slots in ((3, 8), (6, 4), (10, 16))]
        runs = [simulate(model, replace(setting, seed=seed)) for setting in settings for seed in range(20)]
        return statistics.fmean(run.final_regret for run in runs)

    assert regret("async-halving") < regret("async-halving-fixed") - 0.05


def test_a_population_replaces_its_worst_by_copies_of_its_best() -> None:
    model = made_model(noise_spread=0.0)
    population = PopulationBasedTraining(FULL, population=8, interval=2)
    trials = PopulationWorkload(model.workload(0), population)
    rules = Rules(1.0, METRIC, full_epochs=FULL, horizon_told=True)
    sweep = Simulator(World(), trials, population, Budget(8 * FULL * 600.0, "gpu"), rules)
    population.trials = sweep.trials
    searches = list(sweep.run().searches.values())
    first_values = [search.curve[0][1] for search in searches]
    assert len(searches) > 8
    assert statistics.fmean(first_values[8:]) > statistics.fmean(first_values[:8]) + 0.1, "copies have learnt"
    left = [search for search in searches[:8] if search.epochs < max(one.epochs for one in searches[:8])]
    stayed = [search for search in searches[:8] if search not in left]
    assert left
    at = min(search.epochs for search in left)
    assert min(dict(s.curve)[at] for s in left) == min(dict(s.curve)[at] for s in searches[:8] if at in dict(s.curve))
    assert stayed


def test_models_are_simulated_from_the_command_line(tmp_path: Path) -> None:
    file, out = tmp_path / "made.json", tmp_path / "runs.json"
    file.write_text(made_model().model_dump_json(by_alias=True))
    assert read_model(file) == made_model()
    told = ["simulate", str(file), "--full-trainings", "5", "--seeds", "2", "--jobs", "1", "--json", str(out)]
    result = CliRunner().invoke(app, told, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert {run["allocator"] for run in json.loads(out.read_text())["runs"]} == set(allocators_for([made_model()]))
    assert "async-halving-fixed" in result.output
    result = CliRunner().invoke(app, [*told, "--mode", "max"], env={"COLUMNS": "200"})
    assert "is a model, which tells its own" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is no horizon model: name: Field required"),
        ("no json", "is no horizon model"),
        (made_model().model_dump_json(by_alias=True).replace('"k":[0.01', '"k":[-1.0'), "k.0: Input should be greater"),
        (made_model().model_dump_json(by_alias=True).replace('"k":[0.01', '"k":[0.9'), "k"),
    ],
)
def test_what_is_no_model_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_model(tmp_path / "model.json")
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_model(tmp_path / "none.json")
