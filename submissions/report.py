"""What came out, on one page: `python -m submissions.report [COMPETITION]`.

Reads: the reports of competition.prepare and of all jobs, the columns, blend.json, stack.json, selection.json; and,
here alone, the answers where `competition.answers` names a file that is there.
Writes: report/report.md, which is printed, too.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from competition import command
from competition.clean import parse_numbers
from competition.errors import DataError
from competition.files import read_json, read_table, read_text_table, write_atomically
from competition.metrics import Array
from competition.paths import shown
from competition.prepare import describe as describe_tables
from models.file import FOLD_MARKS
from models.jobs import REPORT
from models.notes import read_notes
from submissions.apply import (
    BLEND,
    BLEND_FILE,
    MANIFEST,
    SELECTION,
    STACK,
    STACK_FILE,
    SUBMISSION_FILE,
    submission_table,
)
from submissions.blend import number
from submissions.blenders import BLENDERS
from submissions.columns import Columns, Run, load_columns, open_run
from submissions.crossfit import score_per_target
from submissions.products import at_work, is_done
from submissions.stack import nothing
from submissions.stacker import STACKS

ALL = "all"


def report(run: Run) -> str:
    """The page.

    Raises:
        DataError: if a step before this one has not run on the columns as they are.
    """
    steps = [BLEND, *([STACK] if run.config.submissions.stack else []), SELECTION]
    for step in steps:
        if not is_done(run, step):
            raise DataError(f"{run.folder / step} must fit the predictions as they are; run ./run.sh full.")
    products = {step: read_json(run.folder / step) for step in steps}
    columns = load_columns(run)
    metric, name = run.metric, run.paths.name
    direction = "greater is better" if metric.greater_is_better else "less is better"
    parts = [
        f"# {name}: {metric.name}, {direction}\n\nrun {run.name}, {run.plan.n_folds} folds",
        f"## Tables\n\n{_tables(run)}",
        f"## Stages\n\n{_stages(run, columns, products)}",
        f"## Candidates\n\n{_candidates(products, metric.greater_is_better, run.plan.n_folds)}",
    ]
    answers = run.config.competition.answers
    if answers is not None and answers.exists():
        parts.append(f"## Score on the answers\n\n{_answers(run, columns, products)}")
    return "\n\n".join([*parts, f"Submission: {shown(run.folder / SUBMISSION_FILE)}"])


def table(header: list[str], rows: list[list[str]]) -> str:
    """Aligned text that is a Markdown table as well; a column with digits is aligned to the right, but the first."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    left = [i == 0 or not any(character.isdigit() for row in rows for character in row[i]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [c.ljust(w) if is_left else c.rjust(w) for c, w, is_left in zip(cells, widths, left, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 1) + ("-" if is_left else ":") for w, is_left in zip(widths, left, strict=True))
    return "\n".join([line(header), f"|{rule}|", *(line(row) for row in rows)])


def _tables(run: Run) -> str:
    found = read_json(run.paths.prepare_report)
    return "\n".join(f"- {line}" for line in describe_tables(found).splitlines())


def _stages(run: Run, columns: Columns, products: dict[str, Any]) -> str:
    """Table 1: cv_score, fold_scores (mean and standard deviation), weight in the submission, seconds, marks."""
    metric, scored = run.metric, columns.folds >= 0
    names = run.config.competition.targets
    marks = {stage["name"]: stage["marks"] for stage in read_json(run.folder / MANIFEST)["stages"]}
    chosen = products[SELECTION]["chosen"]
    blend = products[STACK if chosen in STACKS else BLEND]["candidates"][chosen]["models"]
    models = {target: part.get("blend", part) for target, part in blend.items()}
    rows = []
    for stage in run.config.stages:
        y_pred = columns.oof_of(stage)
        of_folds = [columns.folds == fold for fold in range(run.plan.n_folds)]
        seconds = sum(read_json(job.folder / REPORT)["seconds"] for job in run.plan.of(stage))
        overall = [metric(columns.y[rows_of], y_pred[rows_of]) for rows_of in of_folds]
        cv_score = metric(columns.y[scored], y_pred[scored])
        first = [stage, ALL, number(cv_score), _spread(overall), "", f"{seconds:.1f}", ", ".join(marks[stage])]
        of_targets = []
        per_target = score_per_target(metric, columns.y[scored], y_pred[scored]) or [float("nan")] * len(names)
        for t, target in enumerate(names):
            of_each = [metric.one(columns.y[f, t], y_pred[f, t]) for f in of_folds] if metric.column else []
            weights = models[target]["weights"]
            weight = f"{sum(w for column, w in weights.items() if columns.stage_of[column] == stage):.3f}"
            of_targets.append(["", target, number(per_target[t]), _spread(of_each), weight, "", ""])
        if len(names) == 1:
            first[1], first[4] = names[0], of_targets[0][4]
            of_targets = []
        rows += [first, *of_targets]
    header = ["stage", "target", "cv_score", "fold_scores", "weight", "seconds", "marks"]
    if not any(marks.values()):
        header, rows = header[:-1], [row[:-1] for row in rows]
    in_blend = f"the blend below {chosen}" if chosen in STACKS else chosen
    lines = [
        table(header, rows),
        f"\nfold_scores: mean +- standard deviation. weight: in {in_blend}, which was chosen.",
    ]
    said = {
        "optimistic": "the epoch was chosen on the fold that is scored (keep: best_on_held_out)",
        "saw test inputs": "trained on the inputs of held-out and test rows, not on labels (pretrain_on: all_inputs)",
        "pseudo-labels": "trained on predictions of test rows as if they were labels",
        "refit": "its test predictions come from a model of all training rows, which no fold has scored",
        "other code": "made by other code than today's (--reuse)",
        **FOLD_MARKS,
    }
    lines += [f"{line}." for line in run.left_out]
    used = {mark for found in marks.values() for mark in found}
    lines += [line for mark, words in said.items() if mark in used for line in _wrapped(f"{mark}: {words}.")]
    for stage in run.config.stages:
        lines += [line for note in read_notes(run.plan.of(stage)[0].folder) for line in _wrapped(f"{stage}: {note}")]
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    known = [value for value in values if np.isfinite(value)]
    return f"{np.mean(known):#.4g} +- {np.std(known, ddof=1):#.2g}" if len(known) > 1 else "-"


