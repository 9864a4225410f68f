"""Blends of probabilities: weights of logits against a general optimiser, what changes nothing, and the extremes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax

from competition.errors import ConfigError
from competition.metrics import METRICS
from submissions.blend.candidates import (
    ALWAYS_CLASSES,
    CANDIDATES,
    CLASS_CANDIDATES,
    Candidate,
    WeightedCandidate,
    convex,
)
from submissions.blend.cross_fitting import cross_fit, cross_fitted
from submissions.blend.logits import PENALTIES, PROBABILITY_EPSILON, PULL_TO_ONE
from submissions.blend.weight_problem import BlendData
from submissions.config import load_config
from submissions.selection import candidates_of
from tests.submissions.fakes import fake_classes

BLENDS = [name for name in CLASS_CANDIDATES if isinstance(CANDIDATES[name], WeightedCandidate)]
CLASSES = {"binary": 1, "multiclass": 3}


def like(problem_type: str, n: int = 400, n_columns: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Columns (n, n_columns, n_outputs) of logits with noise, more of it in later columns, and labels (n, 1)."""
    rng, k = np.random.default_rng(seed), CLASSES[problem_type]
    truth = 1.5 * rng.normal(size=(n, k))
    noisy = truth[:, None] + rng.normal(size=(n, n_columns, k)) * np.linspace(0.5, 2, n_columns)[:, None]
    if k == 1:
        return expit(noisy), (rng.random((n, 1)) < expit(truth)).astype(float)
    return softmax(noisy, axis=2), (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)[:, None].astype(float)


def matrices(P: np.ndarray, y: np.ndarray, metric: str = "log_loss", **others: object) -> BlendData:
    folds = np.arange(len(y)) % 5
    return BlendData(P, y, folds, METRICS[metric], weight_trials=8, has_probabilities=True, **others)  # type: ignore


def log_loss_of(w: np.ndarray, P: np.ndarray, y: np.ndarray) -> float:
    clipped = np.clip(P, PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON)
    of_classes = np.log(clipped) if P.shape[2] > 1 else np.log(np.dstack([1 - clipped, clipped]))
    sums = np.einsum("nck,c->nk", of_classes, w)
    return float(np.mean(logsumexp(sums, axis=1) - sums[np.arange(len(y)), y[:, 0].astype(int)]))


@pytest.mark.parametrize("problem_type", CLASSES)
def test_the_weights_of_logits_are_those_of_a_general_optimiser_and_the_penalty_is_the_best_across_folds(
    problem_type: str,
) -> None:
    P, y = like(problem_type, 300, 4)
    m = matrices(P, y)
    found = CANDIDATES["shrunk_logits"].fit(m)
    order, start = m.problems[0].order, m.problems[0].solve(convex).weights
    for penalty, w in zip(PENALTIES, m.problems[0].log_loss_weights, strict=True):
        best = minimize(
            lambda w: log_loss_of(w, P[:, order], y) + penalty * ((w - start) ** 2).sum()  # noqa: B023
            + PULL_TO_ONE / 300 * (w.sum() - 1) ** 2,
            np.full(4, 0.25), bounds=[(0, None)] * 4, options={"ftol": 1e-15, "gtol": 1e-9},
        )  # fmt: skip
        np.testing.assert_allclose(w, best.x, atol=1e-4)
    folds = [m.folds == fold for fold in range(5)]
    across = [
        [log_loss_of(w, P[own][:, order], y[own]) for w in part.log_loss_weights]
        for own, part in zip(folds, m.problems[0].inner, strict=True)
    ]
    assert found.settings[0]["penalty"] == PENALTIES[int(np.argmin(np.mean(across, axis=0)))]
    assert (found.weights == found.weights[:, :1]).all()  # one vector for all classes


def test_the_sum_of_the_weights_is_an_inverse_temperature() -> None:
    rng = np.random.default_rng(0)
    odds = 2 * rng.normal(size=(4000, 1))
    y = (rng.random((4000, 1)) < expit(odds)).astype(float)
    for temperature in (0.5, 2.0):
        P = expit(np.repeat(odds / temperature, 2, axis=1))[:, :, None]
        found = CANDIDATES["shrunk_logits"].fit(matrices(P, y))
        assert found.weights.sum() == pytest.approx(temperature, rel=0.1)
        assert found.weights[0, 0] == pytest.approx(found.weights[1, 0])  # equal columns share
        assert METRICS["log_loss"](y, found.predict(P)) < METRICS["log_loss"](y, P[:, 0]) - 0.01


