"""A cache on disk of one array per molecule: conformers, descriptors. Shared by folds, seeds, stages and test rows.

    work/cache/<name>-<digest of settings and RDKit version>/<digest of the molecules>.npz

Each file is a shard: some molecules, all computed together, written whole or not at all. A run that is killed
keeps its shards; which molecules stand in which shard changes no value.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rdkit
from numpy.typing import NDArray

from competition.errors import DataError
from competition.files import digest, write_atomically
from models.code import code_digest_of


@dataclass(frozen=True)
class MoleculeCache:
    """Arrays (n_i, width) of float32 by canonical SMILES, n_i rows for molecule i.

    compute: canonical SMILES -> array and a status word; a pure function of the SMILES and the settings.
    settings: all that changes what `compute` gives; RDKit's version and the code of `compute` are added.
    check: raises for status words, by SMILES, that its stage cannot take; None takes all.
    """

    root: Path
    name: str
    settings: dict[str, Any]
    compute: Callable[[str], tuple[NDArray[np.float32], str]]
    check: Callable[[dict[str, str]], None] | None = None

    @property
    def folder(self) -> Path:
        """Folder of the shards of these settings."""
        code = code_digest_of(Path(self.compute.__code__.co_filename))
        return self.root / f"{self.name}-{digest({**self.settings, 'rdkit': rdkit.__version__, 'code': code})}"

    def missing(self, smiles: Iterable[str]) -> list[str]:
        """Which distinct molecules are not in the cache, sorted."""
        stored: set[str] = set()
        for shard in self.folder.glob("*.npz"):
            stored.update(_read(shard)["smiles"].tolist())
        return sorted(set(smiles) - stored)

    def shard(self, smiles: list[str]) -> Path:
        """File of the shard of some molecules."""
        return self.folder / f"{digest(smiles)}.npz"

    def compute_shard(self, smiles: list[str]) -> None:
        """Compute some molecules and write them as one shard."""
        self.write_shard(smiles, [self.compute(text) for text in smiles])

    def write_shard(self, smiles: list[str], computed: list[tuple[NDArray[np.float32], str]]) -> None:
        """Write as one shard what was computed for some molecules."""
        values, status = zip(*computed, strict=True)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            smiles=np.array(smiles),
            status=np.array(status),
            lengths=np.array([len(value) for value in values]),
            values=np.concatenate(values),
        )
        write_atomically(self.shard(smiles), buffer.getvalue())

    def load(self, smiles: list[str]) -> tuple[list[NDArray[np.float32]], list[str]]:
        """Arrays and status words in the order of `smiles`; what is missing is computed here, as one shard.

        Raises:
            DataError: if a shard is damaged, or `check` refuses a molecule.
        """
        missing = self.missing(smiles)
        if missing:
            self.compute_shard(missing)
        wanted = set(smiles)
        found: dict[str, tuple[NDArray[np.float32], str]] = {}
        for shard in sorted(self.folder.glob("*.npz")):
            arrays = _read(shard)
            names = arrays["smiles"].tolist()
            if wanted.isdisjoint(names):
                continue
            parts = np.split(arrays["values"], np.cumsum(arrays["lengths"])[:-1])
            for name, part, word in zip(names, parts, arrays["status"].tolist(), strict=True):
                if name in wanted:
                    found[name] = (part, word)
        if self.check is not None:
            self.check({text: word for text, (_, word) in found.items()})
        return [found[text][0] for text in smiles], [found[text][1] for text in smiles]


def _read(shard: Path) -> dict[str, NDArray[Any]]:
    """Arrays of a shard.

    Raises:
        DataError: if the file is damaged.
    """
    try:
        with np.load(shard) as arrays:
            return {name: arrays[name] for name in ("smiles", "status", "lengths", "values")}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError) as error:
        raise DataError(f"{shard} must be a part of the cache and is damaged; delete it and run again.") from error
