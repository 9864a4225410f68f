"""What one setting of a neural stage changes in held-out error and in time, on one thread.

    python -m benchmarks.one_setting tricks --data FOLDER_WITH_COMPETITIONS [--seeds 4] [--bases "esol, gnn" ...]
    python -m benchmarks.one_setting batches --data FOLDER_WITH_COMPETITIONS --seeds 5
    python -m benchmarks.one_setting precision --data FOLDER_WITH_COMPETITIONS --seeds 3

tricks: R-Drop, multi-sample dropout, averaged weights, a mean alone over atoms. batches: rows of a step that
go through the network together and padded, and batches from windows of 20 sorted by length, as trainers with
`group_by_length` make them, against ours (micro-batches of like length, with the gradient of the whole random
step). precision: bf16 against float32; without instructions for bf16 a processor emulates it, slower than
float32.

Each seed is a pair on another fold of five: the stage as it is, and with the change. Prints the mean change
of RMSE in per cent with its standard error over the pairs (below 0 is better), and the median ratio of
processor seconds of the epochs alone, without loading and featurising (above 1: the change is as many times
as fast).
"""

import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import KFold

from competition.dataset import Dataset
from competition.molecules import canonical_smiles
from competition.task import Task
from models import targets
from models.context import Context
from models.registry import make_stage
from models.training import batches, prediction, trainer

WINDOW = 20
MINILM = {"kind": "bert", "weights": "minilm", "learning_rate": 1e-4}


def sorted_windows(
    part: Any, settings: Any, seed: int, epoch: int, device_type: str
) -> list[list[np.ndarray]]:
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


# Base -> set, column, target, rows and the stage; change -> settings, or what is patched.
COMPARED: dict[str, tuple[dict[str, tuple[str, str, str, int, dict[str, Any]]], dict[str, Any]]] = {
    "tricks": (
        {
            "esol, gnn": ("esol", "SMILES", "logS", 1015, {"kind": "gnn"}),
            "qm9_electronic, gnn": ("qm9_electronic", "SMILES", "alpha_bohr3", 1000, {"kind": "gnn"}),
            "icwsm_tweets, minilm": ("icwsm_tweets", "text", "sentiment", 1000, {**MINILM, "epochs": 2}),
        },
        {
            "pooler_dropout 0.1": {"pooler_dropout": 0.1},
            "r_drop 0.5 with pooler_dropout 0.1": {"pooler_dropout": 0.1, "r_drop": 0.5},
            "multi_sample, 5 of 0.2": {"head": {"kind": "multi_sample"}},
            "ema 0.99": {"weight_averaging": "ema", "ema_decay": 0.99},
            "backbone_dropout 0.1": {"backbone_dropout": 0.1},
            "aggregation: [mean]": {"aggregation": ["mean"]},
        },
    ),
    "batches": (
        {
            "esol, gnn": ("esol", "SMILES", "logS", 1015, {"kind": "gnn"}),
            "esol, unimol": ("esol", "SMILES", "logS", 800, {"kind": "unimol", "epochs": 8, "batch_size": 16}),
            "qm9_electronic, gnn": ("qm9_electronic", "SMILES", "gap_eV", 1500, {"kind": "gnn"}),
            "icwsm_tweets, minilm": ("icwsm_tweets", "text", "sentiment", 1200, {**MINILM, "epochs": 1}),
        },
        {
            "random, padded": mock.patch.object(batches, "micro_batch_size", lambda *_: 10**6),
            "by length": mock.patch.object(batches.Batches, "step_plan", sorted_windows),
        },
    ),
    "precision": (
        {
            "minilm": ("icwsm_tweets", "text", "sentiment", 320, {**MINILM, "epochs": 1}),
            "rxnfp": ("biogen_adme", "SMILES", "log_HLM_CLint", 320, {**MINILM, "weights": "rxnfp", "epochs": 1}),
            "gnn": ("biogen_adme", "SMILES", "log_HLM_CLint", 320, {"kind": "gnn", "epochs": 1}),
            "unimol, compact": ("biogen_adme", "SMILES", "log_HLM_CLint", 320, {"kind": "unimol", "epochs": 1}),
            "unimol, published size": (
                "biogen_adme", "SMILES", "log_HLM_CLint", 320,
                {"kind": "unimol", "architecture": "molecule", "epochs": 1},
            ),
        },
        {"bf16": {"precision": "bf16"}},
    ),
}  # fmt: skip


