"""Stacks: the default blend and a level-2 model, the correction, of what the blend leaves.

The correction is small trees (LightGBM), a ridge, or any regressor of scikit-learn. It sees the columns of all targets
and, where they are asked for, features of the rows. It is fitted on the blend's residual and not on the labels: what
shrinks is then the correction. Probabilities are corrected in logits, by trees that start from those of the blend. All
of it comes from the rows a stack is fitted on, so that it can be refitted without a fold. One that does not help inside
those rows, a ridge or a regressor clearly, is left out. benchmarks/switches.py has the measurements.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from competition.class_metrics import log_losses
from competition.errors import ConfigError
from competition.types import Array, Integers
from submissions.blend.candidates import Candidate, Predictor, ridge_solution
from submissions.blend.logits import Link, logits, probabilities
from submissions.blend.problem import NONE, Folds, Matrices
from submissions.blend.stored import storable

STACKS = ("lightgbm_stack", "ridge_stack", "sklearn_stack")
MOST_TREES, PATIENCE = 300, 30
PARAMETERS: dict[str, Any] = {
    "num_leaves": 3,  # two splits: with three, memorising columns and near-duplicates were taken for a gain
    "learning_rate": 0.05,
    "lambda_l2": 20.0,  # a leaf of 20 rows moves half as far as their mean
    "min_data_in_leaf": 20,  # a handful of near-duplicates cannot have a leaf of their own
    "max_bin": 63,
    "boost_from_average": False,  # the mean residual is shrunk like everything else
    **{"feature_pre_filter": False, "deterministic": True, "force_row_wise": True},
    **{"num_threads": 1, "seed": 0, "verbosity": -1},
}
PENALTIES = 10.0 ** np.arange(2, -4.5, -0.5)
"""Of the ridge, in units of n_rows, from hardly any correction to nearly none of the shrinkage."""
LAMBDA_OF_CLASSES, LEAST_OF_BLEND = 5.0, 1e-6
"""The same shrinkage where the curvature of a row is 1/4 at most; and what a blend's probability of 0 is read as."""
FURTHEST = 5.0
"""Standard deviations from the mean at which a feature is cut: one odd number must not throw a correction off."""


class Model(Protocol):
    """A fitted level-2 model of one target."""

    def predict(self, x: Array) -> Array:
        """What is to be added to the blend, in units of its spread or in logits, for scaled rows (n_rows, n_inputs)."""


Corrector = Callable[..., Model | None]
"""Fits a model on x (n_rows, n_inputs), residual (n_rows,), folds (n_rows,), two or more distinct, and 1 for the
absolute error or 2 for the squared one; where y are classes on their numbers for a residual, with `start`, the blend's
logits (n_rows, n_outputs). None where no model helps across the folds."""


@storable
@dataclass(frozen=True)
class Trees:
    """Boosted trees in LightGBM's text format."""

    n_trees: int
    text: str

    def predict(self, x: Array) -> Array:
        """See `Model`."""
        import lightgbm

        return lightgbm.Booster(model_str=self.text).predict(x, raw_score=True, num_threads=1)


@storable
@dataclass(frozen=True)
class Ridge:
    """A linear model; weights: of the inputs and, last, the intercept, which is shrunk like them."""

    penalty: float
    weights: Array

    def predict(self, x: Array) -> Array:
        """See `Model`."""
        return x @ self.weights[:-1] + self.weights[-1]


@storable
@dataclass(frozen=True)
class Regressor:
    """A regressor of scikit-learn in the form of skops, in base 64."""

    content: str

    def predict(self, x: Array) -> Array:
        """See `Model`."""
        from models.estimators import from_bytes

        return from_bytes(b64decode(self.content)).predict(x)


@storable
@dataclass(frozen=True)
class Scaling:
    """How a level-2 model sees the rows; learned from those it is fitted on.

    order: of the columns, given by their content, so that the names of stages change nothing.
    centre, spread: of the blend's predictions; columns and residual are scaled by them. 0 and 1 in logits.
    means, scales: of what stands beside the columns (`beside`), (n_features,).
    """

    order: list[int]
    centre: float
    spread: float
    means: Array
    scales: Array

    def __call__(self, columns: Array, features: Array) -> Array:
        """Columns (n_rows, n_columns, n_outputs) and, behind them, features, scaled; a missing feature is its mean."""
        scaled = np.clip((features - self.means) / self.scales, -FURTHEST, FURTHEST)
        columns = (columns[:, self.order] - self.centre) / self.spread
        return np.hstack([columns.reshape(len(columns), -1), np.nan_to_num(scaled)])


