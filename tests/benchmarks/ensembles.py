"""The submission against LightGBM alone, over all targets of several competitions, with the preset `cpu` as it is.

    python -m tests.benchmarks.ensembles --data FOLDER_WITH_COMPETITIONS --work FOLDER [--budget 30m] [--sets ...]

Runs `new --preset cpu` and `full` for each set (what is finished in --work is kept). Prints for each target the RMSE of
the submission and of the stage `lightgbm` of the same run (mean over its folds) on the answers, their ratio, and the
geometric mean of the ratios of targets with at least 400 test labels with its 95 % interval by paired bootstrap.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd

from competition.config import load_competition
from competition.paths import PROJECT, Paths
from submissions.columns import load_columns, open_run

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


def errors(yaml_file: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Squared test errors of the submission and of the stage lightgbm by target, rows without a label left out."""
    competition, paths = load_competition(str(yaml_file)), Paths.of(str(yaml_file))
    run_name = paths.latest_run.read_text().strip()
    submission = pd.read_csv(paths.run(run_name) / "submission.csv", dtype={competition.id: str}).set_index(
        competition.id
    )
    run = open_run(str(yaml_file), budget=math.inf)
    columns = load_columns(run)
    assert competition.answers is not None
    answers = pd.read_csv(competition.answers, dtype={competition.id: str}).set_index(competition.id)
    answers = answers.loc[columns.test_ids]
    found = {}
    for t, (target, column) in enumerate(zip(competition.targets, competition.columns_in_sample, strict=True)):
        y = answers[column if column in answers else target].to_numpy(dtype=float)
        known = ~np.isnan(y)
        ours = submission.loc[columns.test_ids, column].to_numpy()
        trees = columns.test["lightgbm"][:, t]
        found[target] = ((ours - y)[known] ** 2, (trees - y)[known] ** 2)
    return found


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
        for target, (ours, trees) in errors(make(name, args.data, args.work, args.budget)).items():
            counted = len(ours) >= FEWEST
            ratio = math.sqrt(ours.mean() / trees.mean())
            print(
                f"{name} {target}: submission {math.sqrt(ours.mean()):.4f}, LightGBM {math.sqrt(trees.mean()):.4f}, "
                f"ratio {ratio:.3f}{'' if counted else f' (not counted: {len(ours)} labels)'}",
                flush=True,
            )
            pairs += [(ours, trees)] if counted else []
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(2000):
        drawn = [rng.integers(0, len(ours), len(ours)) for ours, _ in pairs]
        draws.append(
            np.mean([0.5 * math.log(o[r].mean() / t[r].mean()) for (o, t), r in zip(pairs, drawn, strict=True)])
        )
    mean = math.exp(np.mean([0.5 * math.log(ours.mean() / trees.mean()) for ours, trees in pairs]))
    low, high = np.exp(np.quantile(draws, [0.025, 0.975]))
    print(f"{len(pairs)} targets: geometric mean of the ratios {mean:.3f}, 95 % interval {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
