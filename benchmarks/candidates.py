"""Two candidates and a winner: runs with and without `competition.swap`, and a reference that knows the relation.

    python -m benchmarks.candidates --work FOLDER --data FOLDER_WITH_COMPETITIONS [--sets ...] [--stages ...]

Each item of a table with numbers (a tweet and its tone, a molecule and its potency) is in one pair: which one is
larger, or a tie. Log loss out of fold of each stage and of the blend, and the gain by `swap` with the 95 % interval of
the paired bootstrap. The reference is a logistic regression on the differences of hashed fingerprints and descriptors,
or of the embeddings of MiniLM, with each training row in both orders, on the folds of the runs.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.types import Array

SETS = {
    "tweets": ("icwsm_tweets", "text", "sentiment", 0.6),
    "potency": ("chembl204_ki", "SMILES", "pKi", 0.4),
    "potency_287": ("chembl287_ki", "SMILES", "pKi", 0.4),
    "solubility": ("esol", "SMILES", "logS", 0.4),
}
"""Set -> competition, column of the items, label, largest difference of a tie."""
CLASSES = ["a", "b", "tie"]
SWAPPED = np.array([1, 0, 2])
TREES = "{kind: lightgbm, learning_rate: 0.1}"
STAGES = {
    "text": {
        "baseline": "{kind: baseline}",
        "svc_pairs": "{kind: sklearn, features: [{encoder: minilm, pairs: vectors}], tfidf_features: 0, "
        "estimator: sklearn.svm.SVC, parameters: {C: 1.0}}",
        "tfidf": "{kind: sklearn, parameters: {C: 5.0}}",
        "minilm_frozen": "{kind: sklearn, features: [{encoder: minilm}], tfidf_features: 0, parameters: {C: 0.003}}",
    },
    "smiles": {
        "baseline": "{kind: baseline}",
        "gp": "{kind: gp}",
        "lightgbm": TREES,
        "logistic": "{kind: sklearn, parameters: {C: 0.1}}",
        "extra_trees": "{kind: sklearn, estimator: sklearn.ensemble.ExtraTreesClassifier, features: [maplight], "
        "parameters: {min_samples_leaf: 3}}",
    },
}
YAML = """
competition:
  {{train: train.csv, test: test.csv, sample_submission: sample.csv, id: id, targets: [winner],
    problem_type: multiclass, classes: [a, b, tie], submission_columns: [a, b, tie],
    {role}: [item_a, item_b], metric: log_loss{more}}}
