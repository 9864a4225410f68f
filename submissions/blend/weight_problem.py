"""The weight problem of a blend: which weights of the base models give the best predictions?

`BlendData` holds the out-of-fold predictions of all base models for all targets. `WeightProblem` is the
part of it that one vector of weights is fitted on, with sums over each fold, so that a refit without
some folds is fast. A solver is a function `WeightProblem -> Solution`;
`submissions/blend/candidates.py` has them.

**Standard units.** A solver sees labels minus their mean, divided by their standard deviation, and base
predictions transformed like their labels. Weights therefore do not depend on the unit of a target, and
the errors of targets in different units can be added.

**Example.** Two base models, a and b, four rows of one fold:

    y    0   0   4   4      mean 2, standard deviation 2; in standard units  -1  -1   1   1
    a   -2   2   2   6      error y - a in standard units                     1  -1   1  -1
    b   -4  -4   8   8      error y - b in standard units                     2   2  -2  -2

The problem sorts the models by their predictions (smallest minimum first), so that their names do not
change a blend. b is first here: `model_order` is [1, 0]. Each row becomes a vector z = (1, y, error of
b, error of a) in standard units, such as (1, -1, 2, 1) for the first row. `moments` is the mean of the
outer products z z':

               1    y    b    a
        1      1    0    0    0
        y      0    1   -2    0        moments[LABEL, LABEL] is 1, the variance of the labels
        b      0   -2    4    0        moments[ERRORS, ERRORS] is [[4, 0], [0, 1]], the products of the errors
        a      0    0    0    1

If weights w sum to 1, the error of their blend is the weighted sum of the errors of the models. Its
mean square is w' moments[ERRORS, ERRORS] w, here 4 w_b^2 + w_a^2.

The convex solver minimizes this and returns `Solution(weights=[0.2, 0.8])`, in the order of the
problem. The candidate reorders the weights and returns to the unit of the labels: prediction = 0.8 a +
0.2 b + (1 - sum of the weights) * mean + intercept * standard deviation. The last two terms are 0 here.

**Probabilities** are treated like regression predictions with the label 1 for the class of a row and 0
for the others: a multiclass row appears once per class. Their weights sum to 1, or they are weights of
logits (`logits.py`).
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
from submissions.blend.logits import Link, log_loss_weights, margins

FoldSet = frozenset[int]
NO_FOLDS: FoldSet = frozenset()
MIN_CLASS_ROWS = 10
"""Minimum rows of each class in each fold for tuning weights on a metric of ranks; otherwise on log loss."""
SUM_TOLERANCE = 1e-12
"""Weights with a sum this close to 1 count as weights with sum 1."""
ONE = 0
"""Position of the constant in z = (1, y, errors of the base models)."""
LABEL = 1
"""Position of the label in z."""
ERRORS = slice(2, None)
"""Positions of the errors in z, in the order of the problem."""


@dataclass(frozen=True)
class BlendData:
    """All data that a candidate may be fitted on.

    Attributes:
        preds: base predictions (n_rows, n_models, n_outputs), out of fold; NaN only for fold -1.
        y: (n_rows, n_targets), NaN for missing labels.
        folds: (n_rows,); rows with fold -1 are never used.
        weights: one vector of weights per target, or one vector shared by all targets.
        trials: Optuna trials for the two settings of the shrunk ridge.
        weight_trials: Optuna trials for the candidate that tunes the weights themselves.
        seeds: seeds of Optuna's sampler, one per target.
        has_probabilities: whether the base models predict probabilities; labels are then class numbers.
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
        """Link function between the predictions and the scale on which a blend may sum them."""
        if not self.has_probabilities:
            return "identity"
        return "softmax" if self.preds.shape[2] > self.y.shape[1] else "logistic"

    @property
    def outputs_per_target(self) -> int:
        """Number of outputs per target: the number of classes of a multiclass target, else 1."""
        return self.preds.shape[2] if self.link == "softmax" else 1

    def outputs_of(self, target: int) -> slice:
        """Return the slice of the outputs that belong to a target."""
        return slice(None) if self.link == "softmax" else slice(target, target + 1)

    def rows_outside(self, excluded_folds: FoldSet) -> NDArray[np.bool_]:
        """Return a mask of the rows with a fold that is not excluded, (n_rows,)."""
        return (self.folds >= 0) & ~np.isin(self.folds, list(excluded_folds))

    def labelled_rows(self, target: int) -> tuple[Array, Array, Integers]:
        """Return base predictions, labels and folds of the rows that have a label for a target.

        Multiclass rows appear once per class, with one-hot labels.

        Returns:
            Arrays of the shapes (n_labelled, n_models), (n_labelled,) and (n_labelled,).
        """
        is_labelled = self.rows_outside(NO_FOLDS) & ~np.isnan(self.y[:, target])
        x = self.preds[is_labelled, :, self.outputs_of(target)].swapaxes(1, 2)
        y = self.y[is_labelled, target, None]
        if self.link == "softmax":
            y = (y == np.arange(self.outputs_per_target)).astype(np.float64)
        folds = np.repeat(self.folds[is_labelled], self.outputs_per_target)
        return x.reshape(-1, x.shape[2]), y.ravel(), folds

    @property
    def metric_is_per_target(self) -> bool:
        """Whether the metric can score one target without the others, and without rows of the table."""
        is_user_metric = self.metric.column_score is None
        return not is_user_metric or (self.y.shape[1] == 1 and not self.metric.takes_rows)

    @property
    def convex_objective(self) -> Literal["squared", "absolute"] | None:
        """Kind of error whose minimum is the best score of one target; None if there is no such kind.

        Squared errors are used for a metric of labels, which are made after the blend, and for a
        user-defined metric that may need all targets at once.
        """
        if not self.metric_is_per_target or self.metric.kind == "labels":
            return "squared"
        return self.metric.separable_loss

    @cached_property
    def problems(self) -> "list[WeightProblem]":
        """One weight problem per target, or a single one if all targets share their weights."""
        targets = list(range(self.y.shape[1]))
        if self.weights == "shared":
            return [_build_problem(self, targets)]
        return [_build_problem(self, [target]) for target in targets]


