"""What `--json` prints of a run, and the scores of its stages for Python."""

from typing import Any

from pipeline.last_submission import has_report
from submissions.compare import may_score
from submissions.manifest import NOT_EXAMINED, SUBMISSION_FILE
from submissions.report.predictions import rows_with_largest_errors
from submissions.report.report import PAGE
from submissions.report.scores import gain, load_answers, seconds_of_stage
from submissions.run import Run

SCORES = {"score", "score_standard_error", "target_scores", "fold_scores"}
"""Printed fields of `StageScores`: the cross-fitted score, its error, and the scores by target and fold."""


def describe_run(run: Run, compared: dict[str, Any] | None) -> dict[str, Any]:
    """Return what `--json` prints of a run.

    Args:
        compared: what `submissions.compare.gain_over` returns.
    """
    choice = run.choice
    submitted = choice.submitted
    expected = choice.expected
    holdout = load_answers(run) if may_score(run) and run.config.competition.holdout_of else None
    has_test_table = run.config.competition.has_test_table
    not_examined = [NOT_EXAMINED] if run.manifest.shift is None and has_test_table else []
    return {
        "run": run.name,
        "metric": run.metric.name,
        "greater_is_better": run.metric.greater_is_better,
        "expected_score": expected.score,
        **expected.model_dump(include={"interval", "unknown", "shift"}),
        "cross_fitted_score": submitted.score,
        "in_sample_score": submitted.in_sample_score,
        "holdout_score": holdout.score(submitted.file) if holdout else None,
        "gain": compared,
        "chosen": run.chosen,
        "stages": stage_records(run),
        "largest_errors": largest_errors(run),
        "warnings": [*run.incomplete, *not_examined, *run.manifest.remarks, *expected.warnings],
        "submission": run.folder / SUBMISSION_FILE,  # which a later run does not replace
        "report": run.paths.report / PAGE if has_report(run) else None,
    }


def stage_records(run: Run) -> dict[str, dict[str, Any]]:
    """Return name -> record of each stage, for `--json`.

    Keys: SCORES; weights (output -> weight in the submission, or in the base of a stack; empty if it
    has none); gain_in_blend, of the default blend with the stage over the one without it, above 0 is better,
    and its standard error (None if they were not made); training_seconds of all its jobs.
    """
    result = {}
    for name, scores in run.choice.stages.items():
        without = run.choice.ablation.get(name)
        result[name] = {
            **scores.model_dump(include=SCORES),
            "weights": {output: of_stages[name] for output, of_stages in run.weights.items()},
            "gain_in_blend": without and gain(run, 0.0, without.difference),
            "gain_in_blend_standard_error": without and without.standard_error,
            "training_seconds": seconds_of_stage(run, name),
        }
    return result


def largest_errors(run: Run) -> list[dict[str, Any]]:
    """Return the training rows with the largest errors of the submission, out of fold, the largest first.

    There is a record per row and target. Keys: id, fold, target, truth, prediction, and residual_in_sd, in
    standard deviations of the labels (of log(1 + label) for rmsle), or its_probability, of a wrong class.
    """
    result = []
    for i, lines in rows_with_largest_errors(run).items():
        row = {"id": run.columns.ids[i], "fold": int(run.columns.folds[i])}
        records_of_row: list[Any] = lines.to_dict("records")
        result += [row | line for line in records_of_row]
    return result
