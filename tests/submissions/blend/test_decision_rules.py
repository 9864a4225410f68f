"""Labels: cuts by hand, what is told to a cut and what is not, and metrics by what they reward."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from competition.metrics import Metric, get_metric
from competition.task import Task
from submissions.blend.candidates import Blend, Candidate
from submissions.blend.cross_fitting import SelectionRule, cross_fit
from submissions.blend.decision_rules import CutPoints, Offsets, Thresholds, fit_decision, plain_decision
from submissions.blend.serialization import from_json, to_json
from submissions.blend.weight_problem import BlendData
from submissions.selection import cross_fit_procedure


def task(problem_type: str, n_classes: int = 2, n_targets: int = 1) -> Task:
    names = [f"t{t}" for t in range(n_targets)]
    return Task(names, None, problem_type, [str(c) for c in range(n_classes)], scores_labels=True)


def made_up(problem_type: str, n: int = 2000, seed: int = 0) -> tuple[Task, np.ndarray, np.ndarray]:
    """A task, labels and what is really known of them: probabilities, or mean grades."""
    rng = np.random.default_rng(seed)
    if problem_type == "multiclass":
        p = softmax(rng.normal(size=(n, 4)) * 1.5 + [1.5, 0, 0, -1], axis=1)
        return task("multiclass", 4), (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)[:, None].astype(float), p
    if problem_type == "ordinal":
        grade = rng.normal(1.5, 1.0, size=(n, 1))
        return task("ordinal", 5), np.clip(np.round(grade + 0.7 * rng.normal(size=(n, 1))), 0, 4), grade * 0.6 + 0.8
    n_targets = 3 if problem_type == "multilabel" else 1
    p = expit(rng.normal(-2.0, 1.5, size=(n, n_targets)))
    y = (rng.random(p.shape) < p).astype(float)
    y[rng.random(y.shape) < 0.2 * (n_targets > 1)] = np.nan
    return task(problem_type, 2, n_targets), y, p


def test_labels_by_hand() -> None:
    assert Thresholds(np.array([0.3, 0.7])).predict(np.array([[0.3, 0.69], [0.29, 0.7]])).tolist() == [[1, 0], [0, 1]]
    p = np.array([[0.5, 0.3, 0.2], [0.4, 0.0, 0.6]])
    assert Offsets(np.log([2.0, 1.0, 1.0])).predict(p).tolist() == [[1], [2]]  # 0.25 < 0.3, 0.2 < 0.6
    assert CutPoints(np.array([0.2, 1.9])).predict(np.array([[0.1, 0.2, 1.8, 5.0]]).T)[:, 0].tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("problem_type", ["binary", "multilabel", "multiclass", "ordinal"])
def test_the_plain_decision_is_the_likeliest_class(problem_type: str) -> None:
    known, _, y_pred = made_up(problem_type, 200)
    np.testing.assert_array_equal(plain_decision(known).predict(y_pred), known.default_labels(y_pred))


def test_without_rows_the_decision_is_the_plain_one() -> None:
    """As of two folds, where a row is decided on without both."""
    known, y, y_pred = made_up("binary", 10)
    score = Metric("own", True, None, lambda y_true, labels: float(np.min(y_true)), kind="decisions")
    assert fit_decision(score, known, y[:0], y_pred[:0]).cuts.tolist() == [0.5]


@pytest.mark.parametrize(
    ("problem_type", "metric"),
    [
        ("binary", "f1"), ("binary", "mcc"), ("multilabel", "f1_macro"), ("multilabel", "f1_micro"),
        ("multiclass", "f1_macro"), ("multiclass", "balanced_accuracy"), ("ordinal", "quadratic_kappa"),
    ],
)  # fmt: skip
def test_labels_of_other_rows_are_better_than_the_likeliest_ones(problem_type: str, metric: str) -> None:
    (known, y, y_pred), (_, y_new, new) = made_up(problem_type), made_up(problem_type, 20_000, seed=1)
    score = get_metric(metric, problem_type)
    decision = fit_decision(score, known, y, y_pred)
    assert score(y_new, decision.predict(new)) > score(y_new, known.default_labels(new)) + 0.01
    assert to_json(from_json(to_json(decision))) == to_json(decision)
    alone = np.vstack([decision.predict(new[[i]]) for i in range(50)])
    np.testing.assert_array_equal(alone, decision.predict(new[:50]))


def test_the_threshold_of_f1_is_half_the_best_f1() -> None:
    """Of probabilities that hold: Lipton, Elkan and Naryanaswamy, 2014."""
    known, y, p = made_up("binary", 50_000)
    score = get_metric("f1", "binary")
    decision = fit_decision(score, known, y, p)
    assert decision.cuts[0] == pytest.approx(score(y, decision.predict(p)) / 2, abs=0.02)


def test_probabilities_that_a_stage_bends_are_mended_by_the_labels() -> None:
    known, y, p = made_up("binary", 5000)
    bent = expit(2 * np.log(p / (1 - p)) + 6)  # as class weights do
    score = get_metric("f1", "binary")
    straight, mended = (score(y, fit_decision(score, known, y, each).predict(each)) for each in (p, bent))
    assert mended == pytest.approx(straight, abs=0.01)
    assert score(y, known.default_labels(bent)) < straight - 0.1


def test_cut_points_rise() -> None:
    known, y, grades = made_up("ordinal", 300)
    for metric in ("quadratic_kappa", "f1_macro", "accuracy"):
        cuts = fit_decision(get_metric(metric, "ordinal"), known, y, grades).cuts
        assert (np.diff(cuts) >= 0).all()


def test_grades_that_are_almost_known_keep_cuts_halfway_between_them() -> None:
    rng = np.random.default_rng(0)
    y = np.floor(5 * rng.random((1200, 1)))
    found = fit_decision(get_metric("quadratic_kappa"), task("ordinal", 5), y, y + 0.15 * rng.normal(size=y.shape))
    np.testing.assert_allclose(found.cuts, [0.5, 1.5, 2.5, 3.5], atol=0.1)


def test_a_metric_of_the_users_own_is_asked_for_labels_of_all_targets() -> None:
    seen = []

    def score(y_true: np.ndarray, labels: np.ndarray) -> float:
        seen.append(labels)
        return float(np.nanmean((y_true == labels) * np.where(y_true == 1, 5.0, 1.0)))

    known, y, p = made_up("multilabel")
    metric = Metric("mine", True, None, score, kind="decisions")
    decision = fit_decision(metric, known, y, p)
    assert {each.shape for each in seen} == {y.shape}
    assert set(np.unique(seen)) == {0.0, 1.0}
    assert decision.cuts == pytest.approx([1 / 6] * 3, abs=0.08)  # a positive is worth five negatives


def test_a_target_with_one_class_or_without_labels_keeps_a_sensible_threshold() -> None:
    known, y, p = made_up("multilabel", 200)
    y[:, 0], y[:, 1] = 0.0, np.nan
    cuts = fit_decision(get_metric("f1_macro", "multilabel"), known, y, p).cuts
    assert np.isfinite(cuts).all()


@pytest.mark.parametrize(("metric", "label"), [("accuracy", 0.0), ("f1", 1.0)])
def test_constant_predictions_get_the_label_that_is_worth_more(metric: str, label: float) -> None:
    known, y, _ = made_up("binary", 400)
    constant = np.full((400, 1), y.mean())
    assert set(fit_decision(get_metric(metric, "binary"), known, y, constant).predict(constant)[:, 0]) == {label}


# Inside the cross-fitting


def rule_of(known: Task, y: np.ndarray, metric: str, folds: np.ndarray) -> SelectionRule:
    score = get_metric(metric, known.problem_type)
    return SelectionRule(score, known, y, folds, np.arange(len(y)), "column_0", 1.0, 100, seed=0)


def by_labels(P: np.ndarray, y: np.ndarray, metric: Metric, folds: np.ndarray, weights: str) -> np.ndarray:
    """Weights that any label can turn."""
    return np.array([1 + np.nansum(y * (y > 0)) % 7, 1.0]) / 8


def column(j: int) -> Candidate:
    return Candidate(lambda P, *_: Blend(np.eye(P.shape[1])[:, [j]] * np.ones((1, P.shape[2])), 0))


@pytest.mark.parametrize(
    ("problem_type", "metric"), [("multilabel", "f1_macro"), ("multiclass", "f1_macro"), ("ordinal", "quadratic_kappa")]
)
def test_labels_of_a_fold_change_no_decision_on_it(problem_type: str, metric: str) -> None:
    known, y, p = made_up(problem_type, 300)
    P, folds, fold = np.stack([p, p**2], axis=1), np.arange(300) % 4, 2
    own = folds == fold
    turned = np.where(own[:, None] & ~np.isnan(y), np.nanmax(y) - y, y)
    judged = []
    for labels in (y, turned):
        rule = rule_of(known, labels, metric, folds)
        m = BlendData(P, labels, folds, rule.metric)
        judged.append(rule.as_scored(cross_fit(Candidate(by_labels, "mine.py:by_labels"), m)))
    before, after = judged
    np.testing.assert_array_equal(before.cross_fitted[own], after.cross_fitted[own])
    np.testing.assert_array_equal(before.nested[fold], after.nested[fold])
    assert (before.cross_fitted[~own] != after.cross_fitted[~own]).any()
    assert (before.in_sample[own] != after.in_sample[own]).any()  # the canary sings where it may


@pytest.mark.parametrize(
    ("problem_type", "metric", "chance"),
    [("binary", "f1", 0.46), ("binary", "mcc", 0.0), ("ordinal", "quadratic_kappa", 0.0)],
)
def test_shuffled_labels_give_the_score_of_chance(problem_type: str, metric: str, chance: float) -> None:
    found = []
    for seed in range(4):
        known, y, _ = made_up(problem_type, 400, seed)
        rng = np.random.default_rng(seed)
        if problem_type == "binary":
            y = (rng.random(y.shape) < 0.3).astype(float)  # all positive: 2 * 0.3 / 1.3 = 0.46
        P, folds = rng.random((400, 6, 1)), np.arange(400) % 5
        rule = rule_of(known, y, metric, folds)
        m = BlendData(P, y, folds, rule.metric)
        judged = {f"column_{j}": rule.as_scored(cross_fit(column(j), m)) for j in range(6)}
        y_pred, _ = cross_fit_procedure(rule, judged, [])
        found.append(rule.metric(y, y_pred))
    assert np.mean(found) < chance + 0.05


def test_a_stage_that_memorises_its_rows_is_chosen_for_no_fold() -> None:
    """Of rows that it has not seen it is as sure as of those that it has, and knows nothing."""
    known, y, p = made_up("binary", 400)
    folds, sure = np.arange(400) % 5, np.random.default_rng(1).integers(2, size=(400, 1)).astype(float)
    rule = rule_of(known, y, "f1", folds)
    m = BlendData(np.stack([p, sure], axis=1), y, folds, rule.metric)
    judged = {f"column_{j}": rule.as_scored(cross_fit(column(j), m)) for j in range(2)}
    assert cross_fit_procedure(rule, judged, [])[1] == ["column_0"] * 5
