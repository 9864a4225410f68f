"""The stack: chosen where it earns it, else the default blend; nothing of a fold where it is left out."""

import json
from dataclasses import replace

import numpy as np
import pytest

from competition.metrics import METRICS
from submissions.blend import stacks
from submissions.blend.candidates import CANDIDATES
from submissions.blend.cross_fitting import cross_fit, cross_fitted, select_candidate
from submissions.blend.logits import probabilities
from submissions.blend.serialization import from_json, to_json
from submissions.blend.stacks import StackCandidate
from submissions.blend.weight_problem import BlendData
from tests.submissions.blend.test_cross_fitting import matrices, rule
from tests.submissions.fakes import columns_like

DEFAULT = CANDIDATES["shrunk_ridge"]


def test_the_stack_is_chosen_where_labels_bend_with_the_columns_and_not_where_they_do_not() -> None:
    columns, y, folds = columns_like("independent", 300)
    for labels, chosen in ((y, "shrunk_ridge"), (y + 2 * np.abs(y), "stack")):
        m = matrices(columns, labels, folds)
        found = {"shrunk_ridge": cross_fit(DEFAULT, m), "stack": cross_fit(StackCandidate(DEFAULT), m)}
        assert select_candidate(rule(labels, folds), found)[0] == chosen


@pytest.mark.parametrize("problem_type", ["regression", "binary", "multiclass"])
def test_labels_of_a_fold_reach_nothing_that_was_fitted_without_it(
    monkeypatch: pytest.MonkeyPatch, problem_type: str
) -> None:
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: min(20, len(losses) - 1))
    stacked, fold = StackCandidate(DEFAULT), 2
    if problem_type == "regression":
        columns, y, _ = columns_like("trees", 120, seed=3)
        m = matrices(columns, y, np.arange(120) % 4)
    else:
        m, stacked = classes(problem_type, n=200), StackCandidate(CANDIDATES["convex"])
    own = (m.folds == fold)[:, None]
    turned = replace(m, y=np.where(own, 50 - m.y if problem_type == "regression" else (m.y + 1) % 2, m.y))
    before, relabelled = (cross_fit(stacked, each) for each in (m, turned))
    np.testing.assert_array_equal(before.nested[fold], relabelled.nested[fold])
    np.testing.assert_array_equal(before.cross_fitted[own[:, 0]], relabelled.cross_fitted[own[:, 0]])
    assert (before.cross_fitted != relabelled.cross_fitted)[~own[:, 0]].any()  # the canary sings where it may


def test_without_a_correction_the_stack_is_its_blend_and_the_order_of_columns_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns, y, folds = columns_like("trees", 200)
    y, order = y + 2 * np.abs(y), [2, 0, 1]
    one = StackCandidate(DEFAULT).fit(matrices(columns, y, folds))
    other = StackCandidate(DEFAULT).fit(matrices(columns[:, order], y, folds))
    assert one.corrections[0] is not None
    y_pred = one.predict(columns[:, :, None])
    np.testing.assert_allclose(other.predict(columns[:, order, None]), y_pred, rtol=1e-9)
    np.testing.assert_allclose(one.predict(columns[5:6, :, None]), y_pred[5:6], rtol=1e-12)
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: 0)
    m = matrices(columns, y, folds)
    found = StackCandidate(DEFAULT).fit(m)
    assert found.corrections[0] is None
    np.testing.assert_array_equal(found.predict(m.preds), DEFAULT.fit(m).predict(m.preds))


def test_trees_see_the_columns_of_other_targets_in_whatever_order() -> None:
    rng = np.random.default_rng(0)
    truth, order = rng.normal(size=(500, 2)), [2, 0, 1]
    P, y = truth[:, None] + 0.3 * rng.normal(size=(500, 3, 2)), truth + np.abs(truth[:, ::-1]) * [1, 0]
    m = BlendData(P, y, rng.permutation(np.arange(500) % 5), METRICS["rmse"], trials=8)
    blend, stack = (cross_fitted(each, m) for each in (DEFAULT, StackCandidate(DEFAULT)))
    errors = [METRICS["rmse"](y[:, :1], y_pred[:, :1]) for y_pred in (blend, stack)]
    assert errors[1] < 0.9 * errors[0]
    one, other = (StackCandidate(DEFAULT).fit(each) for each in (m, replace(m, preds=P[:, order])))
    np.testing.assert_allclose(other.predict(P[:, order]), one.predict(P), rtol=1e-9)


# Classes: trees that start from the logits of the blend


def classes(problem_type: str, bent: bool = True, n: int = 600) -> BlendData:
    """Columns that know the logits of three classes, or of two, and where `bent` something else of the first."""
    rng, k = np.random.default_rng(3), 3 if problem_type == "multiclass" else 1
    truth = rng.normal(size=(n, k))
    P = truth[:, None] + 0.3 * rng.normal(size=(n, 3, k))
    truth[:, 0] += 5 * np.abs(truth[:, 0]) - 4 if bent else 0
    if k == 1:
        P, y = probabilities(P, "logistic"), (rng.logistic(size=(n, 1)) < truth).astype(float)
    else:
        P, y = probabilities(P, "softmax"), (truth + rng.gumbel(size=(n, k))).argmax(axis=1)[:, None].astype(float)
    folds = rng.permutation(np.arange(n) % 5)
    return BlendData(P, y, folds, METRICS["log_loss"], trials=8, has_probabilities=True)


@pytest.mark.parametrize("problem_type", ["binary", "multiclass"])
def test_the_trees_of_classes_start_from_the_blend_and_help_where_logits_bend(problem_type: str) -> None:
    default = CANDIDATES["shrunk_logits"]
    for bent in (True, False):
        m = classes(problem_type, bent)
        fitted = StackCandidate(default).fit(m)
        y_pred = fitted.predict(m.preds)
        blend, stack = (METRICS["log_loss"](m.y, cross_fitted(each, m)) for each in (default, StackCandidate(default)))
        assert stack < (0.95 if bent else 1.01) * blend
        if not bent:
            continue
        assert y_pred.min() >= 0 and (problem_type == "binary" or np.allclose(y_pred.sum(axis=1), 1))
        np.testing.assert_allclose(fitted.predict(m.preds[7:8]), y_pred[7:8], rtol=1e-12)
        stored = from_json(json.loads(json.dumps(to_json(fitted))))
        np.testing.assert_allclose(stored.predict(m.preds), y_pred, rtol=1e-12)
        swapped = replace(m, preds=m.preds[:, [1, 2, 0]])
        np.testing.assert_allclose(StackCandidate(default).fit(swapped).predict(swapped.preds), y_pred, rtol=1e-6)


def test_the_first_loss_of_the_trees_is_that_of_the_blend_as_lightgbm_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: seen.append(losses) or 0)
    monkeypatch.setitem(stacks.PARAMETERS, "learning_rate", 1e-9)
    for problem_type in ("binary", "multiclass"):
        StackCandidate(CANDIDATES["mean"]).fit(classes(problem_type))
        np.testing.assert_allclose(seen[-1][1], seen[-1][0], rtol=1e-6)


def test_a_label_without_positives_in_some_folds_is_left_as_the_blend_has_it() -> None:
    m = classes("binary", n=200)
    rare = np.where(np.arange(200) == 0, 1.0, 0.0)
    both = replace(m, preds=np.repeat(m.preds, 2, axis=2), y=np.column_stack([m.y[:, 0], rare]))
    fitted = StackCandidate(CANDIDATES["shrunk_logits"]).fit(both)
    assert np.isfinite(fitted.predict(both.preds)).all()
    assert fitted.only(np.array([False, False])).corrections == [None, None]
