"""Predict new rows with the saved weights: `./run.sh predict [COMPETITION] --test F [--out F]`.

Reads: the new test table, and the folders of the latest run and of its jobs; not the YAML, nor the training
table. Writes: predictions/<key of the table>/ with test.parquet, submission.csv and spread.csv, and --out if given.
"""

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from competition.prepare import describe_raw_inputs, prepare_test, require_owned_outputs
from core import cli
from core.errors import ConfigError, join_first
from core.files import digest, write_table
from core.paths import Paths, display_path
from models.jobs.local import LocalExecutor
from models.jobs.train import predict_jobs
from submissions.ensemble_std import STD_FILE, std_table
from submissions.predictor import load_model
from submissions.run import latest_run, require_same_code
from submissions.stage_predictions import load_test_predictions
from submissions.submission_file import write_submission


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
    model = load_model(run)
    names = stored["columns"]
    scored = model.predict(load_test_predictions(run.plan, run.task, names, test_key, predicted_ids))
    std = std_table(run, model, names, test_key, predicted_ids)
    if len(std.columns) > 1:
        write_table(folder / STD_FILE, std)
    sample = raw.reindex(columns=stored["sample_columns"], fill_value="")
    file = folder / "submission.csv"
    write_submission(file, sample, competition.id, run.task, predicted_ids, scored, stored["label_means"])
    if dropped:
        print(f"{len(dropped)} unreadable rows get {run.fallback_description}: {join_first(dropped)}")
    return file


def main() -> None:
    """Parse the command line and run the command."""
    options = cli.parser(__doc__, takes=("workers", "holdout"))
    options.add_argument("--test", required=True, type=Path, help="CSV with the ids and inputs of new rows.")
    options.add_argument("--out", type=Path, help="File for a copy of the submission.")
    args = options.parse_args()
    if args.out and args.out.is_dir():
        raise ConfigError(f"--out must be a file; {args.out} is a folder.")
    with cli.locked(Paths.for_competition(args.competition)):
        written = predict(args.competition, args.test, args.workers)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(written, args.out)
    print(f"Written: {display_path(args.out or written)}")


if __name__ == "__main__":
    cli.run(main)
