"""What is wrong with a configuration, in words for the person who wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

_BOUNDS = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}


class Problems(ValueError):
    """All that is wrong with a configuration: one line for each problem, naming the key, the value and the rule."""


def keys_of(model: type[BaseModel]) -> tuple[str, ...]:
    """The keys by which a section of a configuration is written."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


@cache
def rule_of(model: type[BaseModel], key: str) -> TypeAdapter[Any]:
    """The rule for a single key of a section, whatever the others are.

    Rules between keys are not in it. The key must be one of :func:`keys_of`.
    """
    field = _field(model, key)
    rule: Any = field.annotation
    for constraint in field.metadata:
        rule = Annotated[rule, constraint]
    return TypeAdapter(rule)


def wrong_value(key: str, value: Any, allowed: str) -> str:
    """A line on a value that is not allowed; ``key`` is dotted, as in ``search.k``."""
    text = json.dumps(value, default=str)
    return f"{key} = {text if len(text) <= 80 else text[:77] + '...'}: must be {allowed}"


def unknown_key(section: str, key: str, known: Mapping[str, Sequence[str]]) -> str:
    """A line on a key that does not exist: what may have been meant, and what there is.

    Args:
        section: Where it was found; empty at the top level.
        key: The key.
        known: The keys of every section, those of the top level under the empty name.
    """
    word = key.partition(".")[0]
    meant = [_dotted(other, word) for other, keys in known.items() if word in keys]
    for other in sorted(known, key=lambda name: name != section):
        meant = meant or [_dotted(other, match) for match in get_close_matches(word, known[other], 2)]
    hint = f": did you mean {' or '.join(meant)}?" if meant else ";"
    owner = f"the keys of {section}" if section else "the keys"
    return f"unknown key {_dotted(section, key)}{hint} {owner} are {', '.join(known[section])}"


def problems_of(error: ValidationError, model: type[BaseModel], values: Mapping[str, Any]) -> list[str]:
    """A line for every key that a validation found wrong.

    Args:
        error: What the validation raised.
        model: What was to be built.
        values: What it was to be built from.
    """
    lines: dict[str, list[str]] = {}
    for detail in error.errors():
        owner, path = model, list[str]()
        value: Any = values
        rule: TypeAdapter[Any] | None = None
        for part in detail["loc"]:
            # What follows a key may be the index of an item or pydantic's name for a member of a union.
            if not isinstance(part, str) or part not in keys_of(owner):
                break
            path.append(part)
            value = value.get(part) if isinstance(value, Mapping) else None
            rule = rule_of(owner, part)
            inner: Any = _field(owner, part).annotation
            if not hasattr(inner, "model_fields"):
                break
            owner = inner
        assert rule is not None, f"a validation complained of no key: {detail}"
        key = ".".join(path)
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, Problems):
            lines[key] = str(cause).splitlines()
        elif isinstance(cause, ValueError):
            lines[key] = [f"{key}: {cause}"]
        elif key not in lines:
            # A value that no member of a union takes is one problem, though it gives one error for each of them.
            lines[key] = [wrong_value(key, value, allowed_values(rule.json_schema()))]
    return [line for found in lines.values() for line in found]


def allowed_values(schema: Mapping[str, Any]) -> str:
    """What a JSON schema allows, as in "a number above 0 and at most 1"."""
    if "anyOf" in schema:
        return " or ".join(allowed_values(member) for member in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array":
            return f"a list, each item {allowed_values(schema['items'])}"
        case "object" if schema.get("additionalProperties"):
            return f"a mapping, each value {allowed_values(schema['additionalProperties'])}"
        case "object":
            return f"a mapping with the keys {', '.join(schema.get('properties', {}))}"
        case kind:
            names = {"number": "a number", "integer": "a whole number", "boolean": "true or false", "string": "text"}
            limits = [f"{words} {schema[bound]:.15g}" for bound, words in _BOUNDS.items() if bound in schema]
            return f"{names.get(str(kind), str(kind))} {' and '.join(limits)}".rstrip()


def _field(model: type[BaseModel], key: str) -> FieldInfo:
    return next(field for name, field in model.model_fields.items() if (field.alias or name) == key)


def _dotted(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key
