"""Build a submission from the predictions of the jobs: `python -m submissions.build_submission [COMPETITION]`.

It fits the blends and the stack, chooses one of them, post-processes its predictions and writes them.

Reads: prepared tables, folds.csv, the predictions of all jobs; cross_fitted.csv of the previous run.
Writes: the folder of the run (submissions/run.py lists its files), completely or not at all; submissions/latest,
the name of the run; and a copy of submission.csv in the folder of the competition. A run is kept if it was
built from the same predictions and the same code.
"""

import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from competition import cli
from competition.dataset import INPUT_KEY
from competition.files import read_table, replaced, sha256_of, write_atomically, write_json, write_table
from competition.paths import Paths
from competition.task import Task
from competition.types import Array
from competition.yaml_files import dump_yaml
from models.inputs.weights import families
from models.jobs.plan import make_plan
from models.stages.file import COPY_OF_OOF, fold_mark
from submissions.blend.candidates import Blend
from submissions.blend.cross_fitting import prediction_table
from submissions.blend.postprocess import StepResult
from submissions.blend.selection_rule import SelectionRule, describe_scores, mean_over_folds, standard_error
from submissions.blend.serialization import to_json
from submissions.blend.stacks import LIGHTGBM_STACK
from submissions.config import load_config
from submissions.ensemble_std import STD_FILE, std_table
from submissions.expected_score import expected_score
from submissions.formatting import format_number
from submissions.left_out import EPOCHS, describe_left_out, left_out_of
from submissions.run import (
    BLEND,
    BLEND_FILE,
    CHOICE,
    CROSS_FITTED,
    INPUT_LABELS,
    MANIFEST,
    OOF,
    OOF_TABLE,
    SO_FAR,
    STACK,
    STACK_FILE,
    STAGES,
    SUBMISSION_FILE,
    Run,
    cross_fitted_file,
    finished_part,
    fitted_file,
    open_run,
    package_versions,
    table_digests,
    user_code_of,
)
from submissions.selection import (
    MIN_FOLDS,
    Selection,
    compare_to_best_stage,
    compare_to_previous_run,
    leave_stages_out,
    select,
    selection_rule,
    submission_model,
)
from submissions.submission_file import write_submission

JSON_CONSTANTS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}
"""JSON values of numbers that are not finite; a user-defined post-processing step may have infinite edges."""


@dataclass(frozen=True)
class Submission:
    """The folder that was built, and what to print about it."""

    folder: Path
    lines: list[str]


def build_submission(run: Run, interim: bool = False) -> Submission:
    """Build the files of a run, or keep them if nothing they depend on has changed.

    Args:
        interim: whether other stages still train. Then there is no stack, the folder is `so_far`, and the name
            of the latest run does not change.
    """
    if interim:
        settings = run.config.submissions.model_copy(update={"stack": False})
        config = run.config.model_copy(update={"submissions": settings})
        run = replace(run, folder=run.paths.run(SO_FAR), config=config)
    if not run.is_built:
        # On one thread: several would add up numbers in any order, which changes the last digits of sums.
        with threadpool_limits(1), replaced(run.folder) as folder:
            _write_files(run, folder, interim)
    if not interim:
        write_atomically(run.paths.latest_run, f"{run.name}\n")
        write_atomically(run.paths.submission, (run.folder / SUBMISSION_FILE).read_bytes())
        shutil.rmtree(run.paths.run(SO_FAR), ignore_errors=True)
    return Submission(run.folder, _lines(run))


def _write_files(run: Run, folder: Path, interim: bool) -> None:
    """Write all files of a run into `folder`, run.json last."""
    stage_preds = run.stage_predictions
    task = run.task
    rule = selection_rule(run)
    selection = select(run, rule)
    model = submission_model(run, selection)
    default_scored = selection.candidates[rule.default].scored.cross_fitted
    scored_stages = {}
    for stage in run.config.stages:
        scored_stages[stage] = rule.apply_cross_fitted_decisions(stage_preds.stage_oof(stage))
    stage_columns = [f"{stage} {name}" for stage in scored_stages for name in task.scored_columns]

    blends = [name for name in selection.candidates if name != LIGHTGBM_STACK]
    blend = _write_candidates(run, folder, rule, selection, blends, BLEND_FILE, selection.chosen_blend)
    single_stages = {stage: [stage] for stage in sorted(run.config.stages)}
    for key, groups in {"drop_one": single_stages, "drop_family": families(dict(run.config.stages))}.items():
        blend[key] = {} if interim else leave_stages_out(run, rule, default_scored, groups)
    parts = {BLEND: blend}
    if LIGHTGBM_STACK in selection.candidates:
        parts[STACK] = _write_candidates(
            run, folder, rule, selection, [LIGHTGBM_STACK], STACK_FILE, LIGHTGBM_STACK
        )
    oof_table = stage_preds.table(task)
    tables = {
        OOF: oof_table,
        OOF_TABLE: oof_table,
        CROSS_FITTED: prediction_table(stage_preds.ids, task.scored_columns, selection.cross_fitted),
        STAGES: prediction_table(stage_preds.ids, stage_columns, np.hstack(list(scored_stages.values()))),
        STD_FILE: std_table(run, model, run.plan.test_key, stage_preds.test_ids, stage_preds.test_inputs),
    }
    if model.input_labels is not None:
        tables[INPUT_LABELS] = model.input_labels.reset_index()
    for file, table in tables.items():
        write_table(folder / file, table)
    _write_submission(run, folder / SUBMISSION_FILE, model.predict(stage_preds.test, stage_preds.test_inputs))
    parts[CHOICE] = {
        **_choice(run, rule, selection, scored_stages),
        "expected": expected_score(run, rule, model, selection.cross_fitted, with_similar_rows=not interim),
        "files": [*tables, SUBMISSION_FILE],
    }
    settings = run.config.model_dump(mode="json", exclude_unset=True, exclude={"budget"})
    write_atomically(folder / f"{run.paths.name}.yaml", dump_yaml(settings))
    _write_manifest(run, folder, parts)


