"""Post-processing of the chosen candidate, by steps that are used for a target only if they clearly
help.

A step is a function `fit(y_pred, y) -> step`. It gets predictions made without each row's fold and
labels, (n_rows,) each and without missing values, and returns a dataclass of numbers, strings and
arrays with a method `predict(y_pred)`, or None if it does not apply. A user-defined step is written in
the YAML as `mine.py:fit`.

The rows of a fold are corrected by steps that were fitted on the other folds, including all steps
before it. A step is used if the score of these rows improves by more than `margin` standard errors of
the paired difference, as for a candidate. Fitting, selection and application only use the rows that
they are given.
"""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np

from competition.types import Array
from competition.user_code import load_user_code, short_ref, user_code_errors
from submissions.blend.selection_rule import SelectionRule, apply_rule, compare_to_default
from submissions.blend.serialization import Predictor, from_json, require_predictions, serializable, to_json


@serializable
@dataclass(frozen=True)
class Clip:
    """Clips predictions to the range of the labels."""

    low: float
    high: float

    def predict(self, y_pred: Array) -> Array:
        """Return the predictions of one target, (n_rows,), clipped."""
        return np.clip(y_pred, self.low, self.high)


def _clip(y_pred: Array, y: Array) -> Clip:
    return Clip(y.min(), y.max())


STEPS: dict[str, Callable[[Array, Array], Predictor | None]] = {"clip": _clip}
"""Steps by their names in the YAML, for regression only."""


def fit_step(code_ref: str, y_pred: Array, y: Array) -> Predictor | None:
    """Fit a step of the YAML on labelled rows, (n_rows,) each.

    Raises:
        ConfigError: a user-defined step does not do what a step has to do.
    """
    if code_ref in STEPS:
        return STEPS[code_ref](y_pred, y)
    function = load_user_code("submissions.postprocess", code_ref, "fit(y_pred, y)")
    with user_code_errors(code_ref, "return None or a dataclass with predict(y_pred)"):
        step: Predictor | None = function(y_pred.copy(), y)
        if step is not None:
            if not is_dataclass(type(step)):
                raise TypeError(f"got {step!r:.60}")
            require_predictions(step.predict(y_pred[:3]), y_pred[:3].shape)
        return step


def fit_steps(code_refs: list[str], y_pred: Array, y: Array) -> dict[str, Predictor]:
    """Fit the steps of one target on the rows with a label, each on the output of the steps before it."""
    is_labelled = ~np.isnan(y)
    steps: dict[str, Predictor] = {}
    if not is_labelled.any():
        return steps
    for code_ref in code_refs:
        step = fit_step(code_ref, apply_steps(steps, y_pred[is_labelled]), y[is_labelled])
        if step:
            steps[code_ref] = step
    return steps


def apply_steps(steps: dict[str, Predictor], y_pred: Array) -> Array:
    """Return predictions (n_rows,) of one target after fitted steps."""
    for step in steps.values():
        y_pred = step.predict(y_pred)
    return y_pred


def apply_all(steps: list[dict[str, Predictor]], y_pred: Array) -> Array:
    """Return predictions (n_rows, n_outputs) after the fitted steps of each target.

    Multiclass predictions, which have several outputs for their target, never have steps.
    """
    y_pred = y_pred.copy()
    for target, target_steps in enumerate(steps):
        y_pred[:, target] = apply_steps(target_steps, y_pred[:, target])
    return y_pred


@dataclass(frozen=True)
class StepResult:
    """Test of one step on one target.

    Attributes:
        step: name of the step in the YAML.
        kept: whether the step is used.
        score_without: cross-fitted score of the target without the step; of all targets for a
            user-defined metric.
        score_with: cross-fitted score with the step.
        standard_error: standard error of their paired difference; NaN if the step does not improve the
            score.
        fitted: the fitted step if it is used and applies.
    """

    step: str
    kept: bool
    score_without: float
    score_with: float
    standard_error: float
    fitted: Predictor | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return {**vars(self), "step": short_ref(self.step), "fitted": to_json(self.fitted)}


