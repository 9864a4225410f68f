"""Blends of probabilities: weights of logits compared with a general optimizer, invariances, and extreme inputs."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from competition.metrics import METRICS
from core.errors import ConfigError
from submissions.blend.candidates import CANDIDATES, LOGIT_PENALTIES, _logit_weights, fit_candidate
from submissions.blend.data import Blend, BlendData
from submissions.blend.logits import MIN_BASE_PROBABILITY, SUM_PENALTY
from submissions.blend.selection import CrossFit, cross_fit
from submissions.config import load_config
from tests.submissions.blend.data import N_OUTPUTS, classes, noisy_classes
from tests.submissions.fakes import fake_classes

BLENDS = ("best_single", "mean", "convex", "shrunk_logits")


def fit(name: str, data: BlendData) -> Blend:
    return CANDIDATES[name](data, data.all_folds)  # type: ignore[return-value]


def cross_fitted(name: str, data: BlendData) -> CrossFit:
    return cross_fit(data, partial(fit_candidate, data, name))


def log_loss_of(w: np.ndarray, preds: np.ndarray, y: np.ndarray) -> float:
    clipped = np.clip(preds, MIN_BASE_PROBABILITY, 1 - MIN_BASE_PROBABILITY)
    logits = np.log(clipped) if preds.shape[2] > 1 else np.log(np.dstack([1 - clipped, clipped]))
    sums = np.einsum("nck,c->nk", logits, w)
    return float(np.mean(logsumexp(sums, axis=1) - sums[np.arange(len(y)), y[:, 0].astype(int)]))


@pytest.mark.parametrize("problem_type", N_OUTPUTS)
def test_weights_of_logits_equal_a_general_optimizer_and_the_penalty_is_the_best_across_folds(
    problem_type: str,
) -> None:
    preds, y = noisy_classes(problem_type, 300, 4)
    data = classes(preds, y)
    start = data.convex(0, data.all_folds)
    for penalty, w in zip(LOGIT_PENALTIES, _logit_weights(data, 0, data.all_folds), strict=True):

        def objective(w: np.ndarray, penalty: float = penalty) -> float:
            penalties = penalty * ((w - start) ** 2).sum() + SUM_PENALTY / 300 * (w.sum() - 1) ** 2
            return log_loss_of(w, preds, y) + penalties

        options = {"ftol": 1e-15, "gtol": 1e-9}
        best = minimize(objective, np.full(4, 0.25), bounds=[(0, None)] * 4, options=options)
        np.testing.assert_allclose(w, best.x, atol=1e-4)
    fold_losses = []
    for fold in range(5):
        in_fold = data.folds == fold
        held_out = _logit_weights(data, 0, data.all_folds - {fold})
        fold_losses.append([log_loss_of(w, preds[in_fold], y[in_fold]) for w in held_out])
    blend = fit("shrunk_logits", data)
    assert blend.settings[0]["penalty"] == LOGIT_PENALTIES[int(np.argmin(np.mean(fold_losses, axis=0)))]
    assert (blend.weights == blend.weights[:, :1]).all()  # one vector for all classes


def test_the_sum_of_the_weights_is_an_inverse_temperature() -> None:
    rng = np.random.default_rng(0)
    log_odds = 2 * rng.normal(size=(4000, 1))
    y = (rng.random((4000, 1)) < expit(log_odds)).astype(float)
    for temperature in (0.5, 2.0):
        preds = expit(np.repeat(log_odds / temperature, 2, axis=1))[:, :, None]
        blend = fit("shrunk_logits", classes(preds, y))
        assert blend.weights.sum() == pytest.approx(temperature, rel=0.1)
        assert blend.weights[0, 0] == pytest.approx(blend.weights[1, 0], rel=1e-3)  # equal columns share it
        assert METRICS["log_loss"](y, blend.predict(preds)) < METRICS["log_loss"](y, preds[:, 0]) - 0.01


def test_the_convex_blend_of_probabilities_has_the_smallest_brier_score() -> None:
    brier = METRICS["brier"]
    for problem_type in N_OUTPUTS:
        preds, y = noisy_classes(problem_type)
        blend = fit("convex", classes(preds, y, "brier"))
        best = brier(y, blend.predict(preds))
        for first in np.linspace(0, 1, 21):
            for second in np.linspace(0, 1 - first, 11):
                y_pred = np.einsum("nck,c->nk", preds, [first, second, 1 - first - second])
                assert best <= brier(y, y_pred) + 1e-9
        assert blend.weights.min() >= 0
        assert blend.weights[:, 0].sum() == pytest.approx(1)


@pytest.mark.parametrize("problem_type", N_OUTPUTS)
@pytest.mark.parametrize("metric", ["log_loss", "brier", "roc_auc", "f1_macro"])
@pytest.mark.parametrize("name", BLENDS)
def test_every_blend_predicts_probabilities_row_by_row(name: str, metric: str, problem_type: str) -> None:
    preds, y = noisy_classes(problem_type, 200)
    blend = fit(name, classes(preds, y, metric))
    y_pred = blend.predict(preds)
    assert y_pred.min() >= 0
    assert y_pred.max() <= 1
    if problem_type == "multiclass":
        assert np.allclose(y_pred.sum(axis=1), 1)
    np.testing.assert_allclose(blend.predict(preds[5:6]), y_pred[5:6], atol=1e-12)


@pytest.mark.parametrize("problem_type", N_OUTPUTS)
@pytest.mark.parametrize("name", BLENDS)
@pytest.mark.filterwarnings("error")
def test_extreme_inputs_give_finite_predictions_without_warnings(name: str, problem_type: str) -> None:
    preds, y = noisy_classes(problem_type, 100)
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
            assert np.isfinite(cross_fitted(name, classes(base_preds, labels, metric)).outputs).all()
        one_fold = CANDIDATES[name](classes(base_preds, labels), frozenset({0}))
        assert np.isfinite(one_fold.predict(base_preds)).all()


def test_columns_of_noise_do_not_make_the_default_worse_and_unlabelled_rows_change_nothing() -> None:
    preds, y = noisy_classes("binary", 600)
    noise = np.random.default_rng(9).uniform(size=(600, 2, 1))
    scores = [
        METRICS["log_loss"](y, cross_fitted("shrunk_logits", classes(columns, y)).outputs)
        for columns in (preds, np.hstack([preds, noise]))
    ]
    assert scores[1] < scores[0] + 0.005
    unlabelled = np.arange(600) >= 500
    blend = fit("shrunk_logits", classes(preds, np.where(unlabelled[:, None], np.nan, y)))
    np.testing.assert_allclose(
        blend.weights, fit("shrunk_logits", classes(preds[:500], y[:500])).weights, rtol=1e-3
    )


def test_blends_are_compared_by_the_mean_auc_over_folds_with_ten_rows_of_each_class_in_each() -> None:
    preds, y = noisy_classes("binary", 300)
    folds = np.arange(300) % 5

    def losses(data: BlendData) -> list[float]:
        one_hot = np.eye(3)
        return [data.loss(0, data.all_folds, lambda fold, j=j: one_hot[j]) for j in range(3)]

    auc = METRICS["roc_auc"]
    expected = [
        -np.mean([auc(y[folds == fold], preds[folds == fold, model]) for fold in range(5)])
        for model in range(3)
    ]
    assert losses(classes(preds, y, "roc_auc")) == pytest.approx(expected)
    rare_y = np.where(np.arange(300)[:, None] < 40, y, 0.0)
    for labels, metric in ((rare_y, "roc_auc"), (y, "f1"), (y, "log_loss")):
        expected = [METRICS["log_loss"](labels, preds[:, model]) for model in range(3)]
        assert losses(classes(preds, labels, metric)) == pytest.approx(expected)


def test_a_target_with_few_labels_gets_weights_near_those_of_all_targets() -> None:
    first_preds, first_y = noisy_classes("binary")
    second_preds, second_y = noisy_classes("binary", seed=1)
    preds = np.dstack([first_preds, second_preds[:, [2, 1, 0]]])
    y = np.hstack([first_y, np.where(np.arange(400)[:, None] < 200, second_y, np.nan)])
    per_target = fit("shrunk_logits", classes(preds, y)).weights
    assert per_target[0, 0] > per_target[2, 0]
    assert per_target[0, 1] < per_target[2, 1]
    assert fit("shrunk_logits", classes(preds, y * np.nan)).weights.tolist() == [[1 / 3] * 2] * 3


@pytest.mark.parametrize(
    ("problem_type", "metric", "submissions", "message"),
    [
        ("binary", "log_loss", {"candidates": ["hill_climb"]}, "hill_climb is not for problem_type binary"),
        ("ordinal", "quadratic_kappa", {"default": "shrunk_logits"}, "shrunk_logits is not for.*ordinal"),
        (
            "binary",
            "log_loss",
            {"candidates": ["/a/m.py:f", "/b/m.py:f"]},
            "m.py:f is in two files; rename one",
        ),
    ],
)
def test_blends_that_do_not_fit_the_problem_type_are_rejected(
    tmp_path: Path, problem_type: str, metric: str, submissions: dict, message: str
) -> None:
    path = fake_classes(tmp_path, problem_type, metric, submissions=submissions)
    with pytest.raises(ConfigError, match=message):
        load_config(str(path))


def test_the_default_follows_the_problem_type(tmp_path: Path) -> None:
    for problem_type, metric, default in (
        ("binary", "roc_auc", "shrunk_logits"),
        ("multiclass", "f1_macro", "shrunk_logits"),
        ("ordinal", "mcc", "shrunk_ridge"),
    ):
        assert load_config(str(fake_classes(tmp_path, problem_type, metric))).default_blend == default
