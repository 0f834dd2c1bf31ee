"""What a journal keeps of a trial's configuration, and what a resume makes of it again."""

from __future__ import annotations

import json
import math
from enum import Enum
from typing import Any

import numpy as np
import pytest
from ray import tune

from schedulers.plain_data import as_given, function_places, in_form_of, jsonable, value_at, with_value


class Activation(str, Enum):
    """Texts with names."""

    GELU = "gelu"
    RELU = "relu"


class Operation:
    """Nothing that JSON could hold."""


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ((3, 3), [3, 3]),
        ([[16, 3], (32, 3)], [[16, 3], [32, 3]]),
        ([{"a": (1, None)}], [{"a": [1, None]}]),
        (math.inf, "inf"),
        (np.float32(0.5), 0.5),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.int64(7), 7),
    ],
)
def test_what_json_can_hold_is_kept(value: Any, kept: Any) -> None:
    assert json.loads(json.dumps(jsonable({"x": value}), allow_nan=False)) == {"x": kept}


def test_what_json_cannot_hold_is_left_out() -> None:
    assert jsonable({"a": Operation(), "b": [1, Operation()], "c": {"d": Operation(), "e": 1}}) == {"c": {"e": 1}}


@pytest.mark.parametrize(
    ("space", "chosen"),
    [
        (tune.choice([(3, 3), (5, 5)]), (5, 5)),
        (tune.choice([[(16, 3), (32, 3)], [(32, 5)]]), [(16, 3), (32, 3)]),
        (tune.choice([math.inf, 1.0]), math.inf),
        (tune.grid_search([{"a": (1,)}, {"a": (2,)}]), {"a": (2,)}),
        (("__ref_ph", "0a1b"), ("__ref_ph", "0a1b")),
        (tune.uniform(0, 1), 0.25),
        ({"lr": tune.uniform(0, 1), "betas": (0.9, 0.99)}, {"lr": 0.5, "betas": (0.9, 0.99)}),
        ({0: 1.0, "name": "a"}, {0: 1.0, "name": "a"}),
        (tune.choice([True, 1]), 1),
        (tune.choice([*Activation]), Activation.RELU),
        ((tune.uniform(0, 1), 0.999), (0.25, 0.999)),
        ({"widths": {8: tune.choice([(1,), (2,)])}}, {"widths": {8: (2,)}}),
    ],
)
def test_what_was_chosen_comes_back_as_it_was_written(space: Any, chosen: Any) -> None:
    kept = json.loads(json.dumps(jsonable({"x": chosen})))
    given = as_given({"x": space}, kept)["x"]
    assert given == chosen
    assert type(given) is type(chosen)


def test_what_functions_drew_is_put_where_their_placeholders_were() -> None:
    placeholder = ("__fn_ph", "0a1b")
    config: Any = {"a": placeholder, "b": {7: (1, placeholder)}, "d": ("__ref_ph", "4e5f"), "e": [placeholder]}
    places = function_places(json.loads(json.dumps(jsonable(config))))
    assert places == [("a",), ("b", "7", 1), ("e", 0)]
    for number, place in enumerate(places):
        config = with_value(config, place, number)
    assert config == {"a": 0, "b": {7: (1, 1)}, "d": ("__ref_ph", "4e5f"), "e": [2]}
    assert [value_at(config, place) for place in places] == [0, 1, 2]
    with pytest.raises(LookupError):
        value_at(config, ("b", "8"))


@pytest.mark.parametrize(
    ("drawn", "anew"),
    [
        (0.5, 0.25),
        ((1, (2, 3)), (4, (5, 6))),
        ((1, 2), (4,)),
        (np.int64(16), np.int64(32)),
        (math.inf, 1.0),
        ("auto", 1.0),
        (None, 1.0),
        (np.array([1.5, 2.5]), np.zeros(2)),
        ({"a": [1]}, {"a": [2]}),
    ],
)
def test_what_was_drawn_has_the_type_of_what_is_drawn_anew(drawn: Any, anew: Any) -> None:
    kept = json.loads(json.dumps(jsonable({"x": drawn})))["x"]
    given = in_form_of(kept, anew)
    assert np.array_equal(given, drawn) if isinstance(drawn, np.ndarray) else given == drawn
    assert type(given) is type(drawn)
