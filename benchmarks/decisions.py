"""Do decisions hold outside the rows they were tuned on, and for the mean of several models?

    python -m benchmarks.decisions --data FOLDER_WITH_COMPETITIONS --cache FOLDER [--draws 2] [--sets ...]

Data: the class matrices of oof_matrices.py; three ordered classes are scored as grades, too, by their mean
grade. Of each matrix every stage by itself, and the default blend of all of them ("blend"), whose weights are
fitted on the out-of-fold rows. A decision is fitted on out-of-fold predictions, which come from one model;
the holdout is predicted by the mean of five, which is narrower. Scores are those of the holdout, as
differences to the plain decision (0.5, the likeliest class, rounding) on the mean; a set's number is the mean
over its targets and draws, the result the mean over sets, its 95 % interval a bootstrap over sets, and
`worst` the lowest single difference.

How cuts are fitted: `expected` (the product's: expected confusion matrices by calibrated probabilities),
`counted` (the same search on the labels' own counts, as people do). Whether they are used: always, or
`gated`: where the cross-fitted score is better than that of the plain decision. How they are carried over: as
`values`; as `quantiles` of the out-of-fold predictions, looked up in those of the holdout; or every fold's
model decides and they `vote`. `optimism`: the cross-fitted score less the mean score of the five single
models on the holdout, in which no averaging helps; beside it the same of the plain decision, which is tuned
on nothing.
"""

from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from benchmarks.oof_matrices import (
    BIN_EDGES,
    N_FOLDS,
    Matrix,
    arguments,
    cached_class_lines,
    over_sets,
)
from competition.metrics import get_metric
from competition.task import Task
from submissions.blend import decision_rules
from submissions.blend.candidates import CANDIDATES
from submissions.blend.cross_fitting import cross_fitted
from submissions.blend.decision_rules import Decision, Offsets, fit_decision, plain_decision
from submissions.blend.weight_problem import BlendData

METRICS = {"binary": ["f1", "mcc", "balanced_accuracy", "accuracy"], "multiclass": ["f1_macro", "mcc", "accuracy"],
           "ordinal": ["quadratic_kappa"]}  # fmt: skip
ORDERED = {"chembl218_ec50", "icwsm_tweets", "qm9_electronic"}
DEFAULT = "shrunk_logits"


def one_hot(y: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """What `decision_rules.calibrate` is replaced by, so that labels are counted."""
    return (y[:, None] == np.arange(len(logits))).astype(float)


def columns_of(matrix: Matrix) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> out-of-fold predictions (n_rows, n_outputs) and those of each fold's models for the holdout."""
    columns = {str(j): (matrix.oof[:, j], matrix.holdout[:, :, j]) for j in range(matrix.oof.shape[1])}
    metric = get_metric("log_loss", "multiclass" if matrix.oof.shape[2] > 1 else "binary")
    m = BlendData(matrix.oof, matrix.y[:, None].astype(float), matrix.folds, metric, has_probabilities=True)
    blend = CANDIDATES[DEFAULT]
    on_holdout = np.stack([blend.fit(m).predict(each) for each in matrix.holdout])
    return columns | {"blend": (cross_fitted(blend, m), on_holdout)}


def carried(decision: Any, known_preds: np.ndarray, new: np.ndarray) -> Decision:
    """The decision with as many rows of `new` above each cut as there are of `known`."""
    if isinstance(decision, Offsets):
        above = [(decision.predict(known_preds) == j).mean() for j in range(len(decision.cuts))]
    else:
        above = [(known_preds >= cut).mean() for cut in decision.cuts]
    for _ in range(10 if isinstance(decision, Offsets) else 1):
        for j, share in enumerate(above):
            cuts = decision.cuts.copy()
            held = decision.sweep(decision.levels(new), j).values if isinstance(decision, Offsets) else new
            cuts[j] = np.quantile(held, 1 - share)
            decision = replace(decision, cuts=cuts)
    return decision


def scores(matrix: Matrix, task: Task, name: str, oof: np.ndarray, holdout: np.ndarray) -> dict[str, float]:
    """Differences to the score of the plain decision on the mean of the models, by way of fitting and
    carrying.
    """
    metric, plain = get_metric(name, task.problem_type), plain_decision(task)
    y, y_holdout = matrix.y[:, None].astype(float), matrix.y_holdout[:, None].astype(float)
    mean = holdout.mean(axis=0)

    def labels_across_folds() -> np.ndarray:
        labels = np.empty_like(y)
        for fold in range(N_FOLDS):
            in_fold = matrix.folds == fold
            labels[in_fold] = fit_decision(metric, task, y[~in_fold], oof[~in_fold]).predict(oof[in_fold])
        return labels

    def bias(labels: np.ndarray, decision: Decision) -> float:
        return metric(y, labels) - float(
            np.mean([metric(y_holdout, decision.predict(each)) for each in holdout])
        )

    at_0, oof_score = metric(y_holdout, plain.predict(mean)), metric(y, plain.predict(oof))
    scores = {"optimism plain": bias(plain.predict(oof), plain)}
    for way in ("expected", "counted"):
        with mock.patch.object(
            decision_rules, "calibrate", one_hot if way == "counted" else decision_rules.calibrate
        ):
            decision, labels = fit_decision(metric, task, y, oof), labels_across_folds()
        votes = np.sum([decision.predict(each) == np.arange(len(task.classes)) for each in holdout], axis=0)
        ways = {
            "values": decision.predict(mean),
            "quantiles": carried(decision, oof, mean).predict(mean),
            "vote": votes.argmax(axis=1)[:, None].astype(float),  # the lowest of equally common labels
        }
        scores |= {f"{way} {name}": metric(y_holdout, each) - at_0 for name, each in ways.items()}
        scores[f"{way} values gated"] = scores[f"{way} values"] if metric(y, labels) > oof_score else 0.0
        scores[f"optimism {way}"] = bias(labels, decision)
    return scores


def lines_of(matrix: Matrix) -> list[dict[str, Any]]:
    """A line for each stage or blend and metric."""
    n_classes, lines = int(matrix.y.max()) + 1, []
    classes = [str(c) for c in range(n_classes)]
    for column, (oof, holdout) in columns_of(matrix).items():
        kinds = {"binary" if n_classes == 2 else "multiclass": (oof, holdout)}
        if matrix.set_name in ORDERED and n_classes > 2:
            grades = np.arange(n_classes)[:, None]
            kinds["ordinal"] = oof @ grades, holdout @ grades
        for kind, predictions in kinds.items():
            task = Task([matrix.target], None, kind, classes, scores_labels=True)
            for name in METRICS[kind]:
                line = {"set": matrix.set_name, "column": column, "metric": name}
                lines.append(line | scores(matrix, task, name, *predictions))
    return lines


def main() -> None:
    """Parse the command line and run the benchmark."""
    args = arguments(__doc__, list(BIN_EDGES), 2)
    table = pd.DataFrame(cached_class_lines("decisions", lines_of, args))
    ways = [name for name in table if " " in name]
    for which, part in (
        ("blend", table[table.column == "blend"]),
        ("single stages", table[table.column != "blend"]),
    ):
        for metric, rows in part.groupby("metric"):
            print(f"\n{which}, {metric}, {rows['set'].nunique()} sets, {len(rows)} decisions")
            for way in ways:
                interval = over_sets(rows[way], rows["set"])[1]
                print(
                    "  {:24} {:+.4f} [{:+.4f}, {:+.4f}]".format(way, *interval),
                    f" worst {rows[way].min():+.3f}",
                )


if __name__ == "__main__":
    main()
