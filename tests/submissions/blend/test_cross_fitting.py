"""Scores that can be believed: nothing of a fold enters its predictions, and the default stands unless another clearly
wins."""

import dataclasses

import numpy as np
import pytest

from competition.metrics import METRICS
from competition.task import Task
from submissions.blend.candidates import ALWAYS_REGRESSION, CANDIDATES, REGRESSION_CANDIDATES, Candidate
from submissions.blend.cross_fitting import (
    Comparison,
    CrossFitted,
    SelectionRule,
    apply_rule,
    compare_to_default,
    cross_fit,
    describe_scores,
    mean_over_folds,
    min_gain,
    select_candidate,
)
from submissions.blend.stacks import StackCandidate
from submissions.blend.weight_problem import BlendData
from submissions.selection import cross_fit_procedure
from tests.submissions.fakes import columns_like, near_duplicates

STACK = "lightgbm_stack"
FITS: dict[str, Candidate] = {**CANDIDATES, STACK: StackCandidate(CANDIDATES["shrunk_ridge"])}
IN_A_RUN = [*ALWAYS_REGRESSION, STACK]


def matrices(columns: np.ndarray, y: np.ndarray, folds: np.ndarray, metric: str = "rmse") -> BlendData:
    P, y = columns.reshape(len(folds), columns.shape[1], -1), y.reshape(len(folds), -1)
    return BlendData(P, y, folds, METRICS[metric], trials=8, weight_trials=5)


def all_cross_fitted(m: BlendData, names: list[str] = IN_A_RUN) -> dict[str, CrossFitted]:
    return {name: cross_fit(FITS[name], m) for name in names}


def rule(
    y: np.ndarray, folds: np.ndarray, metric: str = "rmse", margin: float = 1.0, draws: int = 300
) -> SelectionRule:
    groups = np.arange(len(folds))
    y = y.reshape(len(folds), -1)
    task = Task([f"y{t}" for t in range(y.shape[1])])
    return SelectionRule(METRICS[metric], task, y, folds, groups, "shrunk_ridge", margin, draws, 0)


@pytest.mark.parametrize(
    ("metric", "weights"), [("rmse", "per_target"), ("rmse", "shared"), ("mae", "shared"), ("spearman", "per_target")]
)
def test_labels_that_would_turn_every_weight_do_not_reach_their_own_fold(metric: str, weights: str) -> None:
    rng = np.random.default_rng(0)
    y, folds, fold = rng.normal(size=(120, 2)), np.arange(120) % 4, 1
    P = y[:, None] + 0.5 * rng.uniform(-1, 1, size=(120, 3, 2))  # three columns of like quality
    y[::7, 1] = np.nan
    own = folds == fold
    before = dataclasses.replace(matrices(P, y, folds, metric), weights=weights)
    worst = int(np.argmin(CANDIDATES["convex"].fit(before).weights[:, 0]))
    changed = dataclasses.replace(before, y=np.where(own[:, None] & ~np.isnan(y), 3 * P[:, worst], y))
    few = ["best_single", "convex", "shrunk_ridge", "ridge", "optuna", "median", "mean_of_ranks"]
    for name in REGRESSION_CANDIDATES if metric == "rmse" else few:
        one, other = (cross_fit(CANDIDATES[name], m) for m in (before, changed))
        np.testing.assert_array_equal(one.cross_fitted[own], other.cross_fitted[own])
        np.testing.assert_array_equal(one.nested[fold], other.nested[fold])
        if name in ("shrunk_ridge", "ridge", "convex", "mean_of_ranks"):  # the canary sings where it may
            assert (one.cross_fitted[~own] != other.cross_fitted[~own]).any(), name


@pytest.mark.parametrize("metric", ["rmse", "spearman"])
def test_labels_of_a_fold_change_neither_its_stack_nor_its_choice(metric: str) -> None:
    columns, y, folds = columns_like("trees", 200)
    folds, fold = folds % 4, 2
    own = folds == fold
    changed = np.where(own, 100 * np.random.default_rng(5).normal(size=200), y)
    names = ["mean", "shrunk_ridge", STACK]
    before, after = (all_cross_fitted(matrices(columns, each, folds, metric), names) for each in (y, changed))
    y_before, chosen_before = cross_fit_procedure(rule(y, folds, metric), before, [])
    y_after, chosen_after = cross_fit_procedure(rule(changed, folds, metric), after, [])
    assert chosen_before[fold] == chosen_after[fold] == STACK
    np.testing.assert_array_equal(y_before[own], y_after[own])


