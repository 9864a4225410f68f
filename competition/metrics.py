"""Metrics: scores of labels and predictions, with their direction.

The score of a built-in metric is the mean over targets of its column score, each on the labelled rows; only
wmae weights its targets. Labels and predictions have the shapes of `competition.task.Task`.

Sources: scikit-learn's user guide, "Regression metrics"; SciPy's `stats` for the correlations.
"""

import inspect
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition import class_metrics
from competition.class_metrics import ClassCounts
from core.errors import ConfigError
from core.files import as_csv
from core.types import Array, ProblemType
from core.user_code import load_user_code, user_code_errors
from core.user_tables import read_text_table

Score = Callable[[Array, Array], float]
REGRESSION: tuple[ProblemType, ...] = ("regression",)
CLASS_TYPES: tuple[ProblemType, ...] = ("binary", "multiclass", "multilabel")


@dataclass(frozen=True)
class Metric:
    """A score with its direction.

    Attributes:
        column_score: score of one target on labelled rows; None for a user-defined metric, which has a
        `table_score`.
        table_score: score of all targets at once, from arrays (n_rows, n_targets) and (n_rows, n_outputs).
        takes_rows: whether `table_score` has a third argument: the rows of the raw table (`raw_rows_for`).
        target_weights: function of y_true that returns the weights of the target scores in their sum,
            (n_targets,); None for their mean.
        minimizes_absolute_error: whether the best predictions of a target are those with the least absolute
            error.
        lower_bound: labels and predictions must be greater than it.
        target_transform: `target_transform` of stages that set none: the scale of the labels on which their
            mean is near the best prediction. For ranks the mean of skewed labels follows the largest ones.
        far_from_mean: whether its best prediction is far from the mean and the median of a skewed label, so
            that blends are corrected for it (`submissions.blend.correction`).
        kind: what is scored. "values": numbers; "probabilities"; "ranks": only the order of the rows, so that blends
            of probabilities are tuned on its mean over folds; "labels": class labels (`metric_needs: classes` in the
            YAML), so that thresholds are tuned after blending.
        types: problem types that it can score.
        score_from_counts: for label metrics, the scores (...) of counts with these axes before the classes.
        pooled: whether all targets are scored together, as one long column.
    """

    name: str
    greater_is_better: bool
    column_score: Score | None
    table_score: Callable[..., float] | None = None
    takes_rows: bool = False
    target_weights: Callable[[Array], Array] | None = None
    minimizes_absolute_error: bool = False
    lower_bound: float = -np.inf
    target_transform: Literal["none", "log1p", "power"] = "none"
    far_from_mean: bool = False
    kind: Literal["values", "probabilities", "ranks", "labels"] = "values"
    types: tuple[ProblemType, ...] = REGRESSION
    score_from_counts: Callable[[ClassCounts], Array] | None = None
    pooled: bool = False

    def __call__(self, y_true: Array, y_pred: Array, rows: pd.DataFrame | None = None) -> float:
        """Return the score of y_pred: values, probabilities or class labels, according to `kind`.

        The score is NaN if it is not defined, such as R2 of a single row. A target with only one class has no
        AUC; it is excluded from the mean if other targets have one.

        Args:
            rows: n_rows rows of the raw table, for a metric with `takes_rows`; others ignore them.
        """
        if self.takes_rows and rows is None:
            raise ConfigError(f"{self.name} takes the rows of the table, which a candidate does not have.")
        if self.table_score is not None:
            arguments: list[Any] = [y_true.copy(), y_pred.copy()]  # a user's function may write into them
            if rows is not None and self.takes_rows:
                arguments.append(rows.reset_index(drop=True))
            with user_code_errors(self.name, f"return one number for arrays {y_true.shape}"):
                return float(self.table_score(*arguments))
        if self.pooled:
            is_labelled = ~np.isnan(y_true)
            return self.score_column(y_true[is_labelled], y_pred[is_labelled])
        if y_pred.shape[1] > y_true.shape[1]:
            return self.score_column(y_true[:, 0], y_pred)
        target_scores = np.array(
            [self.score_column(y_true[:, t], y_pred[:, t]) for t in range(y_true.shape[1])]
        )
        if self.types != REGRESSION and not np.isnan(target_scores).all():
            return float(np.nanmean(target_scores))
        if self.target_weights is None:
            return float(target_scores.mean())
        return float(target_scores @ self.target_weights(y_true))

    def score_column(self, y_true: Array, y_pred: Array) -> float:
        """Return the score of one target, (n_rows,) each, or (n_rows, n_classes); unlabelled rows are
        ignored.
        """
        if self.column_score is None:
            return self(y_true[:, None], y_pred.reshape(len(y_pred), -1))
        is_labelled = ~np.isnan(y_true)
        if is_labelled.sum() < 2 or not (y_pred[is_labelled] > self.lower_bound).all():  # false for NaN
            return float("nan")
        return float(self.column_score(y_true[is_labelled], y_pred[is_labelled]))

    @property
    def direction(self) -> str:
        """What is better, for people."""
        return "greater is better" if self.greater_is_better else "lower is better"


