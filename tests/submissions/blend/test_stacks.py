"""The stack: chosen where it helps, else equal to the default blend, and without influence of held-out
labels.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from competition.metrics import METRICS
from submissions.blend import stacks
from submissions.blend.candidates import CANDIDATES, Candidate
from submissions.blend.cross_fitting import cross_fit, cross_fitted
from submissions.blend.logits import probabilities
from submissions.blend.selection_rule import select_candidate
from submissions.blend.serialization import from_json, to_json
from submissions.blend.stacks import StackCandidate
from submissions.blend.weight_problem import BlendData
from tests.submissions.blend.test_cross_fitting import blend_data, selection_rule
from tests.submissions.fakes import columns_like

DEFAULT = CANDIDATES["shrunk_ridge"]


def test_the_stack_is_chosen_for_labels_that_are_nonlinear_in_the_predictions_and_only_then() -> None:
    preds, y, folds = columns_like("independent", 300)
    for labels, chosen in ((y, "shrunk_ridge"), (y + 2 * np.abs(y), "stack")):
        data = blend_data(preds, labels, folds)
        predictions = {
            "shrunk_ridge": cross_fit(DEFAULT, data),
            "stack": cross_fit(StackCandidate(DEFAULT), data),
        }
        assert select_candidate(selection_rule(labels, folds), predictions).chosen == chosen


@pytest.mark.parametrize("problem_type", ["regression", "binary", "multiclass"])
def test_labels_of_a_fold_do_not_reach_a_fit_without_it(
    monkeypatch: pytest.MonkeyPatch, problem_type: str
) -> None:
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: min(20, len(losses) - 1))
    fold = 2
    if problem_type == "regression":
        preds, y, _ = columns_like("trees", 120, seed=3)
        data = blend_data(preds, y, np.arange(120) % 4)
        other_labels = 50 - data.y
        stack = StackCandidate(DEFAULT)
    else:
        data = class_data(problem_type, n=200)
        other_labels = (data.y + 1) % 2
        stack = StackCandidate(CANDIDATES["convex"])
    in_fold = data.folds == fold
    relabelled = replace(data, y=np.where(in_fold[:, None], other_labels, data.y))
    before = cross_fit(stack, data)
    after = cross_fit(stack, relabelled)
    np.testing.assert_array_equal(before.nested[fold], after.nested[fold])
    np.testing.assert_array_equal(before.cross_fitted[in_fold], after.cross_fitted[in_fold])
    assert (before.cross_fitted != after.cross_fitted)[~in_fold].any()  # other rows do change


def test_without_a_correction_the_stack_is_its_blend_and_the_order_of_models_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    preds, y, folds = columns_like("trees", 200)
    y = y + 2 * np.abs(y)
    order = [2, 0, 1]
    data = blend_data(preds, y, folds)
    stack = StackCandidate(DEFAULT).fit(data)
    reordered = StackCandidate(DEFAULT).fit(blend_data(preds[:, order], y, folds))
    assert stack.corrections[0] is not None
    y_pred = stack.predict(preds[:, :, None])
    np.testing.assert_allclose(reordered.predict(preds[:, order, None]), y_pred, rtol=1e-9)
    np.testing.assert_allclose(stack.predict(preds[5:6, :, None]), y_pred[5:6], rtol=1e-12)
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: 0)
    uncorrected = StackCandidate(DEFAULT).fit(data)
    assert uncorrected.corrections[0] is None
    np.testing.assert_array_equal(uncorrected.predict(data.preds), DEFAULT.fit(data).predict(data.preds))


def test_trees_use_the_predictions_of_other_targets_in_any_order() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(500, 2))
    order = [2, 0, 1]
    preds = truth[:, None] + 0.3 * rng.normal(size=(500, 3, 2))
    y = truth + np.abs(truth[:, ::-1]) * [1, 0]
    data = BlendData(preds, y, rng.permutation(np.arange(500) % 5), METRICS["rmse"], trials=8)

    def first_target_error(candidate: Candidate) -> float:
        return METRICS["rmse"](y[:, :1], cross_fitted(candidate, data)[:, :1])

    assert first_target_error(StackCandidate(DEFAULT)) < 0.9 * first_target_error(DEFAULT)
    stack = StackCandidate(DEFAULT).fit(data)
    reordered = StackCandidate(DEFAULT).fit(replace(data, preds=preds[:, order]))
    np.testing.assert_allclose(reordered.predict(preds[:, order]), stack.predict(preds), rtol=1e-9)


# Classification: trees that start from the logits of the blend


def class_data(problem_type: str, nonlinear: bool = True, n: int = 600) -> BlendData:
    """Base predictions from noisy logits of two or three classes; `nonlinear` changes the true first logits."""
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
    folds = rng.permutation(np.arange(n) % 5)
    return BlendData(preds, y, folds, METRICS["log_loss"], trials=8, has_probabilities=True)


@pytest.mark.parametrize("problem_type", ["binary", "multiclass"])
@pytest.mark.parametrize("nonlinear", [True, False])
def test_classification_trees_start_from_the_blend_and_help_with_nonlinear_logits(
    problem_type: str, nonlinear: bool
) -> None:
    default = CANDIDATES["shrunk_logits"]
    data = class_data(problem_type, nonlinear)
    blend_loss = METRICS["log_loss"](data.y, cross_fitted(default, data))
    stack_loss = METRICS["log_loss"](data.y, cross_fitted(StackCandidate(default), data))
    assert stack_loss < (0.95 if nonlinear else 1.01) * blend_loss
    if not nonlinear:
        return
    stack = StackCandidate(default).fit(data)
    y_pred = stack.predict(data.preds)
    assert y_pred.min() >= 0
    assert problem_type == "binary" or np.allclose(y_pred.sum(axis=1), 1)
    np.testing.assert_allclose(stack.predict(data.preds[7:8]), y_pred[7:8], rtol=1e-12)
    restored = from_json(json.loads(json.dumps(to_json(stack))))
    np.testing.assert_allclose(restored.predict(data.preds), y_pred, rtol=1e-12)
    reordered = replace(data, preds=data.preds[:, [1, 2, 0]])
    reordered_stack = StackCandidate(default).fit(reordered)
    np.testing.assert_allclose(reordered_stack.predict(reordered.preds), y_pred, rtol=1e-6)


def test_the_loss_of_the_blend_is_the_loss_that_lightgbm_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    all_losses: list[np.ndarray] = []

    def no_trees(losses: np.ndarray) -> int:
        all_losses.append(losses)
        return 0

    monkeypatch.setattr(stacks, "best_n_trees", no_trees)
    monkeypatch.setitem(stacks.PARAMETERS, "learning_rate", 1e-9)
    for problem_type in ("binary", "multiclass"):
        StackCandidate(CANDIDATES["mean"]).fit(class_data(problem_type))
        np.testing.assert_allclose(all_losses[-1][1], all_losses[-1][0], rtol=1e-6)


def test_a_target_without_positives_in_some_folds_has_finite_predictions() -> None:
    data = class_data("binary", n=200)
    rare_y = np.where(np.arange(200) == 0, 1.0, 0.0)
    two_targets = replace(
        data, preds=np.repeat(data.preds, 2, axis=2), y=np.column_stack([data.y[:, 0], rare_y])
    )
    stack = StackCandidate(CANDIDATES["shrunk_logits"]).fit(two_targets)
    assert np.isfinite(stack.predict(two_targets.preds)).all()
    assert stack.only(np.array([False, False])).corrections == [None, None]
