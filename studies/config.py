"""The YAML of a study: a claim, the stages it is about, and the axes along which their settings vary."""

import itertools
from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from competition.config import StrictModel, UniqueList, validate
from competition.errors import ConfigError
from competition.paths import PROJECT
from competition.yaml_files import load_yaml

STUDIES = PROJECT / "studies"
StudySize = Literal["full", "short", "quick"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*$")]
Place = dict[str, Any]
"""Axis -> its value; an axis that is not named has the baseline's."""


class StudyData(StrictModel):
    """A table on which stages are measured."""

    base: str
    """Competition: its name, or a YAML relative to the study's; its own stages play no part."""
    folder: str | None = None
    """Folder below --data (or $STUDY_DATA) with the tables, for data that may not be embedded; without it
    this part is left out.
    """
    rows: int | None = Field(default=None, ge=10)
    """Training rows, drawn at random once; null takes all."""
    folds: dict[str, Any] = {}
    """Settings of `folds:` that differ from the base's."""
    cuts: list[float] = []
    """Numbers at which the base's single target is cut into classes, which are learned and scored in its
    stead; folds of kind kfold are then those of the same rows with their numbers.
    """
    metric: str = "f1_macro"
    """Of these classes."""


class Axis(StrictModel):
    """One thing that varies."""

    stages: list[str] = []
    """Those that it varies; empty: all."""
    key: str | None = None
    """Dotted path of the setting inside the stage's block, such as head.dropout; null: each value names its
    own.
    """
    values: Annotated[list[Any], UniqueList] | dict[Any, dict[str, Any]] = Field(min_length=1)
    """The values; without a key, label -> {dotted path: value, ...}."""

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Label -> {dotted path: value}."""
        if isinstance(self.values, dict):
            return {value_label(name): value for name, value in self.values.items()}
        return {value_label(value): {str(self.key): value} for value in self.values}

    @model_validator(mode="after")
    def _values_say_what_they_set(self) -> Self:
        if (self.key is None) is not isinstance(self.values, dict):
            raise ValueError(
                "values must be a list with a key, or label -> {setting: value, ...} without one"
            )
        return self


CLASS = "_class"
"""What the name of a target has behind it where its numbers are cut into classes."""


class EpochsToThreshold(StrictModel):
    """A measure made of a learning curve: the first epoch whose loss is at or below a number, empty if none
    is.
    """

    name: Name
    curve: str
    """Column of the curve, such as held_out_evaluation_mode (needs `monitor: held_out`)."""
    below: float


class Study(StrictModel):
    """One study. Its keys `short` (about an hour on 2 cores) and `quick` (minutes) hold what a smaller
    version changes: the same keys, merged into those above; null takes something out.
    """

    claim: str = Field(min_length=1)
    """What others say, in one or two sentences."""
    published: list[dict[Literal["what", "value", "source"], str]] = []
    """Numbers that others reported, as their sources have them."""
    data: dict[Name, StudyData] = Field(min_length=1)
    stages: dict[Name, dict[str, Any]] = Field(min_length=1)
    """Name -> block as in a competition's YAML; its key `data` lists what it is measured on, all by default.
    """
    axes: dict[Name, Axis] = {}
    cells: list[Place] | None = None
    """Combinations that are measured; null: all of them. The baseline always is."""
    baseline: Place = {}
    """The cell that others are held against: a value of each axis."""
    seeds: Annotated[list[int], UniqueList] = Field(default=[0], min_length=1)
    folds: Annotated[list[int], UniqueList] | None = None
    """Folds that are measured; null: all."""
    measures: list[str | EpochsToThreshold] = []
    """Columns of `results.csv` that the table shows beside the score: of the stage's `measures.json`, of a
    curve, or other metrics. Where classes were cut from numbers, a metric of numbers holds these against the
    expected class.
    """

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        asked: list[tuple[str, Any, Collection[Any]]] = [
            ("baseline", axis, self.baseline) for axis in self.axes
        ]
        for place in (self.baseline, *(self.cells or [])):
            asked += [("axes", axis, self.axes) for axis in place]
            known = [(axis, value_label(value)) for axis, value in place.items() if axis in self.axes]
            asked += [(f"axes.{axis}", value, self.axes[axis].settings) for axis, value in known]
        asked += [
            ("data", name, self.data) for block in self.stages.values() for name in block.get("data", [])
        ]
        asked += [("stages", name, self.stages) for axis in self.axes.values() for name in axis.stages]
        wrong = [
            f"{where} must have {name!r}; it has {', '.join(has)}"
            for where, name, has in asked
            if name not in has
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


class Cell(NamedTuple):
    """One variant of a stage of the study: axis -> label, and its block as in a competition's YAML."""

    stage: str
    values: dict[str, str]
    block: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the stage in the competition that is made: `minilm__rate=0.1`."""
        return "__".join(
            filter(None, (self.stage, ",".join(f"{axis}={v}" for axis, v in self.values.items())))
        )


def cells_of(study: Study, data: str) -> list[Cell]:
    """The cells of each stage that is measured on `data`, the baseline first."""
    found = []
    for stage, block in study.stages.items():
        if data not in block.get("data", study.data):
            continue
        axes = {
            name: axis.settings for name, axis in study.axes.items() if stage in (axis.stages or study.stages)
        }
        baseline = {name: value_label(study.baseline[name]) for name in axes}
        places = [baseline]
        if study.cells is None:
            places += [dict(zip(axes, labels, strict=True)) for labels in itertools.product(*axes.values())]
        for cell in study.cells or []:
            if set(cell) <= set(axes):
                places.append(baseline | {axis: value_label(value) for axis, value in cell.items()})
        for place in {tuple(place.items()): place for place in places}.values():
            variant = {**deepcopy(block), "seeds": study.seeds}
            variant.pop("data", None)
            for axis, value in place.items():
                for path, setting in axes[axis][value].items():
                    set_at(variant, path, setting)
            found.append(Cell(stage, place, variant))
    return found


def find_study(name: str) -> Path:
    """The YAML of a study: a path that ends in .yaml, or a name in studies/."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else STUDIES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(file.stem for file in sorted(STUDIES.glob("*.yaml")))
        raise ConfigError(
            f"{name!r} must be a YAML file or one of the studies {known}; ./run.sh study lists them."
        )
    return path.resolve()


def load_study(path: Path, version: StudySize) -> Study:
    """A version of a study, files of custom stages resolved against its folder."""
    document = load_yaml(path)
    changes = {name: document.pop(name, None) or {} for name in ("short", "quick")}
    study = validate(Study, merged(document, changes.get(version, {})), path)
    for block in study.stages.values():  # blocks are validated when the axes have set their values
        if "code" in block:
            block["code"] = str(path.parent / block["code"])
    return study


def merged(document: Any, changes: Any) -> Any:
    """`document` with the mappings of `changes` merged into its own; null takes a key out, all else replaces."""
    if not (isinstance(document, dict) and isinstance(changes, dict)):
        return changes
    both = {**document, **{key: merged(document.get(key), value) for key, value in changes.items()}}
    return {key: value for key, value in both.items() if value is not None or key not in changes}


def set_at(block: dict[str, Any], path: str, value: Any) -> None:
    """Set what a dotted path names in a block of settings."""
    *above, last = path.split(".")
    for key in above:
        block = block.setdefault(key, {})
    block[last] = deepcopy(value)


def value_label(value: Any) -> str:
    """The text that names a value."""
    return f"{value:g}" if isinstance(value, float) else str(value)
