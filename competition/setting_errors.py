"""The errors of settings as text: pydantic's errors, with the keys of the YAML and what is allowed."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from competition.overrides import Overrides

NO_MAPPING = ("model_type", "model_attributes_type", "dict_type")
"""Types of pydantic's errors for a value where a mapping is expected."""


def describe_errors(
    error: ValidationError,
    values: Any,
    section: str,
    valid_names: Mapping[str, set[str]],
    overrides: Overrides,
) -> tuple[list[str], bool]:
    """Return a line per invalid setting, and whether all of these settings are from --set.

    Args:
        values: what was validated.
        section: section of the YAML that `values` are from.
        valid_names: unknown key -> keys that are valid in its place.
    """
    # A setting with several allowed types has an error for each of them; they share a line.
    messages: dict[tuple[str, str], list[str]] = {}
    for item in error.errors():
        key = ".".join(filter(None, [section, *_keys(values, item["loc"])])) or "the file"
        message = _message(item, valid_names)
        is_scalar = not isinstance(item["input"], dict | BaseModel)
        has_value = is_scalar and item["type"] not in ("extra_forbidden", "missing")
        is_quoted = repr(item["input"]) in message
        got = f" (got {item['input']!r})" if has_value and not is_quoted else ""
        messages.setdefault((key, got), []).append(message)
    lines = []
    n_from_set = 0
    for (key, got), texts in messages.items():
        is_from_set = any(f"{key}.".startswith(f"{name}.") for name in overrides.values)
        n_from_set += is_from_set
        lines.append(f"  {'--set ' if is_from_set else ''}{key}: {'; or: '.join(texts)}{got}")
    return lines, n_from_set == len(lines)


def _message(item: ErrorDetails, valid_names: Mapping[str, set[str]]) -> str:
    """Return what is wrong with one setting."""
    kind = item["type"]
    if kind == "extra_forbidden":
        name = str(item["loc"][-1])
        names = valid_names.get(name, set())
        close = get_close_matches(name, sorted(names), n=3) or sorted(names)
        return f"unknown key; try {', '.join(close)}" if close else "unknown key"
    if kind == "union_tag_invalid":
        allowed = item["ctx"]["expected_tags"].replace("'", "")
        return f"kind must be one of {allowed}; got {item['ctx']['tag']!r}"
    if kind == "union_tag_not_found":
        return "kind is missing"
    if kind in NO_MAPPING:
        return "must be a mapping (key: value)"
    return item["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def _keys(values: Any, location: tuple[int | str, ...]) -> list[str]:
    """Return the location of an error without what pydantic adds for unions: the kind or type."""
    keys = []
    for part in location:
        if isinstance(values, dict) and (part in values or part != values.get("kind")):
            keys.append(str(part))
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int):
            keys.append(str(part))
            values = values[part]
    return keys
