"""The one way to a submission: `build(run, level)`.

Blends and the stack are fitted, one of them is chosen, and its predictions are written to the folder of the
run (`submissions/manifest.py` lists its files), completely or not at all. submissions/latest gets the name of
the folder, and the folder of the competition a copy of submission.csv, unless it is not complete and they are
(`publish`).
"""

import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from core.errors import join_first
from core.files import read_table, replaced, sha256_of, write_atomically, write_json, write_table
from core.paths import display_path
from core.text import format_number
from core.user_code import short_ref
from core.yaml_files import dump_yaml
from submissions.blend.data import Blend, to_json
from submissions.blend.selection import (
    CONVEX,
    MEAN,
    CrossFit,
    Selection,
    ablation,
    in_sample_score,
    select_candidate,
)
from submissions.blend.stack import Stack
from submissions.columns import stage_alone, std_table
from submissions.expected_score import expected_score
from submissions.levels import Level
from submissions.manifest import (
    CANDIDATES_TABLE,
    CROSS_FITTED,
    EPOCHS,
    FORMAT,
    OOF_TABLE,
    SO_FAR,
    STD_FILE,
    SUBMISSION_FILE,
    CandidateScores,
    Choice,
    Compared,
    Manifest,
    StageRecord,
    StageScores,
    candidate_file,
    stage_file,
    write_manifest,
)
from submissions.run import (
    PREDICTION,
    Run,
    folds_of,
    name_of_latest,
    opened_by,
    package_versions,
    table_digests,
    user_code_of,
)
from submissions.shift import digest_of_shift
from submissions.submission_file import write_submission


def build(run: Run, level: Level = Level.FULL) -> list[str]:
    """Build the files of a run, or keep them if they are of this level or a later one; return lines to print."""
    changed = run.changed_files
    before = run.built
    if before is None or not _covers(run, before, level):
        # On one thread: several would add up numbers in any order, which changes the last digits of sums.
        with threadpool_limits(1):
            settings = level.limit(run.config.submissions)
            if run.is_unscored:
                settings = settings.model_copy(update={"default": CONVEX})
            selection = select_candidate(run.columns, run.columns.test, settings)
            with replaced(run.folder) as folder:
                _write_files(run, folder, selection, level)
    else:
        manifest = before.model_copy(update=_facts_of_command(run))
        if manifest != before:
            write_manifest(run.folder, manifest)
    yaml_settings = run.config.model_dump(mode="json", exclude_unset=True, exclude={"budget"})
    write_atomically(run.folder / f"{run.paths.name}.yaml", dump_yaml(yaml_settings))
    vars(run).pop("manifest", None)  # which was read before
    scores = [f"{name} {format_number(part.score)}" for name, part in run.candidates.items()]
    return [
        *_describe_changes(changed),
        *run.manifest.remarks,
        f"cross_fitted_score of the candidates: {', '.join(scores)}",
        f"{SUBMISSION_FILE}: {run.chosen}, checked against the sample",
        f"{STD_FILE}: ensemble disagreement of each row, over seeds and folds (not an error bar)",
        *publish(run),
    ]


def _describe_changes(changed: list[str]) -> list[str]:
    """Return a line if a submission was built again since files that user code opens have changed."""
    if not changed:
        return []
    return [f"{join_first(changed, str)}: changed since the submission was built, so it was built again"]


def _covers(run: Run, built: Manifest, level: Level) -> bool:
    """Return whether files are of a level or a later one.

    Files of this level also need the latest measured shift, on which their expected score depends.
    """
    return built.level.includes(level) and (built.level != level or built.shift == digest_of_shift(run))


def publish(run: Run) -> list[str]:
    """Make a submission the latest one; a line instead if it is not complete and the latest one is."""
    paths = run.paths
    name = run.folder.name
    latest = name_of_latest(paths)
    has_complete = latest not in ("", SO_FAR)
    file = run.folder / SUBMISSION_FILE
    if name == SO_FAR and has_complete:
        return [
            f"{display_path(file)} is not complete, "
            f"so {display_path(paths.submission)} is still of run {latest}."
        ]
    if name != latest:
        shutil.rmtree(paths.report, ignore_errors=True)  # of another run
    write_atomically(paths.latest_run, f"{name}\n")
    write_atomically(paths.submission, file.read_bytes())
    if name != SO_FAR:
        shutil.rmtree(paths.run(SO_FAR), ignore_errors=True)
    return []


