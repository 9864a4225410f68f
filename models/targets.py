"""Targets: their preparation for training, and what is around the fit and the predictions of a stage.

That is the task that it learns, transformed targets, and checks of its predictions.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.dataset import FEATURE, Dataset
from competition.pairs import NAMES, feature_names, with_pair_features
from competition.swap import Swap
from competition.task import Task
from core.errors import ConfigError, DataError
from core.files import read_json, write_json
from core.types import Array, ProblemType
from core.user_code import in_order_of, short_ref, user_code_errors
from models.context import Context
from models.stage import Stage, as_probabilities, invalid_probability_rows

FILE = "target_transform.skops"
RANGE = "transformed_range.json"
MAX_ERROR_OF_INVERSE = 1e-3
"""Largest error of a label that is transformed and back, in standard deviations of the labels."""


def fit(stage: Stage, train: Dataset, folder: Path, context: Context) -> None:
    """Fit a stage on training rows, with the targets transformed (`Stage.transform_for`).

    The transform is fitted on the training rows, per target, without missing labels.
    """
    context = replace(context, task=stage.task_for(context.task))
    if context.swap is not None and stage.is_trained:
        train, context = _in_all_orders(train, context.swap, context)
    kind = stage.transform_for(context.task)
    if kind != "none":
        transform = _fit_transform(kind, train, folder)
        held_out = context.held_out
        if held_out is not None:  # its score is in the units of the targets
            score = held_out.score
            held_out = replace(held_out, score=lambda y_pred: score(_inverse(y_pred, kind, folder)))
            context = replace(context, held_out=held_out)
        train = _transformed(train, transform)
    with _errors_of(stage):
        stage.fit(train, folder, context)


def predict(stage: Stage, rows: Dataset, folder: Path, context: Context) -> Array:
    """Return predictions (n_rows, n_outputs) in the units of the targets, or probabilities.

    Raises:
        ConfigError: the stage returned something else.
    """
    context = replace(context, task=stage.task_for(context.task))
    swap = context.swap
    if swap is None or not stage.is_trained:
        return _predict(stage, rows, folder, context)
    y_pred = [
        swap.y_pred(_predict(stage, turned, folder, context), context.task, turn)
        for turn, turned in enumerate(_orders(rows, context))
    ]
    return np.mean(y_pred, axis=0)


def _predict(stage: Stage, rows: Dataset, folder: Path, context: Context) -> Array:
    """Return the predictions of a stage for rows as they are; see `predict`."""
    with _errors_of(stage):
        returned = stage.predict(rows, folder, context)
    y_pred = _numbers(stage, "predict", returned, rows, context.task)
    is_invalid = invalid_probability_rows(context.task, y_pred)
    if is_invalid.any():
        first = np.flatnonzero(is_invalid)[0]
        raise ConfigError(
            f"predict of {short_ref(stage.kind)} must return probabilities of "
            f"{', '.join(context.task.outputs)}, from 0 to 1, with the sum 1 if there is one per class; "
            f"got {y_pred[first].tolist()} for row {rows.ids[first]!r}."
        )
    if stage.is_of_user:
        y_pred = as_probabilities(context.task, y_pred)
    return _inverse(y_pred, stage.transform_for(context.task), folder)


def predict_std(stage: Stage, rows: Dataset, folder: Path, context: Context) -> Array | None:
    """Return the standard deviation of the label of each row, (n_rows, n_outputs), in the units of the targets.

    With `competition.swap` it is the mean of all orders. None if the task is not regression, the targets are
    transformed, or the stage has none.
    """
    context = replace(context, task=stage.task_for(context.task))
    if context.task.problem_type != "regression" or stage.transform_for(context.task) != "none":
        return None
    std = [_predict_std(stage, turned, folder, context) for turned in _orders(rows, context)]
    known = [values for values in std if values is not None]
    return np.mean(known, axis=0) if known else None


def _predict_std(stage: Stage, rows: Dataset, folder: Path, context: Context) -> Array | None:
    """Return the standard deviations of a stage for rows as they are; see `predict_std`."""
    with _errors_of(stage):
        returned = stage.predict_std(rows, folder, context)
    if returned is None:
        return None
    return _numbers(stage, "predict_std", returned, rows, context.task)


def _in_all_orders(train: Dataset, swap: Swap, context: Context) -> tuple[Dataset, Context]:
    """Return training rows, followed by the same rows with columns and labels after each turn, and their context.

    All have the group of the row, so that splits inside the training rows keep them together.
    """
    copies = np.tile(np.arange(len(train)), swap.n_orders)
    groups = np.arange(len(train)) if train.groups is None else train.groups
    inputs = [turned.inputs for turned in _orders(train, context)]
    y = [swap.y(train.y, context.task, turn) for turn in range(swap.n_orders)]
    rows = replace(train, groups=groups).take(copies)
    rows = replace(rows, inputs=pd.concat(inputs, ignore_index=True), y=np.concatenate(y))
    if context.fold_ids is None:
        return rows, context
    return rows, replace(context, fold_ids=context.fold_ids[copies])


def _orders(rows: Dataset, context: Context) -> list[Dataset]:
    """Return rows as they are, and after each turn of the columns, with what their texts then have in common."""
    orders = [rows]
    swap = context.swap
    if swap is None:
        return orders
    for turn in range(1, swap.n_orders):
        orders.append(replace(rows, inputs=_turned(rows.inputs, swap, turn, context.pairs)))
    return orders


def _turned(inputs: pd.DataFrame, swap: Swap, turn: int, pairs: list[list[str]]) -> pd.DataFrame:
    """Return inputs after a turn of the columns, with what their texts then have in common.

    That is copied where the same two texts are compared before the turn, in either order.
    """
    of_pairs = [name for name in inputs if str(name).startswith(FEATURE)]
    turned = swap.inputs(inputs.drop(columns=of_pairs), turn)
    blocks = [turned]
    for pair in pairs:
        names = feature_names(*pair)
        first, second = swap.in_place_of(pair, turn)
        in_order, reversed_order = feature_names(first, second), feature_names(second, first)
        if in_order[0] in of_pairs:
            block = inputs[in_order]
        elif reversed_order[0] in of_pairs:
            block = inputs[reversed_order]
            difference = reversed_order[NAMES.index("difference in words")]
            block = block.assign(**{difference: 0 - block[difference]})
        else:
            block = with_pair_features(turned, [pair])[names]
        blocks.append(block.set_axis(names, axis=1))
    return pd.concat(blocks, axis=1)


def _numbers(stage: Stage, method: str, returned: Any, rows: Dataset, task: Task) -> Array:
    """Return what a method of a stage returned as finite numbers; (n_rows,) counts as one output.

    A table that is indexed by ids, or as the inputs are, is brought into the order of the rows, and columns with the
    names of the outputs into their order.
    """
    if isinstance(returned, pd.DataFrame) and {*returned} == {*task.outputs}:
        returned = returned[task.outputs]
    shape = len(rows), len(task.outputs)
    with _errors_of(stage, f"return numbers from {method}"):
        numbers = np.asarray(in_order_of(returned, rows.inputs.index, rows.ids), dtype=np.float64)
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    if numbers.shape != shape or not np.isfinite(numbers).all():
        raise ConfigError(
            f"{method} of {short_ref(stage.kind)} must return finite numbers of shape {shape}, a column per output; "
            f"got shape {numbers.shape} with {(~np.isfinite(numbers)).sum()} numbers that are not finite. "
            "Labels in training may be missing (NaN)."
        )
    return numbers


def _errors_of(stage: Stage, must: str = "") -> AbstractContextManager[None]:
    """Report errors of a user's class with its file and line."""
    return user_code_errors(stage.kind, must) if stage.is_of_user else nullcontext()


