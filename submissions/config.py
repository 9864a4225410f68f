"""The `submissions:` section, and the whole YAML: all four sections checked together."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from competition.config import CompetitionConfig, StrictModel, UniqueList, UserCodeRef, read_yaml, validate
from competition.durations import parse_duration
from competition.errors import ConfigError
from competition.metrics import CLASS_TYPES, get_metric
from competition.overrides import NO_OVERRIDES, Overrides
from competition.user_code import short_ref
from folds.config import FoldsConfig
from models.config import Stages
from submissions.blend.candidates import CANDIDATES, CLASS_CANDIDATES, REGRESSION_CANDIDATES
from submissions.blend.postprocess import STEPS

Blend = Literal[*CANDIDATES] | UserCodeRef  # type: ignore[valid-type]
Step = Literal[*STEPS, "known_labels"] | UserCodeRef  # type: ignore[valid-type]


class SubmissionsConfig(StrictModel):
    """How columns of predictions become one file."""

    default: Blend | None = None
    """The blend that is submitted unless another candidate is better by more than `margin` standard errors
    and by a
    thousandth of what this one is better than a constant. Unset: shrunk_ridge, or shrunk_logits for classes.
    """
    candidates: Annotated[list[Blend], UniqueList] = []
    """More blends to compare with the default, beside those that always are (`ALWAYS` in
    `submissions/blend/candidates.py`, which says what `file.py:function`, one of your own, has to be)."""
    weights: Literal["per_target", "shared"] = "per_target"
    """shared: one vector of weights for all targets, fitted on their labels in units of each target's spread.
    """
    seeds: Literal["averaged", "separate"] = "averaged"
    """Whether the seeds of a stage are one column, their mean, or a column each (`stage:seed`)."""
    margin: float = Field(default=2.0, ge=0)
    """Standard errors of the paired difference by which another candidate has to be better."""
    trials: int = Field(default=40, ge=2)
    """Trials of Optuna on the shrinkage of the default."""
    weight_trials: int = Field(default=100, ge=2)
    """Trials of Optuna on the weights themselves (candidate optuna)."""
    bootstrap: int = Field(default=1000, ge=100)
    """Draws of the paired bootstrap; a tenth, but 100 or more, for metrics that are not sums over rows, such
    as AUC.
    """
    stack: bool = True
    """Whether the stack is a candidate: small trees on what the default blend leaves."""
    postprocess: Annotated[list[Step], UniqueList] | None = None
    """Steps on the chosen candidate's predictions, in this order, with four folds or more; each is kept for a
    target
    where it gains out of fold by more than `margin` standard errors. Unset: clip, of numbers.
    `file.py:function` is one of your own (`submissions/blend/postprocess.py`). known_labels (a test row whose
    input is in the training table gets its mean label there) cannot be scored: it is kept where it is named,
    and comes last.
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
        """The blend that stands unless another is better."""
        of_classes = self.competition.problem_type in CLASS_TYPES
        return self.submissions.default or ("shrunk_logits" if of_classes else "shrunk_ridge")

    @property
    def blends(self) -> list[str]:
        """The default and the candidates that the YAML names."""
        return [self.default_blend, *self.submissions.candidates]

    @property
    def postprocess(self) -> list[str]:
        """The post-processing steps: those of the YAML, or the usual one of numbers."""
        of_numbers = self.competition.problem_type not in CLASS_TYPES and not self.competition.scores_labels
        return (
            ["clip"] * of_numbers
            if self.submissions.postprocess is None
            else list(self.submissions.postprocess)
        )

    @model_validator(mode="after")
    def _submissions_fit_the_competition(self) -> Self:
        inputs, own, metric = self.competition, self.submissions, get_metric(self.competition.metric)
        of_classes, one_output = inputs.problem_type in CLASS_TYPES, inputs.problem_type != "multiclass"
        blends = {*(CLASS_CANDIDATES if of_classes else REGRESSION_CANDIDATES)}
        if of_classes and not (one_output and metric and metric.kind == "ranks"):
            blends -= {"mean_of_ranks"}
        others = [name for name in self.blends if name in CANDIDATES and name not in blends]
        steps = [step for step in own.postprocess or [] if step != "known_labels"]
        senseless = [
            step for step in steps if inputs.scores_labels or not one_output or (of_classes and step in STEPS)
        ]
        what = (
            "labels"
            if inputs.scores_labels
            else "probabilities"
            if one_output
            else "probabilities of several classes"
        )
        mistakes = {
            f"submissions names {', '.join(others)}, which is not for problem_type {inputs.problem_type} "
            f"with the "
            f"metric {inputs.metric}; there are {', '.join(sorted(blends))}": others,
            (
                f"submissions.postprocess: {', '.join(map(short_ref, senseless))} is not for {what}; "
                f"leave it out"
            ): senseless,
        }
        for named in (self.blends, self.postprocess):
            labels = [short_ref(name) for name in {*named}]
            twice = sorted({each for each in labels if labels.count(each) > 1})
            mistakes[f"submissions names {', '.join(twice)} of two files; rename one of the functions"] = (
                twice
            )
        if found := [words for words, holds in mistakes.items() if holds]:
            raise ValueError("\n".join(found))
        return self


def load_config(name: str, overrides: Overrides = NO_OVERRIDES) -> Config:
    """The whole YAML of a competition; a ConfigError names every mistake of every section at once."""
    path, document = read_yaml(name, overrides)
    return validate(Config, document, path)


def rewrite_paths(settings: Any, place: Callable[[Path], str]) -> Any:
    """Settings with each path, also that of file.py:name, replaced by what `place` says of it."""
    text = json.dumps(settings, default=place, ensure_ascii=False)
    return json.loads(re.sub(r'(?<=")/[^"]+\.py(?=:\w+")', lambda named: place(Path(named[0])), text))
