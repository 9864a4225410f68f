"""The stage `gnn` against `chemprop train`: the same molecules, width, depth, batches and epochs, on one
thread.

    python -m benchmarks.against_chemprop --data FOLDER_WITH_COMPETITIONS [--set biogen_adme] [--epochs 4 12]

Both are processes of their own that read a table, build the graphs, train and save; ours alternates with
theirs, each with few and with many epochs, so that the difference is what an epoch costs. Processor seconds
of user and system, which other work on the machine changes least. Theirs also validates on 2 % of the rows,
since it cannot be without.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from competition.dataset import Dataset
from competition.task import Task
from core.files import PROJECT
from models.context import Context
from models.jobs.local import WORKER_ENVIRONMENT
from models.stages.gnn import Gnn

TARGETS = {"biogen_adme": "log_HLM_CLint", "esol": "logS", "qm9_electronic": "gap"}
CHEMPROP_OPTIONS = [
    "--smiles-columns", "SMILES", "--target-columns", "y", "--batch-size", "64", "--split-sizes", "0.98", "0.01",
    "0.01", "--accelerator", "cpu", "--warmup-epochs", "1", "--max-lr", "0.002", "--aggregation", "norm",
    "--aggregation-norm", "10",
]  # fmt: skip


def cpu_seconds(call: list[str]) -> float:
    """Return the CPU seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        call, check=True, capture_output=True, cwd=PROJECT, env={**os.environ, **WORKER_ENVIRONMENT}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--set", default="biogen_adme", choices=TARGETS)
    options.add_argument("--epochs", type=int, nargs="+", default=[4, 12])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", type=Path, help="of the processes it starts: the table")
    args = options.parse_args()
    if args.only:
        table = pd.read_csv(args.only)
        config = Gnn(kind="gnn", epochs=args.epochs[0], aggregation=["norm"])
        rows = Dataset(list(table["id"]), table[["SMILES"]], table[["y"]].to_numpy())
        config.fit(rows, args.only.parent, Context(["SMILES"], [], [], [], Task(["y"]), 0, Path("unused")))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.csv"
        table = pd.read_csv(args.data / args.set / "train.csv").rename(columns={TARGETS[args.set]: "y"})
        table[["id", "SMILES", "y"]].dropna().to_csv(file, index=False)
        pipeline_command = [sys.executable, "-m", "benchmarks.against_chemprop"]
        pipeline_command += ["--data", str(args.data), "--only", str(file)]
        chemprop_command = [str(Path(sys.executable).with_name("chemprop")), "train"]
        chemprop_command += ["--data-path", str(file), "--output-dir", f"{folder}/out", *CHEMPROP_OPTIONS]
        spent: dict[str, list[list[float]]] = {"ours": [], "chemprop": []}
        for _ in range(args.rounds):
            for name, call in (("ours", pipeline_command), ("chemprop", chemprop_command)):
                spent[name].append([cpu_seconds([*call, "--epochs", str(n)]) for n in args.epochs])
    for i, n in enumerate(args.epochs):
        pipeline_seconds, chemprop_seconds = (
            [seconds[i] for seconds in spent[name]] for name in ("ours", "chemprop")
        )
        ratio = statistics.median(t / o for o, t in zip(pipeline_seconds, chemprop_seconds, strict=True))
        medians = [statistics.median(seconds) for seconds in (pipeline_seconds, chemprop_seconds)]
        print(f"{n:3d} epochs: {medians[0]:.1f} and {medians[1]:.1f} s, {ratio:.2f} times")
    each = {name: [s[-1] - s[0] for s in samples] for name, samples in spent.items()}
    ratio = statistics.median(t / o for o, t in zip(each["ours"], each["chemprop"], strict=True))
    print(f"an epoch alone: {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
