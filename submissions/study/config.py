"""The YAML of a study: a claim, the stages it is about, and the axes along which their settings vary."""

from __future__ import annotations

from copy import deepcopy
from typing import Annotated, Any

from pydantic import Field, model_validator

from competition.config import StrictModel
from competition.paths import PROJECT

STUDIES = PROJECT / "studies"
COLUMNS = ("data", "metric", "stage", "seed", "fold", "score", "seconds", "epoch")
"""Of results.csv and curves.csv, beside the axes."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]+$")]
LabelOrNumber = bool | int | float | Label


class Published(StrictModel):
    """A number that others reported."""

    what: str
    """What was measured, on what."""
    value: str
    """The number as its source has it, with its spread where there is one."""
    source: str
    """Where it stands."""


class Data(StrictModel):
    """The table that stages of a study are measured on."""

    base: str
    """Competition: its name, or a YAML relative to the study's; its stages play no part."""
    folder: str | None = None
    """Folder below --data (or $STUDY_DATA) with the tables, for data that may not be embedded: the part is skipped
    where it is not there."""
    rows: int | None = Field(default=None, ge=10)
    """Training rows, drawn at random once; null takes all."""
    folds: dict[str, Any] = {}
    """Settings of `folds:` that differ from the base's."""


class Axis(StrictModel):
    """One thing that varies."""

    stages: list[str] = []
    """Those that it varies; empty: all."""
    key: str | None = None
    """Dotted path of the setting inside the stage's block, such as head.dropout; null: each value names its own."""
    values: list[LabelOrNumber] | dict[LabelOrNumber, Any] = Field(min_length=1)
    """The values, or label -> value; without a key, label -> {dotted path: value, ...}."""

    @model_validator(mode="after")
    def _values_say_what_they_set(self) -> Axis:
        if self.key is None and not (isinstance(self.values, dict) and all(map(_is_mapping, self.values.values()))):
            raise ValueError("without a key, values must be label -> {setting: value, ...}")
        if len(self.settings) < len(self.values):
            raise ValueError("each value must stand once")
        return self

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Label -> {dotted path: value}."""
        named: dict[Any, Any] = (
            self.values if isinstance(self.values, dict) else {value: value for value in self.values}
        )
        return {label(name): value if self.key is None else {self.key: value} for name, value in named.items()}


Place = dict[str, LabelOrNumber]
"""Axis -> label of its value; an axis that is not named has the baseline's."""


class Smaller(StrictModel):
    """What a smaller version changes."""

    data: list[str] | None = None
    """Names of the data that it uses; null: all."""
    rows: int | None = Field(default=None, ge=10)
    folds: list[int] | None = None
    seeds: list[int] | None = Field(default=None, min_length=1)
    axes: dict[str, Annotated[list[LabelOrNumber], Field(min_length=1)]] = {}
    """Axis -> the values that are left; of an axis with a list of numbers, any others."""
    cells: list[Place] | None = None
    stages: dict[str, dict[str, Any] | None] = {}
    """Stage -> dotted path of a setting -> its value, before the axes; null leaves the stage out."""
    baseline: Place = {}
    """Values of the baseline that differ."""


class Reached(StrictModel):
    """A measure made of a curve: the first epoch whose value is at or below a number, empty where none is."""

    name: Name
    curve: str
    """Column of the curve, such as held_out_evaluation_mode (needs `monitor: held_out`)."""
    below: float


class Study(StrictModel):
    """One study."""

    claim: str = Field(min_length=1)
    """What others say, in one or two sentences."""
    published: list[Published] = []
    data: dict[Name, Data | str] = Field(min_length=1)
    """Name -> competition."""
    stages: dict[Name, dict[str, Any]] = Field(min_length=1)
    """Name -> block as in a competition's YAML; its key `data` lists what it is measured on (default: all)."""
    axes: dict[Name, Axis] = {}
    cells: list[Place] | None = None
    """Combinations that are measured; null: all of them. The baseline always is."""
    baseline: Place = {}
    """The cell that others are held against: a value of each axis."""
    seeds: list[int] = Field(default=[0], min_length=1)
    folds: list[int] | None = None
    """Folds that are measured; null: all."""
    intervals: bool = True
    """Whether differences get intervals, for which two pairs of seed and fold are the least."""
    measures: list[str | Reached] = []
    """Numbers of `measures.json` that the table shows beside the score; results.csv has all of them."""
    equal: list[list[Place]] = []
    """Lists of cells whose predictions must be the same, as a check."""
    quick: Smaller = Smaller()
    """The version of --quick: minutes on 2 cores."""
    short: Smaller = Smaller()
    """The version of --short: about an hour on 2 cores."""


def label(value: Any) -> str:
    """The text that names a value."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def set_at(block: dict[str, Any], path: str, value: Any) -> None:
    """Set what a dotted path names in a block of settings; what is above it and no mapping becomes one."""
    *above, last = path.split(".")
    for key in above:
        if not isinstance(block.get(key), dict):
            block[key] = {}
        block = block[key]
    block[last] = deepcopy(value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)
