"""Two columns in any order: runs with and without `competition.swap`, and features that do not depend on the order.

    python -m benchmarks.exchangeable --work FOLDER --data FOLDER_WITH_COMPETITIONS [--sets ...] [--stages ...]

Molecules of a set with numbers are divided into blocks; each pair is of two molecules of one block, and no block is in
two folds. Targets of a pair are functions of the two standardised labels. The sentences of sts_benchmark are as they
are. For each target, stage and the blend: the RMSE out of fold without and with `swap`, and the gain with its 95 %
interval of the paired bootstrap over blocks, or over rows of sentences. `--features` prints the RMSE of boosted trees
and an SVM on counts of substructures and descriptors of both molecules, and the gain of other features, instead.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.types import Array, Integers

SETS = {
    "potency": ("chembl204_ki", "pKi"),
    "potency_287": ("chembl287_ki", "pKi"),
    "solubility": ("esol", "logS"),
    "sentences": ("sts_benchmark", "similarity_score"),
}
"""Set -> competition, and its label."""
TARGETS = ["mean", "maximum", "product", "difference"]
N_BLOCKS, BLOCK_SIZE, N_PAIRS = 15, 24, 40
"""Number of blocks, of molecules in a block, and of pairs in a block."""
N_SENTENCES = 1500
N_FOLDS = 3
STAGES = {
    "molecules": {
        "baseline": "{kind: baseline}",
        "svr_maplight": "{kind: sklearn, estimator: sklearn.svm.SVR, features: [maplight], parameters: {C: 10.0}}",
        "lightgbm": "{kind: lightgbm, learning_rate: 0.1}",
        "gp": "{kind: gp}",
    },
    "sentences": {
        "baseline": "{kind: baseline}",
        "lightgbm_pairs": "{kind: lightgbm, features: [{encoder: minilm, pairs: cosine}], tfidf_features: 0}",
        "svr_pairs": "{kind: sklearn, features: [{encoder: minilm, pairs: vectors}], tfidf_features: 0, "
        "estimator: sklearn.svm.SVR, parameters: {C: 3.0}}",
    },
}
YAML = """
competition: {{train: train.csv, test: test.csv, sample_submission: sample.csv, id: id, targets: [{targets}],
  {role}: [first, second], metric: rmse, group: block{more}}}
folds: {{kind: group, n_folds: {n_folds}}}
stages:
"""
SWAP = ", swap: {columns: [[first, second]]}"
N_RESAMPLES = 2000
DESCRIPTORS = (
    "MolWt", "MolLogP", "TPSA", "NumHDonors", "NumHAcceptors", "NumRotatableBonds", "RingCount", "FractionCSP3",
    "NumAromaticRings", "BertzCT", "LabuteASA", "BalabanJ", "Kappa1", "Kappa2", "HallKierAlpha", "NHOHCount",
)  # fmt: skip
FEATURES = (
    ("u v", False), ("u v", True), ("u v tanimoto", False), ("u v difference tanimoto", False),
    ("sum difference tanimoto", False), ("u v difference tanimoto", True),
)  # fmt: skip
"""Features of two molecules, and whether they are trained on and predicted in both orders."""


def molecule_pairs(competition: str, label: str, data: Path) -> pd.DataFrame:
    """Return a row per pair of molecules, with its block and `TARGETS`."""
    items = pd.read_csv(data / competition / "train.csv").dropna(subset=[label]).drop_duplicates("SMILES")
    items = items.sample(N_BLOCKS * BLOCK_SIZE, random_state=0)
    labels = items[label].to_numpy()
    labels = (labels - labels.mean()) / labels.std()
    rng = np.random.default_rng(0)
    rows = []
    for block in range(N_BLOCKS):
        pairs = list(combinations(range(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE), 2))
        for number in rng.choice(len(pairs), N_PAIRS, replace=False):
            rows.append((block, *rng.permutation(pairs[number])))
    blocks, first, second = np.array(rows).T
    u, v = labels[first], labels[second]
    smiles = items["SMILES"].to_numpy()
    return pd.DataFrame({
        "first": smiles[first], "second": smiles[second], "block": blocks,
        "mean": (u + v) / 2, "maximum": np.maximum(u, v), "product": u * v, "difference": np.abs(u - v),
    })  # fmt: skip


def sentence_pairs(competition: str, label: str, data: Path) -> pd.DataFrame:
    """Return rows of two sentences, each with a block of its own, and their similarity."""
    rows = pd.read_csv(data / competition / "train.csv").sample(N_SENTENCES, random_state=0)
    sentences = {"first": rows["sentence1"].to_numpy(), "second": rows["sentence2"].to_numpy()}
    return pd.DataFrame({**sentences, "block": range(len(rows)), "similarity": rows[label].to_numpy()})


def write_competition(name: str, table: pd.DataFrame, folder: Path) -> None:
    """Write the tables, of which the last rows stand for the test table, and the YAMLs `plain` and `swap`."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = targets_of(table)
    table.to_csv(folder / "train.csv", index=False)
    test = table.tail(20).assign(id=[f"test_{number}" for number in range(20)])
    test.drop(columns=[*targets, "block"]).to_csv(folder / "test.csv", index=False)
    test[["id"]].assign(**dict.fromkeys(targets, 0.0)).to_csv(folder / "sample.csv", index=False)
    kind = "sentences" if name == "sentences" else "molecules"
    role = "text" if kind == "sentences" else "smiles"
    pairs = ", pairs: [[first, second]]" if kind == "sentences" else ""
    lines = "".join(f"  {stage}: {settings}\n" for stage, settings in STAGES[kind].items())
    for which, swap in {"plain": "", "swap": SWAP}.items():
        text = YAML.format(targets=", ".join(targets), role=role, more=pairs + swap, n_folds=N_FOLDS)
        (folder / f"{name}_{which}.yaml").write_text(text + lines)


