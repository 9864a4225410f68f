"""Honest scores of the candidates, and the choice among them.

Three scores that are never mixed:

`in_sample_score`: weights and score on the same out-of-fold rows.
`cross_fitted_score`: every row is predicted by weights, scaling, tuning and trees that were fitted without its fold.
`cross_fitted_score` of the procedure: the candidate that predicts a row was chosen without its fold, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.files import derive_seed
from competition.metrics import Array, Metric
from submissions.bootstrap import bootstrap_scores, fast
from submissions.target import NONE, Folds, Target


class Predictor(Protocol):
    """A fitted candidate of one target."""

    def predict(self, columns: Array) -> Array:
        """Predictions (n_rows,) for columns (n_rows, n_stages), behind which a stack takes features."""


Fit = Callable[[Target, Folds], Predictor]
"""Fits a candidate on the labelled rows of all folds but some."""


def fit_of(name: str) -> Fit:
    """How the linear candidate `name` is fitted."""
    return lambda target, without: target.fit(name, without)


@dataclass(frozen=True)
class CrossFitted:
    """Predictions of one candidate for the training rows, NaN for rows with fold -1.

    in_sample: (n_rows, n_targets), fitted on all rows.
    cross_fitted: (n_rows, n_targets), each row by what was fitted without its fold.
    nested: (n_folds, n_rows, n_targets); in entry k without fold k as well, NaN for the rows of fold k.
    """

    in_sample: Array
    cross_fitted: Array
    nested: Array


def as_table(ids: list[str], outputs: list[str], predictions: CrossFitted) -> pd.DataFrame:
    """The predictions of one candidate for the training rows as a table; empty cells where there is none."""
    parts = [("in_sample", predictions.in_sample), ("cross_fitted", predictions.cross_fitted)]
    parts += [(f"without_fold_{fold}", part) for fold, part in enumerate(predictions.nested)]
    tables = [pd.DataFrame(part, columns=[f"{name} {output}" for output in outputs]) for name, part in parts]
    return pd.concat([pd.Series(ids, name="id"), *tables], axis=1)


def from_table(table: pd.DataFrame, ids: list[str], outputs: list[str], n_folds: int) -> CrossFitted:
    """What `as_table` made, in the order of `ids`."""
    table = table.set_index("id").loc[ids]

    def part(name: str) -> Array:
        return table[[f"{name} {output}" for output in outputs]].to_numpy(dtype=np.float64)

    nested = np.stack([part(f"without_fold_{fold}") for fold in range(n_folds)])
    return CrossFitted(part("in_sample"), part("cross_fitted"), nested)


def cross_fit(targets: list[Target], fit: Fit, n_folds: int) -> CrossFitted:
    """All predictions that the scores and the choice of one candidate need."""
    return CrossFitted(
        in_sample=np.column_stack([_fill(target, target.folds >= 0, fit(target, NONE)) for target in targets]),
        cross_fitted=cross_fitted(targets, fit, n_folds),
        nested=np.stack([cross_fitted(targets, fit, n_folds, frozenset({fold})) for fold in range(n_folds)]),
    )


def cross_fitted(targets: list[Target], fit: Fit, n_folds: int, without: Folds = NONE) -> Array:
    """(n_rows, n_targets), each row by what was fitted without its fold and `without`; NaN for rows of those folds."""
    y_pred = np.full((len(targets[0].y), len(targets)), np.nan)
    for t, target in enumerate(targets):
        for fold in range(n_folds):
            if fold not in without:
                held_out = target.folds == fold
                y_pred[held_out, t] = fit(target, without | {fold}).predict(target.inputs[held_out])
    return y_pred


def _fill(target: Target, which: NDArray[np.bool_], fitted: Predictor) -> Array:
    y_pred = np.full(len(target.y), np.nan)
    y_pred[which] = fitted.predict(target.inputs[which])
    return y_pred


@dataclass(frozen=True)
class Rule:
    """The rule of selection and the rows it is applied to.

    y: (n_rows, n_targets), NaN where there is no label.
    folds: (n_rows,).
    groups: (n_rows,), equal for rows that share a fold by construction; the bootstrap draws them together.
    default: the candidate that stands.
    margin: standard errors of the paired difference by which another has to be better.
    draws: of the bootstrap.
    seed: of the bootstrap.
    """

    metric: Metric
    y: Array
    folds: NDArray[np.int64]
    groups: NDArray[np.int64]
    default: str
    margin: float
    draws: int
    seed: int


def scores(rule: Rule, predictions: CrossFitted) -> dict[str, float | list[float]]:
    """The two scores of a candidate, overall and, for a metric of columns, per target; and its optimism.

    Optimism is by how much the in-sample score looks better than the cross-fitted one, in the metric's unit.
    """
    scored = rule.folds >= 0
    y, in_sample, honest = (part[scored] for part in (rule.y, predictions.in_sample, predictions.cross_fitted))
    in_sample_score, cross_fitted_score = rule.metric(y, in_sample), rule.metric(y, honest)
    gap = in_sample_score - cross_fitted_score
    return {
        "in_sample_score": in_sample_score,
        "in_sample_score_per_target": score_per_target(rule.metric, y, in_sample),
        "cross_fitted_score": cross_fitted_score,
        "cross_fitted_score_per_target": score_per_target(rule.metric, y, honest),
        "optimism": gap if rule.metric.greater_is_better else -gap,
    }


def score_per_target(metric: Metric, y: Array, y_pred: Array) -> list[float]:
    """Score of each target; empty for a metric of the user's own, which may need all columns."""
    return [metric.one(y[:, t], y_pred[:, t]) for t in range(y.shape[1])] if metric.column else []


