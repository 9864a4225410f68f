"""Fitted objects as JSON and back: nested dataclasses of numbers, strings, arrays and lists."""

import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core.types import Array
from core.user_code import load_user_code


class Predictor(Protocol):
    """A fitted candidate: a dataclass of numbers, strings and arrays."""

    def predict(self, preds: Array, /) -> Array:
        """Return predictions (n_rows, n_outputs) from columns (n_rows, n_models, n_outputs)."""


SERIALIZABLE: dict[str, type] = {}
"""Classes of this project by name. A user-defined class is written as `file.py:Name`."""


def serializable(kind: type) -> type:
    """Register a class of this project, so that `from_json` can restore it; a class decorator."""
    SERIALIZABLE[kind.__name__] = kind
    return kind


def to_json(value: Any) -> Any:
    """Return a fitted dataclass as JSON."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if not is_dataclass(value):
        return value
    name = type(value).__name__
    if SERIALIZABLE.get(name) is not type(value):
        name = f"{Path(str(sys.modules[type(value).__module__].__file__)).name}:{name}"
    return {"class": name, **{field.name: to_json(getattr(value, field.name)) for field in fields(value)}}


def from_json(content: Any, code_ref: str = "") -> Any:
    """Restore the value that `to_json` was given.

    Args:
        code_ref: `file.py:function` from the YAML if the value was made by user-defined code; its file
            has the class.
    """
    match content:
        case {"array": values}:
            return np.array(values)
        case {"class": name, **attributes}:
            if ":" in name:
                class_ref = f"{code_ref.rpartition(':')[0]}:{name.rpartition(':')[2]}"
                kind = load_user_code("submissions", class_ref, "this class")
            else:
                kind = SERIALIZABLE[name]
            return kind(**{str(key): from_json(value, code_ref) for key, value in attributes.items()})
        case list():
            return [from_json(item, code_ref) for item in content]
    return content
