"""Choose among all candidates, post-process and write the submission: `python -m submissions.write [COMPETITION]`.

Reads: the products of submissions.blend and submissions.stack, the labels, folds.csv, the test predictions; and the
cross-fitted predictions of the run before this one.
Writes into the run's folder: cross_fitted.csv, its part of run.json, submission.csv (the same bytes as blend.csv or
stack.csv where no post-processing was kept) and spread.csv; and submissions/latest, the name of this run.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from competition import command
from competition.errors import DataError, SubmissionError
from competition.files import read_table, write_atomically, write_table
from competition.metrics import Array
from competition.tables import INPUT_KEY, own_rows
from submissions.apply import KNOWN_LABELS, predict_run
from submissions.blend import rule_of
from submissions.crossfit import (
    CrossFitted,
    Rule,
    choose,
    compare,
    cross_fitted_choice,
    from_table,
    repeats,
    standard_error,
)
from submissions.features import features_of
from submissions.postprocess import Inputs, Tried, choose_steps
from submissions.run import (
    BLEND,
    BLEND_FILE,
    CHOICE,
    CROSS_FITTED,
    STACK,
    STACK_FILE,
    SUBMISSION_FILE,
    Run,
    at_work,
    open_run,
)
from submissions.spread import SPREAD_FILE, write_spread
from submissions.stacker import STACKS
from submissions.words import number

FEWEST_FOLDS = 4
"""For post-processing: without a fold, three leave blends of a single one, which spread otherwise than those of two."""


def select(run: Run) -> dict[str, Any]:
    """The part `choice` of run.json, made or kept: every candidate against the default, post-processing, scores."""
    if run.has(CHOICE):
        return run.part(CHOICE)
    rule, names, columns = rule_of(run), run.task.targets, run.columns
    predictions = {name: read_cross_fitted(run, name) for name in run.candidates}
    cross_fitted = {name: part.cross_fitted for name, part in predictions.items()}
    scored, inputs = rule.folds >= 0, np.array(columns.inputs)
    compared = compare(rule, cross_fitted, scored, rule.draws)
    same = repeats({name: part.in_sample for name, part in predictions.items()}, rule.default)
    chosen, reason = choose(rule, {name: part for name, part in compared.items() if name not in same}, scored)
    steps = _steps(run)
    chain = choose_steps(rule, steps, cross_fitted[chosen], inputs, scored)
    y_pred, chosen_without = procedure(rule, predictions, steps, inputs, run.plan.n_folds)
    table = pd.DataFrame(y_pred, columns=run.task.outputs)
    table.insert(0, "id", columns.ids)
    write_table(run.folder / CROSS_FITTED, table)
    files = [CROSS_FITTED]
    if "known_labels" in run.config.submissions.postprocess:
        write_table(run.folder / KNOWN_LABELS, _known_labels(run))
        files.append(KNOWN_LABELS)
        nan = float("nan")  # rows of one input share a fold: without the fold no label of theirs is known
        for of_target in chain.tried:
            of_target.append(Tried("known_labels", True, nan, nan, nan, None))
    found = {
        "chosen": chosen,
        "default": rule.default,
        "reason": reason,
        "candidates": {name: asdict(part) for name, part in compared.items()},
        "same_as_default": same,
        "postprocessing": dict(zip(names, chain.stored(), strict=True)),
        "cross_fitted_score": rule.metric(rule.y[scored], chain.cross_fitted[scored]),
        "procedure": {
            "cross_fitted_score": rule.metric(rule.y[scored], y_pred[scored]),
            "standard_error": standard_error(rule, y_pred),
            "chosen_without_fold": chosen_without,
        },
        "against": {
            "best_single": _against_best_stage(run, rule, y_pred),
            "previous_run": _against_previous(run, rule, y_pred),
        },
    }
    return run.keep(CHOICE, found, files)


def procedure(
    rule: Rule, predictions: dict[str, CrossFitted], steps: list[str], inputs: Inputs, n_folds: int
) -> tuple[Array, list[str]]:
    """All that `select` does, repeated without each fold.

    For fold k the candidate is chosen, and the steps on it are chosen and fitted, on the rows of the other folds, whose
    predictions know nothing of fold k.

    Args:
        predictions: of each candidate.
        steps: names of the post-processing to try, in order.
        inputs: (n_rows,), equal where the whole input is the same.
        n_folds: number of folds.

    Returns:
        (n_rows, n_targets), NaN for rows with fold -1; and the candidate chosen without each fold.
    """
    cross_fitted = {name: part.cross_fitted for name, part in predictions.items()}
    nested = {name: part.nested for name, part in predictions.items()}
    y_pred, chosen_without = cross_fitted_choice(rule, cross_fitted, nested, n_folds)
    for fold, name in enumerate(chosen_without):
        own, others = rule.folds == fold, (rule.folds >= 0) & (rule.folds != fold)
        chain = choose_steps(rule, steps, nested[name][fold], inputs, others)
        y_pred[own] = chain.apply(y_pred[own], inputs[own])
    return y_pred, chosen_without


def _steps(run: Run) -> list[str]:
    """Post-processing to try."""
    wanted = run.config.submissions.postprocess if run.plan.n_folds >= FEWEST_FOLDS else []
    return [step for step in wanted if step != "known_labels"]


def _known_labels(run: Run) -> pd.DataFrame:
    """Mean label of each target for each input of the training table, its extra rows left out."""
    competition = run.config.competition
    train = own_rows(read_table(run.paths.train))
    return train.groupby(INPUT_KEY, as_index=False)[competition.targets].mean()


def _against(rule: Rule, y_pred: Array, other: Array) -> dict[str, float]:
    """Paired difference of the procedure to other predictions, on the rows that both predict."""
    both = (rule.folds >= 0) & np.isfinite(other).all(axis=1)
    paired = compare(replace(rule, default="other"), {"other": other, "own": y_pred}, both, rule.draws)["own"]
    return {"difference": paired.difference, "standard_error": paired.standard_error}


def _against_best_stage(run: Run, rule: Rule, y_pred: Array) -> dict[str, Any]:
    """The same to the stage with the best score of its own; it was found on these rows, which favours it a little."""
    scored, sign = rule.folds >= 0, 1 if rule.metric.greater_is_better else -1
    columns = run.columns
    scores = {name: rule.metric(rule.y[scored], columns.oof_of(name)[scored]) for name in run.config.stages}
    best = max(scores, key=lambda name: np.nan_to_num(sign * scores[name], nan=-np.inf))
    return {"stage": best, "cv_score": scores[best], **_against(rule, y_pred, columns.oof_of(best))}


def _against_previous(run: Run, rule: Rule, y_pred: Array) -> dict[str, Any] | None:
    """The same to the latest run before this one; None where there is none, or its ids or targets are others."""
    if not run.paths.latest_run.exists():
        return None
    name, outputs = run.paths.latest_run.read_text().strip(), run.task.outputs
    file = run.paths.run(name) / CROSS_FITTED
    if name == run.name or not file.exists():
        return None
    before = read_table(file, ["id"])
    if set(before.columns) != {"id", *outputs} or sorted(before["id"]) != sorted(run.columns.ids):
        return None
    return {"run": name, **_against(rule, y_pred, before.set_index("id").loc[run.columns.ids, outputs].to_numpy())}


def write(run: Run) -> tuple[dict[str, Any], int]:
    """Choose, write submission.csv; returns the choice and how many rows got the labels' mean.

    Raises:
        DataError: if a step before this one has not run on the columns as they are.
        SubmissionError: if the submission does not fit the sample.
    """
    for step, wanted in ((BLEND, True), (STACK, run.config.submissions.stack)):
        if wanted and not run.has(step):
            raise DataError(
                f"the step {step} has not run on the predictions and the code as they are; "
                f"run python -m submissions.{step} first, or ./run.sh full."
            )
    choice, columns = select(run), run.columns
    features = features_of(run.config, run.paths.test, run.paths.cache)
    filled = run.write_submission(SUBMISSION_FILE, predict_run(run, columns.test, columns.test_inputs, features))
    twin = STACK_FILE if choice["chosen"] in STACKS else BLEND_FILE
    if not kept(choice) and (run.folder / twin).read_bytes() != (run.folder / SUBMISSION_FILE).read_bytes():
        raise SubmissionError(f"{run.folder / SUBMISSION_FILE} must equal {twin} and does not; delete {run.folder}.")
    write_spread(run, columns.test_ids, lambda test: predict_run(run, test, columns.test_inputs, features))
    write_atomically(run.paths.latest_run, f"{run.name}\n")
    return choice, filled


def read_cross_fitted(run: Run, candidate: str) -> CrossFitted:
    """The predictions of a candidate for the training rows."""
    table = read_table(run.folder / "cross_fitted" / f"{candidate}.parquet")
    return from_table(table, run.columns.ids, run.task.outputs, run.plan.n_folds)


def kept(selection: dict[str, Any]) -> list[str]:
    """The steps of post-processing that were kept, each with its target and its scores without and with it."""
    return [  # of known_labels no score can tell
        f"{step['step']} of {target} ({number(step['score_without'])}, {number(step['score_with'])})"
        for target, tried in selection["postprocessing"].items()
        for step in tried
        if step["kept"]
    ]


def describe(run: Run, selection: dict[str, Any]) -> list[str]:
    """The choice, the post-processing and the two comparisons, a line each."""
    lines = [f"{SUBMISSION_FILE}: {selection['chosen']}, checked against the sample"]
    if _steps(run):
        lines.append(f"post-processing: {', '.join(kept(selection)) or 'no step gained enough to be kept'}")
    elif run.plan.n_folds < FEWEST_FOLDS:
        lines.append(f"post-processing: none; its honest score needs {FEWEST_FOLDS} folds or more")
    if KNOWN_LABELS in selection["files"]:
        known = set(read_table(run.folder / KNOWN_LABELS, [INPUT_KEY])[INPUT_KEY])
        n = sum(name in known for name in run.columns.test_inputs)
        lines.append(f"known_labels: {n} test rows have the mean label of their input; no score here knows of it")
    single = selection["against"]["best_single"]
    lines.append(f"against the best single stage, {single['stage']}: {_gain(run, single)}")
    before = selection["against"]["previous_run"]
    lines.append(
        f"against the run before, {before['run']}: {_gain(run, before)}"
        if before
        else "against the run before: there is none with the same training ids and targets"
    )
    return lines


def _gain(run: Run, against: dict[str, Any]) -> str:
    if against["difference"] is None:
        return "the scores are not defined"
    gain = against["difference"] if run.metric.greater_is_better else -against["difference"]
    better = "better" if gain >= 0 else "worse"
    return f"{number(abs(gain))} {better}, standard error {number(against['standard_error'])}"


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    run = open_run(args.competition, args.seed, args.reuse, args.budget)
    with at_work(run):
        selection, filled = write(run)
        print("\n".join(describe(run, selection)))
        print(f"{SPREAD_FILE}: standard deviation of each row's prediction over seeds and folds")
        if filled:
            print(
                f"{filled} test rows that were dropped as unparsable have the mean of the training labels and no spread"
            )


if __name__ == "__main__":
    command.run(main)
