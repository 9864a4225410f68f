"""Blends of probabilities: weights of logits compared with a general optimizer, invariances, and extreme
inputs.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax

from competition.errors import ConfigError
from competition.metrics import METRICS
from submissions.blend.blend_losses import blend_losses
from submissions.blend.candidates import (
    ALWAYS_CLASSIFICATION,
    CANDIDATES,
    CLASSIFICATION_CANDIDATES,
    Candidate,
    WeightedCandidate,
)
from submissions.blend.cross_fitting import cross_fit, cross_fitted
from submissions.blend.logits import MIN_BASE_PROBABILITY, PENALTIES, SUM_PENALTY
from submissions.blend.solvers import convex
from submissions.blend.weight_problem import BlendData
from submissions.config import load_config
from submissions.selection import candidates_of
from tests.submissions.fakes import fake_classes

BLENDS = [name for name in CLASSIFICATION_CANDIDATES if isinstance(CANDIDATES[name], WeightedCandidate)]
N_OUTPUTS = {"binary": 1, "multiclass": 3}


def random_data(
    problem_type: str, n: int = 400, n_models: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Base predictions (n, n_models, n_outputs) from noisy logits, later models with more noise; labels (n,
    1).
    """
    rng = np.random.default_rng(seed)
    k = N_OUTPUTS[problem_type]
    truth = 1.5 * rng.normal(size=(n, k))
    noisy = truth[:, None] + rng.normal(size=(n, n_models, k)) * np.linspace(0.5, 2, n_models)[:, None]
    if k == 1:
        return expit(noisy), (rng.random((n, 1)) < expit(truth)).astype(float)
    return softmax(noisy, axis=2), (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)[:, None].astype(
        float
    )


def blend_data(preds: np.ndarray, y: np.ndarray, metric: str = "log_loss", **settings: object) -> BlendData:
    return BlendData(
        preds, y, np.arange(len(y)) % 5, METRICS[metric], weight_trials=8, has_probabilities=True, **settings
    )  # type: ignore


def log_loss_of(w: np.ndarray, preds: np.ndarray, y: np.ndarray) -> float:
    clipped = np.clip(preds, MIN_BASE_PROBABILITY, 1 - MIN_BASE_PROBABILITY)
    logits = np.log(clipped) if preds.shape[2] > 1 else np.log(np.dstack([1 - clipped, clipped]))
    sums = np.einsum("nck,c->nk", logits, w)
    return float(np.mean(logsumexp(sums, axis=1) - sums[np.arange(len(y)), y[:, 0].astype(int)]))


@pytest.mark.parametrize("problem_type", N_OUTPUTS)
def test_weights_of_logits_equal_a_general_optimizer_and_the_penalty_is_the_best_across_folds(
    problem_type: str,
) -> None:
    preds, y = random_data(problem_type, 300, 4)
    data = blend_data(preds, y)
    problem = data.problems[0]
    preds = preds[:, problem.model_order]
    start = problem.solve(convex).weights
    for penalty, w in zip(PENALTIES, problem.logit_weights, strict=True):

        def objective(w: np.ndarray, penalty: float = penalty) -> float:
            penalties = penalty * ((w - start) ** 2).sum() + SUM_PENALTY / 300 * (w.sum() - 1) ** 2
            return log_loss_of(w, preds, y) + penalties

        options = {"ftol": 1e-15, "gtol": 1e-9}
        best = minimize(objective, np.full(4, 0.25), bounds=[(0, None)] * 4, options=options)
        np.testing.assert_allclose(w, best.x, atol=1e-4)
    fold_losses = []
    for fold, part in enumerate(problem.leave_one_fold_out):
        in_fold = data.folds == fold
        fold_losses.append([log_loss_of(w, preds[in_fold], y[in_fold]) for w in part.logit_weights])
    blend = CANDIDATES["shrunk_logits"].fit(data)
    assert blend.settings[0]["penalty"] == PENALTIES[int(np.argmin(np.mean(fold_losses, axis=0)))]
    assert (blend.weights == blend.weights[:, :1]).all()  # one vector for all classes


