"""What a blend is fitted on: columns with labels, their least squares by QR factors, and the loss of a blend;
and fitted blends as JSON.

A column is the out-of-fold prediction of one stage.

**Least squares by QR.** All that least squares needs to know of a target's rows in a fold is the R of the QR
factors of [1, y - c, y - preds], with one row per column. `System` has them for several folds, in units of
the labels' deviation from their mean, so that errors of targets in different units can be added. If weights w
sum to 1, the error of their blend is errors @ w.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from competition.metrics import METRICS, Metric, top_k_of
from competition.task import Task
from core.types import Array
from core.user_code import load_user_code
from submissions.blend.logits import LABEL_LINKS, Link, logits, on_scale, probabilities, target_outputs
from submissions.blend.scoring import Scorer, computed_once

FoldSet = frozenset[int]
TIE = 1e-4
"""Weight of the ridge that lets equal columns share their convex weight."""
MIN_UNIT = 1e-7
"""Labels whose deviation from their mean is below this share of their distance from c are constant."""
SKEWED = 1.5
"""Ratio of the mean of labels to their median above which they are skewed."""
MIN_CLASS_ROWS = 10
"""Minimum rows of each class in each fold for tuning weights on a metric of ranks; otherwise on log loss."""


class Predictor(Protocol):
    """A fitted candidate: a dataclass of numbers, strings and arrays."""

    def predict(self, preds: Array, /) -> Array:
        """Return predictions (n_rows, n_outputs) from columns (n_rows, n_models, n_outputs)."""


SERIALIZABLE: dict[str, type] = {}
"""Classes of this project by name. A user-defined class is written as `file.py:Name`."""


def serializable(kind: type) -> type:
    """Register a class of this project, so that `from_json` can restore it; a class decorator."""
    SERIALIZABLE[kind.__name__] = kind
    return kind


def to_json(value: Any) -> Any:
    """Return a fitted dataclass as JSON."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if not is_dataclass(value):
        return value
    name = type(value).__name__
    if SERIALIZABLE.get(name) is not type(value):
        name = f"{Path(str(sys.modules[type(value).__module__].__file__)).name}:{name}"
    return {"class": name, **{field.name: to_json(getattr(value, field.name)) for field in fields(value)}}


def from_json(content: Any, code_ref: str = "") -> Any:
    """Restore the value that `to_json` was given.

    Args:
        code_ref: `file.py:function` from the YAML if the value was made by user-defined code; its file
            has the class.
    """
    match content:
        case {"array": values}:
            return np.array(values)
        case {"class": name, **attributes}:
            if ":" in name:
                class_ref = f"{code_ref.rpartition(':')[0]}:{name.rpartition(':')[2]}"
                kind = load_user_code("submissions", class_ref, "this class")
            else:
                kind = SERIALIZABLE[name]
            return kind(**{str(key): from_json(value, code_ref) for key, value in attributes.items()})
        case list():
            return [from_json(item, code_ref) for item in content]
    return content


@serializable
@dataclass(frozen=True)
class Blend:
    """A weighted sum of columns or of their logits.

    Attributes:
        weights: (n_models, n_outputs).
        intercept: (n_outputs,).
        link: scale on which the columns are summed.
        settings: for each target, tuned settings by name.
    """

    weights: Array
    intercept: Array
    link: Link = "identity"
    settings: list[dict[str, float]] = field(default_factory=list)

    def predict(self, preds: Array) -> Array:
        """Return predictions (n_rows, n_outputs) from columns (n_rows, n_models, n_outputs)."""
        sums = np.einsum("nmo,mo->no", logits(preds, self.link), self.weights) + self.intercept
        return probabilities(sums, self.link)


@dataclass(frozen=True)
class System:
    """Least squares of one target on some folds.

    Attributes:
        y: (n,) deviations of the labels from their mean.
        errors: (n, n_models), labels minus columns.
        mean: mean of the labels, in their unit.
    """

    y: Array
    errors: Array
    mean: float

    @staticmethod
    def of(factors: list[Array], center: float) -> "System":
        """Return the system of the R of some folds; `center` is the c that was subtracted from the labels."""
        r = np.asarray(np.linalg.qr(np.vstack(factors), mode="r"))
        shift = r[0, 1] / r[0, 0]
        deviations = r[:, 1] - shift * r[:, 0]
        unit = float(np.linalg.norm(deviations))
        if unit < MIN_UNIT * np.linalg.norm(r[:, 1]) or unit == 0:  # constant labels: a rounding error
            unit = 1.0
        return System(deviations / unit, r[:, 2:] / unit, float(center + shift))


