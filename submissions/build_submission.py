"""Build a submission from the predictions of the jobs: `python -m submissions.build_submission [COMPETITION]`.

It fits the blends and the stack, chooses one of them, and writes its predictions.

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

from competition.metrics import take_rows
from competition.task import Task
from core import cli
from core.files import read_table, replaced, sha256_of, write_atomically, write_json, write_table
from core.text import format_number
from core.types import Array
from core.yaml_files import dump_yaml
from models.jobs.plan import make_plan
from submissions.blend.candidates import LIGHTGBM_STACK
from submissions.blend.data import Blend
from submissions.blend.decision_rules import fit_decision
from submissions.blend.selection import CrossFit, Scorer
from submissions.blend.serialization import to_json
from submissions.blend.stack import Stack
from submissions.config import load_config
from submissions.ensemble_std import STD_FILE, std_table
from submissions.expected_score import expected_score
from submissions.left_out import EPOCHS, describe_left_out, left_out_of
from submissions.predictor import as_parts
from submissions.run import (
    BLEND_FILE,
    CANDIDATES_TABLE,
    CHOICE,
    CROSS_FITTED,
    MANIFEST,
    OOF,
    OOF_TABLE,
    PREDICTION,
    SO_FAR,
    STACK_FILE,
    STAGES,
    SUBMISSION_FILE,
    Run,
    finished_part,
    fitted_file,
    open_run,
    package_versions,
    table_digests,
    user_code_of,
)
from submissions.selection import (
    Selection,
    ablation,
    blend_data,
    compare_to_best_stage,
    compare_to_previous_run,
    scorer_of,
    select_candidate,
)
from submissions.submission_file import write_submission

JSON_CONSTANTS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}
"""JSON values of numbers that are not finite."""


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
    scorer = scorer_of(run)
    data = blend_data(run, scorer)
    selection = select_candidate(run, data, scorer)
    chosen = selection.candidates[selection.chosen]
    scored_stages = {stage: scorer.decided(stage_preds.stage_oof(stage)) for stage in run.config.stages}
    scored_candidates = {name: each.scored for name, each in selection.candidates.items()}

    submitted = {SUBMISSION_FILE: selection.chosen, BLEND_FILE: selection.chosen_blend}
    if LIGHTGBM_STACK in selection.candidates:
        submitted[STACK_FILE] = LIGHTGBM_STACK
    for file, name in submitted.items():
        _write_submission(run, folder / file, selection.candidates[name].whole.predict(stage_preds.test))
    for name, each in selection.candidates.items():
        write_json(folder / fitted_file(name), as_parts(each.whole))
    oof_table = stage_preds.table(task)
    tables = {
        OOF: oof_table,
        OOF_TABLE: oof_table,
        CROSS_FITTED: _cross_fitted_table(run, chosen),
        CANDIDATES_TABLE: _prefixed_table(run, scored_candidates),
        STAGES: _prefixed_table(run, scored_stages),
        STD_FILE: std_table(run, chosen.whole, stage_preds.names, run.plan.test_key, stage_preds.test_ids),
    }
    for file, table in tables.items():
        write_table(folder / file, table)
    choice = {
        **_choice(run, scorer, selection, scored_stages),
        "ablation": {} if interim else ablation(run, data, scorer, selection),
        "expected": expected_score(run, scorer, chosen, with_similar_rows=not interim),
    }
    settings = run.config.model_dump(mode="json", exclude_unset=True, exclude={"budget"})
    write_atomically(folder / f"{run.paths.name}.yaml", dump_yaml(settings))
    files = [*submitted, *map(fitted_file, selection.candidates), *tables]
    _write_manifest(run, folder, choice, files)


def _prefixed_table(run: Run, scored: dict[str, Array]) -> pd.DataFrame:
    """Return a table with the column `id`, and `NAME column` of what the metric scores, (n_rows, n_scored) each."""
    names = [f"{name} {column}" for name in scored for column in run.task.scored_columns]
    table = pd.DataFrame(np.hstack(list(scored.values())), run.stage_predictions.ids, names)
    return table.rename_axis("id").reset_index()


def _cross_fitted_table(run: Run, chosen: CrossFit) -> pd.DataFrame:
    """Return the id, what the metric scores of the submission, and of labels the predictions they are made from."""
    ids = run.stage_predictions.ids
    table = pd.DataFrame(chosen.scored, ids, run.task.scored_columns)
    if run.task.scores_labels:
        table[[f"{PREDICTION}{output}" for output in run.task.outputs]] = chosen.outputs
    return table.rename_axis("id").reset_index()


def _choice(
    run: Run, scorer: Scorer, selection: Selection, scored_stages: dict[str, Array]
) -> dict[str, Any]:
    """Return the part of run.json about the choice.

    Args:
        scored_stages: stage -> what the metric scores of its predictions, (n_rows, n_scored), cross-fitted.
    """
    stage_preds = run.stage_predictions
    task = run.task
    chosen = selection.candidates[selection.chosen]
    of_stages = scorer.compare(scored_stages, next(iter(scored_stages)))
    choice = {
        "decides": task.scores_labels,  # whether a decision turns predictions into labels
        "chosen": selection.chosen,
        "chosen_blend": selection.chosen_blend,
        "default": selection.default,
        "reason": selection.reason,
        "failed": selection.failed,
        "same_as_default": selection.same_as_default,
        "cross_fitted_score": selection.compared[selection.chosen].score,
        "standard_error": selection.compared[selection.chosen].score_standard_error,
        "candidates": {
            name: {**_fitted_numbers(run, each), "in_sample_score": scorer.score(each.in_sample)}
            | asdict(selection.compared[name])
            for name, each in selection.candidates.items()
        },
        "stages": {
            stage: {
                "cv_score": compared.score,
                "standard_error": compared.score_standard_error,
                "decision": to_json(_decision_of_stage(run, scorer, stage)),
            }
            for stage, compared in of_stages.items()
        },
        "against": {
            "best_single": compare_to_best_stage(scorer, chosen.scored, scored_stages),
            "previous_run": compare_to_previous_run(run, scorer, chosen.scored),
        },
    }
    if task.scores_labels:
        test = chosen.whole.predict(stage_preds.test)
        label_arrays = {"labels": stage_preds.y, "out_of_fold": chosen.scored, "test": test}
        choice["class_shares"] = {name: class_shares(task, labels) for name, labels in label_arrays.items()}
    return choice


def _decision_of_stage(run: Run, scorer: Scorer, stage: str) -> Any:
    """Return the decision that a stage alone would be submitted with; None if the metric scores predictions."""
    if not run.task.scores_labels:
        return None
    has_fold = scorer.has_fold
    y_pred = run.stage_predictions.stage_oof(stage)[has_fold]
    rows = take_rows(scorer.rows, has_fold)
    return fit_decision(run.metric, run.task, scorer.y[has_fold], y_pred, rows)


def _fitted_numbers(run: Run, candidate: CrossFit) -> dict[str, Any]:
    """Return `weights`, output -> stage -> weight (empty if it is not a weighted sum), `settings` and `decision`."""
    predictor = candidate.whole.predictor
    blend = predictor.base if isinstance(predictor, Stack) else predictor  # of a stack: its base
    weights = {}
    if isinstance(blend, Blend):
        names = run.stage_predictions.names
        for output, column in zip(run.task.outputs, blend.weights.T.tolist(), strict=True):
            weights[output] = dict(zip(names, column, strict=True))
    settings = blend.settings if isinstance(blend, Blend) else []
    return {"weights": weights, "settings": settings, "decision": to_json(candidate.whole.decision)}


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


def _write_manifest(run: Run, folder: Path, choice: dict[str, Any], files: list[str]) -> None:
    """Write run.json: what a later `predict` needs, and what the report and the command `compare` show."""
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
        CHOICE: choice,
        "files": {file: sha256_of(folder / file) for file in files},
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
        preds = run.stage_predictions
        fold_mark = stage.fold_mark(jobs[0].folder, run.config.competition.id, preds.ids, preds.folds)
        if fold_mark is not None:
            marks[fold_mark] = True
        yield {
            "name": name,
            "key": run.plan.keys[name],
            "marks": [mark for mark, is_true in marks.items() if is_true],
        }


def _lines(run: Run) -> list[str]:
    """Return lines about the candidates and the files."""
    choice = run.choice
    scores = [f"{name} {format_number(part['score'])}" for name, part in run.candidates.items()]
    return [
        *choice["failed"],
        f"cross_fitted_score of the candidates: {', '.join(scores)}",
        f"{SUBMISSION_FILE}: {choice['chosen']}, checked against the sample",
        f"{STD_FILE}: standard deviation of each row's prediction over seeds and folds",
    ]


def main() -> int:
    """Parse the command line and run the command."""
    args = cli.parser(__doc__).parse_args()
    config = load_config(args.competition, args.overrides)
    plan = make_plan(config.competition, dict(config.stages), args.reuse)
    left_out = left_out_of(plan, {})
    config, plan = finished_part(config, plan)
    with cli.locked(plan.paths, wait=True):
        run = open_run(config, plan, left_out)
        print("\n".join([*build_submission(run).lines, describe_left_out(left_out)]).strip())
    return run.exit_status


if __name__ == "__main__":
    cli.run(main)
