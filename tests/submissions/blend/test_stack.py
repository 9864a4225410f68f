"""The stack: chosen where it helps, else equal to the default blend."""

import json
from dataclasses import replace

import numpy as np
import pytest

from competition.metrics import METRICS
from submissions.blend import stack as stacks
from submissions.blend.candidates import fit_candidate
from submissions.blend.data import BlendData, from_json, to_json
from submissions.blend.logits import probabilities
from submissions.blend.selection import cross_fit
from submissions.blend.stack import Stack, fit_stack
from tests.submissions.blend.data import classes, numbers
from tests.submissions.blend.test_selection import STACK, chosen_of, fitted
from tests.submissions.fakes import columns_like


def stack_of(data: BlendData) -> Stack:
    return fit_stack(data, "shrunk_logits" if data.task.has_probabilities else "shrunk_ridge", data.all_folds)


def test_the_stack_is_chosen_for_labels_that_are_nonlinear_in_the_predictions_and_only_then() -> None:
    preds, y, folds = columns_like("independent", 300)
    for labels, chosen in ((y, "shrunk_ridge"), (y + 2 * np.abs(y), STACK)):
        assert chosen_of(numbers(preds, labels, folds, n_trials=8), ["shrunk_ridge", STACK]) == chosen


def test_without_a_correction_the_stack_is_its_blend_and_it_predicts_row_by_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    preds, y, folds = columns_like("trees", 200)
    data = numbers(preds, y + 2 * np.abs(y), folds, n_trials=8)
    stack = stack_of(data)
    assert stack.trees[0]
    y_pred = stack.predict(data.preds)
    np.testing.assert_allclose(stack.predict(data.preds[5:6]), y_pred[5:6], rtol=1e-12)
    assert stack.only(np.array([False])).trees == [""]
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: 0)
    uncorrected = stack_of(data)
    assert uncorrected.trees == [""]
    of_blend = fit_candidate(data, "shrunk_ridge", data.all_folds).predict(data.preds)
    np.testing.assert_array_equal(uncorrected.predict(data.preds), of_blend)


def test_trees_use_the_predictions_of_other_targets() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(500, 2))
    preds = truth[:, None] + 0.3 * rng.normal(size=(500, 3, 2))
    y = truth + np.abs(truth[:, ::-1]) * [1, 0]
    data = numbers(preds, y, rng.permutation(np.arange(500) % 5), n_trials=8)

    def first_target_error(name: str) -> float:
        return METRICS["rmse"](y[:, :1], fitted(data, name).outputs[:, :1])

    assert first_target_error(STACK) < 0.9 * first_target_error("shrunk_ridge")


# Classification: trees that start from the logits of the blend


def class_data(problem_type: str, nonlinear: bool = True, n: int = 600) -> BlendData:
    """Columns from noisy logits of two or three classes; `nonlinear` changes the true first logits."""
    rng = np.random.default_rng(3)
    k = 3 if problem_type == "multiclass" else 1
    truth = rng.normal(size=(n, k))
    noisy = truth[:, None] + 0.3 * rng.normal(size=(n, 3, k))
    if nonlinear:
        truth[:, 0] += 5 * np.abs(truth[:, 0]) - 4
    if problem_type == "multiclass":
        preds = probabilities(noisy, "softmax")
        y = (truth + rng.gumbel(size=(n, k))).argmax(axis=1)[:, None].astype(float)
    else:
        preds = probabilities(noisy, "logistic")
        y = (rng.logistic(size=(n, 1)) < truth).astype(float)
    return replace(classes(preds, y), folds=rng.permutation(np.arange(n) % 5))


@pytest.mark.parametrize("problem_type", ["binary", "multiclass"])
@pytest.mark.parametrize("nonlinear", [True, False])
def test_classification_trees_start_from_the_blend_and_help_with_nonlinear_logits(
    problem_type: str, nonlinear: bool
) -> None:
    data = class_data(problem_type, nonlinear)
    blend_loss, stack_loss = (
        METRICS["log_loss"](data.y, fitted(data, name).outputs) for name in ("shrunk_logits", STACK)
    )
    assert stack_loss < (0.95 if nonlinear else 1.01) * blend_loss
    if not nonlinear:
        return
    stack = stack_of(data)
    y_pred = stack.predict(data.preds)
    assert y_pred.min() >= 0
    assert problem_type == "binary" or np.allclose(y_pred.sum(axis=1), 1)
    np.testing.assert_allclose(stack.predict(data.preds[7:8]), y_pred[7:8], rtol=1e-12)
    restored = from_json(json.loads(json.dumps(to_json(stack))))
    np.testing.assert_allclose(restored.predict(data.preds), y_pred, rtol=1e-12)


def test_the_loss_of_the_blend_is_the_loss_that_lightgbm_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    all_losses: list[np.ndarray] = []

    def no_trees(losses: np.ndarray) -> int:
        all_losses.append(losses)
        return 0

    monkeypatch.setattr(stacks, "best_n_trees", no_trees)
    monkeypatch.setitem(stacks.PARAMETERS, "learning_rate", 1e-9)
    for problem_type in ("binary", "multiclass"):
        data = class_data(problem_type)
        fit_stack(data, "mean", data.all_folds)
        np.testing.assert_allclose(all_losses[-1][1], all_losses[-1][0], rtol=1e-6)


def test_a_target_without_positives_in_some_folds_has_finite_predictions() -> None:
    data = class_data("binary", n=200)
    rare_y = np.where(np.arange(200) == 0, 1.0, 0.0)
    two_targets = classes(np.repeat(data.preds, 2, axis=2), np.column_stack([data.y[:, 0], rare_y]))
    stack = cross_fit(two_targets, lambda folds: fit_stack(two_targets, "shrunk_logits", folds))
    assert np.isfinite(stack.whole.predict(two_targets.preds)).all()
    assert np.isfinite(stack.outputs).all()
