"""What a run found, gathered once as sections; report.md has the brief ones, the page has all.

To add something to the report, add a part to a section, or a section to the table in `build_report`
(`elements.py` has their kinds). Every section is made by a function of the run.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from competition.clean import parse_labels, read_table_with_ids, require_columns
from competition.config import CompetitionConfig
from competition.dataset import without_extra_rows
from competition.files import read_json, read_table, read_text_table
from competition.paths import display_path
from competition.prepare import describe as describe_tables
from competition.task import build_task, from_sample
from competition.types import Array
from competition.yaml_files import dump_yaml
from folds.class_shares import class_shares, missing_class_warnings
from folds.fold_files import time_ordered
from models.jobs.plan import REPORT
from models.neural_config import MultiSampleHead, NeuralConfig
from models.stage import read_notes
from models.stages.file import FOLD_MARKS
from submissions.blend.decision_rules import apply_decision
from submissions.blend.selection_rule import score_per_target
from submissions.blend.serialization import from_json
from submissions.blend.stacks import LIGHTGBM_STACK
from submissions.formatting import format_number, format_with_error, mean_and_std
from submissions.report import figures
from submissions.report.class_sections import probabilities, scores_by_class
from submissions.report.elements import Collapsible, Element, Figure, Report, Section, Table, make_table
from submissions.report.rows import worst_rows
from submissions.report.training_predictions import predictions
from submissions.run import (
    BLEND,
    BLEND_FILE,
    CHOICE,
    LEFT_OUT_HEADER,
    STACK_FILE,
    STAGES,
    SUBMISSION_FILE,
    Run,
    tracebacks,
)

MARKS = {
    "optimistic": "the epoch was chosen on the fold that is scored (keep: best_on_held_out)",
    "other code": "made by other code than today's (--reuse)",
    "pseudo-labels": "trained on test rows with predictions of other stages as labels, fold by fold",
    "refit": "predicts test rows by models of all rows (final_fit), which no held-out row scores; "
    "cv_score: folds",
    "class weights": "trained with weights of classes, which bend its probabilities",
    **FOLD_MARKS,
}
MOST_BRIEF = 24
"""Classes or labels up to which their scores stand in report.md, too."""


def build_report(run: Run) -> Report:
    """All findings of a finished run; the answers are read here alone."""
    facts, (answers, score), holdout_of = _facts(run), _answers(run), run.config.competition.holdout_of
    on_answers = f"holdout_score on rows of {holdout_of}" if holdout_of else "Score on the answers"
    if answers:
        facts[on_answers] = (format_number(score), "on labels that nothing else has seen")
    said = [f"{name}: {value}, {words}." for name, (value, words) in facts.items()]
    task = run.task
    sections = [
        Section("Left out", _left_out(run), brief=True),
        Section("Tables", _tables(run), brief=True),
        Section("Stages", _stages(run), brief=True),
        Section("Candidates", [*_candidates(run), *said], brief=True),
        Section("Without one stage", _drop_one(run), brief=True),
        Section("Post-processing", _postprocessing(run), brief=True),
        Section(on_answers, answers, brief=True),
        Section(
            "Scores by class",
            scores_by_class(run) if task.classes else [],
            brief=len(task.outputs) <= MOST_BRIEF,
        ),
        Section("Probabilities" if task.has_probabilities else "Predictions", _predictions(run)),
        Section("Errors between stages", _correlations(run)),
        Section("Learning curves", _learning_curves(run)),
        Section("Folds", _folds(run)),
        Section("Most confident mistakes" if task.has_probabilities else "Worst rows", worst_rows(run)),
        Section("Settings and versions", _settings(run)),
    ]
    direction = "greater is better" if run.metric.greater_is_better else "lower is better"
    to_submit = f"Submission: {display_path(run.folder / SUBMISSION_FILE)}"
    if holdout_of:
        to_submit = (
            f"Nothing to submit: these are training rows. ./run.sh full {holdout_of} predicts the test rows."
        )
    return Report(
        title=f"{run.paths.name}: {run.metric.name}, {direction}",
        about=f"run {run.name}, {run.plan.n_folds} folds",
        facts=facts,
        reason=run.stored[CHOICE]["reason"],
        to_submit=to_submit,
        sections=[section for section in sections if section.parts],
    )


def _gain(run: Run, this: float | None, other: float | None = 0.0) -> float | None:
    """By how much one score is better than another, above 0; None where one of them is not known."""
    if this is None or other is None:
        return None
    return this - other if run.metric.greater_is_better else other - this


def _facts(run: Run) -> dict[str, tuple[str, str]]:
    """Name -> value and what it is."""
    choice = run.stored[CHOICE]
    chosen, expected = choice["chosen"], choice["procedure"]["cross_fitted_score"]
    in_sample = run.candidates[chosen]["in_sample_score"]
    score = format_with_error(expected, choice["procedure"]["standard_error"])
    facts = {
        "cross_fitted_score": (score, "of the submission, +- its standard error: the score to expect"),
        "in_sample_score": (format_number(in_sample), f"of {chosen}, on the rows it was fitted on"),
        "optimism": (
            format_number(_gain(run, in_sample, expected)),
            "by which the in-sample score looks better",
        ),
    }
    for key, words in (("best_single", "the best single stage"), ("previous_run", "the previous run")):
        part = choice["against"][key]
        if part and part["difference"] is not None:
            gain = format_with_error(_gain(run, part["difference"]), part["standard_error"])
            facts[f"gain over {words}, {part['name']}"] = (gain, "paired; above 0 is better")
    return facts


def _left_out(run: Run) -> list[Element]:
    """Stages and seeds that are not in the submission, and why."""
    if not run.left_out:
        return []
    return [Table(LEFT_OUT_HEADER, [each.row for each in run.left_out]), *tracebacks(run.left_out)]


def _tables(run: Run) -> list[Element]:
    report = read_json(run.paths.prepare_report)
    parts: list[Element] = [*filter(None, describe_tables(report).splitlines())]
    for which in ("train", "test"):
        if ids := report[f"dropped_{which}_ids"]:
            parts.append(Collapsible(f"{len(ids)} {which} rows that cannot be read", ", ".join(ids)))
    return parts


def _scores(run: Run, y: Array, y_pred: Array) -> dict[str, float]:
    """The score on all targets and, where there are several, on each."""
    targets, score = run.task.targets, run.metric(y, y_pred)
    if len(targets) == 1:
        return {targets[0]: score}
    of_targets = score_per_target(run.metric, y, y_pred) or [np.nan] * len(targets)
    return {"all": score, **dict(zip(targets, of_targets, strict=True))}


def _stages(run: Run) -> list[Element]:
    """Each stage on all targets and, where there are several, on each; what marks mean, and notes of the
    stages.
    """
    columns, folds, decided = run.columns, run.columns.folds, read_table(run.folder / STAGES).set_index("id")
    weights = pd.DataFrame(run.weights, columns.names)  # for each output; none of a median or the like
    if len(weights.columns) > len(run.task.targets):
        weights = weights.mean(axis=1).to_frame(*run.task.targets)
    weights, chosen = weights.groupby(columns.stage_of.get).sum(), run.chosen
    weighted = f"the blend below {chosen}" if chosen == LIGHTGBM_STACK else chosen
    marks = {stage["name"]: stage["marks"] for stage in run.stored["stages"]}
    rows, notes = [], []
    for stage in run.config.stages:
        jobs, names = run.plan.jobs_of_stage(stage), [f"{stage} {name}" for name in run.task.scored_columns]
        y_pred = decided.loc[columns.ids, names].to_numpy()
        of_folds = [
            _scores(run, columns.y[own], y_pred[own]) for own in (folds == k for k in range(run.plan.n_folds))
        ]
        whole = _scores(run, columns.y[folds >= 0], y_pred[folds >= 0])
        seconds = sum(read_json(job.folder / REPORT)["seconds"] for job in jobs)
        first, *last = stage, f"{seconds:.1f}", ", ".join(marks[stage])
        for name, score in whole.items():
            weight = f"{weights[name][stage]:.3f}" if name in weights else ""
            rows.append([first, name, score, mean_and_std([each[name] for each in of_folds]), weight, *last])
            first, last = "", ["", ""]
        notes += [f"{stage}: {note}" for note in read_notes(jobs[0].folder)]
        if run.task.classes and isinstance(settings := run.config.stages[stage], NeuralConfig):
            rates = (
                settings.head.rates if isinstance(settings.head, MultiSampleHead) else settings.pooler_dropout
            )
            said = f"dropout {settings.backbone_dropout} in the backbone, {rates} before the last layer"
            notes.append(f"{stage}: {said}.")
    used = {mark for found in marks.values() for mark in found}
    unscored = (
        folds[: len(without_extra_rows(read_table(run.paths.train)))] < 0
    ).sum()  # extra rows stand behind them
    return [
        make_table(["stage", "target", "cv_score", "fold_scores", "weight", "seconds", "marks"], rows),
        f"fold_scores: mean +- standard deviation. weight: in {weighted}, which was chosen.",
        *(
            [f"{unscored} training rows are in no held-out fold (fold -1): no score is about them."]
            if unscored
            else []
        ),
        *(f"{mark}: {words}." for mark, words in MARKS.items() if mark in used),
        *notes,
    ]


def _candidates(run: Run) -> list[Element]:
    """Scores of all candidates from simple to complex, and of the submission."""
    choice = run.stored[CHOICE]
    chosen, default, without = choice["chosen"], choice["default"], choice["procedure"]["chosen_without_fold"]
    rows, same = [], {*choice["same_as_default"]} & {LIGHTGBM_STACK}
    ranked = [key for key in ("score_mean_over_folds",) if key in choice["procedure"]]
    keys = ["in_sample_score", "cross_fitted_score", *ranked]
    for name, part in run.candidates.items():
        words = (
            ["chosen"] * (name == chosen)
            + ["default"] * (name == default)
            + ["no correction"] * (name in same)
        )
        compared, is_default = choice["candidates"][name], name in {default, *same}
        gain = ["", ""] if is_default else [_gain(run, compared["difference"]), compared["standard_error"]]
        rows.append([name, *(part[key] for key in keys), *gain, ", ".join(words)])
    rows.append(["submission", "", *(choice["procedure"][key] for key in keys[1:]), "", "", ""])
    counts = ", ".join(
        f"{name} in {without.count(name)} of {len(without)} folds" for name in dict.fromkeys(without)
    )
    parts: list[Element] = [
        make_table(["candidate", *keys, "gain", "standard_error", ""], rows),
        choice["reason"],
        "in_sample_score: weights and score on the same rows, optimistic. cross_fitted_score: each row by "
        "weights, "
        "scaling and tuning fitted without its fold. gain: over the default, above 0 is better.",
        "The row submission scores the whole procedure: candidate and post-processing are chosen again "
        "without each "
        f"fold. That chose {counts}.",
    ]
    if ranked:
        parts.append(
            "score_mean_over_folds: of ranks within each fold, since models of two folds differ in offset."
        )
    if n_undefined := choice["procedure"].get("without_score"):
        parts.append(
            f"{n_undefined} scores of a target in a fold are left out: it has one class alone there."
        )
    if run.plan.n_folds == 2:
        parts.append(
            "Two folds: on the one that is left nothing can be tuned, so convex stands in for tuned blends."
        )
    if same:
        parts.append(
            "no correction: fitted on all rows, the stack is the default blend and cannot be chosen; its "
            "cross_fitted_score is that of the stacks fitted without one fold each."
        )
    return parts


def _drop_one(run: Run) -> list[Element]:
    blend = run.stored[BLEND]
    rows = [
        [stage, part["cross_fitted_score"], _gain(run, 0.0, part["difference"]), part["standard_error"]]
        for stage in run.config.stages
        if (part := blend["drop_one"].get(stage))  # its difference: without minus with
    ]
    said = (
        f"cross_fitted_score of {blend['default']}, refitted without the stage. gain: above 0, the "
        f"stage helps."
    )
    return (
        [make_table(["stage", "score without it", "gain with it", "standard_error"], rows), said]
        if rows
        else []
    )


def _postprocessing(run: Run) -> list[Element]:
    tried = [
        (target, step) for target, steps in run.stored[CHOICE]["postprocessing"].items() for step in steps
    ]
    rows = [[t, step["step"], step["score_without"], step["score_with"]] for t, step in tried if step["kept"]]
    left_out = ", ".join(sorted({step["step"] for _, step in tried} - {row[1] for row in rows}))
    return [
        *([make_table(["target", "step", "score without", "score with"], rows)] if rows else []),
        *(
            [f"Left out for all targets, since the score does not clearly gain: {left_out}."]
            if left_out
            else []
        ),
    ]


def _answers(run: Run) -> tuple[list[Element], float]:
    """The scores of the files and of each stage alone on the labels of the test rows, and that of the
    submission.
    """
    competition, columns, task = run.config.competition, run.columns, run.task
    if competition.answers is None or not competition.answers.exists():
        return [], np.nan
    truth, ids = read_answers(competition, competition.answers), read_table(run.paths.sample)[competition.id]
    y = truth.reindex(ids).to_numpy()
    files = [BLEND_FILE, *([STACK_FILE] if run.config.submissions.stack else []), SUBMISSION_FILE]
    y_pred = {file: from_sample(task, read_text_table(run.folder / file)) for file in files}
    filling = dict(enumerate(columns.label_means))  # of rows that could not be read
    for stage in run.config.stages:
        alone = (
            pd.DataFrame(columns.stage_test(stage), columns.test_ids).reindex(ids).fillna(filling).to_numpy()
        )
        y_pred[f"stage {stage}"] = apply_decision(
            from_json(run.stored[CHOICE]["stages"][stage]["decision"]), alone
        )
    scores = {name: _scores(run, y, each) for name, each in y_pred.items()}
    rows = [[name, *found.values()] for name, found in scores.items()]
    n_unknown, submitted = len({*ids} - {*truth.index}), scores[SUBMISSION_FILE]
    unknown = [f"{n_unknown} of {len(ids)} rows have no answer and are in no score."] if n_unknown else []
    return [make_table(["file or stage", *submitted], rows), *unknown], next(iter(submitted.values()))


def read_answers(competition: CompetitionConfig, file: Path) -> pd.DataFrame:
    """The labels of a table of answers, by id, under the names of the targets or under those that the sample
    has.
    """
    task = build_task(competition)
    table = read_table_with_ids(file, [competition.id])
    if not {*task.targets} <= {*table} and not task.has_column_per_class:
        table = table.rename(columns=dict(zip(task.columns_in_sample, task.targets, strict=True)))
    require_columns(table, task.targets, file)
    numbers = {name: parse_labels(table, name, competition, file) for name in task.targets}
    return pd.DataFrame(numbers).set_axis(table[competition.id])


def _predictions(run: Run) -> list[Element]:
    if run.task.has_probabilities:
        return probabilities(run)
    return [
        f"Out-of-fold predictions against the truth, at most {figures.MOST_POINTS} rows. submission: by "
        f"weights and "
        "choices made without the row's fold.",
        Figure("Truth against prediction", figures.predictions(run, predictions(run))),
    ]


def _correlations(run: Run) -> list[Element]:
    columns = run.columns
    if len(columns.names) < 2:
        return []
    said = (
        "Pearson's correlation of the out-of-fold errors (mean over targets or classes): a low one "
        "helps a blend."
    )
    errors = columns.oof - run.task.one_hot(columns.y)[:, None]  # (n_rows, n_columns, n_outputs)
    of_outputs = [pd.DataFrame(errors[:, :, t], columns=columns.names).corr() for t in range(errors.shape[2])]
    rows = pd.concat(of_outputs).groupby(level=0, sort=False).mean().reset_index().to_numpy().tolist()
    return [said, make_table(["column", *columns.names], rows, "{:.2f}")]


def _learning_curves(run: Run) -> list[Element]:
    neural = [name for name, stage in run.config.stages.items() if isinstance(stage, NeuralConfig)]
    curves = {name: figures.learning_curves(run, name) for name in neural}
    return [Figure(f"{name}: loss and learning rate by epoch", svg) for name, svg in curves.items() if svg]


def _folds(run: Run) -> list[Element]:
    """Size and labels of each fold, classes that are lacking, and what `./run.sh folds` left."""
    task, folds, shift = run.task, run.columns.folds, run.paths.shift
    labels = pd.DataFrame(run.columns.y, columns=task.targets)
    shown, what = class_shares(labels, task.classes), "share" if task.classes else "mean +- sd"
    numbers = {str(k) if k >= 0 else "-1: in training alone": shown[folds == k] for k in np.unique(folds)}
    rows = [["rows", *(str(len(y)) for y in numbers.values())]]
    for name in shown:
        deviations = [None if task.classes else y[name].std(ddof=0) for y in numbers.values()]
        means = [y[name].mean() for y in numbers.values()]
        rows.append([f"{name}, {what}", *map(format_with_error, means, deviations)])
    parts: list[Element] = [Table(["fold", *numbers], rows)]
    parts += [
        f"{words}."
        for words in missing_class_warnings(labels, task.classes, folds, time_ordered(run.paths.folds_report))
    ]
    if not shift.exists():
        return [*parts, "./run.sh folds shows whether held-out rows are like test rows; it has not been run."]
    stored = read_json(shift)
    if not stored["made_from"].items() <= run.stored["tables"].items():
        parts.append("Of other tables or folds than those of this run: run ./run.sh folds again.")
    parts.append(f"Recommended folds: {stored['recommended']['kind']}: {stored['recommended']['reason']}.")
    if stored["adversarial"]:
        auc = format_with_error(stored["adversarial"]["auc"], stored["adversarial"]["standard_deviation"])
        parts.append(
            f"Adversarial validation: AUC {auc} over folds; at 0.5 train and test cannot be told apart."
        )
    return [*parts, *(Figure(file.stem, file.read_bytes()) for file in sorted(shift.parent.glob("*.png")))]


def _settings(run: Run) -> list[Element]:
    settings = dump_yaml(run.stored["config"])
    versions = [[name, found] for name, found in run.stored["versions"].items()]
    return [Collapsible("The resolved YAML", settings), Table(["package", "version"], versions)]
