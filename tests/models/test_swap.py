"""Columns that may change places: stages are trained in all orders and predict their mean."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import competition.pairs
from competition.dataset import FEATURE, Dataset
from competition.pairs import with_pair_features
from competition.swap import Swap
from competition.task import Task
from models.stage import Stage
from models.stages.gp import Gp
from models.stages.lightgbm import Lightgbm
from tests.models.made import build_stage, context, fitted, rows

SWAP = Swap(columns=[["u", "v"]], labels=["a", "b"])
TASK = Task(["w"], problem_type="multiclass", classes=["a", "b", "tie"])


IN_ANY_ORDER = Swap(columns=[["u", "v"]])


class Recorder(Stage):
    """Keeps what it is fitted on; predicts 1 for class a where u is larger, and for a tie where it is not."""

    kind: str = "recorder"
    seen: dict[str, Any] = {}

    def fit(self, train, folder, context):
        self.seen.update(train=train, context=context)

    def predict(self, rows, folder, context):
        return np.eye(3)[np.where(rows.inputs["u"] > rows.inputs["v"], 0, 2)]


def table(n=80):
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, n))
    winner = np.where(np.abs(u - v) < 0.4, 2, u < v).astype(float)
    return rows(winner, u=u, v=v)


def of_candidates(folder, **changes):
    return context(folder, task=TASK, numeric=["u", "v"], swap=SWAP, **changes)


def test_training_rows_are_there_in_both_orders_with_their_labels_group_weight_and_fold(tmp_path):
    train = Dataset(
        ["r", "s"], pd.DataFrame({"u": [1, 2], "v": [3, 4]}), np.array([[0.0], [2.0]]), np.array([1.0, 5.0])
    )
    stage = build_stage(Recorder(seen={}), of_candidates(tmp_path, fold_ids=np.array([3, 4])))
    stage.fit(train, tmp_path)
    seen = stage.stage.seen["train"]
    assert seen.inputs[["u", "v"]].to_numpy().tolist() == [[1, 3], [2, 4], [3, 1], [4, 2]]
    assert seen.y.ravel().tolist() == [0, 2, 1, 2]
    assert seen.groups.tolist() == [0, 1, 0, 1]
    assert seen.weights.tolist() == [1, 5, 1, 5]
    assert stage.stage.seen["context"].fold_ids.tolist() == [3, 4, 3, 4]
    assert len(train) == 2


OPTIONS = Swap(columns=[["u", "v", "w"]], labels=["a", "b", "c"])
OF_OPTIONS = Task(["x"], problem_type="multiclass", classes=["a", "b", "c"])


def of_options(folder, **changes):
    return context(folder, task=OF_OPTIONS, numeric=["u", "v", "w"], swap=OPTIONS, **changes)


def test_three_options_are_trained_on_in_three_orders_in_the_group_and_fold_of_their_row(tmp_path):
    inputs = pd.DataFrame({"u": [1, 4], "v": [2, 5], "w": [3, 6]})
    train = Dataset(["r", "s"], inputs, np.array([[0.0], [1.0]]), groups=np.array([7, 8]))
    stage = build_stage(Recorder(seen={}), of_options(tmp_path, fold_ids=np.array([3, 4])))
    stage.fit(train, tmp_path)
    seen = stage.stage.seen["train"]
    orders = [[1, 2, 3], [4, 5, 6], [2, 3, 1], [5, 6, 4], [3, 1, 2], [6, 4, 5]]
    assert seen.inputs.to_numpy().tolist() == orders
    right = seen.inputs.to_numpy()[np.arange(6), seen.y.ravel().astype(int)]
    assert right.tolist() == [1, 5] * 3
    assert seen.groups.tolist() == [7, 8] * 3
    assert stage.stage.seen["context"].fold_ids.tolist() == [3, 4] * 3


class FirstOrLargest(Recorder):
    """Gives the half of the probability to the first option, and the other half to the largest one."""

    def predict(self, rows, folder, context):
        largest = rows.inputs[["u", "v", "w"]].to_numpy().argmax(axis=1)
        return (np.eye(3)[largest] + [1, 0, 0]) / 2


def test_a_prediction_of_options_is_the_mean_of_all_orders_turned_back(tmp_path):
    """Whichever is the largest, each option is the first one once."""
    stage = build_stage(FirstOrLargest(seen={}), of_options(tmp_path))
    y_pred = stage.predict(rows(u=[1.0, 3.0], v=[2.0, 1.0], w=[3.0, 2.0]), tmp_path)
    np.testing.assert_allclose(y_pred, [[1 / 6, 1 / 6, 2 / 3], [2 / 3, 1 / 6, 1 / 6]])


def test_a_prediction_is_the_mean_of_both_orders(tmp_path):
    stage = build_stage(Recorder(seen={}), of_candidates(tmp_path))
    first_wins, second_wins = stage.predict(rows(u=[2.0, 1.0], v=[1.0, 2.0]), tmp_path)
    assert first_wins.tolist() == [0.5, 0, 0.5]
    assert second_wins.tolist() == [0, 0.5, 0.5]


def test_the_other_order_exchanges_the_probabilities(tmp_path):
    train = table()
    stage = fitted(
        Lightgbm(kind="lightgbm", features=[], max_trees=100),
        of_candidates(tmp_path),
        train,
        tmp_path / "m",
    )
    y_pred = stage.predict(train.without_labels(), tmp_path / "m")
    swapped = stage.predict(Dataset(train.ids, SWAP.inputs(train.inputs, 1), None), tmp_path / "m")
    np.testing.assert_allclose(swapped, y_pred[:, [1, 0, 2]], atol=1e-12)
    assert (y_pred.argmax(axis=1) == train.y[:, 0]).mean() > 0.7


def test_a_turn_of_the_options_turns_their_probabilities(tmp_path):
    u, v, w = numbers = np.random.default_rng(0).normal(size=(3, 80))
    train = rows(numbers.argmax(axis=0).astype(float), u=u, v=v, w=w)
    trees = Lightgbm(kind="lightgbm", features=[], max_trees=100)
    stage = fitted(trees, of_options(tmp_path), train, tmp_path / "m")
    y_pred = stage.predict(train.without_labels(), tmp_path / "m")
    turned = stage.predict(Dataset(train.ids, OPTIONS.inputs(train.inputs, 1), None), tmp_path / "m")
    np.testing.assert_allclose(turned, y_pred[:, [1, 2, 0]], atol=1e-12)
    assert (y_pred.argmax(axis=1) == train.y[:, 0]).mean() > 0.7


def test_what_texts_have_in_common_is_that_of_the_other_order(tmp_path):
    texts = pd.DataFrame({"prompt": ["a b c"], "u": ["a b"], "v": ["a"]})
    pairs = [["prompt", "u"], ["u", "v"]]
    train = Dataset(["r"], with_pair_features(texts, pairs), np.array([[0.0]]))
    stage = build_stage(
        Recorder(seen={}), context(tmp_path, task=TASK, text=["prompt", "u", "v"], pairs=pairs, swap=SWAP)
    )
    stage.fit(train, tmp_path)
    seen = stage.stage.seen["train"].inputs
    assert seen[f"{FEATURE}u and v: difference in words"].tolist() == [1, -1]
    assert seen[f"{FEATURE}prompt and u: difference in words"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("pairs", "n_compared"), [([["prompt", "u"], ["prompt", "v"], ["u", "v"]], 0), ([["prompt", "u"]], 3)]
)
def test_texts_are_compared_again_after_a_turn_only_where_no_pair_has_them(
    tmp_path, monkeypatch, pairs, n_compared
):
    prompts, first, second = ["a b 3", "", "c d e"], ["a", "b b b", ""], ["B b a 3", "", "c d e"]
    texts = pd.DataFrame({"prompt": prompts, "u": first, "v": second})
    expected = with_pair_features(IN_ANY_ORDER.inputs(texts, 1), pairs)
    inputs, compared = with_pair_features(texts, pairs), []
    compare = competition.pairs.compare_texts
    monkeypatch.setattr(
        "competition.pairs.compare_texts", lambda *both: compared.append(both) or compare(*both)
    )
    made = context(tmp_path, text=["prompt", "u", "v"], pairs=pairs, swap=IN_ANY_ORDER)
    stage = build_stage(Recorder(seen={}), made)
    stage.fit(Dataset(["r", "s", "t"], inputs, np.ones((3, 1))), tmp_path)
    turned = stage.stage.seen["train"].inputs[3:].reset_index(drop=True)
    pd.testing.assert_frame_equal(turned, expected)
    assert len(compared) == n_compared


class Ratio(Recorder):
    """Predicts u / v of one target, with the standard deviation u."""

    def predict(self, rows, folder, context):
        return rows.inputs["u"] / rows.inputs["v"]

    def predict_std(self, rows, folder, context):
        return rows.inputs["u"]


def test_numbers_of_columns_in_any_order_are_trained_on_with_the_same_labels_and_bounds(tmp_path):
    inputs = pd.DataFrame({"u": [1.0, 2.0], "v": [3.0, 4.0]})
    bounds = np.array([[[np.nan, np.nan]], [[5.0, np.nan]]])
    y, auxiliary = np.array([[7.0], [np.nan]]), np.array([[1.0], [2.0]])
    train = Dataset(["r", "s"], inputs, y, auxiliary=auxiliary, bounds=bounds)
    stage = build_stage(Recorder(seen={}), context(tmp_path, numeric=["u", "v"], swap=IN_ANY_ORDER))
    stage.fit(train, tmp_path)
    seen = stage.stage.seen["train"]
    assert seen.inputs.to_numpy().tolist() == [[1, 3], [2, 4], [3, 1], [4, 2]]
    np.testing.assert_array_equal(seen.y, np.vstack([y, y]))
    np.testing.assert_array_equal(seen.auxiliary, np.vstack([auxiliary, auxiliary]))
    np.testing.assert_array_equal(seen.bounds, np.vstack([bounds, bounds]))


def test_a_number_and_its_standard_deviation_are_means_of_both_orders(tmp_path):
    stage = build_stage(Ratio(seen={}), context(tmp_path, numeric=["u", "v"], swap=IN_ANY_ORDER))
    one = rows(u=[2.0], v=[4.0])
    assert stage.predict(one, tmp_path).tolist() == [[1.25]]
    assert stage.predict_std(one, tmp_path).tolist() == [[3.0]]


def test_the_order_of_two_molecules_has_no_effect_on_a_gaussian_process(tmp_path):
    molecules = np.array(["C" * n + "O" for n in range(1, 13)])
    first, second = np.random.default_rng(0).integers(12, size=(2, 40))
    train = rows((first + second) / 2, m=molecules[first], n=molecules[second])
    swap = Swap(columns=[["m", "n"]])
    stage_context = context(tmp_path, smiles=["m", "n"], swap=swap)
    stage = fitted(Gp(kind="gp", kernels=["ecfp4"]), stage_context, train, tmp_path / "m")
    test = train.without_labels()
    swapped = Dataset(test.ids, swap.inputs(test.inputs, 1), None)
    for method in (stage.predict, stage.predict_std):
        np.testing.assert_allclose(method(swapped, tmp_path / "m"), method(test, tmp_path / "m"))
