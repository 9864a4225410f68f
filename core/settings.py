"""Settings: the base class of all sections of a YAML, and types and durations in them."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ValidationInfo, model_validator

from core.errors import ConfigError

TRACKER_VARIABLE = "LOSS_TRACKER"
"""Environment variable with the tracker of losses."""


class StrictModel(BaseModel):
    """Base class of all settings: they are read-only, and an unknown key is an error."""

    model_config = {
        "extra": "forbid",
        "frozen": True,
        "allow_inf_nan": False,
        "use_attribute_docstrings": True,
    }

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any, info: ValidationInfo) -> Any:
        """Record the valid names for an unknown key."""
        if isinstance(values, dict) and info.context:
            for name in values.keys() - cls.model_fields.keys():
                info.context["valid_names"].setdefault(name, set()).update(cls.model_fields)
        return values


def _absolute_path(file: Path, info: ValidationInfo) -> Path:
    return (info.context["folder"] / file).resolve() if info.context else file


def absolute_code_ref(code_ref: str, info: ValidationInfo) -> str:
    """Return `file.py:name` with an absolute path."""
    file, _, name = code_ref.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise ValueError("must be file.py:name")
    return f"{_absolute_path(Path(file), info)}:{name}"


def name_or_code_ref(names: Collection[str]) -> AfterValidator:
    """Return the annotation of a setting that is one of some names, or `file.py:function`."""

    def require_name(name: str, info: ValidationInfo) -> str:
        if name in names:
            return name
        if ":" not in name:
            raise ValueError(f"must be one of {', '.join(names)}, or file.py:function")
        return absolute_code_ref(name, info)

    return AfterValidator(require_name)


def _require_unique(values: list[Any]) -> list[Any]:
    duplicates = [value for value in values if values.count(value) > 1]
    if duplicates:
        raise ValueError(f"must not have duplicates; got {duplicates[0]} twice")
    return values


UserPath = Annotated[Path, AfterValidator(_absolute_path)]
"""File or folder, relative to the folder of the YAML; `competition.config.validate` makes it absolute."""
UserCodeRef = Annotated[str, AfterValidator(absolute_code_ref)]
"""`file.py:name`, a user-defined function or class that `core.user_code` loads; absolute like `UserPath`."""
UniqueList = AfterValidator(_require_unique)
"""Annotation of lists without duplicates."""


def parse_duration(text: str) -> float:
    """Return the seconds of a time above 0 such as `2h`, `90m`, `30s` or `30`."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([hms]?)", text.strip())
    seconds = float(match[1]) * {"h": 3600, "m": 60}.get(match[2], 1) if match else 0.0
    if seconds <= 0:
        raise ConfigError(f"a time is a number above 0 such as 2h, 90m, 30s or 30; got {text!r}.")
    return seconds


def nearest(name: str, valid_names: Collection[str]) -> str:
    """Return the valid names that are most like a name, for a message; all of them if none is."""
    ordered = sorted(valid_names)
    return ", ".join(get_close_matches(name, ordered, n=3) or ordered)
