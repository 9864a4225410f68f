"""Does the score to expect hold on rows that nothing was fitted on?

    python -m benchmarks.expected_score --data FOLDER_WITH_COMPETITIONS --cache FOLDER [--draws 2] [--sets ...]

Half of at most 2,000 rows of each set is the training table and the other half the test table, drawn by rows or by
Murcko scaffolds. The score is that of the default blend on the test table, where each stage of
`oof_matrices.FAMILY_STAGES` predicts by the mean of its five fold models.

Estimates from the training table and the inputs of the test table:
    cross-fitted: the score out of fold, where one fold model predicts a row; +- counts the training rows;
    cross-fitted, test rows: the same; +- counts the training and the test rows;
    similar rows: the score of training rows drawn by the odds that a row with this similarity to its training
        molecules is a test row (`submissions.expected_score.odds_of_test_row`).
If the folds hold out scaffolds, +- is a bootstrap that draws scaffolds, otherwise one that draws rows.

The table has, for each metric and split, the share of runs whose answers are within one and two +- of the estimate (68
and 95 % if it holds), the mean and the root mean square of the error of the estimate in +- (0 and 1 if it holds), and
the root mean square of the relative error. A run is a target of a set and a draw.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rdkit.Chem import MolFromSmiles, rdFingerprintGenerator
from rdkit.DataStructs import BulkTanimotoSimilarity

from benchmarks.blends import data_of
from benchmarks.oof_matrices import (
    HALVES,
    N_FOLDS,
    Matrix,
    arguments,
    cached_lines,
    class_matrices,
    family_parts,
    matrices_of_parts,
    molecules_of_halves,
)
from competition.metrics import METRICS, Metric
from folds.groups import scaffolds
from submissions.blend.candidates import fit_candidate
from submissions.blend.selection import cross_fit
from submissions.expected_score import N_RESAMPLES, odds_of_test_row

SETS = [
    "esol",
    "photoswitch",
    "biogen_adme",
    "chembl204_ki",
    "chembl218_ec50",
    "chembl287_ki",
    "qm9_electronic",
]
ALL_SETS = [*SETS, "bace", "tox21"]
DEFAULT = "shrunk_ridge"
METRIC_NAMES = ("rmse", "mae", "spearman")
CLASS_DEFAULT = "shrunk_logits"


def fingerprints(smiles: list[str]) -> list[Any]:
    """Return Morgan fingerprints of radius 2."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2)
    return [generator.GetFingerprint(MolFromSmiles(text)) for text in smiles]


def similarities(smiles: list[str], train: list[str]) -> np.ndarray:
    """Return Tanimoto similarities to the training rows, (n_rows, n_train)."""
    train_prints = fingerprints(train)
    return np.array([BulkTanimotoSimilarity(each, train_prints) for each in fingerprints(smiles)])


def sets_of(split: str, names: list[str]) -> list[str]:
    """Return the sets that can be divided so: photoswitch has hardly more than one scaffold."""
    return [name for name in names if name in SETS and (split == "rows" or name != "photoswitch")]


def estimates(matrix: Matrix, weightings: dict[str, np.ndarray], groups: np.ndarray) -> list[dict[str, Any]]:
    """Return a line for each metric and estimate, with the score of the answers.

    Args:
        weightings: name of an estimate -> (n_train,) odds that a row is a test row.
        groups: (n_train,) rows of one group are resampled together.
    """
    data = data_of(matrix)
    found_fits = cross_fit(data, partial(fit_candidate, data, DEFAULT))
    y_pred = found_fits.scored[:, 0]
    y_test = found_fits.whole.outputs(matrix.holdout.mean(axis=0)[:, :, None])[:, 0]
    n_train, n_test = len(y_pred), len(y_test)
    test_rows = np.sqrt(1 + n_train / n_test)
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    drawn_groups = rng.integers(len(members), size=(N_RESAMPLES, len(members)))
    grouped = [np.concatenate([members[group] for group in drawn]) for drawn in drawn_groups]
    single_rows = rng.integers(n_train, size=(N_RESAMPLES, n_train))
    weighted_rows = {
        name: rng.choice(n_train, size=(N_RESAMPLES, n_train), p=weights / weights.sum())
        for name, weights in weightings.items()
    }
    lines = []
    for name in METRIC_NAMES:
        metric = METRICS[name]
        score = metric.score_column(matrix.y_holdout, y_test)

        def resampled(predictions: np.ndarray, resamples: Any, metric: Metric = metric) -> np.ndarray:
            return np.array([metric.score_column(matrix.y[i], predictions[i]) for i in resamples])

        of_groups, of_rows = resampled(y_pred, grouped), resampled(y_pred, single_rows)
        expected = metric.score_column(matrix.y, y_pred)
        error = of_groups.std()
        found = {
            "cross-fitted": (expected, error),
            "cross-fitted, test rows": (expected, error * test_rows),
        }
        for label, weights in weightings.items():
            scores = resampled(y_pred, weighted_rows[label])
            n_effective = weights.sum() ** 2 / (weights**2).sum()
            factor = np.sqrt(n_train / n_effective + n_train / n_test) * of_groups.std() / of_rows.std()
            found[label] = scores.mean(), scores.std() * factor
        for label, (estimate, its_error) in found.items():
            line = {"metric": name, "estimate": label, "expected": estimate}
            lines.append({**line, "error": its_error, "score": score})
    return lines


