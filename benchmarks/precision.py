"""Training in bf16 against float32 on one thread of this processor, the same steps in both.

    python -m benchmarks.precision --data FOLDER_WITH_COMPETITIONS [--rows 256] [--rounds 3]

Prints seconds of processor time for one epoch in each, alternating in one run, and the median of the ratios. Without
instructions for bf16 a processor emulates it, slower than float32.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import TypeAdapter

from competition.tables import Rows
from competition.task import Task
from models.config import StageConfig
from models.registry import build_stage
from models.stage import Context
from models.training import trainer

TWEETS, MOLECULES = ("icwsm_tweets", "text", "sentiment"), ("biogen_adme", "SMILES", "log_HLM_CLint")
STAGES: dict[str, tuple[tuple[str, str, str], dict[str, Any]]] = {
    "minilm": (TWEETS, {"kind": "bert", "weights": "minilm"}),
    "rxnfp": (MOLECULES, {"kind": "bert", "weights": "rxnfp"}),
    "gnn": (MOLECULES, {"kind": "gnn"}),
    "unimol, compact": (MOLECULES, {"kind": "unimol"}),
    "unimol, published size": (MOLECULES, {"kind": "unimol", "architecture": "molecule"}),
}


def seconds_of(stage: Any, train: Rows, folder: Path) -> float:
    """Of one epoch; loading and featurising are outside the clock."""
    network, sample = stage.ready(train, folder)
    training = stage.trainer_of(network, folder)
    labels = training.prepare(sample)
    started = time.process_time()
    training.train_epochs(sample.encoded, labels, "checkpoint.pt")
    return time.process_time() - started


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--rows", type=int, default=256)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    args = options.parse_args()
    torch.set_num_threads(1)
    print(f"instructions for bf16: {'yes' if trainer.cpu_has_bf16() else 'no'}")
    trainer.cpu_has_bf16 = lambda: True
    for name in args.stages:
        (data, column, target), block = STAGES[name]
        table = pd.read_csv(args.data / data / "train.csv").dropna(subset=[target])[: args.rows]
        train = Rows(list(table["id"]), table[[column]].reset_index(drop=True), table[[target]].to_numpy())
        smiles, text = ([column], []) if column == "SMILES" else ([], [column])
        seconds: dict[str, list[float]] = {"float32": [], "bf16": []}
        with tempfile.TemporaryDirectory() as cache:
            context = Context(smiles, text, [], [], Task([target]), 0, Path(cache))
            for _ in range(args.rounds):
                for precision, values in seconds.items():
                    settings = {**block, "epochs": 1, "precision": precision}
                    stage = build_stage(TypeAdapter(StageConfig).validate_python(settings), context)
                    with tempfile.TemporaryDirectory() as folder:
                        values.append(seconds_of(stage, train, Path(folder)))
        ratio = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
        means = ", ".join(f"{precision} {statistics.median(values):.1f} s" for precision, values in seconds.items())
        print(f"{name:22s} {means}: {ratio:.2f} times as fast", flush=True)


if __name__ == "__main__":
    main()
