"""What a run found, gathered once as sections; report.md has the brief ones, the page has all.

To add something to the report, add a part to a section here (`parts.py` has their kinds).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import yaml

from competition.clean import parse_numbers, read_named_rows, require_columns
from competition.files import read_json, read_table
from competition.metrics import Array
from competition.paths import shown
from competition.prepare import describe as describe_tables
from competition.tables import own_rows
from models.jobs.plan import REPORT
from models.stage import read_notes
from models.stages.file import FOLD_MARKS
from submissions.blend.crossfit import score_per_target
from submissions.blend.stacks import STACKS
from submissions.report import figures
from submissions.report.parts import Card, Figure, Findings, Folded, Part, Section, Table, embedded
from submissions.run import (
    BLEND,
    BLEND_FILE,
    CHOICE,
    CROSS_FITTED,
    SPREAD_FILE,
    STACK,
    STACK_FILE,
    SUBMISSION_FILE,
    Run,
)  # fmt: skip
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
N_ROWS = 20
"""Worst and most uncertain rows that are shown."""
LONGEST_TEXT = 1500
"""Characters of a text that a card shows."""


def gather(run: Run) -> Findings:
    """All findings of a finished run; the answers are read here alone.

    Raises:
        DataError: if a step before this one has not run on the predictions as they are.
    """
    choice, blend = run.part(CHOICE), run.part(BLEND)
    if run.config.submissions.stack:
        run.part(STACK)
    sign = 1 if run.metric.greater_is_better else -1
    chosen, whole = choice["chosen"], choice["procedure"]
    in_sample = run.candidates[chosen]["in_sample_score"]
    known = None not in (in_sample, whole["cross_fitted_score"])
    score = with_error(whole["cross_fitted_score"], whole["standard_error"])
    facts = {
        "cross_fitted_score": (score, "of the submission, +- its standard error: the score to expect"),
        "in_sample_score": (number(in_sample), f"of {chosen}, on the rows it was fitted on"),
        "optimism": (
            number(sign * (in_sample - whole["cross_fitted_score"]) if known else None),
            "by which the in-sample score looks better",
        ),
    }
    for key, words in (("best_single", "the best single stage"), ("previous_run", "the previous run")):
        part = choice["against"][key]
        if part and part["difference"] is not None:
            gain = with_error(sign * part["difference"], part["standard_error"])
            facts[f"gain over {words}, {part['name']}"] = (gain, "paired; above 0 is better")
    held_out_of = run.config.competition.holdout_of
    (answers, unknown), answers_name = _answers(run), f"holdout_score on rows of {held_out_of}"
    if not held_out_of:
        answers_name = "Score on the answers"
    if answers:
        facts[answers_name] = (number(answers[SUBMISSION_FILE][0]), "on labels that nothing else has seen")
    cross_fitted = read_table(run.folder / CROSS_FITTED, ["id"]).set_index("id").loc[run.columns.ids].to_numpy()
    said = [f"{name}: {value}, {words}." for name, (value, words) in facts.items()]
    weighted = chosen if chosen in blend["candidates"] else f"the blend below {chosen}"
    sections = [
        Section("Tables", _tables(run), brief=True),
        Section("Stages", _stages(run, weighted), brief=True),
        Section("Candidates", [*_candidates(run, choice, sign), *said], brief=True),
        Section("Blend weights", [
            f"Weights in {weighted}.", _matrix("column", _weights(run)[run.task.targets], 3)
        ] if run.weights else []),
        Section("Without one stage", _drop_one(run, blend, sign), brief=True),
        Section("Post-processing", _postprocessing(choice["postprocessing"]), brief=True),
        Section(answers_name, [Table(["file or stage", *_names(run)], [
            [name, *map(number, scores)] for name, scores in answers.items()
        ]), *unknown] if answers else [], brief=True),
        Section("Predictions", [
            f"Out-of-fold predictions against the truth, at most {figures.MOST_POINTS} rows. submission: by weights "
            "and choices made without the row's fold.",
            Figure("Truth against prediction", embedded(figures.predictions(run, cross_fitted))),
        ]),
        Section("Errors between stages", _correlations(run)),
        Section("Learning curves", [
            Figure(f"{stage}: loss and learning rate by epoch", embedded(svg))
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
    direction = "greater is better" if run.metric.greater_is_better else "lower is better"
    to_submit = f"Submission: {shown(run.folder / SUBMISSION_FILE)}"
    if held_out_of:
        to_submit = f"Nothing to submit: these are training rows. ./run.sh full {held_out_of} predicts the test rows."
    return Findings(
        title=f"{run.paths.name}: {run.metric.name}, {direction}",
        about=f"run {run.name}, {run.plan.n_folds} folds",
        facts=facts,
        reason=choice["reason"],
        to_submit=to_submit,
        sections=[section for section in sections if section.parts],
    )


def _tables(run: Run) -> list[Part]:
    report = read_json(run.paths.prepare_report)
    dropped = {which: report[f"dropped_{which}_ids"] for which in ("train", "test")}
    return [
        *filter(None, describe_tables(report).splitlines()),
        *(Folded(f"{len(i)} {which} rows that cannot be read", ", ".join(i)) for which, i in dropped.items() if i),
    ]


def _scores(run: Run, y: Array, y_pred: Array) -> list[float]:
    """On all targets and, where there are several, on each."""
    several = len(run.task.targets) > 1
    of_targets = score_per_target(run.metric, y, y_pred) or [np.nan] * len(run.task.targets)
    return [run.metric(y, y_pred), *(of_targets if several else [])]


def _names(run: Run) -> list[str]:
    """What the scores of `_scores` are on."""
    targets = run.task.targets
    return [ALL, *targets] if len(targets) > 1 else targets


def _stages(run: Run, weighted: str) -> list[Part]:
    """Each stage on all targets and, where there are several, on each; what marks mean, and notes of the stages."""
    columns, folds, names = run.columns, run.columns.folds, _names(run)
    weights = _weights(run).groupby(columns.stage_of.get).sum()
    marks = {stage["name"]: stage["marks"] for stage in run.stored["stages"]}
    rows, by_stage, notes = [], {}, []
    for stage in run.config.stages:
        jobs, y_pred = run.plan.of(stage), columns.oof_of(stage)
        cv_scores = _scores(run, columns.y[folds >= 0], y_pred[folds >= 0])
        by_fold = [_scores(run, columns.y[folds == fold], y_pred[folds == fold]) for fold in range(run.plan.n_folds)]
        by_stage[stage] = [scores[0] for scores in by_fold]
        seconds = f"{sum(read_json(job.folder / REPORT)['seconds'] for job in jobs):.1f}"
        for i, (name, score, *of_folds) in enumerate(zip(names, cv_scores, *by_fold, strict=True)):
            weight = f"{weights.loc[stage, name]:.3f}" if name in weights else ""
            first, *last = ["", "", ""] if i else [stage, seconds, ", ".join(marks[stage])]
            rows.append([first, name, number(score), mean_and_deviation(of_folds), weight, *last])
        notes += [f"{stage}: {note}" for note in read_notes(jobs[0].folder)]
    used, n_own = {mark for found in marks.values() for mark in found}, len(own_rows(read_table(run.paths.train)))
    unscored = int((folds[:n_own] < 0).sum())  # extra rows stand behind them
    return [
        Table(["stage", "target", "cv_score", "fold_scores", "weight", "seconds", "marks"], rows),
        Figure("Scores of the folds", embedded(figures.fold_scores(by_stage, run.metric.name))),
        f"fold_scores: mean +- standard deviation. weight: in {weighted}, which was chosen.",
        *([f"{unscored} training rows are in no held-out fold (fold -1): no score is about them."] if unscored else []),
        *(f"{line}." for line in run.left_out),
        *(f"{mark}: {words}." for mark, words in MARKS.items() if mark in used),
        *notes,
    ]


def _candidates(run: Run, choice: dict[str, Any], sign: int) -> list[Part]:
    """Scores of all candidates from simple to complex, and of the submission."""
    rows, same = [], {*choice["same_as_default"]} & {*STACKS}
    for name, part in run.candidates.items():
        compared = choice["candidates"].get(name, {})
        is_default, gain = name == choice["default"], compared.get("difference")
        words = ["chosen"] * (name == choice["chosen"]) + ["default"] * is_default + ["no correction"] * (name in same)
        has_gain = gain is not None and not is_default and name not in same
        gains = [number(sign * gain + 0.0), number(compared["standard_error"])] if has_gain else ["", ""]
        scores = [number(part["in_sample_score"]), number(part["cross_fitted_score"])]
        rows.append([name, *scores, *gains, ", ".join(words)])
    rows.append([SUBMITTED, "", number(choice["procedure"]["cross_fitted_score"]), "", "", ""])
    without = choice["procedure"]["chosen_without_fold"]
    counts = ", ".join(f"{name} in {without.count(name)} of {len(without)} folds" for name in dict.fromkeys(without))
    said = [
        choice["reason"],
        "in_sample_score: weights and score on the same rows, optimistic. cross_fitted_score: each row by weights, "
        "scaling and tuning fitted without its fold. gain: over the default, above 0 is better.",
        "The row submission scores the whole procedure: candidate and post-processing are chosen again without each "
        f"fold. That chose {counts}.",
    ]
    if any(name != choice["chosen"] for name in without):
        said.append(
            f"The choice is not the same without each fold, so the score to expect is not that of {choice['chosen']}."
        )
    if run.plan.n_folds == 2:
        said.append(
            "Two folds: without one of them a single fold is left, on which nothing can be tuned, so the convex blend "
            "stands in for every tuned one in its cross_fitted_score. Three folds show more."
        )
    if same:
        said.append(
            "no correction: fitted on all rows, the stack corrects nothing and is the default blend, so it cannot be "
            "chosen. Its cross_fitted_score is that of the stacks fitted without one fold each."
        )
    return [Table(["candidate", "in_sample_score", "cross_fitted_score", "gain", "standard_error", ""], rows), *said]


def _drop_one(run: Run, blend: dict[str, Any], sign: int) -> list[Part]:
    without = {stage: blend["drop_one"][stage] for stage in run.config.stages if stage in blend["drop_one"]}
    rows = [
        [stage, number(part["cross_fitted_score"]), number(-sign * part["difference"]), number(part["standard_error"])]
        for stage, part in without.items()  # stored as without minus with
    ]
    said = f"cross_fitted_score of {blend['default']}, refitted without the stage. gain: above 0, the stage helps."
    return [Table(["stage", "score without it", "gain with it", "standard_error"], rows), said] if rows else []


def _postprocessing(steps_of: dict[str, list[dict[str, Any]]]) -> list[Part]:
    tried = [(target, step) for target, steps in steps_of.items() for step in steps]
    rows = [
        [target, step["step"], number(step["score_without"]), number(step["score_with"])]
        for target, step in tried
        if step["kept"]
    ]
    left_out = ", ".join(sorted({step["step"] for _, step in tried} - {row[1] for row in rows}))
    return [
        *([Table(["target", "step", "score without", "score with"], rows)] if rows else []),
        *([f"Left out for all targets, since the score does not clearly gain: {left_out}."] if left_out else []),
    ]


def _answers(run: Run) -> tuple[dict[str, list[float]], list[str]]:
    """The scores of the files and of each stage alone on the labels of the test rows; and what lacks a label."""
    competition, columns, task = run.config.competition, run.columns, run.task
    if competition.answers is None or not competition.answers.exists():
        return {}, []
    labels = read_named_rows(competition.answers, [competition.id])
    names, ids = task.targets, read_table(run.paths.sample)[competition.id]
    if not {*names} <= {*labels}:
        names = task.columns_in_sample
    require_columns(labels, names, competition.answers)
    numbers = {name: parse_numbers(labels, name, competition.id, competition.answers) for name in names}
    n_unknown = len({*ids} - {*labels[competition.id]})
    unknown = [f"{n_unknown} of {len(ids)} rows have no answer and are in no score."] if n_unknown else []
    y = pd.DataFrame(numbers).set_axis(labels[competition.id]).reindex(ids).to_numpy()
    files = [BLEND_FILE, *([STACK_FILE] if run.config.submissions.stack else []), SUBMISSION_FILE]
    tables = {file: read_table(run.folder / file, [competition.id])[task.columns_in_sample] for file in files}
    filling = dict(enumerate(columns.label_means))  # of rows that could not be read
    for stage in run.config.stages:
        tables[f"stage {stage}"] = pd.DataFrame(columns.test_of(stage), columns.test_ids).reindex(ids).fillna(filling)
    return {name: _scores(run, y, table.to_numpy()) for name, table in tables.items()}, unknown


def _weights(run: Run) -> pd.DataFrame:
    """The weight of each column (its index) for each target; no target where the chosen candidate has no weights."""
    return pd.DataFrame(run.weights, run.columns.names)


def _matrix(what: str, values: pd.DataFrame, digits: int) -> Table:
    """Numbers with names of rows and columns."""
    cells = values.map(f"{{:.{digits}f}}".format).to_numpy().tolist()
    return Table([what, *map(str, values)], [[str(name), *row] for name, row in zip(values.index, cells, strict=True)])


def _correlations(run: Run) -> list[Part]:
    """Pearson's correlation between the out-of-fold errors of columns, a table for each target."""
    columns = run.columns
    if len(columns.names) < 2:
        return []
    said = "Pearson's correlation of the out-of-fold errors: the lower, the more two columns add to each other."
    parts: list[Part] = [said]
    for t, target in enumerate(run.task.targets):
        found = pd.DataFrame(columns.oof[:, :, t] - columns.y[:, [t]], columns=columns.names).corr()
        rows = zip(columns.names, found.to_numpy(), strict=True)
        parts.append(
            Table([target, *columns.names], [[name, *(f"{value:.2f}" for value in row)] for name, row in rows])
        )
    return parts


