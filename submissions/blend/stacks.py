"""Stacks: the default blend and a level-2 model, here called the correction, of what the blend leaves.

The correction is small trees (LightGBM), a ridge, or any regressor of scikit-learn. It sees the columns and, where they
are asked for, features of the rows. It is fitted on the blend's residual and not on the labels: what shrinks is then
the correction, and the blend is what is left of it. All of it comes from the rows a stack is fitted on, so that it can
be refitted without a fold. A correction that does not clearly help inside those rows is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from competition.errors import ConfigError
from competition.metrics import Array
from submissions.blend.candidates import Candidate, Predictor, ridge_solution
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
FURTHEST = 5.0
"""Standard deviations from the mean at which a feature is cut: one odd number must not throw a correction off."""


class Correction(Protocol):
    """A fitted level-2 model of one output."""

    def predict(self, x: Array) -> Array:
        """What the blend leaves in units of its spread, (n_rows,), for scaled rows (n_rows, n_columns + n_features)."""


Corrector = Callable[[Array, Array, NDArray[np.int64], int], Correction | None]
"""Fits a correction on x (n_rows, n_inputs), residual (n_rows,) and folds (n_rows,), two or more distinct; the last
argument is 1 for the absolute error, 2 for the squared one. None where no correction helps across the folds."""


@storable
@dataclass(frozen=True)
class Trees:
    """Boosted trees in LightGBM's text format."""

    n_trees: int
    text: str

    def predict(self, x: Array) -> Array:
        """See `Correction`."""
        import lightgbm

        return lightgbm.Booster(model_str=self.text).predict(x, num_threads=1) if len(x) else np.empty(0)


@storable
@dataclass(frozen=True)
class Ridge:
    """A linear correction; weights: of the inputs and, last, the intercept, which is shrunk like them."""

    penalty: float
    weights: Array

    def predict(self, x: Array) -> Array:
        """See `Correction`."""
        return x @ self.weights[:-1] + self.weights[-1]


@storable
@dataclass(frozen=True)
class Regressor:
    """A regressor of scikit-learn in the form of skops."""

    content: bytes

    def predict(self, x: Array) -> Array:
        """See `Correction`."""
        from models.stages.per_target import from_bytes

        return from_bytes(self.content).predict(x).reshape(len(x)) if len(x) else np.empty(0)


@storable
@dataclass(frozen=True)
class Scaling:
    """How a correction sees the rows; learned from the rows fitted on.

    order: of the columns, given by their content, so that the names of stages change nothing.
    centre, spread: of the blend's predictions; columns and residual are scaled by them.
    means, scales: (n_features,).
    """

    order: list[int]
    centre: float
    spread: float
    means: Array
    scales: Array

    def __call__(self, columns: Array, features: Array) -> Array:
        """Columns and, behind them, features, scaled; a missing feature is its mean."""
        scaled = np.clip((features - self.means) / self.scales, -FURTHEST, FURTHEST)
        return np.hstack([(columns[:, self.order] - self.centre) / self.spread, np.nan_to_num(scaled)])


