"""Sections of the report about scores: stages, candidates, weights, ablation, test scores."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from competition.classes import class_name, class_numbers
from competition.clean import read_table_with_ids, require_columns
from competition.config import CompetitionConfig
from competition.dataset import without_extra_rows
from competition.label_columns import parse_labels
from competition.metrics import take_rows
from competition.task import build_task, from_submission_columns, raw_rows_for
from core.errors import ConfigError
from core.files import read_json, read_table, read_text_table
from core.text import is_finite, mean_and_std
from core.types import Array
from models.jobs.plan import REPORT
from models.stage import read_notes
from models.stages.file import FOLD_MARKS
from submissions.blend.candidates import LIGHTGBM_STACK
from submissions.blend.decision_rules import apply_decision
from submissions.blend.scoring import score_per_target
from submissions.blend.serialization import from_json
from submissions.report.charts import ScoreRow, heat_map, score_chart
from submissions.report.elements import Element, Figure, make_table
from submissions.report.training_predictions import scored_stages
from submissions.run import BLEND_FILE, STACK_FILE, SUBMISSION_FILE, Run

FLAGS = {
    "other code": "trained by other code (--reuse)",
    "pseudo-labels": "trained on test rows with predictions of other stages as labels, fold by fold",
    "refit": "predicts test rows by models of all rows (final_fit), which have no score; cv_score: of the folds",
    "fewer epochs": "trained with fewer epochs than the YAML says, to fit into the budget",
    "class weights": "trained with class weights, which distort its probabilities",
    **FOLD_MARKS,
}


class TestScores(NamedTuple):
    """Scores on the answers.

    Attributes:
        overall: file, or `stage NAME` -> score on all targets; empty if the metric cannot score the answers.
    """

    elements: list[Element]
    overall: dict[str, float]


def gain(run: Run, this: float | None, other: float | None = 0.0) -> float | None:
    """Return by how much a score is better than another, above 0; None if one of them is unknown."""
    if this is None or other is None:
        return None
    return this - other if run.metric.greater_is_better else other - this


def score_overview(run: Run, test: TestScores | None) -> list[Element]:
    """Return a chart of all stages and candidates with their standard errors and test scores."""
    choice = run.choice
    on_answers = test.overall if test else {}
    stages = []
    for name, stage in choice["stages"].items():
        test_score = on_answers.get(f"stage {name}")
        stages.append(ScoreRow(name, stage["cv_score"], stage["standard_error"], test_score))
    candidates = []
    for name, candidate in run.candidates.items():
        candidates.append(ScoreRow(name, candidate["score"], candidate["score_standard_error"]))
    submission = ScoreRow(
        name="submission",
        score=choice["cross_fitted_score"],
        standard_error=choice["standard_error"],
        test_score=on_answers.get(SUBMISSION_FILE),
        is_submitted=True,
    )
    groups = {"stages": stages, "candidates": candidates, "submission": [submission]}
    groups = {heading: [row for row in rows if is_finite(row.score)] for heading, rows in groups.items()}
    caption = "Cross-validated scores of stages, cross-fitted scores of candidates, ± one standard error"
    return [Figure(caption, score_chart(groups, run.metric.name, run.metric.greater_is_better))]


def _scores(run: Run, y: Array, y_pred: Array, rows: pd.DataFrame | None) -> dict[str, float]:
    """Return the score on all targets and, if there are several, per target.

    Args:
        rows: n_rows rows of the raw table, for a metric that takes them.
    """
    targets = run.task.targets
    score = run.metric(y, y_pred, rows)
    if len(targets) == 1:
        return {targets[0]: score}
    target_scores = score_per_target(run.metric, y, y_pred) or [np.nan] * len(targets)
    return {"all": score, **dict(zip(targets, target_scores, strict=True))}


def _stage_weights(run: Run) -> pd.DataFrame:
    """Return the weights of the chosen blend, (n_stages, n_targets); no column if it is not a weighted sum."""
    weights = pd.DataFrame(run.weights, list(run.config.stages))
    if len(weights.columns) > len(run.task.targets):
        weights = weights.mean(axis=1).to_frame(*run.task.targets)
    return weights


def stage_section(run: Run) -> list[Element]:
    """Return scores and weights of each stage, on all targets and per target, with flags and notes."""
    columns = run.columns
    folds = columns.folds
    weights = _stage_weights(run)
    flags = {stage["name"]: stage["marks"] for stage in run.stored["stages"]}
    competition = run.config.competition
    raw_rows = raw_rows_for(run.metric, competition.train, competition.id, columns.ids)
    rows = []
    notes = []
    for stage, scored in scored_stages(run).items():
        jobs = run.plan.jobs_of_stage(stage)
        fold_scores = []
        for fold in range(run.plan.n_folds):
            in_fold = folds == fold
            rows_of_fold = take_rows(raw_rows, in_fold)
            fold_scores.append(_scores(run, columns.y[in_fold], scored[in_fold], rows_of_fold))
        has_fold = folds >= 0
        rows_with_fold = take_rows(raw_rows, has_fold)
        scores = _scores(run, columns.y[has_fold], scored[has_fold], rows_with_fold)
        seconds = sum(read_json(job.folder / REPORT)["seconds"] for job in jobs)
        for i, (name, score) in enumerate(scores.items()):
            spread = mean_and_std([one_fold[name] for one_fold in fold_scores])
            weight = f"{weights[name][stage]:.3f}" if name in weights else ""
            last = [f"{seconds:.1f}", ", ".join(flags[stage])] if i == 0 else ["", ""]
            rows.append([stage if i == 0 else "", name, score, spread, weight, *last])
        notes += [f"{stage}: {note}" for note in read_notes(jobs[0].folder)]
        notes += _dropout_note(run, stage)
    base = f"the base of {run.chosen}" if run.chosen == LIGHTGBM_STACK else run.chosen
    elements: list[Element] = [
        make_table(["stage", "target", "cv_score", "fold_scores", "weight", "seconds", "flags"], rows),
        f"fold_scores: mean +- standard deviation over folds. weight: in {base}, which was chosen.",
    ]
    n_train_rows = len(without_extra_rows(read_table(run.paths.train)))  # extra rows follow them
    n_without_fold = (folds[:n_train_rows] < 0).sum()
    if n_without_fold:
        elements.append(f"{n_without_fold} training rows are in no held-out fold (fold -1) and in no score.")
    used_flags = {flag for stage_flags in flags.values() for flag in stage_flags}
    elements += [f"{flag}: {meaning}." for flag, meaning in FLAGS.items() if flag in used_flags]
    return [*elements, *notes]


def _dropout_note(run: Run, stage: str) -> list[str]:
    """Return the dropout rates of a network in classification."""
    note = run.config.stages[stage].dropout_note
    return [f"{stage}: {note}."] if run.task.classes and note else []


def candidate_section(run: Run) -> list[Element]:
    """Return the scores of all candidates, from simple to complex."""
    choice = run.choice
    same_as_default = {*choice["same_as_default"]} & {LIGHTGBM_STACK}
    rows = [
        _candidate_row(run, name, candidate, name in same_as_default)
        for name, candidate in run.candidates.items()
    ]
    header = ["candidate", "in_sample_score", "cross_fitted_score", "gain", "standard_error", ""]
    elements: list[Element] = [
        make_table(header, rows),
        choice["reason"],
        *choice["failed"],
        "in_sample_score: weights and score on the same rows, optimistic. cross_fitted_score: each row by weights, "
        "scaling and tuning fitted without its fold. gain: over the default, above 0 is better.",
    ]
    if run.plan.n_folds == 2:
        elements.append(
            "With two folds the remaining fold cannot be tuned on, so convex replaces tuned blends."
        )
    if same_as_default:
        elements.append(
            "same as default: fitted on all rows, the stack equals the default blend and cannot be chosen; its "
            "cross_fitted_score is the score of the stacks that were fitted without one fold each."
        )
    return elements


def _candidate_row(run: Run, name: str, candidate: dict[str, Any], is_same_as_default: bool) -> list[Any]:
    """Return a row of the table of candidates: name, scores, gain with its standard error, remarks."""
    choice = run.choice
    remarks = []
    if name == choice["chosen"]:
        remarks.append("chosen")
    if name == choice["default"]:
        remarks.append("default")
    if is_same_as_default:
        remarks.append("same as default")
    gains = [gain(run, candidate["difference"]), candidate["standard_error"]]
    if name == choice["default"] or is_same_as_default:
        gains = ["", ""]
    return [name, candidate["in_sample_score"], candidate["score"], *gains, ", ".join(remarks)]


def weight_section(run: Run) -> list[Element]:
    """Return the weights of the stages as a heat map, (n_stages, n_targets)."""
    weights = _stage_weights(run)
    if not len(weights.columns):
        return []
    values = weights.to_numpy(dtype=float)
    limit = max(1.0, float(np.abs(values).max()))
    elements: list[Element] = [
        Figure(
            f"Weights of the stages in {run.chosen}",
            heat_map(values, list(weights.index), list(weights.columns), limit, "{:.2f}"),
        )
    ]
    if (values < 0).any():
        elements.append(
            "A negative weight is not an error: the errors of that stage correlate with those of stages with large "
            "weights, so that subtracting a part of it cancels errors that they share."
        )
    return elements


def ablation(run: Run) -> list[Element]:
    """Return the score of the default blend without each stage and each family, and their gains."""
    rows = []
    records = run.choice["ablation"]
    for name in [*run.config.stages, *(records.keys() - run.config.stages.keys())]:
        if name not in records:
            continue
        record = records[name]
        title = name if name in run.config.stages else f"{name}: {', '.join(record['stages'])}"
        gain_with = gain(run, 0.0, record["difference"])  # the difference is: without minus with
        rows.append([title, record["score"], gain_with, record["standard_error"]])
    if not rows:
        return []
    explanation = (
        f"cross_fitted score of {run.choice['default']} without the stage, or without all stages that start from "
        "the same weights, by the settings that were tuned for all. gain: above 0, they help."
    )
    return [make_table(["without", "score", "gain with it", "standard_error"], rows), explanation]


def test_scores(run: Run) -> TestScores | None:
    """Return the scores of the files and of each single stage on the answers; None without answers."""
    file = answers_file(run)
    if file is None:
        return None
    competition = run.config.competition
    answers = read_answers(competition, file)
    ids, predictions = test_predictions(run)
    y = answers.reindex(ids).to_numpy()
    raw_rows = raw_rows_for(run.metric, file, competition.id, ids)
    try:
        scores = {name: _scores(run, y, y_pred, raw_rows) for name, y_pred in predictions.items()}
    except ConfigError as error:  # the answers may lack a column that the user's metric reads
        return TestScores([f"The answers have no score: {error}"], {})
    overall = {name: next(iter(target_scores.values())) for name, target_scores in scores.items()}
    rows = [[name, *target_scores.values()] for name, target_scores in scores.items()]
    elements: list[Element] = [make_table(["file or stage", *scores[SUBMISSION_FILE]], rows)]
    n_without = len({*ids} - {*answers.index})
    if n_without:
        elements.append(f"{n_without} of {len(ids)} rows have no answer and are in no score.")
    n_unlabelled = np.isnan(y).all(axis=1).sum() - n_without
    if n_unlabelled:
        elements.append(f"{n_unlabelled} answers are missing or censored and are in no score.")
    return TestScores(elements, overall)


def test_predictions(run: Run) -> tuple[list[str], dict[str, Array]]:
    """Return the ids of the sample, and what the metric scores of their rows: of each file and each stage."""
    task = run.task
    ids = list(read_table(run.paths.sample)[run.config.competition.id])
    files = [BLEND_FILE, *([STACK_FILE] if run.config.submissions.stack else []), SUBMISSION_FILE]
    predictions = {file: from_submission_columns(task, read_text_table(run.folder / file)) for file in files}
    columns = run.columns
    means = dict(enumerate(columns.label_means))  # for unreadable rows
    for stage in run.config.stages:
        y_pred = pd.DataFrame(columns.stage_test(stage), columns.test_ids).reindex(ids).fillna(means)
        decision = from_json(run.choice["stages"][stage]["decision"])
        predictions[f"stage {stage}"] = apply_decision(decision, y_pred.to_numpy())
    return ids, predictions


def answers_file(run: Run) -> Path | None:
    """Return the table of answers; None without an existing one."""
    file = run.config.competition.answers
    return file if file is not None and file.exists() else None


def read_answers(competition: CompetitionConfig, file: Path) -> pd.DataFrame:
    """Return the labels in a table of answers, indexed by id."""
    table = read_answer_table(competition, file)
    numbers = {name: parse_labels(table, name, competition, file) for name in competition.targets}
    return pd.DataFrame(numbers).set_axis(table[competition.id])


def read_answer_table(competition: CompetitionConfig, file: Path) -> pd.DataFrame:
    """Return a table of answers as text, with the names of the targets.

    Its columns have these names, or those of the columns of the sample.
    """
    task = build_task(competition)
    table = read_table_with_ids(file, [competition.id])
    if not {*task.targets} <= {*table} and not task.has_column_per_class:
        table = table.rename(columns=dict(zip(task.columns_in_sample, task.targets, strict=True)))
    require_columns(table, task.targets, file)
    cells = table[task.targets].map(class_name)
    are_of_sample = class_numbers(pd.Series(cells.to_numpy().ravel()), task.classes)[1].any()
    if not competition.labels_in_sample or competition.holdout_of or not are_of_sample:
        return table
    class_of = dict(zip(task.written_classes, task.classes, strict=True))
    return table.assign(**cells.replace(class_of))
