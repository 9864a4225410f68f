"""Scores that can be believed, and the choice among candidates.

`in_sample_score`: weights and score on the same out-of-fold rows.
`cross_fitted_score` of a candidate: every row is predicted by what was fitted without its fold.
`cross_fitted_score` of the submission: the candidate that predicts a row was chosen without its fold, too.

A metric of the kind `decisions` scores labels. What turns predictions into these is fitted like weights: on the same
rows for the in-sample score, without the row's fold for all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.files import derive_seed
from competition.metrics import REGRESSION, Metric
from competition.task import Task
from competition.types import Array, Integers
from submissions.blend.bootstrap import bootstrap_scores
from submissions.blend.candidates import Candidate
from submissions.blend.decision_rules import Decision, fit_decision
from submissions.blend.weight_problem import NO_FOLDS, BlendData, FoldSet

LEAST_SHARE = 0.001
"""Of the distance between the scores of a constant and of the default, below which no gain is a reason to switch: with
many rows a paired standard error is so small that gains without any use would be clear."""


def prediction_table(ids: list[str], names: list[str], values: Array) -> pd.DataFrame:
    """Values (n_rows, n_names) under their names, behind the column `id`."""
    return pd.DataFrame(values, ids, names).rename_axis("id").reset_index()


@dataclass(frozen=True)
class CrossFitted:
    """Predictions of one candidate for the training rows, or what the metric scores of them; NaN for fold -1.

    in_sample: (n_rows, n_outputs), fitted on all rows.
    cross_fitted: (n_rows, n_outputs), each row by what was fitted without its fold.
    nested: (n_folds, n_rows, n_outputs); in entry k without fold k as well, NaN for the rows of fold k.
    fitted: the predictor of `in_sample`.
    """

    in_sample: Array
    cross_fitted: Array
    nested: Array
    fitted: Any = None

    def table(self, ids: list[str], outputs: list[str]) -> pd.DataFrame:
        """All of it as a table with the columns `part output`."""
        parts = ["in_sample", "cross_fitted", *(f"without_fold_{fold}" for fold in range(len(self.nested)))]
        names = [f"{part} {output}" for part in parts for output in outputs]
        return prediction_table(ids, names, np.hstack([self.in_sample, self.cross_fitted, *self.nested]))

    @staticmethod
    def from_table(table: pd.DataFrame, ids: list[str], n_outputs: int) -> "CrossFitted":
        """What `table` made, in the order of `ids`."""
        values = table.set_index("id").loc[ids].to_numpy().reshape(len(ids), -1, n_outputs)
        return CrossFitted(values[:, 0], values[:, 1], np.moveaxis(values[:, 2:], 1, 0))


def cross_fit(candidate: Candidate, m: BlendData) -> CrossFitted:
    """All predictions that the scores and the choice of one candidate need."""
    fitted, in_sample, has_fold = (
        candidate.fit(m),
        np.full((len(m.folds), m.preds.shape[2]), np.nan),
        m.rows_outside(NO_FOLDS),
    )
    in_sample[has_fold] = fitted.predict(m.preds[has_fold])
    return CrossFitted(in_sample, cross_fitted(candidate, m), np.stack(nested_of(candidate, m)), fitted)


def nested_of(candidate: Candidate, m: BlendData) -> list[Array]:
    """For each fold `cross_fitted` without it."""
    return [cross_fitted(candidate, m, frozenset({fold})) for fold in range(int(m.folds.max()) + 1)]


def cross_fitted(candidate: Candidate, m: BlendData, without: FoldSet = NO_FOLDS) -> Array:
    """(n_rows, n_outputs), each row by what was fitted without its fold and `without`; NaN for rows of those folds."""
    y_pred = np.full((len(m.folds), m.preds.shape[2]), np.nan)
    for fold in set(m.folds[m.rows_outside(without)].tolist()):
        own = m.folds == fold
        y_pred[own] = candidate.fit(m, without | {fold}).predict(m.preds[own])
    return y_pred


@dataclass(frozen=True)
class SelectionRule:
    """The rule of selection and the rows it is applied to.

    y: (n_rows, n_targets), NaN where there is no label.
    folds, groups: (n_rows,); rows of one group share a fold by construction, and the bootstrap draws them together.
    default: the candidate that stands.
    margin: standard errors of the paired difference by which another has to be better.
    n_resamples, seed: of the bootstrap.
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

    @property
    def has_fold(self) -> NDArray[np.bool_]:
        """Mask of the rows that have a fold."""
        return self.folds >= 0

    def score(self, y_pred: Array) -> float:
        """The score of what the metric scores, (n_rows, n_scored), on the rows that have a fold."""
        return self.metric(self.y[self.has_fold], y_pred[self.has_fold])

    def gain(self, difference: float) -> float:
        """A difference of scores as something that is above 0 where it is better."""
        return difference if self.metric.greater_is_better else -difference

    def fit_decision(self, y_pred: Array, which: NDArray[np.bool_]) -> Decision | None:
        """What turns predictions into labels, fitted on the rows `which`; None where the metric scores predictions."""
        return fit_decision(self.metric, self.task, self.y[which], y_pred[which]) if self.task.scores_labels else None

    def cross_fitted_labels(
        self, y_pred: Array, nested: Sequence[Array] | None = None, without: int | None = None
    ) -> Array:
        """What the metric scores of the rows that have a fold other than `without`, (n_rows, n_scored); NaN elsewhere.

        `y_pred`, (n_rows, n_outputs), are predictions that were made without each row's fold; the rows of a fold are
        decided on by the others of these, as `nested` for that fold predicts them or, without it, as `y_pred` does.
        """
        which = self.has_fold & (self.folds != without)
        found = np.full((len(y_pred), len(self.task.scored_columns)), np.nan)
        for fold in np.unique(self.folds[which]):
            own, known = which & (self.folds == fold), y_pred if nested is None else nested[fold]
            found[own] = apply_decision(self.fit_decision(known, which & ~own), y_pred[own])
        return found

    def as_scored(self, part: CrossFitted) -> CrossFitted:
        """What the metric scores of a candidate's predictions, each row decided on by what its part may know."""
        if not self.task.scores_labels:
            return part
        in_sample = np.full(self.y.shape, np.nan)
        in_sample[self.has_fold] = apply_decision(
            self.fit_decision(part.in_sample, self.has_fold), part.in_sample[self.has_fold]
        )
        nested = [self.cross_fitted_labels(y_pred, without=k) for k, y_pred in enumerate(part.nested)]
        return CrossFitted(in_sample, self.cross_fitted_labels(part.cross_fitted, list(part.nested)), np.stack(nested))


