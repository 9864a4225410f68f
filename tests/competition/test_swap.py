"""Columns that may change places: candidates and their labels, or several of one role."""

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.dataset import INPUT_KEY
from competition.swap import Swap, in_all_orders
from competition.task import Task
from core.errors import ConfigError
from folds.groups import cluster_keys, connected, scaffold_keys
from folds.unit_values import group_keys
from tests.competition.small import prepared, write_small

TRAIN = ["id,one_a,one_b,two_a,two_b,y", "r1,p,q,1,2,a", "r2,q,p,2,1,b", "r3,p,q,2,1,tie", "r4,p,p,1,1,a"]
TEST = ["id,one_a,one_b,two_a,two_b", "t1,q,p,2,1"]
SAMPLE = ["id,a,b,tie", "t1,0,0,0"]
SETTINGS = {
    "smiles": None, "text": ["one_a", "one_b"], "numeric": ["two_a", "two_b"], "problem_type": "multiclass",
    "submission_columns": ["a", "b", "tie"], "metric": "log_loss",
    "swap": {"columns": [["one_a", "one_b"], ["two_a", "two_b"]], "labels": ["a", "b"]},
}  # fmt: skip


def swap(*labels):
    return Swap(columns=[["u", "v"]], labels=labels)


def test_only_the_columns_of_the_candidates_change_places():
    table = pd.DataFrame({"prompt": ["p", "q"], "u": [1, 2], "v": [3, 4]})
    swapped = swap("a", "b").inputs(table, 1)
    assert list(swapped) == list(table)
    assert swapped.to_dict("list") == {"prompt": ["p", "q"], "u": [3, 4], "v": [1, 2]}


@pytest.mark.parametrize(
    ("task", "y", "swapped_y", "y_pred", "swapped_y_pred"),
    [
        (Task(["w"], problem_type="binary", classes=["b", "a"]), [[0], [1], [np.nan]], [[1], [0], [np.nan]],
         [[0.2]], [[0.8]]),
        (Task(["w"], problem_type="multiclass", classes=["a", "tie", "b"]), [[0], [1], [2], [np.nan]],
         [[2], [1], [0], [np.nan]], [[0.2, 0.5, 0.3]], [[0.3, 0.5, 0.2]]),
        (Task(["a", "tie", "b"], problem_type="multilabel", classes=["0", "1"]), [[1, 0, np.nan]], [[np.nan, 0, 1]],
         [[0.2, 0.5, 0.3]], [[0.3, 0.5, 0.2]]),
    ],
    ids=["binary", "multiclass", "multilabel"],
)  # fmt: skip
def test_labels_and_probabilities_of_the_candidates_change_places_and_ties_stay(
    task, y, swapped_y, y_pred, swapped_y_pred
):
    np.testing.assert_array_equal(swap("a", "b").y(np.array(y, float), task, 1), np.array(swapped_y, float))
    np.testing.assert_allclose(swap("b", "a").y_pred(np.array(y_pred), task, 1), swapped_y_pred)


OPTIONS = Swap(columns=[["u", "v", "w"], ["m", "n", "o"]], labels=["a", "b", "c"])


@pytest.mark.parametrize(
    ("turn", "moved"), [(0, [1, 2, 3, 4, 5, 6]), (1, [2, 3, 1, 5, 6, 4]), (2, [3, 1, 2, 6, 4, 5])]
)
def test_a_turn_moves_options_to_the_front_and_the_first_ones_to_the_end(turn, moved):
    table = pd.DataFrame([[0, 1, 2, 3, 4, 5, 6]], columns=["prompt", *"uvwmno"])
    assert OPTIONS.inputs(table, turn).to_dict("list") == dict(
        zip(table, ([number] for number in [0, *moved]), strict=True)
    )