def _folds(run: Run) -> list[Part]:
    """Size and labels of each fold, and what `./run.sh folds` left."""
    targets, shift = run.task.targets, run.paths.shift
    rows, labels = [], pd.DataFrame(run.columns.y)
    for fold in np.unique(run.columns.folds):
        y, name = labels[run.columns.folds == fold], str(fold) if fold >= 0 else "-1: in training alone"
        rows.append([name, str(len(y)), *map(with_error, y.mean(), y.std(ddof=0))])
    parts: list[Part] = [Table(["fold", "rows", *(f"{name}, mean +- sd" for name in targets)], rows)]
    if not shift.exists():
        return [*parts, "./run.sh folds shows whether held-out rows are like test rows; it has not been run."]
    stored = read_json(shift)
    if not stored["made_from"].items() <= run.stored["tables"].items():
        parts.append("Of other tables or folds than those of this run: run ./run.sh folds again.")
    parts.append(f"Recommended folds: {stored['recommended']['kind']}: {stored['recommended']['reason']}.")
    if stored["adversarial"]:
        auc = with_error(stored["adversarial"]["auc"], stored["adversarial"]["standard_deviation"])
        parts.append(f"Adversarial validation: AUC {auc} over folds; at 0.5 train and test cannot be told apart.")
    return [*parts, *(Figure(file.stem, embedded(file.read_bytes())) for file in sorted(shift.parent.glob("*.png")))]


