"""What was fitted as JSON and back: dataclasses of numbers, texts, arrays, lists and each other."""

import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from competition.types import Array
from competition.user_code import load_user_code
from submissions.blend.logits import Link


class Predictor(Protocol):
    """A candidate, or a step of post-processing, once it is fitted: a dataclass of numbers, texts and arrays."""

    def predict(self, P: Array, /) -> Array:
        """Predictions of a candidate (n_rows, n_outputs), for columns; of a step (n_rows,), for those before it."""


KINDS: dict[str, type] = {}
"""Classes of ours, by name. One of the user's is `file.py:Name`."""


def serializable(kind: type) -> type:
    """Let a class be read back."""
    KINDS[kind.__name__] = kind
    return kind


def to_json(value: Any) -> Any:
    """A fitted dataclass as JSON."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    if not is_dataclass(value):
        return value
    name = type(value).__name__
    if KINDS.get(name) is not type(value):
        name = f"{Path(str(sys.modules[type(value).__module__].__file__)).name}:{name}"
    return {"class": name, **{field.name: to_json(getattr(value, field.name)) for field in fields(value)}}


def from_json(stored: Any, named: str = "") -> Any:
    """What `to_json` was given; `named`, `file.py:function`, is what the YAML calls it where it is the user's."""
    match stored:
        case {"array": values}:
            return np.array(values)
        case {"class": name, **rest}:
            own = f"{named.rpartition(':')[0]}:{name.rpartition(':')[2]}"
            kind = load_user_code("submissions", own, "this class") if ":" in name else KINDS[name]
            return kind(**{str(key): from_json(value, named) for key, value in rest.items()})
        case list():
            return [from_json(each, named) for each in stored]
    return stored


def require_predictions(y_pred: Any, shape: tuple[int, ...], link: Link = "identity") -> None:
    """Raise a ValueError for what a user's own code predicts, where it has another shape or is not finite.

    Of classes, whose probabilities have another link, they have to be between 0 and 1, and of several to sum to 1.
    """
    found = np.asarray(y_pred, dtype=np.float64)
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError(f"it predicts {found.shape} for {shape}, or what is not finite")
    in_range = link == "identity" or (found.min() >= 0 and found.max() <= 1)
    if not in_range or (link == "softmax" and not np.allclose(found.sum(axis=1), 1)):
        raise ValueError("it predicts what are no probabilities: between 0 and 1, those of one target with sum 1")
