"""What there is to pre-train on: molecules that no evaluation set has, their conformers and labels, by all cores."""

from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem, RDLogger
from rdkit.Chem import inchi

from competition.types import Array
from models.inputs.cache import Cache
from models.inputs.conformers import conformer_cache, is_flat, select
from models.inputs.features import molecule_features
from models.jobs.prefill import fill
from models.jobs.workers import Item, Workers
from models.stages.unimol import encode
from studies.pretrain.network import Molecules

WIDEST = 4.0
"""Standard deviations at which labels are cut: some descriptors have values without bound."""
ORBITALS = ["HOMO_au", "LUMO_au"]
SMILES = ("smiles", "molecule")
"""What the names of columns with molecules have in them, in the files of evaluation sets."""


def skeleton(smiles: str) -> str:
    """First fourteen letters of the InChIKey, without stereochemistry and isotopes; "" where there is none."""
    RDLogger.DisableLog("rdApp.*")
    molecule = Chem.MolFromSmiles(smiles)
    return "" if molecule is None else inchi.MolToInchiKey(molecule)[:14]


def skeletons(smiles: list[str]) -> list[str]:
    """The same of many, by all cores."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(skeleton, smiles, chunksize=500))


def evaluation_molecules(folder: Path) -> list[str]:
    """All SMILES in train.csv and test.csv of the competitions in a folder, with the fragments of mixtures."""
    found = set[str]()
    for file in sorted([*folder.glob("*/train.csv"), *folder.glob("*/test.csv")]):
        table = pd.read_csv(file, dtype=str)
        for name in table.columns[[any(word in name.lower() for word in SMILES) for name in table.columns]]:
            found.update(part for text in table[name].dropna().unique() for part in (text, *text.split(".")))
    return sorted(found - {""})


def read_molecules(file: Path | None, n: int, seed: int) -> pd.DataFrame:
    """Some molecules of a CSV, drawn at random, in a column SMILES; without a file of QM9, with HOMO_au and LUMO_au.

    Source of QM9: Ramakrishnan et al., Scientific Data 2014; the package qm9pack carries it.
    """
    if file is None:
        folder = Path(str(distribution("qm9pack").locate_file("qm9pack/data")))  # its import wants setuptools
        parts = sorted(folder.glob("qm9_part*.csv"))
        table = pd.concat(pd.read_csv(part, usecols=["SMILES", *ORBITALS]) for part in parts)
    else:
        table = pd.read_csv(file, usecols=["SMILES"])
    return table.sample(min(n, len(table)), random_state=seed).reset_index(drop=True)


def without(table: pd.DataFrame, known: set[str]) -> pd.DataFrame:
    """The rows whose molecule has a skeleton, and none of some."""
    found = skeletons(list(table["SMILES"]))
    return table[[key not in known and key != "" for key in found]].reset_index(drop=True)


def filled(cache: Cache, smiles: list[str]) -> Any:
    """Arrays of a cache; what it lacks is computed on all cores, and is there after a kill."""
    missing = cache.missing(smiles)
    parts = [missing[i : i + cache.per_shard] for i in range(0, len(missing), cache.per_shard)]
    with Workers() as workers:
        workers.run([Item(fill, (cache, part)) for part in parts], cache.name)
    return cache.load(smiles)


def as_read(smiles: list[str], vocabulary: list[str], remove_hydrogens: bool, root: Path) -> tuple[Molecules, Array]:
    """The molecules in their conformers, and a mask of those that have three dimensions, (n_molecules,)."""
    cache = conformer_cache(root, conformers=1, fragments="largest", repeat_units="keep")
    conformers = filled(cache, smiles)
    is_solid = np.array([not is_flat(array) for array in conformers])
    items = [encode(select(conformers[i], 0), vocabulary, remove_hydrogens) for i in np.flatnonzero(is_solid)]
    tokens, coordinates = (np.concatenate([item[name] for item in items]) for name in ("tokens", "coordinates"))
    return Molecules(tokens, coordinates, np.array([len(item["tokens"]) for item in items])), is_solid


def descriptors(smiles: list[str], root: Path) -> Array:
    """RDKit's descriptors, (n_molecules, n_descriptors)."""
    (cache,) = molecule_features(["descriptors"], 0, root)
    return np.concatenate(filled(cache, smiles))


def standardised(y: Array) -> tuple[Array, Array]:
    """Labels that differ, in standard deviations and cut at `WIDEST`, 0 where there is none; and a mask of those that
    are there."""
    y = y[:, np.nanstd(y, axis=0) > 0].astype(np.float64)
    scaled: Any = (y - np.nanmean(y, axis=0)) / np.nanstd(y, axis=0)
    return np.nan_to_num(scaled.clip(-WIDEST, WIDEST)).astype(np.float32), ~np.isnan(y)
