"""Post-processing: each step by hand, kept where it helps and only there, and blind to the fold that it predicts."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from competition.metrics import Metric
from submissions.blend.candidates import CANDIDATES
from submissions.blend.cross_fitting import cross_fit
from submissions.blend.postprocess import STEPS, PostprocessChain, apply_steps, choose_steps, fit_steps, saved_steps
from submissions.blend.serialization import serializable
from submissions.selection import cross_fit_procedure
from tests.submissions.blend.test_cross_fitting import matrices, rule
from tests.submissions.fakes import columns_like


@serializable
@dataclasses.dataclass(frozen=True)
class Shift:
    """A step that every label moves."""

    by: float

    def predict(self, y_pred: np.ndarray) -> np.ndarray:
        return y_pred + self.by


NAMES = [*STEPS, "shift"]


@pytest.fixture(autouse=True)
def _with_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS, "shift", lambda y_pred, y: Shift(float((y - y_pred).mean())))


def test_predictions_are_cut_to_the_range_of_the_labels() -> None:
    steps = fit_steps(["clip"], np.zeros(3), np.array([1, 3, np.nan]))
    assert apply_steps(steps, np.array([-5.0, 2, 9])).tolist() == [1, 2, 3]


def test_each_step_is_fitted_on_what_the_one_before_it_makes() -> None:
    steps = fit_steps(["clip", "shift"], np.array([0.0, 1, 9]), np.array([1.0, 3, 5]))
    assert apply_steps(steps, np.array([0.0, 7])).tolist() == pytest.approx([1 + 2 / 3, 5 + 2 / 3])
    assert fit_steps(NAMES, np.zeros(3), np.full(3, np.nan)) == {}  # no label, nothing to fit


def chain_of(y_pred: np.ndarray, y: np.ndarray, names: list[str] = NAMES, metric: str = "rmse") -> PostprocessChain:
    folds = np.arange(len(y)) % 5
    return choose_steps(rule(y, folds, metric), names, y_pred[:, None], folds >= 0)


def kept(chain: PostprocessChain) -> list[str]:
    return [tried.step for tried in chain.results[0] if tried.kept]


def test_steps_are_not_kept_where_predictions_are_labels_and_noise() -> None:
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y_pred = rng.normal(size=200)
        chain = chain_of(y_pred, y_pred + 0.5 * rng.normal(size=200))
        found += kept(chain)
        if not kept(chain):
            np.testing.assert_array_equal(chain.apply(y_pred[:, None])[:, 0], y_pred)
            np.testing.assert_array_equal(chain.cross_fitted[:, 0], y_pred)
    assert len(found) <= 4  # of 40; one standard error is not much


@pytest.mark.parametrize(("beyond", "is_kept"), [(0.01, False), (0.5, True)])
def test_a_gain_of_less_than_a_thousandth_keeps_no_step(beyond: float, is_kept: bool) -> None:
    """Predictions beyond the labels' range gain from being cut, each for sure and in sum next to nothing."""
    y = np.tile(np.linspace(0, 1, 24), 20)
    y_pred = y + np.where(np.arange(480) // 24 % 2, 0.1, -0.1) * (y > 0.2) * (y < 0.8) + beyond * (y == 1)
    (tried,) = chain_of(y_pred, y, ["clip"]).results[0]
    assert tried.score_without - tried.score_with > 3 * tried.standard_error
    assert tried.kept == is_kept


@pytest.mark.parametrize("metric", ["mae", "r2"])
def test_a_step_is_kept_where_it_gains_more_than_the_margin(metric: str) -> None:
    n_kept = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y_pred = rng.normal(size=100)
        (tried,) = chain_of(y_pred + 0.1, y_pred + 0.5 * rng.normal(size=100), ["shift"], metric).results[0]
        clear = (tried.score_without - tried.score_with) * (-1 if metric == "r2" else 1) / tried.standard_error
        assert tried.kept == (clear > 1) == (tried.fitted is not None)
        n_kept += tried.kept
    assert 0 < n_kept < 40


def test_a_score_that_is_defined_with_a_step_alone_keeps_it() -> None:
    def score(y: np.ndarray, y_pred: np.ndarray) -> float:
        return float(np.nanmean((y - y_pred) ** 2)) if (y_pred >= 0).all() else float("nan")

    y = np.random.default_rng(0).random(50)
    folds, y_pred = np.arange(50) % 5, y - 0.01 * (np.arange(50) == 7) - y * (np.arange(50) == 7)
    judged = dataclasses.replace(rule(y, folds), metric=Metric("own", False, None, score))
    assert kept(choose_steps(judged, ["clip"], y_pred[:, None], folds >= 0)) == ["clip"]


def test_targets_have_steps_of_their_own_and_missing_labels_are_left_out() -> None:
    rng = np.random.default_rng(0)
    truth, folds = rng.normal(size=(300, 2)), np.arange(300) % 5
    y, y_pred = truth.copy(), truth + 0.3 * rng.normal(size=(300, 2)) + [0, 1]
    y[::4, 1] = np.nan
    found = choose_steps(rule(y, folds), ["shift"], y_pred, folds >= 0)
    assert [[tried.kept for tried in of_target] for of_target in found.results] == [[False], [True]]
    known = ~np.isnan(y[:, 1])
    judged = rule(y[known, 1], folds[known])
    alone = choose_steps(judged, ["shift"], y_pred[known, 1:], judged.has_fold)
    assert found.results[1][0].to_dict()["fitted"] == alone.results[0][0].to_dict()["fitted"]


def test_labels_of_a_fold_change_no_step_and_no_prediction_that_is_made_without_it() -> None:
    columns, y, folds = columns_like("independent", 200)
    columns, folds, fold = columns + 1, np.arange(200) % 4, 1
    own, found = folds == fold, []
    for labels in (y, np.where(own, 30 - 5 * y, y)):
        m, judged = matrices(columns, labels, folds), rule(labels, folds)
        predictions = {name: cross_fit(CANDIDATES[name], m) for name in ("mean", "convex", "shrunk_ridge")}
        y_pred, _ = cross_fit_procedure(judged, predictions, NAMES)
        chain = choose_steps(judged, NAMES, predictions["convex"].nested[fold], ~own)
        found.append((y_pred, chain))
    (before, chain), (after_change, chain_after) = found
    np.testing.assert_array_equal(before[own], after_change[own])
    assert (before[~own] != after_change[~own]).any()  # the canary sings where it may
    assert "shift" in kept(chain)  # and there is a step to hear it
    assert str(chain.results) == str(chain_after.results)
    np.testing.assert_array_equal(chain.cross_fitted, chain_after.cross_fitted)


def test_without_its_fold_a_row_is_corrected_by_steps_of_the_other_folds() -> None:
    folds, y = np.array([0, 0, 1, 1]), np.array([0.0, 1.0, 2.0, 5.0])
    judged = dataclasses.replace(rule(y, folds), margin=0.0)
    found = choose_steps(judged, ["clip"], np.array([-9.0, 9.0, 3.0, 4.0])[:, None], folds >= 0)
    assert found.cross_fitted[:, 0].tolist() == [2, 5, 1, 1]  # each fold in the range of the other one
    assert found.results[0][0].score_with == pytest.approx(np.sqrt((4 + 16 + 1 + 16) / 4))
    assert found.results[0][0].to_dict()["fitted"] == {"class": "Clip", "low": 0, "high": 5}


OWN = """
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


def test_a_step_of_the_users_own_is_tried_like_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    y = np.random.default_rng(0).uniform(1, 9, 200)
    y[::9] = np.nan
    y_pred, named = (np.nan_to_num(y, nan=5.0) - 1) ** 2, f"{tmp_path}/mine.py:root"
    chain = chain_of(y_pred, y, [f"{tmp_path}/mine.py:nothing", named])
    assert kept(chain) == [named]
    np.testing.assert_allclose(chain.apply(np.array([[9.0]])), [[4.0]])
    stored = json.loads(json.dumps([tried.to_dict() for tried in chain.results[0]]))
    assert stored[1]["step"] == "mine.py:root"  # no folder of this machine
    steps = saved_steps(stored, {"mine.py:root": named})
    np.testing.assert_allclose(apply_steps(steps, np.array([9.0])), [4.0])