def matrices_with_similarities(
    name: str, split: str, draw: int, data: Path, cache: Path
) -> Iterator[tuple[Matrix, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the columns of each target, the similarities of its training and test rows to training rows, and which
    training rows have a label.
    """
    parts = family_parts(name, draw, split, data, cache)
    train, holdout = molecules_of_halves(name, draw, split, data)
    folds = parts["folds"]
    of_train = np.where(folds != folds[:, None], similarities(train, train), 0).max(axis=1)[:, None]
    to_train = similarities(holdout, train)
    of_test = np.mean([to_train[:, folds != k].max(axis=1) for k in range(N_FOLDS)], axis=0)[:, None]
    labelled = iter(range(parts["y"].shape[1]))
    for matrix in matrices_of_parts(name, draw, parts):
        target = next(t for t in labelled if str(parts["targets"][t]) == matrix.target)
        has_label = ~np.isnan(parts["y"][:, target])
        has_answer = ~np.isnan(parts["y_holdout"][:, target])
        yield matrix, of_train[has_label], of_test[has_answer], has_label


def lines_of_run(name: str, split: str, draw: int, data: Path, cache: Path) -> list[dict[str, Any]]:
    """Return a line for each target and estimate. If the folds hold scaffolds out, they are the groups of rows."""
    train, holdout = molecules_of_halves(name, draw, split, data)
    groups = scaffolds(train).to_numpy() if split == "scaffolds" else np.arange(len(train))
    lines = []
    for matrix, of_train, of_test, has_label in matrices_with_similarities(name, split, draw, data, cache):
        weightings = {"similar rows": odds_of_test_row(of_train, of_test)}
        run = {"set": name, "target": matrix.target, "draw": draw}
        lines += [{**run, **line} for line in estimates(matrix, weightings, groups[has_label])]
    return lines


def class_lines_of_run(name: str, draw: int, data: Path, cache: Path) -> list[dict[str, Any]]:
    """Return a line for each set of classes, metric and estimate."""
    lines = []
    for matrix in class_matrices(name, draw, data, cache):
        y, y_test = (part[:, None].astype(np.float64) for part in (matrix.y, matrix.y_holdout))
        run = {"set": name, "target": matrix.target, "draw": draw}
        for metric_name in ("log_loss", "roc_auc"):
            metric = METRICS[metric_name]
            data = data_of(matrix, metric_name)
            found_fits = cross_fit(data, partial(fit_candidate, data, CLASS_DEFAULT))
            y_pred = found_fits.scored
            score = metric(y_test, found_fits.whole.outputs(matrix.holdout.mean(axis=0)))
            expected = metric(y, y_pred)
            rows = np.random.default_rng(0).integers(len(y), size=(N_RESAMPLES, len(y)))
            error = np.nanstd([metric(y[i], y_pred[i]) for i in rows])
            test_rows = np.sqrt(1 + len(y) / len(y_test))
            found = {
                "cross-fitted": (expected, error),
                "cross-fitted, test rows": (expected, error * test_rows),
            }
            for label, (estimate, its_error) in found.items():
                line = {"metric": metric_name, "estimate": label, "expected": estimate}
                lines.append({**run, **line, "error": its_error, "score": score})
    return lines


def main() -> None:
    """Print the table of each split."""
    args = arguments(__doc__, ALL_SETS, draws=2)
    asked, tables = args.sets, []
    for split in HALVES:
        args.sets = sets_of(split, asked)

        def lines_of(name: str, draw: int, split: str = split) -> list[dict[str, Any]]:
            return lines_of_run(name, split, draw, args.data, args.cache)

        table = pd.DataFrame(cached_lines(f"expected_{split}", lines_of, args))
        tables.append(table.assign(split=split))
    args.sets = asked

    def class_lines_of(name: str, draw: int) -> list[dict[str, Any]]:
        return class_lines_of_run(name, draw, args.data, args.cache)

    table = pd.DataFrame(cached_lines("expected_classes", class_lines_of, args))
    tables.append(table.assign(split="rows"))
    rows = pd.concat(tables)
    rows["in_errors"] = (rows["score"] - rows["expected"]) / rows["error"]
    rows["relative"] = rows["expected"] / rows["score"] - 1
    rows["split"] = pd.Categorical(rows["split"], [*HALVES])
    for metric, of_metric in rows.groupby("metric", sort=False):
        for split, part in [*of_metric.groupby("split", observed=True), ("all", of_metric)]:
            n_runs = len(part[["set", "target", "draw", "split"]].drop_duplicates())
            print(f"\n{metric}, holdout by {split}: {n_runs} runs")
            for label, of_estimate in part.groupby("estimate", sort=False):
                z = of_estimate["in_errors"]
                print(
                    f"  {label:27s} within 1: {100 * (z.abs() <= 1).mean():3.0f} %, within 2: "
                    f"{100 * (z.abs() <= 2).mean():3.0f} %, mean {z.mean():+.2f} +-, root mean square "
                    f"{np.sqrt((z**2).mean()):.2f} +-, relative {np.sqrt((of_estimate['relative'] ** 2).mean()):.3f}"
                )


if __name__ == "__main__":
    main()
