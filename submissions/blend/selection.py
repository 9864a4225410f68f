"""Fit all candidates, compare them with the default, and choose one.

Candidates are compared by their cross-fitted predictions: each row is predicted by a fit without the row's
fold. For metrics of labels the decision (thresholds, class offsets or cut points) that turns predictions into
labels is fitted without the fold as well. The default is chosen unless another candidate is better by a
clear margin.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from competition.metrics import take_rows
from competition.task import Task
from core.errors import DataError
from core.types import Array
from core.user_code import load_user_code, short_ref, user_code_errors
from submissions.blend.candidates import (
    ALWAYS,
    LIGHTGBM_STACK,
    complexity,
    fit_candidate,
    require_predictions,
)
from submissions.blend.correction import best_constant, fit_correction
from submissions.blend.data import Blend, BlendData, FoldSet, Predictor, serializable
from submissions.blend.decision_rules import Decision, apply_decision, fit_decision
from submissions.blend.scoring import Scorer, widened
from submissions.blend.settings import SubmissionsConfig
from submissions.blend.stack import Stack, fit_stack

MEAN = "mean"
"""Candidate that takes the place of a default that cannot be fitted."""
CONVEX = "convex"
"""Candidate that is submitted if nothing is scored: its weights have the least squared error."""
MAX_NORMAL = 8.0
"""Standard errors above which a normal distribution has no smaller probability in floating point."""
MAX_CLASSES_OF_STACK = 50
"""Maximum number of classes of a stack: the time of an iteration grows with their square, to minutes."""
ROUNDING = 1e-12
"""Rounding noise of a weighted mean of probabilities above 1, which files have no digits for."""
MIN_GAIN_SHARE = 0.001
"""Smallest gain that justifies a switch, as a share of the default's gain over a constant prediction.
With many rows the standard error of a paired difference is so small that even useless gains would be
significant."""


@serializable
@dataclass(frozen=True)
class Fitted:
    """A fitted candidate with what comes after it.

    Attributes:
        predictor: predicts (n_rows, n_outputs) from columns (n_rows, n_models, n_outputs).
        lowest: lowest label of each output, (n_outputs,), to which lower predictions are raised, for a metric
            that is undefined for small numbers (RMSLE) or has `far_from_mean`; None for other metrics.
        correction: intercept and slope of each output, (2, n_outputs), for a metric with `far_from_mean`;
            None for other metrics.
        decision: makes labels from predictions; None if the metric scores predictions.
        postprocess: `file.py:function` of the user, of predictions (n_rows, n_outputs), which returns others;
            None without one.
    """

    predictor: Predictor
    lowest: Array | None = None
    correction: Array | None = None
    decision: Decision | None = None
    postprocess: str | None = None

    def outputs(self, preds: Array) -> Array:
        """Return predictions before the decision, (n_rows, n_outputs)."""
        y_pred = self.predictor.predict(preds)
        require_predictions(y_pred, preds[:, 0].shape)
        if self.correction is not None:
            intercepts, slopes = self.correction
            y_pred = intercepts + slopes * y_pred
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
        final: fitted on all rows, for the test table.
        outputs: (n_rows, n_outputs), each row predicted without its fold; NaN in fold -1.
        scored: what the metric scores of them, (n_rows, n_scored).
    """

    final: Fitted
    outputs: Array
    scored: Array


def fit_on(data: BlendData, folds: FoldSet, predictor: Predictor, postprocess: str | None = None) -> Fitted:
    """Return a predictor that was fitted on the rows of some folds, with the steps that follow it.

    Thresholds and corrections come from predictions of the rows that the predictor was fitted on: they are so
    few numbers that this changes no score by more than chance.
    """
    rows = data.rows_in(folds)
    labels = data.y[rows]
    part = Fitted(predictor, postprocess=postprocess)
    if data.metric.far_from_mean or not np.isneginf(data.metric.lower_bound):
        lowest = np.nanmin(labels, axis=0, initial=np.inf, where=~np.isnan(labels))
        lowest[np.isinf(lowest)] = -np.inf  # a target without labels in these folds
        part = replace(part, lowest=lowest)
    if data.metric.far_from_mean:
        part = replace(
            part, correction=fit_correction(data.metric, labels, predictor.predict(data.preds[rows]))
        )
    if data.task.scores_labels:
        y_pred = part.outputs(data.preds[rows])
        decision = fit_decision(data.metric, data.task, labels, y_pred, take_rows(data.rows, rows))
        part = replace(part, decision=decision)
    return part


