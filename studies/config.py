"""The YAML of a study: a claim, stages, and axes along which their settings vary."""

import itertools
from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from competition.config import validate
from core.errors import ConfigError
from core.files import PROJECT
from core.settings import StrictModel, UniqueList
from core.yaml_files import load_yaml

STUDIES = PROJECT / "studies"
StudySize = Literal["full", "short", "quick"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*$")]
Place = dict[str, Any]
"""Axis -> value; a missing axis has the value of the baseline."""


class StudyData(StrictModel):
    """A data set on which stages are measured."""

    base: str
    """Name of a competition, or a YAML relative to the study's; its stages are not used."""
    folder: str | None = None
    """Folder below --data (or $STUDY_DATA) with the tables, for data that may not be embedded."""
    rows: int | None = Field(default=None, ge=10)
    """Number of training rows, sampled once; null: all."""
    folds: dict[str, Any] = {}
    """Settings of `folds:` that differ from those of the base."""
    bin_edges: list[float] = []
    """Bin edges that convert the single target of the base into classes; folds of kind kfold are the same as
    for the numbers.
    """
    metric: str = "f1_macro"
    """Metric of these classes."""


class Axis(StrictModel):
    """Settings of stages that vary together."""

    stages: list[str] = []
    """Stages with these settings; empty: all."""
    key: str | None = None
    """Dotted path of the setting of a stage, such as head.dropout; null: each value has its paths."""
    values: Annotated[list[Any], UniqueList] | dict[Any, dict[str, Any]] = Field(min_length=1)
    """The values; without a key, label -> {dotted path: value, ...}."""

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Label -> {dotted path: value}."""
        if isinstance(self.values, dict):
            return {value_label(name): value for name, value in self.values.items()}
        return {value_label(value): {str(self.key): value} for value in self.values}

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if (self.key is None) is not isinstance(self.values, dict):
            raise ValueError(
                "values must be a list with a key, or label -> {setting: value, ...} without one"
            )
        return self


CLASS = "_class"
"""Suffix of the name of a target that was converted into classes."""


class Study(StrictModel):
    """One study.

    The keys `short` (about an hour on 2 cores) and `quick` (minutes) have the changes of smaller versions, which
    are merged into the study; null removes a key.
    """

    claim: str = Field(min_length=1)
    """Claim of the literature, in one or two sentences."""
    published: list[dict[Literal["what", "value", "source"], str]] = []
    """Published numbers with their sources."""
    data: dict[Name, StudyData] = Field(min_length=1)
    stages: dict[Name, dict[str, Any]] = Field(min_length=1)
    """Name -> block as in a competition's YAML; its key `data` lists the data sets, by default all."""
    axes: dict[Name, Axis] = {}
    cells: list[Place] | None = None
    """Combinations to measure, in addition to the baseline; null: all."""
    baseline: Place = {}
    """The cell to compare with: a value per axis."""
    seeds: Annotated[list[int], UniqueList] = Field(default=[0], min_length=1)
    folds: Annotated[list[int], UniqueList] | None = None
    """Folds to measure; null: all."""
    extra_metrics: list[str] = []
    """More columns of `results.csv` for the table: from the stage's `measures.json`, or other metrics.
    If classes were made from numbers, a regression metric scores the expected class.
    """

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        errors: list[str] = []

        def require(where: str, name: Any, available: Collection[Any]) -> None:
            if name not in available:
                errors.append(f"{where} must have {name!r}; it has {', '.join(available)}")

        for axis in self.axes:
            require("baseline", axis, self.baseline)
        for place in (self.baseline, *(self.cells or [])):
            for axis, value in place.items():
                require("axes", axis, self.axes)
                if axis in self.axes:
                    require(f"axes.{axis}", value_label(value), self.axes[axis].settings)
        for block in self.stages.values():
            for name in block.get("data", []):
                require("data", name, self.data)
        for settings in self.axes.values():
            for name in settings.stages:
                require("stages", name, self.stages)
        if errors:
            raise ValueError("; ".join(errors))
        return self


class Cell(NamedTuple):
    """A variant of a stage: axis -> label, and its block as in a competition's YAML."""

    stage: str
    values: dict[str, str]
    block: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the stage in the competition of the study: `minilm__rate=0.1`."""
        return "__".join(
            filter(None, (self.stage, ",".join(f"{axis}={v}" for axis, v in self.values.items())))
        )


def cells_of(study: Study, data: str) -> list[Cell]:
    """Return the cells of each stage on a data set, the baseline first."""
    cells = []
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
                    set_dotted(variant, path, setting)
            cells.append(Cell(stage, place, variant))
    return cells


def find_study(name: str) -> Path:
    """Return the YAML of a study, given its path or its name in studies/."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else STUDIES / f"{name}.yaml"
    if not path.is_file():
        labels = ", ".join(file.stem for file in sorted(STUDIES.glob("*.yaml")))
        raise ConfigError(
            f"{name!r} must be a YAML file or one of the studies {labels}; ./run.sh study lists them."
        )
    return path.resolve()


def load_study(path: Path, version: StudySize) -> Study:
    """Return a version of a study; files of custom stages are relative to its folder."""
    document = load_yaml(path)
    changes = {name: document.pop(name, None) or {} for name in ("short", "quick")}
    study = validate(Study, deep_merge(document, changes.get(version, {})), path)
    for block in study.stages.values():  # blocks are validated when the axes have set their values
        if "code" in block:
            block["code"] = str(path.parent / block["code"])
    return study


def deep_merge(document: Any, changes: Any) -> Any:
    """Return a document with merged changes: mappings are merged, null removes a key, other values replace."""
    if not (isinstance(document, dict) and isinstance(changes, dict)):
        return changes
    both = {**document, **{key: deep_merge(document.get(key), value) for key, value in changes.items()}}
    return {key: value for key, value in both.items() if value is not None or key not in changes}


def set_dotted(block: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path of a block of settings."""
    *above, last = path.split(".")
    for key in above:
        block = block.setdefault(key, {})
    block[last] = deepcopy(value)


def value_label(value: Any) -> str:
    """Return the label of a value."""
    return f"{value:g}" if isinstance(value, float) else str(value)