@pytest.mark.parametrize(("turn", "turned_y"), [(0, [0, 1, 2, 3]), (1, [2, 0, 1, 3]), (2, [1, 2, 0, 3])])
def test_the_class_of_an_option_moves_with_it_and_its_probability_moves_back(turn, turned_y):
    """After a turn by 1 the option that was the second one is the first one."""
    task = Task(["x"], problem_type="multiclass", classes=["a", "b", "c", "none"])
    y = np.arange(4.0)[:, None]
    assert OPTIONS.y(y, task, turn).ravel().tolist() == turned_y
    after = {0: [0.1, 0.2, 0.3, 0.4], 1: [0.2, 0.3, 0.1, 0.4], 2: [0.3, 0.1, 0.2, 0.4]}[turn]
    np.testing.assert_array_equal(OPTIONS.y_pred(np.array([after]), task, turn), [[0.1, 0.2, 0.3, 0.4]])


def test_several_targets_of_options_move_like_their_columns():
    task = Task(["a", "none", "b", "c"], problem_type="multilabel", classes=["0", "1"])
    y = np.array([[1, 0, np.nan, 2.0]])
    np.testing.assert_array_equal(OPTIONS.y(y, task, 1), [[np.nan, 0, 2, 1]])
    np.testing.assert_array_equal(OPTIONS.y_pred(OPTIONS.y(y, task, 2), task, 2), y)


def test_columns_are_followed_by_those_that_take_their_place_in_any_order():
    assert in_all_orders(("u", "x"), OPTIONS) == [("u", "x"), ("v", "x"), ("w", "x")]
    assert in_all_orders(("x",), OPTIONS) == [("x",)]
    assert in_all_orders(("u",), None) == [("u",)]


@pytest.mark.parametrize(
    "task",
    [Task(["y", "z"]), Task(["w"], problem_type="binary", classes=["a", "b"])],
    ids=["numbers", "binary"],
)
def test_without_labels_all_of_them_stay_the_same(task):
    swap = Swap(columns=[["u", "v"]])
    numbers = np.array([[0.0, 1.0], [np.nan, 0.0]])[:, : len(task.targets)]
    np.testing.assert_array_equal(swap.y(numbers, task, 1), numbers)
    np.testing.assert_array_equal(swap.y_pred(numbers, task, 1), numbers)


@pytest.mark.parametrize("problem_type", ["regression", "ordinal"])
def test_columns_may_change_places_without_labels_for_every_type_of_problem(tmp_path, problem_type):
    settings = {**SETTINGS, "swap": {"columns": SETTINGS["swap"]["columns"]}, "submission_columns": None}
    settings |= {"problem_type": problem_type, "auxiliary_targets": ["z"]}
    settings["metric"] = "rmse" if problem_type == "regression" else "accuracy"
    config = load_competition(str(write_small(tmp_path, TRAIN, TEST, SAMPLE, **settings)))
    assert config.swap.labels is None


def test_classes_that_no_order_changes_are_said(tmp_path):
    swaps = SETTINGS["swap"], {"columns": SETTINGS["swap"]["columns"]}
    reports = [prepared(tmp_path, TRAIN, TEST, SAMPLE, **{**SETTINGS, "swap": each}).report for each in swaps]
    line = "swap has no labels: a row keeps its class in each order of its columns"
    assert [line in report["said"] for report in reports] == [False, True]


def test_rows_that_differ_only_in_the_order_of_the_candidates_have_equal_inputs(tmp_path):
    tables = prepared(tmp_path, TRAIN, TEST, SAMPLE, **SETTINGS)
    keys = [*tables.train[INPUT_KEY], *tables.test[INPUT_KEY]]
    assert keys[0] == keys[1] == keys[4]
    assert len({*keys}) == 3
    tables = prepared(tmp_path, TRAIN, TEST, SAMPLE, **{**SETTINGS, "swap": None})
    assert tables.train[INPUT_KEY].is_unique


