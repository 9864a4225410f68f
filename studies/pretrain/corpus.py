"""Molecules to pre-train on, none of which is in an evaluation set, and their labels."""

from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem, RDLogger
from rdkit.Chem import inchi, rdEHTTools

from core.types import Array
from models.inputs.cache import Cache
from models.inputs.conformers import is_flat, select
from models.inputs.fingerprints import molecule_features
from models.jobs import tasks as job_tasks
from models.jobs.local import LocalExecutor
from models.jobs.scheduler import Task
from models.jobs.train import run_all

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


def skeleton(smiles: str) -> str:
    """Return the first 14 letters of the InChIKey, without stereochemistry and isotopes; "" if invalid."""
    RDLogger.DisableLog("rdApp.*")
    molecule = Chem.MolFromSmiles(smiles)
    return "" if molecule is None else inchi.MolToInchiKey(molecule)[:14]


def skeletons(smiles: list[str]) -> list[str]:
    """Return the skeletons of many molecules, with all cores."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(skeleton, smiles, chunksize=500))


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


def read_molecules(file: Path, n: int, seed: int) -> pd.DataFrame:
    """Return random molecules of a CSV, in a column SMILES."""
    return pd.read_csv(file, usecols=["SMILES"]).sample(n, random_state=seed)


def qm9(n: int, seed: int) -> pd.DataFrame:
    """Return random molecules of QM9 with the columns SMILES, HOMO_au and LUMO_au.

    Source: Ramakrishnan et al., Scientific Data 2014, in the package qm9pack.
    """
    folder = Path(str(distribution("qm9pack").locate_file("qm9pack/data")))  # its import needs setuptools
    parts = sorted(folder.glob("qm9_part*.csv"))
    return pd.concat(pd.read_csv(part, usecols=["SMILES", *ORBITALS]) for part in parts).sample(
        n, random_state=seed
    )


def without(table: pd.DataFrame, excluded: set[str]) -> pd.DataFrame:
    """Return the rows with a skeleton that is not excluded, with a column `skeleton`."""
    table = table.assign(skeleton=skeletons(list(table["SMILES"])))
    return table[~table["skeleton"].isin({*excluded, ""})].reset_index(drop=True)


def fill(cache: Cache, smiles: list[str]) -> None:
    """Compute the missing entries of a cache on all cores; finished parts stay after a kill."""
    missing = cache.missing(smiles)
    parts = [missing[i : i + cache.per_shard] for i in range(0, len(missing), cache.per_shard)]
    with closing(LocalExecutor()) as executor:
        tasks = [Task(f"{cache.name} {i}", job_tasks.fill, (cache, part)) for i, part in enumerate(parts)]
        run_all(tasks, executor, cache.name)


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
    fill(cache, smiles)
    fill(orbital_cache, smiles[:n_orbitals])
    descriptors = np.concatenate(cache.load(smiles))
    orbitals = np.full((len(smiles), N_ORBITALS), np.nan)
    orbitals[:n_orbitals] = np.concatenate(orbital_cache.load(smiles[:n_orbitals]))
    return np.hstack([descriptors, *[orbitals] * TIMES])


def huckel(conformers: Cache, smiles: list[str]) -> list[Any]:
    """Return labels of extended Hueckel theory for each molecule, (1, 6); NaN if there are none.

    They are the energies of HOMO and LUMO, their difference, the energies of HOMO - 1 and LUMO + 1, all in eV,
    and the dipole moment of the partial charges in e angstrom.

    Source: extended Hueckel theory (Hoffmann, J. Chem. Phys. 1963) in YAeHMOP, which is part of RDKit.
    """
    missing = np.full(N_ORBITALS, np.nan, dtype=np.float32)
    labels = []
    for atoms in conformers.load(smiles):
        is_supported = not is_flat(atoms) and set(atoms[:, 0]) <= ORGANIC
        labels.append((_huckel(select(atoms, 0), missing) if is_supported else missing)[None])
    return labels


def _huckel(conformer: Any, missing: Any) -> Any:
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
        return missing
    charges = np.array(result.GetAtomicCharges())
    dipole = np.linalg.norm((charges - charges.mean()) @ positions)
    gap = energies[lumo] - energies[homo]
    return np.array(
        [energies[homo], energies[lumo], gap, energies[homo - 1], energies[lumo + 1], dipole],
        dtype=np.float32,
    )


def standardised(y: Array) -> Array:
    """Return the labels that vary, in standard deviations, clipped at `MAX_SCALED`."""
    y = y[:, np.nanstd(y, axis=0) > 0].astype(np.float64)
    scaled: Any = (y - np.nanmean(y, axis=0)) / np.nanstd(y, axis=0)
    return scaled.clip(-MAX_SCALED, MAX_SCALED)
