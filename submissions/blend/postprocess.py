"""Last steps on the predictions of the chosen candidate, each kept for a target only where it clearly helps.

A step is one function, `fit(y_pred, y) -> step`, of predictions that were made without each row's fold and of labels,
(n_rows,) each and none missing; None where it has no use. What it returns is a dataclass of numbers, texts and arrays
with `predict(y_pred, inputs)`; `inputs` are equal where rows have the same whole input. One of your own is named
`mine.py:fit` in the YAML.

The rows of a fold are corrected by steps that were fitted on the other folds, the steps before it included. A step is
kept if the score so found is better by more than `margin` standard errors of the paired difference, as a candidate has
to be. Fitting, choice and use see the rows they are given and no other.
"""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from competition.types import Array
from competition.user_code import label, load_user_code, users
from submissions.blend.crossfit import Rule, choose, compare
from submissions.blend.stored import from_json, require_predictions, storable, to_json

MOST_LEVELS = 50
ROWS_PER_LEVEL = 10

Inputs = NDArray[np.str_]


class Step(Protocol):
    """A fitted step."""

    def predict(self, y_pred: Array, inputs: Inputs) -> Array:
        """Predictions (n_rows,) after the step; `inputs`, (n_rows,), are equal where the whole input is the same."""


@storable
@dataclass(frozen=True)
class Clip:
    """Predictions cut to the range of the labels."""

    low: float
    high: float

    def predict(self, y_pred: Array, inputs: Inputs) -> Array:
        """See `Step`."""
        return np.clip(y_pred, self.low, self.high)


@storable
@dataclass(frozen=True)
class Line:
    """A straight line through labels over predictions, by least squares; a shift alone where predictions are equal."""

    scale: float
    shift: float

    def predict(self, y_pred: Array, inputs: Inputs) -> Array:
        """See `Step`."""
        return self.shift + self.scale * y_pred


@storable
@dataclass(frozen=True)
class Curve:
    """A rising function of the prediction, constant beyond the ends, straight between its corners x, y.

    Source: Zadrozny and Elkan, Transforming Classifier Scores into Accurate Probability Estimates, KDD 2002.
    """

    x: Array
    y: Array

    def predict(self, y_pred: Array, inputs: Inputs) -> Array:
        """See `Step`."""
        return np.interp(y_pred, self.x, self.y)


@storable
@dataclass(frozen=True)
class Levels:
    """Predictions moved to the nearest label, the lower of two, where labels are few values, often repeated."""

    levels: Array

    def predict(self, y_pred: Array, inputs: Inputs) -> Array:
        """See `Step`."""
        return self.levels[np.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, y_pred)]


@storable
@dataclass(frozen=True)
class MeanOfEqualInputs:
    """Rows that are the same input get the mean of their predictions."""

    def predict(self, y_pred: Array, inputs: Inputs) -> Array:
        """See `Step`."""
        _, first, place = np.unique(inputs, return_index=True, return_inverse=True)
        of_first = y_pred[first][place]  # taken off before the sum: the mean of equal numbers is that number
        return of_first + (np.bincount(place, y_pred - of_first) / np.bincount(place))[place]


def _shift_scale(y_pred: Array, y: Array) -> Line:
    centred = y_pred - y_pred.mean()
    scale = float(centred @ y / (centred @ centred)) if centred.any() else 1.0
    return Line(scale, float(y.mean() - scale * y_pred.mean()))


def _isotonic(y_pred: Array, y: Array) -> Curve:
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression().fit(y_pred, y)
    return Curve(found.X_thresholds_, found.y_thresholds_)


def _round(y_pred: Array, y: Array) -> Levels | None:
    levels = np.unique(y)
    return Levels(levels) if len(levels) <= min(MOST_LEVELS, len(y) / ROWS_PER_LEVEL) else None


Fit = Callable[[Array, Array], Step | None]
STEPS: dict[str, Fit] = {
    "clip": lambda y_pred, y: Clip(float(y.min()), float(y.max())),
    "shift_scale": _shift_scale,
    "isotonic": _isotonic,
    "round": _round,
    "average_equal_inputs": lambda y_pred, y: MeanOfEqualInputs(),
}
FOR_NUMBERS = ("clip", "shift_scale", "round")
"""Steps that make no sense of probabilities."""


