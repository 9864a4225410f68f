"""Time of a training step of Uni-Mol by the package's own modules and by ours, on one thread.

    python -m tests.benchmarks.unimol_step [--architecture molecule] [--table TABLE.csv] [--tokens 20 30] [--compile]

Prints milliseconds of processor time per step of 16 molecules, alternating in one run, and the median of the ratios.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import statistics
import time
from pathlib import Path

import pandas as pd
import torch

from competition.paths import PROJECT
from models.config import UnimolStage
from models.conformers import embedded
from models.dropout import set_rates
from models.molecules import prepared
from models.unimol import UnimolBackbone, collate, encode, read_vocabulary
from tests.models.published import PackageModel

ROWS = 16


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--architecture", default="compact", choices=["compact", "molecule"])
    options.add_argument("--table", type=Path, default=PROJECT / "competition" / "data" / "smoke" / "train.csv")
    options.add_argument("--tokens", type=int, nargs=2, default=[20, 30], help="fewest and most of a molecule")
    options.add_argument("--rounds", type=int, default=8)
    options.add_argument("--compile", action="store_true", help="ours with torch.compile against ours without")
    args = options.parse_args()
    torch.set_num_threads(1)
    vocabulary = read_vocabulary({}, "file")
    smiles = pd.read_csv(args.table)["SMILES"][:120]
    items = [encode(embedded(prepared(text, "all", "keep"))[0], vocabulary, False) for text in smiles]
    items = sorted(
        (item for item in items if args.tokens[0] <= len(item[0]) <= args.tokens[1]), key=lambda i: len(i[0])
    )
    batches = [collate(items[i : i + ROWS], 0) for i in range(0, len(items) - ROWS + 1, ROWS)][:3]
    ours = UnimolBackbone(UnimolStage(kind="unimol", architecture=args.architecture), vocabulary)
    other = UnimolBackbone(UnimolStage(kind="unimol", architecture=args.architecture), vocabulary)
    networks = {"compiled" if args.compile else "unimol_tools": PackageModel(ours), "ours": ours}
    if args.compile:
        networks["compiled"] = other
        other.compile(dynamic=True)
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
    print(f"{args.architecture}, tokens {[batch['tokens'].shape[1] for batch in batches]}")
    for name, values in milliseconds.items():
        print(f"{name:13s} {statistics.median(values):6.1f} ms per step")
    ratios = [a / b for a, b in zip(*milliseconds.values(), strict=True)]
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
