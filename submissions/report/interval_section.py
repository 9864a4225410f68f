"""Section of the report about st_rae: scores without errors inside the intervals of labels."""

from dataclasses import replace

import pandas as pd

from competition.clean import read_table_with_ids
from competition.intervals import Intervals, read_intervals
from competition.metrics import METRICS
from submissions.blend.selection_rule import score_per_target, standard_error
from submissions.report.elements import Element, make_table
from submissions.report.score_sections import answers_file, read_answer_table, test_predictions
from submissions.report.training_predictions import cross_fitted, scored_stages
from submissions.run import SUBMISSION_FILE, Run
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
    held_out = {SUBMISSION_FILE: cross_fitted(run)}
    held_out |= {f"stage {stage}": y_pred for stage, y_pred in scored_stages(run).items()}
    rows = []
    for name, y_pred in held_out.items():
        moved = intervals.move_to_labels(y_pred)
        rows.append([name, rule.score(moved), standard_error(rule, moved)])
        if targets:
            rows[-1] += score_per_target(RAE, rule.y[rule.has_fold], moved[rule.has_fold])
        if test_scores:
            rows[-1].append(test_scores[name])
    header = ["file or stage", "st_rae", "standard_error", *targets, *(["answers"] if test_scores else [])]
    explanation = (
        "st_rae: relative absolute error without errors inside the intervals of the labels, the mean over targets, "
        f"on held-out rows. Training, blend and selection use {run.metric.name}, and so does expected_score."
    )
    elements: list[Element] = [make_table(header, rows), explanation]
    if test_scores is None and answers_file(run):
        elements.append("The answers have no columns with intervals, so that st_rae on them is unknown.")
    return elements


def _scores_on_answers(run: Run) -> dict[str, float] | None:
    """Return the st_rae of each file and stage on the answers; None if there are no answers with intervals."""
    competition = run.config.competition
    file = answers_file(run)
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
    in_order = {
        name: pd.DataFrame(values, ids).reindex(new_ids).to_numpy()
        for name, values in vars(intervals).items()
    }
    return Intervals(**in_order)
