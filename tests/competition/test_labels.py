"""Censored labels such as >100: read, counted, and masked or kept as bounds; classes are left alone."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.dataset import LOWER, UPPER, Dataset, read_rows
from competition.labels import describe_range
from competition.prepare import describe, prepare
from core.errors import ConfigError, DataError
from core.files import write_table
from tests.competition.small import write_small

TRAIN = [
    "id,SMILES,y,z",
    "a,CCO,1.5,1",
    "b,CCC,>100,2",
    "c,CCN,<= 0.1,3",
    "d,CCF, >=-2e1 ,4",
    "e,CCCl,,<5",
    "f,CCBr,2,6",
]
Z = {"auxiliary_targets": ["z"]}
NAN = float("nan")
Y = [1.5, NAN, NAN, NAN, NAN, 2.0]


def prepared(folder, train=TRAIN, **settings):
    """The prepared tables, and the training rows of the written one."""
    config = load_competition(str(write_small(folder, train, **settings)))
    tables = prepare(config)
    write_table(config.paths.train, tables.train)
    return tables, read_rows(config.paths.train, config.columns, labelled=True)


def test_censored_labels_are_missing_by_default_and_counted(tmp_path):
    tables, rows = prepared(tmp_path, **Z)
    np.testing.assert_array_equal(rows.y[:, 0], Y)
    assert rows.bounds is None
    line = (
        "WARNING: censored labels of train.csv: y 2 with >, 1 with <, z 0 with >, 1 with < (read as missing labels; "
        "networks can learn them with competition.censored: bound)"
    )
    assert line in describe(tables.report).splitlines()
    assert tables.report["n_censored"] == 3  # of the targets


def test_with_bound_they_are_bounds_of_the_rows_and_still_have_no_label(tmp_path):
    tables, rows = prepared(tmp_path, **Z, censored="bound")
    np.testing.assert_array_equal(rows.y[:, 0], Y)
    of_y = [[NAN, NAN], [100, NAN], [NAN, 0.1], [-20, NAN], [NAN, NAN], [NAN, NAN]]
    np.testing.assert_array_equal(rows.bounds[:, 0], of_y)
    np.testing.assert_array_equal(rows.bounds[:, 1, 1], [NAN, NAN, NAN, NAN, 5, NAN])
    np.testing.assert_array_equal(rows.take(np.array([2, 1])).bounds[:, 0], [[NAN, 0.1], [100, NAN]])
    assert "networks learn them as bounds; other stages and all scores" in describe(tables.report)


def test_a_row_has_a_label_by_a_target_by_an_auxiliary_one_or_by_a_bound():
    y, auxiliary, bounds = np.full((4, 1), NAN), np.full((4, 1), NAN), np.full((4, 2, 2), NAN)
    y[0], auxiliary[1], bounds[2, 0, 1] = 1, 2, 3
    rows = Dataset(list("abcd"), pd.DataFrame(), y)
    assert rows.is_labelled.tolist() == rows.has_any_label.tolist() == [True, False, False, False]
    rows = replace(rows, auxiliary=auxiliary, bounds=bounds)
    assert rows.has_any_label.tolist() == [True, True, True, False]


def test_an_extra_row_with_only_a_bound_trains_if_bounds_are_learned(tmp_path):
    (tmp_path / "more.csv").write_text("SMILES,y\nCCCCO,>3\nCCCCN,2\n")
    extra = {"extra_train": [{"file": "more.csv", "check_units": False}]}
    table = "id,SMILES,y a,CCO,1.5 b,CCC,2"
    masked, _ = prepared(tmp_path, table, **extra)
    assert masked.train["y"].tolist() == [1.5, 2, 2]
    assert "1 extra training rows from more.csv; left out: " in describe(masked.report)
    assert "censored labels of more.csv: y 1 with >, 0 with <" in describe(masked.report)
    bound, _ = prepared(tmp_path, table, censored="bound", **extra)
    np.testing.assert_array_equal(bound.train[f"{LOWER}y"], [NAN, NAN, 3, NAN])
    assert f"{UPPER}y" not in bound.train


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ("1,>", r"'y' has censored cells without a number: row 3 \(id 'b'\): '>'\. Write a number"),
        ("1,>NA", r"censored cells without a number: row 3 \(id 'b'\): '>NA'"),
        ("1,>inf", r"cells that are not finite numbers: row 3 \(id 'b'\)"),
        ("1,5>", r"cells that are not finite numbers: row 3 \(id 'b'\): '5>'"),
        (">1,5", r"'x' has cells that are not finite numbers: row 3 \(id 'b'\): '>1'"),
        ("1,<2", r"no label at all for y \(a censored one does not count\)"),
    ],
)
def test_a_sign_without_a_number_a_censored_input_and_no_other_label_are_refused(tmp_path, cells, words):
    table, test = ["id,SMILES,x,y", "a,CCO,1,>1.5", f"b,CCC,{cells}"], "id,SMILES,x t1,CCCC,1 t2,CCBr,2"
    for censored in ("mask", "bound"):
        with pytest.raises(DataError, match=words):
            prepared(tmp_path, table, test=test, numeric=["x"], censored=censored)


def test_classes_may_begin_with_a_sign_and_have_no_bounds(tmp_path):
    settings = {
        "train": "id,SMILES,y a,CCO,>30 b,CCC,<30 c,CCN,>30",
        "problem_type": "binary",
        "metric": "mcc",
    }
    tables, rows = prepared(tmp_path, **settings)
    assert rows.y[:, 0].tolist() == [1.0, 0.0, 1.0]  # <30 is the first in alphabetical order
    assert "censored" not in describe(tables.report)
    with pytest.raises(ConfigError, match="censored: bound is for regression, and problem_type is binary"):
        prepared(tmp_path, censored="bound", **settings)


def test_labels_over_many_powers_of_ten_are_described_but_not_those_that_only_come_near_zero():
    potencies = pd.Series([0.1, 1.0, 10.0, 1e5])
    assert describe_range("Ki", potencies).startswith("labels of Ki span 6.0 orders of magnitude; ")
    with_zero = pd.Series([0.0, 0.1, 1.0, 10.0, 1e5])
    assert describe_range("Ki", with_zero).startswith("labels of Ki span 6.0 orders of magnitude; ")
    for others in ([0.0, 0.0], [1e-5, 2.0, 3.0], [-0.1, 1.0, 1e5], [1.0, 10.0, 9e3]):
        assert describe_range("x", pd.Series(others)) == ""


def test_a_label_far_from_all_others_that_stands_for_a_missing_one_is_named_with_its_count():
    assert describe_range("T", pd.Series([20.5, -999, 31, -999])) == (
        "labels of T: 2 cells are -999; empty them if they are missing"
    )
    assert describe_range("T", pd.Series([-500.0, -999, 400])) == ""


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ([-1, 0, 1, -1, 1], "2 cells are -1; empty them"),
        ([0.0, -9, 2.5, 7, -9, -9], "3 cells are -9; empty them"),
        ([-999, 4000, -999, 20], "2 cells are -999; empty them"),  # though others are larger
        ([-1, 1, -1, 1], ""),
        ([-1, 0, -2, 1, -1], ""),
        ([-1, 0.5, 2], ""),
        ([-4, -4, 0, 1], ""),
    ],
)
def test_the_only_negative_label_of_several_rows_is_a_code_for_a_missing_one(labels, code):
    sentence = describe_range("y", pd.Series([*labels, NAN]))
    assert sentence.startswith(f"labels of y: {code}") if code else sentence == ""


def test_a_class_that_stands_for_a_missing_label_is_named_with_its_count(tmp_path):
    train = ["id,SMILES,y", "a,CCO,0", "b,CCC,-1", "c,CCN,1", "d,CCF,-1"]
    settings = {"problem_type": "multiclass", "classes": None, "metric": "accuracy"}
    tables, _ = prepared(tmp_path, train, **settings)
    assert (
        "WARNING: labels of y: 2 cells are -1; empty them if they are missing, and run new again"
        in describe(tables.report)
    )