def _write_candidates(
    run: Run, folder: Path, rule: SelectionRule, selection: Selection, names: list[str], file: str, best: str
) -> dict[str, Any]:
    """Write candidates with their predictions, and the submission of the best; return their part of run.json."""
    task = run.task
    ids = run.stage_predictions.ids
    _write_submission(run, folder / file, selection.candidates[best].predict(run.stage_predictions.test))
    files = [file]
    described = {}
    for name in names:
        candidate = selection.candidates[name]
        fitted = candidate.predictions.fitted
        write_json(folder / fitted_file(name), to_json(fitted))
        tables = {cross_fitted_file(name): candidate.predictions.table(ids, task.outputs)}
        if task.scores_labels:
            tables[cross_fitted_file(name, labels=True)] = candidate.scored.table(ids, task.scored_columns)
        for path, table in tables.items():
            write_table(folder / path, table)
        files += [fitted_file(name), *tables]
        described[name] = {
            "weights": _weights(run, getattr(fitted, "base", fitted)),  # of a stack: those of its base blend
            "decision": to_json(candidate.decision),
            **describe_scores(rule, candidate.scored),
            "score_standard_error": standard_error(rule, candidate.scored.cross_fitted),
        }
    return {"candidates": described, "default": rule.default, "chosen": best, "files": files}


def _weights(run: Run, fitted: Any) -> dict[str, dict[str, float]]:
    """Return output -> base prediction -> weight; empty if the candidate is not a weighted sum."""
    if not isinstance(fitted, Blend):
        return {}
    rows = zip(run.task.outputs, fitted.weights.T.tolist(), strict=True)
    return {output: dict(zip(run.stage_predictions.names, row, strict=True)) for output, row in rows}


def _choice(
    run: Run, rule: SelectionRule, selection: Selection, scored_stages: dict[str, Array]
) -> dict[str, Any]:
    """Return the part of run.json about the choice.

    Args:
        scored_stages: stage -> what the metric scores of its predictions, (n_rows, n_scored), cross-fitted.
    """
    stage_preds = run.stage_predictions
    task = run.task
    y_pred = selection.cross_fitted
    decisions = {stage: rule.fit_decision(stage_preds.stage_oof(stage)) for stage in scored_stages}
    choice = {
        "decides": task.scores_labels,  # whether a decision turns predictions into labels
        "chosen": selection.chosen,
        "default": rule.default,
        "reason": selection.reason,
        "candidates": {name: asdict(comparison) for name, comparison in selection.comparisons.items()},
        "same_as_default": selection.same_as_default,
        "postprocessing": _postprocessing(run, selection),
        # The score of the chosen candidate after post-processing. "procedure" has the scores of the whole selection:
        # candidate and steps are chosen again without each fold.
        "cross_fitted_score": rule.score(selection.steps.cross_fitted),
        "procedure": {
            "cross_fitted_score": rule.score(y_pred),
            "standard_error": standard_error(rule, y_pred),
            **mean_over_folds(rule, y_pred),
            "chosen_without_fold": selection.chosen_without_fold,
        },
        "stages": {
            stage: {
                "cv_score": rule.score(stage_pred),
                "standard_error": standard_error(rule, stage_pred),
                "decision": to_json(decisions[stage]),
            }
            for stage, stage_pred in scored_stages.items()
        },
        "against": {
            "best_single": compare_to_best_stage(rule, y_pred, scored_stages),
            "previous_run": compare_to_previous_run(run, rule, y_pred),
        },
    }
    if task.scores_labels:
        test = selection.candidates[selection.chosen].predict(stage_preds.test)
        label_arrays = {"labels": stage_preds.y, "out_of_fold": y_pred, "test": test}
        choice["class_shares"] = {name: class_shares(task, labels) for name, labels in label_arrays.items()}
    return choice