def fit_step(named: str, y_pred: Array, y: Array) -> Step | None:
    """A step of the YAML, fitted; ConfigError if it is the user's own and does not do what a step does."""
    if named in STEPS:
        return STEPS[named](y_pred, y)
    function = load_user_code("submissions.postprocess", named, "fit(y_pred, y)")
    with users(named, "return None or a dataclass with predict(y_pred, inputs)"):
        step: Step | None = function(y_pred.copy(), y.copy())
        if step is not None:
            if not is_dataclass(type(step)):
                raise TypeError(f"it returns {step!r:.60}")
            some = y_pred[:3].copy()
            require_predictions(step.predict(some, np.arange(len(some)).astype(str)), some.shape)
        return step


def fit_steps(names: list[str], y_pred: Array, y: Array, inputs: Inputs) -> dict[str, Step]:
    """Steps of one target, in order, each fitted on what those before it make of the rows that have a label."""
    known, steps = ~np.isnan(y), dict[str, Step]()
    for name in names if known.any() else []:
        step = fit_step(name, apply_steps(steps, y_pred, inputs)[known], y[known])
        steps |= {} if step is None else {name: step}
    return steps


def apply_steps(steps: dict[str, Step], y_pred: Array, inputs: Inputs) -> Array:
    """Predictions (n_rows,) of one target after fitted steps."""
    for step in steps.values():
        y_pred = step.predict(y_pred, inputs)
    return y_pred


def apply_all(steps: list[dict[str, Step]], y_pred: Array, inputs: Inputs) -> Array:
    """Predictions (n_rows, n_outputs) after the fitted steps of each target; none of a target with several outputs."""
    of_targets = {t: apply_steps(of, y_pred[:, t], inputs) for t, of in enumerate(steps) if of}
    return np.column_stack([of_targets.get(t, column) for t, column in enumerate(y_pred.T)])


@dataclass(frozen=True)
class Tried:
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
    fitted: Step | None = None

    def stored(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "step": label(self.step), "fitted": to_json(self.fitted)}


def stored_steps(tried: list[dict[str, Any]], named: dict[str, str]) -> dict[str, Step]:
    """The fitted ones of what `Tried.stored` gave, in order; `named` has the steps of the YAML by their labels."""
    return {each["step"]: from_json(each["fitted"], named[each["step"]]) for each in tried if each["fitted"]}


@dataclass(frozen=True)
class Chain:
    """The steps of all targets, each tried in turn.

    cross_fitted: (n_rows, n_outputs), each row after steps that were fitted without its fold; NaN where none was tried.
    """

    tried: list[list[Tried]]
    cross_fitted: Array

    def apply(self, y_pred: Array, inputs: Inputs) -> Array:
        """Predictions (n_rows, n_outputs) after the steps that were kept."""
        kept = [{each.step: each.fitted for each in tried if each.fitted is not None} for tried in self.tried]
        return apply_all(kept, y_pred, inputs)


def choose_steps(rule: Rule, names: list[str], y_pred: Array, inputs: Inputs, which: NDArray[np.bool_]) -> Chain:
    """Try steps on the rows `which`, in order, and fit those that are kept on all of them; no other label is read.

    `y_pred`, (n_rows, n_outputs), are predictions that were made without each row's fold.
    """
    y_pred, chain = np.where(which[:, None], y_pred, np.nan), []
    for t in range(rule.y.shape[1]):
        y, before, kept, tried = rule.y[:, t], y_pred[:, t], list[str](), list[Tried]()
        judged = slice(t, t + 1) if rule.metric.column else slice(None)
        for name in names:
            after = y_pred.copy()
            for fold in np.unique(rule.folds[which]):
                own, others = which & (rule.folds == fold), which & (rule.folds != fold)
                steps = fit_steps([*kept, name], before[others], y[others], inputs[others])
                after[own, t] = apply_steps(steps, before[own], inputs[own])
            paired = replace(rule, y=rule.y[:, judged], default="without")
            tried.append(_judged(paired, name, y_pred[:, judged], after[:, judged], which))
            if tried[-1].kept:
                kept, y_pred = [*kept, name], after
        fitted = fit_steps(kept, before[which], y[which], inputs[which])
        chain.append([replace(each, fitted=fitted.get(each.step)) for each in tried])
    return Chain(chain, y_pred)


def _judged(rule: Rule, name: str, before: Array, after: Array, which: NDArray[np.bool_]) -> Tried:
    """Whether a step is kept, by predictions without and with it."""
    without, with_step = (rule.metric(rule.y[which], y_pred[which]) for y_pred in (before, after))
    if not rule.metric.better(with_step, without):  # as an rmsle of predictions below -1, which is defined when clipped
        return Tried(name, bool(np.isnan(without) and np.isfinite(with_step)), without, with_step, float("nan"))
    compared = compare(rule, {"without": before, "with": after}, which)
    kept = choose(rule, compared, which)[0] == "with"
    return Tried(name, kept, without, with_step, compared["with"].standard_error)
