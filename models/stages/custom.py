"""Stage `custom`: a class of the user's own; what it gets wrong is said with its file and line."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.config import validate
from competition.errors import ConfigError, UserError
from competition.tables import Rows
from competition.user_code import load_user_code
from models.config import CustomStage
from models.stage import Context

METHODS = {"__init__": ["settings", "context"], "fit": ["train", "valid", "folder"], "predict": ["rows", "folder"]}


class Custom:
    """The stage; see `models.stage.FittedStage`. All methods raise a ConfigError where the class fails."""

    def __init__(self, config: CustomStage, context: Context) -> None:
        self.config, self.context = config, context
        kind, settings = load_custom(config)
        with self._told("__init__"):
            self.stage = kind(settings, context)

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """What the class does with the training rows."""
        with self._told("fit"):
            self.stage.fit(train, valid, folder)

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Predictions (n_rows, n_outputs), finite; a single output may be (n_rows,)."""
        with self._told("predict"):
            y_pred = np.asarray(self.stage.predict(rows, folder), float)
        y_pred = y_pred[:, None] if y_pred.ndim == 1 else y_pred
        shape = (len(rows), len(self.context.task.outputs))
        if y_pred.shape != shape or not np.isfinite(y_pred).all():
            raise ConfigError(
                f"predict of {self.config.code} must return finite numbers of shape {shape}, a row per row and a "
                f"column per output; it returned the shape {y_pred.shape}, {(~np.isfinite(y_pred)).sum()} not finite. "
                "Labels in training may be missing (NaN)."
            )
        return y_pred

    @contextmanager
    def _told(self, method: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # a user's class may raise anything
            file = Path(self.config.code.rpartition(":")[0])
            own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
            raise ConfigError(
                f"{method} of {self.config.code} raised {type(error).__name__} in line {own[-1] if own else '?'}: "
                f"{error}. Correct it; finished jobs are kept."
            ) from error


def load_custom(config: CustomStage) -> tuple[Any, Any]:
    """The class of a custom stage, and its settings, checked by its `Settings` where it has them."""
    found = load_user_code("code", config.code, "a class with fit and predict")
    for name, arguments in METHODS.items():
        try:
            inspect.signature(getattr(found, name)).bind("self", *arguments)
        except (AttributeError, TypeError):
            raise ConfigError(
                f"code: {config.code} must be a class with {name}(self, {', '.join(arguments)})."
            ) from None
    if not hasattr(found, "Settings"):
        return found, config.settings
    return found, validate(found.Settings, config.settings, Path(config.code.rpartition(":")[0]), "settings")