def _write_files(run: Run, folder: Path, selection: Selection, level: Level) -> None:
    """Write all files of a run into `folder`, run.json last."""
    columns = run.columns
    chosen = selection.candidates[selection.chosen]
    stages = {stage: stage_alone(columns, stage) for stage in run.config.stages}
    submissions = {stage_file(name): fit for name, fit in stages.items()}
    submissions |= {candidate_file(name, ".csv"): fit for name, fit in selection.candidates.items()}
    submissions[SUBMISSION_FILE] = chosen
    sample = read_table(run.paths.sample)
    for file, fit in submissions.items():
        write_submission(
            path=folder / file,
            sample=sample,
            id_column=run.config.competition.id,
            task=run.task,
            ids=columns.test_ids,
            scored=fit.final.predict(columns.test),
            means=columns.label_means,
        )
    fitted = {candidate_file(name, ".json"): fit.final for name, fit in selection.candidates.items()}
    for file, model in fitted.items():
        write_json(folder / file, to_json(replace(model, postprocess=None)))  # a path of this machine
    tables = {
        OOF_TABLE: columns.table(chosen).head(run.n_train_rows),  # extra rows follow
        CROSS_FITTED: _cross_fitted_table(run, chosen),
        CANDIDATES_TABLE: _candidates_table(run, selection.candidates),
        STD_FILE: std_table(run.plan, chosen.final, columns.names, run.plan.test_key, columns.test_ids),
    }
    for file, table in tables.items():
        write_table(folder / file, table)
    choice = _choice(run, selection, stages, level)
    files = {file: sha256_of(folder / file) for file in (*submissions, *fitted, *tables)}
    write_manifest(folder, _manifest(run, choice, level, files))


def _candidates_table(run: Run, candidates: dict[str, CrossFit]) -> pd.DataFrame:
    """Return the id, and for each candidate `NAME column` of what the metric scores, cross-fitted."""
    names = [f"{name} {column}" for name, column in product(candidates, run.task.scored_columns)]
    scored = np.hstack([fit.scored for fit in candidates.values()])
    return pd.DataFrame(scored, run.columns.ids, names).rename_axis("id").reset_index()


def _cross_fitted_table(run: Run, chosen: CrossFit) -> pd.DataFrame:
    """Return the id, the scored values of the submission, and the predictions that labels are made from."""
    table = pd.DataFrame(chosen.scored, run.columns.ids, run.task.scored_columns)
    if run.task.scores_labels:
        table[[f"{PREDICTION}{output}" for output in run.task.outputs]] = chosen.outputs
    return table.rename_axis("id").reset_index()


def _choice(run: Run, selection: Selection, stages: dict[str, CrossFit], level: Level) -> Choice:
    """Return the candidates and the choice among them, for run.json.

    Args:
        stages: name -> the stage alone, without post-processing.
    """
    columns = run.columns
    chosen = selection.candidates[selection.chosen]
    # The submission itself, with the empty name, is what each stage is compared with.
    scored = {**{name: fit.scored for name, fit in stages.items()}, "": chosen.scored}
    compared_stages = columns.compare(scored, "").drop(index="")
    gains = columns.gain(compared_stages["score"])
    candidates = {}
    for name, fit in selection.candidates.items():
        candidates[name] = CandidateScores(
            **selection.compared.loc[name],
            **_scores(run, fit),
            **_fitted_numbers(run, fit),
            file=candidate_file(name, ".csv"),
            in_sample_score=in_sample_score(columns, fit.final),
            is_postprocessed=fit.final.postprocess is not None,
        )
    return Choice(
        scores_labels=run.task.scores_labels,
        chosen=selection.chosen,
        default=selection.default,
        reason=selection.reason,
        candidates=candidates,
        stages={
            name: StageScores(**compared_stages.loc[name], **_scores(run, fit), file=stage_file(name))
            for name, fit in stages.items()
        },
        best_stage=str(gains.fillna(-np.inf).idxmax()),
        ablation=_ablation(run, selection) if level is Level.FULL else {},
        expected=expected_score(run, chosen, selection.compared.T[selection.chosen]),
        failed=[*_missing_folds_warning(run), *selection.failed, *_other_default(run, selection)],
    )