@dataclass(frozen=True)
class Solution:
    """Result of a solver.

    Attributes:
        weights: (n_models,), in the order of the problem.
        intercept: in standard units.
        settings: tuned settings by name.
    """

    weights: Array
    intercept: float = 0.0
    settings: dict[str, float] = field(default_factory=dict)


Solver = Callable[["WeightProblem"], Solution]


@dataclass(frozen=True)
class LabelStats:
    """Number, mean and standard deviation (1 instead of 0) of the labels, (n_targets,) each."""

    count: Array
    mean: Array
    std: Array


@dataclass(frozen=True, eq=False)
class WeightProblem:
    """The labelled rows, in some of the folds, of the targets that share one vector of weights.

    Attributes:
        seed: seed of Optuna's sampler.
        folds: the folds of this problem in increasing order.
        model_order: (n_models,), indices of the models in the order of the problem; by content, not by
            name.
        rows: for each target, fold -> base predictions (n_rows, n_models) and labels (n_rows,); not
            standardized.
        fold_products: fold -> sum of z z' over its rows, (n_targets, 2 + n_models, 2 + n_models), with
            z = (1, y - label_offset, y - base predictions), not standardized.
        label_offset: (n_targets,), a number near the labels of each target. Sums of squares keep more
            digits if labels are close to 0.
        restricted: folds -> this problem on these folds only, if it was already made.
        solutions: solver -> its solution, if it was already computed.
    """

    data: BlendData
    seed: int
    folds: list[int]
    model_order: Integers
    rows: list[dict[int, tuple[Array, Array]]]
    fold_products: dict[int, Array]
    label_offset: Array
    restricted: "dict[FoldSet, WeightProblem]" = field(default_factory=dict)
    solutions: dict[Solver, Solution] = field(default_factory=dict, init=False)

    def excluding(self, folds: FoldSet) -> "WeightProblem":
        """Return the problem without some folds; each is made once, so that nothing is solved twice."""
        remaining = frozenset(self.folds) - folds
        if remaining not in self.restricted:
            self.restricted[remaining] = replace(self, folds=sorted(remaining))
        return self.restricted[remaining]

    @cached_property
    def leave_one_fold_out(self) -> "list[WeightProblem]":
        """For each fold of the problem, the problem without it."""
        return [self.excluding(frozenset({fold})) for fold in self.folds]

    def solve(self, solver: Solver) -> Solution:
        """Return the solution of a solver, with weights in the order of the problem; computed once."""
        if solver not in self.solutions:
            self.solutions[solver] = solver(self)
        return self.solutions[solver]

    @property
    def n_models(self) -> int:
        """Number of base models, or columns of `preds`."""
        return len(self.model_order)

    @cached_property
    def products(self) -> Array:
        """Sum of `fold_products` over the folds of the problem, (n_targets, 2 + n_models, 2 + n_models)."""
        products = np.zeros((len(self.label_offset), 2 + self.n_models, 2 + self.n_models))
        for fold in self.folds:
            products += self.fold_products[fold]
        return products

    @cached_property
    def label_stats(self) -> LabelStats:
        """Statistics of the labels of each target in the folds of the problem, in the label's unit."""
        count = self.products[:, ONE, ONE]
        n_rows = np.maximum(count, 1)
        mean = self.products[:, ONE, LABEL] / n_rows
        mean_square = self.products[:, LABEL, LABEL] / n_rows
        std = np.sqrt(np.maximum(mean_square - mean**2, 0.0))
        return LabelStats(count, self.label_offset + mean, np.where(std > 0, std, 1.0))

    @property
    def labelled_targets(self) -> list[int]:
        """Targets with a label in the folds of the problem."""
        return np.flatnonzero(self.label_stats.count).tolist()

    @cached_property
    def moments(self) -> Array:
        """Mean of z z' in standard units, (2 + n_models, 2 + n_models); each target has the same weight."""
        is_labelled = self.label_stats.count > 0
        count = self.label_stats.count[is_labelled, None, None]
        mean = self.label_stats.mean[is_labelled, None, None]
        std = self.label_stats.std[is_labelled, None, None]
        # `to_standard` maps z of `fold_products` to std times z in standard units.
        to_standard = np.tile(np.eye(2 + self.n_models), (len(count), 1, 1))
        to_standard[:, :1, :1] = std
        to_standard[:, 1:2, :1] = self.label_offset[is_labelled, None, None] - mean
        products = to_standard @ self.products[is_labelled] @ to_standard.swapaxes(1, 2)
        return (products / std**2 / count).mean(axis=0)

    @property
    def pooled_gram(self) -> Array:
        """Mean of `moments[ERRORS, ERRORS]` over all targets of the data, on the folds of this problem.

        Its shape is (n_models, n_models), in the order of this problem.
        """
        excluded_folds = frozenset(self.data.folds.tolist()) - frozenset(self.folds)
        grams = []
        for problem in self.data.problems:
            part = problem.excluding(excluded_folds)
            if part.labelled_targets:
                order = np.argsort(part.model_order)[self.model_order]
                grams.append(part.moments[ERRORS, ERRORS][np.ix_(order, order)])
        return np.mean(grams, axis=0)

    @property
    def errors(self) -> Array:
        """Errors (n_rows, n_models) in standard units, divided by the number of rows of their target."""
        stats = self.label_stats
        parts = []
        for target in self.labelled_targets:
            x, y = self.rows_of_target(target)
            parts.append((y[:, None] - x) / (stats.std[target] * stats.count[target]))
        return np.vstack(parts)

    def rows_of_target(self, target: int) -> tuple[Array, Array]:
        """Return base predictions (n_rows, n_models) and labels (n_rows,) of a target, fold after fold."""
        folds = [self.rows[target][fold] for fold in self.folds]
        return np.concatenate([x for x, _ in folds]), np.concatenate([y for _, y in folds])

    @cached_property
    def logit_weights(self) -> Array:
        """Weights of logits for each penalty of `logits.PENALTIES`, (n_penalties, n_models).

        They are shrunk towards the convex weights of all targets together.
        """
        n_outputs = self.data.outputs_per_target
        target_margins = []
        for target in self.labelled_targets:
            x, y = self.rows_of_target(target)
            preds = x.reshape(-1, n_outputs, self.n_models)
            target_margins.append(margins(preds, y.reshape(-1, n_outputs), self.data.link))
        return log_loss_weights(target_margins, least_squares_weights(self.pooled_gram))

    @cached_property
    def tuning_metric(self) -> Metric:
        """Metric that compares blends of probabilities: the competition's metric, or log loss.

        Log loss replaces metrics of labels, since labels are made after the blend, and metrics of ranks
        if a fold has few rows of a class.
        """
        metric = self.data.metric
        log_loss = METRICS["log_loss"]
        if metric.kind != "ranks":
            # Only user-defined metrics have a `table_score`.
            is_user_metric = metric.kind == "probabilities" and metric.table_score is not None
            if metric.row_losses is not None or (is_user_metric and self.data.metric_is_per_target):
                return metric
            return log_loss
        for target in self.labelled_targets:
            class_counts = []
            for fold in self.folds:
                y = self.rows[target][fold][1].reshape(-1, self.data.outputs_per_target)
                class_counts.append([y.sum(axis=0), (1 - y).sum(axis=0)])
            counts = np.array(class_counts)  # (n_folds, 2, n_outputs): rows with and without each class
            counts = counts[:, :, counts[:, 0].any(axis=0)]
            if not counts.size or counts.min() < MIN_CLASS_ROWS:
                return log_loss
        return metric

    def intercepts_in_label_units(self, weights: Array, intercepts: Array | float) -> Array:
        """Return what to add to the weighted sum of base predictions, in the unit of each target.

        Args:
            weights: (..., n_models).
            intercepts: (...,), in standard units.

        Returns:
            (n_targets, ...).
        """
        missing_weight = 1 - weights.sum(axis=-1)
        missing_weight = np.where(np.abs(missing_weight) > SUM_TOLERANCE, missing_weight, 0.0)
        from_mean = np.multiply.outer(self.label_stats.mean, missing_weight)
        return from_mean + np.multiply.outer(self.label_stats.std, intercepts)


