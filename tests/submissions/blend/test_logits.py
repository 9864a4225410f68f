"""Blends of probabilities: weights of logits compared with a general optimizer, invariances, and extreme inputs."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from competition.metrics import METRICS
from core.errors import ConfigError
from submissions.blend.candidates import LIGHTGBM_STACK, LOGIT_PENALTIES, _logit_weights
from submissions.blend.data import convex_weights
from submissions.blend.logits import MIN_BASE_PROBABILITY, SUM_PENALTY
from submissions.config import load_config
from tests.submissions.blend.data import N_OUTPUTS, classes, cross_fitted, fit, noisy_classes
from tests.submissions.fakes import fake_classes

each_type = pytest.mark.parametrize("problem_type", N_OUTPUTS)


def log_loss_of(w, preds, y):
    clipped = np.clip(preds, MIN_BASE_PROBABILITY, 1 - MIN_BASE_PROBABILITY)
    logits = np.log(clipped) if preds.shape[2] > 1 else np.log(np.dstack([1 - clipped, clipped]))
    sums = np.einsum("nck,c->nk", logits, w)
    return float(np.mean(logsumexp(sums, axis=1) - sums[np.arange(len(y)), y[:, 0].astype(int)]))


@each_type
def test_weights_of_logits_equal_a_general_optimizer_and_the_penalty_is_the_best_across_folds(
    problem_type,
):
    preds, y = noisy_classes(problem_type, 300, 4)
    data = classes(preds, y)
    start = data.convex(0, data.all_folds)
    for penalty, w in zip(LOGIT_PENALTIES, _logit_weights(data, 0, data.all_folds), strict=True):

        def objective(w, penalty=penalty):
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


@each_type
def test_convex_weights_of_probabilities_have_the_smallest_squared_error_of_all_classes(
    problem_type,
):
    preds, y = noisy_classes(problem_type)
    truth = y if problem_type == "binary" else y == np.arange(3)
    errors = (preds - truth[:, None]).swapaxes(1, 2).reshape(-1, 3)
    expected = np.repeat(convex_weights(errors)[:, None], preds.shape[2], axis=1)
    np.testing.assert_allclose(fit("convex", classes(preds, y)).weights, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["best_single", "mean", "convex", "shrunk_logits", LIGHTGBM_STACK])
@pytest.mark.parametrize("metric", ["log_loss", "roc_auc", "f1_macro"])
@each_type
@pytest.mark.filterwarnings("error")
def test_every_blend_predicts_probabilities_also_from_extreme_inputs(problem_type, metric, name):
    preds, y = noisy_classes(problem_type, 100)
    truth = y if problem_type == "binary" else (y == np.arange(3)).astype(float)
    perfect = np.repeat(truth[:, None], 3, axis=1)
    opposite = (1 - perfect) / max(1, preds.shape[2] - 1)
    rare_y = np.where(np.arange(100)[:, None] < 98, 0.0, 1.0)  # one class is in two folds only
    cases = [(perfect, y), (opposite, y), (preds[:, :1], y), (preds[:, [0, 0, 0]], y), (preds, rare_y)]
    for columns, labels in cases:
        y_pred = cross_fitted(name, classes(columns, labels, metric)).outputs
        assert 0 <= y_pred.min() <= y_pred.max() <= 1
        assert problem_type == "binary" or np.allclose(y_pred.sum(axis=1), 1)


def test_each_target_has_its_own_weights_and_unlabelled_rows_change_nothing():
    preds, y = noisy_classes("binary", 600)
    unlabelled = np.where(np.arange(600)[:, None] < 500, y, np.nan)
    weights = fit("shrunk_logits", classes(preds, unlabelled)).weights
    np.testing.assert_allclose(
        fit("shrunk_logits", classes(preds[:500], y[:500])).weights, weights, rtol=1e-3
    )
    preds, y = np.dstack([preds, preds[:, [2, 1, 0]]]), np.hstack([y, unlabelled])
    weights = fit("shrunk_logits", classes(preds, y)).weights
    assert weights[0, 0] > weights[2, 0] and weights[0, 1] < weights[2, 1]
    assert fit("shrunk_logits", classes(preds, y * np.nan)).weights.tolist() == [[1 / 3] * 2] * 3


def test_blends_are_compared_by_the_mean_auc_over_folds_with_ten_rows_of_each_class_in_each():
    preds, y = noisy_classes("binary", 300)

    def losses(labels, metric):
        data = classes(preds, labels, metric)
        return [data.loss_of_weights(0, data.all_folds, column) for column in np.eye(3)]

    folds, auc = [slice(fold, None, 5) for fold in range(5)], METRICS["roc_auc"]
    means = [np.mean([auc(y[fold], preds[fold, model]) for fold in folds]) for model in range(3)]
    assert losses(y, "roc_auc") == pytest.approx([-mean for mean in means])
    rare_y = np.where(np.arange(300)[:, None] < 40, y, 0.0)
    for labels, metric in ((rare_y, "roc_auc"), (y, "f1"), (y, "log_loss")):
        expected = [METRICS["log_loss"](labels, preds[:, model]) for model in range(3)]
        assert losses(labels, metric) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("problem_type", "metric", "submissions", "message"),
    [
        ("binary", "log_loss", {"candidates": ["shrunk_ridge"]}, "shrunk_ridge is not for problem_type binary"),
        ("ordinal", "quadratic_kappa", {"default": "shrunk_logits"}, "shrunk_logits is not for.*ordinal"),
        ("binary", "log_loss", {"candidates": ["/a/m.py:f", "/b/m.py:f"]}, "m.py:f is in two files; rename one"),
    ],
)  # fmt: skip
def test_blends_that_do_not_fit_the_problem_type_are_rejected(
    tmp_path, problem_type, metric, submissions, message
):
    path = fake_classes(tmp_path, problem_type, metric, submissions=submissions)
    with pytest.raises(ConfigError, match=message):
        load_config(str(path))


@pytest.mark.parametrize("name", ["mean", LIGHTGBM_STACK, "submission", "submitted", "rows"])
def test_a_stage_has_another_name_than_blends_the_submission_and_columns_of_the_report(tmp_path, name):
    path = fake_classes(tmp_path, "binary", "log_loss", stages={name: {"kind": "baseline"}})
    with pytest.raises(ConfigError, match=f"stages: {name} is the name of a blend or of a column of"):
        load_config(str(path))