folds: {{kind: stratified}}
stages:
"""
N_RESAMPLES = 1000


def pairs(table: pd.DataFrame, column: str, label: str, tie: float) -> pd.DataFrame:
    """Return a row per two items, and which one has the larger label."""
    items = table.dropna(subset=[label]).drop_duplicates(column).sample(frac=1, random_state=0)
    n_pairs = len(items) // 2
    first, second = items[:n_pairs], items[n_pairs : 2 * n_pairs]
    difference = first[label].to_numpy() - second[label].to_numpy()
    winner = np.where(difference > 0, "a", "b")
    columns = {"item_a": first[column].to_numpy(), "item_b": second[column].to_numpy()}
    return pd.DataFrame({**columns, "winner": np.where(np.abs(difference) <= tie, "tie", winner)})


def write_competition(name: str, data: Path, folder: Path) -> pd.DataFrame:
    """Write the tables, and the YAMLs `plain` and `swap`; return the training rows."""
    competition, column, label, tie = SETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    labelled_test = pd.read_csv(data / competition / "test.csv").merge(
        pd.read_csv(data / competition / "answers.csv"), on="id"
    )
    tables = {"train": pd.read_csv(data / competition / "train.csv"), "test": labelled_test}
    for which, table in tables.items():
        rows = pairs(table, column, label, tie)
        tables[which] = rows.assign(id=[f"{which}_{number}" for number in range(len(rows))])
    test = tables["test"].drop(columns="winner")
    tables["train"].to_csv(folder / "train.csv", index=False)
    test.to_csv(folder / "test.csv", index=False)
    test[["id"]].assign(a=0.3, b=0.3, tie=0.4).to_csv(folder / "sample.csv", index=False)
    role = "text" if column == "text" else "smiles"
    compared = ", pairs: [[item_a, item_b]]" if role == "text" else ""
    swap = ", swap: {columns: [[item_a, item_b]], labels: [a, b]}"
    lines = "".join(f"  {stage}: {settings}\n" for stage, settings in STAGES[role].items())
    for kind, more in {"plain": compared, "swap": compared + swap}.items():
        text = YAML.format(role=role, more=more) + lines
        (folder / f"{name}_{kind}.yaml").write_text(text)
    return tables["train"]


def run(yaml_file: Path, work: Path, stages: str | None) -> tuple[pd.DataFrame, dict[str, Array]]:
    """Return the out-of-fold table of a run, and the probabilities of its stages and its blend, (n_rows, 3) each."""
    command = [sys.executable, "-m", "pipeline", "full", str(yaml_file), "--budget=none", "--workers=1"]
    command += [f"--stages={stages}"] if stages else []
    subprocess.run(command, env=os.environ | {"WORK_DIR": str(work)}, check=True, stdout=subprocess.DEVNULL)
    runs = (work / yaml_file.stem / "submissions").glob("*/run.json")
    folder = max(runs, key=lambda file: file.stat().st_mtime).parent
    oof = pd.read_csv(folder / "oof.csv", dtype={"id": str}).set_index("id")
    blend = pd.read_csv(folder / "cross_fitted.csv", dtype={"id": str}).set_index("id").loc[oof.index]
    names = [name.removesuffix(" winner=a") for name in oof if name.endswith(" winner=a")]
    columns = {name: oof[[f"{name} winner={label}" for label in CLASSES]] for name in names}
    columns["blend"] = blend[[f"winner={label}" for label in CLASSES]]
    return oof, {name: block.to_numpy() for name, block in columns.items()}


def embed(items: list[str], is_text: bool) -> Array:
    """Return standardised features of items, (n_items, n_features)."""
    if is_text:
        from models.inputs.encoder_settings import EncoderFeature

        values = np.concatenate(EncoderFeature(encoder="minilm").embed(items))[:, :-3]
    else:
        from rdkit import Chem
        from rdkit.Chem import Descriptors, rdFingerprintGenerator

        generator = rdFingerprintGenerator.GetMorganGenerator(2, fpSize=1024)
        molecules = [Chem.MolFromSmiles(item) for item in items]
        counts = [generator.GetCountFingerprintAsNumPy(molecule) for molecule in molecules]
        numbers = [[*Descriptors.CalcMolDescriptors(molecule).values()] for molecule in molecules]
        values = np.hstack([counts, np.clip(np.nan_to_num(np.array(numbers, float)), -1e4, 1e4)])
    scale = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(scale > 0, scale, 1))


def reference(train: pd.DataFrame, y: NDArray[np.int64], folds: NDArray[np.int64], is_text: bool) -> Array:
    """Return probabilities (n_rows, 3) of a logistic regression on differences, each training row in both orders."""
    from sklearn.linear_model import LogisticRegression

    items = embed([*train["item_a"], *train["item_b"]], is_text)
    x = items[: len(train)] - items[len(train) :]
    y_pred = np.zeros((len(train), 3))
    for fold in np.unique(folds):
        fit, held_out = folds != fold, folds == fold
        model = LogisticRegression(C=0.003, max_iter=300)
        model.fit(np.vstack([x[fit], -x[fit]]), np.append(y[fit], SWAPPED[y[fit]]))
        other_order = model.predict_proba(-x[held_out])[:, SWAPPED]
        y_pred[held_out] = (model.predict_proba(x[held_out]) + other_order) / 2
    return y_pred


def losses(y: NDArray[np.int64], y_pred: Array) -> Array:
    """Return the log loss of each row, (n_rows,)."""
    return np.asarray(-np.log(np.clip(y_pred[np.arange(len(y)), y], 1e-15, 1)))


def main() -> None:
    """Run all sets and print a line for each stage, the blend and the reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=[*SETS], default=[*SETS])
    parser.add_argument("--stages", help="stages of both runs, separated by commas")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    for name in options.sets:
        folder = options.work.resolve() / name
        train = write_competition(name, options.data, folder)
        oof, plain = run(folder / f"{name}_plain.yaml", folder / "work", options.stages)
        _, swap = run(folder / f"{name}_swap.yaml", folder / "work", options.stages)
        y = oof["winner"].to_numpy(dtype=np.int64)
        by_id = train.set_index("id").loc[oof.index]
        swap["reference"] = reference(by_id, y, oof["fold"].to_numpy(), SETS[name][1] == "text")
        for column, y_pred in swap.items():
            before = losses(y, plain.get(column, plain["blend"]))
            gains = before - losses(y, y_pred)
            means = gains[rng.integers(len(y), size=(N_RESAMPLES, len(y)))].mean(axis=1)
            low, high = np.quantile(means, [0.025, 0.975])
            scores = f"{before.mean():.3f} {losses(y, y_pred).mean():.3f}"
            print(f"{name} {column}: {scores} {gains.mean():+.3f} [{low:+.3f}, {high:+.3f}]", flush=True)


if __name__ == "__main__":
    main()
