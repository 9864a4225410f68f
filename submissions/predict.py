"""Predictions of new rows with the saved weights of the latest run.

Written are test.parquet, submission.csv and spread.csv in predictions/<key of the table>/.
"""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from competition.clean import describe_raw_inputs
from competition.dataset import read_prepared
from competition.prepare import describe_dropped, prepare_test, require_owned_outputs
from competition.summary import describe_new_categories
from core.files import digest, read_json, write_table
from core.paths import Paths
from core.user_code import short_ref
from models.jobs.local import LocalExecutor
from models.jobs.plan import describe_other_code
from models.jobs.train import predict_jobs
from submissions.blend.data import from_json
from submissions.blend.selection import Fitted
from submissions.columns import load_test_predictions, std_table
from submissions.manifest import STD_FILE, candidate_file, verify_files
from submissions.run import Run, latest_run, require_same_code
from submissions.submission_file import write_submission


def predict(name: str, test_file: Path, n_workers: int | None) -> Path:
    """Predict the rows of `test_file` with the submission model of the latest run; return the file."""
    if name.endswith((".yaml", ".yml")):
        require_owned_outputs(Paths.for_competition(name), Path(name))
    return predict_with(latest_run(name), test_file, n_workers)


def predict_with(run: Run, test_file: Path, n_workers: int | None) -> Path:
    """Predict the rows of `test_file` with the submission model of a run; return the written file.

    It has the columns of the sample submission, and the ids and the order of the rows of `test_file`. Rows and cells
    that cannot be read are treated as with `unparsable: drop`, whatever the run has, with a WARNING.
    """
    # New rows are tolerated as a notebook needs it: one of them that cannot be read must not cost all others.
    competition = run.config.competition.model_copy(update={"unparsable": "drop"})
    manifest = run.manifest
    require_same_code(run.config, manifest)
    stages = run.stages_with_weight
    plan = replace(run.plan, stages=stages, jobs=[job for job in run.plan.jobs if job.stage in stages])
    for line in [*describe_other_code(plan), f"run {run.folder.name}: {run.chosen} of {', '.join(stages)}"]:
        print(line, flush=True)
    table, raw, dropped = prepare_test(competition, test_file, n_workers)
    lines = [*describe_raw_inputs(raw, competition, test_file.name)]
    lines += describe_dropped(dropped_test=dropped)
    if competition.categorical and run.paths.train.exists():
        train = read_prepared(run.paths.train)  # of the latest settings, which may have other columns
        if {*competition.categorical} <= {*train}:
            lines += describe_new_categories(train, table, competition)
    for line in lines:
        print(line, flush=True)
    folder = run.paths.prediction(digest([list(raw[competition.id]), table.to_csv(index=False)]))
    new = Paths(run.paths.name, folder / "test.parquet")
    write_table(new.test, table)
    model = load_candidate(run, run.chosen)  # before a `full` beside this command replaces it
    jobs = [job for job in plan.jobs if job.predicts_test]
    with closing(LocalExecutor(n_workers)) as executor:
        test_key = predict_jobs(replace(plan, jobs=jobs, paths=new), executor)
    predicted_ids = list(table[competition.id])
    names = manifest.columns
    scored = model.predict(load_test_predictions(plan, names, test_key, predicted_ids))
    std = std_table(plan, model, names, test_key, predicted_ids)
    if len(std.columns) > 1:
        write_table(folder / STD_FILE, std)
    sample = raw.reindex(columns=manifest.sample_columns, fill_value="")
    file = folder / "submission.csv"
    write_submission(file, sample, competition.id, run.task, predicted_ids, scored, manifest.label_means)
    return file


def load_candidate(run: Run, name: str) -> Fitted:
    """Return a candidate of a finished run; a DataError if its file has changed."""
    file = candidate_file(name, ".json")
    verify_files(run.folder, file, manifest=run.manifest)
    code_refs = {short_ref(blend): blend for blend in run.config.blends}
    code_ref = code_refs.get(name, run.config.default_blend)  # the blend in a stack is the default one
    fitted: Fitted = from_json(read_json(run.folder / file, "class"), code_ref)
    is_postprocessed = run.candidates[name].is_postprocessed
    return replace(fitted, postprocess=run.config.submissions.postprocess if is_postprocessed else None)
