"""Decisions: labels by hand, what tuning gains, and labels that must not influence a decision."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from competition.metrics import Metric, get_metric
from competition.task import Task
from submissions.blend.data import Blend, BlendData, FoldSet, from_json, to_json
from submissions.blend.decision_rules import Decision, fit_decision, plain_decision
from submissions.blend.selection import CrossFit, cross_fit, select


def build_task(problem_type: str, n_classes: int = 2, n_targets: int = 1) -> Task:
    targets = [f"t{t}" for t in range(n_targets)]
    return Task(targets, None, problem_type, [str(c) for c in range(n_classes)], scores_labels=True)


def random_data(problem_type: str, n: int = 2000, seed: int = 0) -> tuple[Task, np.ndarray, np.ndarray]:
    """A task, labels, and calibrated predictions: true probabilities, or mean levels."""
    rng = np.random.default_rng(seed)
    if problem_type == "multiclass":
        p = softmax(rng.normal(size=(n, 4)) * 1.5 + [1.5, 0, 0, -1], axis=1)
        y = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)[:, None].astype(float)
        return build_task("multiclass", 4), y, p
    if problem_type == "ordinal":
        level = rng.normal(1.5, 1.0, size=(n, 1))
        y = np.clip(np.round(level + 0.7 * rng.normal(size=(n, 1))), 0, 4)
        return build_task("ordinal", 5), y, level * 0.6 + 0.8
    n_targets = 3 if problem_type == "multilabel" else 1
    p = expit(rng.normal(-2.0, 1.5, size=(n, n_targets)))
    y = (rng.random(p.shape) < p).astype(float)
    missing_share = 0.2 if problem_type == "multilabel" else 0.0
    y[rng.random(y.shape) < missing_share] = np.nan
    return build_task(problem_type, 2, n_targets), y, p


def test_labels_by_hand() -> None:
    p = np.array([[0.3, 0.69], [0.29, 0.7]])
    assert Decision("multilabel", np.array([0.3, 0.7])).predict(p).tolist() == [[1, 0], [0, 1]]
    p = np.array([[0.5, 0.3, 0.2], [0.4, 0.0, 0.6]])
    assert Decision("multiclass", np.log([2.0, 1.0, 1.0])).predict(p).tolist() == [
        [1],
        [2],
    ]  # 0.25 < 0.3, 0.2 < 0.6
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


def test_the_threshold_of_f1_is_half_the_best_f1() -> None:
    """This holds for calibrated probabilities: Lipton, Elkan and Naryanaswamy, 2014."""
    task, y, p = random_data("binary", 50_000)
    score = get_metric("f1", "binary")
    decision = fit_decision(score, task, y, p)
    assert decision.cuts[0] == pytest.approx(score(y, decision.predict(p)) / 2, abs=0.02)


def test_calibration_corrects_distorted_probabilities() -> None:
    task, y, p = random_data("binary", 5000)
    distorted = expit(2 * np.log(p / (1 - p)) + 6)  # by class weights, for example
    metric = get_metric("f1", "binary")
    score = metric(y, fit_decision(metric, task, y, p).predict(p))
    distorted_score = metric(y, fit_decision(metric, task, y, distorted).predict(distorted))
    assert distorted_score == pytest.approx(score, abs=0.01)
    assert metric(y, task.default_labels(distorted)) < score - 0.1


def test_cut_points_increase() -> None:
    task, y, levels = random_data("ordinal", 300)
    for metric in ("quadratic_kappa", "f1_macro", "accuracy"):
        cut_points = fit_decision(get_metric(metric, "ordinal"), task, y, levels).cuts
        assert (np.diff(cut_points) >= 0).all()


def test_accurate_ordinal_predictions_keep_cut_points_halfway_between_levels() -> None:
    rng = np.random.default_rng(0)
    y = np.floor(5 * rng.random((1200, 1)))
    y_pred = y + 0.15 * rng.normal(size=y.shape)
    decision = fit_decision(get_metric("quadratic_kappa"), build_task("ordinal", 5), y, y_pred)
    np.testing.assert_allclose(decision.cuts, [0.5, 1.5, 2.5, 3.5], atol=0.1)


def test_a_user_defined_metric_gets_the_labels_of_all_targets() -> None:
    calls = []

    def score(y_true: np.ndarray, labels: np.ndarray) -> float:
        calls.append(labels)
        return float(np.nanmean((y_true == labels) * np.where(y_true == 1, 5.0, 1.0)))

    task, y, p = random_data("multilabel")
    decision = fit_decision(Metric("user", True, None, score, kind="labels"), task, y, p)
    assert {labels.shape for labels in calls} == {y.shape}
    assert set(np.unique(calls)) == {0.0, 1.0}
    assert decision.cuts == pytest.approx([1 / 6] * 3, abs=0.08)  # a positive counts like five negatives


def test_targets_with_one_class_or_without_labels_get_finite_thresholds() -> None:
    task, y, p = random_data("multilabel", 200)
    y[:, 0] = 0.0
    y[:, 1] = np.nan
    decision = fit_decision(get_metric("f1_macro", "multilabel"), task, y, p)
    assert np.isfinite(decision.cuts).all()


@pytest.mark.parametrize(("metric", "label"), [("accuracy", 0.0), ("f1", 1.0)])
def test_constant_predictions_get_the_label_with_the_better_score(metric: str, label: float) -> None:
    task, y, _ = random_data("binary", 400)
    constant = np.full((400, 1), y.mean())
    decision = fit_decision(get_metric(metric, "binary"), task, y, constant)
    assert set(decision.predict(constant)[:, 0]) == {label}


# Inside the cross-fitting


def data_of(task: Task, preds: np.ndarray, y: np.ndarray, metric: str, n_folds: int) -> BlendData:
    score = get_metric(metric, task.problem_type)
    rows = np.arange(len(y))
    return BlendData(metric=score, task=task, y=y, folds=rows % n_folds, groups=rows, preds=preds)


def single_column(data: BlendData, index: int) -> CrossFit:
    """A blend that is one of the columns, with decisions."""
    _, n_models, n_outputs = data.preds.shape
    blend = Blend(np.eye(n_models)[:, [index]] * np.ones((1, n_outputs)), np.zeros(n_outputs))
    return cross_fit(data, lambda folds: blend)


def chosen_column(data: BlendData) -> int:
    """The column that the selection rule chooses with column 0 as the default."""
    scored = {str(j): single_column(data, j).scored for j in range(data.n_models)}
    return int(select(data, data.compare(scored, "0"), "0", margin=1.0)[0])


@pytest.mark.parametrize(
    ("problem_type", "metric"),
    [("multilabel", "f1_macro"), ("multiclass", "f1_macro"), ("ordinal", "quadratic_kappa")],
)
def test_labels_of_a_fold_do_not_influence_decisions_on_it(problem_type: str, metric: str) -> None:
    task, y, p = random_data(problem_type, 300)
    in_fold = np.arange(300) % 4 == 2
    flipped = np.where(in_fold[:, None] & ~np.isnan(y), np.nanmax(y) - y, y)
    cross_fits = []
    for labels in (y, flipped):
        data = data_of(task, np.stack([p, p**2], axis=1), labels, metric, 4)

        def weights_by_labels(folds: FoldSet, data: BlendData = data) -> Blend:
            first = (1 + np.nansum(data.y[data.rows_in(folds)] > 0) % 7) / 8  # any label changes it
            weights = np.array([[first], [1 / 8]]) * np.ones((1, data.preds.shape[2]))
            return Blend(weights, np.zeros(data.preds.shape[2]))

        cross_fits.append(cross_fit(data, weights_by_labels))
    before, after = cross_fits
    np.testing.assert_array_equal(before.scored[in_fold], after.scored[in_fold])
    assert (before.scored[~in_fold] != after.scored[~in_fold]).any()
    in_sample = [part.whole.predict(data.preds[in_fold]) for part in cross_fits]
    assert (in_sample[0] != in_sample[1]).any()  # in sample they may


@pytest.mark.parametrize(
    ("problem_type", "metric", "chance"),
    [("binary", "f1", 0.46), ("binary", "mcc", 0.0), ("ordinal", "quadratic_kappa", 0.0)],
)
def test_random_labels_give_the_score_of_chance(problem_type: str, metric: str, chance: float) -> None:
    scores = []
    for seed in range(4):
        task, y, _ = random_data(problem_type, 400, seed)
        rng = np.random.default_rng(seed)
        if problem_type == "binary":
            y = (rng.random(y.shape) < 0.3).astype(float)  # all positive: 2 * 0.3 / 1.3 = 0.46
        data = data_of(task, rng.random((400, 6, 1)), y, metric, 5)
        scores.append(data.metric(y, single_column(data, 0).scored))
    assert np.mean(scores) < chance + 0.05


def test_a_model_that_memorizes_its_rows_is_not_chosen() -> None:
    """It is as confident on new rows as on its training rows, and its predictions there are random."""
    task, y, p = random_data("binary", 400)
    random_labels = np.random.default_rng(1).integers(2, size=(400, 1)).astype(float)
    assert chosen_column(data_of(task, np.stack([p, random_labels], axis=1), y, "f1", 5)) == 0
