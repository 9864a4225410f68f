"""The competition that a study makes of a base: fewer rows, its own stages, and no answers.

Reads: the base's YAML and tables. Writes: work/configs/study_<name>_<data>.yaml, and the tables below raw/.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from competition.config import CompetitionConfig, find_config, read_yaml, validate
from competition.errors import ConfigError
from competition.files import read_text_table, write_atomically, write_table
from competition.paths import Paths, study_yaml
from folds.config import FoldsConfig
from submissions.study.cells import Cell
from submissions.study.config import Data

TEST_ROWS = 20
"""A study scores held-out folds; that a job also predicts test rows is the price of an ordinary job."""


@dataclass(frozen=True)
class Skipped:
    """Why a part of a study is not measured."""

    reason: str


def base_document(data: Data, study_file: Path, folder: Path | None) -> dict[str, Any] | Skipped:
    """The base's YAML with absolute paths, or why there is none.

    Args:
        folder: what --data names.

    Raises:
        ConfigError: if there is no such base.
    """
    beside = study_file.parent / data.base
    path = find_config(str(beside) if beside.is_file() else data.base)
    if data.folder is None:
        return _absolute(path, path)
    if folder is None:
        return Skipped(f"its tables may not be embedded; name the folder that holds {data.folder}/ with --data.")
    if not (folder / data.folder / "train.csv").is_file():
        return Skipped(f"{folder / data.folder} has no train.csv; name another folder with --data.")
    return _absolute(path, folder / data.folder / path.name)


def _absolute(path: Path, place: Path) -> dict[str, Any]:
    """The sections about the data in the YAML `path`, read as if it were at `place`."""
    _, document = read_yaml(str(path))
    sections = (("competition", CompetitionConfig), ("folds", FoldsConfig))
    return {
        name: validate(model, document.get(name, {}), place, name).model_dump(mode="json", exclude_unset=True)
        for name, model in sections
    }


def write_competition(name: str, data: Data, document: dict[str, Any], cells: list[Cell]) -> Path:
    """Write the competition whose stages are the cells; returns its YAML.

    Args:
        name: of the competition, by which its products are found.
        document: as `base_document` gives it.

    Raises:
        ConfigError: if the base has no tables.
        DataError: if one cannot be read.
    """
    competition = dict(document.get("competition") or {})
    raw = Paths(name).raw
    for key in ("train", "test", "sample_submission"):
        if not isinstance(competition.get(key), str):
            raise ConfigError(f"the base {data.base} of a study must name competition.{key}, and does not; add it.")
    train = read_text_table(Path(competition["train"]))
    if data.rows is not None and data.rows < len(train):
        chosen = np.sort(np.random.default_rng(0).choice(len(train), data.rows, replace=False))
        train = train.iloc[chosen]
    tables = {"train": train}
    test, sample = (read_text_table(Path(competition[key])) for key in ("test", "sample_submission"))
    tables["test"] = test[:TEST_ROWS]
    row_id = competition.get("id")
    if row_id in test and row_id in sample:  # else the check of the competition says what is wrong
        sample = sample[sample[row_id].isin(tables["test"][row_id])]
    tables["sample_submission"] = sample
    for key, table in tables.items():
        write_table(raw / f"{key}.csv", table)
        competition[key] = str(raw / f"{key}.csv")
    competition.pop("answers", None)
    made = {
        "competition": competition,
        "folds": {**(document.get("folds") or {}), **data.folds},
        "stages": {cell.name: cell.block for cell in cells},
    }
    path = study_yaml(name)
    write_atomically(path, yaml.safe_dump(made, sort_keys=False, allow_unicode=True))
    return path