def read(
    data: Path, name: str, column: str, target: str, n_rows: int
) -> tuple[Dataset, tuple[list[str], list[str]]]:
    """The first labelled rows of a set, and its columns by role (molecules, text)."""
    table = pd.read_csv(data / name / "train.csv").dropna(subset=[target])[:n_rows].reset_index(drop=True)
    if column == "SMILES":
        table[column] = [canonical_smiles(text) for text in table[column]]
    roles = ([column], []) if column == "SMILES" else ([], [column])
    return Dataset([str(i) for i in table.index], table[[column]], table[[target]].to_numpy()), roles


@contextmanager
def timed_epochs() -> Iterator[list[tuple[float, int]]]:
    """Yield a list that gets the processor seconds of the epochs of each training, and its trained numbers."""
    train_epochs = trainer.Trainer.train_epochs
    trainings: list[tuple[float, int]] = []

    def timed(self: trainer.Trainer, *args: Any, **options: Any) -> Any:
        n_trained = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        started = time.process_time()
        result = train_epochs(self, *args, **options)
        trainings.append((time.process_time() - started, n_trained))
        return result

    with mock.patch.object(trainer.Trainer, "train_epochs", timed):
        yield trainings


def measure(
    config: Any, context: Context, rows: Dataset, train: np.ndarray, held_out: np.ndarray
) -> tuple[float, float]:
    """Held-out RMSE, and processor seconds of the epochs."""
    with tempfile.TemporaryDirectory() as folder, timed_epochs() as trainings:
        targets.fit(config, rows.take(train), Path(folder), context)
        valid = rows.take(held_out)
        errors = targets.predict(config, valid.without_labels(), Path(folder), context) - valid.y
    return float(np.sqrt((errors**2).mean())), sum(seconds for seconds, _ in trainings)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("compared", choices=COMPARED)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=4)
    options.add_argument("--bases", nargs="+")
    args = options.parse_args()
    torch.set_num_threads(1)
    print(f"instructions for bf16: {'yes' if prediction.cpu_has_bf16() else 'no'}")
    prediction.cpu_has_bf16 = lambda: True
    bases, changes = COMPARED[args.compared]
    for base in args.bases or bases:
        *source, settings = bases[base]
        plain, (rows, roles) = make_stage(settings), read(args.data, *source)
        selected = {name: change for name, change in changes.items()
                 if not isinstance(change, dict) or set(change) <= set(type(plain).model_fields)}  # fmt: skip
        error_ratios: dict[str, list[np.ndarray]] = {name: [] for name in selected}
        folds = list(KFold(5, shuffle=True, random_state=0).split(rows.ids))
        with tempfile.TemporaryDirectory() as cache:
            for seed in range(args.seeds):
                context = Context(*roles, [], [], Task([source[2]]), seed, Path(cache))
                for shared, keys in plain.caches(context, [rows]):
                    shared.load(keys)
                without = measure(plain, context, rows, *folds[seed % 5])
                for name, change in selected.items():
                    config, patch = plain, change
                    if isinstance(change, dict):
                        config, patch = make_stage({**settings, **change}), nullcontext()
                    with patch:
                        error_ratios[name].append(
                            np.divide(measure(config, context, rows, *folds[seed % 5]), without)
                        )
        for name, ratios in error_ratios.items():
            errors, seconds = np.transpose(ratios)
            error = 100 * np.std(errors, ddof=1) / np.sqrt(len(errors))
            summary = f"RMSE {100 * np.mean(errors - 1):+.1f} % (standard error {error:.1f})"
            print(f"{base}: {name}: {summary}, {np.median(1 / seconds):.2f} times as fast", flush=True)


if __name__ == "__main__":
    main()
