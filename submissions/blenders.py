"""Linear blends of one target: a weight for each column of predictions.

Every candidate has one signature, `(target, without) -> Blend`: it is fitted on the labelled rows of all folds but
those in `without`, and nothing of those folds enters, so the same functions serve the submission (`without` empty)
and the cross-fitted scores. Where no labelled row is left, every candidate is the plain mean.

Letters: n_rows, n_stages; E = y - columns, (n_rows, n_stages), the error of each stage in each row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from competition.metrics import Array, Metric
from submissions.convex import least_absolute_weights, least_squares_weights

Folds = frozenset[int]
NONE: Folds = frozenset()
SMALLEST_PENALTY, LARGEST_PENALTY = 1e-4, 10.0


@dataclass(frozen=True)
class Blend:
    """A weighted sum of columns.

    weights: (n_stages,).
    intercept: in the target's units; not 0 only where the weights do not sum to 1 (see `shrunk_ridge`).
    settings: what was tuned, by name.
    """

    weights: Array
    intercept: float = 0.0
    settings: dict[str, float] = field(default_factory=dict)

    def predict(self, columns: Array) -> Array:
        """Predictions (n_rows,) for columns (n_rows, n_stages)."""
        return weighted_sum(columns, self.weights, self.intercept)


def weighted_sum(columns: Array, weights: Array, intercept: float) -> Array:
    """(n_rows,) predictions; a row's bytes depend on that row alone, which a matrix product does not promise."""
    total = np.full(len(columns), intercept)
    for j, weight in enumerate(weights):
        total += weight * columns[:, j]
    return total


class Target:
    """Columns and labels of one target with the sums over each fold, from which most candidates are solved.

    Inside, columns are in an order given by their content, so the order of stages changes no byte of a blend.

    Args:
        columns: (n_rows, n_stages), out-of-fold predictions in the target's units; NaN only where the fold is -1.
        y: (n_rows,), NaN where there is no label.
        folds: (n_rows,); rows with fold -1 are never used.
        metric: what the blend is for.
        trials: of Optuna, on the two numbers of the shrunk ridge.
        seed: of Optuna's sampler.
        features: (n_rows, n_features), NaN where one is missing; seen by stacks alone, behind the columns.
    """

    def __init__(
        self, columns: Array, y: Array, folds: NDArray[np.int64], metric: Metric, trials: int = 40, seed: int = 0,
        features: Array | None = None,
    ) -> None:  # fmt: skip
        self.columns, self.y, self.folds, self.metric, self.trials, self.seed = columns, y, folds, metric, trials, seed
        self.inputs = columns if features is None else np.hstack([columns, features])
        self.usable = (folds >= 0) & ~np.isnan(y)
        used = columns[self.usable]
        self.order = sorted(range(columns.shape[1]), key=lambda j: used[:, j].tobytes())
        used = used[:, self.order]
        # Measured from a number near the labels that knows none of them: sums of squares keep their digits.
        self.zero = float(used.mean()) if len(used) else 0.0
        self.known_y, self.known_folds = y[self.usable], folds[self.usable]
        self.rows = np.hstack(
            [np.ones((len(used), 1)), self.known_y[:, None] - self.zero, self.known_y[:, None] - used]
        )  # (n_usable, 2 + n_stages): 1, y, E
        self.folds_with_labels: Folds = frozenset(int(fold) for fold in np.unique(self.known_folds))
        self._sums_of = {
            k: self.rows[self.known_folds == k].T @ self.rows[self.known_folds == k] for k in self.folds_left(NONE)
        }
        self._fitted: dict[tuple[str, Folds], Blend] = {}

    @property
    def n_stages(self) -> int:
        """Number of columns."""
        return self.columns.shape[1]

    def folds_left(self, without: Folds) -> list[int]:
        """Folds with labels that are not in `without`, ascending."""
        return sorted(self.folds_with_labels - without)

    def left(self, without: Folds) -> NDArray[np.bool_]:
        """Mask of the rows of `rows` that are not in the folds `without`."""
        return np.isin(self.known_folds, self.folds_left(without))

    def sums(self, without: Folds) -> Array:
        """Sum of z z' over the rows left, (2 + n_stages, 2 + n_stages), z being a row of `rows`."""
        size = 2 + self.n_stages
        return sum((self._sums_of[fold] for fold in self.folds_left(without)), np.zeros((size, size)))

    def sums_of(self, fold: int) -> Array:
        """The same for one fold."""
        return self._sums_of[fold]

    def blend(self, weights: Array, intercept: float = 0.0, settings: dict[str, float] | None = None) -> Blend:
        """A blend from weights in the inner order of columns."""
        outer = np.empty(self.n_stages)
        outer[self.order] = weights
        return Blend(outer, intercept, settings or {})

    def fit(self, name: str, without: Folds = NONE) -> Blend:
        """The candidate `name` fitted without some folds; fitted once."""
        key = (name, without & self.folds_with_labels)
        if key not in self._fitted:
            self._fitted[key] = BLENDERS[name](self, key[1]) if self.folds_left(key[1]) else mean(self, key[1])
        return self._fitted[key]


def mean(target: Target, without: Folds) -> Blend:
    """The plain mean of the columns."""
    return target.blend(np.full(target.n_stages, 1.0 / target.n_stages))


def best_single(target: Target, without: Folds) -> Blend:
    """All weight on the column with the best score; for a metric of the user's own, the least squared error."""
    if solved_by_squares(target.metric):
        errors = np.diag(target.sums(without))[2:]
    else:
        rows = target.rows[target.left(without)]
        y = rows[:, 1] + target.zero
        errors = np.array([_loss(target.metric, y, y - rows[:, 2 + j]) for j in range(target.n_stages)])
    return target.blend(np.eye(target.n_stages)[int(np.argmin(errors))])


