"""The submission against LightGBM alone, over all targets of several competitions, with the preset `cpu` as it is.

    python -m benchmarks.ensembles --data FOLDER_WITH_COMPETITIONS --work FOLDER [--budget 30m] [--sets ...]

Runs `new --preset cpu` and `full` for each set (what is finished in --work is kept). Prints for each target the RMSE of
the submission and of the stage `lightgbm` of the same run (mean over its folds) on the answers, their ratio, and the
geometric mean of the ratios of targets with at least 400 test labels with its 95 % interval by paired bootstrap.
"""

import argparse
import math
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from competition.config import load_competition
from competition.paths import PROJECT, Paths
from submissions.columns import Columns
from submissions.run import open_run

SETS = ["qm9_electronic", "biogen_adme", "icwsm_tweets", "buchwald_hartwig", "esol", "photoswitch"]
FEWEST = 400


def make(name: str, data: Path, work: Path, budget: str | None) -> Path:
    """The YAML of a set, its submission made."""
    source, yaml_file = data / name, work / f"{name}.yaml"
    files = {"train": "train", "test": "test", "sample": "sample_submission", "answers": "answers"}
    if not yaml_file.exists():
        options = [f"--{option}={source / file}.csv" for option, file in files.items()]
        subprocess.run(["./run.sh", "new", str(yaml_file), *options, "--preset", "cpu"], check=True, cwd=PROJECT)
    within = ["--budget", budget] if budget else []
    subprocess.run(["./run.sh", "full", str(yaml_file), *within], check=True, cwd=PROJECT)
    return yaml_file


@dataclass(frozen=True)
class Answers:
    """Test labels of a finished run and what predicts them.

    y, submission: (n_test_rows, n_targets), NaN in y where there is no label; columns: the run's stages.
    """

    targets: list[str]
    y: np.ndarray
    submission: np.ndarray
    columns: Columns


def read_answers(yaml_file: Path) -> Answers:
    """The answers of a set and the latest run's predictions, in the order of its test rows."""
    competition, paths = load_competition(str(yaml_file)), Paths.of(str(yaml_file))
    columns = open_run(str(yaml_file), budget=math.inf).columns
    assert competition.answers is not None
    made = paths.run(paths.latest_run.read_text().strip()) / "submission.csv"
    answers, submission = (
        pd.read_csv(file, dtype={competition.id: str}).set_index(competition.id).loc[columns.test_ids]
        for file in (competition.answers, made)
    )
    names = zip(competition.targets, competition.columns_in_sample, strict=True)
    y = answers[[sample if sample in answers else target for target, sample in names]]
    in_sample = submission[competition.columns_in_sample]
    return Answers(competition.targets, y.to_numpy(dtype=float), in_sample.to_numpy(dtype=float), columns)


def squared_errors(y: np.ndarray, *predictions: np.ndarray) -> list[np.ndarray]:
    """Of predictions (n_rows,), rows without a label left out."""
    known = ~np.isnan(y)
    return [(y_pred - y)[known] ** 2 for y_pred in predictions]


def geometric_mean(pairs: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """Of the ratios of RMSE over pairs of squared errors, with its interval by paired bootstrap."""
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(2000):
        drawn = [rng.integers(0, len(ours), len(ours)) for ours, _ in pairs]
        draws.append(
            np.mean([0.5 * math.log(o[r].mean() / t[r].mean()) for (o, t), r in zip(pairs, drawn, strict=True)])
        )
    mean = math.exp(np.mean([0.5 * math.log(ours.mean() / others.mean()) for ours, others in pairs]))
    low, high = np.exp(np.quantile(draws, [0.025, 0.975]))
    return f"{len(pairs)} targets: geometric mean of the ratios {mean:.3f}, 95 % interval {low:.3f} to {high:.3f}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    options.add_argument("--budget", help="of each full")
    args = options.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ["WORK_DIR"] = str(args.work / "work")
    pairs = []
    for name in args.sets:
        found = read_answers(make(name, args.data, args.work, args.budget))
        for t, target in enumerate(found.targets):
            trees = found.columns.test_of("lightgbm")[:, t]
            pair = squared_errors(found.y[:, t], found.submission[:, t], trees)
            counted = len(pair[0]) >= FEWEST
            ours, theirs = (math.sqrt(errors.mean()) for errors in pair)
            print(
                f"{name} {target}: submission {ours:.4f}, LightGBM {theirs:.4f}, "
                f"ratio {ours / theirs:.3f}{'' if counted else f' (not counted: {len(pair[0])} labels)'}",
                flush=True,
            )
            pairs += [(pair[0], pair[1])] if counted else []
    print(geometric_mean(pairs))


if __name__ == "__main__":
    main()
