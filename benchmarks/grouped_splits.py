"""What it changes that the number of trees comes from a split that keeps groups together.

    python -m benchmarks.grouped_splits COMPETITION [COMPETITION ...] [--stage lightgbm]

Trains the folds of a stage of trees twice: with inner splits of single rows, and with the groups (or times)
of the folds. Prints the mean number of trees, and the score out of fold and on the answers.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.files import read_json, read_text_table
from folds import make
from models import targets
from models.jobs.compute import read_tables, rows_of_job
from models.jobs.plan import make_plan
from submissions.config import load_config


def compare(name: str, stage: str) -> None:
    """Print both results of one competition."""
    config = load_config(name)
    competition = config.competition
    make.run(competition, config.folds)
    jobs = make_plan(competition, dict(config.stages)).select([stage])
    metric = competition.scorer
    rows, test = read_tables(jobs)
    folds = rows.folds
    answers = read_text_table(Path(str(competition.answers))).set_index(competition.id)
    truth = answers.loc[test.ids, competition.targets].replace("", "nan").to_numpy(dtype=float)
    for label in ("rows", "groups"):
        oof = np.full(rows.y.shape, np.nan)
        n_trees, y_test = [], []
        for job in jobs.jobs:
            of_job = rows_of_job(job, jobs)
            train = of_job.train
            if label == "rows":
                train = replace(train, groups=None, times=None)
            settings, context = config.stages[stage], of_job.context
            with tempfile.TemporaryDirectory() as folder:
                targets.fit(settings, train, Path(folder), context)
                oof[folds == job.fold] = targets.predict(
                    settings, of_job.held_out.without_labels(), Path(folder), context
                )
                y_test.append(targets.predict(settings, test, Path(folder), context))
                n_trees += [
                    of_target["n_trees"] for of_target in read_json(Path(folder) / "training.json")["models"]
                ]
        scored = folds >= 0
        scores = f"{metric(rows.y[scored], oof[scored]):.4f} | {metric(truth, np.mean(y_test, axis=0)):.4f}"
        print(f"| {name} | {label} | {np.mean(n_trees):.0f} | {scores} |", flush=True)


def main() -> None:
    """Parse the command line and run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("competitions", nargs="+")
    parser.add_argument("--stage", default="lightgbm")
    args = parser.parse_args()
    print("| competition | inner split by | trees | out of fold | answers |\n|---|---|---|---|---|")
    for name in args.competitions:
        compare(name, args.stage)


if __name__ == "__main__":
    main()
