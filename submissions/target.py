"""What a blend is fitted on: the columns and labels of one target, or of all where they share their weights.

Blenders see standard units: a label is measured from the mean of the labels fitted on and by their spread, columns
like their labels. So neither the unit of a target nor its zero changes a weight, and targets with other units add up.

Letters: n_rows, n_stages; E = y - columns, (n_rows, n_stages), the error of each stage in each row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from competition.metrics import Array, Metric

Folds = frozenset[int]
NONE: Folds = frozenset()


def exact_problem(metric: Metric) -> Literal["squared", "absolute"] | None:
    """Which errors decide for a metric, by sums of which its best weights are found exactly; None: neither.

    A metric of the user's own may need all targets at once and is never asked about one: squares stand in.
    """
    return "squared" if metric.column is None else metric.per_target


@dataclass(frozen=True)
class Blend:
    """A weighted sum of columns.

    weights: (n_stages,).
    intercept: in the units of the columns; not 0 only where the weights do not sum to 1, and of a ridge.
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


@dataclass(frozen=True)
class Units:
    """Number, mean and spread of the labels that a blend is fitted on."""

    n: int
    centre: float
    spread: float


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
        weight_trials: of Optuna, on the weights themselves.
        features: (n_rows, n_features), NaN where one is missing; seen by stacks alone, behind the columns.
    """

    def __init__(
        self,
        columns: Array,
        y: Array,
        folds: NDArray[np.int64],
        metric: Metric,
        trials: int = 40,
        seed: int = 0,
        weight_trials: int = 100,
        features: Array | None = None,
    ) -> None:
        self.inputs = columns if features is None else np.hstack([columns, features])
        self.columns, self.y, self.folds, self.metric = columns, y, folds, metric
        self.trials, self.seed, self.weight_trials = trials, seed, weight_trials
        self.usable = (folds >= 0) & ~np.isnan(y)
        self.known_y, self.known_folds = y[self.usable], folds[self.usable]
        self.together = [self]  # see `share_weights`
        self._solved: dict[tuple[str, Folds], Blend] = {}

    @property
    def n_stages(self) -> int:
        """Number of columns."""
        return self.columns.shape[1]

    @cached_property
    def folds_with_labels(self) -> Folds:
        """Of this target and those that share its weights."""
        return frozenset(int(fold) for target in self.together for fold in np.unique(target.known_folds))

    def folds_left(self, without: Folds) -> list[int]:
        """Folds with labels that are not in `without`, ascending."""
        return sorted(self.folds_with_labels - without)

    def left(self, without: Folds) -> NDArray[np.bool_]:
        """Mask of the labelled rows, (n_usable,), that are not in the folds `without`."""
        return ~np.isin(self.known_folds, list(without))

    @cached_property
    def order(self) -> list[int]:
        """Positions of the columns in the order in which blenders see them."""
        used = np.concatenate([target.columns[target.usable] for target in self.together])
        if not len(used):
            return list(range(self.n_stages))
        low, high = used.min(axis=0), used.max(axis=0)  # first what the order of rows cannot change
        return sorted(range(self.n_stages), key=lambda j: (low[j], high[j], used[:, j].tobytes()))

    @cached_property
    def known_columns(self) -> Array:
        """(n_usable, n_stages), in the inner order."""
        return self.columns[self.usable][:, self.together[0].order]

    @cached_property
    def _zero(self) -> float:
        """A number near the labels that knows none of them: sums of squares about it keep their digits."""
        return float(np.median(self.known_columns)) if len(self.known_y) else 0.0

    @cached_property
    def _sums_of(self) -> dict[int, Array]:
        """Fold -> sum of z z' over its labelled rows, z = (1, y - zero, E)."""
        sums = {}
        for fold in np.unique(self.known_folds):
            own = self.known_folds == fold
            y, columns = self.known_y[own], self.known_columns[own]
            z = np.hstack([np.ones((len(y), 1)), y[:, None] - self._zero, y[:, None] - columns])
            sums[int(fold)] = z.T @ z
        return sums

    def _sums(self, without: Folds) -> Array:
        size = 2 + self.n_stages
        left = [self._sums_of[fold] for fold in sorted(self._sums_of) if fold not in without]
        return sum(left, np.zeros((size, size)))

    def units(self, without: Folds) -> Units:
        """Of the labels of this target that are left."""
        sums = self._sums(without)
        if not sums[0, 0]:
            return Units(0, self._zero, 1.0)
        centre = sums[0, 1] / sums[0, 0]
        spread = np.sqrt(max(sums[1, 1] / sums[0, 0] - centre**2, 0.0))
        return Units(int(sums[0, 0]), float(self._zero + centre), float(spread) or 1.0)

    def labelled(self, without: Folds) -> list[Target]:
        """Of the targets that share their weights, those with a label left."""
        return [target for target in self.together if target.units(without).n]

    def moments(self, without: Folds) -> Array:
        """Mean of z z' over the rows left, z = (1, y, E) in standard units, (2 + n_stages, 2 + n_stages).

        Of targets that share their weights the mean, so each counts the same.
        """
        of_targets = []
        for target in self.labelled(without):
            units = target.units(without)
            of_targets.append(target._measured(target._sums(without), units, units.spread) / units.n)
        return np.mean(of_targets, axis=0)

    def moments_of(self, fold: int, without: Folds) -> Array:
        """The same sums for one fold of those left, y measured from the mean label of the other folds left.

        Such moments of all folds left add up: they are parts of one mean, by the spread of all labels left.
        """
        total = np.zeros((2 + self.n_stages, 2 + self.n_stages))
        for target in self.labelled(without | {fold}):
            if fold in target._sums_of:
                whole, others = target.units(without), target.units(without | {fold})
                total += target._measured(target._sums_of[fold], others, whole.spread) / whole.n
        return total

    def _measured(self, sums: Array, units: Units, spread: float) -> Array:
        """Sums of z z' for z = (spread of `units`, y - centre of `units`, E), all divided by `spread`."""
        change = np.eye(2 + self.n_stages)
        change[0, 0], change[1, 0] = units.spread, self._zero - units.centre
        return change @ sums @ change.T / spread**2

    def errors(self, without: Folds) -> Array:
        """E of the rows left in standard units, (n_rows, n_stages); rows of each target sum to the same weight."""
        parts = []
        for target in self.labelled(without):
            units, left = target.units(without), target.left(without)
            parts.append((target.known_y[left, None] - target.known_columns[left]) / (units.spread * units.n))
        return np.vstack(parts)

    def solve(self, name: str, without: Folds) -> Blend:
        """The candidate `name` in standard units and the inner order of columns; solved once."""
        from submissions.blenders import BLENDERS  # that page is written in terms of this one

        key = (name, without & self.folds_with_labels)
        if key not in self._solved:
            self._solved[key] = BLENDERS[name](self, key[1])
        return self._solved[key]

    def fit(self, name: str, without: Folds = NONE) -> Blend:
        """The candidate `name`, fitted without some folds; the plain mean where no labelled row is left."""
        units = self.units(without)
        if units.n == 0:
            return Blend(np.full(self.n_stages, 1.0 / self.n_stages))
        first = self.together[0]
        solved = first.solve(name, without)
        weights = np.empty(self.n_stages)
        weights[first.order] = solved.weights
        rest = 1 - float(solved.weights.sum())
        rest = rest if abs(rest) > 1e-12 else 0.0  # rounding
        return Blend(weights, rest * units.centre + units.spread * solved.intercept, solved.settings)