def cross_fit(
    data: BlendData, fit: Callable[[FoldSet], Predictor], postprocess: str | None = None
) -> CrossFit:
    """Fit a candidate on all folds and without each of them."""
    final = fit_on(data, data.all_folds, fit(data.all_folds), postprocess)
    outputs = np.full_like(data.preds[:, 0], np.nan)
    scored = np.full((len(data.y), len(data.task.scored_columns)), np.nan)
    for fold in sorted(data.all_folds):
        others = data.all_folds - {fold} or data.all_folds  # one fold alone has no others
        part = fit_on(data, others, fit(others), postprocess)
        in_fold = data.folds == fold
        outputs[in_fold] = part.outputs(data.preds[in_fold])
        scored[in_fold] = apply_decision(part.decision, outputs[in_fold])
    return CrossFit(final, outputs, scored)


def in_sample_score(data: BlendData, fitted: Fitted) -> float:
    """Return the score of a candidate on the rows that it was fitted on."""
    rows = data.has_fold
    return data.metric(data.y[rows], fitted.predict(data.preds[rows]), take_rows(data.rows, rows))


def require_probabilities(task: Task, y_pred: Array) -> None:
    """Raise a DataError if predictions are written as probabilities and, after a user's function, are none."""
    are_written = task.has_probabilities and not task.scores_labels and task.top_k is None
    if are_written and not ((y_pred >= 0) & (y_pred <= 1 + ROUNDING)).all():
        raise DataError(
            f"predictions are from {y_pred.min():.4g} to {y_pred.max():.4g}, and probabilities must be from 0 to 1"
        )


@dataclass(frozen=True)
class Selection:
    """The candidates and the choice among them.

    Attributes:
        candidates: name -> fitted candidate, from simple to complex.
        compared: comparison with the default, a row per name (`Scorer.compare`).
        default: name of the default candidate.
        chosen: name of the candidate to submit.
        reason: one sentence that explains the choice.
        failed: a line per candidate that is left out, with the reason.
    """

    candidates: dict[str, CrossFit]
    compared: pd.DataFrame
    default: str
    chosen: str
    reason: str
    failed: list[str]


def select_candidate(data: BlendData, test: Array, settings: SubmissionsConfig) -> Selection:
    """Fit all candidates, compare them with the default, and choose one.

    A candidate that raises is left out; the mean takes the place of a default that raises.

    Args:
        test: columns of the test table (n_test_rows, n_models, n_outputs), which a user's function may not
            predict.
    """
    default_blend, *others = settings.blends(data.task.problem_type)
    candidates: dict[str, CrossFit] = {}
    failed: list[str] = []

    def try_candidate(name: str, fit: Callable[[FoldSet], Predictor]) -> None:
        try:
            fitted = cross_fit(data, fit, settings.postprocess)
            require_probabilities(data.task, fitted.final.outputs(test))
            candidates[name] = fitted
        except Exception as error:
            failed.append(f"WARNING: {name} is left out: {type(error).__name__}: {error}")

    for name in dict.fromkeys([*ALWAYS, default_blend, *others]):
        try_candidate(short_ref(name), partial(fit_candidate, data, name))
    if MEAN not in candidates:  # only a user's post-processing can fail there
        candidates[MEAN] = cross_fit(data, partial(fit_candidate, data, MEAN))
        failed.append(f"WARNING: submissions.postprocess is not applied to the {MEAN}.")
    default = short_ref(default_blend)
    n_classes = len(data.task.classes)
    if settings.stack and n_classes > MAX_CLASSES_OF_STACK:
        failed.append(f"{LIGHTGBM_STACK} is left out: with {n_classes} classes it would take hours.")
    elif settings.stack and default in candidates:
        try_candidate(LIGHTGBM_STACK, partial(fit_stack, data, default_blend))
        if LIGHTGBM_STACK in candidates:
            stack = _validated_stack(candidates.pop(LIGHTGBM_STACK), candidates[default], data)
            if stack is None:
                failed.append(
                    f"{LIGHTGBM_STACK} is left out: its trees do not help, so that it equals {default}."
                )
            else:
                candidates[LIGHTGBM_STACK] = stack
    if default not in candidates:
        default = MEAN
    candidates = {name: candidates[name] for name in sorted(candidates, key=complexity)}
    compared = data.compare({name: each.scored for name, each in candidates.items()}, default)
    chosen, reason = select(data, compared, default, settings.margin)
    return Selection(candidates, compared, default, chosen, reason, failed)