def test_the_sum_of_the_weights_is_an_inverse_temperature() -> None:
    rng = np.random.default_rng(0)
    log_odds = 2 * rng.normal(size=(4000, 1))
    y = (rng.random((4000, 1)) < expit(log_odds)).astype(float)
    for temperature in (0.5, 2.0):
        preds = expit(np.repeat(log_odds / temperature, 2, axis=1))[:, :, None]
        blend = CANDIDATES["shrunk_logits"].fit(blend_data(preds, y))
        assert blend.weights.sum() == pytest.approx(temperature, rel=0.1)
        assert blend.weights[0, 0] == pytest.approx(blend.weights[1, 0])  # duplicates share their weight
        assert METRICS["log_loss"](y, blend.predict(preds)) < METRICS["log_loss"](y, preds[:, 0]) - 0.01


def test_the_convex_blend_of_probabilities_has_the_smallest_brier_score() -> None:
    brier = METRICS["brier"]
    for problem_type in N_OUTPUTS:
        preds, y = random_data(problem_type)
        blend = CANDIDATES["convex"].fit(blend_data(preds, y, "brier"))
        best = brier(y, blend.predict(preds))
        for first in np.linspace(0, 1, 21):
            for second in np.linspace(0, 1 - first, 11):
                y_pred = np.einsum("nck,c->nk", preds, [first, second, 1 - first - second])
                assert best <= brier(y, y_pred) + 1e-12
        assert blend.weights.min() >= 0
        assert blend.weights[:, 0].sum() == pytest.approx(1)


@pytest.mark.parametrize("problem_type", N_OUTPUTS)
@pytest.mark.parametrize("metric", ["log_loss", "brier", "roc_auc", "f1_macro"])
@pytest.mark.parametrize("name", CLASSIFICATION_CANDIDATES)
def test_every_candidate_predicts_probabilities_that_do_not_depend_on_the_order_of_models_and_rows(
    name: str, metric: str, problem_type: str
) -> None:
    preds, y = random_data(problem_type, 200)
    before = CANDIDATES[name].fit(blend_data(preds, y, metric)).predict(preds)
    assert before.min() >= 0
    assert before.max() <= 1
    if problem_type == "multiclass" and name != "mean_of_ranks":
        assert np.allclose(before.sum(axis=1), 1)
    reordered = preds[:, [2, 0, 1]]
    after = CANDIDATES[name].fit(blend_data(reordered, y, metric)).predict(reordered)
    np.testing.assert_allclose(after, before, atol=1e-9)
    single_row = CANDIDATES[name].fit(blend_data(preds, y, metric)).predict(preds[5:6])
    np.testing.assert_allclose(single_row, before[5:6], atol=1e-12)


@pytest.mark.parametrize("problem_type", N_OUTPUTS)
@pytest.mark.parametrize("name", CLASSIFICATION_CANDIDATES)
@pytest.mark.filterwarnings("error")
def test_extreme_inputs_give_finite_predictions_without_warnings(name: str, problem_type: str) -> None:
    preds, y = random_data(problem_type, 100)
    if problem_type == "multiclass":
        confident = (preds.max(axis=2, keepdims=True) == preds).astype(float)
        confident = confident / confident.sum(axis=2, keepdims=True)
        perfect = np.repeat((y == np.arange(3)).astype(float)[:, None], 3, axis=1)
        opposite = (1 - perfect) / (1 - perfect).sum(axis=2, keepdims=True)
    else:
        confident = np.round(preds)
        perfect = np.repeat(y[:, None], 3, axis=1)
        opposite = 1 - perfect
    rare_y = np.where(np.arange(100)[:, None] < 98, 0.0, 1.0)  # one class is in two folds only
    one_model = preds[:, :1]
    duplicates = preds[:, [0, 0, 0]]
    for base_preds in (confident, perfect, opposite, one_model, duplicates, preds):
        labels = rare_y if base_preds is preds else y
        for metric in ("log_loss", "roc_auc"):
            predictions = cross_fit(CANDIDATES[name], blend_data(base_preds, labels, metric))
            assert np.isfinite(predictions.cross_fitted).all()
        one_fold = CANDIDATES[name].fit(blend_data(base_preds, labels), frozenset({1, 2, 3, 4}))
        assert np.isfinite(one_fold.predict(base_preds)).all()


