"""Find a study, take its full or a smaller version, and name every mistake before any work."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from competition.config import load_yaml, validate
from competition.errors import ConfigError
from submissions.study.config import COLUMNS, STUDIES, Axis, Data, Place, Smaller, Study, label, set_at

Version = Literal["full", "short", "quick"]


def find_study(name: str) -> Path:
    """The YAML of a study: a path that ends in .yaml, or a name in studies/.

    Raises:
        ConfigError: if there is none; lists those there are.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else STUDIES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(file.stem for file in sorted(STUDIES.glob("*.yaml")))
        raise ConfigError(f"{name!r} must be a YAML file or one of the studies {known}; ./run.sh study lists them.")
    return path.resolve()


def load_study(path: Path, version: Version) -> Study:
    """A version of a study, files of custom stages resolved against its folder.

    Raises:
        ConfigError: with every mistake of the file.
    """
    document = load_yaml(path)
    study = validate(Study, document, path)
    for block in study.stages.values():  # that are validated when the axes have set their values
        block |= {key: str((path.parent / block[key]).resolve()) for key in ("code", "folder") if key in block}
    mistakes = [*_mistakes(study), *_misplaced(study)]
    if not mistakes and version != "full":
        study = _smaller(study, getattr(study, version))
        mistakes = [f"{version}: {line}" for line in _misplaced(study)]
    if mistakes:
        raise ConfigError("\n".join([f"{path} has {len(mistakes)} mistake(s):", *(f"  {m}" for m in mistakes)]))
    return study


def _smaller(study: Study, changes: Smaller) -> Study:
    found: dict[str, Any] = {
        name: value for name in ("folds", "seeds", "cells") if (value := getattr(changes, name)) is not None
    }
    data = {name: study.data[name] for name in changes.data or study.data}
    if changes.rows is not None:
        each = {name: Data(base=value) if isinstance(value, str) else value for name, value in data.items()}
        data = {name: value.model_copy(update={"rows": changes.rows}) for name, value in each.items()}
    stages = deepcopy(study.stages)
    for name, settings in changes.stages.items():
        if settings is None:
            del stages[name]
            continue
        for path, value in settings.items():
            set_at(stages[name], path, value)
    axes = dict(study.axes)
    for name, values in changes.axes.items():
        own = axes[name].values
        few = {value: own[value] for value in values} if isinstance(own, dict) else values
        axes[name] = axes[name].model_copy(update={"values": few})
    found |= {"data": data, "axes": axes, "stages": stages, "baseline": {**study.baseline, **changes.baseline}}
    small = study.model_copy(update=found)
    kept: dict[str, Any] = {"equal": [part for part in small.equal if all(_is_there(cell, axes) for cell in part)]}
    if changes.cells is None and small.cells is not None:
        kept["cells"] = [cell for cell in small.cells if _is_there(cell, axes)]
    return small.model_copy(update=kept)


def _is_there(place: Place, axes: dict[str, Axis]) -> bool:
    return all(label(value) in axes[name].settings for name, value in place.items())


def _mistakes(study: Study) -> list[str]:
    """Names that nothing has, a line each."""
    found = []
    for name, block in study.stages.items():
        found += _unknown(f"stages.{name}.data", block.get("data", []), study.data)
    for name, axis in study.axes.items():
        if name in COLUMNS:
            found.append(f"axes.{name}: no axis may have the name of another column of results.csv")
        found += _unknown(f"axes.{name}.stages", axis.stages, study.stages)
    for version, changes in (("quick", study.quick), ("short", study.short)):
        found += _unknown(f"{version}.data", changes.data or [], study.data)
        found += _unknown(f"{version}.stages", changes.stages, study.stages)
        found += _unknown(f"{version}.axes", changes.axes, study.axes)
        for name, values in changes.axes.items():
            if name in study.axes and isinstance(study.axes[name].values, dict):
                found += _unknown(f"{version}.axes.{name}", map(label, values), study.axes[name].settings)
    return found


def _misplaced(study: Study) -> list[str]:
    """Cells outside the axes, and too few pairs for intervals, a line each."""
    found = []
    missing = [name for name in study.axes if name not in study.baseline]
    if missing:
        found.append(f"baseline: must be a cell, with a value of each axis (missing: {', '.join(missing)})")
    places = [("baseline", study.baseline), *((f"cells.{i}", cell) for i, cell in enumerate(study.cells or []))]
    places += [(f"equal.{i}", cell) for i, part in enumerate(study.equal) for cell in part]
    for where, place in places:
        found += _unknown(where, place, study.axes)
        for name, value in place.items():
            if name in study.axes:
                found += _unknown(f"{where}.{name}", [label(value)], study.axes[name].settings)
    n_folds = None if study.folds is None else len(study.folds)
    if study.intervals and len(study.seeds) * (n_folds or 2) < 2:
        found.append(
            f"seeds: an interval needs at least two pairs of seed and fold (found seed {study.seeds[0]} and fold "
            f"{(study.folds or [0])[0]}); name another seed or fold, or set intervals: false"
        )
    if len(set(study.seeds)) < len(study.seeds):
        found.append("seeds: each seed must be named once")
    return found


def _unknown(where: str, names: Any, allowed: Any) -> list[str]:
    return [f"{where}: must be one of {', '.join(allowed) or 'none'} (found {n!r})" for n in names if n not in allowed]
