"""A training step of Uni-Mol in its published size against the same step of `unimol_tools`, on one thread.

    python -m benchmarks.unimol_step --molecules FILE [--column SMILES] [--batch 16] [--steps 3] [--rounds 3]

Both have the same random weights (15 layers, width 512, 64 heads, 128 kernels), no dropout, float32 and the same random
batches, without hydrogens. A step is the forward and backward pass of a squared error and a step of AdamW. The rounds
alternate; the medians of the seconds per step are printed. What prepares a batch is left out on both sides.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from competition.molecules import canonical_smiles
from models.inputs.conformers import build_molecule, embed_conformers, select
from models.networks.unimol import UnimolBackbone, encode, molecule_architecture, read_vocabulary
from models.networks.unimol_common import collate
from models.training.network import set_rates
from tests.models.published import PackageModel


def seconds_per_step(network: nn.Module, batches: list[dict[str, torch.Tensor]]) -> float:
    """Return the mean seconds of a training step."""
    set_rates(network, 0.0)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    started = time.monotonic()
    for batch in batches:
        optimizer.zero_grad()
        network(**batch).square().mean().backward()
        optimizer.step()
    return (time.monotonic() - started) / len(batches)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--molecules", type=Path, required=True)
    options.add_argument("--column", default="SMILES")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--rounds", type=int, default=3)
    args = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = pd.read_csv(args.molecules)[args.column].sample(args.batch * args.steps, random_state=0)
    vocabulary, items = read_vocabulary({}), []
    for text in map(canonical_smiles, table):
        conformers = embed_conformers(build_molecule(str(text), fragments="all", repeat_units="keep"))
        items.append(encode(select(conformers, 0), vocabulary, remove_hydrogens=True))
    batches = [collate(items[start : start + args.batch]) for start in range(0, len(items), args.batch)]
    ours = UnimolBackbone(vocabulary, "molecule")
    with tempfile.TemporaryDirectory() as folder:
        theirs = PackageModel(ours, "molecule", molecule_architecture(), Path(folder))
    seconds: dict[str, list[float]] = {"ours": [], "unimol_tools": []}
    for _ in range(args.rounds):
        for name, network in (("ours", ours), ("unimol_tools", theirs)):
            seconds[name].append(seconds_per_step(network, batches))
    mine, other = (statistics.median(times) for times in seconds.values())
    lengths = np.array([len(item["tokens"]) for item in items])
    print(
        f"{args.batch} molecules of {lengths.mean():.0f} tokens on average (at most {lengths.max()}): ours "
        f"{mine:.2f} s, unimol_tools {other:.2f} s, ratio {other / mine:.2f}"
    )


if __name__ == "__main__":
    main()
