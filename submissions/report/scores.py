"""Sections of the report about scores: of stages and candidates, and of classes."""

import time
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from competition.cells import read_table_with_ids, require_columns
from competition.config import CompetitionConfig
from competition.labels import parse_labels
from competition.metrics import raw_rows_for
from competition.task import class_name, class_numbers, from_submission_columns
from core.errors import ConfigError, DataError
from core.files import read_json, read_table
from core.text import format_number, format_with_error
from core.types import Array
from core.user_tables import read_text_table
from models.inputs.weights import WEIGHT_SETS, describe_labels
from models.job_folder import REPORT, read_notes
from models.stage import FOLD_MARKS
from submissions.blend.candidates import LIGHTGBM_STACK
from submissions.blend.scoring import Scorer
from submissions.manifest import SUBMISSION_FILE, StageScores
from submissions.report.elements import Element, Figure, make_table
from submissions.report.figures import heat_map, score_chart, time_line_chart
from submissions.report.predictions import labels, predictions
from submissions.run import Run

FLAGS = {
    "other code": "trained by another code version (--reuse)",
    "refit": "predicts test rows with unscored models of all rows (final_fit); score: of the fold models",
    "fewer epochs": "trained with fewer epochs than the YAML says, to fit into the budget",
    **FOLD_MARKS,
}
THRESHOLDS = {
    "multiclass": "number subtracted from the log-probability of a class",
    "ordinal": "predicted mean from which a row gets this level; the lowest has none",
}
"""Problem type -> meaning of the thresholds."""

MIN_WEIGHT = 0.0005
"""Weights below this one are shown as 0."""
NAME = "stage or candidate"
COLUMNS = (
    NAME, "target", "in_sample_score", "score", "test_score", "gain", "weight", "seconds", "flags",
)  # fmt: skip
"""Columns of the table of scores; one without any cell is left out."""
LEGEND = (
    "score: each row is predicted without its fold; "
    "for candidates, weights, scaling and tuning are also fitted without it (cross_fitted_score). "
    "in_sample_score: optimistic, on the rows that the candidate was fitted on. "
    "gain +- standard error, above 0 is better: of a candidate over the default; "
    "of a stage, of {default} with it over {default} without it, with the settings tuned for all stages. "
    "weight: in {chosen}, which was chosen; "
    "weights need not be from 0 to 1, nor have the sum 1, and are noisy if a target has few labels. "
    "best_single: for each target its best stage. "
    "Of two similar stages neither may have a gain: drop one at a time. "
    "seconds: of all jobs together, without features that are computed once for all."
)


class Answers(NamedTuple):
    """Scores on the answers to the test table.

    Attributes:
        scores: file of a submission -> target -> score, first the score of all targets; empty without
            answers.
        notes: sentences about rows that are in no score.
    """

    scores: dict[str, dict[str, float]]
    notes: list[str]

    def score(self, file: str) -> float | None:
        """Return the score of a submission on all targets; None without answers."""
        return next(iter(self.scores[file].values())) if self.scores else None


def gain(run: Run, this: float | None, other: float | None = 0.0) -> float | None:
    """Return by how much a score is better than another, above 0; None if one of them is unknown."""
    return None if this is None or other is None else run.columns.gain(this - other)


def load_answers(run: Run) -> Answers:
    """Score the submissions of all stages and candidates on the answers, if there is a table of them."""
    competition = run.config.competition
    file = competition.answers
    if file is None or not file.exists() or run.is_unscored:
        return Answers({}, [])
    ids = list(read_table(run.paths.sample)[competition.id])
    rows = np.arange(len(ids))
    scores = {}
    try:
        answers = read_answers(competition, file)
        y = answers.reindex(ids).to_numpy()
        scorer = Scorer(
            metric=run.metric,
            task=run.task,
            y=y,
            folds=0 * rows,
            groups=rows,
            ids=ids,
            rows=raw_rows_for(run.metric, file, competition.id, ids),
        )
        for record in [*run.choice.stages.values(), *run.choice.candidates.values()]:
            scores[record.file] = scorer.target_scores(submitted_rows(run, record.file))
    except (ConfigError, DataError) as error:  # such as a cell that is no label
        return Answers({}, [f"WARNING: test labels not scored: {error}"])
    notes = []
    n_without = len({*ids} - {*answers.index})
    if n_without:
        notes.append(f"{n_without} of {len(ids)} test rows have no label and are not scored.")
    n_unlabelled = np.isnan(y).all(axis=1).sum() - n_without
    if n_unlabelled:
        notes.append(f"{n_unlabelled} test labels are missing or censored and not scored.")
    return Answers(scores, notes)


