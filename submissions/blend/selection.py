"""The rule that selects one candidate: the default, unless another is better by a clear margin.

Candidates are compared by their cross-fitted predictions: each row is predicted by a fit without the row's fold. For
metrics of labels the decision (thresholds, class offsets or cut points) that turns predictions into labels is fitted
without the fold as well.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.metrics import Metric, take_rows
from competition.task import Task
from core.files import derive_seed
from core.types import Array, Integers
from core.user_code import load_user_code, user_code_errors
from submissions.blend.bootstrap import bootstrap_scores
from submissions.blend.data import BlendData, FoldSet
from submissions.blend.decision_rules import Decision, apply_decision, fit_decision
from submissions.blend.serialization import Predictor, require_predictions

MIN_GAIN_SHARE = 0.001
"""Smallest gain that justifies a switch, as a share of the default's gain over a constant prediction.
With many rows the standard error of a paired difference is so small that even useless gains would be
significant."""


@dataclass(frozen=True)
class Fitted:
    """A fitted candidate with what comes after it.

    Attributes:
        predictor: predicts (n_rows, n_outputs) from columns (n_rows, n_models, n_outputs).
        lowest: lowest label of each output, (n_outputs,), to which lower predictions are raised, for a metric that is
            undefined for small numbers (RMSLE); None for other metrics.
        decision: makes labels from predictions; None if the metric scores predictions.
        postprocess: `file.py:function` of the user's, of predictions (n_rows, n_outputs), which returns others;
            "" without one.
    """

    predictor: Predictor
    lowest: Array | None = None
    decision: Decision | None = None
    postprocess: str = ""

    def outputs(self, preds: Array) -> Array:
        """Return predictions before the decision, (n_rows, n_outputs)."""
        y_pred = self.predictor.predict(preds)
        if self.lowest is not None:
            y_pred = np.maximum(y_pred, self.lowest)
        if not self.postprocess:
            return y_pred
        function = load_user_code("submissions.postprocess", self.postprocess, "postprocess(y_pred)")
        shape = y_pred.shape
        with user_code_errors(self.postprocess, f"return predictions of the shape of its argument, {shape}"):
            y_pred = np.asarray(function(y_pred), dtype=np.float64)
            require_predictions(y_pred, shape)
        return y_pred

    def predict(self, preds: Array) -> Array:
        """Return what the metric scores, (n_rows, n_scored): labels, or predictions."""
        return apply_decision(self.decision, self.outputs(preds))


@dataclass(frozen=True)
class CrossFit:
    """A candidate fitted on all rows, and its predictions for the training rows.

    Attributes:
        whole: fitted on all rows, for the test table.
        in_sample: what the metric scores of its predictions for the rows it was fitted on, (n_rows, n_scored).
        outputs: (n_rows, n_outputs), each row predicted without its fold; NaN in fold -1.
        scored: what the metric scores of them, (n_rows, n_scored).
    """

    whole: Fitted
    in_sample: Array
    outputs: Array
    scored: Array


def cross_fit(data: BlendData, fit: Callable[[FoldSet], Predictor], postprocess: str = "") -> CrossFit:
    """Fit a candidate on all folds and without each of them.

    Thresholds for a fold come from the rows of the other folds, as predicted by the fit on these rows: they are so few
    numbers that their fit on the same rows changes no score by more than chance.
    """

    def fitted(folds: FoldSet) -> Fitted:
        predictor = fit(folds)
        rows = data.rows_in(folds)
        before = Fitted(predictor, _lowest(data, rows), None, postprocess)
        if not data.task.scores_labels:
            return before
        y_pred = before.outputs(data.preds[rows])
        decision = fit_decision(data.metric, data.task, data.y[rows], y_pred, take_rows(data.rows, rows))
        return Fitted(predictor, before.lowest, decision, postprocess)

    whole = fitted(data.all_folds)
    n_rows, _, n_outputs = data.preds.shape
    outputs = np.full((n_rows, n_outputs), np.nan)
    scored = np.full((n_rows, len(data.task.scored_columns)), np.nan)
    in_sample = scored.copy()
    has_fold = data.rows_in(data.all_folds)
    in_sample[has_fold] = whole.predict(data.preds[has_fold])
    for fold in sorted(data.all_folds):
        part = fitted(data.all_folds - {fold})
        in_fold = data.folds == fold
        outputs[in_fold] = part.outputs(data.preds[in_fold])
        scored[in_fold] = apply_decision(part.decision, outputs[in_fold])
    return CrossFit(whole, in_sample, outputs, scored)


def _lowest(data: BlendData, rows: NDArray[np.bool_]) -> Array | None:
    """Return the lowest label of each target in some rows if the metric has a lower bound, else None."""
    if np.isneginf(data.metric.lower_bound):
        return None
    return np.nanmin(data.y[rows], axis=0, initial=np.inf, where=~np.isnan(data.y[rows]))


@dataclass(frozen=True)
class Scorer:
    """Scores predictions of the training rows, on all of them and on bootstrap resamples.

    Attributes:
        y: (n_rows, n_targets), NaN for missing labels.
        folds: (n_rows,); rows with fold -1 are ignored.
        groups: (n_rows,); rows of one group share a fold, and the bootstrap resamples them together.
        seed: seed of the bootstrap.
        rows: n_rows rows of the raw table, for a metric that takes them.
    """

    metric: Metric
    task: Task
    y: Array
    folds: Integers
    groups: Integers
    seed: int
    rows: pd.DataFrame | None = None

    @property
    def has_fold(self) -> NDArray[np.bool_]:
        """Mask of the rows that are scored, (n_rows,)."""
        return self.folds >= 0

    def score(self, scored: Array) -> float:
        """Return the metric of labels or predictions (n_rows, n_scored) on the rows with a fold."""
        rows = take_rows(self.rows, self.has_fold)
        return self.metric(self.y[self.has_fold], scored[self.has_fold], rows)

    def gain(self, difference: float) -> float:
        """Return a difference of scores with the sign turned so that positive is better."""
        return difference if self.metric.greater_is_better else -difference

    def decided(self, y_pred: Array) -> Array:
        """Return what the metric scores of out-of-fold predictions, (n_rows, n_scored), NaN for rows without a fold.

        For each fold a decision is fitted on the rows of the other folds. If the metric scores predictions, they are
        returned unchanged.
        """
        if not self.task.scores_labels:
            return y_pred
        scored = np.full((len(y_pred), len(self.task.scored_columns)), np.nan)
        for fold in np.unique(self.folds[self.has_fold]):
            in_fold = self.folds == fold
            others = self.has_fold & ~in_fold
            rows = take_rows(self.rows, others)
            decision = fit_decision(self.metric, self.task, self.y[others], y_pred[others], rows)
            scored[in_fold] = apply_decision(decision, y_pred[in_fold])
        return scored

    def resampled(self, scored: dict[str, Array]) -> pd.DataFrame:
        """Return the scores on bootstrap resamples of the rows with a fold, (n_resamples, n_predictions)."""
        return bootstrap_scores(
            metric=self.metric,
            y=self.y[self.has_fold],
            predictions={name: values[self.has_fold] for name, values in scored.items()},
            groups=np.unique(self.groups[self.has_fold], return_inverse=True)[1],
            seed=derive_seed(self.seed, "bootstrap"),
            rows=take_rows(self.rows, self.has_fold),
        )

    def standard_error(self, scored: Array) -> float:
        """Return the bootstrap standard error of the score of `scored` (n_rows, n_scored); it may be NaN."""
        return float(self.resampled({"scored": scored})["scored"].std())

    def compare(self, scored: dict[str, Array], reference: str) -> dict[str, "Comparison"]:
        """Compare predictions, (n_rows, n_scored) each, with those of one name."""
        scores = {name: self.score(values) for name, values in scored.items()}
        resampled = self.resampled(scored)
        errors = resampled.sub(resampled[reference], axis=0).std().to_dict()
        return {
            name: Comparison(score, score - scores[reference], resampled[name].std(), errors[name])
            for name, score in scores.items()
        }


@dataclass(frozen=True)
class Comparison:
    """Predictions compared with those of a reference, in the unit and direction of the metric.

    Attributes:
        score: their cross-fitted score.
        difference: it minus the score of the reference.
        score_standard_error: bootstrap standard error of the score.
        standard_error: bootstrap standard error of the paired difference; 0 for the reference.
    """

    score: float
    difference: float
    score_standard_error: float
    standard_error: float


def min_gain(scorer: Scorer, score: float) -> float:
    """Return the smallest gain over the default's score, `score`, that justifies a switch.

    It is a share of the distance between `score` and the score of a constant prediction. The constant
    is the mean of the labels, the median for absolute errors, the class shares for probabilities, or
    the most frequent class. A constant with an undefined score counts as 0.
    """
    y = scorer.y[scorer.has_fold]
    truth = np.ma.masked_invalid(scorer.task.one_hot(y))
    is_absolute = scorer.metric.separable_loss == "absolute"
    center = np.ma.median(truth, axis=0) if is_absolute else truth.mean(axis=0)
    constant = center.filled(np.nan)[None]
    if scorer.task.scores_labels:
        constant = scorer.task.default_labels(constant)
    rows = take_rows(scorer.rows, scorer.has_fold)
    constant_score = scorer.metric(y, np.repeat(constant, len(y), axis=0), rows)
    return MIN_GAIN_SHARE * abs(score - (constant_score if np.isfinite(constant_score) else 0.0))


def select(scorer: Scorer, compared: dict[str, Comparison], default: str, margin: float) -> tuple[str, str]:
    """Return the candidate to submit, and the reason in one sentence.

    It is the default, unless another is better by the margin; of several such candidates it is the one with the best
    cross-fitted score.

    Args:
        compared: candidates that may be chosen, compared with the default.
        margin: standard errors of the paired difference by which another candidate has to be better.
    """
    scores = {name: scorer.gain(comparison.score) for name, comparison in compared.items()}
    finite_scores = {name: score for name, score in scores.items() if np.isfinite(score)}
    if np.isnan(compared[default].score) and finite_scores:
        best = max(finite_scores, key=finite_scores.__getitem__)
        return (best, f"{best} is selected, since the default {default} has no score.")
    smallest_gain = min_gain(scorer, compared[default].score)
    gains = {}
    required = {}
    for name, comparison in compared.items():
        if name != default:
            gains[name] = scorer.gain(comparison.difference)
            required[name] = np.maximum(smallest_gain, margin * comparison.standard_error)
    clear_gains = {name: gain for name, gain in gains.items() if gain > required[name]}
    eligible = clear_gains or {name: gain for name, gain in gains.items() if np.isfinite(gain)}
    if not eligible:
        return (default, f"Keeping the default {default}: no other candidate has a score.")
    best = max(eligible, key=eligible.__getitem__)
    explanation = (
        f"gains {eligible[best]:.4g}, and a switch requires more than {required[best]:.4g} "
        f"({margin:g} x the standard error of the paired difference, and at least {smallest_gain:.2g})."
    )
    if clear_gains:
        return (best, f"{best} replaces the default {default}: it {explanation}")
    if eligible[best] <= 0:
        worse = f"{-eligible[best]:.2g} worse" if eligible[best] < 0 else "equally good"
        return (default, f"No candidate beats the default {default}; the closest is {best}, {worse}.")
    return (default, f"Keeping the default {default}: {best}, the best other candidate, {explanation}")


def score_per_target(metric: Metric, y: Array, y_pred: Array) -> list[float]:
    """Return the score of each target; empty for a user-defined metric, which may need all targets."""
    if not metric.column_score:
        return []
    target_preds = y_pred.T if y_pred.shape == y.shape else [y_pred]
    return [metric.score_column(*columns) for columns in zip(y.T, target_preds, strict=True)]
