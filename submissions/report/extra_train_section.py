"""Section of the report about the tables of `competition.extra_train` that are calibrated, weighted or filtered."""

from typing import Any

import pandas as pd

from competition.files import read_json, read_table
from folds.fold_files import read_groups
from models.jobs.plan import REFIT_FOLD
from submissions.compare import PairedScorer
from submissions.formatting import format_number, format_with_error
from submissions.report.elements import Element, make_table
from submissions.run import Run

HEADER = ["table", "target", "labels", "shared", "before", "after", "weight", "left_out", "gain"]
N_RESAMPLES = 1000


def extra_train_section(run: Run) -> list[Element]:
    """Return a row for each table and target: what it shares, how far its labels are off, and whether it helps."""
    competition = run.config.competition
    if not competition.judges_extra_rows or not run.paths.extra_report.exists():
        return []
    summaries = read_json(run.paths.extra_report, "sources")["sources"]
    gains = _gains(run)
    rows: list[list[Any]] = []
    for i, extra in enumerate(competition.extra_train, start=1):
        of_folds = [
            each["targets"] for each in summaries if each["source"] == i and each["fold"] != REFIT_FOLD
        ]
        for t, target in enumerate(competition.targets):
            numbers = pd.DataFrame([targets[t] for targets in of_folds]).mean()
            details = [format_number(numbers.get(name)) for name in HEADER[2:-1]]
            first = t == 0
            rows.append([extra.file.name if first else "", target, *details, gains[i] if first else ""])
    return [
        make_table(HEADER, rows),
        "Means over the folds, each of which sees its own training rows only. shared: inputs with labels in both "
        "tables. before, after: median absolute difference of their labels, before and after the calibration. "
        "left_out: labels that contradict the training labels or a model of the fold, listed in "
        "extra_train/left_out.csv. gain: of a LightGBM model of the fold by the table, out of fold, +- its standard "
        "error; above 0 the table helps.",
    ]


def _gains(run: Run) -> dict[int, str]:
    """Return the gain by each table, counted from 1, as text."""
    competition = run.config.competition
    train = read_table(run.paths.train).set_index(competition.id)
    groups = pd.Series(read_groups(run.paths.groups, list(train.index)), train.index)
    oof = read_table(run.paths.extra_oof)
    models = {str(name): table.set_index("id")[competition.targets] for name, table in oof.groupby("__model")}
    without = models.pop("without")
    y = train.loc[without.index, competition.targets]
    scorer = PairedScorer(run.task, y, groups, run.metric, competition.seed)
    gains = {}
    for name, with_table in models.items():
        paired = scorer.paired(with_table, without)
        gains[int(name.removeprefix("with "))] = format_with_error(*paired[:2]) if paired else "-"
    return gains
