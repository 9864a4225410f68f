"""Stage `custom`: a class of the user's own; what it gets wrong is said with its file and line."""

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
    """The stage; see `models.stage.StageModel`."""

    def __init__(self, config: CustomConfig, context: Context) -> None:
        self.config, self.context = config, context
        kind, settings = load_custom(config)
        with user_code_errors(config.code):
            self.stage = kind(settings, context)

    def fit(self, train: Dataset, valid: Dataset | None, folder: Path) -> None:
        """What the class does with the training rows."""
        with user_code_errors(self.config.code):
            self.stage.fit(train, valid, folder)

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Predictions (n_rows, n_outputs), finite; a single output may be (n_rows,)."""
        with user_code_errors(self.config.code):
            predictions = self.stage.predict(rows, folder)
        with user_code_errors(self.config.code, "return numbers from predict"):
            y_pred = np.asarray(predictions, dtype=np.float64)
        y_pred = y_pred[:, None] if y_pred.ndim == 1 else y_pred
        shape = (len(rows), len(self.context.task.outputs))
        if y_pred.shape != shape or not np.isfinite(y_pred).all():
            raise ConfigError(
                f"predict of {self.config.code} must return finite numbers of shape {shape}, a row per "
                f"row and a "
                f"column per output; it returned the shape {y_pred.shape}, {(~np.isfinite(y_pred)).sum()} "
                f"not finite. "
                "Labels in training may be missing (NaN)."
            )
        if (wrong := invalid_probability_rows(self.context.task, y_pred)).any():
            first = np.flatnonzero(wrong)[0]
            raise ConfigError(
                f"predict of {self.config.code} must return probabilities of "
                f"{', '.join(self.context.task.outputs)}, "
                "which lie in 0 to 1 and, where there is one for each class of a target, sum to 1; "
                f"of row {rows.ids[first]!r} it returned {y_pred[first].tolist()}."
            )
        return as_probabilities(self.context.task, y_pred)


def load_custom(config: CustomConfig) -> tuple[Any, Any]:
    """The class of a custom stage, and its settings, checked by its `Settings` where it has them."""
    found = load_user_code("code", config.code, "a class with fit and predict")
    if not (hasattr(found, "fit") and hasattr(found, "predict")):
        raise ConfigError(
            f"code: {config.code} must be a class with fit(train, valid, folder) and predict(rows, folder)."
        )
    if not hasattr(found, "Settings"):
        return found, config.settings
    if not (isinstance(found.Settings, type) and issubclass(found.Settings, BaseModel)):
        raise ConfigError(f"code: Settings of {config.code} must be a pydantic model.")
    try:
        return found, validate(
            found.Settings, config.settings, Path(config.code.rpartition(":")[0]), "settings"
        )
    except ConfigError as error:  # its first line blames the file of the class for what the YAML has
        raise ConfigError(dedent(str(error).partition("\n")[2])) from None
