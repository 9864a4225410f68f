"""A cache on disk of one array per molecule or text, shared by folds, seeds, stages and test rows.

    work/cache/<name>-<digest of settings and code>/<digest of the keys>.npz

Each file is a shard: some keys that are computed together and written atomically. A run that is
killed keeps its finished shards. A key is in the shard that it was computed with.
"""

import functools
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rdkit
from numpy.typing import NDArray

from competition.dataset import Dataset
from core.files import digest, is_of_system, remove_damaged, write_atomically
from core.modules import code_digest_of, file_of

Array = NDArray[np.float32]  # `core.types.Array` is float64


@dataclass(frozen=True)
class Cache:
    """Arrays of float32, (n_i, width), by key. A key is a canonical SMILES or a text.

    Attributes:
        root: folder of all caches.
        name: start of the name of this cache's folder.
        settings: everything that changes the arrays. RDKit's version and the code of `compute` are
            added.
        compute: function from keys to one array per key. It may depend only on the keys and the
            settings.
        per_shard: number of keys that a worker computes at a time. That is some seconds of work,
            the most that a killed run can lose.
        gpu: whether a worker with a GPU computes the arrays faster.
        modules: modules of the project that `compute` imports by name.
    """

    root: Path
    name: str
    settings: dict[str, Any]
    compute: Callable[[list[str]], Iterable[Array]]
    per_shard: int = 100
    gpu: bool = False
    modules: tuple[str, ...] = ()

    @functools.cached_property
    def folder(self) -> Path:
        """Folder of the shards of these settings."""
        function = getattr(self.compute, "func", self.compute)  # func: `compute` may be a functools.partial
        code = _code_of(function, self.modules)
        return (
            self.root / f"{self.name}-{digest({**self.settings, 'rdkit': rdkit.__version__, 'code': code})}"
        )

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the distinct keys that are not in the cache, sorted."""
        distinct = set(keys)
        return sorted(distinct.difference(self._index(distinct)))

    def _index(self, keys: set[str]) -> dict[str, Path]:
        """Return the shard of each key in the folder. The folder is listed only if one of `keys` is
        not indexed yet.
        """
        index = _index_of_folder(self.folder)
        if not keys <= index.keys():
            for shard in set(self.folder.glob("*.npz")).difference(index.values()):
                arrays = _read(shard, "keys")
                index.update(dict.fromkeys(arrays.get("keys", []), shard))
        return index

    def shard(self, keys: list[str]) -> Path:
        """Return the file of the shard that contains exactly these keys."""
        return self.folder / f"{digest(keys)}.npz"

    def compute_shard(self, keys: list[str]) -> dict[str, Array]:
        """Compute the arrays of some keys and write them as one shard."""
        values = list(self.compute(keys))
        lengths = [len(value) for value in values]
        buffer = io.BytesIO()
        # An array of texts would give each of them the memory of the longest one.
        bytes_of_keys = np.frombuffer(json.dumps(keys).encode(), np.uint8)
        np.savez_compressed(buffer, keys=bytes_of_keys, lengths=lengths, values=np.concatenate(values))
        write_atomically(self.shard(keys), buffer.getvalue())
        return dict(zip(keys, values, strict=True))

    def load(self, keys: Iterable[str]) -> list[Array]:
        """Return the arrays in the order of `keys`. Missing ones are computed in this process."""
        keys = list(keys)
        distinct = set(keys)
        shard_of_key = self._index(distinct)
        keys_of_shard = defaultdict[Path, list[str]](list)
        for key in distinct & shard_of_key.keys():
            keys_of_shard[shard_of_key[key]].append(key)
        loaded: dict[str, Array] = {}
        for shard, requested in keys_of_shard.items():
            arrays = _read(shard, "keys", "lengths", "values")
            if not arrays:
                continue
            values = np.split(arrays["values"], np.cumsum(arrays["lengths"])[:-1])
            value_of_key = dict(zip(arrays["keys"], values, strict=True))
            # A view would keep the entire shard in memory, even if only a few of its keys are loaded.
            loaded |= {key: value_of_key[key].copy() for key in requested}
        missing = sorted(distinct - loaded.keys())
        for start in range(0, len(missing), self.per_shard):
            loaded |= self.compute_shard(missing[start : start + self.per_shard])
        return [loaded[key] for key in keys]


def distinct_values(columns: list[str], tables: Sequence[Dataset]) -> list[str]:
    """Return the distinct cells of some columns of tables, sorted."""
    values = set[str]()
    for rows in tables:
        for column in columns:
            values.update(rows.inputs[column])
    return sorted(values)


@functools.cache
def _code_of(function: Callable[..., Any], modules: tuple[str, ...]) -> str:
    """Return the digest of the code of a function and of modules, at the first call: a later edit is not imported."""
    return code_digest_of(Path(function.__code__.co_filename), *map(file_of, modules))


@functools.cache
def _index_of_folder(folder: Path) -> dict[str, Path]:
    """Return the shard of each key that this process has read, which are none at first; `Cache` adds to them.

    Other processes may add shards at any time, but no process changes one, or deletes one that can be read.
    """
    return {}


def _read(shard: Path, *names: str) -> dict[str, Any]:
    """Return the keys and other arrays of a shard; {} for one that cannot be read, which is deleted."""
    try:
        with np.load(shard) as arrays:
            read = {name: arrays[name] for name in names}
        return read | {"keys": json.loads(read["keys"].tobytes())}
    except FileNotFoundError:  # another process has deleted it
        return {}
    except Exception as error:  # of any kind, by the bytes that are wrong
        if is_of_system(error):
            raise
        remove_damaged(shard, "its entries are computed again")
        return {}
