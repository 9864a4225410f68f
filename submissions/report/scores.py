"""Sections of the report about scores: of stages and candidates, and of classes."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from competition.clean import read_table_with_ids, require_columns
from competition.config import CompetitionConfig
from competition.dataset import without_extra_rows
from competition.labels import parse_labels
from competition.task import class_name, class_numbers, from_submission_columns, raw_rows_for
from core.errors import ConfigError
from core.files import read_json, read_table, read_text_table
from core.text import format_number, format_with_error, is_finite, mean_and_std
from core.types import Array
from models.jobs.compute import UNUSED_LABELS
from models.jobs.plan import REPORT
from models.stage import read_notes
from models.stages.file import FOLD_MARKS
from submissions.blend.candidates import LIGHTGBM_STACK
from submissions.blend.decision_rules import apply_decision
from submissions.blend.scoring import Scorer, score_per_target
from submissions.blend.serialization import from_json
from submissions.report.elements import Element, Figure, make_table
from submissions.report.figures import ScoreRow, confusion_matrix, heat_map, score_chart
from submissions.report.predictions import labels, predictions
from submissions.run import CANDIDATES_TABLE, STAGES, Run, candidate_file

FLAGS = {
    "other code": "trained by other code (--reuse)",
    "pseudo-labels": "trained on test rows with predictions of other stages as labels, fold by fold",
    "refit": "predicts test rows by models of all rows (final_fit), which have no score; score: of the folds",
    "fewer epochs": "trained with fewer epochs than the YAML says, to fit into the budget",
    "class weights": "trained with class weights, which distort its probabilities",
    **FOLD_MARKS,
}
THRESHOLDS = {
    "multiclass": "number that is subtracted from the logarithm of the probability of a class",
    "ordinal": "mean level from which a row has this level, where the lowest is 0",
}
"""Problem type -> meaning of the thresholds."""

NAME, TEST_SCORE = "stage or candidate", "test_score"
COLUMNS = (
    NAME, "target", "in_sample_score", "score", "fold_scores", TEST_SCORE, "gain", "weight", "seconds", "flags",
)  # fmt: skip
"""Columns of the table of scores; one without any cell is left out."""
LEGEND = (
    "score: each row is predicted without its fold; of a candidate also weights, scaling and tuning are fitted without "
    "it (cross_fitted_score). in_sample_score: on the rows that the candidate was fitted on, optimistic. fold_scores: "
    "mean +- standard deviation over folds. gain, above 0 is better, +- its standard error: of a candidate over the "
    "default, of a stage that of {default} with it over {default} without it, by the settings that were tuned for all "
    "stages. weight: in {chosen}, which was chosen."
)


class Answers(NamedTuple):
    """Answers to the test table.

    Attributes:
        scorer: the labels of the rows of the sample; None if the metric cannot score them.
        notes: sentences about rows that are in no score.
    """

    scorer: Scorer | None
    notes: list[str]


def gain(run: Run, this: float | None, other: float | None = 0.0) -> float | None:
    """Return by how much a score is better than another, above 0; None if one of them is unknown."""
    return None if this is None or other is None else run.columns.gain(this - other)


def load_answers(run: Run) -> Answers:
    """Return the answers; without an existing table of them there is nothing to score."""
    competition = run.config.competition
    file = competition.answers
    if file is None or not file.exists():
        return Answers(None, [])
    ids = list(read_table(run.paths.sample)[competition.id])
    answers = read_answers(competition, file)
    y = answers.reindex(ids).to_numpy()
    rows = np.arange(len(ids))
    scorer = Scorer(
        metric=run.metric,
        task=run.task,
        y=y,
        folds=0 * rows,
        groups=rows,
        ids=ids,
        rows=raw_rows_for(run.metric, file, competition.id, ids),
    )
    try:
        scorer.score(candidate_on_test(run, run.chosen))
    except ConfigError as error:  # the answers may lack a column that the user's metric reads
        return Answers(None, [f"The answers have no score: {error}"])
    notes = []
    n_without = len({*ids} - {*answers.index})
    if n_without:
        notes.append(f"{n_without} of {len(ids)} rows have no answer and are in no score.")
    n_unlabelled = np.isnan(y).all(axis=1).sum() - n_without
    if n_unlabelled:
        notes.append(f"{n_unlabelled} answers are missing or censored and are in no score.")
    return Answers(scorer, notes)


def read_answers(competition: CompetitionConfig, file: Any) -> pd.DataFrame:
    """Return the labels in a table of answers, indexed by id.

    Its columns have the names of the targets, or those of the columns of the sample.
    """
    task = competition.task
    table = read_table_with_ids(file, [competition.id])
    if not {*task.targets} <= {*table} and not task.has_column_per_class:
        table = table.rename(columns=dict(zip(task.columns_in_sample, task.targets, strict=True)))
    require_columns(table, task.targets, file)
    cells = table[task.targets].map(class_name)
    are_of_sample = class_numbers(pd.Series(cells.to_numpy().ravel()), task.classes)[1].any()
    if competition.labels_in_sample and not competition.holdout_of and are_of_sample:
        class_of = dict(zip(task.written_classes, task.classes, strict=True))
        table = table.assign(**cells.replace(class_of))
    labels = parse_labels(table, competition.targets, competition, file).table
    return labels[competition.targets].set_axis(table[competition.id])


def candidate_on_test(run: Run, name: str) -> Array:
    """Return what the metric scores of the submission of a candidate, (n_rows of the sample, n_scored)."""
    return from_submission_columns(run.task, read_text_table(run.folder / candidate_file(name, ".csv")))


def stage_on_test(run: Run, stage: str, ids: list[str]) -> Array:
    """Return what the metric scores of the predictions of a stage, (n_rows of the sample, n_scored)."""
    columns = run.columns
    means = dict(enumerate(columns.label_means))  # for unreadable rows
    y_pred = pd.DataFrame(columns.stage_test(stage), columns.test_ids).reindex(ids).fillna(means)
    return apply_decision(from_json(run.choice["stages"][stage]["decision"]), y_pred.to_numpy())


def out_of_fold(run: Run, file: str, name: str) -> Array:
    """Return what the metric scores of a stage or candidate, (n_rows, n_scored), out of fold."""
    table = read_table(run.folder / file).set_index("id").loc[run.columns.ids]
    return table[[f"{name} {column}" for column in run.task.scored_columns]].to_numpy()


def target_scores(scorer: Scorer, scored: Array) -> dict[str, float]:
    """Return the score on all targets and, if there are several, per target."""
    targets = scorer.task.targets
    score = scorer.score(scored)
    if len(targets) == 1:
        return {targets[0]: score}
    rows = scorer.has_fold
    per_target = score_per_target(scorer.metric, scorer.y[rows], scored[rows]) or [np.nan] * len(targets)
    return {"all": score, **dict(zip(targets, per_target, strict=True))}


def stage_weights(run: Run) -> pd.DataFrame:
    """Return the weights of the chosen blend, (n_stages, n_targets); no column if it is not a weighted sum."""
    weights = pd.DataFrame(run.weights, list(run.config.stages))
    if len(weights.columns) > len(run.task.targets):
        weights = weights.mean(axis=1).to_frame(*run.task.targets)
    return weights


def target_lines(run: Run, scored: Array, answers: Answers, on_test: Array | None) -> list[dict[str, Any]]:
    """Return the cells of a stage or candidate for all targets and, if there are several, for each.

    Args:
        scored: what the metric scores of the training rows, (n_rows, n_scored), each predicted without its fold.
        on_test: what it scores of the rows of the sample, (n_rows, n_scored).
    """
    columns = run.columns
    of_folds = []
    for fold in range(run.plan.n_folds):
        scorer = replace(columns, folds=np.where(columns.folds == fold, fold, -1))
        of_folds.append(target_scores(scorer, scored))
    lines = []
    for target, score in target_scores(columns, scored).items():
        spread = mean_and_std([scores[target] for scores in of_folds])
        lines.append({"target": target, "score": score, "fold_scores": spread})
    if answers.scorer is not None and on_test is not None:
        for line, score in zip(lines, target_scores(answers.scorer, on_test).values(), strict=True):
            line[TEST_SCORE] = score
    return lines


def score_section(run: Run, answers: Answers) -> list[Element]:
    """Return the scores of all candidates, from simple to complex, and of all stages, with flags and notes."""
    choice = run.choice
    lines = [*_candidate_lines(run, answers), *_stage_lines(run, answers)]
    header = [name for name in COLUMNS if any(name in line for line in lines)]
    if len(run.task.targets) == 1:
        header.remove("target")
    legend = LEGEND.format(
        chosen=f"the base of {run.chosen}" if run.chosen == LIGHTGBM_STACK else run.chosen,
        default=choice["default"],
    )
    elements: list[Element] = [
        make_table(header, [[line.get(name, "") for name in header] for line in lines]),
        choice["reason"],
        *choice["failed"],
        legend,
        *answers.notes,
    ]
    if run.plan.n_folds == 2:
        elements.append(
            "With two folds the remaining fold cannot be tuned on, so convex replaces tuned blends."
        )
    n_train_rows = len(without_extra_rows(read_table(run.paths.train)))  # extra rows follow them
    n_without_fold = (run.columns.folds[:n_train_rows] < 0).sum()
    if n_without_fold:
        elements.append(f"{n_without_fold} training rows are in no held-out fold (fold -1) and in no score.")
    return [*elements, *_stage_notes(run)]


def _candidate_lines(run: Run, answers: Answers) -> list[dict[str, Any]]:
    """Return a line for each candidate, and of the chosen one a line for each target."""
    lines = []
    for name, candidate in run.candidates.items():
        scored = out_of_fold(run, CANDIDATES_TABLE, name)
        lines_of_candidate = target_lines(run, scored, answers, candidate_on_test(run, name))
        lines_of_candidate[0] |= {
            NAME: name,
            "in_sample_score": candidate["in_sample_score"],
            "gain": _gain_cell(run, candidate["difference"], candidate["standard_error"]),
            "flags": ", ".join(role for role in ("chosen", "default") if name == run.choice[role]),
        }
        lines += lines_of_candidate if name == run.chosen else lines_of_candidate[:1]
    return lines


def _stage_lines(run: Run, answers: Answers) -> list[dict[str, Any]]:
    """Return a line for each stage and target, and for stages that start from the same weights."""
    weights = stage_weights(run)
    flags = {stage["name"]: stage["marks"] for stage in run.stored["stages"]}
    ablation = run.choice["ablation"]
    lines: list[dict[str, Any]] = []
    for stage in run.config.stages:
        on_test = stage_on_test(run, stage, answers.scorer.ids) if answers.scorer else None
        lines_of_stage = target_lines(run, out_of_fold(run, STAGES, stage), answers, on_test)
        for line in lines_of_stage:
            if line["target"] in weights:
                line["weight"] = f"{weights[line['target']][stage]:.3f}"
        jobs = run.plan.jobs_of_stage(stage)
        seconds = sum(read_json(job.folder / REPORT)["seconds"] for job in jobs)
        lines_of_stage[0] |= {NAME: stage, "seconds": f"{seconds:.1f}", "flags": ", ".join(flags[stage])}
        if stage in ablation:
            lines_of_stage[0]["gain"] = _ablation_cell(run, ablation[stage])
        lines += lines_of_stage
    for name in sorted(ablation.keys() - run.config.stages.keys()):
        title = f"{name}: {', '.join(ablation[name]['stages'])}"
        lines.append({NAME: title, "gain": _ablation_cell(run, ablation[name])})
    return lines


def _stage_notes(run: Run) -> list[str]:
    """Return the meaning of the flags, and the notes of the stages."""
    used_flags = {flag for stage in run.stored["stages"] for flag in stage["marks"]}
    notes = [f"{flag}: {meaning}." for flag, meaning in FLAGS.items() if flag in used_flags]
    for name, stage in run.config.stages.items():
        notes += [f"{name}: {note}" for note in read_notes(run.plan.jobs_of_stage(name)[0].folder)]
        if run.task.classes and stage.dropout_note:
            notes.append(f"{name}: {stage.dropout_note}.")
    return notes


def _gain_cell(run: Run, difference: float | None, standard_error: float | None) -> str:
    """Return a gain with its standard error, above 0 if it is better; "" for the default itself."""
    is_default = difference == 0 and standard_error == 0
    return "" if is_default else format_with_error(gain(run, difference), standard_error)


def _ablation_cell(run: Run, record: dict[str, Any]) -> str:
    """Return the gain of a blend with a stage over that without it; `record` has without minus with."""
    return format_with_error(gain(run, 0.0, record["difference"]), record["standard_error"])


def score_overview(run: Run, answers: Answers) -> list[Element]:
    """Return a chart of the scores of all stages and candidates, and one of the weights."""
    choice = run.choice
    scorer = answers.scorer
    stages = []
    for name, stage in choice["stages"].items():
        test_score = scorer.score(stage_on_test(run, name, scorer.ids)) if scorer else None
        stages.append(ScoreRow(name, stage["score"], stage["score_standard_error"], test_score))
    candidates = []
    for name, candidate in run.candidates.items():
        test_score = scorer.score(candidate_on_test(run, name)) if scorer else None
        is_submitted = name == run.chosen
        numbers = candidate["score"], candidate["score_standard_error"]
        candidates.append(ScoreRow(name, *numbers, test_score, is_submitted))
    groups = {"stages": stages, "candidates": candidates}
    groups = {heading: [row for row in rows if is_finite(row.score)] for heading, rows in groups.items()}
    caption = "Cross-validated scores of stages, cross-fitted scores of candidates, ± one standard error"
    elements: list[Element] = [
        Figure(caption, score_chart(groups, run.metric.name, run.metric.greater_is_better))
    ]
    weights = stage_weights(run)
    if not len(weights.columns):
        return elements
    values = weights.to_numpy(dtype=float)
    limit = max(1.0, float(np.abs(values).max()))
    chart = heat_map(values, list(weights.index), list(weights.columns), limit)
    elements.append(Figure(f"Weights of the stages in {run.chosen}", chart))
    if (values < 0).any():
        elements.append(
            "A negative weight is not an error: the errors of that stage correlate with those of stages with large "
            "weights, so that subtracting a part of it cancels errors that they share."
        )
    return elements


def class_section(run: Run) -> list[Element]:
    """Return precision, recall and F1 per class, or of class 1 per target; thresholds, shares and confusions."""
    from sklearn.metrics import precision_recall_fscore_support

    task = run.task
    y = run.columns.y
    predicted = labels(run)
    shares = run.choice.get("class_shares", {})
    has_several_targets = len(task.targets) > 1
    rows: list[list[Any]] = []
    for t, target in enumerate(task.targets):
        is_labelled = np.isfinite(y[:, t]) & np.isfinite(predicted[:, t])
        truth = y[is_labelled, t]
        label = predicted[is_labelled, t]
        scores = precision_recall_fscore_support(
            truth, label, labels=range(len(task.classes)), zero_division=np.nan
        )
        class_rows = list(zip(task.classes, *scores, strict=True))
        for name, precision, recall, f1, count in class_rows[1 if has_several_targets else 0 :]:
            class_shares = [part[target][name] for part in shares.values()]
            title = target if has_several_targets else name
            rows.append([title, str(count), precision, recall, f1, *class_shares])
    header = ["class", "rows", "precision", "recall", "F1"]
    how = "" if shares else ": the most probable class"
    sentences = [f"Training rows, by labels that were predicted without their fold{how}."]
    if shares:
        thresholds, explanation = _thresholds(run)
        header += ["share in training", "out of fold", "on test", "threshold"]
        sentences.append(explanation)
        missing = [None] * (len(rows) - len(thresholds))
        rows = [[*row, value] for row, value in zip(rows, [*missing, *thresholds], strict=True)]
    elements: list[Element] = [make_table(header, rows, "{:.3f}"), *sentences]
    if not has_several_targets:
        elements.append(Figure("Confusion matrix", confusion_matrix(task.classes, truth, label)))
    return elements


def _thresholds(run: Run) -> tuple[list[float], str]:
    """Return the thresholds of the submission, and the gain of tuning them as a sentence."""
    task = run.task
    chosen = run.candidates[run.chosen]
    default_score = run.columns.score(task.default_labels(predictions(run)))
    meaning = THRESHOLDS.get(task.problem_type, "probability from which a row has the class")
    return from_json(chosen["decision"]).cuts.tolist(), (
        f"threshold: {meaning}. The labels of {run.chosen} score {format_number(default_score)} without tuning, "
        f"and {format_number(chosen['score'])} with thresholds that were tuned without the row's fold."
    )


def unused_labels(run: Run) -> list[str]:
    """Return a sentence for each fold that does not use the labels of an extra table."""
    unused: dict[str, None] = {}
    for job in run.plan.jobs:
        for message in read_json(job.folder / REPORT).get(UNUSED_LABELS, []):
            unused[f"In {job.folder.name} {message}."] = None  # once for all stages and seeds
    return list(unused)