def test_options_in_any_order_are_equal_inputs_if_each_keeps_its_number(tmp_path):
    """The second row is no turn of the first one; in the third one two options have changed their numbers."""
    rows = ["r1,p,q,s,1,2,3,a", "r2,q,p,s,2,1,3,b", "r3,p,q,s,2,1,3,a", "r4,s,p,q,3,1,2,b"]
    settings = {
        "smiles": None, "text": [*"uvw"], "numeric": [*"mno"], "problem_type": "multiclass", "metric": "log_loss",
        "submission_columns": [*"abc"], "classes": [*"abc"],
        "swap": {"columns": [[*"uvw"], [*"mno"]], "labels": [*"abc"]},
    }  # fmt: skip
    head = "id,u,v,w,m,n,o"
    tables = prepared(
        tmp_path,
        [f"{head},y", *rows, "r5,x,y,z,1,2,3,c"],
        [head, "t1,s,q,p,3,2,1"],
        ["id,a,b,c", "t1,0,0,0"],
        **settings,
    )
    keys = [*tables.train.sort_values("id")[INPUT_KEY], *tables.test[INPUT_KEY]]
    assert keys[0] == keys[1] == keys[3] == keys[5]
    assert len({*keys}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": [["one_a", "two_b"]]}, "are not input columns of one role"),
        ({"columns": [["one_a", "one_c"]]}, "are not input columns of one role"),
        ({"columns": [["one_a", "one_b"], ["one_b", "one_a"]]}, "'one_a' is in several lists"),
        ({"labels": ["a", "c"]}, "must be 2 of a, b, tie"),
        ({"labels": ["a", "a"]}, "duplicates"),
        ({"labels": ["a", "b", "tie"]}, "must be 2 of a, b, tie"),
        ({"columns": [["one_a"]]}, "at least 2"),
    ],
)
def test_what_cannot_change_places_is_an_error(tmp_path, changes, message):
    settings = {**SETTINGS, "swap": {**SETTINGS["swap"], **changes}}
    with pytest.raises(ConfigError, match=message):
        load_competition(str(write_small(tmp_path, TRAIN, TEST, SAMPLE, **settings)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problem_type": "ordinal", "submission_columns": ["y"], "metric": "accuracy"}, "labels requires classes"),
        ({"text": ["one_a", "one_b", "id3"], "swap": {"columns": [["two_a", "two_b"], ["one_a", "one_b", "id3"]]}},
         "must be 2 columns, like"),
        ({"features": "mine.py:numbers"}, "features are not known in the other order"),
        ({"auxiliary_targets": ["z"]}, "auxiliary_targets are not known in the other order"),
    ],
)  # fmt: skip
def test_a_swap_is_refused_beside_what_does_not_know_of_it(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        load_competition(str(write_small(tmp_path, TRAIN, TEST, SAMPLE, **{**SETTINGS, **settings})))


MOLECULES = [
    "id,m_a,m_b,y",
    "r1,c1ccccc1C,C1CCCCC1,a",
    "r2,C1CCCCC1,CCO,b",
    "r3,CCCCCC,C1CCNC1,a",
    "r4,C1CCNC1,CC,b",
]


@pytest.mark.parametrize(
    ("keys", "group"), [(scaffold_keys, None), (cluster_keys, None), (group_keys, {"scaffold": "m_a"})]
)
def test_a_scaffold_of_one_candidate_ties_rows_in_which_the_other_one_has_it(tmp_path, keys, group):
    """Both molecules are read in both places, so a fold apart would not be new to the model."""
    settings = {
        "smiles": ["m_a", "m_b"], "problem_type": "binary", "metric": "roc_auc", "group": group,
        "swap": {"columns": [["m_a", "m_b"]], "labels": ["a", "b"]},
    }  # fmt: skip
    test = ["id,m_a,m_b", "t1,CCN,CCC"]
    tables = prepared(tmp_path, MOLECULES, test, ["id,y", "t1,0"], **settings)
    config = load_competition(str(tmp_path / "small.yaml"))
    rows = tables.train.set_index("id", drop=False).loc[["r1", "r2", "r3", "r4"]].reset_index(drop=True)
    tied = connected(np.array([list(each) for each in keys(rows, config, 0.4, 4)]))
    assert tied[0] == tied[1] and tied[2] == tied[3] and tied[0] != tied[2]
