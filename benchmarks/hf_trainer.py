"""Against transformers' `Trainer`: MiniLM on 960 tweets, the same weights, epochs, precision, no dropout, one
thread.

    python -m benchmarks.hf_trainer --data FOLDER_WITH_COMPETITIONS [--precision bf16]

Prints seconds of training with and without batches of like length, ours and theirs alternating in one run,
each in a process of its own (ours with the environment of our workers), and the RMSE of each on the answers.
Loading, tokenizing and predicting are outside the clock.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
import transformers

from benchmarks.one_setting import read
from competition.dataset import Dataset
from competition.task import Task
from core.files import PROJECT
from models.context import Context
from models.jobs.local import WORKER_ENVIRONMENT
from models.stages.bert import Bert
from models.training import neural, prediction
from models.training.labels import target_scale
from models.training.optimizer import make_optimizer

SET = "icwsm_tweets"


class Wrapped(torch.nn.Module):
    """A network of ours as Trainer calls it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any = None) -> dict[str, Any]:
        outputs = self.network({"input_ids": input_ids, "attention_mask": attention_mask})
        return {"loss": torch.nn.functional.mse_loss(outputs, labels), "logits": outputs}


def train_with_transformers(
    stage: Bert, context: Context, train: Dataset, folder: Path, grouped: bool
) -> tuple[float, Any]:
    """Seconds of Trainer.train() and the trained network."""
    with mock.patch("models.networks.encoders.train_only"):  # it trains the vectors of all tokens
        network, sample = neural.prepare(stage, train, folder, context)
    network.backbone.encoder.set_attn_implementation("sdpa")  # as it comes; ours is another in bf16 on a CPU
    rows_of = sample.encoded(0)
    mean, scale = target_scale(sample.y)
    y = ((sample.y - mean) / scale).astype(np.float32)
    rows = [
        {"input_ids": ids, "labels": label, "length": len(ids)}
        for ids, label in zip(rows_of.items, y, strict=True)
    ]

    def collate(part: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            **rows_of.collate([row["input_ids"] for row in part]),
            "labels": torch.tensor(np.stack([r["labels"] for r in part])),
        }

    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "hf"), num_train_epochs=stage.epochs, per_device_train_batch_size=stage.batch_size,
        learning_rate=stage.learning_rate, lr_scheduler_type="linear", warmup_steps=stage.warmup,
        weight_decay=stage.weight_decay, max_grad_norm=stage.clip_norm, save_strategy="no", report_to="none",
        logging_strategy="no", disable_tqdm=True, use_cpu=True, remove_unused_columns=False, seed=0,
        bf16=stage.precision == "bf16",
        train_sampling_strategy="group_by_length" if grouped else "random",
    )  # fmt: skip
    # Rates and decay as ours, so that the scores can be compared.
    hf = transformers.Trainer(
        Wrapped(network), arguments, train_dataset=rows, data_collator=collate,
        optimizers=(make_optimizer(network, stage), None),
    )  # fmt: skip
    started = time.process_time()
    hf.train()
    return time.process_time() - started, network


def train_with_pipeline(stage: Bert, context: Context, train: Dataset, folder: Path) -> tuple[float, Any]:
    """Seconds of our loop and the trained network."""
    network, sample = neural.prepare(stage, train, folder, context)
    training = neural.make_trainer(stage, network, folder, context)
    labels = training.prepare(sample)
    started = time.process_time()
    training.train_epochs(sample.encoded, labels, "train")
    return time.process_time() - started, network


def trained(name: str, seed: int, data: Path, precision: str) -> dict[str, float]:
    """Seconds of training in one of three ways, and the RMSE on the answers."""
    train, roles = read(data, SET, "text", "sentiment", 960)
    test = pd.read_csv(data / SET / "test.csv").merge(pd.read_csv(data / SET / "answers.csv")).dropna()
    settings = {
        "kind": "bert",
        "weights": "minilm",
        "epochs": 1,
        "learning_rate": 1e-4,
        "precision": precision,
    }
    context = Context(*roles, [], [], Task(["sentiment"]), seed, Path("unused"))
    stage = Bert.model_validate(settings)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if name == "ours":
            spent, network = train_with_pipeline(stage, context, train, folder)
        else:
            spent, network = train_with_transformers(stage, context, train, folder, name == "group_by_length")
        rows = Dataset(list(test["id"]), test[["text"]], None)
        mean, scale = target_scale(train.y)
        batches, accelerator = (
            stage.encode(rows, folder, context, 0, 0),
            prediction.make_accelerator("float32"),
        )
        y_pred = prediction.forward(network, batches, 32, accelerator).double().numpy()
    error = y_pred[:, 0] * scale[0] + mean[0] - test["sentiment"].to_numpy()
    return {"seconds": spent, "rmse": float(np.sqrt(np.mean(error**2)))}


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--precision", default="float32")
    options.add_argument("--only", nargs=2, help="of the processes it starts: which one, and the seed")
    args = options.parse_args()
    torch.set_num_threads(1)
    if args.only:
        print(json.dumps(trained(args.only[0], int(args.only[1]), args.data, args.precision)))
        return
    results_by_name: dict[str, list[dict[str, float]]] = {"ours": [], "group_by_length": [], "random": []}
    for round_ in range(args.rounds):
        for name, results in results_by_name.items():
            call = [sys.executable, "-m", "benchmarks.hf_trainer", *sys.argv[1:], "--only", name, str(round_)]
            environment = {**os.environ, **WORKER_ENVIRONMENT} if name == "ours" else None
            done = subprocess.run(
                call, check=True, capture_output=True, text=True, cwd=PROJECT, env=environment
            )
            results.append(json.loads(done.stdout.splitlines()[-1]))
    for name, results in results_by_name.items():
        seconds, rmse = (statistics.mean(result[key] for result in results) for key in ("seconds", "rmse"))
        ratio = statistics.median(
            r["seconds"] / o["seconds"] for r, o in zip(results, results_by_name["ours"], strict=True)
        )
        print(f"{name:16s} {seconds:6.1f} s, RMSE {rmse:.4f}; ours is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