def submitted_rows(run: Run, file: str) -> Array:
    """Return what the metric scores of a submission, (n_rows of the sample, n_scored)."""
    return from_submission_columns(run.task, read_text_table(run.folder / file))


def read_answers(competition: CompetitionConfig, file: Any) -> pd.DataFrame:
    """Return the labels in a table of answers, indexed by id.

    Its columns have the names of the targets, or of the columns of the sample.
    """
    task = competition.task
    table = read_table_with_ids(file, [competition.id])
    if not {*task.targets} <= {*table} and not task.has_column_per_class:
        table = table.rename(columns=dict(zip(task.columns_in_sample, task.targets, strict=True)))
    require_columns(table, task.targets, file)
    names = {*task.classes, *task.written_classes}
    if names and "-1" not in names:  # Kaggle: a row that was not scored
        table = table.assign(**table[task.targets].replace({"-1": "", "-1.0": ""}))
    cells = table[task.targets].map(class_name)
    are_of_sample = class_numbers(pd.Series(cells.to_numpy().ravel()), task.classes)[1].any()
    if competition.labels_in_sample and not competition.holdout_of and are_of_sample:
        class_of = dict(zip(task.written_classes, task.classes, strict=True))
        table = table.assign(**cells.replace(class_of))
    labels = parse_labels(table, competition.targets, competition, file).table
    return labels[competition.targets].set_axis(table[competition.id])


def score_overview(run: Run, answers: Answers) -> list[Element]:
    """Return a chart of the scores of all stages, with their weights, and of all candidates."""
    of_one_target = len(run.task.targets) == 1  # others have weights of different meaning
    weights = pd.DataFrame(run.weights).mean(axis=1) if of_one_target else pd.Series(dtype=float)
    rows = []
    for kind, records in (("stage", run.choice.stages), ("candidate", run.candidates)):
        for name, record in records.items():
            label = f"{name} ({weights[name]:.2f})" if kind == "stage" and name in weights else name
            test_score = answers.score(record.file)
            rows.append({**dict(record), "name": label, "kind": kind, "test_score": test_score})
    table = pd.DataFrame(rows)
    table.loc[(table["kind"] == "candidate") & (table["name"] == run.chosen), "kind"] = "submission"
    weighted = f"the base of {run.chosen}" if run.chosen == LIGHTGBM_STACK else "the submission"
    caption = (
        f"Cross-validated scores of stages{f', with their weight in {weighted},' if len(weights) else ''} "
        "and cross-fitted scores of candidates, "
        "± one standard error (the scores share their rows: compare by gain)"
        f"{f'; diamonds: {_name_of_test_score(run)}' if answers.scores else ''}"
    )
    return [Figure(caption, score_chart(table, run.metric))]


def _name_of_test_score(run: Run) -> str:
    """Return the name of scores on the answers, which `--holdout` has kept of the training table."""
    return "holdout_score" if run.config.competition.holdout_of else "test_score"


def score_section(run: Run, answers: Answers) -> list[Element]:
    """Return the scores of candidates, from simple to complex, and of all stages, with flags and notes."""
    choice = run.choice
    of_stages = [lines[0] for lines in _stage_lines(run, answers)]
    table = _table(run, [*_candidate_lines(run, answers), *of_stages])
    if len(run.task.targets) == 1:
        table = table.drop(columns="target")
    legend = LEGEND.format(
        chosen=f"the base of {run.chosen}" if run.chosen == LIGHTGBM_STACK else run.chosen,
        default=choice.default,
    )
    elements: list[Element] = [
        make_table(table), choice.reason, *run.manifest.remarks, legend, *answers.notes
    ]  # fmt: skip
    if run.plan.n_folds == 2:
        elements.append("With two folds, no fold is left for tuning, so the settings of blends are fixed.")
    n_without_fold = (run.columns.folds[: run.n_train_rows] < 0).sum()
    if n_without_fold:
        elements.append(f"{n_without_fold} training rows are never held out (fold -1) and never scored.")
    return [*elements, *_stage_notes(run)]


def target_section(run: Run, answers: Answers) -> list[Element]:
    """Return the scores and weights of all stages for each target; [] for one target."""
    if len(run.task.targets) == 1:
        return []
    lines = [
        {**line, NAME: of_stage[0][NAME]} for of_stage in _stage_lines(run, answers) for line in of_stage[1:]
    ]
    return [make_table(_table(run, lines).rename(columns={NAME: "stage"}))]


