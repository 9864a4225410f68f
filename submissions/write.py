"""Choose among all candidates, post-process and write the submission: `python -m submissions.write [COMPETITION]`.

Reads: what submissions.blend and submissions.stack left, the labels, folds.csv, the test predictions; and the
cross-fitted predictions of the run before this one.
Writes into the run's folder: cross_fitted.csv, its part of run.json, submission.csv (the same bytes as blend.csv or
stack.csv where no post-processing was kept) and spread.csv; and submissions/latest, the name of this run.
"""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from competition import command
from competition.errors import DataError
from competition.files import read_table, write_atomically, write_table
from competition.tables import INPUT_KEY, own_rows
from competition.task import Task
from competition.types import Array
from models.jobs.folder import read_predictions
from models.jobs.plan import ALL
from submissions.blend.crossfit import CrossFitted, Rule, compare, decide, mean_over_folds, standard_error, table_of
from submissions.blend.postprocess import Tried, choose_steps
from submissions.blend.stored import from_json, to_json
from submissions.columns import jobs_of_columns
from submissions.fitted import KNOWN_LABELS, candidate_of, read_cross_fitted, rule_of, submission_of
from submissions.run import CHOICE, CROSS_FITTED, STAGES, SUBMISSION_FILE, Run, at_work, name_of_latest, scored_rows

SPREAD_FILE = "spread.csv"
FEWEST_FOLDS = 4
"""For post-processing: without a fold, three leave blends of a single one, which spread otherwise than those of two."""


def write(run: Run) -> tuple[dict[str, Any], int]:
    """Choose, write submission.csv; returns the choice and how many rows could not be read."""
    run.require_candidates()
    choice, columns = select(run), run.columns
    filled = run.write_submission(SUBMISSION_FILE, submission_of(run)(columns.test, columns.test_inputs))
    write_table(run.folder / SPREAD_FILE, table_of(columns.test_ids, run.task.outputs, spread(run)))
    write_atomically(run.paths.latest_run, f"{run.name}\n")
    return choice, filled


def select(run: Run) -> dict[str, Any]:
    """The part `choice` of run.json, made or kept: every candidate against the default, post-processing, scores."""
    if part := run.kept(CHOICE):
        return part
    rule, wanted, task = rule_of(run), run.config.postprocess, run.task
    steps = [step for step in wanted if step != "known_labels"] if run.plan.n_folds >= FEWEST_FOLDS else []
    predictions = {name: read_cross_fitted(run, name, scored=True) for name in run.candidates}
    chosen, reason, compared, same = decide(rule, predictions)
    chain = choose_steps(rule, steps, predictions[chosen].cross_fitted, rule.scored)
    y_pred, chosen_without = without_each_fold(rule, predictions, steps)
    write_table(run.folder / CROSS_FITTED, table_of(run.columns.ids, task.scored, y_pred))
    tried = {target: [each.stored() for each in of] for target, of in zip(task.targets, chain.tried, strict=True)}
    files, stages = [CROSS_FITTED, STAGES], {name: rule.decided(run.columns.oof_of(name)) for name in run.config.stages}
    names = [f"{stage} {name}" for stage in stages for name in task.scored]
    write_table(run.folder / STAGES, table_of(run.columns.ids, names, np.hstack(list(stages.values()))))
    decisions = {stage: rule.decision(run.columns.oof_of(stage), rule.scored) for stage in stages}
    if "known_labels" in wanted:
        own = own_rows(read_table(run.paths.train))
        truth = pd.DataFrame(task.truth(own[task.targets].to_numpy()), index=own[INPUT_KEY])
        means = truth.groupby(level=0).mean().dropna(how="all")
        known = task.likeliest(means.to_numpy()) if task.decides else means.to_numpy()
        write_table(run.folder / KNOWN_LABELS, pd.DataFrame(known, means.index, task.scored).reset_index())
        files.append(KNOWN_LABELS)
        nan = float("nan")  # rows of one input share a fold: without the fold no label of theirs is known
        for of_target in tried.values():
            of_target.append(Tried("known_labels", True, nan, nan, nan).stored())
    part = {
        "decides": task.decides,
        "chosen": chosen,
        "default": rule.default,
        "reason": reason,
        "candidates": {name: asdict(part) for name, part in compared.items()},
        "same_as_default": same,
        "postprocessing": tried,
        "cross_fitted_score": rule.score(chain.cross_fitted),
        "procedure": {
            "cross_fitted_score": rule.score(y_pred),
            "standard_error": standard_error(rule, y_pred),
            **mean_over_folds(rule, y_pred),
            "chosen_without_fold": chosen_without,
        },
        "stages": {s: {"cv_score": rule.score(of), "decision": to_json(decisions[s])} for s, of in stages.items()},
        "against": {
            "best_single": _against_best_stage(rule, y_pred, stages),
            "previous_run": _against_previous(run, rule, y_pred),
        },
    }
    if task.decides:
        decision = from_json(run.candidates[chosen]["decision"])
        labels = {"labels": run.columns.y, "out_of_fold": y_pred}
        labels["test"] = decision.predict(candidate_of(run, chosen)(run.columns.test))
        part["class_shares"] = {name: class_shares(task, of) for name, of in labels.items()}
    return run.keep(CHOICE, part, files)


