"""What weights are solved from: columns and labels as matrices, and their sums over each fold.

Weights are solved in standard units: a label is measured from the mean of the labels fitted on and by their standard
deviation, columns like their labels. So neither the unit of a target nor its zero changes a weight, and targets with
other units add up. Letters: E = y - columns, (n_rows, n_columns), the error of each column in each row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from competition.metrics import Array, Metric

Folds = frozenset[int]
NONE: Folds = frozenset()


@dataclass(frozen=True)
class Matrices:
    """All that a candidate may be fitted on.

    P: (n_rows, n_columns, n_outputs), out-of-fold predictions; NaN only where the fold is -1.
    y: (n_rows, n_targets), NaN where there is no label.
    folds: (n_rows,); rows with fold -1 are never used.
    weights: whether each target has weights of its own, or all share one vector.
    trials, weight_trials: of Optuna, on the two numbers of the shrunk ridge and on the weights themselves.
    seeds: of Optuna's sampler, one for each target.
    features: (n_rows, n_features), NaN where one is missing; seen by stacks alone.
    """

    P: Array
    y: Array
    folds: NDArray[np.int64]
    metric: Metric
    weights: Literal["per_target", "shared"] = "per_target"
    trials: int = 40
    weight_trials: int = 100
    seeds: tuple[int, ...] = ()
    features: Array | None = None

    @property
    def seen_by_stacks(self) -> Array:
        """The features; no columns where there are none."""
        return np.empty((len(self.y), 0)) if self.features is None else self.features

    def left(self, without: Folds) -> NDArray[np.bool_]:
        """Mask of the rows with a fold that is not in `without`, (n_rows,)."""
        return (self.folds >= 0) & ~np.isin(self.folds, list(without))

    @cached_property
    def problems(self) -> list[Problem]:
        """What weights are solved for: one vector for each target, or one for all."""
        targets, metric = list(range(self.y.shape[1])), self.metric
        if metric.column is None and len(targets) == 1:
            metric = replace(metric, column=lambda y, y_pred: self.metric(y[:, None], y_pred[:, None]))
        together = [targets] if self.weights == "shared" else [[t] for t in targets]
        return [Problem(self, each, metric, self.seeds[each[0]] if self.seeds else 0) for each in together]


class Units(NamedTuple):
    """Number, mean and standard deviation of the labels that a blend is fitted on."""

    n: int
    centre: float
    spread: float


class Labelled:
    """The labelled rows of one target, with the sum of z z' over each fold, z = (1, y - zero, E)."""

    def __init__(self, columns: Array, y: Array, folds: NDArray[np.int64]) -> None:
        self.columns, self.y, self.folds = columns, y, folds
        # near the labels, and without one of them: sums of squares about it keep their digits
        self.zero = float(np.median(columns)) if len(y) else 0.0
        self.sums: dict[int, Array] = {}
        for fold in np.unique(folds):
            own = y[folds == fold, None]
            z = np.hstack([np.ones_like(own), own - self.zero, own - columns[folds == fold]])
            self.sums[int(fold)] = z.T @ z

    def sums_without(self, without: Folds) -> Array:
        """Over all folds but some."""
        left = [part for fold, part in self.sums.items() if fold not in without]
        return sum(left, np.zeros((2 + self.columns.shape[1],) * 2))

    def units(self, without: Folds) -> Units:
        """Of the labels that are left."""
        n, total, squares = self.sums_without(without)[[0, 0, 1], [0, 1, 1]]
        if not n:
            return Units(0, self.zero, 1.0)
        return Units(int(n), self.zero + total / n, float(np.sqrt(max(squares / n - (total / n) ** 2, 0.0))) or 1.0)


@dataclass(frozen=True)
class Solution:
    """Weights (n_columns,) and an intercept in standard units; settings: what was tuned, by name."""

    weights: Array
    intercept: float = 0.0
    settings: dict[str, float] = field(default_factory=dict)


Loss = Callable[[Array, Array], Array]
Solver = Callable[["Problem", Folds], Solution]
"""Solves for weights on the labelled rows of all folds but some."""


