"""Columns that may change places: two candidates and their labels, or two of one role."""

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.dataset import INPUT_KEY
from competition.swap import Swap
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
    swapped = swap("a", "b").inputs(table)
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
    np.testing.assert_array_equal(swap("a", "b").y(np.array(y, float), task), np.array(swapped_y, float))
    np.testing.assert_allclose(swap("b", "a").y_pred(np.array(y_pred), task), swapped_y_pred)


@pytest.mark.parametrize(
    "task",
    [Task(["y", "z"]), Task(["w"], problem_type="binary", classes=["a", "b"])],
    ids=["numbers", "binary"],
)
def test_without_labels_all_of_them_stay_the_same(task):
    swap = Swap(columns=[["u", "v"]])
    numbers = np.array([[0.0, 1.0], [np.nan, 0.0]])[:, : len(task.targets)]
    np.testing.assert_array_equal(swap.y(numbers, task), numbers)
    np.testing.assert_array_equal(swap.y_pred(numbers, task), numbers)


@pytest.mark.parametrize("problem_type", ["regression", "ordinal"])
def test_columns_may_change_places_without_labels_for_every_type_of_problem(tmp_path, problem_type):
    settings = {**SETTINGS, "swap": {"columns": SETTINGS["swap"]["columns"]}, "submission_columns": None}
    settings |= {"problem_type": problem_type, "auxiliary_targets": ["z"]}
    settings["metric"] = "rmse" if problem_type == "regression" else "accuracy"
    config = load_competition(str(write_small(tmp_path, TRAIN, TEST, SAMPLE, **settings)))
    assert config.swap.labels is None


def test_rows_that_differ_only_in_the_order_of_the_candidates_have_equal_inputs(tmp_path):
    tables = prepared(tmp_path, TRAIN, TEST, SAMPLE, **SETTINGS)
    keys = [*tables.train[INPUT_KEY], *tables.test[INPUT_KEY]]
    assert keys[0] == keys[1] == keys[4]
    assert len({*keys}) == 3
    tables = prepared(tmp_path, TRAIN, TEST, SAMPLE, **{**SETTINGS, "swap": None})
    assert tables.train[INPUT_KEY].is_unique


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": [["one_a", "two_b"]]}, "not two input columns of one role"),
        ({"columns": [["one_a", "one_c"]]}, "not two input columns of one role"),
        ({"columns": [["one_a", "one_b"], ["one_b", "one_a"]]}, "'one_a' is in several pairs"),
        ({"labels": ["a", "c"]}, "must be two of a, b, tie"),
        ({"labels": ["a", "a"]}, "duplicates"),
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
