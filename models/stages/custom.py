"""Stage `custom`: a user-defined class; its errors are reported with file and line."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from competition.config import validate
from competition.dataset import Dataset
from core.errors import ConfigError
from core.settings import UserCodeRef
from core.types import Array
from core.user_code import load_user_code, user_code_errors
from models.context import CheckTables, Context
from models.old_style import OldStyle
from models.stage import GpuShare, as_probabilities, invalid_probability_rows


class CustomConfig(OldStyle):
    """A user-defined class with the two methods of `models.stage.Stage`."""

    requires_labels = False
    kind: Literal["custom"]
    code: UserCodeRef
    """`file.py:Class`. The class is called with its settings and a `models.stage.Context`."""
    settings: dict[str, Any] = {}
    """Settings that the class is called with. If the class has an attribute `Settings`, a pydantic
    model, this model validates them."""
    class_weights: Literal["none"] = "none"
    gpu: GpuShare = 1.0
    """Share of a GPU for each job. false: each job computes on one CPU core, and many run in parallel."""

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Check that the class can be imported and accepts the settings."""
        yield from super().check(tables)
        load_custom(self)


class Custom:
    """Stage `custom`; `models.stage.Stage` documents its methods."""

    def __init__(self, config: CustomConfig, context: Context) -> None:
        self.config = config
        self.context = context
        kind, settings = load_custom(config)
        with user_code_errors(config.code):
            self.stage = kind(settings, context)

    def fit(self, train: Dataset, folder: Path) -> None:
        """Fit the user-defined class on the training rows."""
        with user_code_errors(self.config.code):
            self.stage.fit(train, folder)

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Return finite predictions (n_rows, n_outputs); the class may return (n_rows,) for a single output."""
        y_pred = self._numbers("predict", rows, folder)
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
        """The method of the user-defined class, checked; an AttributeError if it has none."""
        if not hasattr(self.stage, "predict_std"):
            raise AttributeError("predict_std")
        return partial(self._numbers, "predict_std")

    def _numbers(self, method: str, rows: Dataset, folder: Path) -> Array:
        """Return the finite numbers (n_rows, n_outputs) of a method of the user-defined class."""
        with user_code_errors(self.config.code):
            returned = getattr(self.stage, method)(rows, folder)
        with user_code_errors(self.config.code, f"return numbers from {method}"):
            numbers = np.asarray(returned, dtype=np.float64)
        numbers = numbers[:, None] if numbers.ndim == 1 else numbers
        shape = (len(rows), len(self.context.task.outputs))
        if numbers.shape != shape or not np.isfinite(numbers).all():
            raise ConfigError(
                f"{method} of {self.config.code} must return finite numbers of shape {shape}, a column per output; "
                f"got shape {numbers.shape} with {(~np.isfinite(numbers)).sum()} numbers that are not finite. "
                "Labels in training may be missing (NaN)."
            )
        return numbers


def load_custom(config: CustomConfig) -> tuple[Any, Any]:
    """Return the class of a custom stage, and its settings, validated by its `Settings` if it has them."""
    stage_class = load_user_code("code", config.code, "a class with fit and predict")
    if not (hasattr(stage_class, "fit") and hasattr(stage_class, "predict")):
        raise ConfigError(
            f"code: {config.code} must be a class with fit(train, folder) and predict(rows, folder)."
        )
    signature = inspect.signature(stage_class.fit)
    try:
        signature.bind("self", "train", "folder")
    except TypeError:
        raise ConfigError(
            f"code: fit of {config.code} is called with the training rows and a folder, but it is defined as "
            f"fit{signature}. Write `def fit(self, train, folder):`"
        ) from None
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
