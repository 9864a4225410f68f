"""Post-processing: each step by hand, kept where it helps and only there, and blind to the fold that it predicts."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from competition.errors import ConfigError
from competition.metrics import METRICS, Metric
from submissions.blend.candidates import CANDIDATES
from submissions.blend.crossfit import cross_fit
from submissions.blend.postprocess import STEPS, Chain, apply_steps, choose_steps, fit_steps, stored_steps
from submissions.blend.stored import to_json
from submissions.config import load_config
from submissions.write import without_each_fold
from tests.submissions.blend.test_crossfit import matrices, rule
from tests.submissions.fakes import columns_like, fake_classes, with_setting

NAMES = list(STEPS)


def ids(n: int) -> np.ndarray:
    return np.array([f"input {i}" for i in range(n)])


def after(name: str, y_pred: list[float], y: list[float], new: list[float], inputs: list[str] | None = None) -> list:
    steps = fit_steps([name], np.array(y_pred), np.array(y), ids(len(y)))
    return apply_steps(steps, np.array(new), np.array(inputs or ids(len(new)))).tolist()


LEVELS = [1.0, 2.0, 4.0] * 10


@pytest.mark.parametrize(
    ("name", "y_pred", "y", "new", "expected"),
    [
        ("clip", [0, 0, 0], [1, 3, np.nan], [-5, 2, 9], [1, 2, 3]),
        ("shift_scale", [0, 1, 2], [1, 3, 5], [0, 10], [1, 21]),
        ("shift_scale", [2, 2], [3, 5], [2, 3], [4, 5]),  # equal predictions: a shift alone
        # labels 1, 3, 2 over 0, 1, 2 rise as 1, 2.5, 2.5; beyond the ends the function is constant
        ("isotonic", [0, 1, 2], [1, 3, 2], [-1, 0.5, 1.5, 7], [1, 1.75, 2.5, 2.5]),
        ("round", LEVELS, LEVELS, [0, 1.4, 1.5, 1.6, 3.1, 9], [1, 1, 1, 2, 4, 4]),
        ("round", LEVELS[:20], LEVELS[:20], [0, 1.4], [0, 1.4]),  # not ten rows for each
    ],
)
def test_each_step_by_hand(name: str, y_pred: list, y: list, new: list, expected: list) -> None:
    assert after(name, y_pred, y, new) == pytest.approx(expected)


def test_equal_inputs_get_the_mean_of_their_predictions_to_the_last_digit() -> None:
    assert after("average_equal_inputs", [0], [0], [1, 2, 6], ["a", "b", "a"]) == [3.5, 2, 3.5]
    assert after("average_equal_inputs", [0], [0], [0.1] * 3, ["a"] * 3) == [0.1] * 3


def test_each_step_is_fitted_on_what_the_one_before_it_makes() -> None:
    steps = fit_steps(["shift_scale", "clip"], np.array([0.0, 1, 2]), np.array([1.0, 3, 5]), ids(3))
    assert list(steps) == ["shift_scale", "clip"]
    assert apply_steps(steps, np.array([10.0]), ids(1)).tolist() == [5]
    assert fit_steps(NAMES, np.zeros(3), np.full(3, np.nan), ids(3)) == {}  # no label, nothing to fit


def chain_of(y_pred: np.ndarray, y: np.ndarray, names: list[str] = NAMES, metric: str = "rmse") -> Chain:
    folds = np.arange(len(y)) % 5
    return choose_steps(rule(y, folds, metric), names, y_pred[:, None], ids(len(y)), folds >= 0)


def kept(chain: Chain) -> list[str]:
    return [tried.step for tried in chain.tried[0] if tried.kept]


def test_steps_read_back_from_json_predict_the_same() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, 200).astype(float)
    y_pred, inputs = y + rng.normal(size=200), rng.choice(ids(150), 200)
    steps = fit_steps(NAMES, y_pred, y, inputs)
    stored = json.loads(json.dumps([{"step": name, "fitted": to_json(step)} for name, step in steps.items()]))
    assert len(stored) == len(NAMES)
    again = apply_steps(stored_steps(stored, dict(zip(NAMES, NAMES, strict=True))), y_pred, inputs)
    np.testing.assert_array_equal(again, apply_steps(steps, y_pred, inputs))


@pytest.mark.parametrize("metric", ["mae", "r2"])
def test_isotonic_is_kept_where_predictions_are_bent(metric: str) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400)
    (tried,) = chain_of(np.exp(truth), truth + 0.2 * rng.normal(size=400), ["isotonic"], metric).tried[0]
    assert tried.kept and tried.fitted is not None
    assert METRICS[metric].better(tried.score_with, tried.score_without)


def test_steps_are_not_kept_where_predictions_are_labels_and_noise() -> None:
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y_pred = rng.normal(size=200)
        chain = chain_of(y_pred, y_pred + 0.5 * rng.normal(size=200))
        found += kept(chain)
        if not kept(chain):
            np.testing.assert_array_equal(chain.apply(y_pred[:, None], ids(200))[:, 0], y_pred)
            np.testing.assert_array_equal(chain.cross_fitted[:, 0], y_pred)
    assert len(found) <= 6  # of 100; one standard error is not much


@pytest.mark.parametrize(("beyond", "is_kept"), [(0.01, False), (0.5, True)])
def test_a_gain_of_less_than_a_thousandth_keeps_no_step(beyond: float, is_kept: bool) -> None:
    """Predictions beyond the labels' range gain from being cut, each for sure and in sum next to nothing."""
    y = np.tile(np.linspace(0, 1, 24), 20)
    y_pred = y + np.where(np.arange(480) // 24 % 2, 0.1, -0.1) * (y > 0.2) * (y < 0.8) + beyond * (y == 1)
    (tried,) = chain_of(y_pred, y, ["clip"]).tried[0]
    assert tried.score_without - tried.score_with > 3 * tried.standard_error
    assert tried.kept == is_kept


def test_a_step_is_kept_where_it_gains_more_than_the_margin() -> None:
    kept = {"isotonic": 0, "shift_scale": 0}
    for name, seed in itertools.product(kept, range(40)):
        rng = np.random.default_rng(seed)
        y_pred = rng.normal(size=100)
        bent = np.sign(y_pred) * np.abs(y_pred) ** 1.4 if name == "isotonic" else 1.1 * y_pred
        (tried,) = chain_of(bent, y_pred + 0.5 * rng.normal(size=100), [name]).tried[0]
        clear = (tried.score_without - tried.score_with) / tried.standard_error
        assert tried.kept == (clear > 1)
        kept[name] += tried.kept
    assert all(0 < n < 40 for n in kept.values())


def test_a_score_that_is_defined_with_a_step_alone_keeps_it() -> None:
    def score(y: np.ndarray, y_pred: np.ndarray) -> float:
        return float(np.nanmean((y - y_pred) ** 2)) if (y_pred >= 0).all() else float("nan")

    y = np.random.default_rng(0).random(50)
    folds, y_pred = np.arange(50) % 5, y - 0.01 * (np.arange(50) == 7) - y * (np.arange(50) == 7)
    judged = dataclasses.replace(rule(y, folds), metric=Metric("own", False, None, score))
    assert kept(choose_steps(judged, ["clip"], y_pred[:, None], ids(50), folds >= 0)) == ["clip"]


def test_targets_have_steps_of_their_own_and_missing_labels_are_left_out() -> None:
    rng = np.random.default_rng(0)
    truth, folds = rng.normal(size=(300, 2)), np.arange(300) % 5
    y, y_pred = truth.copy(), truth + 0.3 * rng.normal(size=(300, 2))
    y[::4, 1] = np.nan
    y_pred[:, 1] = np.exp(y_pred[:, 1])
    found = choose_steps(rule(y, folds), ["isotonic"], y_pred, ids(300), folds >= 0)
    assert [[tried.kept for tried in of_target] for of_target in found.tried] == [[False], [True]]
    known = ~np.isnan(y[:, 1])
    judged = rule(y[known, 1], folds[known])
    alone = choose_steps(judged, ["isotonic"], y_pred[known, 1:], ids(225), judged.scored)
    assert found.tried[1][0].stored()["fitted"] == alone.tried[0][0].stored()["fitted"]


def test_labels_of_a_fold_change_no_step_and_no_prediction_that_is_made_without_it() -> None:
    columns, y, folds = columns_like("independent", 200)
    columns, folds, fold = np.exp(columns), np.arange(200) % 4, 1
    own, found = folds == fold, []
    for labels in (y, np.where(own, 30 - 5 * y, y)):
        m, judged = matrices(columns, labels, folds), rule(labels, folds)
        predictions = {name: cross_fit(CANDIDATES[name], m, 4) for name in ("mean", "convex", "shrunk_ridge")}
        y_pred, _ = without_each_fold(judged, predictions, NAMES, ids(200))
        chain = choose_steps(judged, NAMES, predictions["shrunk_ridge"].nested[fold], ids(200), ~own)
        found.append((y_pred, predictions["shrunk_ridge"].cross_fitted, chain))
    (before, plain, chain), (after_change, _, chain_after) = found
    np.testing.assert_array_equal(before[own], after_change[own])
    assert (before[~own] != after_change[~own]).any()  # the canary sings where it may
    assert (before[own] != plain[own]).any()  # and there is a step to hear it
    assert str(chain.tried) == str(chain_after.tried)
    np.testing.assert_array_equal(chain.cross_fitted, chain_after.cross_fitted)


def test_without_its_fold_a_row_is_corrected_by_steps_of_the_other_folds() -> None:
    folds, y = np.array([0, 0, 1, 1]), np.array([0.0, 1.0, 2.0, 5.0])
    judged = dataclasses.replace(rule(y, folds), margin=0.0)
    found = choose_steps(judged, ["clip"], np.array([-9.0, 9.0, 3.0, 4.0])[:, None], ids(4), folds >= 0)
    assert found.cross_fitted[:, 0].tolist() == [2, 5, 1, 1]  # each fold in the range of the other one
    assert found.tried[0][0].score_with == pytest.approx(np.sqrt((4 + 16 + 1 + 16) / 4))
    assert found.tried[0][0].stored()["fitted"] == {"class": "Clip", "low": 0, "high": 5}


OWN = """
from __future__ import annotations
from dataclasses import dataclass
import numpy as np

@dataclass
class Root:
    low: float
    def predict(self, y_pred, inputs):
        return np.sqrt(np.maximum(y_pred, 0)) + self.low

def root(y_pred, y):
    assert not np.isnan(y).any()
    return Root(float(np.mean(y - np.sqrt(y_pred))))

def nothing(y_pred, y):
    return None

def wrong(y_pred, y):
    return 3
"""


def test_a_step_of_the_users_own_is_tried_like_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    y = np.random.default_rng(0).uniform(1, 9, 200)
    y[::9] = np.nan
    y_pred, named = (np.nan_to_num(y, nan=5.0) - 1) ** 2, f"{tmp_path}/mine.py:root"
    chain = chain_of(y_pred, y, [f"{tmp_path}/mine.py:nothing", named])
    assert kept(chain) == [named]
    np.testing.assert_allclose(chain.apply(np.array([[9.0]]), ids(1)), [[4.0]])
    stored = json.loads(json.dumps([tried.stored() for tried in chain.tried[0]]))
    assert stored[1]["step"] == "mine.py:root"  # no folder of this machine
    steps = stored_steps(stored, {"mine.py:root": named})
    np.testing.assert_allclose(apply_steps(steps, np.array([9.0]), ids(1)), [4.0])
    with pytest.raises(ConfigError, match=r"mine\.py:wrong must return None or a dataclass"):
        chain_of(y_pred, y, [f"{tmp_path}/mine.py:wrong"])


@pytest.mark.parametrize(
    ("problem_type", "metric", "usual", "senseless"),
    [
        ("binary", "log_loss", ["average_equal_inputs"], "clip"),
        ("multilabel", "roc_auc", ["average_equal_inputs"], "round"),
        ("multiclass", "log_loss", [], "isotonic"),
        ("ordinal", "quadratic_kappa", [], "round"),
        ("binary", "mcc", [], "average_equal_inputs"),
    ],
)
def test_classes_have_steps_of_their_own_and_senseless_ones_are_refused(
    tmp_path: Path, problem_type: str, metric: str, usual: list[str], senseless: str
) -> None:
    path = fake_classes(tmp_path, problem_type, metric)
    assert load_config(str(path)).postprocess == usual
    with_setting(path, "submissions", postprocess=["known_labels"])
    assert load_config(str(path)).postprocess == ["known_labels"]
    with_setting(path, "submissions", postprocess=[senseless])
    with pytest.raises(ConfigError, match=rf"submissions\.postprocess: {senseless} is not for .*; leave it out"):
        load_config(str(path))
