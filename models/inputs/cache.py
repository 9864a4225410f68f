"""A cache on disk of one array per molecule or text, shared by folds, seeds, stages and test rows.

    work/cache/<name>-<digest of settings and code>/<digest of the keys>.npz

Each file is a shard: some keys, all computed together, written whole or not at all. A run that is killed keeps its
shards, and which keys stand in which shard does not matter.
"""

import functools
import io
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
        distinct = set(keys)
        return sorted(distinct.difference(self._index(distinct)))

    def _index(self, keys: set[str]) -> dict[str, Path]:
        """Shard of each key of the folder; the folder is listed again only if one of `keys` is not indexed yet."""
        indexed, shard_of = _index_of_folder(self.folder)
        if not keys <= shard_of.keys():
            new = set(self.folder.glob("*.npz")) - indexed
            for shard in new:
                with _open(shard) as arrays:
                    shard_of.update(dict.fromkeys(arrays["keys"].tolist(), shard))
            indexed |= new
        return shard_of

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
        distinct = set(keys)
        shard_of = self._index(distinct)
        by_shard = defaultdict[Path, list[str]](list)
        for key in distinct & shard_of.keys():
            by_shard[shard_of[key]].append(key)
        loaded: dict[str, Array] = {}
        for shard, in_shard in by_shard.items():
            with _open(shard) as arrays:
                arrays_of_shard = np.split(arrays["values"], np.cumsum(arrays["lengths"])[:-1])
                array_of = dict(zip(arrays["keys"].tolist(), arrays_of_shard, strict=True))
            # A view would keep the whole shard in memory, of which often a few keys are loaded.
            loaded |= {key: array_of[key].copy() for key in in_shard}
        missing = sorted(distinct - loaded.keys())
        for start in range(0, len(missing), self.per_shard):
            loaded |= self.compute_shard(missing[start : start + self.per_shard])
        return [loaded[key] for key in keys]


@functools.cache
def _index_of_folder(folder: Path) -> tuple[set[Path], dict[str, Path]]:
    """The shards of a folder that this process has indexed, and the shard of each of their keys; `Cache` adds to both.

    Other processes add shards meanwhile, and none changes or deletes one.
    """
    return set(), {}


@contextmanager
def _open(shard: Path) -> Iterator[Any]:
    """The arrays of a shard; one is decompressed each time it is read."""
    try:
        with np.load(shard) as arrays:
            yield arrays
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise DataError(f"{shard} is a damaged part of the cache ({error}); delete it and run again.") from error
