"""Time and memory of a fit of stage `gp`, and its predictions against scikit-learn's.

    python -m benchmarks.gaussian_process --molecules FILE_WITH_SMILES --cache FOLDER [--rows 1000 3000 10000]

For each number of rows, the kernels, the fit and the standard deviations of 500 other molecules are timed in a new
process on one core, and the peak of its memory is printed. The labels are the molecules' logP with noise. Up to 1,000
rows `GaussianProcessRegressor` of scikit-learn fits the same kernel with the same noise, and the largest difference of
the predictions is printed.
"""

import argparse
import resource
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit import Chem
from rdkit.Chem.Crippen import MolLogP
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import PairwiseKernel

from competition.dataset import Dataset
from competition.molecules import canonical_smiles
from competition.task import Task
from models import targets
from models.context import Context
from models.inputs.fingerprints import load_fingerprints, minmax_kernel, molecule_features
from models.stages.gp import Gp
from models.stages.gp_regression import decompose, fit_target

N_TEST = 500
MAX_REFERENCE = 1000


def main() -> None:
    """Print a line per number of rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--molecules", type=Path, required=True, help="table whose first column has SMILES")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 3000, 10_000])
    args = parser.parse_args()
    for n_rows in args.rows:
        with get_context("spawn").Pool(1) as pool:
            print(pool.apply(measure, (n_rows, args.molecules, args.cache)), flush=True)


def measure(n_rows: int, molecules: Path, cache: Path) -> str:
    """Return a line of figures."""
    table = pd.read_csv(molecules, nrows=2 * (n_rows + N_TEST))
    smiles = [text for text in map(canonical_smiles, table.iloc[:, 0]) if text][: n_rows + N_TEST]
    y = np.array([MolLogP(Chem.MolFromSmiles(text)) for text in smiles])
    y += 0.3 * np.random.default_rng(0).normal(size=len(y))
    rows = Dataset([str(i) for i in range(len(y))], pd.DataFrame({"SMILES": smiles}), y[:, None])
    context = Context(["SMILES"], [], [], [], Task(["y"]), seed=0, cache=cache)
    config = Gp(kind="gp")
    for shared, keys in config.caches(context, [rows]):
        shared.load(keys)
    train, test = rows.take(np.arange(n_rows)), rows.take(np.arange(n_rows, len(y)))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        targets.fit(config, train, Path(folder), context)
        fitted = time.perf_counter()
        y_pred = targets.predict(config, test, Path(folder), context)
        predicted = time.perf_counter()
        targets.predict_std(config, test, Path(folder), context)
        ended = time.perf_counter()
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rmse = float(np.sqrt(np.mean((y_pred - test.y) ** 2)))
    line = f"{n_rows} rows: fit {fitted - started:.1f} s, predictions {predicted - fitted:.1f} s, standard deviations "
    line += f"{ended - predicted:.1f} s, {gib:.1f} GiB, RMSE {rmse:.3f}"
    return line + (f"; {compare(smiles, y, n_rows, cache)}" if n_rows <= MAX_REFERENCE else "")


def compare(smiles: list[str], y: np.ndarray, n_rows: int, cache: Path) -> str:
    """Return the time of scikit-learn's regressor on one kernel, and the largest difference of its predictions."""
    fingerprints = load_fingerprints(molecule_features(["ecfp4"], 0, cache)[0], smiles)
    kernel = minmax_kernel(fingerprints, fingerprints)
    started = time.perf_counter()
    fit = fit_target(decompose(kernel[:n_rows, :n_rows].copy(), np.ones(n_rows)), y[:n_rows])
    y_pred = fit.mean + kernel[n_rows:, :n_rows] @ fit.coefficients
    ours = time.perf_counter() - started
    similarity = PairwiseKernel(metric=lambda a, b, **_: kernel[int(a[0]), int(b[0])])
    reference = GaussianProcessRegressor(similarity, alpha=fit.noise, optimizer=None)
    started = time.perf_counter()
    reference.fit(np.arange(n_rows)[:, None], y[:n_rows] - fit.mean)
    y_reference = reference.predict(np.arange(n_rows, len(y))[:, None]) + fit.mean
    theirs = time.perf_counter() - started
    difference = np.abs(y_pred - y_reference).max()
    times = f"one kernel: {ours:.1f} s with 37 noise levels, scikit-learn {theirs:.1f} s with one"
    return f"{times}, difference {difference:.0e}"


if __name__ == "__main__":
    main()
