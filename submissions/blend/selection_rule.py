"""The rule that selects one candidate: the default, unless another is better by a clear margin.

Candidates are compared by their cross-fitted scores. The score of the final submission repeats the
selection for each fold without the labels of that fold, so the selection itself is cross-fitted.

Some metrics score labels instead of probabilities or ordinal levels. A decision (thresholds, class
offsets or cut points) turns predictions into labels. It is fitted like the weights of a blend: on the
same rows for the in-sample score, and without the row's fold for all other scores.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.files import derive_seed
from competition.metrics import REGRESSION, Metric, take_rows
from competition.task import Task
from competition.types import Array, Integers
from submissions.blend.bootstrap import bootstrap_scores
from submissions.blend.candidates import Candidate
from submissions.blend.cross_fitting import CrossFitted, cross_fitted, nested_predictions
from submissions.blend.decision_rules import Decision, apply_decision, fit_decision
from submissions.blend.weight_problem import BlendData

MIN_GAIN_SHARE = 0.001
"""Smallest gain that justifies a switch, as a share of the default's gain over a constant prediction.
With many rows the standard error of a paired difference is so small that even useless gains would be
significant."""


@dataclass(frozen=True)
class SelectionRule:
    """The rule of selection with the training rows that it is applied to.

    Attributes:
        y: (n_rows, n_targets), NaN for missing labels.
        folds: (n_rows,); rows with fold -1 are ignored.
        groups: (n_rows,); rows of one group share a fold, and the bootstrap resamples them together.
        default: name of the default candidate.
        margin: standard errors of the paired difference by which another candidate has to be better.
        n_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        rows: n_rows rows of the raw table, for a metric that takes them; None for others.
    """

    metric: Metric
    task: Task
    y: Array
    folds: Integers
    groups: Integers
    default: str
    margin: float
    n_resamples: int
    seed: int
    rows: pd.DataFrame | None = None

    @property
    def has_fold(self) -> NDArray[np.bool_]:
        """Mask of the rows that the rule uses, (n_rows,)."""
        return self.folds >= 0

    @property
    def rows_with_fold(self) -> pd.DataFrame | None:
        """The part of `rows` that the rule uses."""
        return take_rows(self.rows, self.has_fold)

    def on_rows(self, mask: NDArray[np.bool_]) -> "SelectionRule":
        """Return the rule restricted to the rows in `mask`, (n_rows,); the other rows get fold -1."""
        return replace(self, folds=np.where(mask, self.folds, -1))

    def score(self, scored: Array) -> float:
        """Return the metric of labels or predictions (n_rows, n_scored) on the rows with a fold."""
        return self.metric(self.y[self.has_fold], scored[self.has_fold], self.rows_with_fold)

    def gain(self, difference: float) -> float:
        """Return a difference of scores with the sign turned so that positive is better."""
        return difference if self.metric.greater_is_better else -difference

    def fit_decision(self, y_pred: Array) -> Decision | None:
        """Fit a decision on predictions (n_rows, n_outputs); None if the metric scores predictions."""
        if not self.task.scores_labels:
            return None
        y = self.y[self.has_fold]
        return fit_decision(self.metric, self.task, y, y_pred[self.has_fold], self.rows_with_fold)

    def apply_cross_fitted_decisions(self, y_pred: Array, nested: Array | None = None) -> Array:
        """Return what the metric scores of cross-fitted predictions.

        For each fold a decision is fitted on the rows of the other folds and applied to the rows of the
        fold. If the metric scores predictions, they are returned unchanged.

        Args:
            y_pred: (n_rows, n_outputs), each row predicted without its fold.
            nested: for each fold, predictions made without that fold, (n_folds, n_rows, n_outputs), to fit
                its decision on; None to fit all decisions on `y_pred`.

        Returns:
            (n_rows, n_scored), NaN for rows without a fold.
        """
        scored = np.full((len(y_pred), len(self.task.scored_columns)), np.nan)
        for fold in np.unique(self.folds[self.has_fold]):
            in_fold = self.folds == fold
            decision = self.on_rows(~in_fold).fit_decision(y_pred if nested is None else nested[fold])
            scored[in_fold] = apply_decision(decision, y_pred[in_fold])
        return scored

    def as_scored(self, predictions: CrossFitted) -> CrossFitted:
        """Convert all predictions of a candidate to what the metric scores."""
        if not self.task.scores_labels:
            return predictions
        decision = self.fit_decision(predictions.in_sample)
        in_sample = np.full(self.y.shape, np.nan)
        in_sample[self.has_fold] = apply_decision(decision, predictions.in_sample[self.has_fold])
        nested = [
            self.on_rows(self.folds != fold).apply_cross_fitted_decisions(y_pred)
            for fold, y_pred in enumerate(predictions.nested)
        ]
        scored = self.apply_cross_fitted_decisions(predictions.cross_fitted, predictions.nested)
        return CrossFitted(in_sample, scored, np.stack(nested))


@dataclass(frozen=True)
class Comparison:
    """A candidate compared with the default, in the unit and direction of the metric.

    Attributes:
        cross_fitted_score: score of the candidate.
        difference: its score minus the score of the default; 0 for the default.
        standard_error: bootstrap standard error of the paired difference; 0 for the default.
    """

    cross_fitted_score: float
    difference: float
    standard_error: float


@dataclass(frozen=True)
class SelectionResult:
    """Outcome of the selection rule.

    Attributes:
        chosen: name of the selected candidate.
        reason: one sentence that explains the selection.
        comparisons: every candidate compared with the default.
        same_as_default: candidates that predict exactly what the default predicts. They cannot be
            selected.
    """

    chosen: str
    reason: str
    comparisons: dict[str, Comparison]
    same_as_default: list[str]


def cross_fitted_scored(rule: SelectionRule, candidate: Candidate, data: BlendData) -> Array:
    """Return what the metric scores of a candidate, cross-fitted, (n_rows, n_scored)."""
    y_pred = cross_fitted(candidate, data)
    nested = nested_predictions(candidate, data) if rule.task.scores_labels else None
    return rule.apply_cross_fitted_decisions(y_pred, nested)


def describe_scores(rule: SelectionRule, scored: CrossFitted) -> dict[str, Any]:
    """Return the scores of a candidate by name; `scored` comes from `SelectionRule.as_scored`."""
    scores = {
        "in_sample_score": rule.score(scored.in_sample),
        "cross_fitted_score": rule.score(scored.cross_fitted),
    }
    return scores | mean_over_folds(rule, scored.cross_fitted)


def score_per_target(metric: Metric, y: Array, y_pred: Array) -> list[float]:
    """Return the score of each target; empty for a user-defined metric, which may need all targets."""
    if not metric.column_score:
        return []
    target_preds = y_pred.T if y_pred.shape == y.shape else [y_pred]
    return [metric.score_column(*columns) for columns in zip(y.T, target_preds, strict=True)]


def mean_over_folds(rule: SelectionRule, scored: Array) -> dict[str, float]:
    """Return the mean of the scores within folds for metrics of ranks, else an empty dictionary.

    This mean does not change if the predictions of one fold's model are shifted against the other
    folds. A target with a single class within a fold has no score there; `without_score` counts such
    pairs of fold and target.
    """
    if rule.metric.kind != "ranks" or rule.metric.types == REGRESSION:
        return {}
    fold_scores = []
    for fold in np.unique(rule.folds[rule.has_fold]):
        in_fold = rule.folds == fold
        fold_scores.append(score_per_target(rule.metric, rule.y[in_fold], scored[in_fold]))
    valid_scores = np.ma.masked_invalid(fold_scores)
    mean = float(np.ma.filled(valid_scores.mean(axis=0).mean(), np.nan))
    return {"score_mean_over_folds": mean, "without_score": int(valid_scores.mask.sum())}


def compare_to_default(rule: SelectionRule, scored: dict[str, Array]) -> dict[str, Comparison]:
    """Compare each candidate with the default.

    Args:
        scored: for each candidate, what the metric scores, (n_rows, n_scored), cross-fitted.
    """
    scores = {name: rule.score(values) for name, values in scored.items()}
    resampled = _resampled_scores(rule, scored)
    errors = resampled.sub(resampled[rule.default], axis=0).std().to_dict()
    return {
        name: Comparison(score, score - scores[rule.default], errors[name]) for name, score in scores.items()
    }  # fmt: skip


def standard_error(rule: SelectionRule, scored: Array) -> float:
    """Return the bootstrap standard error of the score of `scored` (n_rows, n_scored); it may be NaN."""
    return _resampled_scores(rule, {"submission": scored})["submission"].std()


def _resampled_scores(rule: SelectionRule, scored: dict[str, Array]) -> pd.DataFrame:
    """Return the scores on bootstrap resamples of the rows with a fold, (n_resamples, n_candidates)."""
    groups = np.unique(rule.groups[rule.has_fold], return_inverse=True)[1]
    return bootstrap_scores(
        metric=rule.metric,
        y=rule.y[rule.has_fold],
        predictions={name: values[rule.has_fold] for name, values in scored.items()},
        groups=groups,
        n_resamples=rule.n_resamples,
        seed=derive_seed(rule.seed, "bootstrap"),
        rows=rule.rows_with_fold,
    )


def min_gain(rule: SelectionRule, score: float) -> float:
    """Return the smallest gain over the default's score, `score`, that justifies a switch.

    It is a share of the distance between `score` and the score of a constant prediction. The constant
    is the mean of the labels, the median for absolute errors, the class shares for probabilities, or
    the most frequent class. A constant with an undefined score counts as 0.
    """
    y = rule.y[rule.has_fold]
    truth = np.ma.masked_invalid(rule.task.one_hot(y))
    center = np.ma.median(truth, axis=0) if rule.metric.separable_loss == "absolute" else truth.mean(axis=0)
    constant = center.filled(np.nan)[None]
    if rule.task.scores_labels:
        constant = rule.task.default_labels(constant)
    constant_score = rule.metric(y, np.repeat(constant, len(y), axis=0), rule.rows_with_fold)
    return MIN_GAIN_SHARE * abs(score - (constant_score if np.isfinite(constant_score) else 0.0))


def apply_rule(rule: SelectionRule, comparisons: dict[str, Comparison]) -> tuple[str, str]:
    """Return the candidate to submit, and the reason in one sentence.

    It is the default, unless another candidate is better by the margin; of several such candidates it
    is the one with the best cross-fitted score. `rule` must have the rows that the candidates were
    compared on.
    """
    default = rule.default
    default_score = comparisons[default].cross_fitted_score
    smallest_gain = min_gain(rule, default_score)
    if np.isnan(default_score):
        scores = {name: rule.gain(comparison.cross_fitted_score) for name, comparison in comparisons.items()}
        finite_scores = {name: score for name, score in scores.items() if np.isfinite(score)}
        if finite_scores:
            best = max(finite_scores, key=finite_scores.__getitem__)
            return best, f"{best} is selected, since the default {default} has no score."
    gains = {}
    required = {}
    for name, comparison in comparisons.items():
        if name != default:
            gains[name] = rule.gain(comparison.difference)
            required[name] = np.maximum(smallest_gain, rule.margin * comparison.standard_error)
    clear_gains = {name: gain for name, gain in gains.items() if gain > required[name]}
    eligible = clear_gains or {name: gain for name, gain in gains.items() if np.isfinite(gain)}
    if not eligible:
        return default, f"Keeping the default {default}: no other candidate has a score."
    best = max(eligible, key=eligible.__getitem__)
    explanation = (
        f"gains {eligible[best]:.4g}, and a switch requires more than {required[best]:.4g} "
        f"({rule.margin:g} x the standard error of the paired difference, and at least {smallest_gain:.2g})."
    )
    if clear_gains:
        return best, f"{best} replaces the default {default}: it {explanation}"
    if eligible[best] <= 0:
        worse = f"{-eligible[best]:.2g} worse" if eligible[best] < 0 else "equally good"
        return default, f"No candidate beats the default {default}; the closest is {best}, {worse}."
    return default, f"Keeping the default {default}: {best}, the best other candidate, {explanation}"


def select_candidate(
    rule: SelectionRule, predictions: dict[str, CrossFitted], excluded_fold: int | None = None
) -> SelectionResult:
    """Compare candidates and select one, on all rows, or without the labels of one fold.

    Args:
        predictions: for each candidate, what the metric scores (`SelectionRule.as_scored`).
        excluded_fold: a fold to select without. A candidate is then the same as the default if both
            predict the same for this fold; without an excluded fold, if both predict the same for all
            rows in sample.
    """
    if excluded_fold is None:
        outputs = {name: part.in_sample for name, part in predictions.items()}
        scored = {name: part.cross_fitted for name, part in predictions.items()}
    else:
        in_fold = rule.folds == excluded_fold
        rule = rule.on_rows(~in_fold)
        outputs = {name: part.cross_fitted[in_fold] for name, part in predictions.items()}
        scored = {name: part.nested[excluded_fold] for name, part in predictions.items()}
    comparisons = compare_to_default(rule, scored)
    same_as_default = []
    for name, values in outputs.items():
        if name != rule.default and np.array_equal(values, outputs[rule.default], equal_nan=True):
            same_as_default.append(name)
    others = {name: comparison for name, comparison in comparisons.items() if name not in same_as_default}
    chosen, reason = apply_rule(rule, others)
    return SelectionResult(chosen, reason, comparisons, same_as_default)
