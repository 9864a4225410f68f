"""What a run found, gathered once as sections; report.md has the brief ones, the page has all.

To add something to the report, add a part to a section here (`parts.py` has their kinds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml

from competition.clean import parse_numbers
from competition.errors import DataError
from competition.files import read_json, read_table, read_text_table
from competition.paths import shown
from competition.prepare import describe as describe_tables
from models.jobs.plan import REPORT
from models.notes import read_notes
from models.stages.file import FOLD_MARKS
from submissions.blend.crossfit import score_per_target
from submissions.blend.stacks import STACKS
from submissions.report import figures
from submissions.report.parts import Figure, Folded, Part, Section, Table
from submissions.report.rows import uncertain_rows, worst_rows
from submissions.run import BLEND, BLEND_FILE, CHOICE, CROSS_FITTED, STACK, STACK_FILE, SUBMISSION_FILE, Run
from submissions.sample import submission_table
from submissions.words import mean_and_deviation, number, with_error

ALL, SUBMITTED = "all", "submission"
MARKS = {
    "optimistic": "the epoch was chosen on the fold that is scored (keep: best_on_held_out)",
    "saw test inputs": "trained on the inputs of held-out and test rows, not on labels (pretrain_on: all_inputs)",
    "other code": "made by other code than today's (--reuse)",
    "pseudo-labels": "trained on test rows with predictions of other stages as labels, fold by fold",
    "refit": "predicts test rows by models of all rows (final_fit), which no held-out row scores; cv_score: folds",
    **FOLD_MARKS,
}


@dataclass(frozen=True)
class Findings:
    """All that is said about a run.

    facts: name -> value and what it is, for the head of the page.
    to_submit: the file to submit, in words.
    """

    title: str
    about: str
    facts: dict[str, tuple[str, str]]
    reason: str
    to_submit: str
    sections: list[Section]


def gather(run: Run) -> Findings:
    """All findings of a finished run; the answers are read here alone.

    Raises:
        DataError: if a step before this one has not run on the predictions as they are.
    """
    choice, blend = run.part(CHOICE), run.part(BLEND)
    if run.config.submissions.stack:
        run.part(STACK)
    sign = 1 if run.metric.greater_is_better else -1
    chosen, expected = choice["chosen"], choice["procedure"]["cross_fitted_score"]
    in_sample = run.candidates[chosen]["in_sample_score"]
    optimism = None if in_sample is None or expected is None else sign * (in_sample - expected)
    cross_fitted = (
        read_table(run.folder / CROSS_FITTED, ["id"]).set_index("id").loc[run.columns.ids].to_numpy(dtype=np.float64)
    )
    against = {
        f"{words} {part['name']}": (sign * part["difference"], part["standard_error"])
        for key, words in (("best_single", "the best single stage,"), ("previous_run", "the previous run,"))
        if (part := choice["against"].get(key)) and part["difference"] is not None
    }
    answers = _answers(run)
    held_out_of = run.config.competition.holdout_of
    answers_name = f"holdout_score on rows of {held_out_of}" if held_out_of else "Score on the answers"
    score = with_error(expected, choice["procedure"]["standard_error"])
    facts = {
        "cross_fitted_score": (score, "of the submission, +- its standard error: the score to expect"),
        "in_sample_score": (number(in_sample), f"of {chosen}, on the rows it was fitted on"),
        "optimism": (number(optimism), "by which the in-sample score looks better"),
    }
    facts |= {f"gain over {name}": (with_error(*gain), "paired; above 0 is better") for name, gain in against.items()}
    if answers:
        facts[answers_name] = (number(answers[SUBMISSION_FILE][0]), "on labels that nothing else has seen")
    lines = [
        choice["reason"],
        "in_sample_score: weights and score on the same rows, optimistic. cross_fitted_score: each row by weights, "
        "scaling and tuning fitted without its fold; for the submission the choice of candidate and post-processing "
        f"was made without its fold, too ({_counts(choice)}): the score to expect. gain: over the default, above 0 is "
        "better.",
        f"Expected: {score} (standard error of the score); {chosen} in sample {number(in_sample)}, optimism "
        f"{number(optimism)}.",
        *(f"Gain over {name}: {with_error(*gain)}." for name, gain in against.items()),
    ]
    if run.plan.n_folds == 2:
        lines.append(
            "Two folds: without one of them a single fold is left, on which nothing can be tuned, so the convex blend "
            "stands in for every tuned one in its cross_fitted_score. Three folds show more."
        )
    sections = [
        Section("Tables", _tables(run), brief=True),
        Section("Stages", _stages(run, chosen, blend), brief=True),
        Section("Candidates", [_candidates(run, choice, sign), *lines, *_same_as_default(choice)], brief=True),
        Section("Blend weights", [Figure(f"Weights in {_weights_of(chosen, blend)}", figures.weights(run))]),
        Section("Without one stage", _drop_one(blend, sign), brief=True),
        Section("Post-processing", _postprocessing(choice["postprocessing"]), brief=True),
        Section(answers_name, _answers_table(run, answers), brief=True),
        Section("Predictions", [
            f"Out-of-fold predictions against the truth, at most {figures.MOST_POINTS} rows. submission: by weights "
            "and choices made without the row's fold.",
            Figure("Truth against prediction", figures.predictions(run, cross_fitted)),
            Figure("What is left", figures.residuals(run, cross_fitted)),
        ]),
        Section("Errors between stages", [] if len(run.columns.names) < 2 else [
            "Pearson's correlation of the out-of-fold errors: the lower, the more two stages add to each other.",
            Figure("Correlation of the errors", figures.correlations(run)),
        ]),
        Section("Learning curves", [
            Figure(f"{stage}: loss and learning rate by epoch", svg)
            for stage in run.config.stages if (svg := figures.learning_curves(run, stage))
        ]),
        Section("Folds", _folds(run)),
        Section("Worst rows", [
            "Training rows with the largest error of the submission's out-of-fold prediction, in standard deviations "
            "of the target's labels: wrong labels and unusual inputs are often among them.",
            *worst_rows(run, cross_fitted),
        ]),
        Section("Uncertain test rows", uncertain_rows(run)),
        Section("Settings and versions", [
            Folded("The resolved YAML", yaml.safe_dump(run.stored["config"], sort_keys=False, allow_unicode=True)),
            Table(["package", "version"], [[name, found] for name, found in run.stored["versions"].items()]),
        ]),
    ]  # fmt: skip
    direction = "greater is better" if run.metric.greater_is_better else "less is better"
    return Findings(
        title=f"{run.paths.name}: {run.metric.name}, {direction}",
        about=f"run {run.name}, {run.plan.n_folds} folds",
        facts=facts,
        reason=choice["reason"],
        to_submit=f"Submission: {shown(run.folder / SUBMISSION_FILE)}"
        if held_out_of is None
        else f"Nothing to submit: these are training rows of {held_out_of}. ./run.sh full {held_out_of} predicts its "
        "test rows.",
        sections=[section for section in sections if section.parts],
    )


def _counts(choice: dict[str, Any]) -> str:
    """In how many folds each candidate was chosen, in words."""
    without = choice["procedure"]["chosen_without_fold"]
    return ", ".join(f"{name} in {without.count(name)} of {len(without)} folds" for name in sorted(set(without)))


def _weights_of(chosen: str, blend: dict[str, Any]) -> str:
    return chosen if chosen in blend["candidates"] else f"the blend below {chosen}"


def _tables(run: Run) -> list[Part]:
    report = read_json(run.paths.prepare_report)
    parts: list[Part] = [line for line in describe_tables(report).splitlines() if line]
    for which in ("train", "test"):
        ids = report[f"dropped_{which}_ids"]
        if ids:
            parts.append(Folded(f"{len(ids)} {which} rows that cannot be read", ", ".join(ids)))
    return parts


def _stages(run: Run, chosen: str, blend: dict[str, Any]) -> list[Part]:
    """Each stage on all targets and, where there are several, on each; what marks mean, and notes of the stages."""
    columns, metric, targets = run.columns, run.metric, run.task.targets
    marks = {stage["name"]: stage["marks"] for stage in run.stored["stages"]}
    scored = columns.folds >= 0
    of_folds = [columns.folds == fold for fold in range(run.plan.n_folds)]
    rows, of_stage = [], {}
    for stage in run.config.stages:
        y_pred = columns.oof_of(stage)
        weight = {
            t: sum(w for name, w in found.items() if columns.stage_of[name] == stage)
            for t, found in run.weights.items()
        }
        seconds = sum(read_json(job.folder / REPORT)["seconds"] for job in run.plan.of(stage))
        of_stage[stage] = [metric(columns.y[fold], y_pred[fold]) for fold in of_folds]
        alone = len(targets) == 1
        cv_score = metric(columns.y[scored], y_pred[scored])
        rows.append([
            stage, targets[0] if alone else ALL, number(cv_score), mean_and_deviation(of_stage[stage]),
            f"{weight[targets[0]]:.3f}" if alone else "", f"{seconds:.1f}", ", ".join(marks[stage]),
        ])  # fmt: skip
        for t, target in enumerate([] if alone else targets):
            each = [metric.one(columns.y[fold, t], y_pred[fold, t]) for fold in of_folds] if metric.column else []
            score = metric.one(columns.y[scored, t], y_pred[scored, t]) if metric.column else None
            rows.append(["", target, number(score), mean_and_deviation(each), f"{weight[target]:.3f}", "", ""])
    header = ["stage", "target", "cv_score", "fold_scores", "weight", "seconds", "marks"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    used = {mark for found in marks.values() for mark in found}
    unscored = int((~scored).sum())
    notes = {stage: read_notes(run.plan.of(stage)[0].folder) for stage in run.config.stages}
    return [
        Table(header, rows),
        Figure("Scores of the folds", figures.fold_scores(run, of_stage)),
        f"fold_scores: mean +- standard deviation. weight: in {_weights_of(chosen, blend)}, which was chosen.",
        *([f"{unscored} training rows are in no held-out fold (fold -1): no score is about them."] if unscored else []),
        *(f"{line}." for line in run.left_out),
        *(f"{mark}: {words}." for mark, words in MARKS.items() if mark in used),
        *(f"{stage}: {note}" for stage, found in notes.items() for note in found),
    ]


def _candidates(run: Run, choice: dict[str, Any], sign: int) -> Table:
    """Scores of all candidates from simple to complex, and of the submission."""
    rows = []
    for name, part in run.candidates.items():
        part = part | choice["candidates"].get(name, {})
        is_default, is_same = name == choice["default"], name in choice.get("same_as_default", []) and name in STACKS
        compared = not is_default and not is_same and part.get("difference") is not None
        gain = [number(sign * part["difference"] + 0.0), number(part["standard_error"])] if compared else ["", ""]
        words = ["chosen"] * (name == choice["chosen"]) + ["default"] * is_default + ["no correction"] * is_same
        scores = [number(part["in_sample_score"]), number(part["cross_fitted_score"])]
        rows.append([name, *scores, *gain, ", ".join(words)])
    rows.append([SUBMITTED, "", number(choice["procedure"]["cross_fitted_score"]), "", "", ""])
    return Table(["candidate", "in_sample_score", "cross_fitted_score", "gain", "standard_error", ""], rows)


def _same_as_default(choice: dict[str, Any]) -> list[Part]:
    if not set(choice.get("same_as_default", [])) & set(STACKS):
        return []
    return [
        "no correction: the stack found nothing to correct on all rows, or corrected no held-out row, and is "
        "the default blend; its cross_fitted_score is that of the stacks without one fold each. It cannot be chosen."
    ]


def _drop_one(blend: dict[str, Any], sign: int) -> list[Part]:
    rows = [
        [stage, number(part["cross_fitted_score"]), number(-sign * part["difference"]), number(part["standard_error"])]
        for stage, part in blend["drop_one"].items()  # stored as without minus with
    ]
    said = f"cross_fitted_score of {blend['default']}, refitted without the stage. gain: above 0, the stage helps."
    return [Table(["stage", "score without it", "gain with it", "standard_error"], rows), said] if rows else []


def _postprocessing(steps_of: dict[str, list[dict[str, Any]]]) -> list[Part]:
    kept = [
        [target, step["step"], number(step["score_without"]), number(step["score_with"])]
        for target, steps in steps_of.items()
        for step in steps
        if step["kept"]
    ]
    tried = {step["step"] for steps in steps_of.values() for step in steps}
    left_out = ", ".join(sorted(tried - {row[1] for row in kept}))
    parts: list[Part] = [Table(["target", "step", "score without", "score with"], kept)] if kept else []
    if left_out:
        parts.append(f"Tried, and left out for all targets, since the score does not clearly gain: {left_out}.")
    return parts


def _answers(run: Run) -> dict[str, list[float]]:
    """Scores of the files and of each stage alone on the labels of the test rows: on all targets, then on each."""
    competition, metric = run.config.competition, run.metric
    if competition.answers is None or not competition.answers.exists():
        return {}
    labels = read_text_table(competition.answers)
    names = competition.targets if set(competition.targets) <= set(labels.columns) else run.task.columns_in_sample
    sample = read_table(run.paths.sample)
    ids = list(sample[competition.id])
    lacking = [name for name in [competition.id, *names] if name not in labels.columns]
    if lacking or labels[competition.id].duplicated().any() or not set(ids) <= set(labels[competition.id]):
        raise DataError(
            f"{competition.answers} must name every id of the sample once, with {', '.join(names)}; correct "
            "competition.answers or set it to null."
        )
    numbers = {name: parse_numbers(labels, name, competition.id, competition.answers) for name in names}
    y = pd.DataFrame(numbers).set_axis(labels[competition.id]).loc[ids].to_numpy(dtype=np.float64)
    files = [BLEND_FILE, *([STACK_FILE] if run.config.submissions.stack else []), SUBMISSION_FILE]
    tables = {file: read_text_table(run.folder / file) for file in files}
    for stage in run.config.stages:
        tables[f"stage {stage}"], _ = submission_table(
            sample, competition.id, run.task, run.columns.test_ids, run.columns.test_of(stage), run.columns.label_means
        )
    predicted = {name: table[run.task.columns_in_sample].to_numpy(dtype=np.float64) for name, table in tables.items()}
    return {name: [metric(y, y_pred), *score_per_target(metric, y, y_pred)] for name, y_pred in predicted.items()}


def _answers_table(run: Run, answers: dict[str, list[float]]) -> list[Part]:
    header = ["file or stage", ALL, *(run.task.targets if run.metric.column else [])]
    return [Table(header, [[name, *map(number, scores)] for name, scores in answers.items()])] if answers else []


def _folds(run: Run) -> list[Part]:
    """Size and labels of each fold, and what `./run.sh folds` left."""
    columns = run.columns
    rows = []
    for fold in np.unique(columns.folds):
        y = columns.y[columns.folds == fold]
        labels = [with_error(float(np.nanmean(part)), float(np.nanstd(part))) for part in y.T]
        rows.append([str(fold), str(len(y)), *labels])
    parts: list[Part] = [Table(["fold", "rows", *(f"{name}, mean +- sd" for name in run.task.targets)], rows)]
    shift = run.paths.shift
    if not shift.exists():
        return [*parts, "./run.sh folds shows whether held-out rows are like test rows; it has not been run."]
    stored = read_json(shift)
    now = run.stored["tables"]
    if any(now.get(file) != sha256 for file, sha256 in stored["made_from"].items()):
        parts.append("Of other tables or folds than those of this run: run ./run.sh folds again.")
    parts.append(f"Recommended folds: {stored['recommended']['kind']}: {stored['recommended']['reason']}.")
    if stored["adversarial"]:
        auc = with_error(stored["adversarial"]["auc"], stored["adversarial"]["standard_deviation"])
        parts.append(f"Adversarial validation: AUC {auc} over folds; at 0.5 train and test cannot be told apart.")
    return [*parts, *(Figure(file.stem, file=file) for file in sorted(shift.parent.glob("*.png")))]
