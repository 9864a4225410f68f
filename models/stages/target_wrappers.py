"""Wrapper of a stage: transformed targets."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn import preprocessing

from competition.dataset import Dataset
from core.files import read_json, write_json
from core.types import Array
from models.stage import Context, StageModel
from models.training.labels import require_log1p, with_bounds

FILE = "target_transform.skops"
RANGE = "transformed_range.json"


class TargetTransformModel:
    """Wraps a stage with a scikit-learn transform of the targets and its inverse.

    The transform is fitted on the training rows of the fold, per target, without missing labels.

    Args:
        build: returns the stage for a context.
    """

    def __init__(self, build: Callable[[Context], StageModel], context: Context, kind: str) -> None:
        self.build, self.context, self.kind = build, context, kind
        self.stage = build(context)

    def fit(self, train: Dataset, folder: Path) -> None:
        """Fit the transform, then the stage on transformed labels."""
        if self.kind == "log1p":
            bounds = train.bounds
            require_log1p(
                train.y if bounds is None else with_bounds(train.y, bounds[:, : train.y.shape[1]])[0]
            )
        n_labelled = int(train.is_labelled.sum())  # some rows have auxiliary targets only
        transform = {
            "standard": preprocessing.StandardScaler(),
            "robust": preprocessing.RobustScaler(),
            "min_max": preprocessing.MinMaxScaler(),
            "quantile": preprocessing.QuantileTransformer(
                n_quantiles=min(1000, n_labelled), output_distribution="normal", subsample=None
            ),
            "power": preprocessing.PowerTransformer(),
            "log1p": preprocessing.FunctionTransformer(np.log1p, np.expm1, check_inverse=False),
        }[self.kind].fit(train.y)
        skops.io.dump(transform, folder / FILE)
        y = transform.transform(train.y)
        write_json(folder / RANGE, [np.nanmin(y, axis=0).tolist(), np.nanmax(y, axis=0).tolist()])
        held_out = self.context.held_out
        if held_out is not None:  # its score is in the units of the targets
            score = held_out.score
            held_out = replace(held_out, score=lambda y_pred: score(self._inverse(y_pred, folder)))
            self.stage = self.build(replace(self.context, held_out=held_out))
        self.stage.fit(_transformed(train, transform), folder)

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Return predictions (n_rows, n_outputs) in the units of the targets."""
        return self._inverse(self.stage.predict(rows, folder), folder)

    def _inverse(self, y_pred: Array, folder: Path) -> Array:
        """Return predictions of the stage, (n_rows, n_outputs), in the units of the targets."""
        transform = skops.io.load(folder / FILE)
        if self.kind == "power":  # it has no inverse far beyond the labels
            y_pred = y_pred.clip(*read_json(folder / RANGE))
        return np.asarray(transform.inverse_transform(y_pred), dtype=np.float64)


def _transformed(rows: Dataset, transform: Any) -> Dataset:
    """Return rows with transformed labels and, since all transforms increase, transformed bounds of labels."""
    y = transform.transform(rows.y)
    bounds = rows.bounds
    if bounds is not None:
        n_targets = y.shape[1]  # auxiliary targets follow, which are not transformed
        sides = [transform.transform(bounds[:, :n_targets, side]) for side in (0, 1)]
        bounds = np.concatenate([np.stack(sides, axis=2), bounds[:, n_targets:]], axis=1)
    return replace(rows, y=y, bounds=bounds)