def _sklearn(name: str) -> Score:
    # sklearn.metrics is imported when a score is computed, since the import is slow.
    return lambda y_true, y_pred: float(getattr(import_module("sklearn.metrics"), name)(y_true, y_pred))


def _mse(y_true: Array, y_pred: Array) -> float:
    return float(np.mean((y_true - y_pred) ** 2))


# scikit-learn's metrics take twenty times as long, and `fit_correction` calls them hundreds of times.
def _median_ae(y_true: Array, y_pred: Array) -> float:
    return float(np.median(np.abs(y_true - y_pred)))


def _mape(y_true: Array, y_pred: Array) -> float:
    smallest = np.finfo(np.float64).eps  # as scikit-learn, for labels that are 0
    return float(np.mean(np.abs(y_true - y_pred) / np.maximum(np.abs(y_true), smallest)))


def _r2(y_true: Array, y_pred: Array) -> float:
    error = _mse(y_true, y_pred)
    if np.ptp(y_true) == 0:  # as scikit-learn; their variance may be a rounding error
        return 1.0 if error == 0 else 0.0
    return 1 - error / float(np.var(y_true))


def _scipy(name: str) -> Score:
    def correlation(y_true: Array, y_pred: Array) -> float:
        constant = np.ptp(y_true) == 0 or np.ptp(y_pred) == 0
        return float(
            "nan" if constant else getattr(import_module("scipy.stats"), name)(y_true, y_pred).statistic
        )

    return correlation


def _mae_over_range(y_true: Array, y_pred: Array) -> float:
    width = np.ptp(y_true)
    return float(np.abs(y_pred - y_true).mean() / width) if width > 0 else float("nan")


def _relative_absolute_error(y_true: Array, y_pred: Array) -> float:
    """Return the absolute error relative to a prediction of the mean; OpenADMET's challenges have it of logarithms."""
    of_mean = np.abs(y_true - y_true.mean()).sum()
    return float(np.abs(y_pred - y_true).sum() / of_mean) if np.ptp(y_true) > 0 else float("nan")


def _label_metric(
    name: str,
    score_from_counts: Callable[[ClassCounts], Array],
    types: tuple[ProblemType, ...] = (*CLASS_TYPES, "ordinal"),
) -> Metric:
    def column_score(y_true: Array, labels: Array) -> float:
        return float(score_from_counts(class_metrics.class_counts(y_true, labels)))

    return Metric(name, True, column_score, kind="labels", types=types, score_from_counts=score_from_counts)


def _mean_over_rows(name: str, row_losses: Callable[[Array, Array], Array]) -> Metric:
    def column_score(y_true: Array, y_pred: Array) -> float:
        return float(row_losses(y_true, y_pred).mean())

    return Metric(name, False, column_score, kind="probabilities", types=CLASS_TYPES)


