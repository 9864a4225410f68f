"""What a run found, gathered once: the Markdown summary and the page render the same numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from competition.clean import parse_numbers
from competition.errors import DataError
from competition.files import read_json, read_table, read_text_table
from competition.metrics import Array
from competition.paths import shown
from competition.prepare import describe as describe_tables
from models.jobs.plan import REPORT
from models.notes import read_notes
from models.stages.file import FOLD_MARKS
from submissions.blend import number
from submissions.columns import Columns
from submissions.crossfit import score_per_target
from submissions.run import BLEND, BLEND_FILE, CHOICE, CROSS_FITTED, STACK, STACK_FILE, SUBMISSION_FILE, Run
from submissions.sample import submission_table
from submissions.stacker import STACKS

ALL, WHOLE = "all", "whole procedure"
MARKS = {
    "optimistic": "the epoch was chosen on the fold that is scored (keep: best_on_held_out)",
    "saw test inputs": "trained on the inputs of held-out and test rows, not on labels (pretrain_on: all_inputs)",
    "other code": "made by other code than today's (--reuse)",
    "pseudo-labels": "trained on test rows with predictions of other stages as labels, fold by fold",
    "refit": "predicts test rows by models of all rows (final_fit), which no held-out row scores; cv_score: folds",
    **FOLD_MARKS,
}


@dataclass(frozen=True)
class StageScores:
    """One stage on one target, or on all of them.

    weight: in the blend that is submitted or lies below the stack; None where this row has none.
    seconds: of all jobs; None in the rows of single targets.
    """

    stage: str
    target: str
    cv_score: float
    fold_scores: list[float]
    weight: float | None
    seconds: float | None
    marks: list[str]


@dataclass(frozen=True)
class Compared:
    """Scores of something and how much better it is than something else; above 0 is better, None is not defined."""

    name: str
    in_sample_score: float | None
    cross_fitted_score: float | None
    gain: float | None
    standard_error: float | None


@dataclass(frozen=True)
class Findings:
    """All that is said about a run, predictions of single rows apart.

    tables: what was found and dropped in the tables, a line each.
    weights_of: what `StageScores.weight` is a weight in.
    remarks: stages that were left out, what marks mean, notes of the stages; a line each.
    candidates: against the default; same_as_default: stacks that are the default blend.
    cross_fitted: (n_rows, n_targets) predictions by the whole procedure, NaN where the fold is -1.
    whole: in-sample score of the chosen candidate; cross-fitted score of the whole procedure and its standard error.
    optimism: by how much the in-sample score looks better than that.
    chosen_without_fold: the candidate chosen without each fold.
    drop_one: what each stage adds to the default blend: the score without it, and how much better it is with it.
    against: the submission against the best single stage and the previous run.
    postprocessing: target -> its steps as run.json has them.
    answers: file or stage -> its score and those of the targets; empty where no answers are known.
    """

    run: Run
    columns: Columns
    direction: str
    tables: list[str]
    stages: list[StageScores]
    weights_of: str
    remarks: list[str]
    chosen: str
    default: str
    reason: str
    candidates: list[Compared]
    same_as_default: list[str]
    cross_fitted: Array
    whole: Compared
    optimism: float | None
    chosen_without_fold: list[str]
    drop_one: list[Compared]
    against: list[Compared]
    postprocessing: dict[str, list[dict[str, Any]]]
    answers: dict[str, list[float]]

    @property
    def submission(self) -> Path:
        """The file to submit."""
        return self.run.folder / SUBMISSION_FILE

    @property
    def answers_name(self) -> str:
        """What a score on the answers is."""
        held_out_of = self.run.config.competition.holdout_of
        return f"holdout_score on rows of {held_out_of}" if held_out_of else "Score on the answers"

    @property
    def to_submit(self) -> str:
        """The file to submit, in words; with --holdout there is none."""
        whole = self.run.config.competition.holdout_of
        if whole is None:
            return f"Submission: {shown(self.submission)}"
        return f"Nothing to submit: these are training rows of {whole}. ./run.sh full {whole} predicts its test rows."

    @property
    def kept_steps(self) -> list[list[str]]:
        """Of post-processing: target, step, score without it and with it; of the steps that were kept."""
        return [
            [target, step["step"], number(step["score_without"]), number(step["score_with"])]
            for target, steps in self.postprocessing.items()
            for step in steps
            if step["kept"]
        ]

    @property
    def steps_left_out(self) -> str:
        """Steps that were tried and kept for no target, in words; empty where there is none."""
        tried = {step["step"] for steps in self.postprocessing.values() for step in steps}
        names = ", ".join(sorted(tried - {row[1] for row in self.kept_steps}))
        return f"Tried, and left out for all targets, since the score does not clearly gain: {names}." if names else ""

    @property
    def counts(self) -> str:
        """In how many folds each candidate was chosen, in words."""
        without = self.chosen_without_fold
        return ", ".join(f"{name} in {without.count(name)} of {len(without)} folds" for name in sorted(set(without)))


def with_error(value: float | None, standard_error: float | None) -> str:
    """A number and its standard error; the number alone where there is none."""
    return f"{number(value)} +- {standard_error:#.2g}".rstrip(".") if known(standard_error) else number(value)


def spread(values: list[float]) -> str:
    """Mean and standard deviation of the values that are defined."""
    defined = [value for value in values if known(value)]
    return f"{np.mean(defined):#.4g} +- {np.std(defined, ddof=1):#.2g}" if len(defined) > 1 else "-"


def known(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and bool(np.isfinite(value))


def gather(run: Run) -> Findings:
    """All findings of a finished run.

    Raises:
        DataError: if a step before this one has not run on the columns as they are.
    """
    steps = [BLEND, *([STACK] if run.config.submissions.stack else []), CHOICE]
    products = {step: run.part(step) for step in steps}
    columns, selection, stored = run.columns, products[CHOICE], run.candidates
    chosen, default = selection["chosen"], selection["default"]
    in_sample, expected = stored[chosen]["in_sample_score"], selection["procedure"]["cross_fitted_score"]
    cross_fitted = read_table(run.folder / CROSS_FITTED, ["id"]).set_index("id").loc[columns.ids].to_numpy()
    sign = 1 if run.metric.greater_is_better else -1
    marks = {stage["name"]: stage["marks"] for stage in run.stored["stages"]}
    return Findings(
        run=run,
        columns=columns,
        direction="greater is better" if run.metric.greater_is_better else "less is better",
        tables=describe_tables(read_json(run.paths.prepare_report)).splitlines(),
        stages=_stages(run, columns, stored[chosen]["models"], marks),
        weights_of=f"the blend below {chosen}" if chosen not in products[BLEND]["candidates"] else chosen,
        remarks=_remarks(run, columns, marks),
        chosen=chosen,
        default=default,
        reason=selection["reason"],
        candidates=[
            _compared(name, part | selection["candidates"].get(name, {}), sign, part["in_sample_score"])
            for name, part in stored.items()
        ],
        same_as_default=[name for name in selection.get("same_as_default", []) if name in STACKS],
        cross_fitted=cross_fitted,
        whole=Compared(WHOLE, in_sample, expected, None, selection["procedure"]["standard_error"]),
        optimism=None if in_sample is None or expected is None else sign * (in_sample - expected),
        chosen_without_fold=selection["procedure"]["chosen_without_fold"],
        drop_one=[
            _compared(stage, part, -sign)  # stored as without minus with
            for stage, part in products[BLEND].get("drop_one", {}).items()
        ],
        against=_against(selection.get("against", {}), sign),
        postprocessing=selection.get("postprocessing", {}),
        answers=_answers(run, columns, [BLEND_FILE, *([STACK_FILE] if STACK in products else []), SUBMISSION_FILE]),
    )


def _compared(name: str, part: dict[str, Any], sign: int, in_sample: float | None = None) -> Compared:
    """A stored comparison; `sign` is -1 where its difference is below 0 for what is better."""
    difference = part.get("difference")
    gain = None if difference is None else sign * difference + 0.0
    return Compared(name, in_sample, part.get("cross_fitted_score"), gain, part.get("standard_error"))


def _against(stored: dict[str, Any], sign: int) -> list[Compared]:
    names = {"best_single": "the best single stage,", "previous_run": "the previous run,"}
    return [
        _compared(f"{names[other]} {part.get('stage', part.get('run'))}", part, sign)
        for other, part in stored.items()
        if part is not None
    ]


def _stages(run: Run, columns: Columns, models: dict[str, Any], marks: dict[str, list[str]]) -> list[StageScores]:
    """For each stage a row for all targets and, where there are several, a row for each."""
    metric, scored, names = run.metric, columns.folds >= 0, run.config.competition.targets
    of_folds = [columns.folds == fold for fold in range(run.plan.n_folds)]
    blends = [models[target].get("blend", models[target])["weights"] for target in names]
    weights = [
        {stage: sum(w for name, w in blend.items() if columns.stage_of[name] == stage) for stage in run.config.stages}
        for blend in blends
    ]
    rows = []
    for stage in run.config.stages:
        y_pred = columns.oof_of(stage)
        seconds = sum(read_json(job.folder / REPORT)["seconds"] for job in run.plan.of(stage))
        overall = [metric(columns.y[of_fold], y_pred[of_fold]) for of_fold in of_folds]
        cv_score = metric(columns.y[scored], y_pred[scored])
        one = len(names) == 1
        target, weight = (names[0], weights[0][stage]) if one else (ALL, None)
        rows.append(StageScores(stage, target, cv_score, overall, weight, seconds, marks[stage]))
        per_target = score_per_target(metric, columns.y[scored], y_pred[scored]) or [float("nan")] * len(names)
        for t, name in enumerate(names if not one else []):
            of_each = [metric.one(columns.y[f, t], y_pred[f, t]) for f in of_folds] if metric.column else []
            rows.append(StageScores(stage, name, per_target[t], of_each, weights[t][stage], None, []))
    return rows


def _remarks(run: Run, columns: Columns, marks: dict[str, list[str]]) -> list[str]:
    used = {mark for found in marks.values() for mark in found}
    notes = {stage: read_notes(run.plan.of(stage)[0].folder) for stage in run.config.stages}
    unscored = int((columns.folds < 0).sum())
    return [
        *([f"{unscored} training rows are in no held-out fold (fold -1): no score is about them."] if unscored else []),
        *(f"{line}." for line in run.left_out),
        *(f"{mark}: {words}." for mark, words in MARKS.items() if mark in used),
        *(f"{stage}: {note}" for stage, found in notes.items() for note in found),
    ]


def _answers(run: Run, columns: Columns, files: list[str]) -> dict[str, list[float]]:
    """Scores of the files and of each stage alone on the labels of the test rows: on all targets, then on each."""
    competition, metric = run.config.competition, run.metric
    if competition.answers is None or not competition.answers.exists():
        return {}
    labels = read_text_table(competition.answers)
    names = competition.targets
    of_file = names if set(names) <= set(labels.columns) else competition.columns_in_sample
    lacking = [name for name in [competition.id, *of_file] if name not in labels.columns]
    sample = read_table(run.paths.sample)
    ids = list(sample[competition.id])
    if lacking or labels[competition.id].duplicated().any() or not set(ids) <= set(labels[competition.id]):
        raise DataError(
            f"{competition.answers} must name every id of the sample once, with {', '.join(names)}; correct "
            "competition.answers or set it to null."
        )
    y = np.column_stack([parse_numbers(labels, name, competition.id, competition.answers) for name in of_file])
    row_of = {row_id: i for i, row_id in enumerate(labels[competition.id])}
    y = y[[row_of[row_id] for row_id in ids]]
    tables = {file: read_table(run.folder / file, [competition.id]) for file in files}
    for stage in run.config.stages:
        tables[f"stage {stage}"], _ = submission_table(
            sample, competition.id, run.task, columns.test_ids, columns.test_of(stage), columns.label_means
        )
    predicted: dict[str, Array] = {
        name: table[run.task.columns_in_sample].to_numpy(dtype=np.float64) for name, table in tables.items()
    }
    return {name: [metric(y, y_pred), *score_per_target(metric, y, y_pred)] for name, y_pred in predicted.items()}