def test_a_table_of_cross_fitted_predictions_reads_back_whatever_its_order() -> None:
    shapes = (4, 2), (4, 2), (3, 4, 2)
    part = CrossFitted(*(np.random.default_rng(i).normal(size=shape) for i, shape in enumerate(shapes)))
    table, ids = part.table(list("abcd"), ["p", "q"]), list("cadb")
    assert list(table.columns)[4:6] == ["cross_fitted q", "without_fold_0 p"]
    again, order = CrossFitted.from_table(table.iloc[::-1], ids, 2), [2, 0, 3, 1]
    np.testing.assert_array_equal(again.in_sample, part.in_sample[order])
    np.testing.assert_array_equal(again.cross_fitted, part.cross_fitted[order])
    np.testing.assert_array_equal(again.nested, part.nested[:, order])


@pytest.mark.parametrize("seed", [5, 16, pytest.param(25, marks=pytest.mark.slow)])
def test_near_duplicates_and_columns_that_memorise_do_not_make_the_stack_win(seed: int) -> None:
    """Seeds of 30 in which larger or less restrained trees were chosen."""
    columns, y, folds = near_duplicates(seed, 600)
    assert np.corrcoef(columns[:, 1], y)[0, 1] > 0.7  # it does see its twins
    assert select_candidate(rule(y, folds), all_cross_fitted(matrices(columns, y, folds)))[0] != STACK


def test_rows_that_share_a_fold_count_as_one_in_the_comparison() -> None:
    columns, y, _ = columns_like("independent", 200, 2)
    y_pred = {"shrunk_ridge": np.repeat(columns[:, :1], 4, axis=0), "mean": np.repeat(columns[:, 1:], 4, axis=0)}
    alone = rule(np.repeat(y, 4), np.zeros(800, dtype=np.int64))
    together = dataclasses.replace(alone, groups=np.repeat(np.arange(200), 4))
    errors = [compare_to_default(each, y_pred, each.has_fold)["mean"].standard_error for each in (alone, together)]
    assert errors[1] == pytest.approx(2 * errors[0], rel=0.15)


@pytest.mark.parametrize(
    ("others", "metric", "margin", "chosen"),
    [
        ({"convex": (-0.1, 0.2)}, "rmse", 1.0, "shrunk_ridge"),  # better, but within one standard error
        ({"convex": (-0.3, 0.2)}, "rmse", 1.0, "convex"),
        ({"convex": (-0.3, 0.2)}, "rmse", 2.0, "shrunk_ridge"),
        ({"convex": (-0.3, 0.2)}, "r2", 1.0, "shrunk_ridge"),  # lower is worse here
        ({"convex": (0.3, 0.2)}, "r2", 1.0, "convex"),
        ({"convex": (-0.3, 0.2), "mean": (-0.4, 0.2)}, "rmse", 1.0, "mean"),
        ({"convex": (-0.3, float("nan")), "mean": (float("nan"), 0.1)}, "rmse", 0.0, "shrunk_ridge"),
        ({"convex": (0.0, 0.0)}, "rmse", 0.0, "shrunk_ridge"),
        ({"convex": (-0.0009, 0.0001)}, "rmse", 1.0, "shrunk_ridge"),  # clear, and below a thousandth of 1 - 0
        ({"convex": (-0.0011, 0.0001)}, "rmse", 1.0, "convex"),
        ({}, "rmse", 1.0, "shrunk_ridge"),
    ],
)
def test_the_default_stands_unless_another_is_clearly_better(
    others: dict[str, tuple[float, float]], metric: str, margin: float, chosen: str
) -> None:
    every = {"shrunk_ridge": (0.0, 0.0), **others}
    compared = {name: Comparison(1 + difference, difference, error) for name, (difference, error) in every.items()}
    name, reason = apply_rule(rule(np.zeros(4), np.arange(4), metric, margin), compared, np.full(4, True))
    assert name == chosen
    assert chosen in reason


def test_a_default_without_a_score_is_replaced_by_the_best_that_has_one() -> None:
    nan = float("nan")
    compared = {"shrunk_ridge": Comparison(nan, nan, nan), "mean": Comparison(2.0, nan, nan)}
    compared["convex"] = Comparison(1.0, nan, nan)
    name, reason = apply_rule(rule(np.zeros(4), np.arange(4), "rmsle", 2.0), compared, np.full(4, True))
    assert (name, reason) == ("convex", "convex is chosen, since the default, shrunk_ridge, has no score.")


@pytest.mark.parametrize(
    ("metric", "constant"),
    [
        ("rmse", np.sqrt(2)),  # labels 0, 0, 3 about their mean of 1
        ("mae", 1.0),  # about their median of 0
        ("r2", 0.0),
        ("spearman", 0.0),  # not defined for a constant
    ],
)
def test_the_least_gain_is_a_thousandth_of_the_way_from_a_constant_to_the_default(metric: str, constant: float) -> None:
    y, which = np.array([0.0, 0.0, np.nan, 3.0, 99.0]), np.arange(5) < 4
    assert min_gain(rule(y, np.arange(5), metric), 0.5, which) == pytest.approx(abs(0.5 - constant) / 1000)