def targets_of(table: pd.DataFrame) -> list[str]:
    """Return the targets of a table of pairs."""
    return [name for name in table if name in [*TARGETS, "similarity"]]


def run(yaml_file: Path, work: Path, stages: str | None, targets: list[str]) -> dict[str, pd.DataFrame]:
    """Return the predictions out of fold of each stage and of the blend, by id, with a column for each target."""
    command = [sys.executable, "-m", "pipeline", "full", str(yaml_file), "--budget=none", "--workers=1"]
    command += [f"--stages={stages}"] if stages else []
    subprocess.run(command, env=os.environ | {"WORK_DIR": str(work)}, check=True, stdout=subprocess.DEVNULL)
    runs = (work / yaml_file.stem / "submissions").glob("*/run.json")
    folder = max(runs, key=lambda file: file.stat().st_mtime).parent
    oof = pd.read_csv(folder / "oof.csv", dtype={"id": str}).set_index("id")
    blend = pd.read_csv(folder / "cross_fitted.csv", dtype={"id": str}).set_index("id")
    last = f" {targets[0]}"
    names = [name.removesuffix(last) for name in oof if name.endswith(last) and name != last.strip()]
    y_pred = {
        name: oof[[f"{name} {target}" for target in targets]].set_axis(targets, axis=1)
        for name in names
        if {f"{name} {target}" for target in targets} <= {*oof}
    }
    return {**y_pred, "blend": blend[targets]}


def describe_gain(errors: Array, new_errors: Array, blocks: Integers) -> str:
    """Return the RMSE before and after, and the gain in percent with its 95 % interval.

    Args:
        errors: (n_rows,) squared errors before.
        new_errors: (n_rows,) squared errors after.
        blocks: (n_rows,) what is resampled.
    """
    sums = np.array([np.bincount(blocks, weights=each) for each in (errors, new_errors)])
    n_blocks = sums.shape[1]
    drawn = np.random.default_rng(1).integers(n_blocks, size=(N_RESAMPLES, n_blocks))
    before, after = sums[:, drawn].sum(axis=2)
    low, high = np.quantile(1 - np.sqrt(after / before), [0.025, 0.975])
    rmse, new_rmse = np.sqrt([errors.mean(), new_errors.mean()])
    return f"{rmse:.3f} {new_rmse:.3f} {1 - new_rmse / rmse:+.1%} [{low:+.1%}, {high:+.1%}]"


