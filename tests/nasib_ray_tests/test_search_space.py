from typing import Any

import pytest

from nasib_ray.problems import Problems
from nasib_ray.search_space import Choice, Range, SearchSpace
from trainables.settings import DEFAULT_K_RANGE, DEFAULT_LAMBDA_RANGE, SearchSettings

FIXED = {"k": 0.1, "lambda": 0.01}


def refused(section: dict[str, Any]) -> str:
    with pytest.raises(Problems) as caught:
        SearchSpace.parse(section)
    return str(caught.value)


def test_k_and_lambda_are_tuned_by_default_and_all_else_is_fixed() -> None:
    space = SearchSpace.parse({"layers": 10})
    assert space.axes == {
        "k": Range(*DEFAULT_K_RANGE, log=True),
        "lambda": Range(*DEFAULT_LAMBDA_RANGE, log=True),
    }
    assert space.fixed["layers"] == 10
    assert space.fixed["momentum"] == SearchSettings().momentum
    assert space.size is None


@pytest.mark.parametrize(
    ("written", "axis"),
    [
        ({"uniform": [0.1, 0.5]}, Range(0.1, 0.5)),
        ({"log_uniform": [0.1, 1]}, Range(0.1, 1.0, log=True)),
        ({"choice": [0.1, 1]}, Choice((0.1, 1.0))),
        ({"grid": (0.1, 0.2)}, Choice((0.1, 0.2), grid=True)),
    ],
)
def test_a_setting_is_tuned_as_it_is_written(written: dict[str, Any], axis: Range | Choice) -> None:
    space = SearchSpace.parse({"k": written})
    assert space.axes["k"] == axis
    assert SearchSpace.parse(space.plain()) == space


def test_whole_numbers_and_lists_are_tuned_too() -> None:
    space = SearchSpace.parse(
        {"layers": {"int": [5, 8]}, "m": {"log_int": [2, 16]}, "reductions": {"choice": [[2], [3, 5]]}}
    )
    assert space.axes["layers"] == Range(5, 8, whole=True)
    assert space.axes["m"] == Range(2, 16, log=True, whole=True)
    point = {"k": 0.1, "lambda": 0.01, "layers": 6, "m": 3, "reductions": [3, 5]}
    assert space.settings_of(point)["reductions"] == [3, 5]
    assert space.point_of(space.settings_of(point)) == point
    assert 6 in space.axes["layers"]
    assert 6.5 not in space.axes["layers"]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"k": 7}, "search.k = 7: must be a number above 0 and at most 1"),
        ({"k": "0.1"}, 'search.k = "0.1": must be a number'),
        ({"k": None}, "search.k = null: must be a number"),
        ({"k": float("nan")}, "search.k = NaN: must be a number"),
        ({"k": {"uniform": [0, 7]}}, "search.k.uniform = 0: must be a number above 0 and at most 1"),
        ({"k": {"uniform": [0.5, 7]}}, "search.k.uniform = 7: must be a number above 0 and at most 1"),
        ({"k": {"uniform": [0.5, 0.1]}}, "search.k.uniform = [0.5, 0.1]: must be two numbers [low, high], low below"),
        ({"k": {"uniform": [0.1]}}, "must be two numbers"),
        ({"objective": {"choice": ["shared-accuracy", "trained-accuracy"]}}, "must be one value for the whole sweep"),
        ({"objective_epochs": {"int": [1, 3]}}, "must be one value for the whole sweep"),
        ({"objective": "accuracy"}, 'search.objective = "accuracy": must be'),
        ({"k": {"uniform": 0.1}}, "must be two numbers"),
        ({"k": {"uniform": "ab"}}, "must be two numbers"),
        ({"k": {"uniform": [False, True]}}, "must be two numbers"),
        ({"k": {"choice": []}}, "must be a list of at least one value"),
        ({"k": {"choice": "narrow"}}, "must be a list of at least one value"),
        ({"k": {"grid": [0.1, 2]}}, "search.k.grid[1] = 2: must be a number above 0 and at most 1"),
        ({"k": {"choice": [1, 1.0]}}, "must be a list in which no value occurs twice"),
        ({"k": {"gaussian": [0.1, 1]}}, "or tuned as in {uniform: [low, high]}"),
        ({"k": {"uniform": [0.1, 1], "log": True}}, "or tuned as in {uniform: [low, high]}"),
        ({"weight_decay": {"log_uniform": [0, 1]}}, "must be a range above 0, as its logarithm is drawn"),
        ({"layers": {"uniform": [4, 8]}}, "search.layers.uniform = [4, 8]: must be written with int or log_int"),
        ({"layers": {"int": [4.0, 8]}}, "must be two whole numbers"),
        ({"layers": {"int": [0, 8]}}, "search.layers.int = 0: must be a whole number at least 1"),
        ({"batch_norm": {"int": [0, 1]}}, 'search.batch_norm.int = 0: must be "candidate" or "layer"'),
        ({"deterministic": {"int": [0, 1]}}, "must be true or false"),
        ({"lamda": 1}, "unknown key search.lamda: did you mean search.lambda?"),
    ],
)
def test_what_settings_refuse_is_refused_beforehand(section: dict[str, Any], said: str) -> None:
    assert said in refused(section)