@storable
@dataclass(frozen=True)
class Stack:
    """A blend of all outputs and, for each target that is corrected, a scaling and a model; else None."""

    base: Predictor
    parts: list[tuple[Scaling, Model] | None]
    link: Link = "identity"

    def predict(self, P: Array, features: Array | None = None) -> Array:
        """Predictions (n_rows, n_outputs) for columns and features (n_rows, n_features)."""
        y_pred, features = self.base.predict(P), np.empty((len(P), 0)) if features is None else features
        for t, part in enumerate(self.parts):
            if part is not None and len(P):
                (scaling, model), own = part, slice(None) if self.link == "softmax" else slice(t, t + 1)
                seen = beside(P, own, scaling.order, features)
                added = model.predict(scaling(logits(P[:, :, own], self.link), seen)).reshape(len(P), -1)
                sums = logits(y_pred[:, own], self.link, LEAST_OF_BLEND) + scaling.spread * added
                y_pred[:, own] = probabilities(sums, self.link)
        return y_pred

    def only(self, outputs: NDArray[np.bool_]) -> "Stack":
        """The same without the corrections of all but some outputs, (n_outputs,)."""
        of_parts = outputs.reshape(len(self.parts), -1)
        return replace(self, parts=[p if kept.any() else None for p, kept in zip(self.parts, of_parts, strict=True)])


class Stacked(Candidate):
    """A stack on the blend `default` as a candidate.

    The residual of each row is that of the blend fitted without the row's fold too; size and use of the correction come
    from the error in the folds left, each predicted by a correction of the others.
    """

    def __init__(self, default: Candidate, corrector: Corrector) -> None:
        super().__init__(corrector)
        self.default = default

    def fit(self, m: Matrices, without: Folds = NONE) -> Stack:
        """See `Candidate`."""
        base, left, start = self.default.fit(m, without), m.left(without), np.full((len(m.y), m.P.shape[2]), np.nan)
        for fold in set(m.folds[left].tolist()):
            own = m.folds == fold
            start[own] = logits(self.default.predict(m, own, without | {fold}), m.link, LEAST_OF_BLEND)
        power, parts = 1 if m.exact == "absolute" else 2, list[tuple[Scaling, Model] | None]()
        for t, rows in enumerate((left[:, None] & ~np.isnan(m.y)).T):
            own, order = m.outputs_of(t), m.problems[t % len(m.problems)].order.tolist()
            features = beside(m.P[rows], own, order, m.seen_by_stacks[rows])
            y_pred, model = base.predict(m.P[rows])[:, own], None
            if len(np.unique(m.folds[rows])) > 1 and y_pred.std() > 0:
                known = np.ma.masked_invalid(features)
                means, scales = known.mean(axis=0).filled(0.0), known.std(axis=0).filled(0.0)
                scales[scales <= 1e-9] = 1.0
                centre, spread = (0.0, 1.0) if m.has_probabilities else (float(y_pred.mean()), float(y_pred.std()))
                scaling = Scaling(order, centre, spread, means, scales)
                x = scaling(logits(m.P[rows, :, own], m.link), features)
                if m.has_probabilities:
                    model = self.function(x, m.y[rows, t], m.folds[rows], start=start[rows, own])
                else:
                    model = self.function(x, (m.y - start)[rows, t] / spread, m.folds[rows], power)
            parts.append((scaling, model) if model else None)
        return Stack(base, parts, m.link)

    def use(self, fitted: Stack, m: Matrices, rows: NDArray[np.bool_]) -> Array:
        """See `Candidate`."""
        return fitted.predict(m.P[rows], m.seen_by_stacks[rows])


def beside(P: Array, own: slice, order: list[int], features: Array) -> Array:
    """What a level-2 model sees beside the columns of its target: features, and the columns of the others."""
    others = np.delete(P[:, order], own, axis=2)
    return np.hstack([features, others.reshape(len(P), others.shape[1] * others.shape[2])])


