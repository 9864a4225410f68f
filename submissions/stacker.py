"""The stacks of one target: the default blend and a level-2 model, on the columns, of what the blend leaves.

The level-2 model, here called the correction, is small trees (LightGBM), a ridge, or any regressor of scikit-learn. It
sees the columns and, where they are asked for, features of the rows. It is fitted on the blend's residual and not on
the labels: what shrinks is then the correction, and the blend is what is left of it. (A ridge on the labels alone is a
blend, and stands among the blenders.) Blend, scaling, residual and correction come from the rows a stack is fitted on,
so it can be refitted without a fold as a whole. A correction that does not clearly help inside those rows is left out.
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
from submissions.target import NONE, Blend, Folds, Target, exact_problem, weighted_sum

STACKS = ("lightgbm_stack", "ridge_stack", "sklearn_stack")
MOST_TREES = 300
PATIENCE = 30
PARAMETERS: dict[str, Any] = {
    "num_leaves": 3,  # two splits: with three, memorising columns and near-duplicates were taken for a gain
    "learning_rate": 0.05,
    "lambda_l2": 20.0,  # a leaf of 20 rows moves half as far as their mean
    "min_data_in_leaf": 20,  # a handful of near-duplicates cannot have a leaf of their own
    "max_bin": 63,
    "boost_from_average": False,  # the mean residual is shrunk like everything else
    "feature_pre_filter": False,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": 0,
    "verbosity": -1,
}
PENALTIES = 10.0 ** np.arange(2, -4.5, -0.5)
"""Of the ridge, in units of n_rows, from hardly any correction to nearly none of the shrinkage."""
FURTHEST = 5.0
"""Spreads from the mean at which a feature is cut: one odd number must not throw a linear correction off."""


class Correction(Protocol):
    """A fitted level-2 model."""

    def predict(self, x: Array) -> Array:
        """What the blend leaves in units of its spread, (n_rows,), for scaled rows (n_rows, n_stages + n_features)."""


Corrector = Callable[[Array, Array, NDArray[np.int64], int], Correction | None]
"""Fits a correction on x (n_rows, n_inputs), residual (n_rows,) and folds (n_rows,), two or more distinct; the last
argument is 1 for the absolute error, 2 for the squared one. None where no correction helps across the folds."""


@dataclass(frozen=True)
class Trees:
    """Boosted trees; text: in LightGBM's format."""

    n_trees: int
    text: str

    def predict(self, x: Array) -> Array:
        """See `Correction`."""
        import lightgbm

        return lightgbm.Booster(model_str=self.text).predict(x, num_threads=1) if len(x) else np.empty(0)


@dataclass(frozen=True)
class Ridge:
    """A linear correction; weights: of the inputs and, last, the intercept, which is shrunk like them."""

    penalty: float
    weights: list[float]

    def predict(self, x: Array) -> Array:
        """See `Correction`."""
        return weighted_sum(x, np.array(self.weights[:-1]), self.weights[-1])


@dataclass(frozen=True)
class Regressor:
    """A fitted regressor of scikit-learn."""

    fitted: Any

    def predict(self, x: Array) -> Array:
        """See `Correction`."""
        return self.fitted.predict(x).reshape(len(x)) if len(x) else np.empty(0)


@dataclass(frozen=True)
class Scaling:
    """How a correction sees the rows; learned from the rows fitted on.

    centre, spread: of the blend's predictions; columns and residual are scaled by them.
    order: positions of the columns as the correction numbers them.
    means, scales: of each feature.
    """

    centre: float
    spread: float
    order: list[int]
    means: list[float]
    scales: list[float]

    def __call__(self, inputs: Array) -> Array:
        """Inputs (n_rows, n_stages + n_features), scaled; a missing feature is its mean."""
        columns = (inputs[:, self.order] - self.centre) / self.spread
        features = (inputs[:, len(self.order) :] - np.array(self.means)) / np.array(self.scales)
        return np.hstack([columns, np.nan_to_num(np.clip(features, -FURTHEST, FURTHEST))])


