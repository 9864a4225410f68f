"""Settings of the whole YAML."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, model_validator

from competition.config import CompetitionConfig, read_yaml, validate
from competition.metrics import CLASS_TYPES
from core.errors import ConfigError
from core.overrides import NO_OVERRIDES, Overrides
from core.settings import StrictModel, parse_duration
from core.user_code import short_ref
from folds.kinds import FoldsConfig
from models.registry import Stages
from submissions.blend.candidates import CANDIDATES, LIGHTGBM_STACK
from submissions.blend.settings import DEFAULT_OF_CLASSES, DEFAULT_OF_NUMBERS, SubmissionsConfig

RESERVED_NAMES = ("submission", "submitted", "fold", "rows")
"""Names of columns of oof.csv and of the report next to those of stages."""


def _require_duration(text: str | int | float) -> str:
    try:
        parse_duration(str(text))
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return str(text)


class Config(StrictModel):
    """One YAML: `competition:`, `folds:`, `stages:`, `submissions:`, and a time for all of it."""

    competition: CompetitionConfig
    folds: FoldsConfig = FoldsConfig()
    stages: Stages
    submissions: SubmissionsConfig = SubmissionsConfig()
    budget: Annotated[str, BeforeValidator(_require_duration)] | None = None
    """Time that `./run.sh full` may take, such as 5m; --budget replaces it, and --budget none lifts it."""

    @property
    def default_blend(self) -> str:
        """The blend that is submitted unless another one is better."""
        return self.submissions.default_blend(self.competition.problem_type)

    @property
    def blends(self) -> list[str]:
        """The default blend and the candidates of the YAML."""
        return self.submissions.blends(self.competition.problem_type)

    @model_validator(mode="after")
    def _check_blends(self) -> Self:
        problem_type = self.competition.problem_type
        unfit = DEFAULT_OF_NUMBERS if problem_type in CLASS_TYPES else DEFAULT_OF_CLASSES
        names = [short_ref(code_ref) for code_ref in {*self.blends}]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        taken = sorted({*self.stages} & {*CANDIDATES, LIGHTGBM_STACK, *names, *RESERVED_NAMES})
        errors = []
        if taken:
            errors.append(
                f"stages: {', '.join(taken)} is the name of a blend or of a column of the report; rename the stage"
            )
        if unfit in self.blends:
            errors.append(f"submissions: {unfit} is not for problem_type {problem_type}; remove it")
        if duplicates:
            errors.append(
                f"submissions: {', '.join(duplicates)} is in two files; rename one of the functions"
            )
        if errors:
            raise ValueError("\n".join(errors))
        return self


def load_config(name: str, overrides: Overrides = NO_OVERRIDES) -> Config:
    """Return the whole YAML of a competition; a ConfigError has all errors of all sections."""
    path, document = read_yaml(name, overrides)
    return validate(Config, document, path, overrides=overrides)


def rewrite_paths(settings: Any, place: Callable[[Path], str]) -> Any:
    """Return settings with each path, also that in file.py:name, replaced by `place(path)`."""
    text = json.dumps(settings, default=place, ensure_ascii=False)
    return json.loads(re.sub(r'(?<=")/[^"]+\.py(?=:\w+")', lambda match: place(Path(match[0])), text))
