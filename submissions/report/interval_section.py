"""Section of the report about st_rae: scores without errors inside the intervals of labels."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from competition.clean import read_table_with_ids
from competition.files import read_table
from competition.intervals import Intervals, read_intervals
from competition.metrics import METRICS
from competition.types import Array
from submissions.blend.selection_rule import SelectionRule, score_per_target, standard_error
from submissions.report.elements import Element, make_table
from submissions.report.score_sections import read_answer_table, test_predictions
from submissions.run import STAGES, SUBMISSION_FILE, Run, scored_rows
from submissions.selection import selection_rule

RAE = METRICS["rae"]


def interval_section(run: Run) -> list[Element]:
    """Return st_rae of the submission and of each stage, on held-out rows and on the answers.

    There are no elements without `competition.intervals`.
    """
    competition = run.config.competition
    if not competition.intervals:
        return []
    raw = read_table_with_ids(competition.train, [competition.id])
    intervals = read_intervals(raw, competition, competition.train)
    intervals = _in_order(intervals, list(raw[competition.id]), run.stage_predictions.ids)
    test_scores = _scores_on_answers(run)
    targets = run.task.targets if len(run.task.targets) > 1 else []
    rule = replace(selection_rule(run), metric=RAE)
    rows = []
    for name, y_pred in _held_out_predictions(run):
        moved = intervals.move_to_labels(y_pred)
        rows.append(
            [name, rule.score(moved), standard_error(rule, moved), *_per_target(rule, moved, targets)]
        )
        if test_scores:
            rows[-1].append(test_scores[name])
    header = ["file or stage", "st_rae", "standard_error", *targets, *(["answers"] if test_scores else [])]
    explanation = (
        "st_rae: relative absolute error without errors inside the intervals of the labels, the mean over targets, "
        f"on held-out rows. Training, blend and selection use {run.metric.name}, and so does expected_score."
    )
    elements: list[Element] = [make_table(header, rows), explanation]
    if test_scores is None and _answers_file(run):
        elements.append("The answers have no columns with intervals, so that st_rae on them is unknown.")
    return elements


def _held_out_predictions(run: Run) -> Iterator[tuple[str, Array]]:
    """Yield the name and the cross-fitted predictions (n_rows, n_targets) of the submission and each stage."""
    ids = run.stage_predictions.ids
    submission = scored_rows(run.folder, run.task).reindex(index=ids, columns=run.task.scored_columns)
    yield SUBMISSION_FILE, submission.to_numpy()
    stages = read_table(run.folder / STAGES).set_index("id").loc[ids]
    for stage in run.config.stages:
        yield f"stage {stage}", stages[[f"{stage} {name}" for name in run.task.scored_columns]].to_numpy()


def _per_target(rule: SelectionRule, moved: Array, targets: list[str]) -> list[float]:
    rows = rule.has_fold
    return score_per_target(RAE, rule.y[rows], moved[rows]) if targets else []


def _answers_file(run: Run) -> Path | None:
    file = run.config.competition.answers
    return file if file is not None and file.exists() else None


def _scores_on_answers(run: Run) -> dict[str, float] | None:
    """Return the st_rae of each file and stage on the answers; None if there are no answers with intervals."""
    competition = run.config.competition
    file = _answers_file(run)
    if file is None:
        return None
    table = read_answer_table(competition, file)
    if not {name for ends in competition.intervals.values() for name in ends} <= {*table}:
        return None
    ids, predictions = test_predictions(run)
    intervals = _in_order(read_intervals(table, competition, file), list(table[competition.id]), ids)
    return {name: RAE(intervals.y, intervals.move_to_labels(y_pred)) for name, y_pred in predictions.items()}


def _in_order(intervals: Intervals, ids: list[str], new_ids: list[str]) -> Intervals:
    """Return the intervals of some ids, NaN for an id without a label."""

    def reorder(values: Array) -> Any:
        return pd.DataFrame(values, ids).reindex(new_ids).to_numpy()

    return Intervals(reorder(intervals.y), reorder(intervals.lower), reorder(intervals.upper))