@dataclass(frozen=True)
class Stack:
    """A blend and what corrects it; without a correction it is the blend."""

    blend: Blend
    scaling: Scaling
    correction: Correction | None

    def predict(self, inputs: Array) -> Array:
        """Predictions (n_rows,) for columns and, behind them, features (n_rows, n_stages + n_features)."""
        y_pred = self.blend.predict(inputs)
        if self.correction is None:
            return y_pred
        return y_pred + self.scaling.spread * self.correction.predict(self.scaling(inputs))


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

    lightgbm.cv(
        parameters,
        lightgbm.Dataset(x, residual, params=parameters),
        num_boost_round=MOST_TREES,
        folds=splits,
        callbacks=[remember, lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
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
        values, vectors = np.linalg.eigh(x[rows].T @ x[rows])
        rotated = vectors.T @ (x[rows].T @ residual[rows])
        return (rotated / (np.maximum(values, 0) + PENALTIES[:, None] * rows.sum())) @ vectors.T

    each = np.unique(folds)
    left = [residual[folds == fold, None] - x[folds == fold] @ weights(folds != fold).T for fold in each]
    losses = [[_loss(residual[folds == fold], power) for fold in each]]
    losses += [[_loss(part[:, i], power) for part in left] for i in range(len(PENALTIES))]
    found = simplest(losses)
    if found == 0:
        return None
    return Ridge(float(PENALTIES[found - 1]), weights(np.full(len(x), True))[found - 1].tolist())


def regressor(name: str, parameters: dict[str, Any], seed: int) -> Corrector:
    """A corrector of scikit-learn by its name and settings; it is used where it clearly helps across the folds."""
    from models.regressors import build_regressor

    def fit(x: Array, residual: Array, folds: NDArray[np.int64], power: int) -> Regressor | None:
        def fitted(rows: NDArray[np.bool_]) -> Regressor:
            return Regressor(build_regressor(name, parameters, seed).fit(x[rows], residual[rows]))

        losses: list[list[float]] = [[], []]
        try:
            for fold in np.unique(folds):
                held_out = folds == fold
                losses[0].append(_loss(residual[held_out], power))
                losses[1].append(_loss(residual[held_out] - fitted(~held_out).predict(x[held_out]), power))
            return fitted(np.full(len(x), True)) if simplest(losses) else None
        except ValueError as error:
            raise ConfigError(
                f"submissions.stack_regressor must fit the {len(x)} labelled rows of a target; scikit-learn says of "
                f"{name}: {' '.join(str(error).split()).rstrip('.')}. Change its parameters or choose another."
            ) from error

    return fit


def fit_stack(target: Target, default: str, without: Folds = NONE, corrector: Corrector = fit_trees) -> Stack:
    """A stack, fitted on the labelled rows of all folds but those in `without`.

    The residual of each row is that of the blend `default` fitted without the row's fold too. Size and use of the
    correction come from the error in the folds left, each predicted by a correction of the others.

    Raises:
        ConfigError: if a regressor of scikit-learn cannot be fitted with its parameters.
    """
    blend = target.fit(default, without)
    inputs = target.inputs[target.usable]
    left = target.left(without)
    inner = sorted({int(fold) for fold in target.known_folds[left]})
    scaling = _scaling(target, blend, inputs[left])
    if len(inner) < 2 or not scaling.spread > 0:
        return Stack(blend, scaling, None)
    residual = np.full(len(inputs), np.nan)
    for fold in inner:
        held_out = target.known_folds == fold
        residual[held_out] = target.known_y[held_out] - target.fit(default, without | {fold}).predict(inputs[held_out])
    power = 1 if exact_problem(target.metric) == "absolute" else 2
    correction = corrector(scaling(inputs[left]), residual[left] / scaling.spread, target.known_folds[left], power)
    return Stack(blend, scaling, correction)


def _scaling(target: Target, blend: Blend, inputs: Array) -> Scaling:
    features = inputs[:, target.n_stages :]
    if not len(inputs):
        return Scaling(0.0, 0.0, target.order, [0.0] * features.shape[1], [1.0] * features.shape[1])
    fitted = blend.predict(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a feature without any number
        means, scales = np.nan_to_num(np.nanmean(features, axis=0)), np.nan_to_num(np.nanstd(features, axis=0))
    scales = np.where(scales > 1e-9, scales, 1.0)
    return Scaling(float(fitted.mean()), float(fitted.std()), target.order, means.tolist(), scales.tolist())


def _loss(residual: Array, power: int) -> float:
    return float(np.mean(np.abs(residual) ** power))