@dataclass(frozen=True, eq=False, kw_only=True)
class BlendData(Scorer):
    """All that a candidate may be fitted on.

    The order of the columns depends on their content, not on their names.

    Attributes:
        preds: columns (n_rows, n_models, n_outputs), out of fold; NaN only in fold -1.
        n_trials: Optuna trials for the two settings of the shrunk ridge.
        tuned: settings of each target that are used in place of tuned ones; empty to tune them.
    """

    preds: Array
    n_trials: int = 40
    tuned: tuple[dict[str, float], ...] = ()

    @property
    def n_models(self) -> int:
        """Number of columns (base predictions)."""
        return self.preds.shape[1]

    @property
    def targets(self) -> range:
        """Indices of the targets of `y`."""
        return range(self.y.shape[1])

    @property
    def all_folds(self) -> FoldSet:
        """Folds of the rows that are used."""
        return frozenset(self.folds[self.folds >= 0].tolist())

    def can_tune(self, folds: FoldSet) -> bool:
        """Whether settings are tuned across some folds.

        With two folds in all they never are, so that what is submitted is fitted like what is scored.
        """
        return min(len(folds), len(self.all_folds) - 1) > 1

    @property
    def link(self) -> Link:
        """Link function between the predictions and the scale on which a blend may sum them.

        It is log1p for a metric of squared errors of log1p: labels and columns are on this scale in all fits. They are
        on that of asinh for a metric of ranks if labels are skewed, since squared errors would follow the largest ones.
        """
        if not self.task.has_probabilities:
            if self.metric.kind == "ranks":
                return "asinh" if is_skewed(self.y[self.has_fold]) else "identity"
            return "log1p" if self.metric.target_transform == "log1p" else "identity"
        return "softmax" if self.task.problem_type == "multiclass" else "logistic"

    def rows_in(self, folds: FoldSet) -> NDArray[np.bool_]:
        """Return the mask of the rows in some folds, (n_rows,)."""
        return np.isin(self.folds, list(folds))

    @computed_once
    def labelled(self, target: int, fold: int) -> tuple[Array, Array]:
        """Return columns (n_rows, n_models, n_outputs of the target) and labels (n_rows,) of a fold.

        Both are on the scale of the link if that is one of `LABEL_LINKS`.
        """
        rows = (self.folds == fold) & ~np.isnan(self.y[:, target])
        preds = self.preds[rows][:, :, target_outputs(target, self.link)]
        return on_scale(preds, self.link), on_scale(self.y[rows, target], self.link)

    @computed_once
    def center(self, target: int) -> float:
        """Return the c of a target: the median of its columns.

        It is never the median of labels, since the labels of a fold must not reach a fit without the fold.
        """
        preds = self.preds[self.has_fold][:, :, target_outputs(target, self.link)]
        return float(np.median(on_scale(preds, self.link)))

    @computed_once
    def factor(self, target: int, fold: int) -> Array:
        """Return the R of the QR factors of [1, y - c, y - columns] of a target in a fold.

        A multiclass row counts once per class, with the label 1 for its class and 0 for the others.
        """
        preds, labels = self.labelled(target, fold)
        x = preds.swapaxes(1, 2).reshape(-1, self.n_models)
        y = self.task.one_hot(labels[:, None]).ravel()
        rows = np.column_stack([np.ones(len(y)), y - self.center(target), y[:, None] - x])
        return np.asarray(np.linalg.qr(rows, mode="r"))

    @computed_once
    def system(self, target: int, folds: FoldSet) -> System | None:
        """Return the least squares of a target on some folds; None if it has no label there."""
        labelled_folds = [fold for fold in sorted(folds) if len(self.labelled(target, fold)[1])]
        factors = [self.factor(target, fold) for fold in labelled_folds]
        return System.of(factors, self.center(target)) if factors else None

    @computed_once
    def pooled(self, folds: FoldSet) -> Array:
        """Return the convex weights of all targets together, (n_models,).

        Each target has the same influence. The weights are equal for one target, and for rows without any
        label. A target with few labels is shrunk towards them.
        """
        systems = [self.system(target, folds) for target in self.targets]
        errors = [system.errors for system in systems if system is not None]
        if len(self.targets) == 1 or not errors:
            return np.full(self.n_models, 1 / self.n_models)
        return convex_weights(np.vstack(errors))

    @computed_once
    def convex(self, target: int, folds: FoldSet) -> Array:
        """Return the convex weights of a target, (n_models,); the pooled ones for a target without labels."""
        system = self.system(target, folds)
        return self.pooled(folds) if system is None else convex_weights(system.errors)

    def intercept(self, target: int, folds: FoldSet, weights: Array) -> float:
        """Return the intercept of a weighted sum of columns: the mean label times (1 - sum of weights)."""
        missing_weight = 1 - weights.sum()
        system = self.system(target, folds)
        return 0.0 if system is None or abs(missing_weight) < 1e-12 else missing_weight * system.mean

    def blend(
        self,
        weights: list[Array],
        folds: FoldSet,
        settings: list[dict[str, float]] | None = None,
        in_logits: bool = False,
    ) -> Blend:
        """Return the blend with the weights of each target, (n_models,)."""
        link: Link = self.link if in_logits or self.link in LABEL_LINKS else "identity"
        intercepts = [0.0] * len(weights)
        if link in ("identity", *LABEL_LINKS):
            intercepts = [self.intercept(target, folds, each) for target, each in enumerate(weights)]
        zeros = np.zeros(self.preds.shape[1:])  # the classes of a target share its weights
        return Blend(np.column_stack(weights) + zeros, intercepts + zeros[0], link, settings or [])

    @computed_once
    def tuning_metric(self, target: int, folds: FoldSet) -> Metric:
        """Return what blends of a target are compared by: the metric itself where one target has a score.

        Squared errors and the log loss take the place of metrics of labels, which are made after the blend,
        and of a user's metric of several targets or of rows of the table; the log loss also of
        `map_at_k`, and of metrics of ranks if a fold has few rows of a class.
        """
        metric = self.metric
        is_per_target = metric.column_score is not None or (len(self.targets) == 1 and not metric.takes_rows)
        if metric.target_transform == "log1p":  # labels and columns are logarithms
            return METRICS["rmse"]
        if not self.task.has_probabilities:
            return metric if is_per_target and metric.kind in ("values", "ranks") else METRICS["mse"]
        if metric.kind == "ranks" and metric.column_score is not None:
            labels = [self.labelled(target, fold)[1] for fold in folds]
            return metric if smallest_class(labels, self.task) >= MIN_CLASS_ROWS else METRICS["log_loss"]
        is_tuned = is_per_target and metric.kind == "probabilities" and not top_k_of(metric.name)
        return metric if is_tuned else METRICS["log_loss"]

    def loss(
        self, target: int, folds: FoldSet, weights_without: Callable[[int], Array], in_logits: bool = False
    ) -> float:
        """Return the loss of blends of a target, lower is better, infinite where it is undefined.

        Args:
            weights_without: fold k -> weights (n_models,) that predict the rows of fold k; the loss is
                cross-fitted if they are fitted without it.
        """
        metric = self.tuning_metric(target, folds)
        link: Link = self.link if in_logits else "identity"
        parts = []
        for fold in sorted(folds):
            preds, y = self.labelled(target, fold)
            weights = weights_without(fold)
            sums = np.einsum("nmo,m->no", logits(preds, link), weights)
            if link == "identity":
                sums = sums + self.intercept(target, folds - {fold}, weights)
            parts.append((y, probabilities(sums, link)))
        if metric.kind != "ranks" or not self.task.has_probabilities:  # else fold models are not on one scale
            labels, predictions = zip(*parts, strict=True)
            parts = [(np.concatenate(labels), np.concatenate(predictions))]
        scores = [metric(y[:, None], y_pred) for y, y_pred in parts if len(y)]
        if not scores:
            return math.inf
        loss = -np.mean(scores) if metric.greater_is_better else np.mean(scores)
        return float(np.nan_to_num(loss, nan=math.inf))

    def loss_of_weights(self, target: int, folds: FoldSet, weights: Array) -> float:
        """Return the loss of one blend, (n_models,), on all folds."""
        return self.loss(target, folds, lambda fold: weights)


