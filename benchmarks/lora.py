"""Adapters (LoRA) against full fine-tuning of `minilm`, on one thread.

    python -m benchmarks.lora --data FOLDER_WITH_COMPETITIONS [--sets emotion icwsm_tweets] [--rows 600] [--epochs 3]
    [--seeds 3] [--fold 0] [--factors 10]

Each seed trains on the first rows of the training part of a fold of five (for classes stratified) and predicts the
fold. Prints the mean score over seeds with its standard deviation (emotion: F1 macro, higher is better;
icwsm_tweets: RMSE, lower), the trained numbers, and the processor seconds of training, without loading the model.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from sklearn.metrics import f1_score, root_mean_squared_error
from sklearn.model_selection import KFold, StratifiedKFold

from benchmarks.one_setting import timed_epochs
from competition.dataset import Dataset
from competition.task import Task
from core.types import Array
from models import targets
from models.context import Context
from models.stages.bert import Bert

FULL_RATES = {"emotion": 2e-4, "icwsm_tweets": 1e-4}
"""Rates of full fine-tuning, those of the preset quick."""


def read(data: Path, name: str) -> tuple[Dataset, Task]:
    """Rows with labels, and what is learned; the classes of emotion are its indices."""
    table = pd.read_csv(data / name / "train.csv")
    if name == "emotion":
        classes = sorted(table["label"].astype(str).unique())
        task = Task(["label"], problem_type="multiclass", classes=classes)
        y = table["label"].astype(str).map(classes.index)
    else:
        task = Task(["sentiment"])
        y = table["sentiment"]
    rows = Dataset([str(i) for i in table.index], table[["text"]], y.to_numpy(dtype=np.float64)[:, None])
    return rows, task


def score(y: Array, y_pred: Array, task: Task) -> float:
    """Return F1 macro of class probabilities (n_rows, n_classes), or the RMSE of numbers (n_rows, 1)."""
    if task.classes:
        return float(f1_score(y, y_pred.argmax(axis=1), average="macro"))
    return float(root_mean_squared_error(y, y_pred[:, 0]))


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of a benchmark that fine-tunes `minilm`."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--sets", nargs="+", default=list(FULL_RATES), choices=list(FULL_RATES))
    options.add_argument("--rows", type=int, default=600)
    options.add_argument("--epochs", type=int, default=3)
    return options


def measure(config: Bert, context: Context, train: Dataset, held_out: Dataset) -> tuple[float, float, int]:
    """Score on the held-out rows, processor seconds of the epochs, and trained numbers."""
    with tempfile.TemporaryDirectory() as folder, timed_epochs() as trainings:
        targets.fit(config, train, Path(folder), context)
        y_pred = targets.predict(config, held_out.without_labels(), Path(folder), context)
        stored = sum(tensor.numel() for tensor in load_file(Path(folder) / "weights.safetensors").values())
    seconds = sum(seconds for seconds, _ in trainings)
    n_trained = stored if config.lora else trainings[0][1]
    return score(held_out.y[:, 0], y_pred, context.task), seconds, n_trained


def main() -> None:
    options = parser_of(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--fold", type=int, default=0)
    options.add_argument(
        "--factors", nargs="+", type=float, default=[10.0], help="rates of adapters, over the full"
    )
    args = options.parse_args()
    torch.set_num_threads(1)
    for name in args.sets:
        rows, task = read(args.data, name)
        splitter = StratifiedKFold if task.classes else KFold
        train, held_out = list(splitter(5, shuffle=True, random_state=0).split(rows.ids, rows.y[:, 0]))[
            args.fold
        ]
        configs: dict[str, dict[str, Any]] = {"full": {"learning_rate": FULL_RATES[name]}}
        for factor in args.factors:
            rate = factor * FULL_RATES[name]
            configs[f"lora, rate {rate:g}"] = {"learning_rate": rate, "lora": {}}
        for label, changes in configs.items():
            settings = {"kind": "bert", "weights": "minilm", "epochs": args.epochs, **changes}
            config = Bert.model_validate(settings)
            results = []
            for seed in range(args.seeds):
                context = Context([], ["text"], [], [], task, seed, Path("unused"))
                results.append(measure(config, context, rows.take(train[: args.rows]), rows.take(held_out)))
            scores, seconds, sizes = (np.array(column) for column in zip(*results, strict=True))
            print(
                f"{name}: {label}: {scores.mean():.4f} +- {scores.std(ddof=1) if len(scores) > 1 else 0:.4f} "
                f"({', '.join(f'{score:.4f}' for score in scores)}), {sizes[0]:,} numbers trained, "
                f"{np.median(seconds):.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
