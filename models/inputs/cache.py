"""A cache on disk of one array per molecule or text, shared by folds, seeds, stages and test rows.

    work/cache/<name>-<digest of settings and code>/<digest of the keys>.npz

Each file is a shard: some keys, all computed together, written whole or not at all. A run that is killed keeps its
shards, and which keys stand in which shard does not matter.
"""

import functools
import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rdkit
from numpy.typing import NDArray

from competition.errors import DataError
from competition.files import digest, write_atomically
from models.inputs.code import code_digest_of

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Cache:
    """Arrays (n_i, width) of float32 by key: a canonical SMILES, or a text.

    compute: keys -> an array for each; it must depend on the keys and the settings alone.
    settings: all that changes what `compute` gives; RDKit's version and the code of `compute` are added.
    per_shard: keys that a worker computes at a time: some seconds of work, all that a kill can lose.
    gpu: whether a worker with a GPU computes them faster.
    """

    root: Path
    name: str
    settings: dict[str, Any]
    compute: Callable[[list[str]], Iterable[Array]]
    per_shard: int = 100
    gpu: bool = False

    @functools.cached_property
    def folder(self) -> Path:
        """Folder of the shards of these settings."""
        function = getattr(self.compute, "func", self.compute)  # of a partial, which workers can be given
        code = code_digest_of(Path(function.__code__.co_filename))
        return self.root / f"{self.name}-{digest({**self.settings, 'rdkit': rdkit.__version__, 'code': code})}"

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The distinct keys that are not in the cache, sorted."""
        wanted = set(keys)
        for names, _ in self._shards():
            wanted.difference_update(names)
        return sorted(wanted)

    def _shards(self) -> Iterator[tuple[list[str], Any]]:
        """Keys and arrays of each shard; an array is decompressed when it is asked for."""
        for shard in self.folder.glob("*.npz"):
            try:
                with np.load(shard) as arrays:
                    yield arrays["keys"].tolist(), arrays
            except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
                raise DataError(
                    f"{shard} is a damaged part of the cache ({error}); delete it and run again."
                ) from error

    def shard(self, keys: list[str]) -> Path:
        """File of the shard of some keys."""
        return self.folder / f"{digest(keys)}.npz"

    def compute_shard(self, keys: list[str]) -> dict[str, Array]:
        """Compute the arrays of some keys and write them as one shard."""
        values, buffer = list(self.compute(keys)), io.BytesIO()
        np.savez_compressed(buffer, keys=keys, lengths=list(map(len, values)), values=np.concatenate(values))
        write_atomically(self.shard(keys), buffer.getvalue())
        return dict(zip(keys, values, strict=True))

    def load(self, keys: Iterable[str]) -> list[Array]:
        """Arrays in the order of `keys`; what is missing is computed here."""
        keys = list(keys)
        wanted, found = set(keys), dict[str, Array]()
        for names, arrays in self._shards():
            if not wanted.isdisjoint(names):
                parts = np.split(arrays["values"], np.cumsum(arrays["lengths"])[:-1])
                found |= {name: part for name, part in zip(names, parts, strict=True) if name in wanted}
        missing = sorted(wanted - found.keys())
        for start in range(0, len(missing), self.per_shard):
            found |= self.compute_shard(missing[start : start + self.per_shard])
        return [found[key] for key in keys]
