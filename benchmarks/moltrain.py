"""Against `unimol_tools.MolTrain`: same architecture, folds, epochs, batch size, targets and no dropout, on
both cores.

    python -m benchmarks.moltrain --data FOLDER_WITH_COMPETITIONS [--sets esol biogen_adme qm9_electronic] \\
        [--precision bf16]

Prints seconds from the start of the process to test predictions, cold and warm (with conformers at hand: of
ours in a second run, of theirs the first run less the time in its conformer generator), and the test errors
with a paired bootstrap of their ratio (over molecules, not over starts). Both start from random weights of
the compact size (no official file is needed). What of MolTrain is overridden: its early stopping, its seed,
its dropout, the size of its architecture.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from competition.config import load_competition
from core.files import PROJECT, read_table
from folds import make
from submissions.config import load_config

SETS = {
    "esol": {"target": "logS", "epochs": 6, "n_folds": 3},
    "biogen_adme": {"target": "log_HLM_CLint", "epochs": 6, "n_folds": 3},
    "qm9_electronic": {"target": "gap_eV", "epochs": 4, "n_folds": 2},
}
RATE, BATCH = 1e-3, 16


def write_tables(source: Path, name: str, folder: Path, precision: str) -> None:
    """The rows with a label of one target, as a competition of ours."""
    target = SETS[name]["target"]
    train = pd.read_csv(source / "train.csv")[["id", "SMILES", target]].dropna()
    answers = pd.read_csv(source / "answers.csv")[["id", target]].dropna()
    test = pd.read_csv(source / "test.csv")[["id", "SMILES"]].merge(answers[["id"]], on="id")
    train.to_csv(folder / "train.csv", index=False)
    test.to_csv(folder / "test.csv", index=False)
    test[["id"]].assign(**{str(target): 0}).to_csv(folder / "sample.csv", index=False)
    answers.to_csv(folder / "answers.csv", index=False)
    stage = {
        "kind": "unimol", "epochs": SETS[name]["epochs"], "batch_size": BATCH, "learning_rate": RATE,
        "schedule": "linear", "warmup": 0.03, "clip_norm": 5.0, "precision": precision,
    }  # fmt: skip
    config = {
        "competition": {
            "train": "train.csv", "test": "test.csv", "sample_submission": "sample.csv", "id": "id",
            "targets": [target], "smiles": ["SMILES"], "metric": "rmse",
        },
        "folds": {"kind": "kfold", "n_folds": SETS[name]["n_folds"]},
        "stages": {"unimol": stage},
    }  # fmt: skip
    (folder / "bench.yaml").write_text(yaml.safe_dump(config))


def train_with_unimol_tools(folder: Path, name: str) -> None:
    """MolTrain and MolPredict on the folds of ours; the seconds in its conformer generator go to a file."""
    from unittest import mock

    from unimol_tools import MolPredict, MolTrain
    from unimol_tools.data import conformer
    from unimol_tools.models import nnmodel, unimol

    from models.networks.unimol import COMPACT_KERNEL_WIDTH, read_vocabulary
    from models.training.network import set_rates

    small = unimol.molecule_architecture()
    small.encoder_layers, small.encoder_embed_dim, small.encoder_ffn_embed_dim = 6, 128, 512
    small.encoder_attention_heads = 8
    kernels, project = unimol.GaussianLayer, unimol.NonLinearHead

    class Compact(unimol.UniMolModel):  # type: ignore[misc]
        """The size of ours, without the checkpoint that the constructor wants, and without dropout."""

        def load_pretrained_weights(self, path: Any, strict: bool = False) -> None:
            if strict:  # a fold's own weights
                super().load_pretrained_weights(path, strict)
            set_rates(self, 0.0)

    transform = conformer.ConformerGen.transform
    in_conformers = []

    def timed(self: Any, smiles: Any) -> Any:
        started = time.monotonic()
        result = transform(self, smiles)
        in_conformers.append(time.monotonic() - started)
        return result

    dictionary = folder / "dict.txt"
    dictionary.write_text("\n".join(f"{symbol} 1" for symbol in read_vocabulary({})[4:-1]))
    paths = {"pretrained_model_path": str(dictionary), "pretrained_dict_path": str(dictionary)}
    with (
        mock.patch.object(unimol, "molecule_architecture", lambda: small),
        mock.patch.object(unimol, "GaussianLayer", lambda n, n_pairs: kernels(COMPACT_KERNEL_WIDTH, n_pairs)),
        mock.patch.object(unimol, "NonLinearHead", lambda n, *others: project(COMPACT_KERNEL_WIDTH, *others)),
        mock.patch.dict(nnmodel.NNMODEL_REGISTER, {"unimolv1": Compact}),
        mock.patch.object(conformer.ConformerGen, "transform", timed),
    ):
        train = MolTrain(
            task="regression", epochs=SETS[name]["epochs"], learning_rate=RATE, batch_size=BATCH, early_stopping=10**6,
            split="select", split_group_col="fold", kfold=SETS[name]["n_folds"], save_path=str(folder / "exp"),
            target_cols=[SETS[name]["target"]], target_normalize="standard", use_cuda=False, use_amp=False,
            conf_cache_level=0, **paths,
        )  # fmt: skip
        train.config["seed"] = 0
        train.fit(str(folder / "theirs.csv"))
        y_pred = MolPredict(load_model=str(folder / "exp")).predict(str(folder / "test.csv"))
    (folder / "in_conformers.txt").write_text(str(sum(in_conformers)))
    np.save(folder / "theirs.npy", np.asarray(y_pred).ravel())


def seconds_of_command(work: Path, module: str, *words: str) -> float:
    """Return the seconds of a command with its outputs in `work`."""
    started, call = time.monotonic(), [sys.executable, "-m", module, *words]
    environment = {**os.environ, "WORK_DIR": str(work)}
    done = subprocess.run(call, check=False, capture_output=True, text=True, cwd=PROJECT, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return time.monotonic() - started


def measure(source: Path, name: str, precision: str) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Seconds of both, cold and warm, and their squared test errors in units of the target's spread."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_tables(source, name, folder, precision)
        work, yaml_file = folder / "work", str(folder / "bench.yaml")
        os.environ["WORK_DIR"] = str(work)
        competition = load_competition(yaml_file)
        make.run(competition, load_config(yaml_file).folds)
        folds = pd.read_csv(work / "bench" / "folds" / "folds.csv")
        pd.read_csv(folder / "train.csv").merge(folds, on="id").to_csv(folder / "theirs.csv", index=False)
        record: dict[str, Any] = {"set": name}
        record["theirs_cold"] = seconds_of_command(work, "benchmarks.moltrain", str(folder), name)
        record["theirs_warm"] = record["theirs_cold"] - float((folder / "in_conformers.txt").read_text())
        for state in ("cold", "warm"):
            record[f"ours_{state}"] = seconds_of_command(
                work, "models.jobs.train", yaml_file
            )  # one worker per core
            if state == "cold":  # all but the conformers anew
                shutil.rmtree(work / "bench" / "models")
        answers = pd.read_csv(folder / "answers.csv")
        test = pd.read_csv(folder / "test.csv").merge(answers, on="id")
        y = test[str(SETS[name]["target"])].to_numpy()
        predictions = [read_table(path) for path in work.rglob("fold_*/test/*.parquet")]
        mine = np.mean([t.set_index("id").loc[test["id"]].iloc[:, 0] for t in predictions], axis=0)
        errors = [((p - y) / y.std()) ** 2 for p in (mine, np.load(folder / "theirs.npy"))]
        record |= {"rmse_ours": float(np.sqrt(errors[0].mean()) * y.std())}
        record |= {"rmse_theirs": float(np.sqrt(errors[1].mean()) * y.std())}
        return record, errors[0], errors[1]


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "theirs", nargs="*", help="a folder and a set: what the process of MolTrain is called with"
    )
    options.add_argument("--data", type=Path)
    options.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    options.add_argument("--precision", default="float32", help="of ours; MolTrain has no other on a CPU")
    args = options.parse_args()
    if args.theirs:
        train_with_unimol_tools(Path(args.theirs[0]), args.theirs[1])
        return
    errors = []
    for name in args.sets:
        record, mine, others = measure(args.data / name, name, args.precision)
        errors.append((mine, others))
        cold, warm = (record[f"theirs_{state}"] / record[f"ours_{state}"] for state in ("cold", "warm"))
        print(json.dumps(record), f"cold {cold:.2f} warm {warm:.2f} times faster", flush=True)
    rng = np.random.default_rng(0)

    def ratio(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
        return float(np.exp(np.mean([0.5 * np.log(mine.mean() / others.mean()) for mine, others in pairs])))

    def redrawn(mine: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = rng.integers(0, len(mine), len(mine))
        return mine[rows], others[rows]

    low, high = np.quantile([ratio([redrawn(*pair) for pair in errors]) for _ in range(2000)], [0.025, 0.975])
    print(
        f"test RMSE, ours over theirs, mean of the sets: {ratio(errors):.3f}, 95 % interval {low:.3f} to "
        f"{high:.3f}"
    )


if __name__ == "__main__":
    main()