def _table(run: Run, lines: list[dict[str, str]]) -> pd.DataFrame:
    """Return lines as a table without empty columns."""
    table = pd.DataFrame(lines, columns=[*COLUMNS]).dropna(axis="columns", how="all").fillna("")
    return table.rename(columns={"test_score": _name_of_test_score(run)})


def fold_section(run: Run) -> list[Element]:
    """Return the number of held-out rows of each fold, and its scores of the submission and of all stages."""
    folds = sorted(run.columns.all_folds)
    rows = [(run.columns.folds == fold).sum() for fold in folds]
    table = pd.DataFrame({"fold": [*folds, "mean"], "rows": [*rows, ""]}).astype(str)
    targets = run.task.targets
    key = targets[0] if len(targets) == 1 else "all"
    for name, record in {run.chosen: run.choice.submitted, **run.choice.stages}.items():
        scores = pd.Series(record.fold_scores[key], dtype=float)
        table[name] = [*map(format_number, scores), format_with_error(scores.mean(), scores.std())]
    return [make_table(table), "mean: over the folds, +- their standard deviation."]


def time_line(run: Run) -> list[Element]:
    """Return a figure of when the jobs of this command ran; [] without the clock of the command."""
    if run.clock is None:
        return []
    started = time.time() - (time.monotonic() - run.clock.started)
    bars = []
    for job in run.plan.jobs:
        file = job.folder / REPORT
        end = file.stat().st_mtime - started
        seconds = read_json(file)["seconds"]
        if end > 0:  # others are of an earlier command
            bars.append((job.stage, (end - seconds) / 60, seconds / 60))
    caption = (
        "Jobs of this command that are in the submission, until this report was made. "
        "Before them tables were prepared; in gaps submissions were made, or jobs ran that did not finish"
    )
    return [Figure(caption, time_line_chart(bars, (time.time() - started) / 60))] if bars else []


def _lines(run: Run, answers: Answers, name: str, record: StageScores) -> list[dict[str, str]]:
    """Return the cells of a stage or candidate for all targets and, if there are several, for each."""
    targets = run.task.targets
    lines = []
    for target in targets if len(targets) == 1 else ["all", *targets]:
        score = format_number(record.target_scores[target])
        line = {"target": target, "score": score}
        if answers.scores:
            line["test_score"] = format_number(answers.scores[record.file][target])
        lines.append(line)
    lines[0] |= {NAME: name, "score": format_with_error(record.score, record.score_standard_error)}
    return lines


def _candidate_lines(run: Run, answers: Answers) -> list[dict[str, str]]:
    """Return a line for each candidate, and of the chosen one a line for each target."""
    lines = []
    for name, candidate in run.candidates.items():
        of_candidate = _lines(run, answers, name, candidate)
        of_candidate[0]["in_sample_score"] = format_number(candidate.in_sample_score)
        of_candidate[0]["flags"] = ", ".join(
            role for role in ("chosen", "default") if name == getattr(run.choice, role)
        )
        if name != run.choice.default:
            of_candidate[0]["gain"] = format_with_error(
                gain(run, candidate.difference), candidate.standard_error
            )
        lines += of_candidate if name == run.chosen else of_candidate[:1]
    return lines


def _stage_lines(run: Run, answers: Answers) -> list[list[dict[str, str]]]:
    """Return for each stage a line of all targets and, if there are several, one of each."""
    weights = pd.DataFrame(run.weights)  # a row per stage, a column per output
    if len(weights.columns) > len(run.task.targets):
        weights = weights.mean(axis=1).to_frame(*run.task.targets)
    lines = []
    for name in run.config.stages:
        of_stage = _lines(run, answers, name, run.choice.stages[name])
        for line in of_stage:
            if line["target"] in weights:
                line["weight"] = f"{round(weights[line['target']][name], 3) + 0.0:.3f}"  # no -0.000
        marks = run.manifest.stages[name].marks
        of_stage[0] |= {"seconds": f"{seconds_of_stage(run, name):.1f}", "flags": ", ".join(marks)}
        without = run.choice.ablation.get(name)
        if without:
            improvement = gain(run, 0.0, without.difference)  # with the stage against without it
            of_stage[0]["gain"] = format_with_error(improvement, without.standard_error)
        lines.append(of_stage)
    return lines


