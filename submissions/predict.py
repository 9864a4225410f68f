"""Predictions of new rows with the saved weights of the latest run.

Written are test.parquet, submission.csv and spread.csv in predictions/<key of the table>/.
"""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from competition.dataset import REFIT_FOLD
from competition.prepare import describe_raw_inputs, prepare_test, require_owned_outputs
from core.errors import join_first
from core.files import digest, read_json, write_table
from core.paths import Paths
from core.user_code import short_ref
from models.jobs.local import LocalExecutor
from models.jobs.plan import Job
from models.jobs.predictions import read_predictions, stage_test_std
from models.jobs.train import predict_jobs
from submissions.blend.selection import Fitted
from submissions.blend.serialization import from_json
from submissions.columns import load_test_predictions
from submissions.run import Run, candidate_file, latest_run, require_same_code, verify_files
from submissions.submission_file import write_submission

STD_FILE = "spread.csv"
"""File with the standard deviation of each row's prediction over seeds and folds."""


def predict(name: str, test_file: Path, n_workers: int | None) -> Path:
    """Predict the rows of `test_file` with the submission model of the latest run; return the written file."""
    paths = Paths.for_competition(name)
    if name.endswith((".yaml", ".yml")):
        require_owned_outputs(paths, Path(name))
    run = latest_run(name)
    config, competition, stored = run.config, run.config.competition, run.stored
    require_same_code(config, stored)
    print(f"run {run.folder.name}: {run.chosen}", flush=True)
    table, raw, dropped = prepare_test(competition, test_file)
    for line in describe_raw_inputs(raw, competition, test_file.name):
        print(line, flush=True)
    folder = paths.prediction(digest([list(raw[competition.id]), table.to_csv(index=False)]))
    new = Paths(paths.name, folder / "test.parquet")
    write_table(new.test, table)
    jobs = [job for job in run.plan.jobs if job.predicts_test]
    with closing(LocalExecutor(n_workers)) as executor:
        test_key = predict_jobs(replace(run.plan, jobs=jobs, paths=new), executor)
    predicted_ids = list(table[competition.id])
    model = load_candidate(run, run.chosen)
    names = stored["columns"]
    scored = model.predict(load_test_predictions(run.plan, names, test_key, predicted_ids))
    std = std_table(run, model, names, test_key, predicted_ids)
    if len(std.columns) > 1:
        write_table(folder / STD_FILE, std)
    sample = raw.reindex(columns=stored["sample_columns"], fill_value="")
    file = folder / "submission.csv"
    write_submission(file, sample, competition.id, run.task, predicted_ids, scored, stored["label_means"])
    if dropped:
        print(
            f"{len(dropped)} unreadable rows get the mean, or the most frequent, training label: {join_first(dropped)}"
        )
    return file


def load_candidate(run: Run, name: str) -> Fitted:
    """Return a candidate of a finished run; a DataError if its file has changed."""
    file = candidate_file(name, ".json")
    verify_files(run.folder, file)
    code_refs = {short_ref(blend): blend for blend in run.config.blends}
    code_ref = code_refs.get(name, run.config.default_blend)  # the blend in a stack is the default one
    fitted: Fitted = from_json(read_json(run.folder / file, "class"), code_ref)
    return replace(fitted, postprocess=run.config.submissions.postprocess)


def std_table(run: Run, model: Fitted, names: list[str], test_key: str, ids: list[str]) -> pd.DataFrame:
    """Return the table of `spread.csv`: the id, the disagreement of the ensemble on each output, and the
    standard deviations of stages with `predict_std`, named `<output> std of <stage>`.

    The disagreement is the standard deviation over the members; there is none for one member, such as a
    refit. A member is the submission with one model per column: that of one fold and one seed; a column with
    fewer seeds than another reuses its first ones. Refits are not members. Predictions are those before
    post-processing and decisions. The numbers rank rows that deserve a look or a measurement. They are not
    error bars, since all models may be wrong together. Source: the disagreement of an ensemble as in
    Lakshminarayanan et al., NeurIPS 2017.

    Args:
        names: the stages in the order of the blend's columns.
        test_key: key of the table that all jobs have predicted.
        ids: ids of its rows.
    """
    outputs = run.task.outputs
    # Position of a column -> jobs, by seed and fold, so that folds agree.
    fold_jobs: dict[int, list[Job]] = {}
    for position, name in enumerate(names):
        jobs = run.plan.jobs_of_stage(name)
        of_folds = [job for job in jobs if job.fold != REFIT_FOLD and job.has_predicted(test_key)]
        if jobs:  # a packed run has only the stages with weight
            fold_jobs[position] = of_folds or [job for job in jobs if job.fold == REFIT_FOLD]
    members = []
    for member in range(max(map(len, fold_jobs.values()))):
        preds = np.zeros((len(ids), len(names), len(outputs)))
        for position, jobs in fold_jobs.items():
            file = jobs[member % len(jobs)].test_file(test_key)
            preds[:, position] = read_predictions(file, ids, outputs)
        members.append(model.predictor.predict(preds))
    table = pd.DataFrame({"id": ids})
    if len(members) > 1:
        table[outputs] = np.std(members, axis=0, ddof=1)
    for stage in run.config.stages:
        std = stage_test_std(run.plan.jobs_of_stage(stage), test_key, ids, outputs)
        if std is not None:
            table[[f"{output} std of {stage}" for output in outputs]] = std
    return table
