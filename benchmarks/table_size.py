"""`full` on synthetic tables of growing size: seconds and memory of each step, and how they grow.

    python -m benchmarks.table_size [--rows 1000 10000 100000] [--folds kfold scaffold cluster] [--workers 2] \\
        [--executor ray]

Each table has molecules (a scaffold with three substituents), a text of ten words, a number and a target; a fifth
as many rows are the test table. The stages are two small ones: LightGBM on molecules and text, and a ridge regression.
Every size is a process of its own, whose peak memory is printed after each step; the jobs run in other processes.
Then `make_folds` alone, with each kind of folds. A slope is the exponent of the growth between the last two sizes: 1
is linear.
"""

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config import load_competition
from competition.prepare import prepare
from core.files import PROJECT
from folds.make import make_folds
from pipeline import commands
from submissions.config import load_config

SCAFFOLDS = [
    "c1ccc({})c({})c1{}", "c1cnc({})c({})c1{}", "C1CC({})CN({})C1{}", "c1cc({})c2c(c1)cc({})n2{}",
    "C1CN({})CCN1C({})C{}", "c1sc({})c({})c1{}", "O=C(N{})c1ccc({})cc1{}", "c1cc({})oc1C({})C{}",
    "C1CCC({})C({})C1{}", "c1nc({})nc({})c1{}",
]  # fmt: skip
SUBSTITUENTS = [
    f"{chain}{end}"
    for chain in ("C", "CC", "CCC", "C(C)C", "CO", "CCO", "CNC", "C(=O)C", "CCN(C)C", "Cc1ccccc1")
    for end in ("", "C", "F", "OC", "C(F)(F)F")
]
WORDS = [f"{first}{second}" for first in "bdfklmnprs" for second in ("al", "en", "io", "ur", "at", "ex")]
STEPS = [
    "prepare",
    "make_folds",
    "check",
    "write_tables",
    "train_and_submit",
    "open_run",
    "submit_until",
]
"""Functions of pipeline.full that are timed."""
YAML = """
competition:
  train: train.csv
  test: test.csv
  sample_submission: sample.csv
  id: id
  targets: [y]
  smiles: [SMILES]
  text: [note]
  numeric: [dose]
  metric: rmse
folds: {kind: kfold, n_folds: 5}
stages:
  lightgbm: {kind: lightgbm, max_trees: 100, features: [morgan]}
  ridge: {kind: sklearn, estimator: sklearn.linear_model.Ridge, features: [morgan]}
"""


def write_tables(folder: Path, n_rows: int) -> None:
    """Write a competition with `n_rows` training rows; the target depends on the molecule, the text and the number."""
    rng = np.random.default_rng(0)
    n = n_rows + n_rows // 5
    parts = rng.integers(0, len(SUBSTITUENTS), (n, 3))
    cores = rng.integers(0, len(SCAFFOLDS), n)
    smiles = [
        SCAFFOLDS[core].format(*(SUBSTITUENTS[i] for i in row))
        for core, row in zip(cores, parts, strict=True)
    ]
    words = rng.integers(0, len(WORDS), (n, 10))
    dose = rng.normal(size=n)
    effects = rng.normal(size=len(SUBSTITUENTS)), rng.normal(size=len(WORDS))
    y = effects[0][parts].sum(1) + effects[1][words].sum(1) / 3 + dose + rng.normal(size=n)
    notes = [" ".join(WORDS[i] for i in row) for row in words]
    table = pd.DataFrame({"id": np.arange(n), "SMILES": smiles, "note": notes, "dose": dose, "y": y})
    table[:n_rows].to_csv(folder / "train.csv", index=False)
    test = table[n_rows:]
    test.drop(columns="y").to_csv(folder / "test.csv", index=False)
    test[["id"]].assign(y=0.0).to_csv(folder / "sample.csv", index=False)
    (folder / "rows.yaml").write_text(YAML)


def peak_gib(of: int = resource.RUSAGE_SELF) -> float:
    """Return the peak memory of this process so far, or of its largest child."""
    return resource.getrusage(of).ru_maxrss / 2**20


