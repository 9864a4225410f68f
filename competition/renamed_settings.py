"""Settings of a YAML that have been renamed or added, each marked at its field by `OldName` or `ADDED`.

The old names are still read. They also stay in the digests that name jobs, folds and runs, and an added setting
is in them only if it differs from its default, so that neither change trains anything again.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

FOR_DIGESTS = {"old_names": True}
"""Context of `model_dump` for a digest: the dump then has the old names."""


@dataclass(frozen=True, eq=False)
class OldName:
    """Annotation of a setting with its former name: `Annotated[int, OldName("vocabulary")]`.

    Attributes:
        name: the former name.
        values: value -> its former value, if they were renamed too.
    """

    name: str
    values: Mapping[str, str] = field(default_factory=dict)


ADDED = object()
"""Annotation of a setting that is newer than the first digests: `Annotated[int | None, ADDED] = None`."""


@functools.cache
def old_names(model: type[BaseModel]) -> dict[str, OldName]:
    """Return setting -> its former name, for the renamed settings of a model."""
    renamed = {}
    for name, info in model.model_fields.items():
        for annotation in info.metadata:
            if isinstance(annotation, OldName):
                renamed[name] = annotation
    return renamed


def with_new_names(model: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """Return settings of a YAML under the current names.

    Raises:
        ValueError: if a setting has both names.
    """
    result = dict(values)
    for name, old in old_names(model).items():
        if old.name in result:
            if name in result:
                raise ValueError(f"{old.name} is the old name of {name}; remove one of them")
            result[name] = result.pop(old.name)
        for value, former_value in old.values.items():
            if result.get(name) == former_value:
                result[name] = value
    return result


def with_old_names(model: type[BaseModel], dumped: dict[str, Any]) -> dict[str, Any]:
    """Return the dump of a model under the old names, for digests."""
    result = dict(dumped)
    for name, info in model.model_fields.items():
        if ADDED in info.metadata and result.get(name) == info.default:
            result.pop(name, None)
    for name, old in old_names(model).items():
        if name not in result:
            continue
        result[old.name] = result.pop(name)
        for value, former_value in old.values.items():
            if result[old.name] == value:
                result[old.name] = former_value
    return result