def least(losses: Array) -> int:
    """Which row of losses (n_models, n_folds) has the least mean."""
    return int(np.argmin(losses.mean(axis=1)))


def simplest(losses: Array) -> int:
    """Which row of losses (n_models, n_folds), simple ones first, is not clearly worse than the best one.

    Not worse by more than a standard error of the difference, paired over the folds.
    Source: the one-standard-error rule, Breiman et al., CART, 1984, section 3.4.3.
    """
    worse = losses - losses[np.argmin(losses.mean(axis=1))]
    return int(np.argmax(worse.mean(axis=1) <= worse.std(axis=1, ddof=1) / np.sqrt(losses.shape[1])))


def fit_trees(x: Array, y: Array, folds: Integers, power: int = 2, start: Array | None = None) -> Trees | None:
    """Small boosted trees, as many as have the least error across the folds; see `Corrector`."""
    import lightgbm

    parameters, uncorrected = {**PARAMETERS, "objective": f"l{power}"}, np.abs(y) ** power
    if start is not None:
        parameters |= {"objective": "multiclass", "num_class": start.shape[1], "lambda_l2": LAMBDA_OF_CLASSES}
        link: Link = "softmax"
        if start.shape[1] == 1:
            start, link, parameters = start[:, 0], "logistic", parameters | {"objective": "binary", "num_class": 1}
        uncorrected = log_losses(y, probabilities(start, link))

    def rows() -> lightgbm.Dataset:
        return lightgbm.Dataset(x, y, init_score=start, params=parameters)

    splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    losses = [[float(np.mean(uncorrected[held_out])) for _, held_out in splits]]

    def remember(environment: Any) -> None:
        losses.append([booster.eval_valid()[0][2] for booster in environment.model.boosters])

    callbacks = [remember, lightgbm.early_stopping(PATIENCE, verbose=False)]
    lightgbm.cv(parameters, rows(), num_boost_round=MOST_TREES, folds=splits, callbacks=callbacks)
    n_trees = least(np.array(losses))
    return Trees(n_trees, lightgbm.train(parameters, rows(), n_trees).model_to_string()) if n_trees else None


def fit_ridge(x: Array, residual: Array, folds: Integers, power: int) -> Ridge | None:
    """A ridge with the largest penalty that is not clearly worse across the folds; see `Corrector`."""
    with_one = np.hstack([x, np.ones((len(x), 1))])

    def fit(rows: NDArray[np.bool_]) -> list[Ridge]:
        own = with_one[rows]
        products = (own.T @ own)[None], (own.T @ residual[rows])[None]
        return [Ridge(float(a), ridge_solution(*products, a * len(own))[0]) for a in PENALTIES]

    return _simplest_of(fit, x, residual, folds, power)


def regressor(name: str, parameters: dict[str, Any], seed: int) -> Corrector:
    """A corrector of scikit-learn by its name and settings; it is used where it clearly helps across the folds."""
    import skops.io  # here, since it imports torch

    from models.estimators import build_estimator

    def fit(x: Array, residual: Array, folds: Integers, power: int) -> Regressor | None:
        def fitted(rows: NDArray[np.bool_]) -> list[Any]:
            return [build_estimator(name, parameters, seed).fit(x[rows], residual[rows])]

        try:
            found = _simplest_of(fitted, x, residual, folds, power)
        except ValueError as error:
            raise ConfigError(
                f"submissions.stack_regressor: {name} cannot be fitted on the {len(x)} labelled rows of a target; "
                f"scikit-learn says: {' '.join(str(error).split()).rstrip('.')}. Change it or its parameters."
            ) from error
        return Regressor(b64encode(skops.io.dumps(found)).decode()) if found else None

    return fit


def _simplest_of(
    fit: Callable[[NDArray[np.bool_]], list[Any]], x: Array, residual: Array, folds: Integers, power: int
) -> Any:
    """Of the models that `fit` gives for some rows, simple ones first, that which `simplest` takes; it may be none."""
    losses = []
    for own in (folds == fold for fold in np.unique(folds)):
        y_pred = [0.0, *(model.predict(x[own]).reshape(-1) for model in fit(~own))]
        losses.append([np.mean(np.abs(residual[own] - each) ** power) for each in y_pred])
    found = simplest(np.transpose(losses))
    return fit(folds == folds)[found - 1] if found else None