@pytest.mark.parametrize("name", BLENDS)
def test_labels_of_a_fold_do_not_reach_a_fit_without_it(name: str) -> None:
    for problem_type in N_OUTPUTS:
        preds, y = random_data(problem_type, 200)
        in_fold = np.arange(200) % 5 == 2
        new_y = np.where(in_fold[:, None], (y + 1) % 2, y)
        for metric in ("log_loss", "roc_auc"):
            before, after = (
                cross_fit(CANDIDATES[name], blend_data(preds, labels, metric)) for labels in (y, new_y)
            )
            np.testing.assert_array_equal(before.nested[2], after.nested[2])
            np.testing.assert_array_equal(before.cross_fitted[in_fold], after.cross_fitted[in_fold])


def test_models_of_noise_do_not_make_the_default_worse_and_unlabelled_rows_change_nothing() -> None:
    preds, y = random_data("binary", 600)
    default = CANDIDATES["shrunk_logits"]
    noise = np.random.default_rng(9).uniform(size=(600, 2, 1))
    score = METRICS["log_loss"](y, cross_fitted(default, blend_data(preds, y)))
    with_noise = METRICS["log_loss"](y, cross_fitted(default, blend_data(np.hstack([preds, noise]), y)))
    assert with_noise < score + 0.005
    unlabelled = np.arange(600) >= 500
    blend = default.fit(blend_data(preds, np.where(unlabelled[:, None], np.nan, y)))
    np.testing.assert_allclose(blend.weights, default.fit(blend_data(preds[:500], y[:500])).weights)


def test_the_tuning_metric_is_the_mean_auc_over_folds_with_ten_rows_of_each_class() -> None:
    preds, y = random_data("binary", 300)
    folds = np.arange(300) % 5
    problem = blend_data(preds, y, "roc_auc").problems[0]
    scores = np.array([
        [METRICS["roc_auc"](y[folds == fold], preds[folds == fold, model]) for fold in range(5)]
        for model in problem.model_order
    ])  # fmt: skip
    assert -blend_losses(problem, np.eye(3)) == pytest.approx(scores.mean(axis=1))
    rare_y = np.where(np.arange(300)[:, None] < 40, y, 0.0)
    for labels, metric in ((rare_y, "roc_auc"), (y, "f1"), (y, "log_loss")):
        problem = blend_data(preds, labels, metric).problems[0]
        expected = [METRICS["log_loss"](labels, preds[:, model]) for model in problem.model_order]
        assert blend_losses(problem, np.eye(3)) == pytest.approx(expected)


def test_the_mean_of_ranks_has_the_order_of_mean_ranks_and_the_scale_of_the_mean_probability() -> None:
    rng = np.random.default_rng(0)
    preds = np.dstack([rng.uniform(size=(400, 3)) * [1, 0.1, 0.01]])
    y = (rng.random((400, 1)) < 0.3).astype(float)
    y_pred = CANDIDATES["mean_of_ranks"].fit(blend_data(preds, y, "roc_auc")).predict(preds)
    ranks = preds[:, :, 0].argsort(axis=0).argsort(axis=0).mean(axis=1)
    assert METRICS["spearman"](ranks[:, None], y_pred) > 0.999
    assert y_pred.mean() == pytest.approx(preds.mean(), rel=0.05)


