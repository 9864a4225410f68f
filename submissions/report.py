"""What came out, on one page: `python -m submissions.report [COMPETITION]`.

Reads: the reports of competition.prepare and of all jobs, the columns, run.json; and, here alone, the answers where
`competition.answers` names a file that is there.
Writes: report/report.md, which is printed, too, report/index.html, which opens in a browser without a network, and
report/handover.md: how to make the submission again.
"""

from __future__ import annotations

import textwrap

from competition import command
from competition.files import write_atomically
from competition.paths import shown
from submissions.blend import number
from submissions.findings import ALL, WHOLE, Findings, gather, spread, with_error
from submissions.handover import HANDOVER, handover
from submissions.page import page
from submissions.run import Run, at_work, open_run
from submissions.stack import nothing

SUMMARY, PAGE = "report.md", "index.html"
SCORES = (
    "in_sample_score: weights and score on the same rows, optimistic. cross_fitted_score: each row by weights, scaling "
    "and tuning fitted without its fold; for the whole procedure the choice of candidate and post-processing was made "
    "without its fold, too ({counts}): the score to expect. gain: over the default, above 0 is better."
)
SAME = (
    "no trees, no correction: the stack found nothing to correct on all rows, or corrected no held-out row, and is the "
    "default blend; its cross_fitted_score is that of the stacks without one fold each. It is not in the choice."
)
TWO_FOLDS = (
    "Two folds: without one of them there is a single fold left, on which nothing can be tuned, so the convex blend "
    "stands in for every tuned one in its cross_fitted_score. Three folds show more."
)


def report(run: Run) -> str:
    """Write report.md and index.html; returns what stands in the first.

    Raises:
        DataError: if a step before this one has not run on the columns as they are.
    """
    found = gather(run)
    summary = markdown(found)
    write_atomically(run.paths.report / SUMMARY, summary + "\n")
    write_atomically(run.paths.report / PAGE, page(found))
    write_atomically(run.paths.report / HANDOVER, handover(found) + "\n")
    return summary


def markdown(found: Findings) -> str:
    """The summary for a terminal."""
    run = found.run
    parts = [
        f"# {run.paths.name}: {run.metric.name}, {found.direction}\n\nrun {run.name}, {run.plan.n_folds} folds",
        "## Tables\n\n" + "\n".join(f"- {line}" for line in found.tables),
        f"## Stages\n\n{_stages(found)}",
        f"## Candidates\n\n{_candidates(found)}",
    ]
    if found.drop_one:
        parts.append(f"## Without one stage\n\n{_drop_one(found)}")
    if found.kept_steps or found.steps_left_out:
        parts.append(f"## Post-processing\n\n{_postprocessing(found)}")
    if found.answers:
        header = ["file or stage", ALL, *(run.config.competition.targets if run.metric.column else [])]
        rows = [[name, *map(number, scores)] for name, scores in found.answers.items()]
        parts.append(f"## {found.answers_name}\n\n{_folded(header, rows)}")
    written = [
        f"Page: {shown(run.paths.report / PAGE)}",
        f"Handover: {shown(run.paths.report / HANDOVER)}",
        found.to_submit,
    ]
    return "\n\n".join([*parts, "\n".join(written)])


def table(header: list[str], rows: list[list[str]]) -> str:
    """Aligned text that is a Markdown table as well; a column with digits is aligned to the right, but the first."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    left = [i == 0 or not any(character.isdigit() for row in rows for character in row[i]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [c.ljust(w) if is_left else c.rjust(w) for c, w, is_left in zip(cells, widths, left, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 1) + ("-" if is_left else ":") for w, is_left in zip(widths, left, strict=True))
    return "\n".join([line(header), f"|{rule}|", *(line(row) for row in rows)])


def _stages(found: Findings) -> str:
    rows = []
    for part in found.stages:
        name = part.stage if part.seconds is not None else ""
        weight = "" if part.weight is None else f"{part.weight:.3f}"
        seconds = "" if part.seconds is None else f"{part.seconds:.1f}"
        marks = ", ".join(part.marks)
        rows.append([name, part.target, number(part.cv_score), spread(part.fold_scores), weight, seconds, marks])
    header = ["stage", "target", "cv_score", "fold_scores", "weight", "seconds", "marks"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    said = f"fold_scores: mean +- standard deviation. weight: in {found.weights_of}, which was chosen."
    return "\n".join([table(header, rows), "", *_wrapped([said, *found.remarks])])


def _candidates(found: Findings) -> str:
    rows = []
    for part in found.candidates:
        is_default = part.name == found.default
        is_same = part.name in found.same_as_default
        rows.append(
            [
                part.name,
                number(part.in_sample_score),
                number(part.cross_fitted_score),
                "default" if is_default else "" if is_same else number(part.gain),
                "" if is_default or is_same else number(part.standard_error),
                "chosen" if part.name == found.chosen else nothing(part.name) if is_same else "",
            ]
        )
    rows.append([WHOLE, "", number(found.whole.cross_fitted_score), "", "", ""])
    header = ["candidate", "in_sample_score", "cross_fitted_score", "gain", "standard_error", ""]
    whole = found.whole
    lines = [
        found.reason,
        SCORES.format(counts=found.counts),
        f"Expected: {with_error(whole.cross_fitted_score, whole.standard_error)} (standard error of the score); "
        f"{found.chosen} in sample {number(whole.in_sample_score)}, optimism {number(found.optimism)}.",
        *(f"Gain over {part.name}: {with_error(part.gain, part.standard_error)}." for part in found.against),
        *([SAME] if found.same_as_default else []),
        *([TWO_FOLDS] if found.run.plan.n_folds == 2 else []),
    ]
    return "\n".join([table(header, rows), "", *_wrapped(lines)])


def _drop_one(found: Findings) -> str:
    rows = [
        [part.name, number(part.cross_fitted_score), number(part.gain), number(part.standard_error)]
        for part in found.drop_one
    ]
    header = ["stage", "score without it", "gain with it", "standard_error"]
    said = f"cross_fitted_score of {found.default}, refitted without the stage. gain: above 0, the stage helps."
    return "\n".join([table(header, rows), "", *_wrapped([said])])


def _postprocessing(found: Findings) -> str:
    header = ["target", "step", "score without", "score with"]
    kept = [table(header, found.kept_steps), ""] if found.kept_steps else []
    return "\n".join([*kept, *_wrapped([found.steps_left_out])])


def _folded(header: list[str], rows: list[list[str]], most: int = 5) -> str:
    """A wide table as several below each other, each with the first column."""
    parts = []
    for start in range(1, len(header), most):
        which = [0, *range(start, min(start + most, len(header)))]
        parts.append(table([header[i] for i in which], [[row[i] for i in which] for row in rows]))
    return "\n\n".join(parts)


def _wrapped(lines: list[str]) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, 108, break_on_hyphens=False)]


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    run = open_run(args.competition, args.seed, args.reuse, args.budget)
    with at_work(run):
        summary = report(run)
    print(summary)


if __name__ == "__main__":
    command.run(main)