def _build_problem(data: BlendData, targets: list[int]) -> WeightProblem:
    """Return the problem of one vector of weights for some targets, on all folds."""
    labelled_rows = [data.labelled_rows(target) for target in targets]
    all_preds = np.concatenate([x for x, _, _ in labelled_rows])
    smallest = all_preds.min(axis=0, initial=np.inf)
    model_order = np.lexsort((all_preds.max(axis=0, initial=-np.inf), smallest))
    # Offsets come from predictions: the labels of a fold must not reach a fit without the fold.
    label_offset = np.array([np.median(x) if len(x) else 0.0 for x, _, _ in labelled_rows])
    rows: list[dict[int, tuple[Array, Array]]] = [{} for _ in targets]
    fold_products: dict[int, Array] = {}
    for fold in np.unique(np.concatenate([folds for _, _, folds in labelled_rows])).tolist():
        products = []
        for i, (all_x, all_y, folds) in enumerate(labelled_rows):
            x = all_x[folds == fold][:, model_order]
            y = all_y[folds == fold]
            rows[i][fold] = (x, y)
            z = np.hstack([np.ones((len(y), 1)), y[:, None] - label_offset[i], y[:, None] - x])
            products.append(z.T @ z)
        fold_products[fold] = np.stack(products)
    seed = data.seeds[targets[0]] if data.seeds else 0
    return WeightProblem(data, seed, list(fold_products), model_order, rows, fold_products, label_offset)
