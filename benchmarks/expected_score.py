"""Does the score to expect hold on rows that nothing was fitted on?

    python -m benchmarks.expected_score --data FOLDER_WITH_COMPETITIONS --cache FOLDER [--draws 2] [--sets ...]

The stages and holdouts are those of benchmarks/family_blenders.py: half of at most 2,000 rows of each set is the
training table and the other half the test table, drawn by rows or by Murcko scaffolds. The score is that of the
default blend on the test table, where each stage predicts by the mean of its five fold models.

Estimates from the training table and the inputs of the test table:
    cross-fitted: the score out of fold, where one fold model predicts a row; +- counts the training rows;
    cross-fitted, test rows: the same; +- counts the training and the test rows;
    less variance: as if the mean square error were lower by the variance of the fold models' blends on the test rows
        (Krogh and Vedelsby, 1994);
    similar rows: as before, on training rows drawn by the odds that a row with this similarity to its training
        molecules is a test row (`submissions.expected_score.odds_of_test_row`).

The table has, for each metric and split, the share of runs whose answers are within one and two +- of the estimate (68
and 95 % if it holds), and the mean and the root mean square of the error of the estimate in +- (0 and 1 if it holds). A
run is a target of a set and a draw.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rdkit.Chem import MolFromSmiles, rdFingerprintGenerator
from rdkit.DataStructs import BulkTanimotoSimilarity

from benchmarks.blenders import DEFAULT, matrices_of
from benchmarks.family_blenders import SETS, sets_of
from benchmarks.oof_matrices import (
    HALVES,
    Matrix,
    arguments,
    cached_lines,
    class_matrices,
    family_parts,
    matrices_of_parts,
    molecules_of_halves,
)
from competition.metrics import METRICS
from competition.task import Task
from submissions.blend.candidates import CANDIDATES
from submissions.blend.cross_fitting import cross_fitted
from submissions.blend.weight_problem import BlendData
from submissions.expected_score import N_RESAMPLES, less_variance, mean_gap, odds_of_test_row

ALL_SETS = [*SETS, "bace", "tox21"]
METRIC_NAMES = ("rmse", "mae", "spearman")
CLASS_DEFAULT = "shrunk_logits"


def fingerprints(smiles: list[str]) -> list[Any]:
    """Return Morgan fingerprints of radius 2."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2)
    return [generator.GetFingerprint(MolFromSmiles(text)) for text in smiles]


def nearest(smiles: list[str], train: list[str], is_seen: np.ndarray) -> np.ndarray:
    """Return the similarity to the nearest training row that counts for each row, (n_rows, 1).

    Args:
        is_seen: (n_rows, n_train).
    """
    train_prints = fingerprints(train)
    similarity = np.array([BulkTanimotoSimilarity(each, train_prints) for each in fingerprints(smiles)])
    return np.where(is_seen, similarity, 0).max(axis=1, keepdims=True)


def estimates(matrix: Matrix, weights: np.ndarray) -> list[dict[str, Any]]:
    """Return a line for each metric and estimate, with the score of the answers."""
    data = matrices_of(matrix)
    default = CANDIDATES[DEFAULT]
    y_pred = cross_fitted(default, data)[:, 0]
    blend = default.fit(data)
    of_models = np.array([blend.predict(columns[:, :, None])[:, 0] for columns in matrix.holdout])
    y_test = of_models.mean(axis=0)
    variance = of_models.var(axis=0).mean(keepdims=True)
    corrected = less_variance(matrix.y[:, None], y_pred[:, None], variance)[:, 0]
    n_train, n_test = len(y_pred), len(y_test)
    n_effective = weights.sum() ** 2 / (weights**2).sum()
    test_rows = np.sqrt(1 + n_train / n_test)
    similar = np.sqrt(n_train / n_effective + n_train / n_test)
    rng = np.random.default_rng(0)
    rows = rng.integers(n_train, size=(N_RESAMPLES, n_train))
    weighted_rows = rng.choice(n_train, size=(N_RESAMPLES, n_train), p=weights / weights.sum())
    lines = []
    for name in METRIC_NAMES:
        metric = METRICS[name]
        score = metric.score_column(matrix.y_holdout, y_test)
        for label, predictions, resamples, factor in (
            ("cross-fitted", y_pred, rows, 1.0),
            ("cross-fitted, test rows", y_pred, rows, test_rows),
            ("less variance", corrected, rows, test_rows),
            ("similar rows", corrected, weighted_rows, similar),
        ):
            drawn = np.array([metric.score_column(matrix.y[i], predictions[i]) for i in resamples])
            expected = metric.score_column(matrix.y, predictions) if resamples is rows else drawn.mean()
            line = {"metric": name, "estimate": label, "expected": expected}
            lines.append({**line, "error": factor * drawn.std(), "score": score})
    return lines


