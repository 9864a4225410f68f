"""Last steps on the predictions of the chosen candidate, each kept for a target only where it clearly helps.

A step is one function, `fit(y_pred, y) -> step`, of predictions that were made without each row's fold and of labels,
(n_rows,) each and none missing; None where it has no use. What it returns is a dataclass of numbers, texts and arrays
with `predict(y_pred)`. One of your own is named `mine.py:fit` in the YAML.

The rows of a fold are corrected by steps that were fitted on the other folds, the steps before it included. A step is
kept if the score so found is better by more than `margin` standard errors of the paired difference, as a candidate has
to be. Fitting, choice and use see the rows they are given and no other.
"""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.types import Array
from competition.user_code import load_user_code, short_ref, user_code_errors
from submissions.blend.cross_fitting import SelectionRule, apply_rule, compare_to_default
from submissions.blend.serialization import Predictor, from_json, require_predictions, serializable, to_json


@serializable
@dataclass(frozen=True)
class Clip:
    """Predictions cut to the range of the labels."""

    low: float
    high: float

    def predict(self, y_pred: Array) -> Array:
        """See `Predictor`."""
        return np.clip(y_pred, self.low, self.high)


def _clip(y_pred: Array, y: Array) -> Clip:
    return Clip(y.min(), y.max())


STEPS: dict[str, Callable[[Array, Array], Predictor | None]] = {"clip": _clip}
"""Steps by their name in the YAML; of numbers alone."""


def fit_step(named: str, y_pred: Array, y: Array) -> Predictor | None:
    """A step of the YAML, fitted; ConfigError if it is the user's own and does not do what a step does."""
    if named in STEPS:
        return STEPS[named](y_pred, y)
    function = load_user_code("submissions.postprocess", named, "fit(y_pred, y)")
    with user_code_errors(named, "return None or a dataclass with predict(y_pred)"):
        step: Predictor | None = function(y_pred.copy(), y)
        if step is not None:
            if not is_dataclass(type(step)):
                raise TypeError(f"it returns {step!r:.60}")
            require_predictions(step.predict(y_pred[:3]), y_pred[:3].shape)
        return step


def fit_steps(names: list[str], y_pred: Array, y: Array) -> dict[str, Predictor]:
    """Steps of one target, in order, each fitted on what those before it make of the rows that have a label."""
    known, steps = ~np.isnan(y), dict[str, Predictor]()
    for name in names if known.any() else []:
        if step := fit_step(name, apply_steps(steps, y_pred[known]), y[known]):
            steps[name] = step
    return steps


def apply_steps(steps: dict[str, Predictor], y_pred: Array) -> Array:
    """Predictions (n_rows,) of one target after fitted steps."""
    for step in steps.values():
        y_pred = step.predict(y_pred)
    return y_pred


def apply_all(steps: list[dict[str, Predictor]], y_pred: Array) -> Array:
    """Predictions (n_rows, n_outputs) after the fitted steps of each target; none of a target with several outputs."""
    y_pred = y_pred.copy()
    for t, of_target in enumerate(steps):
        y_pred[:, t] = apply_steps(of_target, y_pred[:, t])
    return y_pred


@dataclass(frozen=True)
class StepResult:
    """A step of one target.

    score_without, score_with: of the target, by folds; for a metric of the user's own, of all targets.
    standard_error: of their paired difference; NaN where the step gains nothing.
    fitted: where it is kept and has a use.
    """

    step: str
    kept: bool
    score_without: float
    score_with: float
    standard_error: float
    fitted: Predictor | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "step": short_ref(self.step), "fitted": to_json(self.fitted)}


def saved_steps(tried: list[dict[str, Any]], named: dict[str, str]) -> dict[str, Predictor]:
    """The fitted ones of what `Tried.stored` gave, in order; `named` has the steps of the YAML by their labels."""
    return {each["step"]: from_json(each["fitted"], named[each["step"]]) for each in tried if each["fitted"]}


@dataclass(frozen=True)
class PostprocessChain:
    """The steps of all targets, each tried in turn.

    cross_fitted: (n_rows, n_outputs), each row after steps that were fitted without its fold; NaN where none was tried.
    """

    results: list[list[StepResult]]
    cross_fitted: Array

    @property
    def fitted(self) -> list[dict[str, Predictor]]:
        """The fitted steps of each target that were kept, in order."""
        return [{each.step: each.fitted for each in of_target if each.fitted} for of_target in self.results]

    def apply(self, y_pred: Array) -> Array:
        """Predictions (n_rows, n_outputs) after the steps that were kept."""
        return apply_all(self.fitted, y_pred)


def choose_steps(rule: SelectionRule, names: list[str], y_pred: Array, which: NDArray[np.bool_]) -> PostprocessChain:
    """Try steps on the rows `which`, in order, and fit those that are kept on all of them; no other label is read.

    `y_pred`, (n_rows, n_outputs), are predictions that were made without each row's fold.
    """
    y_pred, chain = np.where(which[:, None], y_pred, np.nan), []
    for t, y in enumerate(rule.y.T):
        before, kept, tried = y_pred[:, t].copy(), list[str](), list[StepResult]()
        judged = slice(t, t + 1) if rule.metric.column_score else slice(None)
        paired = replace(rule, y=rule.y[:, judged], default="without")
        for name in names:
            after = y_pred.copy()
            for fold in np.unique(rule.folds[which]):
                own, others = which & (rule.folds == fold), which & (rule.folds != fold)
                after[own, t] = apply_steps(fit_steps([*kept, name], before[others], y[others]), before[own])
            tried.append(_judged(paired, name, y_pred[:, judged], after[:, judged], which))
            if tried[-1].kept:
                kept, y_pred = [*kept, name], after
        fitted = fit_steps(kept, before[which], y[which])
        chain.append([replace(each, fitted=fitted.get(each.step)) for each in tried])
    return PostprocessChain(chain, y_pred)


def _judged(rule: SelectionRule, name: str, before: Array, after: Array, which: NDArray[np.bool_]) -> StepResult:
    """Whether a step is kept, by predictions without and with it."""
    without, with_step = (rule.metric(rule.y[which], y_pred[which]) for y_pred in (before, after))
    if not rule.metric.better(with_step, without):  # as an rmsle of predictions below -1, which is defined when clipped
        return StepResult(name, bool(np.isnan(without) and np.isfinite(with_step)), without, with_step, float("nan"))
    compared = compare_to_default(rule, {"without": before, "with": after}, which)
    kept = apply_rule(rule, compared, which)[0] == "with"
    return StepResult(name, kept, without, with_step, compared["with"].standard_error)
