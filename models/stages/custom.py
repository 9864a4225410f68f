"""Stage `custom`: a class of the user's own, held to the contract in words that name its file and line."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition import command
from competition.config import validate
from competition.errors import ConfigError, UserError
from competition.tables import Rows
from competition.user_code import load_user_code
from models.config import CustomStage
from models.stage import Context

METHODS = {"__init__": ["settings", "context"], "fit": ["train", "valid", "folder"], "predict": ["rows", "folder"]}


class Custom:
    """The stage; see `models.stage.FittedStage`. Prediction makes a new object, as it does in another process."""

    def __init__(self, config: CustomStage, context: Context) -> None:
        self.config, self.context = config, context
        kind, settings = load_custom(config)
        self.stage = self._call("__init__", kind, settings, context)

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """What the class does with the training rows.

        Raises:
            ConfigError: if it fails.
        """
        self._call("fit", self.stage.fit, train, valid, folder)

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Predictions (n_rows, n_outputs); a single output may be (n_rows,).

        Raises:
            ConfigError: if it fails, or returns something else or numbers that are not finite.
        """
        y_pred = self._call("predict", lambda: np.asarray(self.stage.predict(rows, folder), float))
        shape = (len(rows), len(self.context.task.outputs))
        y_pred = y_pred[:, None] if y_pred.shape == shape[:1] and shape[1] == 1 else y_pred
        if y_pred.shape != shape or not np.isfinite(y_pred).all():
            wrong = f"{(~np.isfinite(y_pred)).sum()} of them are not finite"
            raise ConfigError(
                f"predict of {self.config.code} must return numbers of shape {shape}, a row per row and a column per "
                f"output; {wrong if y_pred.shape == shape else f'it returned the shape {y_pred.shape}'}. "
                "Labels in training may be missing (NaN)."
            )
        return y_pred

    def _call(self, method: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # a user's class may raise anything
            if isinstance(error, OSError) and error.errno in command.FULL:
                raise
            file = Path(self.config.code.rpartition(":")[0])
            own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
            where = f" in line {own[-1]}" if own else ""
            raise ConfigError(
                f"{method} of {self.config.code} raised {type(error).__name__}{where}: {error}. "
                "Correct it; finished jobs are kept."
            ) from error


def load_custom(config: CustomStage) -> tuple[Any, Any]:
    """The class of a custom stage, and its settings: as its `Settings`, where it has them, else as the YAML has them.

    Raises:
        ConfigError: if the file fails, or the class lacks a method of `FittedStage`; with all mistakes in the settings.
    """
    found = load_user_code("code", config.code, "a class with fit and predict")
    for name, arguments in METHODS.items():
        try:
            method = getattr(found, name)
            if method is object.__init__:
                raise TypeError("the class has none of its own")
            inspect.signature(method).bind("self", *arguments)
        except (AttributeError, TypeError, ValueError):
            raise ConfigError(
                f"code: {config.code} must be a class with {name}(self, {', '.join(arguments)}); it has none, or one "
                "with other arguments."
            ) from None
    if not hasattr(found, "Settings"):
        return found, config.settings
    return found, validate(found.Settings, config.settings, Path(config.code.rpartition(":")[0]), "settings")
