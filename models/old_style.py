"""Stages whose settings and model are two classes."""

import contextlib
import importlib
from pathlib import Path
from typing import Any

from competition.dataset import Dataset
from core.types import Array
from models.context import Context
from models.stage import Stage


class OldStyle(Stage):
    """Calls the class of the model with the settings and the context."""

    def model(self, context: Context) -> Any:
        """Return the model."""
        module = importlib.import_module(f"models.stages.{self.kind}")
        return getattr(module, self.kind.capitalize())(self, context)

    def fit(self, train: Dataset, folder: Path, context: Context) -> None:
        """Fit."""
        self.model(context).fit(train, folder)

    def predict(self, rows: Dataset, folder: Path, context: Context) -> Array:
        """Predict."""
        y_pred: Array = self.model(context).predict(rows, folder)
        return y_pred

    def predict_std(self, rows: Dataset, folder: Path, context: Context) -> Array | None:
        """Predict the standard deviation."""
        std: Array | None = None
        with contextlib.suppress(AttributeError):
            std = self.model(context).predict_std(rows, folder)
        return std