def test_a_user_defined_candidate_must_predict_probabilities() -> None:
    data = blend_data(*random_data("multiclass", 60))
    first = Candidate(lambda preds, y, metric, folds, weights: [1, 0, 0], "mine.py:first").fit(data)
    np.testing.assert_array_equal(first.predict(data.preds), data.preds[:, 0])
    negative = Candidate(lambda preds, y, metric, folds, weights: [1, 1, -0.5], "mine.py:negative")
    with pytest.raises(
        ConfigError, match=r"mine.py:negative must return weights \(3,\).*expected probabilities"
    ):
        negative.fit(data)


def test_shared_weights_are_one_vector_and_each_label_has_the_same_influence() -> None:
    first_preds, first_y = random_data("binary")
    second_preds, second_y = random_data("binary", seed=1)
    preds = np.dstack([first_preds, second_preds[:, [2, 1, 0]]])
    y = np.hstack([first_y, np.where(np.arange(400)[:, None] < 200, second_y, np.nan)])
    shrunk_logits = CANDIDATES["shrunk_logits"]
    shared = shrunk_logits.fit(blend_data(preds, y, weights="shared")).weights
    assert (shared[:, 0] == shared[:, 1]).all()
    per_target = shrunk_logits.fit(blend_data(preds, y)).weights
    assert per_target[0, 0] > per_target[2, 0]
    assert per_target[0, 1] < per_target[2, 1]
    assert shrunk_logits.fit(blend_data(preds, y * np.nan)).weights.tolist() == [[1 / 3] * 2] * 3


@pytest.mark.parametrize(
    ("problem_type", "metric", "submissions", "message"),
    [
        (
            "binary",
            "log_loss",
            {"candidates": ["ridge"]},
            "ridge is not for problem_type binary.*shrunk_logits",
        ),
        (
            "ordinal",
            "quadratic_kappa",
            {"default": "shrunk_logits"},
            "shrunk_logits is not for.*ordinal",
        ),
        (
            "multilabel",
            "f1_macro",
            {"candidates": ["mean_of_ranks"]},
            "mean_of_ranks is not for.*f1_macro",
        ),
        (
            "binary",
            "log_loss",
            {"candidates": ["/a/m.py:f", "/b/m.py:f"]},
            "m.py:f is in two files; rename one",
        ),
        (
            "binary",
            "log_loss",
            {"postprocess": ["clip"]},
            "postprocess: clip is not for probabilities; remove it",
        ),
        (
            "multiclass",
            "log_loss",
            {"postprocess": ["m.py:f"]},
            "m.py:f is not for probabilities of several classes",
        ),
        ("ordinal", "quadratic_kappa", {"postprocess": ["clip"]}, "postprocess: clip is not for labels"),
    ],
)
def test_blends_and_steps_that_do_not_fit_classification_are_rejected(
    tmp_path: Path, problem_type: str, metric: str, submissions: dict, message: str
) -> None:
    path = fake_classes(tmp_path, problem_type, metric, submissions=submissions)
    with pytest.raises(ConfigError, match=message):
        load_config(str(path))


def test_the_default_and_the_candidates_follow_the_kind_of_the_metric(tmp_path: Path) -> None:
    for problem_type, metric in (("binary", "roc_auc"), ("multiclass", "f1_macro"), ("binary", "log_loss")):
        run = SimpleNamespace(config=load_config(str(fake_classes(tmp_path, problem_type, metric))))
        assert (run.config.default_blend, run.config.postprocess) == ("shrunk_logits", [])
        extra = ["mean_of_ranks"] if metric == "roc_auc" else []
        assert candidates_of(run, blend_data(*random_data(problem_type), metric)) == [
            *ALWAYS_CLASSIFICATION,
            *extra,
        ]
    assert load_config(str(fake_classes(tmp_path, "ordinal", "mcc"))).default_blend == "shrunk_ridge"
