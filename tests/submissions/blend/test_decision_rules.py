"""Decisions: labels by hand, what tuning gains, and labels that must not influence a decision."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax

from competition.metrics import Metric, get_metric
from competition.task import Task
from submissions.blend.data import BlendData, from_json, to_json
from submissions.blend.decision_rules import Decision, fit_decision, plain_decision
from tests.submissions.blend.data import cross_fitted


def random_data(problem_type, metric, n=2000, seed=0):
    """Labels and a column of calibrated predictions: true probabilities, or mean levels."""
    rng = np.random.default_rng(seed)
    n_classes = {"multiclass": 4, "ordinal": 5}.get(problem_type, 2)
    n_targets = 3 if problem_type == "multilabel" else 1
    if problem_type == "multiclass":
        preds = softmax(rng.normal(size=(n, 4)) * 1.5 + [1.5, 0, 0, -1], axis=1)
        y = (preds.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)[:, None].astype(float)
    elif problem_type == "ordinal":
        level = rng.normal(1.5, 1.0, size=(n, 1))
        y = np.clip(np.round(level + 0.7 * rng.normal(size=(n, 1))), 0, 4)
        preds = level * 0.6 + 0.8
    else:
        preds = expit(rng.normal(-2.0, 1.5, size=(n, n_targets)))
        y = (rng.random(preds.shape) < preds).astype(float)
        y[rng.random(y.shape) < (0.2 if n_targets > 1 else 0.0)] = np.nan
    targets, names, rows = [f"t{t}" for t in range(n_targets)], list("01234"[:n_classes]), np.arange(n)
    task = Task(targets, None, problem_type, names, scores_labels=True)
    score = get_metric(metric, problem_type)
    return BlendData(metric=score, task=task, y=y, folds=rows % 4, groups=rows, preds=preds[:, None])


def tuned(data):
    return fit_decision(data.metric, data.task, data.y, data.preds[:, 0])


def test_labels_by_hand():
    p = np.array([[0.3, 0.69], [0.29, 0.7]])
    assert Decision("multilabel", np.array([0.3, 0.7])).predict(p).tolist() == [[1, 0], [0, 1]]
    p = np.array([[0.5, 0.3, 0.2], [0.4, 0.0, 0.6]])
    halved = Decision("multiclass", np.log([2.0, 1.0, 1.0]))
    assert halved.predict(p).tolist() == [[1], [2]]  # 0.25 < 0.3, 0.2 < 0.6
    levels = np.array([[0.1, 0.2, 1.8, 5.0]]).T
    assert Decision("ordinal", np.array([0.2, 1.9])).predict(levels)[:, 0].tolist() == [0, 1, 1, 2]


def test_the_threshold_of_a_class_of_few_rows_is_tuned():
    """85 of 40,000 rows are positive. The best threshold is far below the default, and has fewer rows above than a
    quantile.
    """
    rng = np.random.default_rng(0)
    p, new_p = expit(rng.normal(-8.0, 2.0, size=(2, 40_000)))
    y, new_y = (rng.random((2, 40_000)) < (p, new_p)).astype(float)
    rows = np.arange(len(p))
    task = Task(["t"], None, "binary", ["no", "yes"], scores_labels=True)
    made = {"folds": rows % 4, "groups": rows, "task": task, "metric": get_metric("f1", "binary")}
    decision = tuned(BlendData(y=y[:, None], preds=p[:, None, None], **made))

    def f1(labels):
        return 2 * (new_y * labels).sum() / (new_y.sum() + labels.sum())

    best = max(f1(new_p >= cut) for cut in np.linspace(0.02, 0.6, 59))
    assert f1(decision.predict(new_p[:, None])[:, 0]) > 0.93 * best > 2 * f1(new_p >= 0.5)


CASES = [
    ("binary", "f1"), ("binary", "mcc"), ("multilabel", "f1_macro"), ("multilabel", "f1_micro"),
    ("multiclass", "f1_macro"), ("multiclass", "balanced_accuracy"), ("ordinal", "quadratic_kappa"),
]  # fmt: skip
each_case = pytest.mark.parametrize(("problem_type", "metric"), CASES)


@each_case
def test_tuned_labels_of_new_rows_are_better_than_default_labels(problem_type, metric):
    data, new = random_data(problem_type, metric), random_data(problem_type, metric, 20_000, seed=1)
    decision, new_pred, default_labels = tuned(data), new.preds[:, 0], data.task.default_labels
    assert (
        data.metric(new.y, decision.predict(new_pred)) > data.metric(new.y, default_labels(new_pred)) + 0.01
    )
    assert to_json(from_json(to_json(decision))) == to_json(decision)
    single_rows = np.vstack([decision.predict(new_pred[[i]]) for i in range(50)])
    np.testing.assert_array_equal(single_rows, decision.predict(new_pred[:50]))
    plain = plain_decision(data.task).predict(new_pred)
    np.testing.assert_array_equal(plain, default_labels(new_pred))


@each_case
def test_labels_of_a_fold_do_not_influence_decisions_on_it(problem_type, metric):
    data = random_data(problem_type, metric, 300)
    data = replace(data, preds=np.concatenate([data.preds, data.preds**2], axis=1))
    in_fold = data.folds == 2
    flipped = np.where(in_fold[:, None], np.nanmax(data.y) - data.y, data.y)
    before, after = (cross_fitted("convex", replace(data, y=y)) for y in (data.y, flipped))
    np.testing.assert_array_equal(before.scored[in_fold], after.scored[in_fold])
    assert (before.scored[~in_fold] != after.scored[~in_fold]).any()
    assert (before.final.predict(data.preds) != after.final.predict(data.preds)).any()  # in sample they may


def test_the_threshold_of_f1_is_half_the_best_f1_also_for_distorted_probabilities():
    """Half of it for calibrated probabilities: Lipton, Elkan and Naryanaswamy, 2014."""
    data = random_data("binary", "f1", 50_000)
    f1, y, p = data.metric, data.y, data.preds
    best = f1(y, tuned(data).predict(p[:, 0]))
    assert tuned(data).cut_points[0] == pytest.approx(best / 2, abs=0.02)
    distorted = expit(2 * np.log(p / (1 - p)) + 6)  # by class weights, for example
    decision = tuned(replace(data, preds=distorted))
    assert f1(y, decision.predict(distorted[:, 0])) == pytest.approx(best, abs=0.01)
    assert f1(y, data.task.default_labels(distorted[:, 0])) < best - 0.1


def test_cut_points_increase_and_those_of_accurate_predictions_are_halfway_between_levels():
    for metric in ("quadratic_kappa", "f1_macro", "accuracy"):
        assert (np.diff(tuned(random_data("ordinal", metric, 300)).cut_points) >= 0).all()
    rng = np.random.default_rng(0)
    y = np.floor(5 * rng.random((1200, 1)))
    accurate = y + 0.15 * rng.normal(size=y.shape)
    decision = tuned(replace(random_data("ordinal", "quadratic_kappa"), y=y, preds=accurate[:, None]))
    np.testing.assert_allclose(decision.cut_points, [0.5, 1.5, 2.5, 3.5], atol=0.1)


def test_a_user_defined_metric_gets_the_labels_of_all_targets():
    def score(y_true, labels):
        assert labels.shape == (2000, 3) and set(np.unique(labels)) <= {0.0, 1.0}
        return float(np.nanmean((y_true == labels) * np.where(y_true == 1, 5.0, 1.0)))

    users = Metric("user", True, None, score, kind="labels")
    decision = tuned(replace(random_data("multilabel", "f1_macro"), metric=users))
    assert decision.cut_points == pytest.approx(
        [1 / 6] * 3, abs=0.08
    )  # a positive counts like five negatives


def test_targets_with_one_class_or_without_labels_get_finite_thresholds():
    data = random_data("multilabel", "f1_macro", 200)
    data.y[:, :2] = [0.0, np.nan]
    assert np.isfinite(tuned(data).cut_points).all()


@pytest.mark.parametrize(("metric", "label"), [("accuracy", 0.0), ("f1", 1.0)])
def test_constant_predictions_get_the_label_with_the_better_score(metric, label):
    data = random_data("binary", metric, 400)
    data.preds[:] = data.y.mean()
    assert set(tuned(data).predict(data.preds[:, 0])[:, 0]) == {label}


def test_a_metric_of_the_user_scores_the_same_labels_once():
    labels = []

    def accuracy(y, y_pred):
        labels.append(y_pred.tobytes())
        return float((y == y_pred).mean())

    data = random_data("binary", "accuracy", 200)
    metric = Metric("mine", True, None, accuracy, kind="labels", types=("binary",))
    decision = fit_decision(metric, data.task, data.y, data.preds[:, 0])
    assert decision.cut_points[0] != 0.5  # so that there is a second pass
    assert len(labels) == len(set(labels)) == 16  # between different ones of 20 quantiles, and the default