def _validated_stack(stack: CrossFit, default: CrossFit, data: BlendData) -> CrossFit | None:
    """Return the stack without its corrections of outputs in which cross-fitting corrects no held-out row.

    Such corrections were never validated. A stack without any correction is None.
    """
    is_validated = (stack.outputs != default.outputs)[data.has_fold].any(axis=0)
    assert isinstance(stack.final.predictor, Stack)
    validated = stack.final.predictor.only(is_validated)
    if not any(validated.trees):
        return None
    if is_validated.all():
        return stack
    return replace(stack, final=fit_on(data, data.all_folds, validated, stack.final.postprocess))


def min_gain(scorer: Scorer, score: float) -> float:
    """Return the smallest gain over the default's score, `score`, that justifies a switch.

    It is a share of the distance between `score` and the score of the best constant prediction. An undefined
    score of a constant counts as 0.
    """
    _, constant_score = best_constant(scorer)
    return MIN_GAIN_SHARE * abs(score - (constant_score if np.isfinite(constant_score) else 0.0))


def select(scorer: Scorer, compared: pd.DataFrame, default: str, margin: float) -> tuple[str, str]:
    """Return the candidate to submit, and the reason in one sentence.

    It is the default, unless another is better by the margin; of several such candidates it is the one with
    the best cross-fitted score.

    Args:
        compared: candidates that may be chosen, compared with the default.
        margin: standard errors of the paired difference by which another candidate has to be better; of few
            groups more (`widened`).
    """
    scores = scorer.gain(compared["score"]).dropna()
    if default not in scores and len(scores):
        best = str(scores.idxmax())
        return (best, f"{best} is selected, since the default {default} has no score.")
    others = compared.drop(index=default)
    gains = scorer.gain(others["difference"]).dropna()
    if not len(gains):
        return (default, f"Keeping the default {default}: no other candidate has a score.")
    smallest_gain = min_gain(scorer, compared["score"][default])
    if scorer.n_groups > 1 and margin <= MAX_NORMAL:
        margin = widened(margin, scorer.n_groups)
    required = np.maximum(smallest_gain, margin * others["standard_error"])
    clear_gains = gains[gains > required[gains.index]]
    best = str((clear_gains if len(clear_gains) else gains).idxmax())
    explanation = (
        f"gains {gains[best]:.4g}, and a switch requires more than {required[best]:.4g} "
        f"({margin:.2g} x the standard error of the paired difference, and at least {smallest_gain:.2g})."
    )
    if len(clear_gains):
        return (best, f"{best} replaces the default {default}: it {explanation}")
    if gains[best] <= 0:
        worse = f"{-gains[best]:.2g} worse" if gains[best] < 0 else "equally good"
        return (default, f"No candidate beats the default {default}; the closest is {best}, {worse}.")
    return (default, f"Keeping the default {default}: {best}, the best other candidate, {explanation}")


def ablation(data: BlendData, names: list[str], blend: str, default: CrossFit) -> pd.DataFrame:
    """Return the default blend without each stage, and compare it with that of all; both have the settings of all rows.

    Args:
        names: the stages, in the order of the columns.
        blend: a name of CANDIDATES, or `file.py:function` of the user.
        default: this blend of all columns.

    Returns:
        Its comparison with the default, a row per stage (`Scorer.compare`); no row of a single stage.
    """
    if len(names) == 1:
        return pd.DataFrame()
    tuned = default.final.predictor.settings if isinstance(default.final.predictor, Blend) else []
    # With the same settings as the others: those of `default` were tuned without the fold, at a small loss.
    fixed = replace(data, tuned=tuple(tuned))
    all_stages = cross_fit(fixed, partial(fit_candidate, fixed, blend), default.final.postprocess)
    scored = {"all stages": all_stages.scored}
    for name in sorted(names):
        is_used = np.array(names) != name
        part = replace(fixed, preds=data.preds[:, is_used])
        scored[name] = cross_fit(part, partial(fit_candidate, part, blend), default.final.postprocess).scored
    return data.compare(scored, "all stages").drop(index="all stages")