def _missing_folds_warning(run: Run) -> list[str]:
    """Return a warning if there are models of some folds only; [] if there are of all."""
    if run.has_all_folds:
        return []
    folds = folds_of(run.plan)
    in_sample = ""
    if len(folds) == 1 and (run.task.scores_labels or run.metric.far_from_mean):
        in_sample = " Its thresholds or corrections are fitted on the rows that it is scored on."
    return [
        f"WARNING: no stage has finished. The submission is the mean of {len(folds)} of {run.plan.n_folds} "
        f"models of {', '.join(run.config.stages)} (fold {', '.join(map(str, folds))}), which held out "
        f"{run.columns.has_fold.sum()} of {run.n_train_rows} training rows.{in_sample}"
    ]


def _other_default(run: Run, selection: Selection) -> list[str]:
    """Return a line if another candidate replaces the default blend of the settings; [] otherwise."""
    default = short_ref(run.config.default_blend)
    if selection.default == default:
        return []
    return [f"The default blend {default} was not made, and {selection.default} is the default instead."]


def _scores(run: Run, fit: CrossFit) -> dict[str, Any]:
    """Return the scores of a stage or candidate per target, also in each fold."""
    of_folds = []
    for fold in sorted(run.columns.all_folds):
        in_fold = replace(run.columns, folds=np.where(run.columns.folds == fold, fold, -1))
        of_folds.append(in_fold.target_scores(fit.scored))
    return {
        "target_scores": run.columns.target_scores(fit.scored),
        "fold_scores": pd.DataFrame(of_folds).to_dict("list"),
    }


def _ablation(run: Run, selection: Selection) -> dict[str, Compared]:
    """Return the default blend without each stage."""
    blend = MEAN if selection.default == MEAN else run.config.default_blend
    try:
        compared = ablation(run.columns, run.columns.names, blend, selection.candidates[selection.default])
        return {name: Compared(**compared.loc[name]) for name in compared.index}
    except Exception as error:  # a user's function may need all columns
        reason = f"{type(error).__name__}: {error}"
        selection.failed.append(f"The leave-one-stage-out blends are left out: {reason}")
        return {}


def _fitted_numbers(run: Run, candidate: CrossFit) -> dict[str, Any]:
    """Return `weights` (output -> stage -> weight), `settings` and `thresholds`, which may be empty."""
    predictor = candidate.final.predictor
    blend = predictor.base if isinstance(predictor, Stack) else predictor  # of a stack: its base
    decision = candidate.final.decision
    thresholds = [] if decision is None else run.task.on_scale_of_levels(decision.cut_points).tolist()
    if not isinstance(blend, Blend):
        return {"weights": {}, "settings": [], "thresholds": thresholds}
    weights = pd.DataFrame(blend.weights, run.columns.names, run.task.outputs)
    return {"weights": weights.to_dict(), "settings": blend.settings, "thresholds": thresholds}


def _manifest(run: Run, choice: Choice, level: Level, files: dict[str, str]) -> Manifest:
    """Return the content of run.json."""
    return Manifest(
        format=FORMAT,
        run=run.name,
        made_from=run.made_from,
        level=level,
        columns=run.columns.names,
        sample_columns=list(read_table(run.paths.sample).columns),
        n_folds=run.plan.n_folds,
        folds=folds_of(run.plan),
        label_means=[*run.columns.label_means],
        tables=table_digests(run.paths),
        test_key=run.plan.test_key,
        user_code=user_code_of(run.config),
        opened=opened_by(run.config, run.plan),
        versions=package_versions(),
        shift=digest_of_shift(run),
        choice=choice,
        files=files,
        **_facts_of_command(run),
    )


def _facts_of_command(run: Run) -> dict[str, Any]:
    """Return what run.json has of a command, and a run of the same name and predictions may have from another one.

    These are the paths of the tables, the name of the competition, and what a budget left out.
    """
    stages = {}
    for name in run.config.stages:
        stages[name] = StageRecord(key=run.plan.keys[name], marks=_marks(run, name))
    return {
        "config": run.config.model_dump(mode="json", exclude={"budget"}),
        "stages": stages,
        "left_out": list(run.left_out),
        "budget": run.budget,
    }


def _marks(run: Run, name: str) -> list[str]:
    """Return what a reader of the tables has to know about a stage."""
    marks = {
        "other code": run.plan.is_from_other_code(name),
        "refit": run.config.stages[name].final_fit != "folds",
        "fewer epochs": any((each.stage, each.reason) == (name, EPOCHS) for each in run.left_out),
    }
    return [mark for mark, is_true in marks.items() if is_true] + [*filter(None, [run.fold_mark(name)])]