class Problem:
    """Columns and labels that get one vector of weights.

    Inside, columns are in an order given by their content: the names of stages do not change a blend.
    """

    def __init__(self, m: Matrices, targets: list[int] | range, metric: Metric, seed: int) -> None:
        known = {t: (m.folds >= 0) & ~np.isnan(m.y[:, t]) for t in targets}
        used = np.concatenate([m.P[rows, :, t] for t, rows in known.items()])
        self.n_columns = m.P.shape[1]
        self.order = np.lexsort((used.max(axis=0), used.min(axis=0))) if len(used) else np.arange(self.n_columns)
        self.targets = [Labelled(m.P[r, :, t][:, self.order], m.y[r, t], m.folds[r]) for t, r in known.items()]
        self.metric, self.seed, self.trials, self.weight_trials = metric, seed, m.trials, m.weight_trials
        # A metric of the user's own may need all targets at once and is not asked about one: squares stand in.
        self.exact = "squared" if metric.column is None else metric.per_target
        self._solved: dict[tuple[str, Folds], Solution] = {}

    def solve(self, solver: Solver, without: Folds) -> Solution:
        """A solution in the inner order of columns; solved once."""
        key = (solver.__name__, without.intersection(self.folds_left(NONE)))
        if key not in self._solved:
            self._solved[key] = solver(self, key[1])
        return self._solved[key]

    def folds_left(self, without: Folds) -> list[int]:
        """Folds with labels that are not in `without`, ascending."""
        return sorted({fold for target in self.targets for fold in target.sums} - without)

    def moments(self, without: Folds) -> Array:
        """Mean of z z' over the rows left, z = (1, y, E) in standard units, in which each target counts the same."""
        parts = []
        for target in self.labelled(without):
            n, centre, spread = target.units(without)
            change = np.diag([spread, *np.ones(1 + self.n_columns)])
            change[1, 0] = target.zero - centre
            parts.append(change @ target.sums_without(without) @ change.T / spread**2 / n)
        return np.mean(parts, axis=0)

    def labelled(self, without: Folds) -> list[Labelled]:
        """The targets with a label left."""
        return [target for target in self.targets if target.units(without).n]

    def errors(self, without: Folds) -> Array:
        """E of the rows left in standard units, (n_rows, n_columns); rows of each target sum to the same weight."""
        parts = []
        for target in self.labelled(without):
            units, left = target.units(without), ~np.isin(target.folds, list(without))
            parts.append((target.y[left, None] - target.columns[left]) / (units.spread * units.n))
        return np.vstack(parts)

    def loss(self, without: Folds, cross_fitted: bool) -> Loss:
        """What the metric says of several blends on the rows left, as something to minimise.

        Returns:
            A function of weights (n_blends, n_parts, n_columns) and intercepts (n_blends, n_parts) in standard units;
            a part is a fold left, with a blend fitted without it, where the loss is cross-fitted, else everything.
        """
        inner = self.folds_left(without)
        parts = [([fold], without | {fold}) for fold in inner] if cross_fitted else [(inner, without)]
        losses = [self._loss_of(target, parts, target.units(without)) for target in self.labelled(without)]
        return lambda weights, intercepts: np.mean([loss(weights, intercepts) for loss in losses], axis=0)

    def _loss_of(self, target: Labelled, parts: list[tuple[list[int], Folds]], whole: Units) -> Loss:
        """The loss of one target; parts: their folds, and those that their blend is fitted without."""
        units = [target.units(without) for _, without in parts]
        rows = [np.isin(target.folds, own) for own, _ in parts]
        y, columns = np.concatenate([target.y[own] for own in rows]), [target.columns[own] for own in rows]
        sums = [sum(target.sums.get(fold, 0.0) for fold in own) for own, _ in parts]

        def squared(weights: Array, intercepts: Array) -> Array:
            total = np.zeros(len(weights))
            for p, (part, unit) in enumerate(zip(sums, units, strict=True)):
                rest, added = 1 - weights[:, p].sum(axis=1), offset(weights[:, p], intercepts[:, p], unit)
                residual = np.column_stack([rest * target.zero - added, rest, weights[:, p]])  # of (1, y - zero, E)
                total += np.einsum("bi,ij,bj->b", residual, part, residual, optimize=True)
            return total / whole.n / whole.spread**2

        def by_rows(weights: Array, intercepts: Array) -> Array:
            parts = enumerate(zip(columns, units, strict=True))
            y_pred = np.vstack(
                [x @ weights[:, p].T + offset(weights[:, p], intercepts[:, p], u) for p, (x, u) in parts]
            )
            if self.exact == "absolute":
                return np.abs(y[:, None] - y_pred).mean(axis=0) / whole.spread
            scores = np.array([self.metric.one(y, one) for one in y_pred.T])
            return np.nan_to_num(-scores if self.metric.greater_is_better else scores, nan=np.inf)

        return squared if self.exact == "squared" else by_rows


def offset(weights: Array, intercept: Array | float, units: Units) -> Array:
    """What is added to columns that are weighted by (..., n_columns), in a target's own units."""
    rest = 1 - weights.sum(axis=-1)
    return np.where(np.abs(rest) > 1e-12, rest, 0.0) * units.centre + units.spread * intercept
