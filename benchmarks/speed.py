"""Processor seconds of an epoch: stages of this project against the libraries of the same networks.

    python -m benchmarks.speed [chemprop trainer grouped unimol]

chemprop: `gnn` against `chemprop train`, embedded molecules. trainer: `bert` from MiniLM's weights against the Trainer
of transformers with random batches, 960 embedded tweets; grouped: the same with batches of similar length. unimol: the
backbone of the published size against the model of `unimol_tools`, with the same random weights, batches of 16
embedded molecules with hydrogens, and AdamW.

Both sides have the same rows, epochs and batch size, float32 and no dropout. Each is a process on one thread
that runs with few and with many epochs; the difference is what an epoch costs, without starting and loading. The sides
alternate, and medians over the rounds are printed. chemprop also validates on 1 % of the rows, which it requires.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import DATA, MOLECULES, SPAWN, TWEETS, read_rows
from core.workers import WORKER_ENVIRONMENT
from models import targets
from models.inputs.weights import find_weights
from models.registry import make_stage

FEW, MANY = 2, 4
"""Epochs; chemprop needs at least 2."""
ROUNDS = 3
BATCH = 16
"""Batch size of `bert` and of the published Uni-Mol."""
N_TWEETS, N_CONFORMERS = 960, 96
CHEMPROP_OPTIONS = [
    "--smiles-columns", "SMILES", "--target-columns", "homo_eV", "--split-sizes", "0.98", "0.01", "0.01",
    "--accelerator", "cpu", "--warmup-epochs", "1",
]  # fmt: skip


def train_stage(
    table: tuple[str, str, str], n_rows: int, settings: dict[str, Any], epochs: int, folder: Path
) -> None:
    """Train a stage of this project."""
    rows, context = read_rows(*table, n_rows)
    targets.fit(make_stage({**settings, "epochs": epochs}), rows, folder, context)


def train_with_chemprop(epochs: int, folder: Path) -> None:
    """Train the network of chemprop by its command."""
    program = Path(sys.executable).with_name("chemprop")
    table = DATA / MOLECULES[0] / "train.csv"
    options = [*CHEMPROP_OPTIONS, "--output-dir", folder, "--epochs", str(epochs)]
    subprocess.run([program, "train", "--data-path", table, *options], check=True, capture_output=True)


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


def train_backbone(of_package: bool, epochs: int, folder: Path) -> None:
    """Train Uni-Mol on random labels, by the modules of unimol_tools or of this project."""
    import torch

    from models.inputs.conformers import build_molecule, embed_conformers, select
    from models.networks import unimol, unimol_common
    from models.training.network import set_rates
    from tests.models.published import PackageModel

    vocabulary, items = unimol.read_vocabulary({}), []
    rows, _ = read_rows(*MOLECULES, N_CONFORMERS)
    for text in rows.inputs["SMILES"]:
        conformers = embed_conformers(build_molecule(text, fragments="all"))
        items.append(unimol.encode(select(conformers, 0), vocabulary, remove_hydrogens=False))
    network: Any = unimol.UnimolBackbone(vocabulary, "molecule")
    collate: Any = unimol.collate
    if of_package:
        network = PackageModel(network, "molecule", unimol.molecule_architecture(), folder)
        collate = unimol_common.collate
    set_rates(network, 0.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    for _ in range(epochs):
        for start in range(0, len(items), BATCH):
            optimizer.zero_grad()
            network(**collate(items[start : start + BATCH])).square().mean().backward()
            optimizer.step()


GNN = partial(train_stage, MOLECULES, 1500, {"kind": "gnn", "aggregation": ["mean"]})
MINILM = partial(train_stage, TWEETS, N_TWEETS, {"kind": "bert", "weights": "minilm"})
COMPARISONS = {
    "chemprop": (GNN, train_with_chemprop),
    "trainer": (MINILM, partial(train_with_transformers, "random")),
    "grouped": (MINILM, partial(train_with_transformers, "group_by_length")),
    "unimol": (partial(train_backbone, False), partial(train_backbone, True)),
}
"""Name -> side of this project, and the other one: functions of the number of epochs and an empty folder."""


def seconds_of_children() -> float:
    """Return the processor seconds of all finished child processes, of user and system."""
    return sum(os.times()[2:4])


def seconds_of(train: Callable[[int, Path], None], epochs: int) -> float:
    """Return the processor seconds of a process that trains one side."""
    before = seconds_of_children()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, SPAWN) as process:
        process.submit(train, epochs, Path(folder)).result()
    return seconds_of_children() - before


def compare(name: str) -> None:
    """Print the seconds of an epoch of both sides, and their ratio."""
    per_epoch = []
    for _ in range(ROUNDS):
        of_sides = [seconds_of(train, MANY) - seconds_of(train, FEW) for train in COMPARISONS[name]]
        per_epoch.append([seconds / (MANY - FEW) for seconds in of_sides])
    mine, other = (statistics.median(seconds) for seconds in zip(*per_epoch, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in per_epoch)
    print(f"{name}: {mine:.2f} and {other:.2f} s per epoch, {ratio:.2f} times as fast", flush=True)


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("comparisons", nargs="*", default=list(COMPARISONS), help="default: all")
    os.environ.update(WORKER_ENVIRONMENT)  # of the processes
    for name in parser.parse_args().comparisons:
        compare(name)


if __name__ == "__main__":
    main()