def compare_runs(name: str, table: pd.DataFrame, folder: Path, stages: str | None) -> Iterator[str]:
    """Yield a line for each target and stage: RMSE without and with `swap`, and the gain."""
    targets = targets_of(table)
    write_competition(name, table, folder)
    plain = run(folder / f"{name}_plain.yaml", folder / "work", stages, targets)
    swap = run(folder / f"{name}_swap.yaml", folder / "work", stages, targets)
    rows = table.set_index("id")
    for target in targets:
        for stage, y_pred in plain.items():
            of_rows = rows.loc[y_pred.index]
            errors = (y_pred[target] - of_rows[target]).to_numpy() ** 2
            new_errors = (swap[stage].loc[y_pred.index, target] - of_rows[target]).to_numpy() ** 2
            gain = describe_gain(errors, new_errors, of_rows["block"].to_numpy())
            yield f"{target} {stage}: {gain}"


def features_of(smiles: list[str]) -> tuple[Array, list[Any]]:
    """Return counts of substructures and some descriptors, (n_molecules, n_features), and fingerprints."""
    from rdkit import Chem
    from rdkit.Chem import Descriptors, rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(2, fpSize=256)
    molecules = [Chem.MolFromSmiles(text) for text in smiles]
    counts = [generator.GetCountFingerprintAsNumPy(molecule) for molecule in molecules]
    functions = [getattr(Descriptors, name) for name in DESCRIPTORS]
    numbers = [[function(molecule) for function in functions] for molecule in molecules]
    values = np.hstack([counts, np.array(numbers, float)])
    return values, [generator.GetCountFingerprint(molecule) for molecule in molecules]


def compare_features(table: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each target, model and kind of features of two molecules: RMSE, and the gain by it."""
    from lightgbm import LGBMRegressor
    from rdkit.DataStructs import TanimotoSimilarity
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    codes, molecules = pd.factorize(np.append(table["first"], table["second"]))
    values, prints = features_of([*molecules])
    first, second = np.split(codes, 2)
    u, v = values[first], values[second]
    pairs = zip(first, second, strict=True)
    tanimoto = np.array([[TanimotoSimilarity(prints[i], prints[j])] for i, j in pairs])
    known = {"u": u, "v": v, "sum": u + v, "difference": np.abs(u - v), "tanimoto": tanimoto}
    swapped = {**known, "u": v, "v": u}
    models = {
        "trees": LGBMRegressor(
            n_estimators=60, learning_rate=0.1, num_leaves=15, colsample_bytree=0.2, subsample=0.8,
            subsample_freq=1, min_child_samples=10, verbose=-1, n_jobs=1, random_state=0,
        ),
        "svm": make_pipeline(StandardScaler(), SVR(C=2.0)),
    }  # fmt: skip
    blocks = table["block"].to_numpy()
    for target in targets_of(table):
        y = table[target].to_numpy()
        for name, model in models.items():
            before: Array | None = None
            for parts, in_both_orders in FEATURES:
                x = np.hstack([known[part] for part in parts.split()])
                other_x = np.hstack([swapped[part] for part in parts.split()])
                y_pred = np.zeros(len(y))
                for fold in range(N_FOLDS):
                    is_held_out = blocks % N_FOLDS == fold
                    train_x, train_y = x[~is_held_out], y[~is_held_out]
                    if in_both_orders:
                        train_x, train_y = np.vstack([train_x, other_x[~is_held_out]]), np.tile(train_y, 2)
                    model.fit(train_x, train_y)
                    y_pred[is_held_out] = model.predict(x[is_held_out])
                    if in_both_orders:
                        y_pred[is_held_out] += model.predict(other_x[is_held_out])
                        y_pred[is_held_out] /= 2
                errors = (y_pred - y) ** 2
                before = errors if before is None else before
                orders = ", both orders" if in_both_orders else ""
                yield f"{target} {name}, {parts}{orders}: {describe_gain(before, errors, blocks)}"


def main() -> None:
    """Compare runs, or features, of all sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=[*SETS], default=[*SETS])
    parser.add_argument("--stages", help="stages of both runs, separated by commas")
    parser.add_argument("--features", action="store_true", help="compare features of two molecules instead")
    options = parser.parse_args()
    for name in options.sets:
        pairs = sentence_pairs if name == "sentences" else molecule_pairs
        table = pairs(*SETS[name], options.data)
        table["id"] = [f"pair_{number}" for number in range(len(table))]
        if options.features and name != "sentences":
            lines = compare_features(table)
        else:
            lines = compare_runs(name, table, options.work.resolve() / name, options.stages)
        for line in lines:
            print(f"{name} {line}", flush=True)


if __name__ == "__main__":
    main()
