"""The score to expect of a submission: the cross-fitted score, corrected for what is different on the test table.

Out of fold one fold model predicts a row; a test row gets the mean of all fold models. The squared error of the
mean is lower than the mean squared error of its members by their variance, which needs no label (Krogh and
Vedelsby, "Neural network ensembles, cross validation, and active learning", NeurIPS 1994). And a score on a test
table varies with the rows of both tables. benchmarks/expected_score.py measures how often either score holds.
"""

from typing import Any

import numpy as np

from competition.types import Array
from models.jobs.job_files import stage_test
from models.jobs.plan import REFIT_FOLD
from submissions.blend.selection_rule import SelectionRule, standard_error
from submissions.predictor import SubmissionModel
from submissions.run import Run
from submissions.stage_predictions import jobs_by_column


def expected_score(run: Run, rule: SelectionRule, model: SubmissionModel, y_pred: Array) -> dict[str, Any]:
    """Return the `score` to expect on the test table and its `standard_error`, which counts the rows of both tables.

    For regression, errors out of fold are scaled so that their mean square is lower by the variance of the fold
    models; the metric is then computed as usual. For metrics that are the mean loss of probabilities, such as the
    log loss, the expected difference to the loss of the mean is subtracted. Scores of labels, and of the ranks of
    probabilities, are not corrected.

    Args:
        y_pred: what the metric scores of the training rows, cross-fitted, (n_rows, n_scored).
    """
    n_rows, n_test_rows = int(rule.has_fold.sum()), len(run.stage_predictions.test_ids)
    test_rows = np.sqrt(1 + n_rows / n_test_rows)
    score, corrected = rule.score(y_pred), y_pred
    is_regression = run.task.problem_type == "regression"
    if is_regression and run.metric.kind in ("values", "ranks"):
        corrected = less_variance(rule.y, y_pred, of_fold_models(run, model).var(axis=0).mean(axis=0))
        score = rule.score(corrected)
    elif run.task.has_probabilities and run.metric.row_losses is not None:
        score -= mean_gap(run, of_fold_models(run, model))
    return {"score": score, "standard_error": standard_error(rule, corrected) * test_rows}


def of_fold_models(run: Run, model: SubmissionModel) -> Array:
    """Return test predictions of the submission with the models of one fold, (n_folds, n_test_rows, n_outputs).

    Seeds are averaged, as they are out of fold, and so are refits, which are the same for all folds.
    """
    stage_preds = run.stage_predictions
    columns = jobs_by_column(run.config, run.plan).values()
    predictions = []
    for fold in sorted({job.fold for job in run.plan.jobs} - {REFIT_FOLD}):
        of_fold = [[job for job in jobs if job.fold in (fold, REFIT_FOLD)] for jobs in columns]
        preds = [
            stage_test(jobs, run.plan.test_key, stage_preds.test_ids, run.task.outputs) for jobs in of_fold
        ]
        predictions.append(model.predict(np.stack(preds, axis=1), stage_preds.test_inputs, as_labels=False))
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


def mean_gap(run: Run, probabilities: Array) -> float:
    """Return by how much the mean of fold models is expected to have a lower loss than one of them.

    The expectation is over labels with the probabilities of the mean, and it is averaged over models, test rows and
    targets.

    Args:
        probabilities: (n_folds, n_test_rows, n_outputs).
    """
    mean = probabilities.mean(axis=0)
    n_outputs_of_target = mean.shape[1] if run.task.problem_type == "multiclass" else 1
    n_classes = max(2, n_outputs_of_target)
    gaps = []
    for first in range(0, mean.shape[1], n_outputs_of_target):
        outputs = slice(first, first + n_outputs_of_target)
        weights = (
            mean[:, outputs]
            if n_outputs_of_target > 1
            else np.hstack([1 - mean[:, outputs], mean[:, outputs]])
        )
        losses = [_losses(run, one[:, outputs], n_classes) for one in (*probabilities, mean)]
        gaps.append(np.sum(weights * (np.mean(losses[:-1], axis=0) - losses[-1]), axis=1).mean())
    return float(np.mean(gaps))


def _losses(run: Run, probabilities: Array, n_classes: int) -> Array:
    """Return the loss of each row if its label were each of the classes, (n_rows, n_classes)."""
    row_losses = run.metric.row_losses
    assert row_losses is not None
    y_pred = probabilities[:, 0] if probabilities.shape[1] == 1 else probabilities
    n_rows = len(probabilities)
    return np.column_stack([row_losses(np.full(n_rows, float(c)), y_pred) for c in range(n_classes)])
