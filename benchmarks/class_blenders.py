"""The same for classes as `blenders`: do blends of probabilities hold outside their rows, and is their score honest?

    python -m benchmarks.class_blenders --data FOLDER_WITH_COMPETITIONS --cache FOLDER [--draws 2] [--sets ...]

Plan of the analysis, written before the first run
--------------------------------------------------
Data: twelve sets, four of them with three or four classes (`oof_matrices.CUTS`); a pair of draws that swap training
rows and holdout; at most 2,000 rows of a set, eight classifiers. Blends of all 8 columns, and of 4: two random subsets
each.

Errors on the holdout of the columns averaged over the five folds' models, as a submission has it: log loss, 1 - AUC,
and 1 - F1 (macro F1 of several classes), each with every candidate fitted for that metric; the labels of F1 are decided
by thresholds that were tuned for that candidate as in a run. Measured as the logarithm of the ratio to a competitor's.
A set's number is the mean over its targets, draws and subsets (tox21's labels are one set); the interval is a bootstrap
over sets, as in `blenders`.

Ours: the default for classes. Competitors: the mean of probabilities; greedy selection with AutoGluon's semantics, on
log loss or AUC, and for F1 also on F1 itself by the likeliest class; the mean of ranks; further rows for the table.

Aim: not above any competitor on average, in any of the three.

Honest score (8 columns): the cross-fitted score of the default, thresholds included, against the score on the holdout
of the same parts: fold k's models with the weights and thresholds fitted without fold k, mean over k. Bias is the
logarithm of the ratio of the two scores (log loss, AUC, F1); aim: within 2 % on average, or its interval holds 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.blenders import over_sets
from benchmarks.oof_matrices import CUTS, N_FOLDS, Matrix, class_matrices
from competition.files import derive_seed
from competition.metrics import METRICS, Array, Metric
from competition.task import Task
from submissions.blend.candidates import CANDIDATES, GREEDY_STEPS, Blend, Candidate
from submissions.blend.crossfit import Rule, cross_fit, cross_fitted
from submissions.blend.problem import Matrices

DEFAULT = "shrunk_logits"
SUBSETS = {4: 2, 8: 1}


def task_of(P: Array) -> Task:
    """The task of columns (..., n_columns, n_outputs), whose labels are decided on."""
    n = P.shape[-1]
    kind = "binary" if n == 1 else "multiclass"
    return Task(["y"], problem_type=kind, classes=[str(c) for c in range(max(n, 2))], decides=True)


def greedy_on_labels(P: Array, y: Array, metric: Metric, folds: Array, weights: str) -> Blend:
    """AutoGluon's selection on a metric of labels itself: the likeliest class of each mean is scored."""
    task, each, best, highest = task_of(P), np.eye(P.shape[1]), np.zeros(P.shape[1]), -np.inf
    taken = best
    for step in range(1, GREEDY_STEPS + 1):
        scores = [metric(y, task.likeliest(np.einsum("nco,c->no", P, w))) for w in (taken + each) / step]
        taken = taken + each[int(np.argmax(scores))]
        if max(scores) > highest:
            best, highest = taken / step, max(scores)
    return Blend(np.tile(best[:, None], P.shape[2]), np.zeros(P.shape[2]))


COMPARED = {name: CANDIDATES[name] for name in (DEFAULT, "mean", "greedy", "mean_of_ranks", "convex", "best_single")}
ON_LABELS = {"greedy on F1": Candidate(greedy_on_labels)}


def metrics_of(matrix: Matrix) -> dict[str, Metric]:
    """Name in the tables -> metric."""
    f1 = METRICS["f1" if matrix.oof.shape[2] == 1 else "f1_macro"]
    return {"log loss": METRICS["log_loss"], "AUC": METRICS["roc_auc"], "F1": f1}


def problem_of(matrix: Matrix, metric: Metric) -> tuple[Matrices, Rule]:
    """Fresh matrices, on which nothing is fitted yet, and what decides on labels."""
    y, task = matrix.y[:, None].astype(np.float64), task_of(matrix.oof)
    m = Matrices(matrix.oof, y, matrix.folds, metric, has_probabilities=True)
    task = task if metric.kind == "decisions" else Task(["y"], None, task.problem_type, task.classes)
    return m, Rule(metric, task, y, matrix.folds, np.arange(len(y)), DEFAULT, 1.0, 100, 0)