def test_the_convex_blend_of_probabilities_has_the_least_brier_score() -> None:
    for problem_type in CLASSES:
        P, y = like(problem_type)
        m, brier = matrices(P, y, "brier"), METRICS["brier"]
        found = CANDIDATES["convex"].fit(m)
        best = brier(y, found.predict(P))
        for first in np.linspace(0, 1, 21):
            for second in np.linspace(0, 1 - first, 11):
                tried = np.einsum("ncK,c->nK", P, [first, second, 1 - first - second])
                assert best <= brier(y, tried) + 1e-12
        assert found.weights.min() >= 0 and found.weights[:, 0].sum() == pytest.approx(1)


@pytest.mark.parametrize("problem_type", CLASSES)
@pytest.mark.parametrize("metric", ["log_loss", "brier", "roc_auc", "f1_macro"])
@pytest.mark.parametrize("name", CLASS_CANDIDATES)
def test_every_candidate_predicts_probabilities_whatever_the_order_of_columns_and_rows(
    name: str, metric: str, problem_type: str
) -> None:
    P, y = like(problem_type, 200)
    before = CANDIDATES[name].fit(matrices(P, y, metric)).predict(P)
    assert before.min() >= 0 and before.max() <= 1
    assert problem_type == "binary" or name == "mean_of_ranks" or np.allclose(before.sum(axis=1), 1)
    order = [2, 0, 1]
    after = CANDIDATES[name].fit(matrices(P[:, order], y, metric)).predict(P[:, order])
    np.testing.assert_allclose(after, before, atol=1e-9)
    one = CANDIDATES[name].fit(matrices(P, y, metric)).predict(P[5:6])
    np.testing.assert_allclose(one, before[5:6], atol=1e-12)  # alone as among others


@pytest.mark.parametrize("problem_type", CLASSES)
@pytest.mark.parametrize("name", CLASS_CANDIDATES)
@pytest.mark.filterwarnings("error")
def test_extremes_are_finite_and_silent(name: str, problem_type: str) -> None:
    P, y = like(problem_type, 100)
    sure = (P.max(axis=2, keepdims=True) == P).astype(float) if P.shape[2] > 1 else np.round(P)
    right = np.repeat((y == np.arange(3)).astype(float)[:, None] if P.shape[2] > 1 else y[:, None], 3, axis=1)
    few = np.where(np.arange(100)[:, None] < 98, 0.0, 1.0)  # a class in two folds alone
    for columns, labels in ((sure, y), (right, y), (1 - right, y), (P[:, :1], y), (P[:, [0, 0, 0]], y), (P, few)):
        if columns is not right and P.shape[2] > 1:
            columns = columns / columns.sum(axis=2, keepdims=True)
        for metric in ("log_loss", "roc_auc"):
            found = cross_fit(CANDIDATES[name], matrices(columns, labels, metric))
            assert np.isfinite(found.cross_fitted).all()
        of_one_fold = CANDIDATES[name].fit(matrices(columns, labels), frozenset({1, 2, 3, 4}))
        assert np.isfinite(of_one_fold.predict(columns)).all()


@pytest.mark.parametrize("name", BLENDS)
def test_labels_of_a_fold_reach_nothing_that_was_fitted_without_it(name: str) -> None:
    for problem_type in CLASSES:
        P, y = like(problem_type, 200)
        own = np.arange(200) % 5 == 2
        other = np.where(own[:, None], (y + 1) % 2, y)
        for metric in ("log_loss", "roc_auc"):
            before, after = (cross_fit(CANDIDATES[name], matrices(P, each, metric)) for each in (y, other))
            np.testing.assert_array_equal(before.nested[2], after.nested[2])
            np.testing.assert_array_equal(before.cross_fitted[own], after.cross_fitted[own])


def test_a_column_of_noise_does_not_make_the_default_worse_and_unlabelled_rows_change_nothing() -> None:
    P, y = like("binary", 600)
    noise = np.random.default_rng(9).uniform(size=(600, 2, 1))
    default, with_noise = CANDIDATES["shrunk_logits"], np.hstack([P, noise])
    scores = [METRICS["log_loss"](y, cross_fitted(default, matrices(each, y))) for each in (P, with_noise)]
    assert scores[1] < scores[0] + 0.005
    unlabelled = np.arange(600) >= 500
    found = default.fit(matrices(P, np.where(unlabelled[:, None], np.nan, y)))
    np.testing.assert_allclose(found.weights, default.fit(matrices(P[:500], y[:500])).weights)


def test_ranks_are_tuned_on_as_the_mean_over_folds_where_each_has_ten_rows_of_each_class() -> None:
    P, y = like("binary", 300)
    folds = np.arange(300) % 5
    m = matrices(P, y, "roc_auc")
    of_folds = [np.mean([METRICS["roc_auc"](y[folds == k], P[folds == k, j]) for k in range(5)]) for j in range(3)]
    order = m.problems[0].order
    assert -m.problems[0].loss(np.eye(3)) == pytest.approx(np.array(of_folds)[order])
    for labels, metric in ((np.where(np.arange(300)[:, None] < 40, y, 0.0), "roc_auc"), (y, "f1"), (y, "log_loss")):
        problem = matrices(P, labels, metric).problems[0]
        expected = [METRICS["log_loss"](labels, P[:, j]) for j in order]
        assert problem.loss(np.eye(3)) == pytest.approx(expected)