def polymer_weights(y_true: Array) -> Array:
    """Return the weights of the terms MAE_i / r_i in `wmae`, (n_targets,); NaN for targets without labels.

    wMAE = 1/|X| * sum over rows and their labels of w_i |y_pred - y_true|, w_i = 1/r_i * K sqrt(1/n_i) /
    sum_j sqrt(1/n_j), with K targets, n_i labels and range r_i of target i, and |X| labelled rows. Ranges and
    numbers of labels are computed on the scored rows.

    Source: NeurIPS Open Polymer Prediction 2025, page "Evaluation". The published scoring code differs: it
    takes the mean over targets of MAE_i / r_i with weights sqrt(1/n_i), with ranges of the training table.
    """
    is_labelled = ~np.isnan(y_true)
    n_labels = is_labelled.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rarity = np.sqrt(1 / n_labels)
        return np.asarray(len(rarity) * rarity / rarity.sum() * n_labels / is_labelled.any(axis=1).sum())


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("r2", True, _r2),
        Metric("explained_variance", True, _sklearn("explained_variance_score")),
        Metric("rmse", False, lambda y, p: _mse(y, p) ** 0.5),
        Metric("mse", False, _mse),
        # Undefined for predictions at or below -1: leaderboards reject such a submission.
        Metric(
            "rmsle", False, _sklearn("root_mean_squared_log_error"), lower_bound=-1, target_transform="log1p"
        ),
        Metric("mae", False, lambda y, p: float(np.abs(y - p).mean()), minimizes_absolute_error=True),
        Metric("wmae", False, _mae_over_range, target_weights=polymer_weights, minimizes_absolute_error=True),
        Metric("rae", False, _relative_absolute_error, minimizes_absolute_error=True),
        Metric("median_ae", False, _median_ae, target_transform="power", far_from_mean=True),
        Metric("mape", False, _mape, target_transform="power", far_from_mean=True),
        Metric("max_error", False, _sklearn("max_error")),
        Metric("pearson", True, _scipy("pearsonr")),
        Metric("spearman", True, _scipy("spearmanr"), target_transform="power", kind="ranks"),
        Metric("kendall", True, _scipy("kendalltau"), target_transform="power", kind="ranks"),
        Metric("roc_auc", True, class_metrics.roc_auc, kind="ranks", types=CLASS_TYPES),
        Metric("average_precision", True, class_metrics.average_precision, kind="ranks", types=CLASS_TYPES),
        _mean_over_rows("log_loss", class_metrics.log_losses),
        _mean_over_rows("brier", class_metrics.squared_errors),
        _label_metric("accuracy", class_metrics.accuracy),
        _label_metric("balanced_accuracy", class_metrics.balanced_accuracy),
        _label_metric("f1", class_metrics.f1, ("binary", "multilabel")),
        _label_metric("f1_macro", class_metrics.f1_macro),
        _label_metric("f1_micro", class_metrics.accuracy),
        _label_metric("f1_weighted", class_metrics.f1_weighted, ("binary", "multiclass", "ordinal")),
        _label_metric("mcc", class_metrics.mcc),
        _label_metric("quadratic_kappa", class_metrics.quadratic_kappa),
    )
}
MULTILABEL_METRICS = {
    "f1_macro": _label_metric("f1_macro", class_metrics.f1),
    "f1_micro": replace(_label_metric("f1_micro", class_metrics.f1), pooled=True),
}
"""Definitions for multilabel tasks: the F1 of class 1 as a mean over targets, and of all targets together."""
ALIASES = {
    "pr_auc": "average_precision", "auprc": "average_precision", "auc": "roc_auc", "auroc": "roc_auc",
    "logloss": "log_loss", "qwk": "quadratic_kappa", "matthews_corrcoef": "mcc",
    "cohen_kappa_quadratic": "quadratic_kappa", "brier_score": "brier", "mcrmse": "rmse", "ma_rae": "rae",
    "root_mean_squared_error": "rmse", "mean_squared_error": "mse", "mean_absolute_error": "mae",
    "median_absolute_error": "median_ae", "mean_absolute_percentage_error": "mape", "pearsonr": "pearson",
    "spearmanr": "spearman", "acc": "accuracy",
}  # fmt: skip
"""Other common name of a metric -> its name in `METRICS`."""