def saved_steps(results: list[dict[str, Any]], code_refs: dict[str, str]) -> dict[str, Predictor]:
    """Restore the fitted steps of one target, in order.

    Args:
        results: outputs of `StepResult.to_dict`.
        code_refs: short names of the steps -> names in the YAML.
    """
    steps = {}
    for result in results:
        if result["fitted"]:
            steps[result["step"]] = from_json(result["fitted"], code_refs[result["step"]])
    return steps


@dataclass(frozen=True)
class PostprocessChain:
    """The steps of all targets.

    Attributes:
        results: for each target, the tests of its steps in order.
        cross_fitted: (n_rows, n_outputs), each row after steps fitted without its fold; NaN for rows
            without a fold.
    """

    results: list[list[StepResult]]
    cross_fitted: Array

    @property
    def fitted(self) -> list[dict[str, Predictor]]:
        """For each target, the fitted steps that are used, in order."""
        return [
            {result.step: result.fitted for result in results if result.fitted} for results in self.results
        ]

    def apply(self, y_pred: Array) -> Array:
        """Return predictions (n_rows, n_outputs) after the steps that are used."""
        return apply_all(self.fitted, y_pred)


def choose_steps(rule: SelectionRule, code_refs: list[str], y_pred: Array) -> PostprocessChain:
    """Test steps in order on the rows of the rule, and fit those that are used on all of these rows.

    Args:
        rule: its default and the rows without a fold have no influence.
        y_pred: (n_rows, n_outputs), each row predicted without its fold.
    """
    y_pred = np.where(rule.has_fold[:, None], y_pred, np.nan)
    results = []
    for target, y in enumerate(rule.y.T):
        target_pred = y_pred[:, target].copy()
        target_results = []
        selected: list[str] = []
        scored_columns = slice(target, target + 1) if rule.metric.column_score else slice(None)
        target_rule = replace(rule, y=rule.y[:, scored_columns], default="without")
        for code_ref in code_refs:
            y_with = y_pred.copy()
            y_with[:, target] = _apply_cross_fitted(rule, [*selected, code_ref], target_pred, y)
            result = _test_step(target_rule, code_ref, y_pred[:, scored_columns], y_with[:, scored_columns])
            target_results.append(result)
            if result.kept:
                selected.append(code_ref)
                y_pred = y_with
        fitted = fit_steps(selected, target_pred[rule.has_fold], y[rule.has_fold])
        results.append([replace(result, fitted=fitted.get(result.step)) for result in target_results])
    return PostprocessChain(results, y_pred)


def _apply_cross_fitted(rule: SelectionRule, code_refs: list[str], y_pred: Array, y: Array) -> Array:
    """Return predictions (n_rows,) of one target, each row after steps fitted on the other folds."""
    corrected = y_pred.copy()
    for fold in np.unique(rule.folds[rule.has_fold]):
        in_fold = rule.folds == fold
        other_folds = rule.has_fold & ~in_fold
        steps = fit_steps(code_refs, y_pred[other_folds], y[other_folds])
        corrected[in_fold] = apply_steps(steps, y_pred[in_fold])
    return corrected


def _test_step(rule: SelectionRule, code_ref: str, y_without: Array, y_with: Array) -> StepResult:
    """Return whether a step is used, from predictions (n_rows, n_outputs) without and with it."""
    score_without = rule.score(y_without)
    score_with = rule.score(y_with)
    standard_error = float("nan")
    if rule.metric.better(score_with, score_without):
        comparisons = compare_to_default(rule, {"without": y_without, "with": y_with})
        chosen, _ = apply_rule(rule, comparisons)
        is_used = chosen == "with"
        standard_error = comparisons["with"].standard_error
    else:
        # A step may make the score defined: rmsle is NaN for predictions below -1 until they are clipped.
        is_used = bool(np.isnan(score_without) and np.isfinite(score_with))
    return StepResult(code_ref, is_used, score_without, score_with, standard_error)
