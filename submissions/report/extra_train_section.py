"""Section of the report about the tables of `competition.extra_train` that are calibrated, weighted or filtered."""

from typing import Any

import numpy as np
import pandas as pd

from competition.dataset import without_extra_rows
from competition.files import read_json, read_table
from competition.types import Array
from folds.fold_files import read_groups
from models.jobs.plan import REFIT_FOLD
from submissions.blend.bootstrap import bootstrap_scores
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
        "left_out: labels that contradict the training labels or a model of the fold. gain: of a LightGBM model of "
        "the fold by the table, out of fold, +- its standard error; above 0 the table helps.",
    ]


def _gains(run: Run) -> dict[int, str]:
    """Return the gain by each table, counted from 1, as text."""
    train = without_extra_rows(read_table(run.paths.train))
    oof = read_table(run.paths.extra_oof)
    targets = run.config.competition.targets
    models = {str(name): table.set_index("id")[targets] for name, table in oof.groupby("__model")}
    without = models.pop("without")
    rows = train.set_index(run.config.competition.id).loc[without.index]
    all_ids = list(read_table(run.paths.train)[run.config.competition.id])
    groups = pd.Series(read_groups(run.paths.groups, all_ids), all_ids).loc[without.index]
    y: Array = rows[targets].to_numpy(dtype=np.float64)
    gains = {}
    for name, with_table in models.items():
        predictions: dict[str, Array] = {
            "without": without.to_numpy(),
            "with": with_table.loc[without.index].to_numpy(),
        }
        scores = {key: run.metric(y, y_pred) for key, y_pred in predictions.items()}
        resampled = bootstrap_scores(
            run.metric, y, predictions, pd.factorize(groups)[0], N_RESAMPLES, run.config.competition.seed
        )
        sign = 1 if run.metric.greater_is_better else -1
        gain = sign * (scores["with"] - scores["without"])
        error = float((resampled["with"] - resampled["without"]).std())
        gains[int(name.removeprefix("with "))] = format_with_error(gain, error)
    return gains