def matrices_with_similarities(
    name: str, split: str, draw: int, data: Path, cache: Path
) -> Iterator[tuple[Matrix, np.ndarray, np.ndarray]]:
    """Yield the columns of each target, and the similarities of its training and test rows to training rows."""
    parts = family_parts(name, draw, split, data, cache)
    train, holdout = molecules_of_halves(name, draw, split, data)
    folds = parts["folds"]
    of_train = nearest(train, train, folds != folds[:, None])
    of_test = nearest(holdout, train, np.ones((len(holdout), len(train)), dtype=bool))
    labelled = iter(range(parts["y"].shape[1]))
    for matrix in matrices_of_parts(name, draw, parts):
        target = next(t for t in labelled if str(parts["targets"][t]) == matrix.target)
        has_label = ~np.isnan(parts["y"][:, target])
        has_answer = ~np.isnan(parts["y_holdout"][:, target])
        yield matrix, of_train[has_label], of_test[has_answer]


def lines_of_run(name: str, split: str, draw: int, data: Path, cache: Path) -> list[dict[str, Any]]:
    """Return a line for each target and estimate."""
    lines = []
    for matrix, of_train, of_test in matrices_with_similarities(name, split, draw, data, cache):
        weights = odds_of_test_row(of_train, of_test)
        run = {"set": name, "target": matrix.target, "draw": draw}
        lines += [{**run, **line} for line in estimates(matrix, weights)]
    return lines


def class_lines_of_run(name: str, draw: int, data: Path, cache: Path) -> list[dict[str, Any]]:
    """Return a line for each set of classes, metric and estimate."""
    lines = []
    for matrix in class_matrices(name, draw, data, cache):
        n_outputs = matrix.oof.shape[2]
        classes = [str(c) for c in range(max(2, n_outputs))]
        task = Task(["y"], None, "multiclass" if n_outputs > 1 else "binary", classes)
        y, y_test = (part[:, None].astype(np.float64) for part in (matrix.y, matrix.y_holdout))
        run = {"set": name, "target": matrix.target, "draw": draw}
        for metric_name in ("log_loss", "roc_auc"):
            metric = METRICS[metric_name]
            blend_data = BlendData(matrix.oof, y, matrix.folds, metric, has_probabilities=True)
            default = CANDIDATES[CLASS_DEFAULT]
            y_pred = cross_fitted(default, blend_data)
            blend = default.fit(blend_data)
            of_models = np.array([blend.predict(columns) for columns in matrix.holdout])
            score = metric(y_test, of_models.mean(axis=0))
            expected = metric(y, y_pred)
            rows = np.random.default_rng(0).integers(len(y), size=(N_RESAMPLES, len(y)))
            error = np.nanstd([metric(y[i], y_pred[i]) for i in rows])
            test_rows = np.sqrt(1 + len(y) / len(y_test))
            found = {
                "cross-fitted": (expected, error),
                "cross-fitted, test rows": (expected, error * test_rows),
            }
            if metric.row_losses is not None:
                found["less variance"] = expected - mean_gap(metric, task, of_models), error * test_rows
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
                    f"{np.sqrt((z**2).mean()):.2f} +-"
                )


if __name__ == "__main__":
    main()