@dataclass(frozen=True)
class Comparison:
    """A candidate against the default, in the metric's own unit and sign; both are 0 for the default itself."""

    cross_fitted_score: float
    difference: float
    standard_error: float


def compare(rule: Rule, predictions: dict[str, Array], which: NDArray[np.bool_], draws: int) -> dict[str, Comparison]:
    """Cross-fitted score of each candidate on some rows, and its paired difference to the default.

    Args:
        predictions: candidate -> (n_rows, n_targets).
        which: (n_rows,), the rows; only their labels are read.
        draws: of the bootstrap.
    """
    y = rule.y[which]
    of_rows = {name: y_pred[which] for name, y_pred in predictions.items()}
    scores = {name: rule.metric(y, y_pred) for name, y_pred in of_rows.items()}
    units = np.unique(rule.groups[which], return_inverse=True)[1]
    drawn = bootstrap_scores(rule.metric, y, of_rows, units, draws, derive_seed(rule.seed, "bootstrap"))
    return {
        name: Comparison(
            scores[name],
            scores[name] - scores[rule.default],
            _spread(drawn[name] - drawn[rule.default]),
        )
        for name in predictions
    }


def standard_error(rule: Rule, y_pred: Array) -> float:
    """Of the score of predictions (n_rows, n_targets) itself, no difference, by the bootstrap; NaN where undefined."""
    scored = rule.folds >= 0
    units = np.unique(rule.groups[scored], return_inverse=True)[1]
    draws = rule.draws if fast(rule.metric) else max(100, rule.draws // 10)
    seed = derive_seed(rule.seed, "bootstrap")
    return _spread(bootstrap_scores(rule.metric, rule.y[scored], {"": y_pred[scored]}, units, draws, seed)[""])


def _spread(differences: Array) -> float:
    """Standard deviation over the draws in which both scores are defined; NaN where there are none."""
    differences = differences[np.isfinite(differences)]
    return float(np.std(differences, ddof=1)) if len(differences) > 1 else float("nan")


LEAST_SHARE = 0.001
"""Of the distance between the scores of a constant and of the default, below which no gain is a reason to switch: with
many rows a paired standard error is so small that gains without any use would be clear."""


def least_gain(rule: Rule, score: float, which: NDArray[np.bool_]) -> float:
    """The smallest gain over `score`, the default's on the rows `which`, that is worth a switch.

    The constant is the labels' mean, or their median for a metric of absolute errors. Where its score is not defined,
    as a correlation is not, it is 0.
    """
    y = rule.y[which]
    middle = np.nanmedian if rule.metric.per_target == "absolute" else np.nanmean
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a target without any label has no score either
        constant = rule.metric(y, np.tile(middle(y, axis=0), (len(y), 1)))
    return LEAST_SHARE * abs(score - (constant if np.isfinite(constant) else 0.0))


def choose(rule: Rule, compared: dict[str, Comparison], which: NDArray[np.bool_]) -> tuple[str, str]:
    """The candidate to submit, and why in one sentence: the default, unless another is clearly better.

    Of several that are, the one with the best cross-fitted score. A standard error that is not defined never is.

    Args:
        which: (n_rows,), the rows that the candidates were compared on.
    """
    least = least_gain(rule, compared[rule.default].cross_fitted_score, which)
    gains = {
        name: comparison.difference if rule.metric.greater_is_better else -comparison.difference
        for name, comparison in compared.items()
        if name != rule.default
    }
    needed = {name: np.maximum(least, rule.margin * compared[name].standard_error) for name in gains}  # keeps a NaN
    clear = [name for name, gain in gains.items() if gain > needed[name]]
    if clear:
        best = max(clear, key=lambda name: gains[name])
        return best, (
            f"{best} is chosen: its cross_fitted_score is better than that of the default, {rule.default}, "
            f"by {gains[best]:.4g}, which is more than {rule.margin:g} standard error(s) of the paired difference "
            f"({compared[best].standard_error:.4g}) and than the least gain that counts ({least:.2g})."
        )
    reason = (
        f"{rule.default}, the default, stands: no other candidate's cross_fitted_score is better by more than "
        f"{rule.margin:g} standard error(s) of the paired difference and {least:.2g}, the least gain that counts"
    )
    known = [name for name, gain in gains.items() if np.isfinite(gain)]
    if not known:
        return rule.default, f"{reason}."
    nearest = max(known, key=lambda name: gains[name])
    by = f"{abs(gains[nearest]):.4g}, standard error {compared[nearest].standard_error:.4g}"
    how = f"{'better' if gains[nearest] > 0 else 'worse'} by {by}" if gains[nearest] else "equal"
    return rule.default, f"{reason} (best of the others: {nearest}, {how})."


def repeats(predictions: dict[str, Array], default: str) -> list[str]:
    """Candidates that predict what the default predicts, to the last digit: nothing to choose."""
    return [
        name
        for name, y_pred in predictions.items()
        if name != default and np.array_equal(y_pred, predictions[default], equal_nan=True)
    ]


def cross_fitted_choice(
    rule: Rule, cross_fitted: dict[str, Array], nested: dict[str, Array], n_folds: int
) -> tuple[Array, list[str]]:
    """Predictions of the whole procedure, each row by the candidate that was chosen without its fold.

    For fold k the rule sees the rows of the other folds, each predicted without its own fold and fold k; the winner,
    refitted without fold k, predicts fold k. Candidates that predict fold k as the default does are left out, like a
    stack without a correction from the submission. A metric that must be computed draw by draw gets a tenth of the
    draws.

    Args:
        cross_fitted, nested: of each candidate, see `CrossFitted`.
        n_folds: number of folds.

    Returns:
        (n_rows, n_targets), NaN for rows with fold -1; and the candidate chosen without each fold.
    """
    y_pred = np.full(rule.y.shape, np.nan)
    chosen = []
    draws = rule.draws if fast(rule.metric) else max(100, rule.draws // 10)
    for fold in range(n_folds):
        others = (rule.folds >= 0) & (rule.folds != fold)
        same = repeats({name: part[rule.folds == fold] for name, part in cross_fitted.items()}, rule.default)
        compared = compare(rule, {n: part[fold] for n, part in nested.items() if n not in same}, others, draws)
        name, _ = choose(rule, compared, others)
        chosen.append(name)
        y_pred[rule.folds == fold] = cross_fitted[name][rule.folds == fold]
    return y_pred, chosen
