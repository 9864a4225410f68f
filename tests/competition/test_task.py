"""The names of outputs, and how they become the sample's columns."""

import numpy as np
import pandas as pd
import pytest

from competition.task import (
    class_names,
    class_numbers,
    from_submission_columns,
    match_columns,
    to_submission_columns,
)
from tests.folds.made import competition

ABC, COLUMNS = ["a", "b", "c"], {"submission_columns": ["A", "B", "C"]}
P = [[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]]
OF_CLASSES = {"A": [0.2, 0.5], "B": [0.7, 0.25], "C": [0.1, 0.25]}
BEST_TWO = [[0.5, 1, 0], [1, 0.5, 0]]  # one over the place
YES, TWO = ["no", "yes"], {"submission_columns": ["p0", "p1"]}
TARGETS = {"targets": ["y", "z"], "submission_columns": ["Y", "Z"]}


def task(problem_type, metric, classes, **roles):
    return competition(problem_type=problem_type, metric=metric, classes=classes, **roles).task


@pytest.mark.parametrize(
    ("task", "scored", "written"),
    [
        (task("regression", "rmse", []), [[1.5], [-2.0]], {"y": [1.5, -2.0]}),
        (task("binary", "roc_auc", YES), [[0.25], [1.0]], {"y": [0.25, 1]}),
        (task("binary", "log_loss", YES, **TWO), [[0.25], [1.0]], {"p0": [0.75, 0], "p1": [0.25, 1]}),
        (task("multiclass", "accuracy", ABC), [[2.0], [0.0]], {"y": ["c", "a"]}),
        (task("multiclass", "log_loss", ABC, **COLUMNS), P, OF_CLASSES),
        (task("multiclass", "map_at_2", ABC, **COLUMNS), P, OF_CLASSES),
        (task("multiclass", "f1_macro", ABC, **COLUMNS), [[2], [0]], {"A": [0, 1], "B": [0, 0], "C": [1, 0]}),
        (task("multiclass", "map_at_2", ABC), BEST_TWO, {"y": ["b a", "a b"]}),
        (task("multiclass", "map_at_5", ABC), [[0.5, 1, 1 / 3]], {"y": ["b a c"]}),
        (task("ordinal", "quadratic_kappa", ["1", "2", "5"]), [[2.0], [1.0]], {"y": ["5", "2"]}),
        (task("multilabel", "f1_micro", YES, **TARGETS), [[1, 0], [0, 1]], {"Y": ["yes", "no"], "Z": ["no", "yes"]}),
    ],
)  # fmt: skip
def test_what_is_scored_is_written_in_the_layout_of_the_sample_and_read_back(task, scored, written):
    table = to_submission_columns(task, np.array(scored))
    assert table.to_dict("list") == written
    np.testing.assert_array_equal(from_submission_columns(task, table.astype(str)), scored)


def test_ordinal_labels_and_predictions_are_shown_on_the_scale_of_levels_that_are_numbers():
    counted = np.array([[0.0], [0.5], [2.0], [np.nan]])
    stars = task("ordinal", "quadratic_kappa", ["1", "2", "5"])
    np.testing.assert_array_equal(stars.on_scale_of_levels(counted), [[1], [1.5], [5], [np.nan]])
    grades = task("ordinal", "quadratic_kappa", ["low", "middle", "high"])
    for other in (grades, task("regression", "rmse", [])):
        np.testing.assert_array_equal(other.on_scale_of_levels(counted), counted)


def test_of_equally_probable_classes_the_first_are_written():
    named = task("multiclass", "map_at_2", ABC)
    assert named.outputs == ["y=a", "y=b", "y=c"]
    assert to_submission_columns(named, np.array(P))["y"].tolist() == ["b a", "a b"]


def test_a_cell_that_no_submission_has_is_read_as_nan():
    names, numbers = (pd.DataFrame({"y": cells}) for cells in (["b", "d", ""], ["0.5", "yes", ""]))
    read = from_submission_columns(task("multiclass", "accuracy", ABC), names)
    np.testing.assert_array_equal(read, [[1], [np.nan], [np.nan]])
    read = from_submission_columns(task("binary", "roc_auc", YES), numbers)
    np.testing.assert_array_equal(read, [[0.5], [np.nan], [np.nan]])


@pytest.mark.parametrize(
    ("cells", "classes", "numbers", "unknown"),
    [
        (["1.0", " 0", "2", "", "NA"], ["0", "1"], [1, 0, np.nan, np.nan, np.nan], ["2"]),
        (["True", "false", "TRUE", "truth"], ["false", "true"], [1, 0, 1, np.nan], ["truth"]),
        (["Yes", "yes"], YES, [np.nan, 1], ["Yes"]),
    ],
)
def test_labels_are_distinguished_as_numbers_booleans_and_names(cells, classes, numbers, unknown):
    read, is_unknown = class_numbers(pd.Series(cells), classes)
    np.testing.assert_array_equal(read, numbers)
    assert np.array(cells)[is_unknown].tolist() == unknown


def test_classes_are_sorted_as_numbers_or_as_names_of_which_na_is_one():
    assert class_names(pd.DataFrame({"y": ["10", "9.0", "1.5", "9", ""]})) == ["1.5", "9", "10"]
    names = class_names(pd.DataFrame({"y": ["b", "a ", "NA"], "z": ["c", "nan", "b"]}))
    assert names == ["NA", "a", "b", "c"]


def test_a_column_may_have_a_name_of_three_letters_as_a_part_but_no_shorter_one():
    assert match_columns(("plow", "qmid"), ("low", "mid")) == {"plow": "low", "qmid": "mid"}
    assert match_columns(("plo", "qmi"), ("lo", "mi")) == {}
    assert match_columns(("0.0", "1.0", "p_2.00"), ("0", "1", "2")) == {"0.0": "0", "1.0": "1", "p_2.00": "2"}
    names = ("y_0.5", "y_1.0", "y_2.0")
    assert match_columns(names, names) == dict(zip(names, names, strict=True))