def _fit_transform(kind: str, train: Dataset, folder: Path) -> Any:
    """Return the fitted transform of scikit-learn, and write it."""
    import skops.io  # here, like scikit-learn, since only transformed targets need it
    from sklearn import preprocessing

    bounds = train.bounds
    labels = train.y if bounds is None else with_bounds(train.y, bounds[:, : train.y.shape[1]])[0]
    if kind == "log1p":
        require_log1p(labels)
    n_labelled = int(train.is_labelled.sum())  # some rows have auxiliary targets only
    transform = {
        "quantile": preprocessing.QuantileTransformer(
            n_quantiles=min(1000, n_labelled), output_distribution="normal", subsample=None
        ),
        "power": _power_transform(train.y, may_be_box_cox=bool(np.nanmin(labels) > 0)),
        "log1p": preprocessing.FunctionTransformer(np.log1p, np.expm1, check_inverse=False),
    }[kind].fit(train.y)
    skops.io.dump(transform, folder / FILE)
    y = transform.transform(train.y)
    write_json(folder / RANGE, [np.nanmin(y, axis=0).tolist(), np.nanmax(y, axis=0).tolist()])
    return transform


def _power_transform(y: Array, may_be_box_cox: bool) -> Any:
    """Return the first transform that gives the labels (n_rows, n_targets) back: Box-Cox, Yeo-Johnson, or only a scale.

    The parameter of the first two overflows where nearly all labels are equal, or far from 0 and close together.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PowerTransformer, RobustScaler, StandardScaler

    transforms = [make_pipeline(RobustScaler(), PowerTransformer()), StandardScaler()]
    if may_be_box_cox:
        transforms.insert(0, PowerTransformer("box-cox"))
    return next(transform for transform in transforms if _gives_back(transform, y))


def _gives_back(transform: Any, y: Array) -> bool:
    """Return whether the inverse of a transform that is fitted to labels gives them back."""
    try:
        with np.errstate(all="ignore"):
            inverse = transform.inverse_transform(transform.fit_transform(y))
    except ValueError:  # a constant has no Box-Cox parameter, and an infinite number is refused
        return False
    return bool((np.isnan(y) | (np.abs(inverse - y) <= MAX_ERROR_OF_INVERSE * np.nanstd(y, axis=0))).all())


def _inverse(y_pred: Array, kind: str, folder: Path) -> Array:
    """Return predictions on the scale of a transform, (n_rows, n_outputs), in the units of the targets."""
    if kind == "none":
        return y_pred
    import skops.io

    if kind == "power":  # it has no inverse far beyond the labels
        y_pred = y_pred.clip(*read_json(folder / RANGE))
    return np.asarray(skops.io.load(folder / FILE).inverse_transform(y_pred), dtype=np.float64)


def _transformed(rows: Dataset, transform: Any) -> Dataset:
    """Return rows with transformed labels and, since all transforms increase, transformed bounds of labels."""
    y = transform.transform(rows.y)
    bounds = rows.bounds
    if bounds is not None:
        n_targets = y.shape[1]  # auxiliary targets follow, which are not transformed
        sides = [transform.transform(bounds[:, :n_targets, side]) for side in (0, 1)]
        bounds = np.concatenate([np.stack(sides, axis=2), bounds[:, n_targets:]], axis=1)
    return replace(rows, y=y, bounds=bounds)


def target_scale(y: Array, has_classes: bool = False) -> tuple[Array, Array]:
    """Return mean and standard deviation of each target without missing labels, (n_targets,) each.

    The standard deviation of a constant is 1. For classes, and for an auxiliary target without any label,
    they are 0 and 1, so that labels are unchanged.
    """
    if has_classes:
        return np.zeros(y.shape[1]), np.ones(y.shape[1])
    y = np.where(np.isnan(y).all(axis=0), 0.0, y)
    scale = np.nanstd(y, axis=0)
    return np.nanmean(y, axis=0), np.where(scale > 0, scale, 1.0)


def with_bounds(y: Array, bounds: Array) -> tuple[Array, Array]:
    """Return labels with the bounds of censored ones in their place, and which are bounds; (n_rows, n_targets) each.

    The second array is 1 for a lower bound, -1 for an upper bound and 0 for other labels.

    Args:
        y: NaN for missing and censored labels.
        bounds: (n_rows, n_targets, 2), lower and upper bound, NaN without one.
    """
    has_lower, has_upper = np.moveaxis(~np.isnan(bounds), 2, 0)
    labels = np.where(has_lower, bounds[..., 0], np.where(has_upper, bounds[..., 1], y))
    return labels, has_lower * 1.0 - has_upper * 1.0


def require_auxiliary(y: Array, names: list[str], problem_type: ProblemType) -> None:
    """Raise a ConfigError if auxiliary targets (n_rows, n_auxiliary) cannot be learned with the targets.

    Args:
        problem_type: what the stage learns.
    """
    not_binary = []
    for name, column in zip(names, y.T, strict=True):
        if set(column[~np.isnan(column)]) - {0, 1}:
            not_binary.append(name)
    if problem_type == "multiclass" and names:
        error = "cannot be learned with a multiclass target"
    elif problem_type != "regression" and not_binary:
        error = f"must be 0 or 1 in classification, and {', '.join(not_binary)} has other numbers"
    else:
        return
    raise ConfigError(f"auxiliary_targets {error}; remove them, or set auxiliary_weight: 0 in this stage.")


def require_log1p(y: Array) -> None:
    """Raise a DataError if 1 + y has no logarithm for a label."""
    if np.nanmin(y) <= -1:
        raise DataError(
            f"target_transform: log1p needs targets above -1; got {np.nanmin(y):g}. Set power, "
            "which takes any number."
        )


def labelled_rows(y: Array, names: list[str]) -> list[NDArray[np.intp]]:
    """Return the positions of the labelled rows per target of y (n_rows, n_targets).

    Raises:
        DataError: if a target has fewer than two labels.
    """
    rows = [np.flatnonzero(~np.isnan(column)) for column in y.T]
    for name, labelled in zip(names, rows, strict=True):
        if len(labelled) < 2:
            raise DataError(
                f"target {name!r} must have labels among the training rows of every fold, and those of one have "
                f"{len(labelled)}; lower folds.n_folds (in time, the first model then trains on more rows), use "
                "folds.kind stratified if the folds need no order, or remove the target."
            )
    return rows
