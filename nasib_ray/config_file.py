"""Configurations as they are written: YAML files, and ``key=value`` on a command line."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore]

from nasib_ray.problems import Problems

SECTIONS = ("search", "data", "retrain", "trial")
"""The keys whose values are mappings with keys of their own."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc,unused-ignore]
    """Plain YAML, but a key that is given twice is an error, and 1e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in seen and key.value != "<<":
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


# YAML 1.1, which PyYAML reads, takes a number with an exponent but without a point for text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+"), list("-+0123456789")
)


def read_config_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping that a YAML file holds; an empty file gives an empty one.

    Raises:
        ValueError: The file is missing or cannot be read, is not YAML (with the line), has a key twice, or holds
            something else than a mapping.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Problems(f"there is no configuration file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Problems(f"the configuration file {path} cannot be read as text: {error}") from error
    values = _parse(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise Problems(f'{path} holds {_kind(values)}, but must hold a mapping, with lines such as "searches: 8"')
    return {str(key): value for key, value in values.items()}


def with_values(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with further values put in: keys of a section beside its other ones, all else in its place.

    A text in place of the section ``data`` is its ``name``, so that another data set keeps the other settings.
    """
    result = dict(values)
    for key, value in more.items():
        before, value = _as_section(key, result.get(key)), _as_section(key, value)
        if key in SECTIONS and isinstance(before, Mapping) and isinstance(value, Mapping):
            value = {**before, **value}
        result[key] = value
    return result


def with_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A configuration with ``key=value`` texts put in; keys of a section are dotted, values are YAML.

    Raises:
        ValueError: A text has no ``=`` or no key, or its value is not YAML.
    """
    result = dict(values)
    for override in overrides:
        key, equals, text = (part.strip() for part in override.partition("="))
        if not (equals and key):
            raise Problems(f"{override!r} sets nothing: write KEY=VALUE, such as search.channels=8")
        value = _parse(text, f"the value of {key!r}")
        section, dot, inner = key.partition(".")
        result = with_values(result, {section: {inner: value}} if dot and section in SECTIONS else {key: value})
    return result


def _as_section(key: str, value: Any) -> Any:
    return {"name": os.fspath(value)} if key == "data" and isinstance(value, (str, os.PathLike)) else value


def _parse(text: str, place: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise Problems(f"{place}{line}: {what} (not valid YAML)") from error
    except yaml.YAMLError as error:
        raise Problems(f"{place} is not valid YAML: {' '.join(str(error).split())}") from error


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"only {value!r}"
