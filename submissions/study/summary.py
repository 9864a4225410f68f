"""The table of a study: mean and standard error of each cell, and its paired gain over the baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from submissions.blend import number
from submissions.report import table
from submissions.study.cells import Cell
from submissions.study.config import Study
from submissions.study.intervals import Difference, corrected_interval
from submissions.study.results import Equality, Part

SAID = (
    "score: mean over seeds and held-out folds +- standard error. gain: over the baseline on the same seeds and "
    "folds, above 0 is better, with its 95 % interval (corrected resampled t, Nadeau and Bengio 2003). An interval "
    "that holds 0 does not tell the cell from the baseline."
)


@dataclass(frozen=True)
class Summary:
    """One cell on one of the data."""

    data: str
    metric: str
    cell: Cell
    name: str
    """What differs from the baseline."""
    jobs: int
    wanted: int
    """Jobs that the study asks for; fewer are finished where a budget ended."""
    mean: float
    standard_error: float
    gain: Difference | None
    """None for the baseline, and where no pair is finished."""
    measures: dict[str, tuple[float, int]]
    """Mean of each over the jobs that have it, and how many have."""


def summaries(parts: list[Part], found: pd.DataFrame, study: Study) -> list[Summary]:
    """Every cell of every part with a finished job, in the order of the study."""
    made = []
    names = [wanted if isinstance(wanted, str) else wanted.name for wanted in study.measures]
    for part in parts:
        for stage in dict.fromkeys(cell.stage for cell in part.cells):
            own = [cell for cell in part.cells if cell.stage == stage]
            rows = {cell.name: _rows(found, part.data, cell) for cell in own}
            at = next(cell for cell in own if cell.is_baseline)
            baseline = rows[at.name]["score"]
            for cell in own:
                scores = rows[cell.name]["score"]
                if not len(scores):
                    continue
                paired = (scores - baseline).dropna().to_numpy() * (1 if part.metric.greater_is_better else -1)
                has_gain = study.intervals and not cell.is_baseline and len(paired) > 0
                measured = rows[cell.name].reindex(columns=pd.Index(names))
                made.append(
                    Summary(
                        part.data, part.metric.name, cell, _said(cell, at), len(scores), len(part.todo.of(cell.name)),
                        float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(scores))),
                        corrected_interval(paired, 1 / (part.todo.n_folds - 1)) if has_gain else None,
                        {name: (float(measured[name].mean()), int(measured[name].count())) for name in names},
                    )
                )  # fmt: skip
    return made


def _said(cell: Cell, baseline: Cell) -> str:
    differs = [f"{axis} {value}" for axis, value in cell.values.items() if value != baseline.values[axis]]
    return ", ".join(differs) or "baseline"


def _rows(found: pd.DataFrame, data: str, cell: Cell) -> pd.DataFrame:
    """Results of a cell by seed and fold."""
    own = (found["data"] == data) & (found["stage"] == cell.stage)
    for axis, value in cell.values.items():
        own &= found[axis] == value
    return found[own].set_index(["seed", "fold"])


def header_of(of_stage: list[Summary]) -> list[str]:
    """Names of the columns of one stage's table."""
    measures = [name for name in of_stage[0].measures if any(s.measures[name][1] for s in of_stage)]
    return [*of_stage[0].cell.values, "jobs", of_stage[0].metric, "gain", "95 % interval", "pairs", *measures]


def row_of(summary: Summary, header: list[str]) -> list[str]:
    """Cells of one row of that table."""
    values, gain = list(summary.cell.values.values()), summary.gain
    jobs = str(summary.jobs) if summary.jobs == summary.wanted else f"{summary.jobs} of {summary.wanted}"
    error = f" +- {summary.standard_error:.2g}" if np.isfinite(summary.standard_error) else ""
    score = f"{number(summary.mean)}{error}"
    compared = ["baseline" if summary.cell.is_baseline else "", "", ""]
    if gain is not None:
        bounds = f"{gain.low:+.3g} to {gain.high:+.3g}" if np.isfinite(gain.low) else "-"
        compared = [f"{gain.mean:+.3g}", bounds, str(gain.pairs)]
    measures = header[len(values) + 5 :]
    return [*values, jobs, score, *compared, *(_measure(*summary.measures[name], summary.jobs) for name in measures)]


def _measure(mean: float, count: int, jobs: int) -> str:
    return "-" if not count else number(mean) if count == jobs else f"{number(mean)} in {count} of {jobs}"


def by_stage(made: list[Summary]) -> dict[tuple[str, str], list[Summary]]:
    """(data, stage) -> its cells."""
    found: dict[tuple[str, str], list[Summary]] = {}
    for summary in made:
        found.setdefault((summary.data, summary.cell.stage), []).append(summary)
    return found


def markdown(made: list[Summary], equal: list[Equality], skipped: dict[str, str], study: Study) -> str:
    """The tables for a terminal, one for each data and stage."""
    parts = [study.claim.strip()]
    for (data, stage), cells in by_stage(made).items():
        header = header_of(cells)
        parts.append(f"## {data}, {stage}\n\n{table(header, [row_of(cell, header) for cell in cells])}")
    parts.append(SAID)
    parts += [said_of(equality) for equality in equal]
    parts += [f"{data} is skipped: {reason}" for data, reason in skipped.items()]
    return "\n\n".join(parts)


def said_of(equality: Equality) -> str:
    """A sentence about predictions that must be equal."""
    names = ", ".join(equality.cells)
    if equality.difference == 0:
        return f"Check on {equality.data}: {names} predict the same numbers in all {equality.jobs} jobs."
    return (
        f"Check on {equality.data}: predictions of {names} differ by at most {equality.difference:.2g} standard "
        f"deviations of the labels in {equality.jobs} jobs."
    )
