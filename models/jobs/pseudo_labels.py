"""Pseudo-labels: test rows that a job trains on, with predictions of other stages as their labels.

The labels of fold k's job come from models of fold k, so nothing of fold k's own labels comes back to it through them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.tables import Rows
from models.jobs.plan import Job
from models.jobs.predictions import mean_test


def pseudo_labels(job: Job, test_key: str, ids: list[str], targets: list[str]) -> NDArray[np.float64]:
    """Labels (n_rows, n_targets) of the test rows: the plain mean over the stages that give them, each over its jobs.

    Args:
        job: of which `needs` are the jobs to take.

    Raises:
        DataError: if one of these has no predictions for this test table.
    """
    of_stage: dict[str, list[Job]] = {}
    for need in job.needs:
        if need.stage != job.stage:
            of_stage.setdefault(need.stage, []).append(need)
    return np.mean([mean_test(jobs, test_key, ids, targets) for jobs in of_stage.values()], axis=0)


def with_pseudo_labels(train: Rows, test: Rows, y: NDArray[np.float64], weight: float) -> Rows:
    """Training rows and, below them, the test rows with labels `y` (n_test_rows, n_targets) and a weight."""
    assert train.y is not None
    n = len(test)
    weights = np.ones(len(train)) if train.weights is None else train.weights
    return Rows(
        [*train.ids, *test.ids],
        pd.concat([train.inputs, test.inputs], ignore_index=True),
        np.vstack([train.y, y]),
        np.append(weights, np.full(n, weight)),
        None
        if train.auxiliary is None
        else np.vstack([train.auxiliary, np.full((n, train.auxiliary.shape[1]), np.nan)]),
        None if train.extra is None else np.append(train.extra, np.zeros(n, dtype=bool)),
    )
