"""The `submissions:` section, and the whole YAML: all four sections checked together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from competition.config import CompetitionConfig, StrictModel, absolute_paths, find_config, load_yaml, validate
from folds.config import FoldsConfig
from models.config import StageConfig, require_sources, stages_section

Candidate = Literal["best_single", "mean", "convex", "shrunk_ridge", "lightgbm_stack"]


class SubmissionsConfig(StrictModel):
    """How columns of predictions become one file."""

    default: Literal["best_single", "mean", "convex", "shrunk_ridge"] = "shrunk_ridge"
    """The blend that is submitted unless another candidate is better by more than `margin` standard errors."""
    margin: float = Field(default=1.0, ge=0)
    """Standard errors of the paired difference by which another candidate has to be better."""
    trials: int = Field(default=40, ge=2)
    """Trials of Optuna on the two shrinkage numbers of the shrunk ridge."""
    bootstrap: int = Field(default=1000, ge=100)
    """Draws of the paired bootstrap."""
    stack: bool = True
    """Whether the LightGBM stack is a candidate."""


class Config(StrictModel):
    """One YAML: `competition:`, `folds:`, `stages:`, `submissions:`."""

    competition: CompetitionConfig
    folds: FoldsConfig = FoldsConfig()
    stages: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")], StageConfig] = Field(min_length=1)
    submissions: SubmissionsConfig = SubmissionsConfig()


def load_config(name: str, seed: int | None = None) -> Config:
    """The whole YAML of a competition, with absolute paths.

    Raises:
        ConfigError: with every mistake of every section at once.
    """
    path = find_config(name)
    # A section of which every setting is a comment reads as None.
    document = {section: values for section, values in load_yaml(path).items() if values is not None}
    if "stages" in document:
        document["stages"] = stages_section(document, path)
    config = validate(Config, absolute_paths(document, path, seed), path)
    require_sources(dict(config.stages), path)
    return config