def _candidates(products: dict[str, Any], greater_is_better: bool, n_folds: int) -> str:
    """Table 2: the two scores of each candidate, its gain over the default, and the choice."""
    selection, sign = products[SELECTION], 1 if greater_is_better else -1
    rows, same = [], [name for name in selection["same_as_default"] if name in STACKS]
    for name in [name for name in (*BLENDERS, *STACKS) if name in selection["candidates"]]:
        compared = selection["candidates"][name]
        scores = products[STACK if name in STACKS else BLEND]["candidates"][name]
        is_default = name == selection["default"]
        rows.append(
            [
                name,
                number(scores["in_sample_score"]),
                number(compared["cross_fitted_score"]),
                "default" if is_default else number(sign * compared["difference"] + 0.0),
                "" if is_default else number(compared["standard_error"]),
                "chosen" if name == selection["chosen"] else nothing(name) if name in same else "",
            ]
        )
    procedure = selection["procedure"]
    rows.append(["whole procedure", "", number(procedure["cross_fitted_score"]), "", "", ""])
    without = procedure["chosen_without_fold"]
    counts = ", ".join(f"{name} {without.count(name)}" for name in sorted(set(without)))
    header = ["candidate", "in_sample_score", "cross_fitted_score", "gain", "standard_error", ""]
    return "\n".join(
        [
            table(header, rows),
            "",
            *_wrapped(selection["reason"]),
            *_wrapped(
                "in_sample_score: weights and score on the same rows, optimistic. cross_fitted_score: each row by "
                "weights, scaling and tuning fitted without its fold; for the whole procedure the choice of candidate "
                f"was made without its fold, too ({counts}): the score to expect. gain: over the default, above 0 is "
                "better."
            ),
            *_wrapped(
                "no trees, no correction: the stack found nothing to correct and is the default blend; its "
                "cross_fitted_score is of the stacks without one fold each, some of which did correct."
                if same
                else ""
            ),
            *_wrapped(
                "Two folds: without one of them there is a single fold left, on which nothing can be tuned, so the "
                "convex blend stands in for every tuned one in its cross_fitted_score. Three folds show more."
                if n_folds == 2
                else ""
            ),
        ]
    )


def _answers(run: Run, columns: Columns, products: dict[str, Any]) -> str:
    """Table 3: scores of the files and of each stage alone on the labels of the test rows."""
    competition, metric = run.config.competition, run.metric
    assert competition.answers is not None
    labels = read_text_table(competition.answers)
    names = competition.targets
    of_file = names if set(names) <= set(labels.columns) else competition.columns_in_sample
    lacking = [name for name in [competition.id, *of_file] if name not in labels.columns]
    sample = read_text_table(run.paths.sample)
    ids = list(sample[competition.id])
    if lacking or labels[competition.id].duplicated().any() or not set(ids) <= set(labels[competition.id]):
        raise DataError(
            f"{competition.answers} must name every id of the sample once, with {', '.join(names)}; correct "
            "competition.answers or set it to null."
        )
    y = np.column_stack([parse_numbers(labels, name, competition.id, competition.answers) for name in of_file])
    row_of = {row_id: i for i, row_id in enumerate(labels[competition.id])}
    y = y[[row_of[row_id] for row_id in ids]]
    in_sample = list(run.column_of.values())

    def row(name: str, y_pred: Array) -> list[str]:
        return [name, number(metric(y, y_pred)), *map(number, score_per_target(metric, y, y_pred))]

    rows = []
    files = [BLEND_FILE, *([STACK_FILE] if STACK in products else []), SUBMISSION_FILE]
    for file in files:
        rows.append(row(file, read_table(run.folder / file, [competition.id])[in_sample].to_numpy(dtype=np.float64)))
    filling = read_json(run.folder / MANIFEST)["label_means"]
    for stage in run.config.stages:
        filled, _ = submission_table(
            sample, competition.id, run.column_of, columns.test_ids, columns.test_of(stage), filling
        )
        rows.append(row(f"stage {stage}", filled[in_sample].to_numpy(dtype=np.float64)))
    return _folded(["file or stage", ALL, *(names if metric.column else [])], rows)


def _folded(header: list[str], rows: list[list[str]], most: int = 5) -> str:
    """A wide table as several below each other, each with the first column."""
    parts = []
    for start in range(1, len(header), most):
        which = [0, *range(start, min(start + most, len(header)))]
        parts.append(table([header[i] for i in which], [[row[i] for i in which] for row in rows]))
    return "\n\n".join(parts)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 108)


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    run = open_run(args.competition, args.seed, args.reuse, args.budget)
    with at_work(run):
        page = report(run)
        write_atomically(run.paths.report / "report.md", page + "\n")
    print(page)


if __name__ == "__main__":
    command.run(main)
