"""Settings of a YAML that the command line replaces: `--set stages.gnn.epochs=100`, `--stages gnn,lightgbm`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from competition.errors import ConfigError
from competition.yaml_files import parse_yaml

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
            ConfigError: if a stage does not exist, or if a path leads through something that is not a mapping.
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
        raise ConfigError(f"{option}: {path} has no stage {name!r}; it has {', '.join(stages)}.")
