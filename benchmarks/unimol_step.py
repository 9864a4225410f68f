"""Time of a training step of Uni-Mol by the package's own modules and by ours, on one thread.

    python -m benchmarks.unimol_step --kind unimol2 --architecture 84m --table TABLE.csv --sizes 20 30

Prints milliseconds of processor time per step, alternating in one run, and the median of the ratios.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from competition.paths import PROJECT
from models.inputs.conformers import embedded, prepared
from models.settings import Unimol2Stage, UnimolStage
from models.stages import unimol, unimol2
from models.stages.unimol_shared import collate
from models.training.dropout import set_rates
from tests.models.published import PackageModel, PackageModel2


def tokens_of(smiles: pd.Series) -> list[Any]:
    vocabulary = unimol.read_vocabulary({})
    return [unimol.encode(embedded(prepared(text, "all", "keep"))[0], vocabulary, False) for text in smiles]


def graphs_of(smiles: pd.Series) -> list[Any]:
    molecules = [prepared(text, "all", "keep") for text in smiles]
    return [unimol2.featurise(molecule, embedded(molecule)[0]) for molecule in molecules]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kind", default="unimol", choices=["unimol", "unimol2"])
    options.add_argument("--architecture", default="compact")
    options.add_argument("--table", type=Path, default=PROJECT / "competition" / "data" / "smoke" / "train.csv")
    options.add_argument("--sizes", type=int, nargs=2, default=[20, 30], help="fewest and most tokens of a molecule")
    options.add_argument("--rows", type=int, default=16, help="molecules of a batch")
    options.add_argument("--rounds", type=int, default=8)
    args = options.parse_args()
    torch.set_num_threads(1)
    smiles = pd.read_csv(args.table)["SMILES"][:120]
    if args.kind == "unimol":
        items, make = tokens_of(smiles), lambda: unimol.UnimolBackbone(config, unimol.read_vocabulary({}))
        config = UnimolStage(kind="unimol", architecture=args.architecture)
        package: Any = PackageModel
    else:
        items, make = graphs_of(smiles), lambda: unimol2.Unimol2Backbone(config)
        config = Unimol2Stage(kind="unimol2", architecture=args.architecture)
        package = PackageModel2
    sizes = [len(item["tokens"]) for item in items]
    fits = sorted((i for i, size in enumerate(sizes) if args.sizes[0] <= size <= args.sizes[1]), key=sizes.__getitem__)
    if args.kind == "unimol2":  # one number of atoms: the most frequent
        most = statistics.mode(sizes[i] for i in fits)
        fits = ([i for i in fits if sizes[i] == most] * args.rows)[: args.rows]
    parts = [fits[i : i + args.rows] for i in range(0, len(fits) - args.rows + 1, args.rows)][:3]
    batches = [collate([items[i] for i in part]) for part in parts]
    ours = make()
    networks = {"unimol_tools": package(ours), "ours": ours}
    milliseconds: dict[str, list[float]] = {name: [] for name in networks}
    for network in networks.values():
        set_rates(network, 0.0)
        network.train()
    for round_ in range(args.rounds):
        for name, network in networks.items():
            started = time.process_time()
            for batch in batches:
                network.zero_grad()
                network(**batch).square().sum().backward()
            if round_ > 1:  # the first two warm up
                milliseconds[name].append(1000 * (time.process_time() - started) / len(batches))
    print(f"{args.kind} {args.architecture}, sizes {[batch['tokens'].shape[1] for batch in batches]}")
    for name, values in milliseconds.items():
        print(f"{name:13s} {statistics.median(values):6.1f} ms per step")
    ratios = [a / b for a, b in zip(*milliseconds.values(), strict=True)]
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
