"""Predict new rows with the saved weights: `./run.sh predict [COMPETITION] --test F [--out F]`.

Reads: the new test table, the folder of the latest run and of its jobs. Neither the YAML nor the training table.
Writes: predictions/<key of the table>/test.parquet and submission.csv, and --out where it is given.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from competition import command
from competition.config import require_own_products, validate
from competition.errors import ConfigError, DataError
from competition.files import digest, read_json, write_table
from competition.paths import Paths
from competition.prepare import prepare_test
from competition.tables import INPUT_KEY
from models.jobs.plan import jobs_of
from models.jobs.predict import predict_jobs
from models.jobs.predictions import stage_test
from submissions.apply import MANIFEST, predict_run, submission_table, write_submission
from submissions.config import Config
from submissions.features import features_of


@dataclass(frozen=True)
class TestPaths(Paths):
    """Products of a competition, with another test table."""

    __test__ = False  # for pytest this is no test
    new_test: Path

    @property
    def test(self) -> Path:
        """The new table."""
        return self.new_test


def predict(name: str, test_file: Path, n_workers: int | None) -> Path:
    """Predict the rows of `test_file` with the chosen submission of the latest run; returns the file written.

    Raises:
        DataError: if there is no run, a job of it is incomplete, or the table is wrong.
        SubmissionError: if a prediction is not finite.
    """
    paths = Paths.of(name)
    if name.endswith((".yaml", ".yml")):
        require_own_products(paths, Path(name))
    if not paths.latest_run.exists():
        raise DataError(
            f"{paths.root} must hold a finished run before it can predict; run ./run.sh full {name} first, "
            "and look at the name."
        )
    run_folder = paths.run(paths.latest_run.read_text().strip())
    manifest = read_json(
        run_folder / MANIFEST, "config", "stages", "columns", "sample_columns", "label_means", "n_folds"
    )
    config = validate(Config, manifest["config"], run_folder / MANIFEST)
    competition = config.competition
    table, ids, dropped = prepare_test(competition, str(test_file))
    folder = paths.prediction(digest([ids, table.to_csv(index=False)]))
    new = TestPaths(paths.name, folder / "test.parquet")
    write_table(new.test, table)
    jobs = [
        job
        for stage in manifest["stages"]
        for job in jobs_of(stage["name"], config.stages[stage["name"]], stage["key"], manifest["n_folds"], paths)
        if job.in_column
    ]
    test_key = predict_jobs(jobs, dict(config.stages), competition, new, n_workers)
    kept = list(table[competition.id])
    columns = {
        name: stage_test(
            [job for job in jobs if job.stage == column["stage"] and job.seed in column["seeds"]],
            test_key, kept, competition.targets,
        )
        for name, column in manifest["columns"].items()
    }  # fmt: skip
    submission, _ = submission_table(
        pd.DataFrame({name: ids if name == competition.id else "" for name in manifest["sample_columns"]}),
        competition.id, dict(zip(competition.targets, competition.columns_in_sample, strict=True)),
        kept, predict_run(run_folder, columns, list(table[INPUT_KEY]), features_of(config, new.test, new.cache)),
        manifest["label_means"],
    )  # fmt: skip
    write_submission(folder / "submission.csv", submission, submission, competition.id)
    if dropped:
        print(f"{len(dropped)} rows could not be parsed and have the mean of the training labels")
    return folder / "submission.csv"


def main() -> None:
    """Command line."""
    options = command.parser(__doc__, takes=("workers", "holdout"))
    options.add_argument("--test", required=True, type=Path, help="CSV with the ids and inputs of new rows")
    options.add_argument("--out", type=Path, help="copy of the submission")
    args = options.parse_args()
    if args.out and args.out.is_dir():
        raise ConfigError(f"--out must be a file; {args.out} is a folder.")
    with command.locked(Paths.of(args.competition)):
        written = predict(args.competition, args.test, args.workers)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(written, args.out)
    print(args.out or written)


if __name__ == "__main__":
    command.run(main)
