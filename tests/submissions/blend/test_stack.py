"""The stack: chosen where it helps, else equal to the default blend."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from competition.metrics import METRICS
from submissions.blend import stack as stacks
from submissions.blend.candidates import LIGHTGBM_STACK
from submissions.blend.data import from_json, to_json
from submissions.blend.stack import fit_stack
from tests.submissions.blend.data import (
    chosen_of,
    classes,
    cross_fitted,
    fit,
    noisy_classes,
    noisy_numbers,
    numbers,
)


def test_the_stack_is_chosen_for_labels_that_are_nonlinear_in_the_predictions_and_only_then():
    preds, y = noisy_numbers(300)
    for labels, chosen in ((y, "shrunk_ridge"), (y + 2 * np.abs(y), LIGHTGBM_STACK)):
        assert chosen_of(numbers(preds, labels), ["shrunk_ridge", LIGHTGBM_STACK]) == chosen


def test_without_a_correction_the_stack_is_its_blend_and_it_predicts_row_by_row(
    monkeypatch,
):
    preds, y = noisy_numbers(200)
    data = numbers(preds, y + 2 * np.abs(y))
    stack = fit_stack(data, "shrunk_ridge", data.all_folds)
    assert stack.trees[0]
    np.testing.assert_allclose(stack.predict(data.preds[5:6]), stack.predict(data.preds)[5:6], rtol=1e-12)
    assert stack.only(np.array([False])).trees == [""]
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: 0)
    uncorrected = fit_stack(data, "shrunk_ridge", data.all_folds)
    assert uncorrected.trees == [""]
    of_blend = fit("shrunk_ridge", data).predict(data.preds)
    np.testing.assert_array_equal(uncorrected.predict(data.preds), of_blend)


def test_a_stack_on_a_candidate_that_returns_a_column_itself_does_not_change_it():
    @dataclass(frozen=True)
    class FirstColumn:
        def predict(self, preds):
            return preds[:, 0]

    preds, y = noisy_numbers(200)
    data = numbers(preds, y + 2 * np.abs(y))
    stack = replace(fit_stack(data, "shrunk_ridge", data.all_folds), base=FirstColumn())
    before = data.preds.copy()
    stack.predict(data.preds)
    np.testing.assert_array_equal(data.preds, before)


def test_trees_use_the_predictions_of_other_targets():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(500, 2))
    preds = truth[:, None] + 0.3 * rng.normal(size=(500, 3, 2))
    y = truth + np.abs(truth[:, ::-1]) * [1, 0]
    data = numbers(preds, y, rng.permutation(np.arange(500) % 5))
    of_blend, of_stack = (
        METRICS["rmse"](y[:, :1], cross_fitted(name, data).outputs[:, :1])
        for name in ("shrunk_ridge", LIGHTGBM_STACK)
    )
    assert of_stack < 0.9 * of_blend


# Classification: trees that start from the logits of the blend


@pytest.mark.parametrize("problem_type", ["binary", "multiclass"])
@pytest.mark.parametrize(("nonlinear", "share"), [(True, 0.95), (False, 1.01)])
def test_classification_trees_start_from_the_blend_and_help_with_nonlinear_logits(
    problem_type, nonlinear, share
):
    data = classes(*noisy_classes(problem_type, 600, is_nonlinear=nonlinear))
    fits = [cross_fitted(name, data) for name in ("shrunk_logits", LIGHTGBM_STACK)]
    of_blend, of_stack = (METRICS["log_loss"](data.y, part.outputs) for part in fits)
    assert of_stack < share * of_blend
    stack = fits[1].final
    y_pred = stack.predict(data.preds)
    assert y_pred.min() >= 0
    assert problem_type == "binary" or np.allclose(y_pred.sum(axis=1), 1)
    np.testing.assert_allclose(stack.predict(data.preds[7:8]), y_pred[7:8], rtol=1e-12)
    restored = from_json(json.loads(json.dumps(to_json(stack))))
    np.testing.assert_allclose(restored.predict(data.preds), y_pred, rtol=1e-12)


def test_the_loss_of_the_blend_is_the_loss_that_lightgbm_computes(monkeypatch):
    all_losses: list[np.ndarray] = []
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: all_losses.append(losses) or 0)
    monkeypatch.setitem(stacks.PARAMETERS, "learning_rate", 1e-9)
    for problem_type in ("binary", "multiclass"):
        data = classes(*noisy_classes(problem_type))
        fit_stack(data, "mean", data.all_folds)
        np.testing.assert_allclose(all_losses[-1][1], all_losses[-1][0], rtol=1e-6)
