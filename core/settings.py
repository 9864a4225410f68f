"""Settings: the base class of all sections of a YAML, `--set`, durations, and the errors of settings as text."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ValidationError, ValidationInfo, model_validator
from pydantic_core import ErrorDetails

from core.errors import ConfigError
from core.yaml_files import parse_yaml

TRACKER_VARIABLE = "LOSS_TRACKER"
"""Environment variable with the tracker of losses."""


class StrictModel(BaseModel):
    """Base class of all settings: they are read-only, and an unknown key is an error."""

    model_config = {"extra": "forbid", "frozen": True, "allow_inf_nan": False}

    @model_validator(mode="before")
    @classmethod
    def _record_valid_names(cls, values: Any, info: ValidationInfo) -> Any:
        """Record the names that would be valid in the place of an unknown key, for the message about it."""
        if isinstance(values, dict) and info.context:
            for name in values.keys() - cls.model_fields.keys():
                info.context["valid_names"].setdefault(name, set()).update(cls.model_fields)
        return values


def _absolute_path(file: Path, info: ValidationInfo) -> Path:
    return (info.context["folder"] / file).resolve() if info.context else file


def absolute_code_ref(code_ref: str, info: ValidationInfo) -> str:
    """Return `file.py:name` with an absolute path."""
    file, _, name = code_ref.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise ValueError("must be file.py:name")
    return f"{_absolute_path(Path(file), info)}:{name}"


def _require_unique(values: list[Any]) -> list[Any]:
    duplicates = [value for value in values if values.count(value) > 1]
    if duplicates:
        raise ValueError(f"must not have duplicates; got {duplicates[0]} twice")
    return values


UserPath = Annotated[Path, AfterValidator(_absolute_path)]
"""File or folder, relative to the folder of the YAML; `competition.config.validate` makes it absolute."""
UserCodeRef = Annotated[str, AfterValidator(absolute_code_ref)]
"""`file.py:name`, a user-defined function or class that `core.user_code` loads; absolute like `UserPath`."""
UniqueList = AfterValidator(_require_unique)
"""Annotation of lists without duplicates."""


def parse_duration(text: str) -> float:
    """Return the seconds of a time above 0 such as `2h`, `90m`, `30s` or `30`."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([hms]?)", text.strip())
    seconds = float(match[1]) * {"h": 3600, "m": 60}.get(match[2], 1) if match else 0.0
    if seconds <= 0:
        raise ConfigError(f"a time is a number above 0 such as 2h, 90m, 30s or 30; got {text!r}.")
    return seconds


TABLES = ("competition.train", "competition.test", "competition.sample_submission", "competition.answers")
"""Settings that `--holdout` writes anew."""


@dataclass(frozen=True)
class Overrides:
    """Replacements of settings, made before the YAML is validated.

    Attributes:
        values: dotted path of a setting, such as "stages.gnn.epochs" -> value.
        stages: names of the stages to keep; empty for all.
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
            document["stages"] = {name: stage for name, stage in stages.items() if name in self.stages}

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


def nearest(name: str, valid_names: Collection[str]) -> str:
    """Return the valid names that are most like a name, for a message; all of them if none is."""
    ordered = sorted(valid_names)
    return ", ".join(get_close_matches(name, ordered, n=3) or ordered)


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
