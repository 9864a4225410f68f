"""Settings of the `submissions:` section, and of the whole YAML."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from competition.config import CompetitionConfig, read_yaml, validate
from competition.durations import parse_duration
from competition.errors import ConfigError
from competition.metrics import CLASS_TYPES, get_metric
from competition.overrides import NO_OVERRIDES, Overrides
from competition.strict_model import StrictModel, UniqueList, UserCodeRef
from competition.user_code import short_ref
from folds.config import FoldsConfig
from models.config import Stages
from submissions.blend.candidates import CANDIDATES, CLASSIFICATION_CANDIDATES, REGRESSION_CANDIDATES
from submissions.blend.postprocess import STEPS

Blend = Literal[*CANDIDATES] | UserCodeRef  # type: ignore[valid-type]
Step = Literal[*STEPS, "known_labels"] | UserCodeRef  # type: ignore[valid-type]


class SubmissionsConfig(StrictModel):
    """Settings of the `submissions:` section."""

    default: Blend | None = None
    """The blend that is submitted unless another candidate is better by more than `margin` standard errors
    and by a thousandth of the default's gain over a constant. Unset: shrunk_ridge, or shrunk_logits for
    classification.
    """
    candidates: Annotated[list[Blend], UniqueList] = []
    """Blends to compare with the default, in addition to the standard ones (`ALWAYS_REGRESSION` and
    `ALWAYS_CLASSIFICATION` in `submissions/blend/candidates.py`, which documents user-defined ones,
    `file.py:function`).
    """
    weights: Literal["per_target", "shared"] = "per_target"
    """shared: one vector of weights for all targets, fitted on standardised labels."""
    seeds: Literal["averaged", "separate"] = "averaged"
    """Whether the seeds of a stage are one column, their mean, or a column each (`stage:seed`)."""
    margin: float = Field(default=2.0, ge=0)
    """Standard errors of the paired difference by which another candidate must be better."""
    trials: int = Field(default=40, ge=2)
    """Trials of Optuna on the shrinkage of the default."""
    weight_trials: int = Field(default=100, ge=2)
    """Trials of Optuna on the weights themselves (candidate optuna)."""
    bootstrap: int = Field(default=1000, ge=100)
    """Resamples of the paired bootstrap; a tenth, but at least 100, for metrics that are not sums over rows,
    such as AUC.
    """
    stack: bool = True
    """Whether the stack is a candidate: small trees on the residual of the default blend."""
    postprocess: Annotated[list[Step], UniqueList] | None = None
    """Post-processing steps of the chosen candidate, in this order, with four folds or more. A step is used
    for a target if it gains more than `margin` standard errors out of fold. Unset: clip, for regression.
    `file.py:function` is a user-defined step (`submissions/blend/postprocess.py`). known_labels (a test row
    with the inputs of a training row gets its mean label) cannot be scored: it is always used if it is
    listed, and comes last.
    """


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
        is_classification = self.competition.problem_type in CLASS_TYPES
        return self.submissions.default or ("shrunk_logits" if is_classification else "shrunk_ridge")

    @property
    def blends(self) -> list[str]:
        """The default blend and the candidates of the YAML."""
        return [self.default_blend, *self.submissions.candidates]

    @property
    def postprocess(self) -> list[str]:
        """The post-processing steps of the YAML, or the default ones."""
        if self.submissions.postprocess is not None:
            return list(self.submissions.postprocess)
        is_regression = self.competition.problem_type not in CLASS_TYPES
        return ["clip"] if is_regression and not self.competition.scores_labels else []

    @model_validator(mode="after")
    def _check_submissions(self) -> Self:
        errors = [*self._blend_errors(), *self._postprocess_errors(), *self._duplicate_errors()]
        if errors:
            raise ValueError("\n".join(errors))
        return self

    def _blend_errors(self) -> Iterator[str]:
        competition = self.competition
        metric = get_metric(competition.metric)
        is_classification = competition.problem_type in CLASS_TYPES
        allowed = {*(CLASSIFICATION_CANDIDATES if is_classification else REGRESSION_CANDIDATES)}
        is_rank_metric = metric is not None and metric.kind == "ranks"
        if is_classification and (competition.problem_type == "multiclass" or not is_rank_metric):
            allowed -= {"mean_of_ranks"}
        others = [name for name in self.blends if name in CANDIDATES and name not in allowed]
        if others:
            yield (
                f"submissions: {', '.join(others)} is not for problem_type {competition.problem_type} with the "
                f"metric {competition.metric}; allowed: {', '.join(sorted(allowed))}"
            )

    def _postprocess_errors(self) -> Iterator[str]:
        competition = self.competition
        is_classification = competition.problem_type in CLASS_TYPES
        if competition.scores_labels:
            what = "labels"
        elif competition.problem_type == "multiclass":
            what = "probabilities of several classes"
        else:
            what = "probabilities"
        impossible = []
        for step in self.submissions.postprocess or []:
            is_only_regression = is_classification and step in STEPS
            if step != "known_labels" and (what != "probabilities" or is_only_regression):
                impossible.append(step)
        if impossible:
            steps = ", ".join(map(short_ref, impossible))
            yield f"submissions.postprocess: {steps} is not for {what}; remove it"

    def _duplicate_errors(self) -> Iterator[str]:
        for code_refs in (self.blends, self.postprocess):
            names = [short_ref(code_ref) for code_ref in {*code_refs}]
            duplicates = sorted({name for name in names if names.count(name) > 1})
            if duplicates:
                yield f"submissions: {', '.join(duplicates)} is in two files; rename one of the functions"


def load_config(name: str, overrides: Overrides = NO_OVERRIDES) -> Config:
    """Return the whole YAML of a competition; a ConfigError has all errors of all sections."""
    path, document = read_yaml(name, overrides)
    return validate(Config, document, path, overrides=overrides)


def rewrite_paths(settings: Any, place: Callable[[Path], str]) -> Any:
    """Return settings with each path, also that in file.py:name, replaced by `place(path)`."""
    text = json.dumps(settings, default=place, ensure_ascii=False)
    return json.loads(re.sub(r'(?<=")/[^"]+\.py(?=:\w+")', lambda match: place(Path(match[0])), text))
