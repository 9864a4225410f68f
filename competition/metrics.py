"""Scores with their direction, of labels and predictions as `competition.task.Task` has them, or of labels by labels.

A named metric is the mean over the targets of its column score, each on the rows that have a label; wmae alone weighs
its targets. Sources: scikit-learn's user guide, "Regression metrics"; SciPy's `stats` for the correlations.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from competition import class_metrics as classes
from competition.types import Array, ProblemType
from competition.user_code import load_user_code, users

Score = Callable[[Array, Array], float]
NUMBERS: tuple[ProblemType, ...] = ("regression",)
PROBABILITIES: tuple[ProblemType, ...] = ("binary", "multiclass", "multilabel")


@dataclass(frozen=True)
class Metric:
    """A score with its direction.

    column: score of one target on rows that all have labels; None for a metric of the user's own, which is `whole`.
    target_weights: weight of each target's score in the sum over targets, (n_targets,), from y_true; None: their mean.
    per_target: the errors whose sum is least where the score of one target is best, so that its convex blend can be
        solved exactly; None where neither is.
    above: labels and predictions must be larger than this.
    kind: what is scored, which decides how columns are combined; ranks: the order of the rows; decisions: labels.
    types: problem types that it can score.
    of_confusion: of a metric of labels: its score from confusion matrices, (..., n_classes, n_classes).
    pooled: whether the rows of all targets are counted together.
    of_row: of a metric that is a mean over rows: what the mean is of, (n_rows,).
    """

    name: str
    greater_is_better: bool
    column: Score | None
    whole: Score | None = None
    target_weights: Callable[[Array], Array] | None = None
    per_target: Literal["squared", "absolute"] | None = None
    above: float = -np.inf
    kind: Literal["values", "probabilities", "ranks", "decisions"] = "values"
    types: tuple[ProblemType, ...] = NUMBERS
    of_confusion: Callable[[Array], Array] | None = None
    pooled: bool = False
    of_row: Callable[[Array, Array], Array] | None = None

    def __call__(self, y_true: Array, y_pred: Array) -> float:
        """Score of predictions or labels; NaN where it is not defined, as R2 of a single row.

        A label column with one class alone has no AUC; where others have one, it is left out of their mean.
        """
        if self.whole is not None:
            with users(self.name, f"return one number for arrays {y_true.shape}"):
                return float(self.whole(y_true.copy(), y_pred.copy()))  # theirs may write into the arrays
        if self.pooled:
            known = ~np.isnan(y_true)
            return self.one(y_true[known], y_pred[known])
        if y_pred.shape[1] > y_true.shape[1]:
            return self.one(y_true[:, 0], y_pred)
        of_targets = np.array([self.one(y_true[:, t], y_pred[:, t]) for t in range(y_true.shape[1])])
        if self.types != NUMBERS and not np.isnan(of_targets).all():
            return float(np.nanmean(of_targets))
        return float(of_targets.mean() if self.target_weights is None else of_targets @ self.target_weights(y_true))

    def one(self, y_true: Array, y_pred: Array) -> float:
        """Score of one target, (n_rows,) each, or (n_rows, n_classes); rows without a label are left out."""
        if self.column is None:
            return self(y_true[:, None], y_pred.reshape(len(y_pred), -1))
        known = ~np.isnan(y_true)
        if known.sum() < 2 or not (y_pred[known] > self.above).all():  # NaN is above nothing
            return float("nan")
        return float(self.column(y_true[known], y_pred[known]))

    def better(self, a: float, b: float) -> bool:
        """Whether score `a` is better than score `b`."""
        return a > b if self.greater_is_better else a < b


def _sklearn(name: str) -> Score:
    # Imported when it is called, since the libraries are slow to import.
    return lambda y_true, y_pred: float(getattr(import_module("sklearn.metrics"), name)(y_true, y_pred))


def _squared(y_true: Array, y_pred: Array) -> float:
    return float(np.mean((y_true - y_pred) ** 2))


def _r2(y_true: Array, y_pred: Array) -> float:
    variance = np.var(y_true)
    return 1 - _squared(y_true, y_pred) / float(variance) if variance > 0 else 0.0  # 0 as scikit-learn's


def _scipy(name: str) -> Score:
    def correlation(y_true: Array, y_pred: Array) -> float:
        constant = np.ptp(y_true) == 0 or np.ptp(y_pred) == 0
        return float("nan" if constant else getattr(import_module("scipy.stats"), name)(y_true, y_pred).statistic)

    return correlation


def _mae_of_range(y_true: Array, y_pred: Array) -> float:
    width = np.ptp(y_true)
    return float(np.abs(y_pred - y_true).mean() / width) if width > 0 else float("nan")


def _of_labels(
    name: str, of_confusion: Callable[[Array], Array], types: tuple[ProblemType, ...] = (*PROBABILITIES, "ordinal")
) -> Metric:
    def column(y_true: Array, labels: Array) -> float:
        return float(of_confusion(classes.confusion(y_true, labels)))

    return Metric(name, True, column, kind="decisions", types=types, of_confusion=of_confusion)


def _mean_over_rows(name: str, of_row: Callable[[Array, Array], Array]) -> Metric:
    def column(y_true: Array, y_pred: Array) -> float:
        return float(of_row(y_true, y_pred).mean())

    return Metric(name, False, column, kind="probabilities", types=PROBABILITIES, of_row=of_row)


def polymer_weights(y_true: Array) -> Array:
    """Weight of each target's MAE over its range in `wmae`, (n_targets,); NaN where a target has no label.

    wMAE = 1/|X| * sum over rows and their labels of w_i |y_pred - y_true|, w_i = 1/r_i * K sqrt(1/n_i) / sum_j
    sqrt(1/n_j), with K targets, n_i labels and range r_i of target i, and |X| rows that have a label. Ranges and
    numbers of labels are those of the rows scored.

    Source: NeurIPS Open Polymer Prediction 2025, page "Evaluation". The scoring code published with it differs: it
    takes the mean over targets of MAE_i / r_i with weights sqrt(1/n_i), with ranges of the training table.
    """
    known = ~np.isnan(y_true)
    n_labels = known.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rare = np.sqrt(1 / n_labels)
        return np.asarray(len(rare) * rare / rare.sum() * n_labels / known.any(axis=1).sum())


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("r2", True, _r2, per_target="squared"),
        Metric("explained_variance", True, _sklearn("explained_variance_score")),
        Metric("rmse", False, lambda y, p: _squared(y, p) ** 0.5, per_target="squared"),
        Metric("mse", False, _squared, per_target="squared"),
        # Not defined where a prediction is at or below -1: leaderboards refuse such a submission.
        Metric("rmsle", False, _sklearn("root_mean_squared_log_error"), above=-1),
        Metric("mae", False, lambda y, p: float(np.abs(y - p).mean()), per_target="absolute"),
        Metric("wmae", False, _mae_of_range, target_weights=polymer_weights, per_target="absolute"),
        Metric("median_ae", False, _sklearn("median_absolute_error")),
        Metric("mape", False, _sklearn("mean_absolute_percentage_error")),
        Metric("max_error", False, _sklearn("max_error")),
        Metric("pearson", True, _scipy("pearsonr")),
        Metric("spearman", True, _scipy("spearmanr"), kind="ranks"),
        Metric("kendall", True, _scipy("kendalltau"), kind="ranks"),
        Metric("roc_auc", True, classes.roc_auc, kind="ranks", types=PROBABILITIES),
        Metric("average_precision", True, classes.average_precision, kind="ranks", types=PROBABILITIES),
        _mean_over_rows("log_loss", classes.log_losses),
        _mean_over_rows("brier", classes.squared_errors),
        _of_labels("accuracy", classes.accuracy),
        _of_labels("balanced_accuracy", classes.balanced_accuracy),
        _of_labels("f1", classes.f1, ("binary", "multilabel")),
        _of_labels("f1_macro", classes.f1_macro),
        _of_labels("f1_micro", classes.accuracy),
        _of_labels("mcc", classes.mcc),
        _of_labels("quadratic_kappa", classes.quadratic_kappa),
    )
}
OF_LABEL_SETS = {
    "f1_macro": _of_labels("f1_macro", classes.f1),
    "f1_micro": replace(_of_labels("f1_micro", classes.f1), pooled=True),
}
"""What they mean for several labels: the mean over labels of the F1 of class 1, and that F1 of all cells together."""
ALIASES = {
    "pr_auc": "average_precision", "logloss": "log_loss", "qwk": "quadratic_kappa", "auc": "roc_auc",
    "matthews_corrcoef": "mcc", "cohen_kappa_quadratic": "quadratic_kappa", "brier_score": "brier", "mcrmse": "rmse",
}  # fmt: skip
"""Usual names of metrics -> ours, which are AutoGluon's."""