def _postprocessing(run: Run, selection: Selection) -> dict[str, list[dict[str, Any]]]:
    """Return target -> the steps that were tried, in order."""
    steps: dict[str, list[dict[str, Any]]] = {}
    for target, results in zip(run.task.targets, selection.steps.results, strict=True):
        steps[target] = [result.to_dict() for result in results]
    if "known_labels" in run.config.postprocess:
        # No score: rows with equal inputs share a fold, so no held-out row has a known label.
        nan = float("nan")
        for results_of_target in steps.values():
            results_of_target.append(StepResult("known_labels", True, nan, nan, nan).to_dict())
    return steps


def class_shares(task: Task, labels: Array) -> dict[str, dict[str, float]]:
    """Return target -> class -> its share of the labels (n_rows, n_targets) that are not missing."""
    shares = {}
    for target, y in zip(task.targets, labels.T, strict=True):
        labelled = y[~np.isnan(y)]
        shares[target] = {name: np.mean(labelled == c) for c, name in enumerate(task.classes)}
    return shares


def _write_submission(run: Run, path: Path, scored: Array) -> None:
    """Write labels or predictions (n_test_rows, n_scored), checked against the sample."""
    stage_preds = run.stage_predictions
    sample = read_table(run.paths.sample)
    id_column = run.config.competition.id
    write_submission(path, sample, id_column, run.task, stage_preds.test_ids, scored, stage_preds.label_means)


def _write_manifest(run: Run, folder: Path, parts: dict[str, dict[str, Any]]) -> None:
    """Write run.json: what a later `predict` needs, and what the report and the command `compare` show."""
    for part in parts.values():
        part["files"] = {file: sha256_of(folder / file) for file in part["files"]}
    content = {
        "run": run.name,
        "made_from": run.made_from,
        "config": run.config.model_dump(mode="json", exclude={"budget"}),
        "stages": list(_stages(run)),
        "columns": run.stage_predictions.names,
        "sample_columns": list(read_table(run.paths.sample).columns),
        "n_folds": run.plan.n_folds,
        "label_means": run.stage_predictions.label_means,
        "tables": table_digests(run.paths),
        "test_key": run.plan.test_key,
        "user_code": user_code_of(run.config),
        "versions": package_versions(),
        "left_out": [asdict(left_out) for left_out in run.left_out],
        "worker_seconds": run.worker_seconds,
        "budget": run.budget,
        **parts,
    }
    text = json.dumps(content, default=str)  # str is for paths
    write_json(folder / MANIFEST, json.loads(text, parse_constant=JSON_CONSTANTS.get))


def _stages(run: Run) -> Iterable[dict[str, Any]]:
    """Yield name, key and marks of each stage."""
    for name, stage in sorted(run.config.stages.items()):
        jobs = run.plan.jobs_of_stage(name)
        marks = {
            "other code": any(job.from_other_code for job in jobs),
            "pseudo-labels": stage.pseudo_labels is not None,
            "refit": stage.final_fit != "folds",
            "class weights": stage.reweights_classes,
            "fewer epochs": any((each.stage, each.reason) == (name, EPOCHS) for each in run.left_out),
        }
        if stage.kind == "file":
            oof = jobs[0].folder / COPY_OF_OOF
            mark = fold_mark(
                oof, run.config.competition.id, run.stage_predictions.ids, run.stage_predictions.folds
            )
            if mark is not None:
                marks[mark] = True
        yield {
            "name": name,
            "key": run.plan.keys[name],
            "marks": [mark for mark, is_true in marks.items() if is_true],
        }


def _lines(run: Run) -> list[str]:
    """Return lines about the files, and about post-processing that the report does not contain."""
    choice = run.stored[CHOICE]
    scores = [f"{name} {format_number(part['cross_fitted_score'])}" for name, part in run.candidates.items()]
    lines = [
        f"cross_fitted_score of the candidates: {', '.join(scores)}",
        f"{SUBMISSION_FILE}: {choice['chosen']}, checked against the sample",
        f"{STD_FILE}: standard deviation of each row's prediction over seeds and folds",
    ]
    if run.plan.n_folds < MIN_FOLDS:
        lines.append(f"post-processing: none, since with fewer than {MIN_FOLDS} folds it has no honest score")
    if INPUT_LABELS in choice["files"]:
        inputs = read_table(run.folder / INPUT_LABELS, [INPUT_KEY])[INPUT_KEY]
        n_known = pd.Series(run.stage_predictions.test_inputs).isin(inputs).sum()
        lines.append(
            f"known_labels: {n_known} test rows have the mean label of their input; no score includes this"
        )
    return lines


def main() -> int:
    """Parse the command line and run the command."""
    args = cli.parser(__doc__).parse_args()
    config = load_config(args.competition, args.overrides)
    paths = Paths.for_competition(args.competition)
    plan = make_plan(config.competition, dict(config.stages), paths, args.reuse)
    left_out = left_out_of(plan, {})
    config, plan = finished_part(config, plan)
    with cli.locked(paths, wait=True):
        run = open_run(config, plan, left_out)
        print("\n".join([*build_submission(run).lines, describe_left_out(left_out)]).strip())
    return run.exit_status


if __name__ == "__main__":
    cli.run(main)
