"""Compare kernels and hyperparameters of Gaussian processes and SVMs on molecules.

    python -m benchmarks.kernels --data FOLDER_WITH_COMPETITIONS --work W [--rows 1000] [--sets ...]

For each set and target, five random folds of at most --rows rows. Kernels: MinMax of counts, their mean over the three
of the stage `gp` (`minmax`), and RBF of descriptors and MiniMol (min4: with four times the inverse width). The weights
are chosen from a grid, or learned by the gradient of the marginal likelihood of 500 rows, or equal. Printed are ratios
of cross-fitted errors (RMSE, or 1 - AUC) with their 95 % interval of a bootstrap over rows: of each model alone over
`grid minimol`, and of a non-negative blend of columns over that of all of today's.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit import Chem
from rdkit.Avalon import pyAvalonTools
from rdkit.Chem import rdFingerprintGenerator
from scipy import linalg, optimize, sparse, special
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVR

from models.features import encoder_cache
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.fingerprints import GENERATORS, minmax_kernel, molecule_features
from models.inputs.scaling import fit_scaling, scaled_blocks
from models.stages.gp_regression import decompose, fit_columns, fit_target

TARGETS = {
    "esol": ["logS"], "photoswitch": ["E_pipi_nm", "Z_npi_nm"], "qm9_electronic": ["homo_eV", "mu_D"],
    "biogen_adme": ["log_HLM_CLint", "log_solubility", "log_hPPB"], "chembl204_ki": ["pKi"],
    "chembl218_ec50": ["pEC50"], "chembl287_ki": ["pKi"], "bace": ["active"], "tox21": ["SR-ARE", "NR-AhR"],
}  # fmt: skip
MORE = {
    "ecfp6": rdFingerprintGenerator.GetMorganGenerator(radius=3, includeChirality=True),
    "paths": rdFingerprintGenerator.GetRDKitFPGenerator(),
    "torsions": rdFingerprintGenerator.GetTopologicalTorsionGenerator(includeChirality=True),
}
THREE, SEVEN = [*GENERATORS], [*GENERATORS, *MORE, "avalon"]
KERNELS = {
    "plain": ["minmax", "descriptors"],
    "minimol": ["minmax", "descriptors", "minimol"],
    "separate": [*THREE, "descriptors", "minimol"],
    "all": [*SEVEN, "descriptors", "minimol", "min4"],
}
MODELS = [
    *(("grid", name) for name in ("plain", "minimol")),
    *(("learned", name) for name in KERNELS),
    ("equal", "all"), ("svr", "minimol"), ("svr", "all"), ("rbf svr", "minimol"), ("rbf svr", "maplight"),
]  # fmt: skip
BASE = [("grid", "plain"), ("grid", "minimol"), ("rbf svr", "minimol"), ("rbf svr", "maplight")]
BLENDS = {
    "without grid plain": BASE[1:],
    "learned minimol": [("learned", "minimol"), *BASE[2:]],
    "learned all": [("learned", "all"), *BASE[2:]],
    "kernel svr for rbf svr minimol": [*BASE[:2], ("svr", "minimol"), BASE[3]],
}


def counts(name, molecules):
    ids, entries = {}, []
    for row, molecule in enumerate(molecules):
        if name == "avalon":
            found = dict(enumerate(pyAvalonTools.GetAvalonCountFP(molecule, 1024).ToList()))
        else:
            found = ({**GENERATORS, **MORE})[name].GetSparseCountFingerprint(molecule).GetNonzeroElements()
        entries += [(n, row, ids.setdefault(key, len(ids))) for key, n in found.items() if n]
    n, rows, columns = np.array(entries).T
    return sparse.csr_array((n, (rows, columns)), shape=(len(molecules), 2**32))


def objective(parameters, kernels, y):
    shares, noise = special.softmax(parameters[:-1]), np.exp(parameters[-1])
    kernel = np.tensordot(shares, kernels, 1) + noise * np.eye(len(y))
    lower = linalg.cholesky(kernel, lower=True)
    inverse = linalg.cho_solve((lower, True), np.eye(len(y)))
    sums = inverse.sum(axis=1)
    residuals = y - sums @ y / sums.sum()
    coefficients = inverse @ residuals
    variance = residuals @ coefficients / len(y)
    loss = np.log(np.diag(lower)).sum() + 0.5 * len(y) * np.log(variance)
    slope = 0.5 * (inverse - np.outer(coefficients, coefficients) / variance)
    by_share = np.einsum("kij,ij->k", kernels, slope)
    return loss, np.append(shares * (by_share - shares @ by_share), noise * np.trace(slope))


def learned_weights(kernels, y):
    some = slice(None, None, -(-len(y) // 500))
    start = np.append(np.zeros(len(kernels)), np.log(0.1))
    bounds = [(-8, 8)] * len(kernels) + [(np.log(1e-4), np.log(100))]
    arguments = np.array([kernel[some, some] for kernel in kernels]), y[some]
    result = optimize.minimize(
        objective, start, arguments, "L-BFGS-B", True, bounds=bounds, options={"maxiter": 25}
    )
    return special.softmax(result.x[:-1])


def scaled(block, rows, ranked):
    with tempfile.TemporaryDirectory() as folder:
        fit_scaling({"block": block[rows]}, Path(folder), ["block"] if ranked else [])
        return scaled_blocks({"block": block.copy()}, Path(folder))["block"].astype(np.float64)


def rbf(block, rows, ranked, factor=1.0):
    numbers = scaled(block, rows, ranked)
    distances = cdist(numbers, numbers[rows], "sqeuclidean")
    return np.exp(-factor * distances / np.median(pdist(numbers[rows], "sqeuclidean")))


def predict(how, names, kernels, blocks, y, rows):
    if how == "rbf svr":
        block = blocks["minimol"] if names == "minimol" else blocks["maplight"]
        numbers = scaled(block, rows, ranked=True)
        return SVR(C=3.0 if names == "minimol" else 10.0).fit(numbers[rows], y).predict(numbers)
    cross = [kernels[name] for name in KERNELS[names]]
    own = [kernel[rows] for kernel in cross]
    if how == "grid":
        fitted = fit_columns(own, y[:, None], np.ones((len(y), 1)), lambda done, total: None)
        return (
            fitted["mean"]
            + np.tensordot(fitted["kernel_weights"][:, 0], cross, 1) @ fitted["coefficients"][:, 0]
        )
    weights = learned_weights(own, y) if how == "learned" else np.full(len(own), 1 / len(own))
    kernel = np.tensordot(weights, cross, 1)
    if how == "svr":
        return SVR(kernel="precomputed", C=3.0).fit(kernel[rows], y).predict(kernel)
    fit = fit_target(decompose(kernel[rows].copy(), np.ones(len(y))), y)
    return fit.mean + kernel @ fit.coefficients


def out_of_fold(table, smiles, target, cache):
    """Return labels, and the out-of-fold predictions and seconds of each model."""
    y = table[target].to_numpy(dtype=float)
    is_class = set(y) <= {0.0, 1.0}
    scale = 1.0 if is_class else y.std()
    molecules = [Chem.MolFromSmiles(each) for each in smiles]
    fixed = {name: minmax_kernel(*[counts(name, molecules)] * 2) for name in SEVEN}
    blocks = {
        each.name: np.concatenate(each.load(smiles)) for each in molecule_features(["maplight"], 1024, cache)
    }
    blocks["maplight"] = np.hstack([*blocks.values()])
    blocks["minimol"] = np.concatenate(encoder_cache(EncoderFeature(encoder="minimol"), cache).load(smiles))
    fold = np.random.default_rng(1).permutation(np.arange(len(y)) % 5)
    predicted, seconds = {model: np.zeros(len(y)) for model in MODELS}, dict.fromkeys(MODELS, 0.0)
    for k in range(5):
        rows = np.flatnonzero(fold != k)
        kernels = {name: kernel[:, rows] for name, kernel in fixed.items()}
        kernels["minmax"] = np.mean([kernels[name] for name in THREE], axis=0)
        kernels["descriptors"] = rbf(blocks["descriptors"], rows, ranked=True)
        kernels["minimol"] = rbf(blocks["minimol"], rows, ranked=False)
        kernels["min4"] = kernels["minimol"] ** 4
        for model in MODELS:
            start = time.process_time()
            values = predict(*model, kernels, blocks, (y[rows] - y.mean()) / scale, rows)
            seconds[model] += time.process_time() - start
            predicted[model][fold == k] = values[fold == k]
    return (y - y.mean()) / scale, is_class, fold, predicted, seconds


def blend(columns, y, fold):
    inputs, values = np.column_stack(columns), np.zeros(len(y))
    for k in range(5):
        others = fold != k
        values[~others] = inputs[~others] @ optimize.nnls(inputs[others], y[others])[0]
    return values


def ratio(y, is_class, before, after):
    def error(predicted, rows):
        if is_class:
            return 1 - roc_auc_score(y[rows] > 0, predicted[rows])
        return np.sqrt(np.mean((predicted[rows] - y[rows]) ** 2))

    rng = np.random.default_rng(0)
    draws = [np.arange(len(y)), *rng.integers(0, len(y), (400, len(y)))]
    ratios = [error(after, rows) / error(before, rows) for rows in draws]
    low, high = np.quantile(ratios[1:], [0.025, 0.975])
    return f"{ratios[0]:.3f} ({low:.3f} to {high:.3f})"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--sets", nargs="+", default=[*TARGETS])
    arguments = parser.parse_args()
    for name in arguments.sets:
        full = pd.read_csv(arguments.data / name / "train.csv")
        column = next(each for each in full if each.lower() == "smiles")
        molecules = [Chem.MolFromSmiles(text) for text in full[column]]
        full["canonical"] = [molecule and Chem.MolToSmiles(molecule) for molecule in molecules]
        full = full.dropna(subset=["canonical"])
        for target in TARGETS[name]:
            table = full.dropna(subset=[target])
            table = table.sample(min(arguments.rows, len(table)), random_state=0)
            y, is_class, fold, predicted, seconds = out_of_fold(
                table, table["canonical"].tolist(), target, arguments.work / "cache"
            )
            today = BASE[1]
            print(f"{name}, {target}, {len(y)} rows", flush=True)
            for model in MODELS:
                value = ratio(y, is_class, predicted[today], predicted[model])
                print(f"  {' '.join(model):30s} {value}, seconds {seconds[model] / seconds[today]:.2f}")
            base = blend([predicted[model] for model in BASE], y, fold)
            for label, models in BLENDS.items():
                value = ratio(y, is_class, base, blend([predicted[model] for model in models], y, fold))
                print(f"  blend: {label:30s} {value}", flush=True)


if __name__ == "__main__":
    main()
