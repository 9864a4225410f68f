"""What weights are solved from: columns and labels as matrices, and their sums over each fold.

Weights are solved in standard units: a label is measured from the mean of the labels fitted on and by their standard
deviation, columns like their labels. So neither the unit of a target nor its zero changes a weight, and targets with
other units add up. Letters: E = y - columns, (n_rows, n_columns), the error of each column in each row.

Probabilities are numbers like others, with the label 1 for a row's class and 0 for the others: each row of a multiclass
target stands there once for each class. Their weights sum to 1, or are those of their logits (`logits.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from competition.metrics import METRICS, Metric
from competition.types import Array, Integers
from submissions.blend.convex import least_squares_weights
from submissions.blend.logits import Link, log_loss_weights, logits, margins, probabilities

FoldSet = frozenset[int]
NO_FOLDS: FoldSet = frozenset()
MIN_POSITIVES = 10
"""Rows of each class in each fold from which weights are tuned on a metric of ranks."""


@dataclass(frozen=True)
class BlendData:
    """All that a candidate may be fitted on.

    preds: (n_rows, n_columns, n_outputs), out-of-fold predictions; NaN only where the fold is -1.
    y: (n_rows, n_targets), NaN where there is no label.
    folds: (n_rows,); rows with fold -1 are never used.
    weights: whether each target has weights of its own, or all share one vector.
    trials, weight_trials: of Optuna, on the two numbers of the shrunk ridge and on the weights themselves.
    seeds: of Optuna's sampler, one for each target.
    has_probabilities: whether columns are probabilities, and labels the numbers of classes.
    """

    preds: Array
    y: Array
    folds: Integers
    metric: Metric
    weights: Literal["per_target", "shared"] = "per_target"
    trials: int = 40
    weight_trials: int = 100
    seeds: tuple[int, ...] = ()
    has_probabilities: bool = False

    @property
    def link(self) -> Link:
        """On which scale columns may be summed beside their own."""
        several = self.preds.shape[2] > self.y.shape[1]
        return ("softmax" if several else "logistic") if self.has_probabilities else "identity"

    @property
    def outputs_per_target(self) -> int:
        """How many outputs belong to one target."""
        return self.preds.shape[2] if self.link == "softmax" else 1

    def outputs_of(self, target: int) -> slice:
        """Which outputs are those of a target."""
        return slice(None) if self.link == "softmax" else slice(target, target + 1)

    def cells(self, target: int) -> tuple[Array, Array, Integers]:
        """Columns (n_cells, n_columns), labels and folds of the rows with a label, once for each output of theirs."""
        known = self.rows_outside(NO_FOLDS) & ~np.isnan(self.y[:, target])
        x, y = self.preds[known, :, self.outputs_of(target)].swapaxes(1, 2), self.y[known, target, None]
        if self.link == "softmax":
            y = (y == np.arange(self.outputs_per_target)).astype(np.float64)
        return x.reshape(-1, x.shape[2]), y.ravel(), np.repeat(self.folds[known], self.outputs_per_target)

    @property
    def convex_objective(self) -> Literal["squared", "absolute"] | None:
        """The errors whose sum is least where the score is best; None where neither are.

        Squares stand in for a metric of labels, which come after the blend, and for one of the user's own that may need
        all targets at once.
        """
        return self.metric.separable_loss if self.can_be_asked and self.metric.kind != "decisions" else "squared"

    @property
    def can_be_asked(self) -> bool:
        """Whether the metric can be asked about one target by itself."""
        return self.metric.column_score is not None or self.y.shape[1] == 1

    def rows_outside(self, without: FoldSet) -> NDArray[np.bool_]:
        """Mask of the rows with a fold that is not in `without`, (n_rows,)."""
        return (self.folds >= 0) & ~np.isin(self.folds, list(without))

    @cached_property
    def problems(self) -> "list[WeightProblem]":
        """What weights are solved for: one vector for each target, or one for all."""
        targets = range(self.y.shape[1])
        return [_problem(self, each) for each in ([[*targets]] if self.weights == "shared" else [[t] for t in targets])]


@dataclass(frozen=True)
class Solution:
    """Weights (n_columns,) and an intercept in standard units; settings: what was tuned, by name."""

    weights: Array
    intercept: float = 0.0
    settings: dict[str, float] = field(default_factory=dict)


Solver = Callable[["WeightProblem"], Solution]


@dataclass(frozen=True, eq=False)
class WeightProblem:
    """The labelled rows of the targets that get one vector of weights, in some of the folds.

    folds: those left, ascending, of all folds with labels.
    order: of the columns inside, given by their content: the names of stages do not change a blend.
    rows: for each target, fold -> columns (n_rows, n_columns) and labels (n_rows,).
    sums: fold -> sum of z z' over its rows, z = (1, y - zero, E), (n_targets, 2 + n_columns, 2 + n_columns).
    zero: near the labels of each target, so that sums of squares about it keep their digits, (n_targets,).
    restricted: folds left -> the same problem on them.
    """

    m: BlendData
    seed: int
    folds: list[int]
    order: Integers
    rows: list[dict[int, tuple[Array, Array]]]
    sums: dict[int, Array]
    zero: Array
    restricted: "dict[FoldSet, WeightProblem]" = field(default_factory=dict)
    solved: dict[Solver, Solution] = field(default_factory=dict, init=False)

    def without(self, folds: FoldSet) -> "WeightProblem":
        """The same without the rows of some folds; made once, so that nothing is solved twice."""
        left = frozenset(self.folds) - folds
        if left not in self.restricted:
            self.restricted[left] = replace(self, folds=sorted(left))
        return self.restricted[left]

    @cached_property
    def inner(self) -> "list[WeightProblem]":
        """The problem without each of its folds."""
        return [self.without(frozenset({fold})) for fold in self.folds]

    def solve(self, solver: Solver) -> Solution:
        """A solution in the inner order of columns; solved once."""
        if solver not in self.solved:
            self.solved[solver] = solver(self)
        return self.solved[solver]

    @property
    def n_columns(self) -> int:
        """How many columns there are."""
        return len(self.order)

    @cached_property
    def total(self) -> Array:
        """The sums of all folds left."""
        return sum((self.sums[fold] for fold in self.folds), np.zeros((len(self.zero),) + (2 + self.n_columns,) * 2))

    @cached_property
    def units(self) -> tuple[Array, Array, Array]:
        """Number, mean and standard deviation of the labels left, (n_targets,) each; 1 for a deviation of 0."""
        n, labels, squares = self.total[:, [0, 0, 1], [0, 1, 1]].T
        mean, mean_square = (each / np.maximum(n, 1) for each in (labels, squares))
        spread = np.sqrt(np.maximum(mean_square - mean**2, 0.0))
        return n, self.zero + mean, np.where(spread > 0, spread, 1.0)

    @cached_property
    def moments(self) -> Array:
        """Mean of z z' over the rows left, z = (1, y, E) in standard units, in which each target counts the same."""
        known = self.units[0] > 0
        n, centre, spread = (each[known, None, None] for each in self.units)
        change = np.tile(np.eye(2 + self.n_columns), (len(n), 1, 1))
        change[:, :1, :1], change[:, 1:2, :1] = spread, self.zero[known, None, None] - centre
        return (change @ self.total[known] @ change.swapaxes(1, 2) / spread**2 / n).mean(axis=0)

    @property
    def of_all_targets(self) -> Array:
        """Mean of E E' in standard units over all targets in the folds that are left here, (n_columns, n_columns)."""
        gone = frozenset(self.m.folds.tolist()) - frozenset(self.folds)
        left = [problem.without(gone) for problem in self.m.problems]
        known = [(part.moments[2:, 2:], np.argsort(part.order)[self.order]) for part in left if part.labelled]
        return np.mean([moments[np.ix_(order, order)] for moments, order in known], axis=0)

    @property
    def errors(self) -> Array:
        """E of the rows left in standard units, (n_rows, n_columns); rows of each target sum to the same weight."""
        parts = []
        for rows, n, _, spread in zip(self.rows, *self.units, strict=True):
            parts += [(y[:, None] - x) / (spread * n) for x, y in (rows[fold] for fold in self.folds) if len(y)]
        return np.vstack(parts)

    @property
    def labelled(self) -> list[int]:
        """Which targets have a label left."""
        return np.flatnonzero(self.units[0]).tolist()

    @cached_property
    def log_loss_weights(self) -> Array:
        """Weights of logits for each of `PENALTIES`, (n_penalties, n_columns), drawn to those of all targets."""
        of_targets, n_outputs = [], self.m.outputs_per_target
        for t in self.labelled:
            x, y = (np.concatenate(each) for each in zip(*(self.rows[t][fold] for fold in self.folds), strict=True))
            of_rows = x.reshape(-1, n_outputs, self.n_columns), y.reshape(-1, n_outputs)
            of_targets.append(margins(*of_rows, self.m.link))
        return log_loss_weights(of_targets, least_squares_weights(self.of_all_targets))

    @cached_property
    def measure(self) -> Metric:
        """What blends of probabilities are compared by: the metric, or the log loss where it is a poor guide.

        It is for labels, which are decided on after the blend, and for ranks with few rows of a class in a fold.
        """
        metric, log_loss = self.m.metric, METRICS["log_loss"]
        if metric.kind != "ranks":
            own = metric.kind == "probabilities" and metric.table_score is not None and self.m.can_be_asked
            return metric if metric.row_losses is not None or own else log_loss
        for t in self.labelled:
            labels = [self.rows[t][fold][1].reshape(-1, self.m.outputs_per_target) for fold in self.folds]
            counts = np.array([[y.sum(axis=0), (1 - y).sum(axis=0)] for y in labels])
            counts = counts[:, :, counts[:, 0].any(axis=0)]
            if not counts.size or counts.min() < MIN_POSITIVES:
                return log_loss
        return metric

    def offset(self, weights: Array, intercepts: Array | float) -> Array:
        """What is added to columns weighted by (..., n_columns), in each target's own units, (n_targets, ...)."""
        rest, (_, centre, spread) = 1 - weights.sum(axis=-1), self.units
        rest = np.where(np.abs(rest) > 1e-12, rest, 0.0)
        return np.multiply.outer(centre, rest) + np.multiply.outer(spread, intercepts)

    def loss(self, weights: Array, intercepts: Array | float = 0.0, in_logits: bool = False) -> Array:
        """What the metric says of blends on the rows left, as something to minimise, (n_blends,).

        Args:
            weights: (n_folds, n_blends, n_columns), for each fold left those that were fitted without it; or the same
                for all folds, (n_blends, n_columns).
            intercepts: (n_folds, n_blends), in the standard units of the labels without each fold.
            in_logits: whether the weights are those of logits.
        """
        weights = np.broadcast_to(weights, (len(self.folds), *weights.shape[-2:]))
        if self.m.has_probabilities:
            return np.mean([self._of_probabilities(t, weights, in_logits) for t in self.labelled], axis=0)
        parts = zip(self.inner, weights, np.broadcast_to(intercepts, weights.shape[:2]), strict=True)
        added = np.stack([part.offset(*blends) for part, *blends in parts], axis=1)  # (n_targets, n_folds, n_blends)
        of_target = self._squared if self.m.convex_objective == "squared" else self._by_rows
        return np.mean([of_target(t, weights, added[t]) for t in self.labelled], axis=0)

    def _squared(self, t: int, weights: Array, added: Array) -> Array:
        rest, (n, _, spread) = 1 - weights.sum(axis=2), self.units
        residual = np.dstack([rest * self.zero[t] - added, rest, weights])  # of z
        squares = (residual @ np.stack([self.sums[fold][t] for fold in self.folds])) * residual
        return squares.sum(axis=(0, 2)) / n[t] / spread[t] ** 2

    def _by_rows(self, t: int, weights: Array, added: Array) -> Array:
        rows = [self.rows[t][fold] for fold in self.folds]
        y = np.concatenate([labels for _, labels in rows])
        y_pred = np.vstack([x @ w.T + a for (x, _), w, a in zip(rows, weights, added, strict=True)])
        if self.m.convex_objective == "absolute":
            return np.abs(y[:, None] - y_pred).mean(axis=0) / self.units[2][t]
        return _losses(self.m.metric, np.array([self.m.metric.score_column(y, each) for each in y_pred.T]))

    def _of_probabilities(self, t: int, weights: Array, in_logits: bool) -> Array:
        metric, n_outputs = self.measure, self.m.outputs_per_target
        labels, blends, link = list[Array](), list[Array](), self.m.link if in_logits else "identity"
        for fold, of_blends in zip(self.folds, weights, strict=True):
            x, y = self.rows[t][fold]
            y, sums = y.reshape(-1, n_outputs), (logits(x, link) @ of_blends.T).reshape(-1, n_outputs, len(of_blends))
            labels.append(y if n_outputs == 1 else y.argmax(axis=1)[:, None].astype(np.float64))
            blends.append(np.moveaxis(probabilities(sums.swapaxes(1, 2), link), 1, 0))
        if metric.kind != "ranks":  # a rank counts among the predictions of the same model, that of its fold
            labels, blends = [np.concatenate(labels)], [np.concatenate(blends, axis=1)]
        scores = [[metric(y, y_pred) for y_pred in each] for y, each in zip(labels, blends, strict=True)]
        return _losses(metric, np.mean(scores, axis=0))


def _losses(metric: Metric, scores: Array) -> Array:
    return np.nan_to_num(-scores if metric.greater_is_better else scores, nan=np.inf)


def _problem(m: BlendData, targets: list[int]) -> WeightProblem:
    used, labels, folds = zip(*(m.cells(target) for target in targets), strict=True)
    both = np.concatenate(used)
    order = np.lexsort((both.max(axis=0, initial=-np.inf), both.min(axis=0, initial=np.inf)))
    # from predictions, not from labels: those of a fold must reach nothing that is made without it
    zero = np.array([np.median(columns) if len(columns) else 0.0 for columns in used])
    rows, sums = [dict[int, tuple[Array, Array]]() for _ in targets], dict[int, Array]()
    for fold in np.unique(np.concatenate(folds)).tolist():
        parts = []
        for t in range(len(targets)):
            own = folds[t] == fold
            x, y = used[t][own][:, order], labels[t][own]
            rows[t][fold] = x, y
            z = np.hstack([np.ones((len(y), 1)), y[:, None] - zero[t], y[:, None] - x])
            parts.append(z.T @ z)
        sums[fold] = np.stack(parts)
    return WeightProblem(m, m.seeds[targets[0]] if m.seeds else 0, list(sums), order, rows, sums, zero)
