"""Post-processing: steps by hand, used only where they help, and independent of the labels of the fold they
predict.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from competition.metrics import Metric
from submissions.blend.candidates import CANDIDATES
from submissions.blend.cross_fitting import cross_fit
from submissions.blend.postprocess import (
    STEPS,
    PostprocessChain,
    apply_steps,
    choose_steps,
    fit_steps,
    saved_steps,
)
from submissions.blend.serialization import serializable
from submissions.selection import cross_fit_procedure
from tests.submissions.blend.test_cross_fitting import blend_data, selection_rule
from tests.submissions.fakes import columns_like


@serializable
@dataclasses.dataclass(frozen=True)
class Shift:
    """A step that every label influences."""

    by: float

    def predict(self, y_pred: np.ndarray) -> np.ndarray:
        return y_pred + self.by


NAMES = [*STEPS, "shift"]


@pytest.fixture(autouse=True)
def _with_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS, "shift", lambda y_pred, y: Shift(float((y - y_pred).mean())))


def test_predictions_are_clipped_to_the_range_of_the_labels() -> None:
    steps = fit_steps(["clip"], np.zeros(3), np.array([1, 3, np.nan]))
    assert apply_steps(steps, np.array([-5.0, 2, 9])).tolist() == [1, 2, 3]


def test_each_step_is_fitted_on_the_output_of_the_step_before_it() -> None:
    steps = fit_steps(["clip", "shift"], np.array([0.0, 1, 9]), np.array([1.0, 3, 5]))
    assert apply_steps(steps, np.array([0.0, 7])).tolist() == pytest.approx([1 + 2 / 3, 5 + 2 / 3])
    assert fit_steps(NAMES, np.zeros(3), np.full(3, np.nan)) == {}  # no label, no step


def choose_on_five_folds(
    y_pred: np.ndarray, y: np.ndarray, names: list[str] = NAMES, metric: str = "rmse"
) -> PostprocessChain:
    return choose_steps(selection_rule(y, np.arange(len(y)) % 5, metric), names, y_pred[:, None])


def used_steps(chain: PostprocessChain) -> list[str]:
    return [result.step for result in chain.results[0] if result.kept]


def test_steps_are_not_used_if_the_labels_are_predictions_plus_noise() -> None:
    all_used_steps = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y_pred = rng.normal(size=200)
        chain = choose_on_five_folds(y_pred, y_pred + 0.5 * rng.normal(size=200))
        all_used_steps += used_steps(chain)
        if not used_steps(chain):
            np.testing.assert_array_equal(chain.apply(y_pred[:, None])[:, 0], y_pred)
            np.testing.assert_array_equal(chain.cross_fitted[:, 0], y_pred)
    assert len(all_used_steps) <= 4  # of 40, since the margin is one standard error


@pytest.mark.parametrize(("excess", "is_used"), [(0.01, False), (0.5, True)])
def test_a_gain_of_less_than_a_thousandth_is_too_small(excess: float, is_used: bool) -> None:
    """Clipping certainly improves predictions outside the range of the labels, but with few such rows very
    little.
    """
    y = np.tile(np.linspace(0, 1, 24), 20)
    error = np.where(np.arange(480) // 24 % 2, 0.1, -0.1)
    y_pred = y + np.where((y > 0.2) & (y < 0.8), error, 0.0) + np.where(y == 1, excess, 0.0)
    (result,) = choose_on_five_folds(y_pred, y, ["clip"]).results[0]
    assert result.score_without - result.score_with > 3 * result.standard_error
    assert result.kept == is_used


@pytest.mark.parametrize("metric", ["mae", "r2"])
def test_a_step_is_used_if_it_gains_more_than_the_margin(metric: str) -> None:
    sign = -1 if metric == "r2" else 1
    n_used = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y_pred = rng.normal(size=100)
        y = y_pred + 0.5 * rng.normal(size=100)
        (result,) = choose_on_five_folds(y_pred + 0.1, y, ["shift"], metric).results[0]
        gain = sign * (result.score_without - result.score_with) / result.standard_error
        assert result.kept == (gain > 1) == (result.fitted is not None)
        n_used += result.kept
    assert 0 < n_used < 40


def test_a_step_is_used_if_the_score_is_only_defined_with_it() -> None:
    def score(y: np.ndarray, y_pred: np.ndarray) -> float:
        return float(np.nanmean((y - y_pred) ** 2)) if (y_pred >= 0).all() else float("nan")

    y = np.random.default_rng(0).random(50)
    y_pred = y.copy()
    y_pred[7] = -0.01
    rule = dataclasses.replace(
        selection_rule(y, np.arange(50) % 5), metric=Metric("user", False, None, score)
    )
    assert used_steps(choose_steps(rule, ["clip"], y_pred[:, None])) == ["clip"]


def test_each_target_has_its_steps_and_missing_labels_are_ignored() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(300, 2))
    folds = np.arange(300) % 5
    y_pred = y + 0.3 * rng.normal(size=(300, 2)) + [0, 1]
    y[::4, 1] = np.nan
    chain = choose_steps(selection_rule(y, folds), ["shift"], y_pred)
    first, second = chain.results
    assert [result.kept for result in first] == [False]
    assert [result.kept for result in second] == [True]
    is_labelled = ~np.isnan(y[:, 1])
    rule = selection_rule(y[is_labelled, 1], folds[is_labelled])
    alone = choose_steps(rule, ["shift"], y_pred[is_labelled, 1:])
    assert second[0].to_dict()["fitted"] == alone.results[0][0].to_dict()["fitted"]


def test_labels_of_a_fold_change_no_step_and_no_prediction_made_without_it() -> None:
    preds, y, _ = columns_like("independent", 200)
    preds = preds + 1
    folds = np.arange(200) % 4
    fold = 1
    in_fold = folds == fold
    chains = []
    submissions = []
    for labels in (y, np.where(in_fold, 30 - 5 * y, y)):
        data = blend_data(preds, labels, folds)
        rule = selection_rule(labels, folds)
        predictions = {name: cross_fit(CANDIDATES[name], data) for name in ("mean", "convex", "shrunk_ridge")}
        y_pred, _ = cross_fit_procedure(rule, predictions, NAMES)
        submissions.append(y_pred)
        chains.append(choose_steps(rule.on_rows(~in_fold), NAMES, predictions["convex"].nested[fold]))
    before, after = submissions
    np.testing.assert_array_equal(before[in_fold], after[in_fold])
    assert (before[~in_fold] != after[~in_fold]).any()  # other rows do change
    chain_before, chain_after = chains
    assert "shift" in used_steps(chain_before)  # a step is used that labels influence
    assert str(chain_before.results) == str(chain_after.results)
    np.testing.assert_array_equal(chain_before.cross_fitted, chain_after.cross_fitted)


def test_the_rows_of_a_fold_are_corrected_by_steps_of_the_other_folds() -> None:
    folds = np.array([0, 0, 1, 1])
    y = np.array([0.0, 1.0, 2.0, 5.0])
    rule = selection_rule(y, folds, margin=0.0)
    chain = choose_steps(rule, ["clip"], np.array([-9.0, 9.0, 3.0, 4.0])[:, None])
    assert chain.cross_fitted[:, 0].tolist() == [2, 5, 1, 1]  # each fold in the range of the other one
    (result,) = chain.results[0]
    assert result.score_with == pytest.approx(np.sqrt((4 + 16 + 1 + 16) / 4))
    assert result.to_dict()["fitted"] == {"class": "Clip", "low": 0, "high": 5}


USER_STEPS = """
from __future__ import annotations
from dataclasses import dataclass
import numpy as np

@dataclass
class Root:
    low: float
    def predict(self, y_pred):
        return np.sqrt(np.maximum(y_pred, 0)) + self.low

def root(y_pred, y):
    assert not np.isnan(y).any()
    return Root(float(np.mean(y - np.sqrt(y_pred))))

def nothing(y_pred, y):
    return None
"""


def test_user_defined_steps_are_tested_like_steps_of_this_project(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USER_STEPS)
    y = np.random.default_rng(0).uniform(1, 9, 200)
    y[::9] = np.nan
    y_pred = (np.nan_to_num(y, nan=5.0) - 1) ** 2
    code_ref = f"{tmp_path}/mine.py:root"
    chain = choose_on_five_folds(y_pred, y, [f"{tmp_path}/mine.py:nothing", code_ref])
    assert used_steps(chain) == [code_ref]
    np.testing.assert_allclose(chain.apply(np.array([[9.0]])), [[4.0]])
    results = json.loads(json.dumps([result.to_dict() for result in chain.results[0]]))
    assert results[1]["step"] == "mine.py:root"  # without the folder
    steps = saved_steps(results, {"mine.py:root": code_ref})
    np.testing.assert_allclose(apply_steps(steps, np.array([9.0])), [4.0])