def worst_rows(run: Run, cross_fitted: Array) -> list[Card]:
    """The rows with the largest residual, in standard deviations of the target's labels.

    Args:
        cross_fitted: (n_rows, n_outputs), of the submission.
    """
    columns, competition = run.columns, run.config.competition
    with np.errstate(divide="ignore", invalid="ignore"):
        residuals = (columns.y - cross_fitted) / np.nanstd(columns.y[columns.folds >= 0], axis=0)
    largest = np.where(np.isfinite(residuals), np.abs(residuals), -1.0).max(axis=1)
    order = np.argsort(-largest, kind="stable")[:N_ROWS]
    table, cards = read_table(run.paths.train), []
    for rank, i in enumerate(order[largest[order] >= 0], start=1):
        row = table.iloc[i]
        errors = [
            [target, number(columns.y[i, t]), number(cross_fitted[i, t]), number(residuals[i, t])]
            for t, target in enumerate(run.task.targets)
        ]
        cards.append(Card(
            f"{rank}. {columns.ids[i]}, fold {columns.folds[i]}",
            {row[name]: embedded(figures.molecule(row[name])) for name in competition.smiles},
            {name: row[name][:LONGEST_TEXT] for name in competition.text},
            ", ".join(f"{name} {row[name]}" for name in [*competition.numeric, *competition.categorical]),
            Table(["target", "truth", "prediction", "residual (sd)"], errors),
        ))  # fmt: skip
    return cards


def uncertain_rows(run: Run) -> list[Part]:
    """Test rows on which the models of seeds and folds disagree most, in standard deviations of the target's labels."""
    path, id_column = run.folder / SPREAD_FILE, run.config.competition.id
    if not path.exists():
        return []
    deviations = read_table(path, ["id"]).set_index("id")[run.task.outputs]
    submitted = read_table(run.folder / SUBMISSION_FILE, [id_column]).set_index(id_column)[run.task.columns_in_sample]
    of_labels = np.nanstd(run.columns.y[run.columns.folds >= 0], axis=0)
    first = (deviations / of_labels).max(axis=1).nlargest(N_ROWS).index  # a row that could not be read has none
    rows = [[str(i), *map(with_error, submitted.loc[i], deviations.loc[i])] for i in first]
    said = "Test rows on which the models of different seeds and folds disagree most: prediction +- standard deviation."
    return [said, Table(["id", *run.task.targets], rows)]
