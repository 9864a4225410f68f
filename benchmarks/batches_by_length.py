"""What batches of rows of like length cost in error, and what micro-batches of like length save in time.

    python -m benchmarks.batches_by_length --data FOLDER_WITH_COMPETITIONS [--seeds 5]

On one thread, the same stage on the same folds: batches drawn at random and padded; ours (random batches that go
through the network in micro-batches of like length, with the gradient of the whole); and batches from windows of 20
sorted by length, as trainers with `group_by_length` make them. Prints held-out RMSE and seconds over those of the
first, as the geometric mean with its standard error.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import argparse
import contextlib
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from pydantic import TypeAdapter

from benchmarks.tricks import measure, read
from competition.task import Task
from models.config import StageConfig
from models.registry import shared_caches
from models.stage import Context
from models.training import batches

BASES: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "esol, gnn": ("SMILES", "logS", 1015, {"kind": "gnn"}),
    "esol, unimol": ("SMILES", "logS", 800, {"kind": "unimol", "epochs": 8, "batch_size": 16}),
    "qm9_electronic, gnn": ("SMILES", "gap_eV", 1500, {"kind": "gnn"}),
    "icwsm_tweets, minilm": (
        "text", "sentiment", 1200, {"kind": "bert", "weights": "minilm", "epochs": 1, "learning_rate": 1e-4},
    ),
}  # fmt: skip
WINDOW = 20


def sorted_windows(part: Any, settings: Any, seed: int, epoch: int, device_type: str) -> list[list[np.ndarray]]:
    """Steps of rows of like length, in place of `Batches.step_plan`."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(part.lengths))
    graphs = (part.lengths == 1).all()  # which are not padded, and so have no lengths of their own
    lengths = np.array([len(graph.V) for graph in part.items]) if graphs else part.lengths
    size = settings.batch_size
    window = size * max(1, min(WINDOW, len(order) // size // 4))
    plan = []
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        plan += [rows[i : i + size] for i in range(0, len(rows), size)]
    return [[plan[i]] for i in generator.permutation(len(plan))]


WAYS = {
    "random, padded": mock.patch.object(batches, "micro_batch_size", lambda device_type, precision: 10**6),
    "random in micro-batches": contextlib.nullcontext(),
    "by length": mock.patch.object(batches.Batches, "step_plan", sorted_windows),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--bases", nargs="+", default=list(BASES), choices=list(BASES))
    args = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        for name in args.bases:
            column, target, n_rows, settings = BASES[name]
            config = TypeAdapter[Any](StageConfig).validate_python(settings)
            rows, roles, folds = read(args.data, name, column, target, n_rows)
            found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for seed in range(args.seeds):
                context = Context(*roles, [], [], Task([target]), seed, Path(cache))
                for shared, keys in shared_caches(config, context, [rows]):
                    shared.load(keys)
                for way, patch in WAYS.items():
                    with patch:
                        found[way].append(measure(config, context, rows, *folds[seed % 5]))
            for way in list(WAYS)[1:]:
                ratios = np.log(np.array(found[way]) / np.array(found["random, padded"]))
                mean, error = np.exp(ratios.mean(axis=0)), ratios.std(axis=0, ddof=1) / np.sqrt(args.seeds)
                print(
                    f"{name}: {way}: RMSE {mean[0]:.3f} (standard error {error[0]:.3f}), seconds {mean[1]:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
