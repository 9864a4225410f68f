"""Target transforms: the stage sees transformed labels, and its predictions are transformed back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from numpy.typing import NDArray
from sklearn import preprocessing

from competition.tables import Rows
from models.training.labels import require_log1p

FILE = "target_transform.skops"


class Transformed:
    """A stage of any kind between a scikit-learn transform of the targets and its inverse.

    The transform is fitted on the training rows of the fold, each target by itself, missing labels left out.
    """

    def __init__(self, stage: Any, kind: str) -> None:
        self.stage, self.kind = stage, kind
        self.spread: NDArray[np.float64] | None = None

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Fit the transform, then the stage on transformed labels."""
        assert train.y is not None
        if self.kind == "log1p":
            require_log1p(train.y)
        transform = make_transform(self.kind, len(train)).fit(train.y)
        skops.io.dump(transform, folder / FILE)
        moved = [rows and replace(rows, y=transform.transform(rows.y)) for rows in (train, valid)]
        self.stage.fit(*moved, folder)

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Predictions (n_rows, n_outputs) in the targets' own units."""
        transform = skops.io.load(folder / FILE)
        y_pred = self.stage.predict(rows, folder)
        spread = getattr(self.stage, "spread", None)
        if spread is not None:
            above, below = transform.inverse_transform(y_pred + spread), transform.inverse_transform(y_pred - spread)
            self.spread = np.abs(above - below) / 2
        return np.asarray(transform.inverse_transform(y_pred), dtype=np.float64)


def make_transform(kind: str, n_rows: int) -> Any:
    """The scikit-learn transformer of a value of the setting `target_transform`."""
    normal = {"output_distribution": "normal", "subsample": None}
    return {
        "standard": preprocessing.StandardScaler(),
        "robust": preprocessing.RobustScaler(),
        "min_max": preprocessing.MinMaxScaler(),
        "quantile": preprocessing.QuantileTransformer(n_quantiles=min(1000, n_rows), **normal),
        "power": preprocessing.PowerTransformer(),
        "log1p": preprocessing.FunctionTransformer(np.log1p, np.expm1, check_inverse=False),
    }[kind]
