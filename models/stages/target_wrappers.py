"""Wrappers of stages: transformed targets, and cumulative ordinal targets."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn import preprocessing

from competition.dataset import Dataset
from competition.files import read_json, write_json
from competition.types import Array
from models.training.labels import require_log1p, with_bounds

FILE = "target_transform.skops"
RANGE = "transformed_range.json"


class TargetTransformModel:
    """Wraps a stage with a scikit-learn transform of the targets and its inverse.

    The transform is fitted on the training rows of the fold, per target, without missing labels.
    """

    def __init__(self, stage: Any, kind: str) -> None:
        self.stage, self.kind = stage, kind

    def fit(self, train: Dataset, valid: Dataset | None, folder: Path) -> None:
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
        valid = valid and _transformed(valid, transform)
        self.stage.fit(_transformed(train, transform), valid, folder)

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Return predictions (n_rows, n_outputs) in the units of the targets."""
        transform = skops.io.load(folder / FILE)
        y_pred = self.stage.predict(rows, folder)
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


class CumulativeModel:
    """Wraps a stage that learns which ordinal levels are exceeded, one label per level except the highest.

    The mean level is the sum of their probabilities. Source: Frank and Hall, A simple approach to ordinal
    classification, ECML 2001.
    """

    def __init__(self, stage: Any, n_levels: int) -> None:
        self.stage, self.n_levels = stage, n_levels

    def fit(self, train: Dataset, valid: Dataset | None, folder: Path) -> None:
        """Fit the stage on labels (n_rows, n_levels); a pseudo-label between two levels is rounded."""
        bounds = np.arange(self.n_levels) + 0.5
        train = replace(train, y=np.where(np.isnan(train.y), np.nan, train.y > bounds))
        if valid is not None:
            valid = replace(valid, y=np.where(np.isnan(valid.y), np.nan, valid.y > bounds))
        self.stage.fit(train, valid, folder)

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Return the mean level of each row, (n_rows, 1)."""
        return np.asarray(self.stage.predict(rows, folder).sum(axis=1, keepdims=True))
