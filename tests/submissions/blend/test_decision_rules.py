"""Decisions: labels by hand, what tuning gains, and labels that must not influence a decision."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from competition.metrics import Metric, get_metric
from competition.task import Task
from submissions.blend.data import BlendData
from submissions.blend.decision_rules import Decision, fit_decision, plain_decision
from submissions.blend.serialization import from_json, to_json
from tests.submissions.blend.data import cross_fitted


def random_data(problem_type: str, n: int = 2000, seed: int = 0) -> tuple[Task, np.ndarray, np.ndarray]:
    """A task, labels, and calibrated predictions: true probabilities, or mean levels."""
    rng = np.random.default_rng(seed)
    n_classes = {"multiclass": 4, "ordinal": 5}.get(problem_type, 2)
    n_targets = 3 if problem_type == "multilabel" else 1
    targets, names = [f"t{t}" for t in range(n_targets)], [str(c) for c in range(n_classes)]
    task = Task(targets, None, problem_type, names, scores_labels=True)
    if problem_type == "multiclass":
        p = softmax(rng.normal(size=(n, 4)) * 1.5 + [1.5, 0, 0, -1], axis=1)
        return task, (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)[:, None].astype(float), p
    if problem_type == "ordinal":
        level = rng.normal(1.5, 1.0, size=(n, 1))
        y = np.clip(np.round(level + 0.7 * rng.normal(size=(n, 1))), 0, 4)
        return task, y, level * 0.6 + 0.8
    p = expit(rng.normal(-2.0, 1.5, size=(n, n_targets)))
    y = (rng.random(p.shape) < p).astype(float)
    y[rng.random(y.shape) < (0.2 if problem_type == "multilabel" else 0.0)] = np.nan
    return task, y, p


def test_labels_by_hand() -> None:
    p = np.array([[0.3, 0.69], [0.29, 0.7]])
    assert Decision("multilabel", np.array([0.3, 0.7])).predict(p).tolist() == [[1, 0], [0, 1]]
    p = np.array([[0.5, 0.3, 0.2], [0.4, 0.0, 0.6]])
    halved = Decision("multiclass", np.log([2.0, 1.0, 1.0]))
    assert halved.predict(p).tolist() == [[1], [2]]  # 0.25 < 0.3, 0.2 < 0.6
    levels = np.array([[0.1, 0.2, 1.8, 5.0]]).T
    assert Decision("ordinal", np.array([0.2, 1.9])).predict(levels)[:, 0].tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("problem_type", ["binary", "multilabel", "multiclass", "ordinal"])
def test_the_plain_decision_gives_the_default_labels(problem_type: str) -> None:
    task, _, y_pred = random_data(problem_type, 200)
    np.testing.assert_array_equal(plain_decision(task).predict(y_pred), task.default_labels(y_pred))


@pytest.mark.parametrize(
    ("problem_type", "metric"),
    [
        ("binary", "f1"), ("binary", "mcc"), ("multilabel", "f1_macro"), ("multilabel", "f1_micro"),
        ("multiclass", "f1_macro"), ("multiclass", "balanced_accuracy"), ("ordinal", "quadratic_kappa"),
    ],
)  # fmt: skip
def test_tuned_labels_of_new_rows_are_better_than_default_labels(problem_type: str, metric: str) -> None:
    task, y, y_pred = random_data(problem_type)
    _, new_y, new_pred = random_data(problem_type, 20_000, seed=1)
    score = get_metric(metric, problem_type)
    decision = fit_decision(score, task, y, y_pred)
    assert score(new_y, decision.predict(new_pred)) > score(new_y, task.default_labels(new_pred)) + 0.01
    assert to_json(from_json(to_json(decision))) == to_json(decision)
    single_rows = np.vstack([decision.predict(new_pred[[i]]) for i in range(50)])
    np.testing.assert_array_equal(single_rows, decision.predict(new_pred[:50]))


def test_the_threshold_of_f1_is_half_the_best_f1_also_for_distorted_probabilities() -> None:
    """Half of it for calibrated probabilities: Lipton, Elkan and Naryanaswamy, 2014."""
    task, y, p = random_data("binary", 50_000)
    f1 = get_metric("f1", "binary")
    decision = fit_decision(f1, task, y, p)
    best = f1(y, decision.predict(p))
    assert decision.cuts[0] == pytest.approx(best / 2, abs=0.02)
    distorted = expit(2 * np.log(p / (1 - p)) + 6)  # by class weights, for example
    tuned = fit_decision(f1, task, y, distorted).predict(distorted)
    assert f1(y, tuned) == pytest.approx(best, abs=0.01)
    assert f1(y, task.default_labels(distorted)) < best - 0.1


def test_cut_points_increase_and_those_of_accurate_predictions_are_halfway_between_levels() -> None:
    task, y, levels = random_data("ordinal", 300)
    for metric in ("quadratic_kappa", "f1_macro", "accuracy"):
        assert (np.diff(fit_decision(get_metric(metric, "ordinal"), task, y, levels).cuts) >= 0).all()
    rng = np.random.default_rng(0)
    y = np.floor(5 * rng.random((1200, 1)))
    accurate = y + 0.15 * rng.normal(size=y.shape)
    decision = fit_decision(get_metric("quadratic_kappa"), task, y, accurate)
    np.testing.assert_allclose(decision.cuts, [0.5, 1.5, 2.5, 3.5], atol=0.1)


def test_a_user_defined_metric_gets_the_labels_of_all_targets() -> None:
    task, y, p = random_data("multilabel")

    def score(y_true: np.ndarray, labels: np.ndarray) -> float:
        assert labels.shape == y.shape and set(np.unique(labels)) <= {0.0, 1.0}
        return float(np.nanmean((y_true == labels) * np.where(y_true == 1, 5.0, 1.0)))

    decision = fit_decision(Metric("user", True, None, score, kind="labels"), task, y, p)
    assert decision.cuts == pytest.approx([1 / 6] * 3, abs=0.08)  # a positive counts like five negatives


def test_targets_with_one_class_or_without_labels_get_finite_thresholds() -> None:
    task, y, p = random_data("multilabel", 200)
    y[:, :2] = [0.0, np.nan]
    assert np.isfinite(fit_decision(get_metric("f1_macro", "multilabel"), task, y, p).cuts).all()


@pytest.mark.parametrize(("metric", "label"), [("accuracy", 0.0), ("f1", 1.0)])
def test_constant_predictions_get_the_label_with_the_better_score(metric: str, label: float) -> None:
    task, y, _ = random_data("binary", 400)
    constant = np.full((400, 1), y.mean())
    decision = fit_decision(get_metric(metric, "binary"), task, y, constant)
    assert set(decision.predict(constant)[:, 0]) == {label}


@pytest.mark.parametrize(
    ("problem_type", "metric"),
    [("multilabel", "f1_macro"), ("multiclass", "f1_macro"), ("ordinal", "quadratic_kappa")],
)
def test_labels_of_a_fold_do_not_influence_decisions_on_it(problem_type: str, metric: str) -> None:
    task, y, p = random_data(problem_type, 300)
    preds, rows = np.stack([p, p**2], axis=1), np.arange(300)
    in_fold = rows % 4 == 2
    flipped = np.where(in_fold[:, None], np.nanmax(y) - y, y)
    score = get_metric(metric, problem_type)
    before, after = (
        cross_fitted(
            "convex",
            BlendData(metric=score, task=task, y=labels, folds=rows % 4, groups=rows, preds=preds),
        )
        for labels in (y, flipped)
    )
    np.testing.assert_array_equal(before.scored[in_fold], after.scored[in_fold])
    assert (before.scored[~in_fold] != after.scored[~in_fold]).any()
    assert (before.whole.predict(preds) != after.whole.predict(preds)).any()  # in sample they may