def run_full(yaml_file: str, workers: int, executor: str) -> dict[str, Any]:
    """Run `full` in this process; return seconds and peak memory by step."""
    full = importlib.import_module("pipeline.full")
    steps: dict[str, list[float]] = {}

    def timed(name: str, function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            started = time.monotonic()
            result = function(*args, **options)
            steps[name] = [time.monotonic() - started, peak_gib()]
            return result

        return call

    for name in STEPS:
        setattr(full, name, timed(name, getattr(full, name)))
    words = [yaml_file, "--workers", str(workers), "--executor", executor]
    options = commands.parse(["full", *words])
    started = time.monotonic()
    full.full(options)
    steps["all"] = [time.monotonic() - started, peak_gib()]
    return {"steps": steps, "largest_worker_gib": peak_gib(resource.RUSAGE_CHILDREN)}


def seconds_of_folds(yaml_file: str, kind: str) -> list[float]:
    """Return the seconds and the peak memory of making folds of a kind."""
    competition, config = load_competition(yaml_file), load_config(yaml_file).folds
    tables = prepare(competition)
    config = config.model_copy(update={"kind": kind})
    started = time.monotonic()
    make_folds(competition, config, tables)
    return [time.monotonic() - started, peak_gib()]


def in_a_process(folder: Path, *words: str) -> Any:
    """Call this module in a process of its own; return what it writes to result.json."""
    environment = {**os.environ, "WORK_DIR": str(folder / "work")}
    call = [sys.executable, "-m", "benchmarks.table_size", "--only", str(folder), *words]
    done = subprocess.run(call, check=False, capture_output=True, text=True, cwd=PROJECT, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads((folder / "result.json").read_text())


def print_table(title: str, sizes: list[int], rows: dict[str, list[float]], unit: str) -> None:
    """Print a value of each size by name, and the slope between the last two sizes."""
    print(f"\n| {title} | {' | '.join(f'{n:,} rows, {unit}' for n in sizes)} | slope |")
    print(f"|---|{'---:|' * (len(sizes) + 1)}")
    for name, values in rows.items():
        growth = np.log(max(values[-1], 1e-9) / max(values[-2], 1e-9)) if len(values) > 1 else np.nan
        slope = growth / np.log(sizes[-1] / sizes[-2]) if len(values) > 1 else np.nan
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} | {slope:.2f} |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options.add_argument("--folds", nargs="*", default=["kfold", "scaffold", "cluster"])
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--executor", default="local", choices=["local", "ray"])
    options.add_argument("--only", type=Path, help="of the processes it starts: the folder")
    args = options.parse_args()
    if args.only:
        yaml_file = str(args.only / "rows.yaml")
        result: Any = (
            seconds_of_folds(yaml_file, args.folds[0])
            if args.folds
            else run_full(yaml_file, args.workers, args.executor)
        )
        (args.only / "result.json").write_text(json.dumps(result))
        return
    runs, folds = [], []
    for n_rows in args.rows:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_tables(folder, n_rows)
            words = ["--workers", str(args.workers), "--executor", args.executor, "--folds"]
            runs.append(in_a_process(folder, *words))
            folds.append([in_a_process(folder, "--folds", kind) for kind in args.folds])
        print(n_rows, json.dumps([runs[-1], folds[-1]]), flush=True)
    names = list(runs[0]["steps"])
    print_table("step", args.rows, {n: [run["steps"][n][0] for run in runs] for n in names}, "s")
    print_table(
        "step", args.rows, {n: [run["steps"][n][1] for run in runs] for n in names}, "peak GiB so far"
    )
    largest = {"largest": [run["largest_worker_gib"] for run in runs]}
    print_table("worker", args.rows, largest, "peak GiB")
    if args.folds:
        kinds = {kind: [each[i][0] for each in folds] for i, kind in enumerate(args.folds)}
        print_table("folds", args.rows, kinds, "s")


if __name__ == "__main__":
    main()
