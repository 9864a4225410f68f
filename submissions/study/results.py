"""What the jobs of a study found: scores on held-out folds, measures, curves, and predictions that must be equal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.config import CompetitionConfig
from competition.errors import DataError
from competition.files import read_json
from competition.metrics import Metric
from competition.paths import Paths
from competition.tables import Rows, read_rows
from folds.table import read_folds
from models.jobs.plan import Job, Plan, verify
from models.jobs.predictions import read_predictions
from submissions.study.cells import Cell, values_of
from submissions.study.config import COLUMNS, Reached, Study

MEASURES, TRAINING = (
    "measures.json",
    "training.json",
)  # of modules that import torch
MODES = ("training_mode", "evaluation_mode")


@dataclass(frozen=True)
class Part:
    """The cells of a study on one of its data."""

    data: str
    competition: CompetitionConfig
    metric: Metric
    paths: Paths
    todo: Plan
    """The jobs that are measured, of all that the competition has."""
    cells: list[Cell]


@dataclass(frozen=True)
class Equality:
    """How far predictions of cells that must be the same are apart."""

    data: str
    stage: str
    cells: list[str]
    difference: float
    """The largest, in standard deviations of the target's labels."""
    jobs: int


def results(parts: list[Part], study: Study) -> pd.DataFrame:
    """A row for each finished job: data, metric, stage, a column for each axis, seed, fold, score, seconds, measures.

    With several targets and a metric that scores each alone, `score_<target>` is among the measures.

    An axis that does not vary a stage is empty there. The score is that of the held-out fold.

    Raises:
        DataError: if a job's folder is not as it was written, or its measures are no numbers.
    """
    rows = []
    for part in parts:
        labelled, folds = labels(part)
        for cell in part.cells:
            for job in finished(part, cell):
                held_out = labelled.take(folds == job.fold)
                assert held_out.y is not None
                targets = part.competition.targets
                y_pred = read_predictions(job.oof_file, held_out.ids, targets)
                alone = targets if len(targets) > 1 and part.metric.column is not None else []
                rows.append(
                    place(part, cell, study)
                    | _of(job)
                    | {"score": part.metric(held_out.y, y_pred), "seconds": verify(job)["seconds"]}
                    | {f"score_{name}": part.metric.one(held_out.y[:, t], y_pred[:, t]) for t, name in enumerate(alone)}
                    | _measures(job, study)
                )
    return pd.DataFrame(rows)


def curves(parts: list[Part], study: Study) -> pd.DataFrame:
    """A row for each epoch of each job that was monitored: its place, epoch (from 1) and the loss of rows and modes."""
    rows = []
    for part in parts:
        for cell in part.cells:
            for job in finished(part, cell):
                for epoch, entry in enumerate(_history(job), start=1):
                    losses = {name: value for name, value in entry.items() if name.endswith(MODES)}
                    if losses:
                        rows.append(place(part, cell, study) | _of(job) | {"epoch": epoch} | losses)
    return pd.DataFrame(rows)


def equalities(parts: list[Part], study: Study) -> list[Equality]:
    """The largest difference between predictions of the cells that the study says are equal, over finished jobs."""
    found = []
    for part in parts:
        labelled, folds = labels(part)
        assert labelled.y is not None
        spread = np.nanstd(labelled.y, axis=0)
        for places in study.equal:
            wanted = [values_of(study, place) for place in places]
            for stage in dict.fromkeys(cell.stage for cell in part.cells):
                own = [cell for cell in part.cells if cell.stage == stage]
                named = [cell for w in wanted for cell in own if cell.values.items() <= w.items()]
                names = list(dict.fromkeys(cell.name for cell in named))
                if len(names) < 2:
                    continue
                jobs = {n: {(job.seed, job.fold): job for job in part.todo.of(n) if job.finished} for n in names}
                places_of_all = set.intersection(*(set(of_cell) for of_cell in jobs.values()))
                apart = 0.0
                for place in places_of_all:
                    ids = labelled.take(folds == place[1]).ids
                    first, *others = (
                        read_predictions(jobs[n][place].oof_file, ids, part.competition.targets) for n in names
                    )
                    apart = max([apart, *(float(np.max(np.abs(other - first) / spread)) for other in others)])
                found.append(Equality(part.data, stage, names, apart, len(places_of_all)))
    return found


def labels(part: Part) -> tuple[Rows, NDArray[np.int64]]:
    """The training rows of a part, and the fold of each."""
    labelled = read_rows(part.paths.train, part.competition, labelled=True)
    return labelled, read_folds(part.paths.folds, labelled.ids)


def finished(part: Part, cell: Cell) -> list[Job]:
    """The finished jobs of a cell."""
    return [job for job in part.todo.of(cell.name) if job.finished]


def place(part: Part, cell: Cell, study: Study) -> dict[str, Any]:
    """The columns that say which cell a row is about."""
    axes = {axis: cell.values.get(axis, "") for axis in study.axes}
    return {"data": part.data, "metric": part.metric.name, "stage": cell.stage, **axes}


def _of(job: Job) -> dict[str, int]:
    return {"seed": job.seed, "fold": job.fold}


def _measures(job: Job, study: Study) -> dict[str, float]:
    path = job.folder / MEASURES
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict) or not all(_is_number(value) for value in found.values()):
        raise DataError(f"{path} must map names to numbers, and does not; correct the stage that writes it.")
    taken = sorted({*COLUMNS, *study.axes} & set(found))
    if taken:
        raise DataError(f"{path} must name no measure as another column of results.csv; it has {', '.join(taken)}.")
    history = _history(job)
    for wanted in study.measures:
        if isinstance(wanted, Reached):
            below = [n for n, epoch in enumerate(history, start=1) if epoch.get(wanted.curve, math.inf) <= wanted.below]
            found[wanted.name] = below[0] if below else math.nan
    return {name: float(value) for name, value in found.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _history(job: Job) -> list[dict[str, float]]:
    path = job.folder / TRAINING
    history: list[dict[str, float]] = read_json(path).get("history", []) if path.exists() else []
    return history
