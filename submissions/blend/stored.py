"""What was fitted as JSON and back: a dataclass of numbers, texts, lists and arrays, known by the name of its class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from competition.errors import ConfigError
from competition.user_code import load_user_code


def to_json(fitted: Any) -> dict[str, Any]:
    """A fitted dataclass as JSON."""
    values = {field.name: getattr(fitted, field.name) for field in fields(fitted)}
    plain = {name: {"array": v.tolist()} if isinstance(v, np.ndarray) else v for name, v in values.items()}
    return {"class": type(fitted).__name__, **plain}


def from_json(stored: dict[str, Any], classes: dict[str, type], named: str = "") -> Any:
    """What `to_json` was given.

    Args:
        classes: of ours, by name.
        named: the candidate or step in the YAML; one of the user's, `file.py:name`, has its class in that file.
    """
    name = stored["class"]
    file, _, _ = named.rpartition(":")
    kind = load_user_code("submissions", f"{file}:{name}", f"the class {name}") if file else classes[name]
    values = {key: value for key, value in stored.items() if key != "class"}
    return kind(**{k: np.array(v["array"]) if isinstance(v, dict) and "array" in v else v for k, v in values.items()})


def label(named: str) -> str:
    """How a candidate or step is called in tables: by its name, or `file.py:name` without the folder."""
    file, _, name = named.rpartition(":")
    return f"{Path(file).name}:{name}" if file else name


@contextmanager
def users(named: str, must: str) -> Iterator[None]:
    """Around a call of a user's function.

    Raises:
        ConfigError: if it raises anything.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{named} must {must}; it raised {type(error).__name__}: {error}.") from error


def require_storable(fitted: Any, named: str) -> None:
    """Check that a user's predictor can be stored.

    Raises:
        ConfigError: if not.
    """
    if not (is_dataclass(fitted) and hasattr(fitted, "predict")):
        raise ConfigError(
            f"{named} must return a dataclass with a method predict; it returned {type(fitted).__name__}."
        )