def test_missing_labels_are_masked_in_scores() -> None:
    columns, y, folds = columns_like("independent", 150)
    kept = np.arange(150) % 6 > 0
    whole, names = np.where(kept, y, np.nan), ["mean", "shrunk_ridge", STACK]
    with_gaps = all_cross_fitted(matrices(columns, whole, folds), names)
    without = all_cross_fitted(matrices(columns[kept], y[kept], folds[kept]), names)
    for name in names:
        one, other = (
            describe_scores(rule(whole, folds), with_gaps[name]),
            describe_scores(rule(y[kept], folds[kept]), without[name]),
        )
        assert one["cross_fitted_score"] == pytest.approx(other["cross_fitted_score"], rel=1e-12)


@pytest.mark.parametrize("n_folds", [2, 3])
def test_every_row_with_a_fold_is_predicted_and_no_other_with_few_folds_too(n_folds: int) -> None:
    columns, y, _ = columns_like("independent", 90)
    folds = np.arange(90) % n_folds
    y[::7], folds[:10], columns[:10] = np.nan, -1, np.nan
    found = all_cross_fitted(matrices(columns, y, folds, "mae"), [*IN_A_RUN, "median", "mean_of_ranks"])
    for part in found.values():
        for y_pred, there in ((part.in_sample, folds >= 0), (part.cross_fitted, folds >= 0)):
            assert (np.isfinite(y_pred[:, 0]) == there).all()
        for fold in range(n_folds):
            assert (np.isfinite(part.nested[fold][:, 0]) == ((folds >= 0) & (folds != fold))).all()
    y_pred, chosen = cross_fit_procedure(rule(y, folds, "mae"), found, [])
    assert (np.isfinite(y_pred[:, 0]) == (folds >= 0)).all() and len(chosen) == n_folds


def test_a_candidate_that_predicts_a_fold_as_the_default_does_is_not_chosen_for_it() -> None:
    rng = np.random.default_rng(0)
    y, folds = rng.normal(size=60), np.arange(60) % 3
    default = (y + rng.normal(size=60))[:, None]
    better = np.where((folds == 1)[:, None], default, y[:, None])

    def part(y_pred: np.ndarray, nested: np.ndarray) -> CrossFitted:
        without = [np.where((folds == k)[:, None], np.nan, nested) for k in range(3)]
        return CrossFitted(y_pred, y_pred, np.stack(without))

    found = {"shrunk_ridge": part(default, default), STACK: part(better, y[:, None])}
    y_pred, chosen = cross_fit_procedure(rule(y, folds), found, [])
    assert chosen == [STACK, "shrunk_ridge", STACK]
    np.testing.assert_array_equal(y_pred, better)


def test_a_column_of_noise_does_not_improve_the_cross_fitted_score() -> None:
    gains = []
    for seed in range(4):
        columns, y, folds = columns_like("independent", 200, 3, seed)
        noise = np.random.default_rng(100 + seed).normal(size=(200, 1))
        both = (matrices(part, y, folds) for part in (columns, np.hstack([columns, noise])))
        found = [cross_fit(CANDIDATES["shrunk_ridge"], m) for m in both]
        without, with_noise = (describe_scores(rule(y, folds), part) for part in found)
        assert with_noise["in_sample_score"] <= without["in_sample_score"] + 1e-3
        gains.append(1 - with_noise["cross_fitted_score"] / without["cross_fitted_score"])
    assert max(gains) < 0.01
    assert np.mean(gains) < 0.003


def test_auc_is_told_within_folds_too_where_fold_models_are_offset() -> None:
    y = np.array([[0, 1, 0, 1, 0, 1, 0, 0], [0, 1, 0, 1, np.nan, 1, 1, 0]]).T
    folds = np.array([0, 0, 1, 1, 2, 2, 3, 3])  # in fold 2 the second target has one class, in fold 3 the first
    y_pred = (y[:, :1] + np.array([0, 2, 4, 6])[folds][:, None]) / 10 * [1, -1]
    task = Task(["a", "b"], None, "multilabel", ["0", "1"])
    judged = dataclasses.replace(rule(y, folds), metric=METRICS["roc_auc"], task=task)
    found = mean_over_folds(judged, y_pred)
    assert found == {"score_mean_over_folds": pytest.approx(np.mean([1.0, np.mean([0, 0, 0.5])])), "without_score": 2}
    assert found["score_mean_over_folds"] > METRICS["roc_auc"](y, y_pred)
    assert mean_over_folds(dataclasses.replace(judged, metric=METRICS["log_loss"]), y_pred) == {}
