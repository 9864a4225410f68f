"""What stages predict from: features of boosted trees, and input columns by permutation of held-out rows.

Both are of the saved models of the folds; nothing is trained. Source of the permutation: Breiman, Random
forests, Machine Learning 2001.
"""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from competition.dataset import Dataset
from competition.metrics import take_rows
from core.text import format_with_error
from core.types import Integers
from models.context import Context
from models.features import feature_caches
from models.jobs.compute import predict
from models.jobs.job import Job
from models.stage import Stage
from submissions.blend.candidates import single_column
from submissions.blend.scoring import describe_resamples
from submissions.blend.selection import Fitted, fit_on
from submissions.levels import Level
from submissions.report.elements import Element, make_table
from submissions.run import Run

LAST_SECONDS = 30.0
"""Seconds of a budget that are kept for the rest of the report."""
MAX_FEATURES = 15
"""Number of features of a stage that are listed."""
MAX_SECONDS = 20.0
"""Seconds that importances may take; of a budget at most a third of what is left."""
MAX_ROWS = 2000
"""Number of held-out rows that are predicted with a permuted column."""


def seconds_left(run: Run) -> float:
    """Return the seconds that importances may take.

    There are none before the last level of a submission, which must not wait, at the end of a budget, and in
    a report without the clock of its command.
    """
    if run.clock is None or run.manifest.level is not Level.FULL:
        return 0.0
    return min(MAX_SECONDS, (run.clock.end - time.monotonic() - LAST_SECONDS) / 3)


def feature_importances(run: Run) -> list[Element]:
    """Return the features with the largest shares in the trees of each stage, if time is left."""
    if seconds_left(run) <= 0:
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
        "Features of boosted trees with the largest shares of the gain of all splits, "
        "mean over targets, first fold. The bits of a fingerprint count together, "
        "as do the dimensions of an encoder.",
        make_table(pd.DataFrame(columns).fillna("")),
    ]


def column_importances(run: Run) -> list[Element]:
    """Return by how much the best stage without a network, which would take longer, needs each input column.

    There are none without time, or if features are missing in the cache.
    """
    from sklearn.inspection import permutation_importance

    stages = [
        name for name, each in run.config.stages.items() if each.is_trained and not each.reports_progress
    ]
    is_slow = bool(describe_resamples(run.choice.submitted.n_resamples))
    deadline = time.monotonic() + seconds_left(run)
    if seconds_left(run) <= 0 or is_slow or not stages or len(run.config.competition.inputs) < 2:
        return []
    columns = run.columns
    tables = run.plan.tables
    rows, _ = tables.read()
    context = replace(tables.context(inputs=rows.inputs), predicts_held_out=True)
    inputs = rows.inputs[context.inputs]
    scores = {name: run.choice.stages[name].score for name in stages}
    gains = {name: columns.gain(score) for name, score in scores.items() if score is not None}
    if not gains:
        return []
    best = max(gains, key=gains.__getitem__)
    data = replace(columns, preds=columns.stage_oof(best)[:, None])
    alone = fit_on(data, data.all_folds, single_column(data, 0, data.all_folds))
    held_out = np.flatnonzero(columns.has_fold)
    held_out = held_out[:: 1 + len(held_out) // MAX_ROWS]
    losses = []
    for job in run.plan.jobs_of_stage(best)[: run.plan.n_folds]:  # of the first seed
        which = held_out[columns.folds[held_out] == job.fold]
        score = partial(_score, run, job, alone, rows, context, deadline)
        try:
            result = permutation_importance(
                run.config.stages[best], inputs.iloc[which], which, scoring=score, n_repeats=1, random_state=0
            )
        except TimeoutError:
            return [
                "Input columns were not permuted: "
                "there is no time, or features of permuted rows have to be computed."
            ]
        losses.append(result.importances_mean)
    table = (
        pd.DataFrame(losses, columns=inputs.columns)
        .agg(["mean", "sem"])
        .T.sort_values("mean", ascending=False)
    )
    cells = list(map(format_with_error, table["mean"], table["sem"]))
    return [
        f"Input columns: by how much {run.metric.name} of {best} gets worse "
        "if the cells of a column are permuted among the rows of a fold, "
        f"mean and standard error over folds ({len(held_out):,} rows). Correlated columns share their importance.",
        make_table(pd.DataFrame({"column": table.index, "loss": cells})),
    ]


def _score(
    run: Run,
    job: Job,
    alone: Fitted,
    train: Dataset,
    context: Context,
    deadline: float,
    stage: Stage,
    inputs: pd.DataFrame,
    which: Integers,
) -> float:
    """Return the score of rows with other inputs by the model of a fold, negated if lower is better.

    Args:
        alone: what follows the models of the stage, such as thresholds.
        train: all rows of the training table.
        which: positions of the scored rows among them.

    Raises:
        TimeoutError: if the time is over, or features have to be computed that are not in the cache.
    """
    rows = train.take(which).without_labels()
    rows = replace(rows, inputs=inputs.reset_index(drop=True))
    is_cached = not any(cache.missing(keys) for cache, keys in feature_caches(stage, context, [rows]))
    if time.monotonic() > deadline or not is_cached:
        raise TimeoutError
    y_pred, _ = predict(stage, rows, job.folder, context)
    rows_of_metric = take_rows(run.columns.rows, which)
    return run.columns.gain(run.metric(run.columns.y[which], alone.predict(y_pred[:, None]), rows_of_metric))
