"""The cells of a study: stage blocks with the values of the axes set, under names that say so."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from competition.config import validate
from competition.errors import ConfigError
from models.config import StagesConfig
from models.settings import VARIANT
from submissions.study.config import STUDIES, Place, Study, label, set_at


@dataclass(frozen=True)
class Cell:
    """One variant of a stage."""

    stage: str
    """Name of the stage in the study."""
    values: dict[str, str]
    """Axis -> label, of the axes that vary this stage."""
    block: dict[str, Any]
    """Its settings as in a competition's YAML."""
    is_baseline: bool

    @property
    def name(self) -> str:
        """Name of its jobs: `minilm__rate=0.1`; random seeds come from the part before the underscores."""
        return VARIANT.join(filter(None, (self.stage, ",".join(f"{axis}={v}" for axis, v in self.values.items()))))


def cells_of(study: Study, data: str) -> list[Cell]:
    """The cells of each stage that is measured on `data`, the baseline first.

    Raises:
        ConfigError: if an axis sets what its stage does not have, or a cell is no possible stage.
    """
    found = []
    for stage, block in study.stages.items():
        if data not in (block.get("data") or study.data):
            continue
        axes = [name for name, axis in study.axes.items() if stage in (axis.stages or study.stages)]
        baseline = {axis: label(study.baseline[axis]) for axis in axes}
        places = [baseline, *_places(study, axes, baseline)]
        distinct = list({tuple(place.items()): place for place in places}.values())
        found += [_cell(study, stage, place, place == baseline) for place in distinct]
    return found


def _places(study: Study, axes: list[str], baseline: dict[str, str]) -> Iterator[dict[str, str]]:
    """Axis -> label of every cell of a stage, each with all of `axes` in their order."""
    if study.cells is None:
        for labels in itertools.product(*(study.axes[axis].settings for axis in axes)):
            yield dict(zip(axes, labels, strict=True))
        return
    for cell in study.cells:
        if set(cell) <= set(axes):
            yield {axis: label(cell[axis]) if axis in cell else baseline[axis] for axis in axes}


def values_of(study: Study, place: Place) -> dict[str, str]:
    """Axis -> label of a cell that names some axes, others at the baseline."""
    return {axis: label(place.get(axis, study.baseline[axis])) for axis in study.axes}


def _cell(study: Study, stage: str, values: dict[str, str], is_baseline: bool) -> Cell:
    block = {key: deepcopy(value) for key, value in study.stages[stage].items() if key != "data"}
    base = _checked({stage: block})
    for axis, chosen in values.items():
        for path, value in study.axes[axis].settings[chosen].items():
            if path.split(".")[0] not in base:
                raise ConfigError(
                    f"axes.{axis}: must set what stage {stage} (kind {block.get('kind')}) has: {', '.join(base)} "
                    f"(found {path!r})."
                )
            set_at(block, path, value)
    cell = Cell(stage, values, {**block, "seeds": study.seeds}, is_baseline)
    _checked({cell.name: cell.block})
    return cell


def _checked(stages: dict[str, Any]) -> list[str]:
    """The names of the settings of the one stage.

    Raises:
        ConfigError: if it is no possible stage.
    """
    checked = validate(StagesConfig, {"stages": stages}, STUDIES).stages
    return list(type(next(iter(checked.values()))).model_fields)
