from __future__ import annotations

import subprocess
import sys

import pytest

from trainables.settings import DataSettings, SearchSettings, TrialSettings


def test_defaults_are_the_papers() -> None:
    settings = SearchSettings()
    assert (settings.k, settings.m, settings.K, settings.layers, settings.reductions) == (0.1, 9, 9, 12, (4, 7, 10))
    assert (settings.learning_rate, settings.momentum) == (0.01, 0.9)
    assert len(settings.candidate_names) == 81


def test_a_flat_configuration_is_taken_apart() -> None:
    settings = TrialSettings.from_config(
        {
            "k": 0.2,
            "lambda": 0.5,
            "data": {"name": "digits"},
            "seed": 3,
            "split_seed": 4,
            "horizon": 9,
            "slice_seconds": 1,
        }
    )
    assert (settings.search.k, settings.search.lambda_, settings.data.name) == (0.2, 0.5, "digits")
    assert (settings.seed, settings.split_seed, settings.horizon, settings.slice_seconds) == (3, 4, 9, 1.0)


def test_an_empty_configuration_is_the_default() -> None:
    settings = TrialSettings.from_config({})
    assert settings.search == SearchSettings()
    assert settings.data == DataSettings()
    assert settings.horizon is None


def test_an_unknown_key_is_named_with_those_that_are_allowed() -> None:
    with pytest.raises(ValueError, match=r"\['lamda'\].*'lambda'.*'split_seed'"):
        TrialSettings.from_config({"lamda": 0.1})
    with pytest.raises(ValueError, match="imagesize"):
        TrialSettings.from_config({"data": {"imagesize": 3}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "greater than 0"),
        ({"k": 1.5}, "less than or equal to 1"),
        ({"lambda": 0}, "greater than 0"),
        ({"horizon": 0}, "greater than or equal to 1"),
        ({"slice_seconds": 0}, "greater than 0"),
        ({"candidates": ["conv3x3"]}, "at least two"),
        ({"candidates": ["conv3x3", "conv3x3"]}, "all different"),
        ({"candidates": ["conv3x3", "conv0x3"]}, "no operation is called 'conv0x3'"),
        ({"candidates": "wide"}, "superkernel"),
        ({"m": 1}, "at least two"),
        ({"reductions": [7, 4]}, "rising numbers of layers"),
        ({"reductions": [13]}, "between 1 and layers = 12"),
        ({"reductions": [0]}, "between 1 and layers = 12"),
        ({"priors": {"conv9x9": 1.0}}, r"priors names \['conv9x9'\]"),
        ({"priors": {"conv3x3": float("inf")}}, "finite"),
        ({"batch_size": 1}, "greater than or equal to 2"),
        ({"data": {"alpha_images": 1.5}}, "alpha_images"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrialSettings.from_config(change)


def test_settings_survive_their_own_dump() -> None:
    settings = SearchSettings.model_validate(
        {"lambda": 0.3, "candidates": ["conv3x3", "identity"], "priors": {"identity": 1}}
    )
    assert SearchSettings.model_validate(settings.model_dump(by_alias=True)) == settings


def test_settings_and_verification_need_no_torch() -> None:
    code = (
        "import sys, trainables; trainables.SearchSettings, trainables.TrialSettings, trainables.DataSettings, "
        "trainables.verify_checkpoint, trainables.Architecture; "
        "assert not {'torch', 'ray', 'numpy'} & set(sys.modules), 'imported too much'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
