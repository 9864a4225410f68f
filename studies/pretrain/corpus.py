"""What there is to pre-train on: molecules that no evaluation set has, and their labels, by all cores."""

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

from competition.types import Array
from models.inputs.cache import Cache
from models.inputs.conformers import is_flat, select
from models.inputs.features import molecule_features
from models.jobs import cache_jobs
from models.jobs.local import LocalExecutor
from models.jobs.scheduler import Task
from models.jobs.train import run_all

MAX_SCALED = 4.0
"""Standard deviations at which labels are cut: some descriptors have values without bound."""
N_ORBITALS, TIMES = 6, 12
"""Labels of extended Hueckel theory, and how often they stand beside the descriptors."""
ORGANIC = {1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53}
"""Elements of which extended Hueckel theory is computed; on HoCl3 its library crashes."""
ORBITALS = ["HOMO_au", "LUMO_au"]
SMILES = ("smiles", "molecule")
"""What the names of columns with molecules have in them, in the files of evaluation sets."""


def skeleton(smiles: str) -> str:
    """First fourteen letters of the InChIKey, without stereochemistry and isotopes; "" where there is none."""
    RDLogger.DisableLog("rdApp.*")
    molecule = Chem.MolFromSmiles(smiles)
    return "" if molecule is None else inchi.MolToInchiKey(molecule)[:14]


def skeletons(smiles: list[str]) -> list[str]:
    """Return the skeletons of many molecules, with all cores."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(skeleton, smiles, chunksize=500))


def evaluation_molecules(folder: Path) -> list[str]:
    """All SMILES in train.csv and test.csv of the competitions in a folder, with the fragments of mixtures."""
    texts = set[str]()
    for file in sorted([*folder.glob("*/train.csv"), *folder.glob("*/test.csv")]):
        table = pd.read_csv(file, dtype=str)
        for name in table.columns[[any(word in name.lower() for word in SMILES) for name in table.columns]]:
            texts.update(part for text in table[name].dropna().unique() for part in (text, *text.split(".")))
    return sorted(texts - {""})


def read_molecules(file: Path, n: int, seed: int) -> pd.DataFrame:
    """Some molecules of a CSV, drawn at random, in a column SMILES."""
    return pd.read_csv(file, usecols=["SMILES"]).sample(n, random_state=seed)


def qm9(n: int, seed: int) -> pd.DataFrame:
    """Some molecules of QM9, drawn at random: SMILES, HOMO_au and LUMO_au.

    Source: Ramakrishnan et al., Scientific Data 2014, in the package qm9pack.
    """
    folder = Path(str(distribution("qm9pack").locate_file("qm9pack/data")))  # its import wants setuptools
    parts = sorted(folder.glob("qm9_part*.csv"))
    return pd.concat(pd.read_csv(part, usecols=["SMILES", *ORBITALS]) for part in parts).sample(
        n, random_state=seed
    )


def without(table: pd.DataFrame, excluded: set[str]) -> pd.DataFrame:
    """The rows whose molecule has a skeleton, and none of some, with a column `skeleton`."""
    table = table.assign(skeleton=skeletons(list(table["SMILES"])))
    return table[~table["skeleton"].isin({*excluded, ""})].reset_index(drop=True)


def fill(cache: Cache, smiles: list[str]) -> None:
    """Compute what a cache lacks, on all cores; what is there after a kill stays."""
    missing = cache.missing(smiles)
    parts = [missing[i : i + cache.per_shard] for i in range(0, len(missing), cache.per_shard)]
    with closing(LocalExecutor()) as executor:
        tasks = [Task(f"{cache.name} {i}", cache_jobs.fill, (cache, part)) for i, part in enumerate(parts)]
        run_all(tasks, executor, cache.name)


def computed_labels(smiles: list[str], conformers: Cache, n_orbitals: int) -> Array:
    """RDKit's descriptors, and of the first n_orbitals molecules the labels of `huckel`, (n_molecules,
    n_labels).

    Those of `huckel` stand there `TIMES` times, or so few would not count beside so many descriptors.
    Source: Burns et al., Deep learning foundation models from classical molecular descriptors (CheMeleon),
    2025.
    """
    (cache,) = molecule_features(["descriptors"], 0, conformers.root)
    of_orbitals = Cache(
        conformers.root, "orbitals", conformers.settings, partial(huckel, conformers), per_shard=1000
    )
    fill(cache, smiles)
    fill(of_orbitals, smiles[:n_orbitals])
    descriptors = np.concatenate(cache.load(smiles))
    orbitals = np.full((len(smiles), N_ORBITALS), np.nan)
    orbitals[:n_orbitals] = np.concatenate(of_orbitals.load(smiles[:n_orbitals]))
    return np.hstack([descriptors, *[orbitals] * TIMES])


def huckel(conformers: Cache, smiles: list[str]) -> list[Any]:
    """Return per molecule (1, 6): energies of HOMO, LUMO, their difference, HOMO - 1 and LUMO + 1 in eV, and the
    dipole moment of the partial charges in e angstrom; NaN where there are none.

    Source: extended Hueckel theory (Hoffmann, J. Chem. Phys. 1963) in YAeHMOP, which RDKit carries.
    """
    nothing = np.full(N_ORBITALS, np.nan, dtype=np.float32)
    texts = conformers.load(smiles)
    excluded = [not is_flat(atoms) and set(atoms[:, 0]) <= ORGANIC for atoms in texts]
    return [
        (_huckel(select(atoms, 0), nothing) if is_known else nothing)[None]
        for atoms, is_known in zip(texts, excluded, strict=True)
    ]


def _huckel(conformer: Any, nothing: Any) -> Any:
    molecule, positions = Chem.RWMol(), conformer[:, 1:].astype(float)
    for number in conformer[:, 0]:
        atom = Chem.Atom(int(number))
        atom.SetNoImplicit(True)
        molecule.AddAtom(atom)
    molecule.AddConformer(Chem.Conformer(len(conformer)))
    molecule.GetConformer().SetPositions(positions)
    is_solved, result = rdEHTTools.RunMol(molecule)
    energies, homo = np.array(result.GetOrbitalEnergies()), result.numElectrons // 2 - 1
    if not is_solved or homo < 1 or homo + 2 >= len(energies):
        return nothing
    charges = np.array(result.GetAtomicCharges())
    around, dipole = energies[homo - 1 : homo + 3], np.linalg.norm((charges - charges.mean()) @ positions)
    return np.array(
        [around[1], around[2], around[2] - around[1], around[0], around[3], dipole], dtype=np.float32
    )


def standardised(y: Array) -> Array:
    """Labels that differ, in standard deviations, cut at `WIDEST`."""
    y = y[:, np.nanstd(y, axis=0) > 0].astype(np.float64)
    scaled: Any = (y - np.nanmean(y, axis=0)) / np.nanstd(y, axis=0)
    return scaled.clip(-MAX_SCALED, MAX_SCALED)