def metric_name(text: str) -> str:
    """Return the name of a metric that is written in any case, or as an alias; that of a user's function as it is."""
    name = text if ":" in text else text.lower()
    return ALIASES.get(name, name)


def top_k_of(name: str) -> int | None:
    """Return how many classes a row of `map_at_<k>` lists; None for any other metric."""
    match = re.fullmatch(r"map_at_([1-9]\d?)", name)
    return int(match[1]) if match else None


def get_metric(name: str, problem_type: ProblemType = "regression") -> Metric | None:
    """Return a built-in metric in its definition for the problem type; None if no metric has this name."""
    k = top_k_of(name)
    if k:
        return Metric(
            name, True, partial(class_metrics.map_at, k), kind="probabilities", types=("multiclass",)
        )
    names = METRICS | MULTILABEL_METRICS if problem_type == "multilabel" else METRICS
    return names.get(metric_name(name))


def load_user_metric(
    name: str, greater_is_better: bool, needs: Literal["probabilities", "classes"] | None
) -> Metric:
    """Load the user's function `file.py:function` of y_true and y_pred, which returns one number.

    A third parameter without a default, or called rows, gets the rows of the raw table.

    Args:
        needs: what the function gets as y_pred; None for the values of a regression.
    """
    function = load_user_code("competition.metric", name, f"{name.rpartition(':')[2]}(y_true, y_pred)")
    kind: Any = {None: "values", "probabilities": "probabilities", "classes": "labels"}[needs]
    types = REGRESSION if needs is None else (*CLASS_TYPES, "ordinal")
    return Metric(
        Path(name).name, greater_is_better, None, function, _takes_rows(function), kind=kind, types=types
    )


def _takes_rows(function: Callable[..., float]) -> bool:
    """Return whether a function requires a third argument, or calls it rows."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some functions in C have no signature
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    arguments = [each for each in parameters if each.kind in positional]
    required = [each for each in arguments if each.default is each.empty]
    return len(required) == 3 or [each.name for each in arguments[2:3]] == ["rows"]


def take_rows(rows: pd.DataFrame | None, which: NDArray[np.bool_] | NDArray[np.intp]) -> pd.DataFrame | None:
    """Return the rows of a mask, or of positions; None if there are none, as for most metrics."""
    return None if rows is None else rows.iloc[which]


def raw_rows_for(metric: Metric, file: Path, id_column: str, ids: list[str]) -> pd.DataFrame | None:
    """Return the rows of a raw table that a metric reads, with all columns as pandas reads the CSV.

    The rows are in the order of `ids`. Ids that the table does not have, those of extra rows, which are not scored,
    get its first row, since missing values would change the types of columns. None if the metric reads no rows.
    """
    if not metric.takes_rows:
        return None
    rows = _raw_rows(file, id_column, file.stat().st_mtime_ns)
    return rows.iloc[np.maximum(rows.index.get_indexer(pd.Index(ids)), 0)].reset_index(drop=True)


@lru_cache(maxsize=2)  # a network asks for it after each epoch
def _raw_rows(file: Path, id_column: str, changed: int) -> pd.DataFrame:
    """Return the rows of a raw table, indexed by id.

    Args:
        changed: time of the last change of the file.
    """
    table = read_text_table(file)
    return pd.read_csv(io.StringIO(as_csv(table))).set_axis(table[id_column])
