import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nasib_ray.config import SweepConfig, TrialResources
from nasib_ray.problems import Problems
from schedulers.budget import Budget


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(**values: object) -> list[str]:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        SweepConfig(**values)
    return str(caught.value).splitlines()


def test_defaults_tune_k_and_lambda_and_begin_with_the_papers_k() -> None:
    config = SweepConfig()
    assert set(config.search.axes) == {"k", "lambda"}
    assert [point["k"] for point in config.points] == [0.1]
    assert config.points[0]["lambda"] in config.search.axes["lambda"]
    assert config.data.name == "cifar10"
    assert config.budget is None


def test_a_file_is_read_then_keywords_then_overrides(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "budget: 3 cpu-minutes\ndata:\n  name: cifar10\n  subset: 500\nsearch:\n  layers: 12\n  channels: 8\n"
        "  alpha_learning_rate: 1e-3\ntrial:\nsearches: 4\n",
    )
    config = SweepConfig.load(
        path,
        ["search.layers=6", "search.reductions=[3]", "search.k={uniform: [0.1, 0.2]}", "budget=2 cpu-minutes"],
        budget="1 gpu-days",
        data="digits",
        search={"channels": 4},
    )
    assert config.budget == Budget(120, "cpu")
    assert (config.data.name, config.data.subset) == ("digits", 500)
    assert config.searches == 4
    fixed = config.search.fixed
    assert (fixed["layers"], fixed["reductions"], fixed["channels"]) == (6, [3], 4)
    assert fixed["alpha_learning_rate"] == 0.001
    assert config.search.axes["k"].plain() == {"uniform": [0.1, 0.2]}