def test_every_problem_has_its_line() -> None:
    assert len(refused({"k": 7, "lambda": -1, "layers": {"int": [0, 3]}, "nothing": 1}).splitlines()) == 4


@pytest.mark.parametrize(
    "section",
    [
        {"layers": 6},
        {"layers": {"choice": [12, 6]}},
        {"layers": {"int": [6, 12]}},
        {"layers": {"choice": [12, 6]}, "reductions": {"choice": [[2, 4], [4, 7, 10]]}},
    ],
)
def test_combinations_that_break_a_rule_between_settings_are_refused(section: dict[str, Any]) -> None:
    assert "search: reductions = [4, 7, 10] must be rising numbers of layers between 1 and layers = 6" in refused(
        section
    )


def test_a_point_gives_the_whole_section() -> None:
    space = SearchSpace.parse({"k": {"uniform": [0.1, 0.2]}, "lambda": 0.02})
    settings = space.settings_of({"k": 0.15, "channels": 4})
    assert SearchSettings(**settings) == SearchSettings.model_validate({"k": 0.15, "lambda": 0.02, "channels": 4})
    with pytest.raises(ValueError, match="reductions"):
        space.settings_of({"k": 0.15, "layers": 3})


def test_a_point_outside_of_the_space_is_none() -> None:
    space = SearchSpace.parse({"k": {"choice": [0.1, 0.2]}, "lambda": 0.02})
    assert space.point_of({"k": 0.2, "lambda": 5}) == {"k": 0.2}
    assert space.point_of({"k": 0.15}) is None
    assert space.point_of({"lambda": 0.02}) is None


def test_grids_are_combined_in_order_and_end() -> None:
    space = SearchSpace.parse({**FIXED, "m": {"grid": [3, 5]}, "channels": {"grid": [4, 8, 16]}})
    assert space.size == 6
    assert [space.given(number) for number in range(7)] == [
        {"m": 3, "channels": 4},
        {"m": 3, "channels": 8},
        {"m": 3, "channels": 16},
        {"m": 5, "channels": 4},
        {"m": 5, "channels": 8},
        {"m": 5, "channels": 16},
        None,
    ]


def test_behind_the_grids_everything_is_drawn_if_anything_is() -> None:
    space = SearchSpace.parse({"lambda": 0.01, "m": {"grid": [3, 5]}})
    assert space.size is None
    assert [space.given(number) for number in range(4)] == [{"m": 3}, {"m": 5}, {}, {}]


def test_a_space_with_nothing_to_choose_holds_one_search() -> None:
    space = SearchSpace.parse(FIXED)
    assert space.size == 1
    assert [space.given(0), space.given(1)] == [{}, None]


def test_the_first_point_is_the_papers_where_it_lies_in_the_ranges() -> None:
    (point,) = SearchSpace.parse({}).default_points()
    assert point["k"] == 0.1
    low, high = DEFAULT_LAMBDA_RANGE
    assert point["lambda"] / low == pytest.approx(high / point["lambda"], rel=0.1)
    assert SearchSpace.parse({"lambda": 0.5}).default_points() == [{"k": 0.1}]
    assert SearchSpace.parse({"k": {"uniform": [0.2, 0.5]}}).default_points() == []
    assert SearchSpace.parse({"k": {"grid": [0.1, 0.5]}}).default_points() == []
    assert SearchSpace.parse({"k": 0.1}).default_points() == [{"lambda": point["lambda"]}]
    assert SearchSpace.parse({"k": 0.1, "lambda": 0.5}).default_points() == []


def test_points_of_the_user_are_checked() -> None:
    space = SearchSpace.parse({"m": {"choice": [3, 5]}})
    assert space.check_point("points[0]", {"k": 0.2, "m": 5, "channels": 32}) == {"k": 0.2, "m": 5, "channels": 32}
    for point, said in (
        ({"k": 0.9}, r"points\[0\]\.k = 0\.9: must be in the range in which it is tuned, search\.k = "),
        ({"m": 4}, r"points\[0\]\.m = 4: must be in the range"),
        ({"k": 7}, r"points\[0\]\.k = 7: must be a number above 0 and at most 1"),
        ({"lamda": 7}, r"unknown key points\[0\]\.lamda: did you mean points\[0\]\.lambda"),
        ({"layers": 3}, r"points\[0\]: reductions"),
        (0.1, r"points\[0\] = 0\.1: must be a mapping"),
    ):
        with pytest.raises(Problems, match=said):
            space.check_point("points[0]", point)  # type: ignore[arg-type]
