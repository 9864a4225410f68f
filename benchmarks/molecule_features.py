"""How long features of a molecule take on one core: those of MapLight, and MiniMol's vectors.

    python -m benchmarks.molecule_features --molecules FILE [--column SMILES] [--rows 300] [--slowest 8]

The milliseconds of processor time per molecule, of the first molecules of a CSV file: each of MapLight's features, and
MiniMol's graph of a molecule and its network on two sizes of batches; RDKit's own loop over its descriptors, which
computes some of them more than once. Then the slowest descriptors, each by itself.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from rdkit.Chem import Descriptors, Mol, MolFromSmiles, MolToSmiles

from models.inputs.fingerprints import FEATURES, MAPLIGHT
from models.inputs.frozen_encoders import MINIMOL_BATCH_SIZE, load_minimol

ROUNDS = 3
N_BITS = 1024


def milliseconds(function: Callable[[Any], Any], inputs: list[Any], n_molecules: int) -> float:
    """Return the processor time per molecule of a function on all inputs, the shortest of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        # Copies, since RDKit keeps some of what it computes with a molecule.
        copies = [Mol(each) if isinstance(each, Mol) else each for each in inputs]
        started = time.process_time()
        for each in copies:
            function(each)
        rounds.append(time.process_time() - started)
    return 1000 * min(rounds) / n_molecules


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--molecules", type=Path, required=True)
    options.add_argument("--column", default="SMILES")
    options.add_argument("--rows", type=int, default=300)
    options.add_argument("--slowest", type=int, default=8)
    args = options.parse_args()
    molecules = [MolFromSmiles(text) for text in pd.read_csv(args.molecules)[args.column][: args.rows]]
    n = len(molecules)
    print("| feature | ms per molecule |\n|---|---:|")
    for name in MAPLIGHT:
        print(f"| {name} | {milliseconds(lambda m, f=FEATURES[name]: f(m, N_BITS), molecules, n):.1f} |")
    rdkit = milliseconds(Descriptors.CalcMolDescriptors, molecules, n)
    print(f"| descriptors by RDKit's CalcMolDescriptors | {rdkit:.1f} |")
    model = load_minimol("minimol")
    smiles = [MolToSmiles(molecule) for molecule in molecules]
    print(f"| minimol, graph | {milliseconds(model.featurize_one, smiles, n):.1f} |")
    graphs = [model.featurize_one(text) for text in smiles]
    for size in (MINIMOL_BATCH_SIZE, 4 * MINIMOL_BATCH_SIZE):
        batches = [model.collate(graphs[start : start + size]) for start in range(0, n, size)]
        network = milliseconds(lambda batch: model.session.run(None, batch), batches, n)
        print(f"| minimol, network, {size} at a time | {network:.1f} |")
    alone = {name: milliseconds(function, molecules, n) for name, function in Descriptors.descList}
    print("\nThe slowest descriptors, ms per molecule:")
    for name, time_alone in sorted(alone.items(), key=lambda pair: -pair[1])[: args.slowest]:
        print(f"  {name:20s} {time_alone:.2f}")


if __name__ == "__main__":
    main()