def test_an_override_of_a_section_keeps_its_other_keys(tmp_path: Path) -> None:
    config = SweepConfig.load(write(tmp_path, "data: digits\n"), ["data.subset=100", "trial.cpus=2"])
    assert (config.data.name, config.data.subset) == ("digits", 100)
    assert SweepConfig.load(None, ["data.subset=7", "data=mnist"]).data.subset == 7


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert SweepConfig.load(write(tmp_path, "# nothing yet\n")) == SweepConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budget: [1\nsearches: 3\n", ["sweep.yaml, line 2", "not valid YAML"]),
        ("search:\n  k: 0.1\n  lambda: 0.1\n  k: 0.2\n", ["line 4", "'k' is given twice"]),
        ("a: 1\n\tb: 2\n", ["line 2", "not valid YAML"]),
        ("- 1\n- 2\n", ["holds a list", "mapping"]),
        ("just words\n", ["only 'just words'", "mapping"]),
        ("a: 1\n---\nb: 2\n", ["line 2"]),
        ("a: \x00\n", ["not valid YAML"]),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str, said: list[str]) -> None:
    with pytest.raises(Problems) as caught:
        SweepConfig.load(write(tmp_path, text))
    assert all(part in str(caught.value) for part in said), caught.value
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no configuration file .*nowhere\.yaml"):
        SweepConfig.load(tmp_path / "nowhere.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        SweepConfig.load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ValueError, match="cannot be read as text"):
        SweepConfig.load(tmp_path / "latin.yaml")


@pytest.mark.parametrize("override", ["layers", "=3", ""])
def test_an_override_without_key_or_value_is_refused(override: str) -> None:
    with pytest.raises(ValueError, match=r"KEY=VALUE, such as search\.channels=8"):
        SweepConfig.load(None, [override])


def test_an_override_that_is_no_yaml_names_its_key() -> None:
    with pytest.raises(ValueError, match=r"the value of 'search\.k', line 1"):
        SweepConfig.load(None, ["search.k={uniform: [0.1"])


@pytest.mark.parametrize(
    ("values", "key", "meant"),
    [
        ({"k": 7}, "k", "search.k"),
        ({"layers": 6}, "layers", "search.layers"),
        ({"cpus": 6}, "cpus", "trial.cpus"),
        ({"lamda": 6}, "lamda", "search.lambda"),
        ({"search": {"lamda": 1}}, "search.lamda", "search.lambda"),
        ({"search": {"eta": 1}}, "search.eta", "eta"),
        ({"search": {"priors.conv3x3": 1}}, "search.priors.conv3x3", "search.priors"),
        ({"data": {"subsets": 1}}, "data.subsets", "data.subset"),
        ({"trial": {"gpu": 1}}, "trial.gpu", "trial.gpus"),
        ({"search": {3: 1}}, "search.3", None),
    ],
)
def test_an_unknown_key_is_answered_with_what_was_meant(values: dict[str, Any], key: str, meant: str | None) -> None:
    (line,) = problems(**values)
    assert line.startswith(f"unknown key {key}")
    assert (f"did you mean {meant}" in line) == (meant is not None)
    assert "the keys" in line


def test_all_problems_are_listed_each_on_a_line_with_key_value_and_rule() -> None:
    lines = problems(
        budget="5 parsecs",
        k=7,
        search={"k": 7, "layers": True, "candidates": "wide", "lambda": {"loguniform": [0.1, 0.2]}},
        data={"subset": "x", "selection_images": 1.5},
        trial={"gpus": -1},
        eta=1,
        rungs=[0.5, 2],
        sampler="x",
        continue_at_once="perhaps",
        name="a/b",
        price_per_hour=-3,
        searches=0,
    )
    said = "\n".join(lines)
    for part in (
        "budget: '5 parsecs' has no unit of device-time",
        "unknown key k: did you mean search.k?",
        "search.k = 7: must be a number above 0 and at most 1",
        "search.layers = true: must be a whole number at least 1",
        'search.candidates = "wide": must be "superkernel" or "narrow" or a list, each item text',
        'search.lambda = {"loguniform": [0.1, 0.2]}: must be a number above 0, or tuned as in {uniform: [low, high]}',
        'data.subset = "x": must be a whole number at least 1 or null',
        "data.selection_images = 1.5: must be a whole number at least 1 or a number above 0 and below 1 or null",
        "trial.gpus = -1: must be a number at least 0 or null",
        "eta = 1: must be a whole number at least 2",
        "rungs = [0.5, 2]: must be a list, each item a number above 0 and below 1",
        'sampler = "x": must be "tpe" or "random"',
        'continue_at_once = "perhaps": must be true or false',
        "name: 'a/b' cannot name a folder",
        "price_per_hour = -3: must be a number at least 0 or null",
        "searches = 0: must be a whole number at least 1",
    ):
        assert part in said
    assert len(lines) == 16


def test_a_section_that_is_no_mapping_is_refused() -> None:
    lines = problems(search=5, data=5, trial=5, points=5)
    assert [line.split()[0].rstrip(":") for line in lines] == ["data", "search", "trial"]
    assert problems(points=5) == ["points = 5: must be a list of points, such as [{k: 0.1}, {k: 0.2}]"]


@pytest.mark.parametrize("text", ["-1 cpu-minutes", "0 gpu-days", "nan gpu-days", "12", "3 cpu-weeks"])
def test_what_is_no_budget_is_passed_on_in_the_units_words(text: str) -> None:
    with pytest.raises(ValueError) as expected:  # noqa: PT011
        Budget.parse(text)
    assert problems(budget=text) == [f"budget: {expected.value}"]


def test_a_trial_holds_one_of_the_budgets_device() -> None:
    assert SweepConfig(budget="1 cpu-days").resources == TrialResources(cpus=1, gpus=0)
    assert SweepConfig(budget="1 gpu-days").resources == TrialResources(cpus=1, gpus=1)
    shared = SweepConfig(budget="1 gpu-days", trial={"gpus": 0.5, "cpus": 4})
    assert shared.resources == TrialResources(cpus=4, gpus=0.5)
    with pytest.raises(ValueError, match="there is no budget"):
        _ = SweepConfig().resources


@pytest.mark.parametrize(
    ("budget", "trial", "said"),
    [
        ("1 cpu-days", {"gpus": 1}, "trial: gpus = 1 under a budget of CPU time"),
        ("1 cpu-days", {"cpus": 0}, "trial: cpus = 0 under a budget of CPU time"),
        ("1 gpu-days", {"gpus": 0}, "trial: gpus = 0 under a budget of GPU time"),
        ("1 gpu-days", {"gpus": 1.5}, "trial: gpus = 1.5: above 1 only whole GPUs"),
    ],
)
def test_a_trial_that_does_not_suit_the_budget_is_refused(budget: str, trial: dict[str, Any], said: str) -> None:
    (line,) = problems(budget=budget, trial=trial)
    assert line.startswith(said)


def test_plain_data_give_the_same_configuration_through_json() -> None:
    config = SweepConfig(
        budget="1.5 gpu-days",
        data={"name": "digits", "subset": 100},
        search={
            "k": {"grid": [0.1, 0.2]},
            "lambda": 1,
            "layers": {"int": [4, 6]},
            "reductions": {"choice": [[2], [2, 4]]},
            "priors": {"conv3x3": 0.5},
        },
        points=[{"k": 0.2, "channels": 4}],
        trial={"gpus": 0.5},
        storage=Path("results"),
        price_per_hour=2,
    )
    again = SweepConfig(**json.loads(json.dumps(config.to_plain())))
    assert again == config
    assert again.to_plain() == config.to_plain()
    assert pickle.loads(pickle.dumps(config)) == config
    assert config.same_sweep(again) == []


def test_limits_are_read_and_survive_json(tmp_path: Path) -> None:
    path = write(tmp_path, "max_storage: 20 GB\ndeadline: 2030-12-01T08:00:00+01:00\n")
    config = SweepConfig.load(path)
    assert config.max_storage == 20_000_000_000
    assert config.deadline is not None
    assert config.deadline.timestamp() == 1_922_338_800
    again = SweepConfig(**json.loads(json.dumps(config.to_plain())))
    assert again == config
    lifted = SweepConfig.load(path, ["deadline=none"], max_storage="none")
    assert (lifted.max_storage, lifted.deadline) == (None, None)
    assert config.same_sweep(lifted) == []
    later = SweepConfig.load(path, deadline="12 h").deadline
    assert later is not None
    assert 12 * 3600 - 60 < later.timestamp() - time.time() <= 12 * 3600
    wrong = problems(max_storage="20 gigs", deadline="soon")
    assert len(wrong) == 2
    assert wrong[0].startswith("max_storage: '20 gigs' has the unknown unit")
    assert wrong[1].startswith("deadline: 'soon' is no deadline")


def test_only_keys_that_matter_make_another_sweep() -> None:
    config = SweepConfig(budget="1 cpu-hours", search={"layers": 12})
    same = SweepConfig(
        budget="2 cpu-hours",
        storage="s3://bucket/x",
        name="again",
        max_concurrent=2,
        price_per_hour=1,
        trial={"cpus": 1},
        search={"k": {"log_uniform": [0.01, 0.5]}},
    )
    assert config.same_sweep(same) == []
    assert config.same_sweep(SweepConfig()) == []
    other = SweepConfig(budget="1 cpu-hours", seed=1, search={"k": 0.1, "channels": 8}, data="digits")
    assert config.same_sweep(other) == ["data.name", "search.k", "search.channels", "points", "seed"]
    assert config.same_sweep(SweepConfig(budget="1 gpu-hours")) == ["trial.gpus"]


def test_no_share_is_kept_for_searches_that_cannot_come() -> None:
    grid = {"k": {"grid": [0.1, 0.2]}, "lambda": {"grid": [0.01, 0.02, 0.03]}}
    assert SweepConfig(search=grid).full_searches == 6
    assert SweepConfig(search=grid, points=[{"k": 0.2}]).full_searches == 7
    assert SweepConfig(search=grid, searches=3).full_searches == 3
    assert SweepConfig(search={"k": 0.1, "lambda": 0.01}).full_searches == 1
    assert SweepConfig(search={"k": 0.1}).full_searches == 8


def test_relative_paths_of_data_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert SweepConfig(data="images").data.name == str(tmp_path / "images")
    assert SweepConfig(data=Path("./images")).data.name == str(tmp_path / "images")
    assert SweepConfig(data="digits").data.name == "digits"
    assert SweepConfig(data="./digits").data.name == str(tmp_path / "digits")
    assert SweepConfig(data="nowhere/at/all").data.name == "nowhere/at/all"
    places = SweepConfig(data={"name": "cifar10", "root": "here", "cache": "~/there"}).data
    assert (places.root, places.cache) == (str(tmp_path / "here"), "~/there")


def test_a_uri_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cloud = SweepConfig(storage="s3://bucket/a~b/../c")
    assert cloud.storage_path == "s3://bucket/a~b/../c"
    local = SweepConfig(storage="results")
    assert local.storage_path == str(tmp_path / "results")
    assert SweepConfig().storage_path == str(Path.home() / "nasib_ray_results")


def test_a_configuration_is_read_without_torch_and_ray() -> None:
    script = (
        "import sys; from nasib_ray.config import SweepConfig; SweepConfig(budget='1 cpu-days', data='digits');"
        "print({'torch', 'ray', 'optuna'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
