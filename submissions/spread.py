"""`spread.csv`: how far the models behind a submission disagree on each test row.

A row on which they differ is one to look at, or to measure next; the number ranks rows and is no error bar, since all
models may be wrong together. Source: the disagreement of an ensemble as in Lakshminarayanan et al., NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from competition.files import write_table
from competition.metrics import Array
from models.jobs.plan import ALL
from models.jobs.predictions import read_predictions
from submissions.columns import jobs_of_columns
from submissions.run import Run

SPREAD_FILE = "spread.csv"


def spread(run: Run, ids: list[str], predict: Callable[[Array], Array]) -> Array:
    """Standard deviation of the submission over seeds and folds, (n_rows, n_outputs), in the targets' own units.

    Each of its members is the submission as one model per column makes it: of one fold, and of the first, second and so
    on seed of every column; one with fewer seeds than another begins again. Refits are in no member.

    Args:
        run: whose jobs have predicted the test table.
        ids: of the test rows, in the order of the result; those that were dropped are not among them.
        predict: the submission, (n_rows, n_outputs), from its columns (n_rows, n_columns, n_outputs).
    """
    jobs = [[job for job in part if job.fold != ALL] for part in jobs_of_columns(run.config, run.plan).values()]
    members = []
    for member in range(max(map(len, jobs))):  # by seed, then fold: all have the same fold in a round
        files = [part[member % len(part)].test_file(run.plan.test_key) for part in jobs]
        members.append(predict(np.stack([read_predictions(file, ids, run.task.outputs) for file in files], axis=1)))
    return np.std(members, axis=0, ddof=1)


def write_spread(run: Run, ids: list[str], predict: Callable[[Array], Array]) -> None:
    """Write `spread` into the run's folder: id, then a column for each output."""
    values = pd.DataFrame(spread(run, ids, predict), columns=run.task.outputs)
    write_table(run.folder / SPREAD_FILE, pd.concat([pd.Series(ids, name="id"), values], axis=1))
