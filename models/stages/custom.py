"""Stage `custom`: a user-defined class; its errors are reported with file and line."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
from pydantic import BaseModel

from competition.config import validate
from competition.dataset import Dataset
from competition.errors import ConfigError
from competition.types import Array
from competition.user_code import load_user_code, user_code_errors
from models.base_config import CustomConfig
from models.stage import Context, as_probabilities, invalid_probability_rows


class Custom:
    """Stage `custom`; `models.stage.StageModel` documents its methods."""

    def __init__(self, config: CustomConfig, context: Context) -> None:
        self.config = config
        self.context = context
        kind, settings = load_custom(config)
        with user_code_errors(config.code):
            self.stage = kind(settings, context)

    def fit(self, train: Dataset, valid: Dataset | None, folder: Path) -> None:
        """Fit the user-defined class on the training rows."""
        with user_code_errors(self.config.code):
            self.stage.fit(train, valid, folder)

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Return finite predictions (n_rows, n_outputs); the class may return (n_rows,) for a single output."""
        with user_code_errors(self.config.code):
            predictions = self.stage.predict(rows, folder)
        with user_code_errors(self.config.code, "return numbers from predict"):
            y_pred = np.asarray(predictions, dtype=np.float64)
        y_pred = y_pred[:, None] if y_pred.ndim == 1 else y_pred
        shape = (len(rows), len(self.context.task.outputs))
        if y_pred.shape != shape or not np.isfinite(y_pred).all():
            raise ConfigError(
                f"predict of {self.config.code} must return finite numbers of shape {shape}, a column per output; "
                f"got shape {y_pred.shape} with {(~np.isfinite(y_pred)).sum()} numbers that are not finite. Labels "
                "in training may be missing (NaN)."
            )
        is_invalid = invalid_probability_rows(self.context.task, y_pred)
        if is_invalid.any():
            first = np.flatnonzero(is_invalid)[0]
            raise ConfigError(
                f"predict of {self.config.code} must return probabilities of "
                f"{', '.join(self.context.task.outputs)}, from 0 to 1, with the sum 1 if there is one per class; "
                f"got {y_pred[first].tolist()} for row {rows.ids[first]!r}."
            )
        return as_probabilities(self.context.task, y_pred)

    @property
    def predict_std(self) -> Callable[[Dataset, Path], Array]:
        """The method of the user-defined class. Without it, an AttributeError says that there is none."""
        method: Callable[[Dataset, Path], Array] = self.stage.predict_std
        return method


def load_custom(config: CustomConfig) -> tuple[Any, Any]:
    """Return the class of a custom stage, and its settings, validated by its `Settings` if it has them."""
    stage_class = load_user_code("code", config.code, "a class with fit and predict")
    if not (hasattr(stage_class, "fit") and hasattr(stage_class, "predict")):
        raise ConfigError(
            f"code: {config.code} must be a class with fit(train, valid, folder) and predict(rows, folder)."
        )
    if not hasattr(stage_class, "Settings"):
        return stage_class, config.settings
    model = stage_class.Settings
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ConfigError(f"code: Settings of {config.code} must be a pydantic model.")
    try:
        settings = validate(model, config.settings, Path(config.code.rpartition(":")[0]), "settings")
    except ConfigError as error:  # its first line names the file of the class instead of the YAML
        raise ConfigError(dedent(str(error).partition("\n")[2])) from None
    return stage_class, settings
