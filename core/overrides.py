"""Replacements of settings, `--set` and `--stages`, and the errors of settings as text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from core.errors import ConfigError
from core.settings import nearest
from core.yaml_files import parse_yaml

TABLES = ("competition.train", "competition.test", "competition.sample_submission", "competition.answers")
"""Settings that `--holdout` writes anew."""


@dataclass(frozen=True)
class Overrides:
    """Replacements of settings, made before the YAML is validated.

    Attributes:
        values: dotted path of a setting, such as "stages.gnn.epochs" -> value.
        stages: names of the stages to keep, in this order; empty for all.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[str, ...] = ()

    def apply(self, document: dict[str, Any], path: Path) -> None:
        """Replace the settings in a YAML document.

        Args:
            document: sections of the YAML; changed in place.
            path: file of the YAML, for errors.

        Raises:
            ConfigError: if a stage does not exist, or if a path leads through something that is not a
                mapping.
        """
        for key, value in self.values.items():
            _replace(document, key, value, path)
        if self.stages:
            stages = _mapping(document, "stages", "stages", path)
            for name in self.stages:
                _require_stage(stages, name, "--stages", path)
            document["stages"] = {name: stages[name] for name in self.stages}

    def __str__(self) -> str:
        parts = [f"{key}={value}" for key, value in self.values.items()]
        if self.stages:
            parts.append(f"stages {', '.join(self.stages)}")
        return ", ".join(parts)

    @property
    def tables(self) -> list[str]:
        """Keys of the replaced tables of the competition."""
        return [key for key in self.values if key in TABLES]


NO_OVERRIDES = Overrides()


def parse_setting(text: str) -> tuple[str, Any]:
    """Return the dotted path and the value of `--set KEY=VALUE`; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set takes KEY=VALUE, such as stages.gnn.epochs=100; got {text!r}.")
    return key, parse_yaml(f"value: {value}", Path(f"--set {text}"))["value"]


def parse_stages(text: str) -> tuple[str, ...]:
    """Return the names of `--stages gnn,lightgbm`."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise ConfigError(f"--stages takes names of stages, such as gnn,lightgbm; got {text!r}.")
    return names


def _replace(document: dict[str, Any], key: str, value: Any, path: Path) -> None:
    """Replace one setting; sections and mappings that the YAML leaves out are added, stages are not."""
    *parents, last = key.split(".")
    settings = document
    for n, name in enumerate(parents):
        if parents[:n] == ["stages"]:
            _require_stage(settings, name, f"--set {key}", path)
        settings = _mapping(settings, name, ".".join(parents[: n + 1]), path)
    settings[last] = value


def _mapping(parent: dict[str, Any], name: str, key: str, path: Path) -> dict[str, Any]:
    """Return the mapping below a key, empty if it is missing."""
    if parent.get(name) is None:
        parent[name] = {}
    if not isinstance(parent[name], dict):
        raise ConfigError(f"{key} of {path} is {parent[name]!r} and has no settings below it.")
    child: dict[str, Any] = parent[name]
    return child


def _require_stage(stages: dict[str, Any], name: str, option: str, path: Path) -> None:
    if name not in stages:
        advice = f"--set 'stages.{name}={{kind: ...}}' adds one."
        raise ConfigError(f"{option}: {path} has no stage {name!r}; it has {', '.join(stages)}. {advice}")


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
    items = [
        (".".join(filter(None, [section, *_keys(values, item["loc"])])) or "the file", item)
        for item in error.errors()
    ]
    for key, item in items:
        message = _message(item, valid_names)
        is_scalar = not isinstance(item["input"], dict | BaseModel)
        # A text is allowed in place of this mapping, but the errors inside of it say more.
        if not is_scalar and any(other.startswith(f"{key}.") for other, _ in items):
            continue
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
        close = nearest(name, valid_names.get(name, set()))
        return f"unknown key; try {close}" if close else "unknown key"
    if kind == "union_tag_invalid":
        allowed = item["ctx"]["expected_tags"].replace("'", "")
        return f"kind must be one of {allowed}; got {item['ctx']['tag']!r}"
    if kind == "union_tag_not_found":
        return "kind is missing"
    if kind in NO_MAPPING:
        return "must be a mapping (key: value)"
    return item["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def _keys(values: Any, location: tuple[int | str, ...]) -> list[str]:
    """Return the location of an error as keys of the YAML.

    What pydantic adds for unions is left out: the kind or type, such as `list[str]`.
    """
    keys = []
    for part in location:
        if isinstance(values, dict) and (
            part in values or not (part == values.get("kind") or "[" in str(part))
        ):
            keys.append(str(part))
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int):
            keys.append(str(part))
            values = values[part]
    return keys