def cross_fitted_scored(rule: SelectionRule, candidate: Candidate, m: BlendData) -> Array:
    """What the metric scores of a candidate, (n_rows, n_scored), each row by what was fitted without its fold."""
    return rule.cross_fitted_labels(
        cross_fitted(candidate, m), nested_of(candidate, m) if rule.task.scores_labels else None
    )


def apply_decision(decision: Decision | None, y_pred: Array) -> Array:
    """What the metric scores of predictions (n_rows, n_outputs): labels where there is a decision, or themselves."""
    return y_pred if decision is None else decision.predict(y_pred)


@dataclass(frozen=True)
class Comparison:
    """A candidate against the default, in the metric's own unit and sign; both are 0 for the default itself."""

    cross_fitted_score: float
    difference: float
    standard_error: float


def describe_scores(rule: SelectionRule, predictions: CrossFitted) -> dict[str, Any]:
    """The two scores of a candidate, of labels if the metric scores labels."""
    found = {f"{name}_score": rule.score(getattr(predictions, name)) for name in ("in_sample", "cross_fitted")}
    return found | mean_over_folds(rule, predictions.cross_fitted)


def score_per_target(metric: Metric, y: Array, y_pred: Array) -> list[float]:
    """Score of each target; empty for a metric of the user's own, which may need all columns."""
    of_targets = y_pred.T if y_pred.shape == y.shape else [y_pred]
    return [metric.score_column(*each) for each in zip(y.T, of_targets, strict=True)] if metric.column_score else []


def mean_over_folds(rule: SelectionRule, y_pred: Array) -> dict[str, float]:
    """Of AUC and average precision, the mean of the scores within folds: it does not see that fold models are offset.

    A fold in which a target has one class alone has no score of it; how many have not is `without_score`.
    """
    if rule.metric.kind != "ranks" or rule.metric.types == REGRESSION:
        return {}
    own = [rule.folds == fold for fold in np.unique(rule.folds[rule.has_fold])]
    within = np.ma.masked_invalid([score_per_target(rule.metric, rule.y[rows], y_pred[rows]) for rows in own])
    mean = float(np.ma.filled(within.mean(axis=0).mean(), np.nan))
    return {"score_mean_over_folds": mean, "without_score": int(within.mask.sum())}


