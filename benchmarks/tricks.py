"""What R-Drop, multi-sample dropout and averaged weights change, and a mean alone over atoms: held-out RMSE against the
same stage without them.

    python -m benchmarks.tricks --data FOLDER_WITH_COMPETITIONS [--seeds 4] [--bases "esol, gnn" ...]

On one thread, on folds 0 to seeds-1 of five (another seed and fold each time). Prints the mean change in percent with
its standard error over the pairs. Below 0 is better.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import KFold

from competition.molecules import canonical_smiles
from competition.tables import Rows
from competition.task import Task
from models.registry import build_stage
from models.settings import BertStage, GnnStage
from models.stage import Context

BASES: dict[str, tuple[str, str, int, Any, dict[str, Any]]] = {
    "esol, gnn": ("SMILES", "logS", 1015, GnnStage, {"kind": "gnn"}),
    "qm9_electronic, gnn": ("SMILES", "alpha_bohr3", 1000, GnnStage, {"kind": "gnn"}),
    "icwsm_tweets, minilm": (
        "text", "sentiment", 1000, BertStage, {"kind": "bert", "weights": "minilm", "epochs": 2, "learning_rate": 1e-4},
    ),
}  # fmt: skip
TRICKS: dict[str, dict[str, Any]] = {
    "pooler_dropout 0.1": {"pooler_dropout": 0.1},
    "r_drop 0.5 with pooler_dropout 0.1": {"pooler_dropout": 0.1, "r_drop": 0.5},
    "multi_sample, 5 of 0.2": {"head": {"kind": "multi_sample"}},
    "ema 0.99": {"average": "ema", "ema_decay": 0.99},
    "backbone_dropout 0.1": {"backbone_dropout": 0.1},
    "aggregation: [mean]": {"aggregation": ["mean"]},
}


def read(
    data: Path, name: str, column: str, target: str, n_rows: int
) -> tuple[Rows, tuple[list[str], list[str]], list[Any]]:
    """The first rows of a set, its columns by role (molecules, text), and five folds of training and held-out rows."""
    table = pd.read_csv(data / name.split(",")[0] / "train.csv")[:n_rows]
    roles: tuple[list[str], list[str]] = ([], [column])
    if column == "SMILES":
        table[column] = [canonical_smiles(text) for text in table[column]]
        roles = ([column], [])
    rows = Rows([str(i) for i in table.index], table[[column]], table[[target]].to_numpy())
    return rows, roles, list(KFold(5, shuffle=True, random_state=0).split(table))


def measure(config: Any, context: Context, rows: Rows, train: np.ndarray, held_out: np.ndarray) -> tuple[float, float]:
    """Held-out RMSE, and processor seconds of the fit."""
    with tempfile.TemporaryDirectory() as folder:
        stage = build_stage(config, context)
        started = time.process_time()
        stage.fit(rows.take(train), None, Path(folder))
        seconds = time.process_time() - started
        valid = rows.take(held_out)
        errors = stage.predict(valid.without_labels(), Path(folder)) - valid.y
        return float(np.sqrt((errors**2).mean())), seconds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=4)
    options.add_argument("--bases", nargs="+", default=list(BASES))
    args = options.parse_args()
    torch.set_num_threads(1)
    for name in args.bases:
        column, target, n_rows, model, settings = BASES[name]
        rows, roles, folds = read(args.data, name, column, target, n_rows)
        tricks = {trick: more for trick, more in TRICKS.items() if set(more) <= set(model.model_fields)}
        changes: dict[str, list[float]] = {trick: [] for trick in tricks}
        for seed in range(args.seeds):
            context = Context(*roles, [], [], Task([target]), seed, Path("unused"))
            plain, _ = measure(model.model_validate(settings), context, rows, *folds[seed % 5])
            for trick, more in tricks.items():
                rmse, _ = measure(model.model_validate({**settings, **more}), context, rows, *folds[seed % 5])
                changes[trick].append(100 * (rmse / plain - 1))
        for trick, found in changes.items():
            error = np.std(found, ddof=1) / np.sqrt(len(found))
            print(f"{name}: {trick}: {np.mean(found):+.1f} % (standard error {error:.1f})", flush=True)


if __name__ == "__main__":
    main()
