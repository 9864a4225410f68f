"""Time of one training step of the compact Uni-Mol with the package's distance kernel and with ours, on one thread.

    python -m tests.benchmarks.unimol_step

Prints milliseconds per step of both, alternating in one run, and the median of the ratios.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import time

import pandas as pd
import torch

from competition.paths import PROJECT
from models.config import UnimolStage
from models.conformers import conformer
from models.dropout import set_rates
from models.unimol import GaussianLayer, UnimolBackbone, collate, encode, read_vocabulary


def main() -> None:
    torch.set_num_threads(1)
    vocabulary = read_vocabulary({}, "file")
    smiles = pd.read_csv(PROJECT / "competition" / "data" / "smoke" / "train.csv")["SMILES"][:64]
    batches = [
        collate([encode(conformer(text)[0], vocabulary, False) for text in smiles[i : i + 32]], 0) for i in (0, 32)
    ]
    config = UnimolStage(kind="unimol")
    networks = {"unimol_tools": UnimolBackbone(config, vocabulary), "ours": UnimolBackbone(config, vocabulary)}
    networks["unimol_tools"].gbf = GaussianLayer(128, len(vocabulary) ** 2)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for network in networks.values():
        set_rates(network, 0.0)
        network.train()
    for round_ in range(12):
        for name, network in networks.items():
            started = time.perf_counter()
            for batch in batches:
                network(**batch).sum().backward()
            if round_ > 1:  # the first two warm up
                seconds[name].append((time.perf_counter() - started) / len(batches))
    for name, values in seconds.items():
        print(f"{name:13s} {1000 * statistics.median(values):6.1f} ms per step")
    ratios = [a / b for a, b in zip(seconds["unimol_tools"], seconds["ours"], strict=True)]
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
