"""What there is to pre-train on: molecules that no evaluation set has, their conformers and labels, by all cores."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from rdkit import Chem, RDLogger
from rdkit.Chem import inchi
from tqdm import tqdm

from competition.types import Array
from models.inputs.cache import Cache
from models.inputs.conformers import conformer_cache, is_flat, select
from models.inputs.features import molecule_features
from models.stages.unimol import encode
from studies.pretrain.network import Molecules

WIDEST = 4.0
"""Standard deviations at which labels are cut: some descriptors have values without bound."""
ORBITALS = ["HOMO_au", "LUMO_au"]
SMILES = ("smiles", "molecule")
"""What the names of columns with molecules have in them, in the files of evaluation sets."""


def skeletons(smiles: Iterable[str]) -> set[str]:
    """First fourteen letters of the InChIKeys, which know neither stereochemistry nor isotopes."""
    RDLogger.DisableLog("rdApp.*")
    molecules = (Chem.MolFromSmiles(text) for text in smiles)
    return {inchi.MolToInchiKey(molecule)[:14] for molecule in molecules if molecule is not None}


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
        folder = Path(str(find_spec("qm9pack").submodule_search_locations[0])) / "data"  # type: ignore[union-attr, index]
        parts = [pd.read_csv(folder / f"qm9_part{i}.csv", usecols=["SMILES", *ORBITALS]) for i in (1, 2, 3)]
        table = pd.concat(parts)
    else:
        table = pd.read_csv(file, usecols=["SMILES"])
    return table.sample(min(n, len(table)), random_state=seed).reset_index(drop=True)


def without(table: pd.DataFrame, known: set[str]) -> pd.DataFrame:
    """The rows whose molecule is none of some skeletons."""
    parts = np.array_split(np.arange(len(table)), max(1, len(table) // 1000))
    kept = Parallel(n_jobs=-1)(delayed(_unknown)(table.iloc[part], known) for part in parts)
    return pd.concat(kept, ignore_index=True)


def _unknown(table: pd.DataFrame, known: set[str]) -> pd.DataFrame:
    own = [skeletons([text]) for text in table["SMILES"]]
    return table[[len(found) == 1 and not found & known for found in own]]


def fill(cache: Cache, smiles: list[str]) -> None:
    """Compute what a cache lacks, on all cores; what is there after a kill stays."""
    missing = cache.missing(smiles)
    parts = [missing[i : i + cache.per_shard] for i in range(0, len(missing), cache.per_shard)]
    done = Parallel(n_jobs=-1, return_as="generator")(delayed(_computed)(cache, part) for part in parts)
    for _ in tqdm(done, cache.name, len(parts)):
        pass


def _computed(cache: Cache, keys: list[str]) -> None:
    RDLogger.DisableLog("rdApp.*")  # what it says of metals
    cache.compute_shard(keys)


def as_read(smiles: list[str], vocabulary: list[str], remove_hydrogens: bool, root: Path) -> tuple[Molecules, Array]:
    """The molecules in their conformers, and a mask of those that have three dimensions, (n_molecules,)."""
    cache = conformer_cache(root, conformers=1, fragments="largest", repeat_units="keep")
    fill(cache, smiles)
    conformers = cache.load(smiles)
    is_solid = np.array([not is_flat(array) for array in conformers])
    items = [encode(select(conformers[i], 0), vocabulary, remove_hydrogens) for i in np.flatnonzero(is_solid)]
    tokens, coordinates = (np.concatenate([item[name] for item in items]) for name in ("tokens", "coordinates"))
    return Molecules(tokens, coordinates, np.array([len(item["tokens"]) for item in items])), is_solid


def descriptors(smiles: list[str], root: Path) -> Array:
    """RDKit's descriptors, (n_molecules, n_descriptors)."""
    (cache,) = molecule_features(["descriptors"], 0, root)
    fill(cache, smiles)
    return np.concatenate(cache.load(smiles))


def standardised(y: Array) -> tuple[Array, Array]:
    """Labels that differ, in standard deviations and cut at `WIDEST`, 0 where there is none; and a mask of those that
    are there."""
    y = y[:, np.nanstd(y, axis=0) > 0].astype(np.float64)
    scaled: Any = (y - np.nanmean(y, axis=0)) / np.nanstd(y, axis=0)
    return np.nan_to_num(scaled.clip(-WIDEST, WIDEST)).astype(np.float32), ~np.isnan(y)