def seconds_of_stage(run: Run, name: str) -> float:
    """Return the seconds of all jobs of a stage."""
    return float(sum(read_json(job.folder / REPORT)["seconds"] for job in run.plan.jobs_of_stage(name)))


def stages_without_weight(run: Run) -> list[str]:
    """Return the stages with the weight 0 in the submission for each target; a stack reads all."""
    if run.chosen == LIGHTGBM_STACK:
        return []
    weights = pd.DataFrame(run.weights)  # a row per stage, a column per output; empty without weights
    is_idle = weights.abs().max(axis=1) < MIN_WEIGHT
    return [str(name) for name in is_idle.index[is_idle]]


def _stage_notes(run: Run) -> list[str]:
    """Return the meaning of the flags, and the notes of the stages."""
    used_flags = set(chain.from_iterable(stage.marks for stage in run.manifest.stages.values()))
    notes = [f"{flag}: {meaning}." for flag, meaning in FLAGS.items() if flag in used_flags]
    for name, stage in run.config.stages.items():
        notes += [f"{name}: {note}" for note in read_notes(run.plan.jobs_of_stage(name)[0].folder)]
        if run.task.classes and stage.dropout_note:
            notes.append(f"{name}: {stage.dropout_note}.")
    return notes


def weight_notes(run: Run) -> list[Element]:
    """Return a sentence for each of the weights of the stages: its licence, and which labels it has seen."""
    names = set(chain.from_iterable(stage.weight_names() for stage in run.config.stages.values()))
    return [
        f"{name}: {'. '.join(filter(None, [WEIGHT_SETS[name].licence, describe_labels(name)]))}."
        for name in sorted(names & {*WEIGHT_SETS})
    ]


def class_section(run: Run) -> list[Element]:
    """Return precision, recall and F1 per class or target, class shares, thresholds and confusions."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    task = run.task
    predicted = labels(run)
    label_arrays = {}
    if task.scores_labels:
        submitted = submitted_rows(run, SUBMISSION_FILE)
        y_train = run.columns.y[: run.n_train_rows]
        label_arrays = {"share in training": y_train, "out of fold": predicted, "on test": submitted}
    parts = []
    for t, target in enumerate(task.targets):
        y = run.columns.y[:, t]
        is_labelled = np.isfinite(y) & np.isfinite(predicted[:, t])
        truth = y[is_labelled]
        label = predicted[is_labelled, t]
        precision, recall, f1, n_rows = precision_recall_fscore_support(
            truth, label, labels=range(len(task.classes)), zero_division=np.nan
        )
        part = pd.DataFrame({"rows": n_rows.astype(str), "precision": precision, "recall": recall, "F1": f1})
        part.insert(0, "class", task.classes)
        for title, values in label_arrays.items():
            shares = pd.Series(values[:, t]).value_counts(normalize=True)
            part[title] = shares.reindex(range(len(task.classes)), fill_value=0.0)
        if len(task.targets) > 1:
            part = part[1:].assign(**{"class": target})
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    how = "" if task.scores_labels else ": the most probable class"
    sentences = [f"Out-of-fold labels of the training rows{how}."]
    if task.scores_labels:
        thresholds, explanation = _thresholds(run)
        table["threshold"] = pd.Series(thresholds, table.index[-len(thresholds) :])
        sentences.append(explanation)
    elements: list[Element] = [make_table(table, "{:.3f}"), *sentences]
    if len(task.targets) == 1:
        matrix = confusion_matrix(truth, label, labels=range(len(task.classes)), normalize="true")
        caption = "Confusion matrix: shares of the predicted classes (columns) per true class (rows)"
        shares_of_classes = pd.DataFrame(matrix, task.classes, task.classes)
        elements.append(Figure(caption, heat_map(shares_of_classes, 0.0, "Blues", "{:.0%}")))
    return elements


def _thresholds(run: Run) -> tuple[list[float | None], str]:
    """Return the thresholds of the submission, and the gain of tuning them as a sentence."""
    task = run.task
    chosen = run.choice.submitted
    default_score = run.columns.score(task.default_labels(predictions(run)))
    meaning = THRESHOLDS.get(task.problem_type, "probability from which a row gets the class")
    return chosen.thresholds, (
        f"threshold: {meaning}. "
        f"The labels of {run.chosen} score {format_number(default_score)} without tuning, "
        f"and {format_number(chosen.score)} with thresholds tuned without each row's fold."
    )