def top_of(name: str) -> int | None:
    """How many classes a row of `map_at_<k>` names; None of any other metric."""
    found = re.fullmatch(r"map_at_([1-9]\d?)", name)
    return int(found[1]) if found else None


def named_metric(name: str, problem_type: ProblemType = "regression") -> Metric | None:
    """The metric of a name, its score as the field means it for the problem type; None where it is not ours."""
    if k := top_of(name):
        return Metric(name, True, partial(classes.map_at, k), kind="probabilities", types=("multiclass",))
    name = ALIASES.get(name, name)
    return (METRICS | OF_LABEL_SETS if problem_type == "multilabel" else METRICS).get(name)


def users_metric(name: str, greater_is_better: bool, needs: Literal["probabilities", "classes"] | None) -> Metric:
    """The user's function `file.py:function` of y_true and y_pred, which returns one number.

    needs: what it is given as y_pred; None: the numbers of a regression.
    """
    function = load_user_code("competition.metric", name, f"{name.rpartition(':')[2]}(y_true, y_pred)")
    kind: Any = {None: "values", "probabilities": "probabilities", "classes": "decisions"}[needs]
    types = NUMBERS if needs is None else (*PROBABILITIES, "ordinal")
    return Metric(Path(name).name, greater_is_better, None, function, kind=kind, types=types)
