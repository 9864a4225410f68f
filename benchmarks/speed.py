"""Processor seconds of an epoch: stages of this project against the libraries of the same networks.

    python -m benchmarks.speed [chemprop trainer grouped unimol] [--epochs 2 4] [--rounds 3]

chemprop: `gnn` against `chemprop train`, embedded molecules. trainer: `bert` from MiniLM's weights against the Trainer
of transformers with random batches, 960 embedded tweets; grouped: the same with batches of similar length. unimol: the
backbone of the published size against the model of `unimol_tools`, with the same random weights, batches of 16
embedded molecules with hydrogens, and AdamW.

Both sides have the same rows, epochs and batch size, float32 and no dropout. Each is a process on one thread
that runs with few and with many epochs; the difference is what an epoch costs, without starting and loading. The sides
alternate, and medians over the rounds are printed. chemprop also validates on 1 % of the rows, which it requires.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import DATA, MOLECULES, TWEETS, read_rows
from core.files import PROJECT
from models import targets
from models.inputs.weights import find_weights
from models.jobs.local import WORKER_ENVIRONMENT
from models.registry import make_stage

BATCH = 16
"""Batch size of `bert` and of the published Uni-Mol."""
N_TWEETS, N_CONFORMERS = 960, 96
STAGES = {
    "gnn": (MOLECULES, 1500, {"aggregation": ["mean"]}),
    "bert": (TWEETS, N_TWEETS, {"weights": "minilm"}),
}
"""Kind -> rows and settings."""
COMPARISONS = {
    "chemprop": ("gnn", "chemprop"),
    "trainer": ("bert", "random"),
    "grouped": ("bert", "group_by_length"),
    "unimol": ("unimol", "unimol_tools"),
}
"""Name -> side of this project, and the other one."""
CHEMPROP_OPTIONS = [
    "--smiles-columns", "SMILES", "--target-columns", "homo_eV", "--split-sizes", "0.98", "0.01", "0.01",
    "--accelerator", "cpu", "--warmup-epochs", "1",
]  # fmt: skip


def train_stage(side: str, epochs: int, folder: Path) -> None:
    """Train a stage of this project."""
    table, n_rows, settings = STAGES[side]
    rows, context = read_rows(*table, n_rows)
    targets.fit(make_stage({"kind": side, "epochs": epochs, **settings}), rows, folder, context)


def train_with_transformers(sampling: str, epochs: int, folder: Path) -> None:
    """Train MiniLM with the Trainer of transformers."""
    import transformers as hf

    weights = find_weights("minilm")["config.json"].parent
    tokenizer = hf.AutoTokenizer.from_pretrained(weights)
    without_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    network = hf.AutoModelForSequenceClassification.from_pretrained(weights, num_labels=1, **without_dropout)
    rows, _ = read_rows(*TWEETS, N_TWEETS)
    tokenized = [tokenizer(text, truncation=True, max_length=256) for text in rows.inputs["text"]]
    items = [{**tokens, "labels": float(y)} for tokens, y in zip(tokenized, rows.y[:, 0], strict=True)]
    arguments = hf.TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=BATCH,
        save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        train_sampling_strategy=sampling,
    )  # fmt: skip
    collate = hf.DataCollatorWithPadding(tokenizer)
    hf.Trainer(network, arguments, train_dataset=items, data_collator=collate).train()


def train_backbone(side: str, epochs: int, folder: Path) -> None:
    """Train Uni-Mol on random labels, by the modules of this project or of unimol_tools."""
    from models.inputs.conformers import build_molecule, embed_conformers, select
    from models.networks import unimol, unimol_common
    from models.training.network import set_rates
    from tests.models.published import PackageModel

    vocabulary, items = unimol.read_vocabulary({}), []
    rows, _ = read_rows(*MOLECULES, N_CONFORMERS)
    for text in rows.inputs["SMILES"]:
        conformers = embed_conformers(build_molecule(text, fragments="all", repeat_units="keep"))
        items.append(unimol.encode(select(conformers, 0), vocabulary, remove_hydrogens=False))
    network: torch.nn.Module = unimol.UnimolBackbone(vocabulary, "molecule")
    collate: Callable[[list[Any]], dict[str, Any]] = unimol.collate
    if side == "unimol_tools":
        network = PackageModel(network, "molecule", unimol.molecule_architecture(), folder)
        collate = unimol_common.collate
    set_rates(network, 0.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    for _ in range(epochs):
        for start in range(0, len(items), BATCH):
            optimizer.zero_grad()
            network(**collate(items[start : start + BATCH])).square().mean().backward()
            optimizer.step()


def command(side: str, epochs: int, folder: str) -> list[str]:
    """Return the command that trains one side."""
    if side != "chemprop":
        return [sys.executable, "-m", "benchmarks.speed", "--only", side, "--epochs", str(epochs)]
    program = str(Path(sys.executable).with_name("chemprop"))
    options = [*CHEMPROP_OPTIONS, "--output-dir", folder, "--epochs", str(epochs)]
    return [program, "train", "--data-path", f"{DATA}/{MOLECULES[0]}/train.csv", *options]


def seconds_of_children() -> float:
    """Return the processor seconds of all finished child processes, of user and system."""
    return sum(os.times()[2:4])


def seconds_of(side: str, epochs: int) -> float:
    """Return the processor seconds of a process that trains one side."""
    before = seconds_of_children()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **WORKER_ENVIRONMENT}
        call = command(side, epochs, folder)
        subprocess.run(call, check=True, capture_output=True, cwd=PROJECT, env=environment)
    return seconds_of_children() - before


def compare(name: str, epochs: list[int], rounds: int) -> None:
    """Print the seconds of an epoch of both sides, and their ratio."""
    few, many = epochs
    per_epoch = []
    for _ in range(rounds):
        of_sides = [seconds_of(side, many) - seconds_of(side, few) for side in COMPARISONS[name]]
        per_epoch.append([seconds / (many - few) for seconds in of_sides])
    mine, other = (statistics.median(seconds) for seconds in zip(*per_epoch, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in per_epoch)
    print(f"{name}: {mine:.2f} and {other:.2f} s per epoch, {ratio:.2f} times as fast", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparisons", nargs="*", default=list(COMPARISONS), help="default: all")
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=[2, 4], help="few, at least 2 for chemprop, and many"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="of the processes that it starts: the side")
    args = parser.parse_args()
    if not args.only:
        for name in args.comparisons:
            compare(name, args.epochs, args.rounds)
        return
    torch.set_num_threads(1)
    train = train_with_transformers
    if args.only in STAGES:
        train = train_stage
    elif args.only.startswith("unimol"):
        train = train_backbone
    with tempfile.TemporaryDirectory() as folder:
        train(args.only, args.epochs[0], Path(folder))


if __name__ == "__main__":
    main()
