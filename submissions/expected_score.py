"""The score to expect of a submission: the cross-fitted score, corrected for what is different on the test table.

Out of fold one fold model predicts a row; a test row gets the mean of all fold models. The squared error of the
mean is lower than the mean squared error of its members by their variance, which needs no label (Krogh and
Vedelsby, "Neural network ensembles, cross validation, and active learning", NeurIPS 1994). A score on a test table
varies with the rows of both tables. And test rows may be more or less like the training rows than held-out rows are.
benchmarks/expected_score.py measures how often each of the scores holds.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from competition.dataset import without_extra_rows
from competition.files import derive_seed, read_table
from competition.metrics import Metric, take_rows
from competition.task import Task
from competition.types import Array
from folds.similarity import MAX_QUERIES, MAX_TRAIN_ROWS, similarities
from models.jobs.plan import REFIT_FOLD
from submissions.blend.selection_rule import SelectionRule, standard_error
from submissions.predictor import SubmissionModel
from submissions.run import Run
from submissions.stage_predictions import load_test_predictions

MAX_ODDS = 3.0
"""Largest weight of a held-out row; the smallest is its inverse."""
N_RESAMPLES = 200
MIN_ROWS = 50
"""Number of rows of each table below which the odds of a similarity cannot be estimated."""


def expected_score(
    run: Run, rule: SelectionRule, model: SubmissionModel, y_pred: Array, with_similar_rows: bool = True
) -> dict[str, Any]:
    """Return the `score` to expect on the test table and its `standard_error`, which counts the rows of both tables.

    `variance` has that of the fold models on the test table, per target; None except for regression, and for folds
    in time, whose models see more and more rows. It is at most the share 1 - 1 / n_folds of the mean square, which
    the mean of n_folds models gains if their errors are independent.
    `similar_rows` has the same two numbers of held-out rows that are as similar to their training rows as test rows
    are; None without molecules and texts, and for small tables.

    For regression, errors out of fold are scaled so that their mean square is lower by the variance of the fold
    models; the metric is then computed as usual. For metrics that are the mean loss of probabilities, such as the
    log loss, the expected difference to the loss of the mean is subtracted. Scores of labels, and of the ranks of
    probabilities, are not corrected.

    Args:
        y_pred: what the metric scores of the training rows, cross-fitted, (n_rows, n_scored).
    """
    n_rows, n_test_rows = int(rule.has_fold.sum()), len(run.stage_predictions.test_ids)
    test_rows = np.sqrt(1 + n_rows / n_test_rows)
    score, corrected, variance = rule.score(y_pred), y_pred, None
    is_regression = run.task.problem_type == "regression"
    largest_share = 1 - 1 / (int(rule.folds.max()) + 1)
    if run.config.folds.is_ordered_in_time:
        pass
    elif is_regression and run.metric.kind in ("values", "ranks"):
        mean_square = np.nanmean((y_pred - rule.y) ** 2, axis=0)
        variance = of_fold_models(run, model).var(axis=0).mean(axis=0)
        variance = np.minimum(variance, largest_share * mean_square)
        corrected = less_variance(rule.y, y_pred, variance)
        score = rule.score(corrected)
    elif run.task.has_probabilities and run.metric.row_losses is not None:
        score -= min(mean_gap(run.metric, run.task, of_fold_models(run, model)), largest_share * score)
    similar_rows = score_of_similar_rows(run, rule, corrected) if with_similar_rows else None
    if similar_rows is not None:
        similar_rows["score"] += score - rule.score(corrected)  # what was subtracted of a mean loss
    return {
        "score": score,
        "standard_error": standard_error(rule, corrected) * test_rows,
        "variance": None if variance is None else variance.tolist(),
        "similar_rows": similar_rows,
    }


def score_of_similar_rows(run: Run, rule: SelectionRule, y_pred: Array) -> dict[str, float] | None:
    """Return the `score` of held-out rows drawn by the odds of their similarity, and its `standard_error`.

    The odds that a row with this similarity to its nearest training row is a test row are estimated by logistic
    regression, and clipped. A fold model has not seen its fold, so the similarity of a test row is the mean over
    the fold models.
    """
    train, test = without_extra_rows(read_table(run.paths.train)), read_table(run.paths.test)
    kind, n_test_rows = run.config.folds.kind, len(test)
    rng = np.random.default_rng(derive_seed(rule.seed, "similar rows"))
    sampled = np.sort(rng.permutation(len(train))[:MAX_TRAIN_ROWS])
    queries = test.iloc[np.sort(rng.permutation(n_test_rows)[:MAX_QUERIES])]
    found = similarities(train.iloc[sampled], queries, run.config.competition, {kind: rule.folds[sampled]})
    if not found or min(n_test_rows, len(found[0].held_out[kind])) < MIN_ROWS:
        return None
    rows = sampled[found[0].held_out_rows[kind]]
    weights = odds_of_test_row(
        np.column_stack([each.held_out[kind] for each in found]),
        np.column_stack([each.test_of_folds[kind] for each in found]),
    )
    drawn = rng.choice(rows, size=(N_RESAMPLES, len(rows)), p=weights / weights.sum())
    scores = np.array([rule.metric(rule.y[each], y_pred[each], take_rows(rule.rows, each)) for each in drawn])
    n_effective = weights.sum() ** 2 / (weights**2).sum()
    # The variance of a resample is that of n rows; that of the estimate is of n_effective and of the test rows.
    factor = np.sqrt(len(rows) / n_effective + len(rows) / n_test_rows)
    # Errors of one scaffold or another group are alike, which draws of single rows do not show.
    error_of_rows = standard_error(replace(rule, groups=np.arange(len(rule.groups))), y_pred)
    if error_of_rows > 0:  # 0 if every row has the same error
        factor *= standard_error(rule, y_pred) / error_of_rows
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


def of_fold_models(run: Run, model: SubmissionModel) -> Array:
    """Return test predictions of the submission with the models of one fold, (n_folds, n_test_rows, n_outputs).

    Seeds are averaged, as they are out of fold, and so are refits, which are the same for all folds.
    """
    stage_preds = run.stage_predictions
    predictions = []
    for fold in sorted({job.fold for job in run.plan.jobs} - {REFIT_FOLD}):
        plan = replace(run.plan, jobs=[job for job in run.plan.jobs if job.fold in (fold, REFIT_FOLD)])
        preds = load_test_predictions(run.config, plan, plan.test_key, stage_preds.test_ids)
        predictions.append(model.predict(preds, stage_preds.test_inputs, as_labels=False))
    return np.array(predictions)


def less_variance(y: Array, y_pred: Array, variance: Array) -> Array:
    """Return predictions (n_rows, n_targets) with a mean squared error that is lower by a variance per target.

    The errors of each target are multiplied by one factor, so any metric can score the result.

    Args:
        y: labels (n_rows, n_targets), NaN if missing.
        variance: (n_targets,).
    """
    errors = y_pred - y
    mean_square = np.nanmean(errors**2, axis=0)
    share = np.divide(variance, mean_square, out=np.zeros_like(mean_square), where=mean_square > 0)
    scaled = y + errors * np.sqrt(np.clip(1 - share, 0, None))
    return np.where(np.isnan(y), y_pred, scaled)


def mean_gap(metric: Metric, task: Task, probabilities: Array) -> float:
    """Return by how much the mean of fold models is expected to have a lower loss than one of them.

    The expectation is over labels with the probabilities of the mean, and it is averaged over models, test rows and
    targets.

    Args:
        probabilities: (n_folds, n_test_rows, n_outputs).
    """
    models = [*probabilities, probabilities.mean(axis=0)]
    is_multiclass = task.problem_type == "multiclass"
    # What the metric takes for each target: (n_rows, n_classes), or (n_rows,) for class 1.
    targets = [models] if is_multiclass else zip(*(model.T for model in models), strict=True)
    gaps = []
    for preds in targets:
        mean = preds[-1]
        weights = mean if is_multiclass else np.column_stack([1 - mean, mean])
        losses = [_losses(metric, y_pred, weights.shape[1]) for y_pred in preds]
        gaps.append(np.sum(weights * (np.mean(losses[:-1], axis=0) - losses[-1]), axis=1).mean())
    return float(np.mean(gaps))


def _losses(metric: Metric, y_pred: Array, n_classes: int) -> Array:
    """Return the loss of each row if its label were each of the classes, (n_rows, n_classes)."""
    assert metric.row_losses is not None
    labels = [np.full(len(y_pred), float(c)) for c in range(n_classes)]
    return np.column_stack([metric.row_losses(y, y_pred) for y in labels])
