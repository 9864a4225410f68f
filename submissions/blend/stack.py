"""The stack: the default blend, corrected by a level-2 model of small boosted trees.

The trees see the columns of all targets. They are fitted on the residual of the blend instead of the labels,
so regularization shrinks the correction and not the blend; the blend has seen the same rows, with few
weights. Probabilities are corrected in logits, by trees that start from the logits of the blend. Trees that
do not reduce the error across the folds of the rows they are fitted on are dropped. docs/benchmarks.md has
measurements.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.class_metrics import log_losses
from core.types import Array, Integers
from submissions.blend.candidates import fit_candidate
from submissions.blend.data import BlendData, FoldSet, Predictor, serializable
from submissions.blend.logits import Link, logits, on_scale, probabilities, target_outputs

MAX_TREES = 300
PATIENCE = 30
"""Trees without improvement after which training stops."""
PARAMETERS: dict[str, Any] = {
    "num_leaves": 3,  # two splits; with three, trees memorized near-duplicates and this was taken for a gain
    "learning_rate": 0.05,
    "lambda_l2": 20.0,  # a leaf of 20 rows moves half as far as their mean
    "min_data_in_leaf": 20,  # a few near-duplicates cannot fill a leaf
    "max_bin": 63,
    "boost_from_average": False,  # the mean residual is shrunk like everything else
    "feature_pre_filter": False, "deterministic": True, "force_row_wise": True,
    "num_threads": 1, "seed": 0, "verbosity": -1,
}  # fmt: skip
CLASSIFICATION_LAMBDA_L2 = 5.0
"""`lambda_l2` for classification; the shrinkage is equal, since the curvature of a row is at most 1/4."""
MIN_BLEND_PROBABILITY = 1e-6
"""Probabilities of the blend are clipped here before the logits are computed."""


@serializable
@dataclass(frozen=True)
class Stack:
    """A blend with a correction for each target.

    Attributes:
        base: the blend of all outputs.
        spreads: for each target, the unit of its trees: the standard deviation of the blend's predictions in
            regression, 1 for logits.
        trees: for each target, boosted trees in LightGBM's text format; "" for a target that is not
            corrected.
        link: scale on which predictions are corrected.
    """

    base: Predictor
    spreads: list[float]
    trees: list[str]
    link: Link = "identity"

    def predict(self, preds: Array) -> Array:
        """Return predictions (n_rows, n_outputs) from columns (n_rows, n_models, n_outputs)."""
        import lightgbm

        y_pred = np.array(self.base.predict(preds))  # a candidate of the user may return a part of `preds`
        for target, (std, trees) in enumerate(zip(self.spreads, self.trees, strict=True)):
            if trees and len(preds):
                outputs = target_outputs(target, self.link)
                features = tree_features(preds, outputs, self.link)
                booster = lightgbm.Booster(model_str=trees)
                correction = np.asarray(booster.predict(features, raw_score=True, num_threads=1))
                of_blend = logits(y_pred[:, outputs], self.link, MIN_BLEND_PROBABILITY)
                corrected = of_blend + std * correction.reshape(len(preds), -1)
                y_pred[:, outputs] = probabilities(corrected, self.link)
        return y_pred

    def only(self, outputs: NDArray[np.bool_]) -> "Stack":
        """Return the stack with the corrections of the outputs in a mask (n_outputs,) only."""
        is_used = np.any(outputs.reshape(len(self.trees), -1), axis=1).tolist()
        trees = [text if used else "" for text, used in zip(self.trees, is_used, strict=True)]
        return replace(self, trees=trees)


def fit_stack(data: BlendData, default: str, folds: FoldSet) -> Stack:
    """Return the stack on a blend, fitted on the rows of some folds.

    The number of trees, which may be 0, has the smallest error over these folds, each predicted by trees of
    the others.
    """
    base = fit_candidate(data, default, folds)
    in_folds = data.rows_in(folds)
    spreads = []
    all_trees = []
    for target in data.targets:
        rows = in_folds & ~np.isnan(data.y[:, target])
        std, trees = _fit_correction(data, target, rows, base)
        spreads.append(std)
        all_trees.append(trees)
    return Stack(base, spreads, all_trees, data.link)


def _fit_correction(
    data: BlendData, target: int, rows: NDArray[np.bool_], base: Predictor
) -> tuple[float, str]:
    """Return the scale of the trees and the trees of one target; "" if they do not help or cannot be fitted.

    Args:
        rows: mask of the rows to fit on, (n_rows,).
    """
    folds = data.folds[rows]
    if len(np.unique(folds)) < 2:
        return 1.0, ""
    outputs = target_outputs(target, data.link)
    x = tree_features(data.preds[rows], outputs, data.link)
    y = on_scale(data.y[rows, target], data.link)
    of_blend = logits(base.predict(data.preds[rows])[:, outputs], data.link, MIN_BLEND_PROBABILITY)
    if data.task.has_probabilities:
        return 1.0, fit_trees(x, y, folds, start=of_blend)
    std = float(of_blend.std())
    if not std > 0:
        return 1.0, ""
    power = 1 if data.metric.minimizes_absolute_error else 2
    return std, fit_trees(x, (y - of_blend[:, 0]) / std, folds, power)


def tree_features(preds: Array, outputs: slice, link: Link) -> Array:
    """Return the features of a target's trees, (n_rows, n_models * n_outputs).

    They are the columns of the target on the scale of the link, then those for the other outputs.

    Args:
        preds: (n_rows, n_models, n_outputs).
        outputs: the outputs of the target.
    """
    target_features = logits(preds[:, :, outputs], link)
    other_features = np.delete(preds, outputs, axis=2)
    return np.hstack([target_features.reshape(len(preds), -1), other_features.reshape(len(preds), -1)])


def best_n_trees(losses: Array) -> int:
    """Return the number of trees with the smallest mean loss.

    Args:
        losses: (1 + n_trees, n_folds), for 0, 1, 2, ... trees.
    """
    return int(np.argmin(losses.mean(axis=1)))


def fit_trees(x: Array, y: Array, folds: Integers, power: int = 2, start: Array | None = None) -> str:
    """Fit small boosted trees, as many as have the smallest error across the folds.

    Args:
        x: (n_rows, n_features).
        y: residuals (n_rows,), or class numbers.
        folds: (n_rows,), with at least two different folds.
        power: 1 for the absolute error, 2 for the squared error.
        start: for classification, logits of the blend, (n_rows, n_outputs).

    Returns:
        The trees in LightGBM's text format; "" if no number of trees reduces the error.
    """
    import lightgbm

    parameters = {**PARAMETERS, "objective": f"l{power}"}
    blend_losses = np.abs(y) ** power
    if start is not None:
        link: Link = "softmax"
        parameters |= {"objective": "multiclass", "num_class": start.shape[1]}
        parameters["lambda_l2"] = CLASSIFICATION_LAMBDA_L2
        if start.shape[1] == 1:
            link = "logistic"
            start = start[:, 0]
            parameters |= {"objective": "binary", "num_class": 1}
        blend_losses = log_losses(y, probabilities(start, link))

    def make_dataset() -> lightgbm.Dataset:
        return lightgbm.Dataset(x, y, init_score=start, params=parameters)

    splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    losses = [[np.mean(blend_losses[held_out]) for _, held_out in splits]]

    def record_losses(environment: Any) -> None:
        losses.append([booster.eval_valid()[0][2] for booster in environment.model.boosters])

    callbacks = [record_losses, lightgbm.early_stopping(PATIENCE, verbose=False)]
    lightgbm.cv(parameters, make_dataset(), num_boost_round=MAX_TREES, folds=splits, callbacks=callbacks)
    n_trees = best_n_trees(np.array(losses))
    if n_trees == 0:
        return ""
    return lightgbm.train(parameters, make_dataset(), n_trees).model_to_string()
