"""Peak memory and seconds of reading 50,000 molecules from a filled cache, 10,000 rows at a time as a job
predicts.

    python -m benchmarks.cache_reading [--molecules N]

The arrays are made up, in realistic sizes: count fingerprints of 2048 values, and conformers of 45 atoms on
average. Each cache holds twice as many molecules as are read, as those of the training table are in it as
well.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from models.inputs.cache import Array, Cache
from models.jobs.run_job import PIECE

BITS = 2048
ATOMS = 45


def fingerprints(keys: list[str]) -> list[Array]:
    """Counts of which some 50 are not 0, (1, BITS) of each molecule."""
    rng = np.random.default_rng(len(keys[0]))
    counts = rng.integers(1, 5, size=(len(keys), BITS)) * (rng.random((len(keys), BITS)) < 50 / BITS)
    return list(counts.astype(np.float32)[:, None])


def conformers(keys: list[str]) -> list[Array]:
    """Atomic numbers and coordinates, (n_atoms, 4) of each molecule."""
    rng = np.random.default_rng(len(keys[0]))
    return [rng.normal(size=(rng.integers(ATOMS - 20, ATOMS + 20), 4)).astype(np.float32) for _ in keys]


def cache_of(compute: str, folder: Path) -> Cache:
    """The cache of one of the two functions."""
    return Cache(folder, compute, {}, globals()[compute])


def molecules(n: int) -> list[str]:
    """Names as long as SMILES, in random order."""
    return [f"{number:040d}" for number in np.random.default_rng(0).permutation(n)]


def read(compute: str, folder: Path, n: int) -> None:
    """Read n molecules in pieces and print what it took; meant for a fresh process."""
    cache, keys = cache_of(compute, folder), molecules(2 * n)[:n]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    for start in range(0, n, PIECE):
        np.concatenate(cache.load(keys[start : start + PIECE]))
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{compute}: {seconds:.1f} s of CPU, peak {peak / 1024:.0f} MB, {before / 1024:.0f} MB before it",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--molecules", type=int, default=50_000)
    n = options.parse_args().molecules
    with tempfile.TemporaryDirectory() as folder:
        for compute in ("fingerprints", "conformers"):
            cache, keys = cache_of(compute, Path(folder)), sorted(molecules(2 * n))
            for start in range(0, len(keys), cache.per_shard):
                cache.compute_shard(keys[start : start + cache.per_shard])
            process = multiprocessing.get_context("spawn").Process(
                target=read, args=(compute, Path(folder), n)
            )
            process.start()
            process.join()


if __name__ == "__main__":
    main()