def share_weights(targets: list[Target]) -> None:
    """Let targets of the same rows and columns have one vector of weights, fitted on the labels of all of them."""
    for target in targets:
        target.together = targets


class Loss:
    """What a metric says of blends on the rows left, as something to minimise.

    Either on all rows left by one blend, or cross-fitted: each fold left by a blend that was fitted without it.

    Args:
        target: with labels left.
        without: folds that are left out.
        cross_fitted: whether each fold has a blend of its own.
    """

    def __init__(self, target: Target, without: Folds, cross_fitted: bool) -> None:
        self.metric, self.problem = target.metric, exact_problem(target.metric)
        inner = target.folds_left(without)
        if self.problem == "squared":
            of_parts = [target.moments_of(k, without) for k in inner] if cross_fitted else [target.moments(without)]
            self.moments = np.array(of_parts)
        else:
            parts = [([fold], without | {fold}) for fold in inner] if cross_fitted else [(inner, without)]
            self.rows = [_Rows(each, parts, each.units(without).spread) for each in target.labelled(without)]

    def __call__(self, weights: Array, shifts: Array | None = None) -> Array:
        """Loss of several blends, (n_blends,).

        Args:
            weights: (n_blends, n_parts, n_stages); a part is a fold where the loss is cross-fitted, else everything.
            shifts: (n_blends, n_parts), intercepts in standard units; 0 where not given.
        """
        shifts = np.zeros(weights.shape[:2]) if shifts is None else shifts
        if self.problem == "squared":
            rest = 1 - weights.sum(axis=2)
            residual = np.concatenate([-shifts[:, :, None], rest[:, :, None], weights], axis=2)  # of (1, y, E)
            return np.einsum("bpi,pij,bpj->b", residual, self.moments, residual, optimize=True)
        return np.mean([self._of_target(rows, weights, shifts) for rows in self.rows], axis=0)

    def _of_target(self, rows: _Rows, weights: Array, shifts: Array) -> Array:
        y_pred = rows.predict(weights, shifts)
        if self.problem == "absolute":
            return np.abs(rows.y[:, None] - y_pred).mean(axis=0) / rows.spread
        return np.array([_loss(self.metric, rows.y, one) for one in y_pred.T])


class _Rows:
    """The labelled rows left of one target, part by part: its folds, and those that its blend was fitted without."""

    def __init__(self, target: Target, parts: list[tuple[list[int], Folds]], spread: float) -> None:
        own = [np.isin(target.known_folds, folds) for folds, _ in parts]
        self.columns = [target.known_columns[which] for which in own]
        self.units = [target.units(without) for _, without in parts]
        self.y = np.concatenate([target.known_y[which] for which in own])
        self.spread = spread

    def predict(self, weights: Array, shifts: Array) -> Array:
        """(n_rows, n_blends)."""
        y_pred = []
        for p, (columns, units) in enumerate(zip(self.columns, self.units, strict=True)):
            rest = 1 - weights[:, p].sum(axis=1)
            rest = np.where(np.abs(rest) > 1e-12, rest, 0.0)
            y_pred.append(columns @ weights[:, p].T + rest * units.centre + units.spread * shifts[:, p])
        return np.concatenate(y_pred)


def _loss(metric: Metric, y: Array, y_pred: Array) -> float:
    """The metric as something to minimise; infinite where it is not defined."""
    score = metric.one(y, y_pred)
    if np.isnan(score):
        return float("inf")
    return -score if metric.greater_is_better else score