def compare_to_default(
    rule: SelectionRule, predictions: dict[str, Array], which: NDArray[np.bool_]
) -> dict[str, Comparison]:
    """Cross-fitted score of each candidate on the rows `which`, and its paired difference to the default."""
    scores = {name: rule.metric(rule.y[which], y_pred[which]) for name, y_pred in predictions.items()}
    drawn = _drawn(rule, predictions, which)
    errors = drawn.sub(drawn[rule.default], axis=0).std().to_dict()
    return {n: Comparison(score, score - scores[rule.default], errors[n]) for n, score in scores.items()}


def standard_error(rule: SelectionRule, y_pred: Array) -> float:
    """Of the score of predictions (n_rows, n_outputs) itself, no difference, by the bootstrap; NaN where undefined."""
    return _drawn(rule, {"own": y_pred}, rule.has_fold)["own"].std()


def _drawn(rule: SelectionRule, predictions: dict[str, Array], which: NDArray[np.bool_]) -> pd.DataFrame:
    groups = np.unique(rule.groups[which], return_inverse=True)[1]
    of_rows = {name: y_pred[which] for name, y_pred in predictions.items()}
    seed = derive_seed(rule.seed, "bootstrap")
    return bootstrap_scores(rule.metric, rule.y[which], of_rows, groups, rule.n_resamples, seed)


def min_gain(rule: SelectionRule, score: float, which: NDArray[np.bool_]) -> float:
    """The smallest gain over `score`, the default's on the rows `which`, that is worth a switch.

    The constant is the labels' mean, or median for absolute errors, or the shares of the classes, or the commonest one;
    a score that is not defined for it counts as 0.
    """
    y = np.ma.masked_invalid(rule.task.one_hot(rule.y[which]))
    middle = np.ma.median(y, axis=0) if rule.metric.separable_loss == "absolute" else y.mean(axis=0)
    known = middle.filled(np.nan)[None]
    everywhere = rule.task.default_labels(known) if rule.task.scores_labels else known
    constant = rule.metric(rule.y[which], np.repeat(everywhere, len(y), axis=0))
    return LEAST_SHARE * abs(score - (constant if np.isfinite(constant) else 0.0))


def apply_rule(rule: SelectionRule, compared: dict[str, Comparison], which: NDArray[np.bool_]) -> tuple[str, str]:
    """The candidate to submit, and why in one sentence: the default, unless another is clearly better.

    Of several that are, the one with the best cross-fitted score; `which` are the rows that were compared.
    """
    least, default = min_gain(rule, compared[rule.default].cross_fitted_score, which), rule.default
    if np.isnan(compared[default].cross_fitted_score):
        others = {name: rule.gain(part.cross_fitted_score) for name, part in compared.items()}
        if others := {name: score for name, score in others.items() if np.isfinite(score)}:
            best = max(others, key=others.__getitem__)
            return best, f"{best} is chosen, since the default, {default}, has no score."
    gains = {name: rule.gain(part.difference) for name, part in compared.items() if name != default}
    needed = {name: np.maximum(least, rule.margin * compared[name].standard_error) for name in gains}
    clear = {name: gain for name, gain in gains.items() if gain > needed[name]}
    known = clear or {name: gain for name, gain in gains.items() if np.isfinite(gain)}
    if not known:
        return default, f"{default}, the default, stands: no other candidate has a score."
    best = max(known, key=known.__getitem__)
    found = (
        f"gains {known[best]:.4g}, and a switch needs more than {needed[best]:.4g} ({rule.margin:g} x the standard "
        f"error of the paired difference, and at least {least:.2g})."
    )
    if clear:
        return best, f"{best} is chosen instead of the default, {default}: it {found}"
    return default, f"{default}, the default, stands: {best}, the best of the others, {found}"


def select_candidate(
    rule: SelectionRule, predictions: dict[str, CrossFitted], without: int | None = None
) -> tuple[str, str, dict[str, Comparison], list[str]]:
    """Compare candidates on all rows, or without a fold as if it had no labels, and choose.

    Returns:
        The chosen one, why in one sentence, all comparisons, and the candidates that predict what the default predicts,
        to the last digit, which are not chosen: on all rows if fitted on them, or on the fold if fitted without it.
    """
    which, default = rule.has_fold & (rule.folds != without), rule.default
    if without is None:
        seen, honest = ({n: getattr(p, of) for n, p in predictions.items()} for of in ("in_sample", "cross_fitted"))
    else:
        seen = {name: part.cross_fitted[rule.folds == without] for name, part in predictions.items()}
        honest = {name: part.nested[without] for name, part in predictions.items()}
    compared = compare_to_default(rule, honest, which)
    same = [n for n in honest if n != default and np.array_equal(seen[n], seen[default], equal_nan=True)]
    chosen, reason = apply_rule(rule, {name: part for name, part in compared.items() if name not in same}, which)
    return chosen, reason, compared, same