def convex(target: Target, without: Folds) -> Blend:
    """Weights of at least 0 that sum to 1, exact for squared errors and for the MAE; the former serve other metrics."""
    if target.metric.name == "mae":
        return target.blend(least_absolute_weights(target.rows[target.left(without), 2:]))
    return target.blend(least_squares_weights(target.sums(without)[2:, 2:]))


class _Ridges:
    """The ridge of the shrunk ridge, fitted without each of several sets of folds, for any two settings.

    Columns and labels are measured from the mean label of the rows fitted on, so the zero of the unit (Celsius or
    Kelvin) changes no weight; the weights of the ridge then leave an intercept of (1 - their sum) times that mean.
    """

    def __init__(self, target: Target, sets: list[Folds]) -> None:
        parts = []
        identity = np.eye(target.n_stages)
        for without in sets:
            sums = target.sums(without)
            centre = sums[0, 1] / sums[0, 0]
            columns = np.hstack([np.full((target.n_stages, 1), -centre), np.ones((target.n_stages, 1)), -identity])
            values, vectors = np.linalg.eigh(columns @ sums @ columns.T)
            right = vectors.T @ (columns @ sums[:, 2:])
            variance = sums[1, 1] / sums[0, 0] - centre**2
            start = target.fit("convex", without).weights[target.order]
            parts.append((centre, np.maximum(values, 0), vectors, right, sums[0, 0] * max(variance, 1e-300), start))
        self.centre, self.values, self.vectors, self.right, self.unit, self.convex = (
            np.array(part) for part in zip(*parts, strict=True)
        )

    def weights(self, towards_equal: float, penalty: float) -> tuple[Array, Array]:
        """The start w0 and the ridge's correction v, each (n_sets, n_stages); the blend is w0 + v."""
        start = towards_equal / self.convex.shape[1] + (1 - towards_equal) * self.convex
        rotated = (self.right @ start[:, :, None])[:, :, 0] / (self.values + penalty * self.unit[:, None])
        return start, (self.vectors @ rotated[:, :, None])[:, :, 0]


def shrunk_ridge(target: Target, without: Folds) -> Blend:
    """Convex and equal weights mixed, corrected by a ridge on what they leave; both amounts tuned by Optuna.

    w = w0 + v; w0 = t * equal + (1 - t) * convex; v the ridge solution on the residual y - columns w0 with penalty
    a * n_rows, columns and target in units of the target's spread. (t, a) minimise the cross-fitted error: each fold
    left is predicted by weights, convex ones included, that were fitted without it. With fewer than two folds left
    nothing can be cross-fitted, and the plain mean is returned.
    Source: shared/reference/ensembling.md, section 2b.
    """
    inner = target.folds_left(without)
    if len(inner) < 2:
        return mean(target, without)
    ridges = _Ridges(target, [without | {fold} for fold in inner])
    squares = np.array([target.sums_of(fold) for fold in inner])
    by_squares = solved_by_squares(target.metric)
    rows = [] if by_squares else [target.rows[target.known_folds == fold] for fold in inner]
    y = np.concatenate([part[:, 1] for part in rows]) + target.zero if rows else np.empty(0)

    def error(towards_equal: float, penalty: float) -> float:
        start, correction = ridges.weights(towards_equal, penalty)
        total = correction.sum(axis=1)
        # y - prediction = E (w0 + v) - (sum of v) (y - centre), as a combination of the entries 1, y, E of a row
        residual = np.column_stack([total * ridges.centre, -total, start + correction])
        if by_squares:
            return float(np.einsum("ki,kij,kj->", residual, squares, residual))
        left = np.concatenate([part @ combination for part, combination in zip(rows, residual, strict=True)])
        return float(np.abs(left).mean()) if target.metric.name == "mae" else _loss(target.metric, y, y - left)

    settings = _tuned(error, target.trials, target.seed)
    ridge = _Ridges(target, [without])
    start, correction = ridge.weights(**settings)
    intercept = -float(correction.sum()) * (target.zero + float(ridge.centre[0]))
    return target.blend(start[0] + correction[0], intercept, settings)


def _tuned(error: Callable[[float, float], float], trials: int, seed: int) -> dict[str, float]:
    """The settings of least error. The first two trials are the corners: equal and convex weights, hardly corrected."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    for corner in (1.0, 0.0):
        study.enqueue_trial({"towards_equal": corner, "penalty": LARGEST_PENALTY})
    study.optimize(
        lambda trial: error(
            trial.suggest_float("towards_equal", 0, 1),
            trial.suggest_float("penalty", SMALLEST_PENALTY, LARGEST_PENALTY, log=True),
        ),
        n_trials=trials,
    )
    return dict(study.best_params)


def solved_by_squares(metric: Metric) -> bool:
    """Whether sums of squares decide: for R2 and its kin they are exact, for a user's own metric the stand-in."""
    return metric.column is None or metric.name in ("rmse", "mse", "r2", "explained_variance")


def _loss(metric: Metric, y: Array, y_pred: Array) -> float:
    """The metric as something to minimise; infinite where it is not defined."""
    score = metric.one(y, y_pred)
    if np.isnan(score):
        return float("inf")
    return -score if metric.greater_is_better else score


BLENDERS: dict[str, Callable[[Target, Folds], Blend]] = {
    "best_single": best_single,
    "mean": mean,
    "convex": convex,
    "shrunk_ridge": shrunk_ridge,
}
