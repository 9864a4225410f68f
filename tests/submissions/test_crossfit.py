"""Honest scores: nothing of a fold enters its predictions, and the default stands unless another is clearly better."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from competition.metrics import METRICS
from submissions.blenders import ALWAYS, BLENDERS
from submissions.crossfit import (
    Comparison,
    CrossFitted,
    Rule,
    choose,
    compare,
    cross_fit,
    cross_fitted_choice,
    fit_of,
    least_gain,
    scores,
)
from submissions.stacker import Stack, fit_stack
from submissions.target import Folds, Target
from tests.submissions.fakes import columns_like, near_duplicates

STACK = "lightgbm_stack"
CANDIDATES = [*ALWAYS, "shrunk_ridge", STACK]  # as a run has them


def stacked(target: Target, without: Folds) -> Stack:
    return fit_stack(target, "shrunk_ridge", without)


def all_cross_fitted(targets: list[Target], n_folds: int = 5) -> dict[str, CrossFitted]:
    return {n: cross_fit(targets, stacked if n == STACK else fit_of(n), n_folds) for n in CANDIDATES}


def rule(y: np.ndarray, folds: np.ndarray, metric: str = "rmse", margin: float = 1.0, draws: int = 300) -> Rule:
    return Rule(
        METRICS[metric], y.reshape(len(folds), -1), folds, np.arange(len(folds)), "shrunk_ridge", margin, draws, 0
    )


def decided(columns: np.ndarray, y: np.ndarray, folds: np.ndarray) -> tuple[str, dict[str, Comparison]]:
    found = all_cross_fitted([Target(columns, y, folds, METRICS["rmse"], trials=12)])
    compared = compare(rule(y, folds), {name: part.cross_fitted for name, part in found.items()}, folds >= 0, 1000)
    return choose(rule(y, folds), compared, folds >= 0)[0], compared


@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman"])
def test_labels_of_a_fold_change_no_prediction_that_was_made_without_it(metric: str) -> None:
    columns, y, folds = columns_like("trees", 200)
    folds %= 4
    changed, fold = y.copy(), 2
    changed[folds == fold] = 100 * np.random.default_rng(5).normal(size=(folds == fold).sum())
    before = all_cross_fitted([Target(columns, y, folds, METRICS[metric], trials=12)], 4)
    after = all_cross_fitted([Target(columns, changed, folds, METRICS[metric], trials=12)], 4)
    for name in CANDIDATES:
        own, others = folds == fold, folds != fold
        np.testing.assert_array_equal(before[name].cross_fitted[own], after[name].cross_fitted[own])
        np.testing.assert_array_equal(before[name].nested[fold], after[name].nested[fold])
        if name in ("shrunk_ridge", STACK):  # the canary sings: others were fitted on the changed labels
            assert (before[name].cross_fitted[others] != after[name].cross_fitted[others]).any()
    assert stacked(Target(columns, y, folds, METRICS[metric], trials=12), frozenset({fold})).correction is not None

    def choice(found: dict[str, CrossFitted], labels: np.ndarray) -> tuple[np.ndarray, list[str]]:
        parts = {n: p.cross_fitted for n, p in found.items()}, {n: p.nested for n, p in found.items()}
        return cross_fitted_choice(rule(labels, folds, metric), *parts, n_folds=4)

    (y_before, chosen_before), (y_after, chosen_after) = choice(before, y), choice(after, changed)
    assert chosen_before[fold] == chosen_after[fold] == STACK
    np.testing.assert_array_equal(y_before[folds == fold], y_after[folds == fold])


@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman", "median_ae"])
def test_labels_that_would_turn_every_weight_do_not_reach_their_own_fold(metric: str) -> None:
    rng = np.random.default_rng(0)
    y, folds, fold = rng.normal(size=120), np.arange(120) % 4, 1
    columns = y[:, None] + 0.5 * rng.uniform(-1, 1, size=(120, 3))  # three columns of like quality
    own = folds == fold
    settings = {"trials": 5, "weight_trials": 5}
    before = Target(columns, y, folds, METRICS[metric], **settings)
    worst = int(np.argmin(before.fit("convex").weights))
    labels = [np.where(own, k * columns[:, worst], y) for k in (1, 3)]
    changed = [Target(columns, each, folds, METRICS[metric], **settings) for each in labels]
    for name in BLENDERS if metric in ("rmse", "mae") else ("best_single", "convex", "shrunk_ridge", "ridge", "optuna"):
        fits = [cross_fit([target], fit_of(name), 4) for target in (before, *changed)]
        for other in fits[1:]:
            np.testing.assert_array_equal(fits[0].cross_fitted[own], other.cross_fitted[own])
            np.testing.assert_array_equal(fits[0].nested[fold], other.nested[fold])
        if name != "mean":  # the canary sings where it may
            assert any((fits[0].in_sample != other.in_sample).any() for other in fits[1:]), name


def test_every_row_with_a_fold_is_predicted_and_no_other() -> None:
    columns, y, folds = columns_like("independent", 100)
    y[::7] = np.nan
    folds[:10] = -1
    columns[:10] = np.nan
    for part in all_cross_fitted([Target(columns, y, folds, METRICS["rmse"], trials=5)]).values():
        assert (np.isfinite(part.cross_fitted[:, 0]) == (folds >= 0)).all()
        assert (np.isfinite(part.in_sample[:, 0]) == (folds >= 0)).all()
        for fold in range(5):
            assert (np.isfinite(part.nested[fold][:, 0]) == ((folds >= 0) & (folds != fold))).all()


def test_a_column_of_noise_does_not_improve_the_cross_fitted_score() -> None:
    gains = []
    for seed in range(4):
        columns, y, folds = columns_like("independent", 200, 3, seed)
        noise = np.random.default_rng(100 + seed).normal(size=(200, 1))
        found = [
            cross_fit([Target(part, y, folds, METRICS["rmse"], trials=20)], fit_of("shrunk_ridge"), 5)
            for part in (columns, np.hstack([columns, noise]))
        ]
        without, with_noise = (scores(rule(y, folds), part) for part in found)
        assert with_noise["in_sample_score"] <= without["in_sample_score"] + 1e-3
        gains.append(1 - with_noise["cross_fitted_score"] / without["cross_fitted_score"])
    assert max(gains) < 0.01
    assert np.mean(gains) < 0.002


def test_the_stack_is_chosen_where_it_earns_it() -> None:
    chosen, compared = decided(*columns_like("trees"))
    assert chosen == STACK
    assert compared[STACK].cross_fitted_score < 0.5 * compared["shrunk_ridge"].cross_fitted_score


def test_the_stack_is_the_blend_where_there_is_nothing_for_trees() -> None:
    columns, y, folds = columns_like("independent")
    chosen, compared = decided(columns, y, folds)
    assert chosen != STACK
    assert abs(compared[STACK].difference) < 0.003


def test_trees_on_a_residual_of_noise_are_none_at_all() -> None:
    grown = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=300)
        columns = y[:, None] + 0.5 * rng.normal(size=(300, 4))
        target = Target(columns, y, np.arange(300) % 5, METRICS["rmse"], trials=10)
        grown.append(stacked(target, frozenset()).correction)
    assert sum(trees is not None for trees in grown) <= 2  # without the one-standard-error rule there are more


@pytest.mark.parametrize("seed", [5, 16, 25])  # those of 30 in which larger or less restrained trees were chosen
def test_near_duplicates_and_columns_that_memorise_do_not_make_the_stack_win(seed: int) -> None:
    columns, y, folds, _ = near_duplicates(seed, 600)
    assert np.corrcoef(columns[:, 1], y)[0, 1] > 0.7  # it does see its twins
    assert decided(columns, y, folds)[0] != STACK


def test_the_same_stack_comes_out_again_and_from_its_text() -> None:
    columns, y, folds = columns_like("trees")
    stacks = [stacked(Target(columns, y, folds, METRICS["rmse"]), frozenset()) for _ in range(2)]
    assert stacks[0] == dataclasses.replace(stacks[1], blend=stacks[0].blend)
    assert stacks[0].correction.n_trees > 20
    assert stacks[0].predict(columns).tobytes() == stacks[1].predict(columns).tobytes()


def test_permuting_columns_changes_no_byte_of_the_stack() -> None:
    columns, y, folds = columns_like("trees")
    order = [2, 0, 1]
    before = stacked(Target(columns, y, folds, METRICS["rmse"]), frozenset()).predict(columns)
    after = stacked(Target(columns[:, order], y, folds, METRICS["rmse"]), frozenset()).predict(columns[:, order])
    np.testing.assert_allclose(before, after, rtol=1e-12)


def test_rows_that_share_a_fold_count_as_one_in_the_comparison() -> None:
    columns, y, _ = columns_like("independent", 200, 2)
    y_pred = {"shrunk_ridge": np.repeat(columns[:, :1], 4, axis=0), "mean": np.repeat(columns[:, 1:], 4, axis=0)}
    alone = rule(np.repeat(y, 4), np.zeros(800, dtype=np.int64))
    together = dataclasses.replace(alone, groups=np.repeat(np.arange(200), 4))
    errors = [compare(each, y_pred, alone.folds >= 0, 1000)["mean"].standard_error for each in (alone, together)]
    assert errors[1] == pytest.approx(2 * errors[0], rel=0.15)


def compared(**of: tuple[float, float]) -> dict[str, Comparison]:
    return {"shrunk_ridge": Comparison(1.0, 0.0, 0.0)} | {n: Comparison(1.0 + d, d, e) for n, (d, e) in of.items()}


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
    name, reason = choose(rule(np.zeros(4), np.arange(4), metric, margin), compared(**others), np.full(4, True))
    assert name == chosen
    assert chosen in reason
    assert reason.endswith(".")


@pytest.mark.parametrize(
    ("metric", "score", "constant"),
    [
        ("rmse", 0.5, np.sqrt(2)),  # labels 0, 0, 3 about their mean of 1
        ("mae", 0.5, 1.0),  # about their median of 0
        ("r2", 0.5, 0.0),
        ("spearman", 0.5, 0.0),  # not defined for a constant
    ],
)
def test_the_least_gain_is_a_thousandth_of_the_way_from_a_constant_to_the_default(
    metric: str, score: float, constant: float
) -> None:
    y, which = np.array([0.0, 0.0, np.nan, 3.0, 99.0]), np.arange(5) < 4
    assert least_gain(rule(y, np.arange(5), metric), score, which) == pytest.approx(abs(score - constant) / 1000)


def test_missing_labels_are_masked_in_scores_and_comparisons() -> None:
    columns, y, folds = columns_like("independent", 150)
    missing = np.arange(150) % 6 == 0
    kept = ~missing
    whole, part = np.where(missing, np.nan, y), y[kept]
    found = [all_cross_fitted([Target(columns, whole, folds, METRICS["rmse"], trials=5)])]
    found.append(all_cross_fitted([Target(columns[kept], part, folds[kept], METRICS["rmse"], trials=5)]))
    for name in CANDIDATES:
        with_gaps, without = scores(rule(whole, folds), found[0][name]), scores(rule(part, folds[kept]), found[1][name])
        assert with_gaps["cross_fitted_score"] == pytest.approx(without["cross_fitted_score"], rel=1e-12)


@pytest.mark.parametrize("n_folds", [2, 3])
def test_few_folds_leave_less_to_tune_but_nothing_breaks(n_folds: int) -> None:
    columns, y, _ = columns_like("independent", 90)
    folds = np.arange(90) % n_folds
    found = all_cross_fitted([Target(columns, y, folds, METRICS["mae"])], n_folds)
    y_pred, chosen = cross_fitted_choice(
        rule(y, folds, "mae"),
        {n: p.cross_fitted for n, p in found.items()},
        {n: p.nested for n, p in found.items()},
        n_folds,
    )
    assert np.isfinite(y_pred).all()
    assert len(chosen) == n_folds
