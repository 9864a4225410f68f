"""Units: what rows are taken together by. `competition.group` names them, and folds/units.py finds them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

GroupKind = Literal[
    "cell", "pool", "scaffold", "stereo_scaffold", "prefix", "long_prefix", "plain_text",
    "component_1", "component_2", "component_3", "component_4",
]  # fmt: skip
"""What is computed from columns. cell: all their values together. pool: the values of each of them, so that a
row has several. scaffold: the Murcko scaffold of a molecule, stereo_scaffold with its stereochemistry.
prefix: what is before the first sign such as _ or -, long_prefix before the last. plain_text: a text without
links, names of users, numbers, and punctuation around words. component_1: the component of a mixture or
reaction that is in the fewest rows, component_2 the next.
"""
GroupPart = str | dict[GroupKind, str | list[str]]
"""A column, whose values are taken, or a kind with its columns."""


@dataclass(frozen=True)
class Unit:
    """A way to take rows together.

    Attributes:
        kind: one of `GroupKind`, `value` of a column, or `time`.
    """

    kind: str
    columns: tuple[str, ...]

    def __str__(self) -> str:
        names = ", ".join(map(repr, self.columns))
        return names if self.kind == "value" else f"{self.kind.replace('_', ' ')} of {names}"

    @property
    def setting(self) -> str | dict[str, str | list[str]]:
        """The unit as a part of `competition.group`."""
        columns = self.columns[0] if len(self.columns) == 1 else list(self.columns)
        return self.columns[0] if self.kind == "value" else {self.kind: columns}


def units_of(group: GroupPart | list[GroupPart] | None) -> list[Unit]:
    """Return the units of `competition.group`; rows that share any of them belong together."""
    parts = group if isinstance(group, list) else [part for part in [group] if part is not None]
    units = []
    for part in parts:
        kinds = {"value": part} if isinstance(part, str) else part
        for kind, columns in kinds.items():
            units.append(Unit(kind, (columns,) if isinstance(columns, str) else tuple(columns)))
    return units


def unit_errors(units: list[Unit], id_column: str, labels: list[str], smiles: list[str]) -> Iterator[str]:
    """Yield an error for each unit of an id, of labels, or of scaffolds of a column without molecules."""
    for unit in units:
        if {*labels} & {*unit.columns} or unit == Unit("value", (id_column,)):
            yield f"group: {unit} must be neither the id nor a target"
        elif unit.kind.endswith("scaffold") and not {*unit.columns} <= {*smiles}:
            yield f"group: {unit} needs a column of molecules; correct its name, or add it to smiles"
