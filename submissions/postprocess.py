"""Last steps on the predictions of the chosen candidate, each kept for a target only where it clearly helps.

A step is fitted on labels and on predictions that were made without each row's fold, and is a JSON object of numbers.
Whether it helps is told by folds: the rows of a fold are corrected by steps that were fitted on the other folds, the
steps before it included. It is kept if the score so found is better than that without it by more than `margin` standard
errors of the paired difference, as a candidate has to be; an isotonic map needs twice as many. Fitting, choice and use
see the rows they are given and no other, so whoever leaves out a fold gets steps that know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.errors import DataError
from competition.metrics import Array
from submissions.bootstrap import fast
from submissions.crossfit import Rule, choose, compare

MOST_LEVELS = 50
ROWS_PER_LEVEL = 10

Fitted = dict[str, Any]
Inputs = NDArray[np.str_]


def clip(y_pred: Array, y: Array) -> Fitted:
    """Predictions cut to the range of the labels."""
    return {"low": float(y.min()), "high": float(y.max())}


def shift_scale(y_pred: Array, y: Array) -> Fitted:
    """A straight line through labels over predictions, by least squares; a shift alone where predictions are equal."""
    centred = y_pred - y_pred.mean()
    scale = float(centred @ y / (centred @ centred)) if centred.any() else 1.0
    return {"scale": scale, "shift": float(y.mean() - scale * y_pred.mean())}


def isotonic(y_pred: Array, y: Array) -> Fitted:
    """A rising function of the prediction, constant beyond the ends, straight between its corners.

    Source: Zadrozny and Elkan, Transforming Classifier Scores into Accurate Probability Estimates, KDD 2002.
    """
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression().fit(y_pred, y)
    return {"x": found.X_thresholds_.tolist(), "y": found.y_thresholds_.tolist()}


def to_levels(y_pred: Array, y: Array) -> Fitted | None:
    """Predictions moved to the nearest label, the lower of two; None unless labels are few values, often repeated."""
    levels = np.unique(y)
    return {"levels": levels.tolist()} if len(levels) <= min(MOST_LEVELS, len(y) / ROWS_PER_LEVEL) else None


def average_equal_inputs(y_pred: Array, y: Array) -> Fitted:
    """Rows that are the same input get the mean of their predictions."""
    return {}


FITTED: dict[str, Callable[[Array, Array], Fitted | None]] = {
    "clip": clip,
    "shift_scale": shift_scale,
    "isotonic": isotonic,
    "round": to_levels,
    "average_equal_inputs": average_equal_inputs,
}
"""Step -> its numbers from predictions and labels, (n_rows,) each and at least one; None where it has no use."""


MARGINS = {"isotonic": 2.0}
"""Step -> how many times the margin it needs, where that is not 1: on three hidden tests isotonic maps had won out of
fold, and then gained once and lost twice."""


def fit_steps(names: list[str], y_pred: Array, y: Array, inputs: Inputs) -> list[Fitted]:
    """Steps of one target, each fitted on what those before it make of the rows.

    Args:
        names: of the steps, in order.
        y_pred, y: (n_rows,); rows without a label are left out.
        inputs: (n_rows,), equal where the whole input is the same.
    """
    known = ~np.isnan(y)
    steps: list[Fitted] = []
    for name in names if known.any() else []:
        fitted = FITTED[name](apply_steps(steps, y_pred, inputs)[known], y[known])
        if fitted is not None:
            steps.append({"step": name, **fitted})
    return steps


def apply_steps(steps: list[Fitted], y_pred: Array, inputs: Inputs) -> Array:
    """Predictions (n_rows,) of one target after fitted steps; `inputs` as in `fit_steps`."""
    for step in steps:
        match step:
            case {"step": "clip", "low": low, "high": high}:
                y_pred = np.clip(y_pred, low, high)
            case {"step": "shift_scale", "scale": scale, "shift": shift}:
                y_pred = shift + scale * y_pred
            case {"step": "isotonic", "x": x, "y": y}:
                y_pred = np.interp(y_pred, x, y)
            case {"step": "round", "levels": levels}:
                middles = (np.array(levels[1:]) + np.array(levels[:-1])) / 2
                y_pred = np.array(levels)[np.searchsorted(middles, y_pred)]
            case {"step": "average_equal_inputs"}:
                _, first, place = np.unique(inputs, return_index=True, return_inverse=True)
                of_first = y_pred[first][place]  # taken off before the sum: the mean of equal numbers is that number
                y_pred = of_first + (np.bincount(place, y_pred - of_first) / np.bincount(place))[place]
            case _:
                raise DataError(f"post-processing must be one of {', '.join(FITTED)}; found {step}. Run ./run.sh full.")
    return y_pred


@dataclass(frozen=True)
class Tried:
    """A step of one target.

    score_without, score_with: of the target, by folds; for a metric of the user's own, of all targets.
    standard_error: of their paired difference; NaN where the step gains nothing.
    fitted: its numbers, where it is kept.
    """

    step: str
    kept: bool
    score_without: float
    score_with: float
    standard_error: float
    fitted: Fitted | None


@dataclass(frozen=True)
class Chain:
    """The steps of all targets, each tried in turn.

    cross_fitted: (n_rows, n_targets), the rows given, each after steps that were fitted without its fold; others NaN.
    """

    tried: list[list[Tried]]
    cross_fitted: Array

    def apply(self, y_pred: Array, inputs: Inputs) -> Array:
        """Predictions (n_rows, n_targets) after the steps that were kept."""
        kept = [[tried.fitted for tried in of_target if tried.fitted is not None] for of_target in self.tried]
        return np.column_stack([apply_steps(steps, y_pred[:, t], inputs) for t, steps in enumerate(kept)])

    def stored(self) -> list[list[dict[str, Any]]]:
        """As JSON, a list for each target."""
        return [[asdict(tried) for tried in of_target] for of_target in self.tried]


def choose_steps(rule: Rule, names: list[str], y_pred: Array, inputs: Inputs, which: NDArray[np.bool_]) -> Chain:
    """Try steps on some rows, one after the other, and fit those that are kept on all of them.

    Args:
        rule: of selection; only labels of the rows `which` are read.
        names: of the steps, in order.
        y_pred: (n_rows, n_targets), each row predicted without its fold.
        inputs: (n_rows,), equal where the whole input is the same.
        which: (n_rows,).
    """
    y_pred = np.where(which[:, None], y_pred, np.nan)
    tried = []
    for t in range(y_pred.shape[1]):
        of_target, y_pred = _choose_for(t, rule, names, y_pred, inputs, which)
        tried.append(of_target)
    return Chain(tried, y_pred)


def _choose_for(
    t: int, rule: Rule, names: list[str], y_pred: Array, inputs: Inputs, which: NDArray[np.bool_]
) -> tuple[list[Tried], Array]:
    """What was tried for target t, and `y_pred` with that target's column after the steps that were kept, by folds."""
    y, folds, of_rows = rule.y[which, t], rule.folds[which], inputs[which]
    columns = slice(t, t + 1) if rule.metric.column else slice(None)
    one = replace(rule, y=rule.y[:, columns], default="without")
    before, found = y_pred[which, t], []
    kept: list[str] = []
    for name in names:
        paired = replace(one, margin=rule.margin * MARGINS.get(name, 1.0))
        after = y_pred.copy()
        after[which, t] = _by_folds([*kept, name], before, y, folds, of_rows)
        both = {"without": y_pred[:, columns], "with": after[:, columns]}
        without, with_step = (rule.metric(paired.y[which], part[which]) for part in both.values())
        keep = bool(np.isnan(without) and np.isfinite(with_step))  # as an rmsle of predictions below -1, when clipped
        standard_error = float("nan")
        if rule.metric.better(with_step, without):
            compared = compare(paired, both, which, rule.draws if fast(rule.metric) else max(100, rule.draws // 10))
            keep, standard_error = choose(paired, compared, which)[0] == "with", compared["with"].standard_error
        found.append((name, keep, without, with_step, standard_error))
        if keep:
            kept.append(name)
            y_pred = after
    fitted = {step["step"]: step for step in fit_steps(kept, before, y, of_rows)}
    return [Tried(*part, fitted.get(part[0])) for part in found], y_pred


def _by_folds(names: list[str], y_pred: Array, y: Array, folds: NDArray[np.int64], inputs: Inputs) -> Array:
    """Predictions (n_rows,), each after steps that were fitted on the rows of the other folds."""
    found = np.empty_like(y_pred)
    for fold in np.unique(folds):
        own = folds == fold
        steps = fit_steps(names, y_pred[~own], y[~own], inputs[~own])
        found[own] = apply_steps(steps, y_pred[own], inputs[own])
    return found
