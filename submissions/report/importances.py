"""What stages predict from, by the saved models of the folds: features of boosted trees."""

import time

import numpy as np
import pandas as pd

from submissions.report.elements import Element, make_table
from submissions.run import Run

LAST_SECONDS = 30.0
"""Seconds of a budget that are kept for the rest of the report."""
MAX_FEATURES = 15
"""Number of features of a stage that are listed."""


def importance_section(run: Run) -> list[Element]:
    """Return the features with the largest shares in the trees of each stage, if there is time.

    There are none in a report without the clock of its command.
    """
    if run.clock is None or run.clock.end < time.monotonic() + LAST_SECONDS:
        return []
    rows = run.plan.tables.read_test().take(np.array([0]))
    context = run.plan.tables.context(inputs=rows.inputs)
    columns = {}
    for name, stage in run.config.stages.items():
        folder = run.plan.jobs_of_stage(name)[0].folder
        largest = stage.importances(rows, folder, context).nlargest(MAX_FEATURES)
        if len(largest):
            columns[name] = pd.Series([f"{share:.1%} {feature}" for feature, share in largest.items()])
    if not columns:
        return []
    return [
        "Features of boosted trees with the largest shares of the gain of all splits (CatBoost: of the change of the "
        "prediction), mean over targets, first fold. The bits of a fingerprint count together, as do the dimensions "
        "of an encoder, and topics.",
        make_table(pd.DataFrame(columns).fillna("")),
    ]