def without_each_fold(rule: Rule, predictions: dict[str, CrossFitted], steps: list[str]) -> tuple[Array, list[str]]:
    """All that `select` does, repeated without each fold: predictions, and the candidate chosen without each fold.

    For fold k the candidate is chosen, and the steps on it are chosen and fitted, on the rows of the other folds, each
    predicted without its own fold and fold k; the winner, refitted without fold k, predicts fold k; where the metric
    scores labels, a decision that was fitted on the other folds has made them. Rows with fold -1 are NaN.
    """
    y_pred, chosen_without = np.full(predictions[rule.default].in_sample.shape, np.nan), []
    for fold in range(len(predictions[rule.default].nested)):
        name, *_ = decide(rule, predictions, fold)
        own, others = rule.folds == fold, rule.scored & (rule.folds != fold)
        chain = choose_steps(rule, steps, predictions[name].nested[fold], others)
        y_pred[own] = chain.apply(predictions[name].cross_fitted[own])
        chosen_without.append(name)
    return y_pred, chosen_without


def spread(run: Run) -> Array:
    """How far the models behind a submission disagree on each test row: its standard deviation, (n_rows, n_outputs),
    of predictions also where labels are submitted.

    Each member is the submission as one model per column makes it: of one fold, and of the first, second and so on seed
    of every column; one with fewer seeds than another begins again. Refits are in no member. The number ranks rows that
    are worth a look or a measurement and is no error bar, since all models may be wrong together.
    Source: the disagreement of an ensemble as in Lakshminarayanan et al., NeurIPS 2017.
    """
    ids, inputs = run.columns.test_ids, run.columns.test_inputs
    jobs = [[job for job in part if job.fold != ALL] for part in jobs_of_columns(run.config, run.plan).values()]
    predict, members = submission_of(run, decided=False), []
    for member in range(max(map(len, jobs))):  # by seed, then fold: all have the same fold in a round
        files = [part[member % len(part)].test_file(run.plan.test_key) for part in jobs]
        columns = np.stack([read_predictions(file, ids, run.task.outputs) for file in files], axis=1)
        members.append(predict(columns, inputs))
    return np.std(members, axis=0, ddof=1)


def class_shares(task: Task, labels: Array) -> dict[str, dict[str, float]]:
    """Target -> class -> its share of the labels (n_rows, n_targets) that are there."""
    known = {target: column[~np.isnan(column)] for target, column in zip(task.targets, labels.T, strict=True)}
    return {t: {name: np.mean(of == c) for c, name in enumerate(task.classes)} for t, of in known.items()}


def _against(rule: Rule, y_pred: Array, name: str, other: Array) -> dict[str, Any]:
    """Paired difference of the submission to other predictions, on the rows that both predict."""
    both = rule.scored & np.isfinite(other).all(axis=1)
    paired = compare(replace(rule, default="other"), {"other": other, "own": y_pred}, both)["own"]
    return {"name": name, "difference": paired.difference, "standard_error": paired.standard_error}


def _against_best_stage(rule: Rule, y_pred: Array, stages: dict[str, Array]) -> dict[str, Any]:
    """The same to the stage with the best score of its own; it was found on these rows, which favours it a little."""
    scores = {stage: rule.score(of) for stage, of in stages.items()}
    best = max(scores, key=lambda stage: np.nan_to_num(rule.gain(scores[stage]), nan=-np.inf))
    return {"cv_score": scores[best], **_against(rule, y_pred, best, stages[best])}


def _against_previous(run: Run, rule: Rule, y_pred: Array) -> dict[str, Any] | None:
    """The same to the latest run before this one, on the rows of both; None where there is none, or other targets."""
    name = name_of_latest(run.paths)
    if name in ("", run.name):
        return None
    try:
        before = scored_rows(run.paths.run(name), run.task).reindex(index=run.columns.ids, columns=run.task.scored)
    except DataError:  # that run is not finished, or its files are gone or changed
        return None
    return _against(rule, y_pred, name, before.to_numpy()) if before.notna().all(axis=1).any() else None


def describe(run: Run, choice: dict[str, Any]) -> list[str]:
    """What is submitted, and what the report does not say of its post-processing."""
    lines = [f"{SUBMISSION_FILE}: {choice['chosen']}, checked against the sample"]
    if run.plan.n_folds < FEWEST_FOLDS:
        lines.append(f"post-processing: none, since with fewer than {FEWEST_FOLDS} folds it has no honest score")
    if KNOWN_LABELS in choice["files"]:
        known = read_table(run.folder / KNOWN_LABELS, [INPUT_KEY])[INPUT_KEY]
        n = pd.Series(run.columns.test_inputs).isin(known).sum()
        lines.append(f"known_labels: {n} test rows have the mean label of their input; no score here knows of it")
    return lines


def main() -> None:
    """Command line."""
    with at_work(__doc__) as run:
        choice, filled = write(run)
        print("\n".join(describe(run, choice)))
        print(f"{SPREAD_FILE}: standard deviation of each row's prediction over seeds and folds")
        if filled:
            print(f"{filled} test rows that cannot be read have {run.what_fills} and no spread")


if __name__ == "__main__":
    command.run(main)