def is_skewed(y: Array) -> bool:
    """Return whether no label of y (n_rows, n_targets) is below 0, and the mean of a target is far above its median."""
    is_far_above = np.nanmean(y, axis=0) > SKEWED * np.nanmedian(y, axis=0)
    return bool(np.nanmin(y) >= 0 and is_far_above.any())


def smallest_class(labels: list[Array], task: Task) -> int:
    """Return the fewest rows in a fold, (n_rows,) each, that have a class that occurs, or do not have it."""
    classes = np.arange(len(task.classes))
    counts = np.array([(of_fold[:, None] == classes).sum(axis=0) for of_fold in labels])
    counts = counts[:, counts.any(axis=0)]
    others = counts.sum(axis=1, keepdims=True) - counts
    return int(np.minimum(counts, others).min(initial=len(labels[0])))


def convex_weights(errors: Array) -> Array:
    """Return the weights w >= 0 with sum 1 and the least |errors w|; equal columns share their weight.

    The v >= 0 that minimizes |errors v|^2 + (1 - sum v)^2 is a multiple of the solution: along a fixed
    direction w the smallest value is q / (1 + q) with q = |errors w|^2. Source: Lawson and Hanson, "Solving
    Least Squares Problems", 1974.

    Args:
        errors: (n, n_models).
    """
    from scipy.optimize import nnls

    lengths = np.linalg.norm(errors, axis=0)
    if lengths.min() == 0:  # perfect columns
        return (lengths == 0) / (lengths == 0).sum()
    scale = lengths.min() / lengths  # columns of length 1: an absurd one does not hide the others
    rows = np.vstack([errors / lengths, TIE * np.diag(scale), scale])
    weights = scale * nnls(rows, np.append(np.zeros(len(rows) - 1), 1.0))[0]
    return np.asarray(weights / weights.sum())