def score_on_holdout(matrix: Matrix, metric: Metric, blend: Blend, decision: object, P: Array) -> float:
    """Score of a blend of columns P (n_holdout, n_stages, n_outputs); what ranks make of several classes sums to 1."""
    y_pred = blend.predict(P)
    y_pred = y_pred / y_pred.sum(axis=1, keepdims=True) if y_pred.shape[1] > 1 else y_pred
    return metric(matrix.y_holdout[:, None].astype(np.float64), decision.predict(y_pred) if decision else y_pred)


def held_out_errors(matrix: Matrix) -> list[dict]:
    """A line for each subset, metric and candidate: its error on the holdout."""
    rng = np.random.default_rng(derive_seed(matrix.draw, "subsets", matrix.set_name, matrix.target))
    lines = []
    for size, times in SUBSETS.items():
        for i in range(times):
            part = matrix.of_columns(np.sort(rng.permutation(matrix.oof.shape[1])[:size]))
            line = {"set": part.set_name, "target": part.target, "draw": part.draw, "n_columns": size, "subset": i}
            for said, metric in metrics_of(part).items():
                m, rule = problem_of(part, metric)
                for name, candidate in (COMPARED | (ON_LABELS if said == "F1" else {})).items():
                    decision = rule.decision(cross_fitted(candidate, m, N_FOLDS), rule.scored)
                    score = score_on_holdout(part, metric, candidate.fit(m), decision, part.holdout.mean(axis=0))
                    error = 1 - score if metric.greater_is_better else score
                    lines.append({**line, "metric": said, "candidate": name, "error": error})
    return lines


def honesty(matrix: Matrix) -> list[dict]:
    """For each metric the logarithm of the default's cross-fitted score over that on the holdout of the same parts."""
    lines, default = [], CANDIDATES[DEFAULT]
    for said, metric in metrics_of(matrix).items():
        m, rule = problem_of(matrix, metric)
        rows, on_holdout = cross_fit(default, m, N_FOLDS), []
        for fold in range(N_FOLDS):
            decision = rule.decision(rows.nested[fold], rule.folds != fold)
            blend = default.fit(m, frozenset({fold}))
            on_holdout.append(score_on_holdout(matrix, metric, blend, decision, matrix.holdout[fold]))
        judged = rule.judged(rows)
        for part in ("cross_fitted", "in_sample"):
            bias = np.log(metric(rule.y, getattr(judged, part)) / np.mean(on_holdout))
            lines.append({"set": matrix.set_name, "metric": said, "score": part, "bias": bias})
    return lines


def main() -> None:
    """Command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--cache", type=Path, required=True)
    options.add_argument("--draws", type=int, default=2)
    options.add_argument("--sets", nargs="+", default=list(CUTS), choices=list(CUTS))
    args = options.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    errors, biases = list[dict](), list[dict]()
    with threadpool_limits(1):
        for draw in range(args.draws):
            for matrix in (one for name in args.sets for one in class_matrices(name, draw, args.data, args.cache)):
                errors += held_out_errors(matrix)
                biases += honesty(matrix)
    for (said, size), lines in pd.DataFrame(errors).groupby(["metric", "n_columns"], sort=False):
        place = ["set", "target", "draw", "subset"]
        table = lines.pivot(index=place, columns="candidate", values="error").reset_index()
        print(f"\n{said}, {size} columns, {len(table)} blends: holdout error of {DEFAULT} against")
        for name in table.columns.drop([*place, DEFAULT]):
            of_set, shown = over_sets(np.log(table[DEFAULT] / table[name]), table["set"])
            worst = f"{of_set.idxmax()} {100 * np.expm1(of_set.max()):+.2f} %"
            print(f"  {name:14s} {shown:26s} better on {(of_set < 0).sum()}/{len(of_set)} sets, worst {worst}")
    print("\nscore of the default against the holdout score of the same fold models, 8 columns")
    for (said, part), lines in pd.DataFrame(biases).groupby(["metric", "score"], sort=False):
        of_set, shown = over_sets(lines["bias"], lines["set"])
        print(
            f"  {said:8s} {part:12s} {shown}; "
            + ", ".join(f"{s} {100 * np.expm1(v):+.1f} %" for s, v in of_set.items())
        )


if __name__ == "__main__":
    main()
