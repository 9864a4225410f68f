"""Between labels and a stage: it sees transformed ones, or which grades are exceeded; what it predicts goes back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn import preprocessing

from competition.tables import Rows
from competition.types import Array
from models.training.labels import require_log1p

FILE = "target_transform.skops"


class Transformed:
    """A stage of any kind between a scikit-learn transform of the targets and its inverse.

    The transform is fitted on the training rows of the fold, each target by itself, missing labels left out.
    """

    def __init__(self, stage: Any, kind: str) -> None:
        self.stage, self.kind = stage, kind
        self.spread: Array | None = None

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Fit the transform, then the stage on transformed labels."""
        if self.kind == "log1p":
            require_log1p(train.y)
        transform = {
            "standard": preprocessing.StandardScaler(),
            "robust": preprocessing.RobustScaler(),
            "min_max": preprocessing.MinMaxScaler(),
            "quantile": preprocessing.QuantileTransformer(
                n_quantiles=min(1000, len(train)), output_distribution="normal", subsample=None
            ),
            "power": preprocessing.PowerTransformer(),
            "log1p": preprocessing.FunctionTransformer(np.log1p, np.expm1, check_inverse=False),
        }[self.kind].fit(train.y)
        skops.io.dump(transform, folder / FILE)
        self.stage.fit(*[rows and replace(rows, y=transform.transform(rows.y)) for rows in (train, valid)], folder)

    def predict(self, rows: Rows, folder: Path) -> Array:
        """Predictions (n_rows, n_outputs) in the targets' own units."""
        back = skops.io.load(folder / FILE).inverse_transform
        y_pred, spread = self.stage.predict(rows, folder), getattr(self.stage, "spread", None)
        if spread is not None:
            self.spread = np.abs(back(y_pred + spread) - back(y_pred - spread)) / 2
        return np.asarray(back(y_pred), dtype=np.float64)


class Cumulative:
    """A stage of any kind that learns which grades are exceeded, a label for each but the highest.

    The mean grade is the sum of their probabilities. Source: Frank and Hall, A simple approach to ordinal
    classification, ECML 2001.
    """

    def __init__(self, stage: Any, n_grades: int) -> None:
        self.stage, self.n_grades = stage, n_grades
        self.spread: Array | None = None

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Fit the stage on labels (n_rows, n_grades)."""
        self.stage.fit(*[rows and self.exceeded(rows) for rows in (train, valid)], folder)

    def predict(self, rows: Rows, folder: Path) -> Array:
        """The mean grade of each row, (n_rows, 1)."""
        y_pred, spread = self.stage.predict(rows, folder), getattr(self.stage, "spread", None)
        self.spread = None if spread is None else spread.sum(axis=1, keepdims=True)  # as if all moved together
        return np.asarray(y_pred.sum(axis=1, keepdims=True))

    def exceeded(self, rows: Rows) -> Rows:
        """Rows as the stage sees them; a pseudo-label between two grades counts as the nearer one."""
        return replace(rows, y=np.where(np.isnan(rows.y), np.nan, rows.y > np.arange(self.n_grades) + 0.5))