def test_the_mean_of_ranks_keeps_the_order_of_mean_ranks_on_the_scale_of_the_mean_probability() -> None:
    rng = np.random.default_rng(0)
    P = np.dstack([rng.uniform(size=(400, 3)) * [1, 0.1, 0.01]])
    y = (rng.random((400, 1)) < 0.3).astype(float)
    found = CANDIDATES["mean_of_ranks"].fit(matrices(P, y, "roc_auc")).predict(P)
    ranks = P[:, :, 0].argsort(axis=0).argsort(axis=0).mean(axis=1)
    assert METRICS["spearman"](ranks[:, None], found) > 0.999
    assert found.mean() == pytest.approx(P.mean(), rel=0.05)


def test_a_candidate_of_the_users_own_has_to_predict_probabilities() -> None:
    m = matrices(*like("multiclass", 60))
    first = Candidate(lambda P, y, metric, folds, weights: [1, 0, 0], "mine.py:first").fit(m)
    np.testing.assert_array_equal(first.predict(m.preds), m.preds[:, 0])
    with pytest.raises(ConfigError, match=r"mine.py:wrong must return weights \(3,\).*no probabilities"):
        Candidate(lambda P, y, metric, folds, weights: [1, 1, -0.5], "mine.py:wrong").fit(m)


def test_labels_share_one_vector_of_weights_where_the_yaml_says_so_and_each_counts_the_same() -> None:
    (one, y), (other, z) = like("binary"), like("binary", seed=1)
    P = np.dstack([one, other[:, [2, 1, 0]]])
    labels = np.hstack([y, np.where(np.arange(400)[:, None] < 200, z, np.nan)])
    found = CANDIDATES["shrunk_logits"].fit(matrices(P, labels, weights="shared")).weights
    assert (found[:, 0] == found[:, 1]).all()
    apart = CANDIDATES["shrunk_logits"].fit(matrices(P, labels)).weights
    assert apart[0, 0] > apart[2, 0] and apart[0, 1] < apart[2, 1]
    assert CANDIDATES["shrunk_logits"].fit(matrices(P, labels * np.nan)).weights.tolist() == [[1 / 3] * 2] * 3


@pytest.mark.parametrize(
    ("problem_type", "metric", "submissions", "message"),
    [
        ("binary", "log_loss", {"candidates": ["ridge"]}, "ridge, which is not for problem_type binary.*shrunk_logits"),
        ("ordinal", "quadratic_kappa", {"default": "shrunk_logits"}, "shrunk_logits, which is not for.*ordinal"),
        ("multilabel", "f1_macro", {"candidates": ["mean_of_ranks"]}, "mean_of_ranks, which is not for.*f1_macro"),
        ("binary", "log_loss", {"candidates": ["/a/m.py:f", "/b/m.py:f"]}, "m.py:f of two files; rename one"),
        ("binary", "log_loss", {"postprocess": ["clip"]}, "postprocess: clip is not for probabilities; leave it out"),
        ("multiclass", "log_loss", {"postprocess": ["m.py:f"]}, "m.py:f is not for probabilities of several classes"),
        ("ordinal", "quadratic_kappa", {"postprocess": ["clip"]}, "postprocess: clip is not for labels"),
    ],
)
def test_blends_and_steps_that_make_no_sense_of_classes_are_refused(
    tmp_path: Path, problem_type: str, metric: str, submissions: dict, message: str
) -> None:
    path = fake_classes(tmp_path, problem_type, metric, submissions=submissions)
    with pytest.raises(ConfigError, match=message):
        load_config(str(path))


def test_the_default_and_the_candidates_follow_the_kind_of_the_metric(tmp_path: Path) -> None:
    for problem_type, metric in (("binary", "roc_auc"), ("multiclass", "f1_macro"), ("binary", "log_loss")):
        run = SimpleNamespace(config=load_config(str(fake_classes(tmp_path, problem_type, metric))))
        assert (run.config.default_blend, run.config.postprocess) == ("shrunk_logits", [])
        more = ["mean_of_ranks"] if metric == "roc_auc" else []
        assert candidates_of(run, matrices(*like(problem_type), metric)) == [*ALWAYS_CLASSES, *more]
    assert load_config(str(fake_classes(tmp_path, "ordinal", "mcc"))).default_blend == "shrunk_ridge"
