"""The score to expect of a submission: the cross-fitted score, with an error that counts the rows of both tables.

A test row gets the mean of all fold models, which is a little better than the one that predicts it out of
fold. Test rows may be more or less like the training rows than held-out rows are, so the score of similar
rows stands beside it. docs/benchmarks.md has how often each of the scores holds.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from competition.dataset import without_extra_rows
from core.files import derive_seed, read_table
from core.types import Array
from folds.similarity import MAX_QUERIES, MAX_TRAIN_ROWS, similarities
from submissions.blend.scoring import Scorer
from submissions.blend.selection import CrossFit
from submissions.run import Run

MAX_ODDS = 3.0
"""Largest weight of a held-out row; the smallest is its inverse."""
N_RESAMPLES = 200
MIN_ROWS = 50
"""Number of rows of each table below which the odds of a similarity cannot be estimated."""


def expected_score(run: Run, chosen: CrossFit, with_similar_rows: bool = True) -> dict[str, Any]:
    """Return the `score` to expect on the test table and its `standard_error`, which counts the rows of both tables.

    `similar_rows` has the same two numbers of held-out rows that are as similar to their training rows as
    test rows are; None without molecules and texts, and for small tables.
    """
    columns = run.columns
    n_rows, n_test_rows = int(columns.has_fold.sum()), len(columns.test_ids)
    return {
        "score": columns.score(chosen.scored),
        "standard_error": columns.standard_error(chosen.scored) * np.sqrt(1 + n_rows / n_test_rows),
        "similar_rows": score_of_similar_rows(run, columns, chosen.scored) if with_similar_rows else None,
    }


def score_of_similar_rows(run: Run, scorer: Scorer, y_pred: Array) -> dict[str, float] | None:
    """Return the `score` of held-out rows drawn by the odds of their similarity, and its `standard_error`.

    The odds that a row with this similarity to its nearest training row is a test row are estimated by
    logistic regression, and clipped. A fold model has not seen its fold, so the similarity of a test row is
    the mean over the fold models.
    """
    train, test = without_extra_rows(read_table(run.paths.train)), read_table(run.paths.test)
    kind, n_test_rows = run.config.folds.kind, len(test)
    rng = np.random.default_rng(derive_seed(scorer.seed, "similar rows"))
    sampled = np.sort(rng.permutation(len(train))[:MAX_TRAIN_ROWS])
    queries = test.iloc[np.sort(rng.permutation(n_test_rows)[:MAX_QUERIES])]
    found = similarities(train.iloc[sampled], queries, run.config.competition, {kind: scorer.folds[sampled]})
    if not found or min(n_test_rows, len(found[0].held_out[kind])) < MIN_ROWS:
        return None
    rows = sampled[found[0].held_out_rows[kind]]
    weights = odds_of_test_row(
        np.column_stack([each.held_out[kind] for each in found]),
        np.column_stack([each.test_of_folds[kind] for each in found]),
    )
    drawn = rng.choice(rows, size=(N_RESAMPLES, len(rows)), p=weights / weights.sum())
    scores = [scorer.score_of_rows(resample, y_pred) for resample in drawn]
    n_effective = weights.sum() ** 2 / (weights**2).sum()
    # The variance of a resample is that of n rows; that of the estimate is of n_effective and of the test rows.
    factor = np.sqrt(len(rows) / n_effective + len(rows) / n_test_rows)
    # Errors of one scaffold or another group are alike, which draws of single rows do not show.
    error_of_rows = replace(scorer, groups=np.arange(len(scorer.groups))).standard_error(y_pred)
    if error_of_rows > 0:  # 0 if every row has the same error
        factor *= scorer.standard_error(y_pred) / error_of_rows
    return {"score": float(np.nanmean(scores)), "standard_error": float(np.nanstd(scores) * factor)}


def odds_of_test_row(held_out: Array, test: Array) -> Array:
    """Return the odds that a row with the similarities of a held-out row is a test row, (n_held_out,), clipped.

    Args:
        held_out: similarities of held-out rows to their nearest training row, (n_held_out, n_measures).
        test: the same of test rows.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    model = make_pipeline(PolynomialFeatures(3, include_bias=False), StandardScaler(), LogisticRegression())
    is_test = np.repeat([0, 1], [len(held_out), len(test)])
    probabilities = model.fit(np.vstack([held_out, test]), is_test).predict_proba(held_out)
    odds = probabilities[:, 1] / probabilities[:, 0]
    return np.clip(odds / odds.mean(), 1 / MAX_ODDS, MAX_ODDS)