def _scaling(order: list[int], y_pred: Array, features: Array) -> Scaling:
    if not len(y_pred):
        return Scaling(order, 0.0, 0.0, np.zeros(features.shape[1]), np.ones(features.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a feature without any number
        means, scales = (np.nan_to_num(moment(features, axis=0)) for moment in (np.nanmean, np.nanstd))
    scales = np.where(scales > 1e-9, scales, 1.0)
    return Scaling(order, float(y_pred.mean()), float(y_pred.std()), means, scales)


@storable
@dataclass(frozen=True)
class Stack:
    """A blend of all outputs and, for each, a scaling and a correction; without corrections it is the blend."""

    base: Predictor
    parts: list[tuple[Scaling, Correction | None]]

    def predict(self, P: Array, features: Array | None = None) -> Array:
        """Predictions (n_rows, n_outputs) for columns and features (n_rows, n_features)."""
        y_pred, features = self.base.predict(P), np.empty((len(P), 0)) if features is None else features
        for t, (scaling, correction) in enumerate(self.parts):
            if correction is not None:
                y_pred[:, t] += scaling.spread * correction.predict(scaling(P[:, :, t], features))
        return y_pred


class Stacked(Candidate):
    """A stack on the blend `default` as a candidate.

    The residual of each row is that of the blend fitted without the row's fold too; size and use of the correction come
    from the error in the folds left, each predicted by a correction of the others.
    """

    def __init__(self, default: Candidate, corrector: Corrector) -> None:
        super().__init__(corrector)
        self.default = default

    def fit(self, m: Matrices, without: Folds = NONE) -> Stack:
        """See `Candidate`.

        Raises:
            ConfigError: if a regressor of scikit-learn cannot be fitted with its parameters.
        """
        base, left, features = self.default.fit(m, without), m.left(without), m.seen_by_stacks
        residual, power = np.full(m.y.shape, np.nan), 1 if m.problems[0].exact == "absolute" else 2
        for fold in set(m.folds[left].tolist()):
            own = m.folds == fold
            residual[own] = m.y[own] - self.default.fit(m, without | {fold}).predict(m.P[own])
        parts: list[tuple[Scaling, Correction | None]] = []
        for t in range(m.y.shape[1]):
            rows, order = left & ~np.isnan(m.y[:, t]), m.problems[t % len(m.problems)].order.tolist()
            scaling, correction = _scaling(order, base.predict(m.P[rows])[:, t], features[rows]), None
            if len(np.unique(m.folds[rows])) > 1 and scaling.spread > 0:
                x = scaling(m.P[rows, :, t], features[rows])
                correction = self.function(x, residual[rows, t] / scaling.spread, m.folds[rows], power)
            parts.append((scaling, correction))
        return Stack(base, parts)


def simplest(losses: list[list[float]]) -> int:
    """Which row of losses (n_models, n_folds), simple ones first, is not clearly worse than the best one.

    Not worse by more than a standard error of the difference, paired over the folds.
    Source: the one-standard-error rule, Breiman et al., CART, 1984, section 3.4.3.
    """
    known = np.array(losses)
    worse = known - known[np.argmin(known.mean(axis=1))]
    return int(np.argmax(worse.mean(axis=1) <= worse.std(axis=1, ddof=1) / np.sqrt(known.shape[1])))


def fit_trees(x: Array, residual: Array, folds: NDArray[np.int64], power: int) -> Trees | None:
    """Small boosted trees, as few as are not clearly worse across the folds; see `Corrector`."""
    import lightgbm

    parameters = {**PARAMETERS, "objective": f"l{power}", "metric": f"l{power}"}
    splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    losses = [[_loss(residual[held_out], power) for _, held_out in splits]]

    def remember(environment: Any) -> None:
        losses.append([booster.eval_valid()[0][2] for booster in environment.model.boosters])

    callbacks = [remember, lightgbm.early_stopping(PATIENCE, verbose=False)]
    data = lightgbm.Dataset(x, residual, params=parameters)
    lightgbm.cv(parameters, data, num_boost_round=MOST_TREES, folds=splits, callbacks=callbacks)
    n_trees = simplest(losses)
    if n_trees == 0:
        return None
    booster = lightgbm.train(parameters, lightgbm.Dataset(x, residual, params=parameters), n_trees)
    return Trees(n_trees, booster.model_to_string())


def fit_ridge(x: Array, residual: Array, folds: NDArray[np.int64], power: int) -> Ridge | None:
    """A ridge with the largest penalty that is not clearly worse across the folds; see `Corrector`."""
    x = np.hstack([x, np.ones((len(x), 1))])

    def weights(rows: NDArray[np.bool_]) -> Array:
        """(n_penalties, n_inputs + 1)."""
        gram, right, n = (x[rows].T @ x[rows])[None], (x[rows].T @ residual[rows])[None], rows.sum()
        return np.vstack([ridge_solution(gram, right, penalty * n) for penalty in PENALTIES])

    each = [folds == fold for fold in np.unique(folds)]
    left = [residual[own, None] - x[own] @ weights(~own).T for own in each]
    losses = [[_loss(residual[own], power) for own in each]]
    losses += [[_loss(part[:, i], power) for part in left] for i in range(len(PENALTIES))]
    found = simplest(losses) - 1
    return Ridge(float(PENALTIES[found]), weights(folds == folds)[found]) if found >= 0 else None


def regressor(name: str, parameters: dict[str, Any], seed: int) -> Corrector:
    """A corrector of scikit-learn by its name and settings; it is used where it clearly helps across the folds."""
    from models.regressors import build_regressor
    from models.stages.per_target import as_bytes

    def fit(x: Array, residual: Array, folds: NDArray[np.int64], power: int) -> Regressor | None:
        def fitted(rows: NDArray[np.bool_]) -> Any:
            return build_regressor(name, parameters, seed).fit(x[rows], residual[rows])

        losses: list[list[float]] = [[], []]
        try:
            for own in (folds == fold for fold in np.unique(folds)):
                losses[0].append(_loss(residual[own], power))
                losses[1].append(_loss(residual[own] - fitted(~own).predict(x[own]).reshape(-1), power))
            return Regressor(as_bytes(fitted(folds == folds))) if simplest(losses) else None
        except ValueError as error:
            raise ConfigError(
                f"submissions.stack_regressor: {name} cannot be fitted on the {len(x)} labelled rows of a target; "
                f"scikit-learn says: {' '.join(str(error).split()).rstrip('.')}. Change it or its parameters."
            ) from error

    return fit


def _loss(residual: Array, power: int) -> float:
    return float(np.mean(np.abs(residual) ** power))
