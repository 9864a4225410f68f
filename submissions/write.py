"""Choose among all candidates and write the submission: `python -m submissions.write [COMPETITION]`.

Reads: the products of submissions.blend and submissions.stack, the labels, folds.csv, the test predictions.
Writes: submissions/<run>/selection.json, submission.csv (the same bytes as blend.csv or stack.csv) and spread.csv, and
submissions/latest, the name of this run.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from competition import command
from competition.errors import DataError, SubmissionError
from competition.files import read_json, write_atomically
from submissions.apply import (
    BLEND,
    BLEND_FILE,
    SELECTION,
    STACK,
    STACK_FILE,
    STACK_NAME,
    SUBMISSION_FILE,
    predict_run,
)
from submissions.blenders import BLENDERS
from submissions.columns import Columns, Run, load_columns, open_run, rule_of
from submissions.crossfit import choose, compare, cross_fitted_choice
from submissions.products import (
    at_work,
    finish,
    is_done,
    read_cross_fitted,
    write_predictions,
)
from submissions.spread import SPREAD_FILE, write_spread


def select(run: Run, columns: Columns) -> dict[str, Any]:
    """Content of selection.json, made or kept: every candidate against the default, and the procedure's own score."""
    if is_done(run, SELECTION):
        return dict(read_json(run.folder / SELECTION))
    rule = rule_of(run, columns)
    names = [*BLENDERS, *([STACK_NAME] if run.config.submissions.stack else [])]
    predictions = {name: read_cross_fitted(run, name, columns) for name in names}
    cross_fitted = {name: part.cross_fitted for name, part in predictions.items()}
    scored = rule.folds >= 0
    compared = compare(rule, cross_fitted, scored, rule.draws)
    chosen, reason = choose(rule, compared)
    nested = {name: part.nested for name, part in predictions.items()}
    y_pred, chosen_without = cross_fitted_choice(rule, cross_fitted, nested, run.plan.n_folds)
    content = {
        "chosen": chosen,
        "default": rule.default,
        "reason": reason,
        "candidates": {name: asdict(part) for name, part in compared.items()},
        "procedure": {
            "cross_fitted_score": rule.metric(rule.y[scored], y_pred[scored]),
            "chosen_without_fold": chosen_without,
        },
    }
    return finish(run, SELECTION, content, files=[])


def write(run: Run) -> tuple[dict[str, Any], int]:
    """Choose, write submission.csv; returns selection.json's content and how many rows got the labels' mean.

    Raises:
        DataError: if a step before this one has not run on the columns as they are.
        SubmissionError: if the submission does not fit the sample.
    """
    for step, wanted in ((BLEND, True), (STACK, run.config.submissions.stack)):
        if wanted and not is_done(run, step):
            raise DataError(
                f"{run.folder / step} must be there and fit the predictions and the code as they are, and does not; "
                f"run python -m submissions.{step.removesuffix('.json')} first, or ./run.sh full."
            )
    columns = load_columns(run)
    selection = select(run, columns)
    filled = write_predictions(run, columns.test_ids, predict_run(run.folder, columns.test), SUBMISSION_FILE)
    twin = STACK_FILE if selection["chosen"] == STACK_NAME else BLEND_FILE
    if (run.folder / twin).read_bytes() != (run.folder / SUBMISSION_FILE).read_bytes():
        raise SubmissionError(f"{run.folder / SUBMISSION_FILE} must equal {twin} and does not; delete {run.folder}.")
    write_spread(run, columns.test_ids, partial(predict_run, run.folder))
    write_atomically(run.paths.latest_run, f"{run.name}\n")
    return selection, filled


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    run = open_run(args.competition, args.seed, args.reuse, args.budget)
    with at_work(run):
        selection, filled = write(run)
        print(f"{SUBMISSION_FILE}: {selection['chosen']}, checked against the sample")
        print(f"{SPREAD_FILE}: standard deviation of each row's prediction over seeds and folds")
        if filled:
            print(
                f"{filled} test rows that were dropped as unparsable have the mean of the training labels and no spread"
            )


if __name__ == "__main__":
    command.run(main)
