"""Shares of classes by fold, and which classes a fold or its models lack."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from folds.make import labels_or_indicators, missing_class_warnings
from tests.competition.small import write_small
from tests.folds.made import divided

NAN = np.nan


def test_shares_are_of_each_class_or_of_the_second_of_two_among_the_rows_with_a_label() -> None:
    y = pd.DataFrame({"y": [0, 1, 2, 2, NAN]})
    assert labels_or_indicators(y, list("abc")).mean().to_dict() == {"y=a": 0.25, "y=b": 0.25, "y=c": 0.5}
    two = pd.DataFrame({"y": [0, 1, 1, NAN], "z": [NAN, NAN, 0, 1]})
    assert labels_or_indicators(two, ["no", "yes"]).mean().to_dict() == {
        "y=yes": pytest.approx(2 / 3),
        "z=yes": 0.5,
    }
    assert labels_or_indicators(two, []) is two
    many = pd.DataFrame({"y": np.repeat(range(20), range(1, 21)).astype(float)})
    assert list(labels_or_indicators(many, [f"c{i}" for i in range(20)])) == [
        f"y=c{i}" for i in range(12)
    ]  # the rarest


def test_classes_that_a_fold_or_its_models_do_not_have_are_reported() -> None:
    y, folds = pd.DataFrame({"y": [0, 0, 0, 1, 1, 2, NAN, 0, 1.0]}), np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    assert missing_class_warnings(y, list("abc"), folds) == [
        "y: some folds have no row of 'c' (1 rows); their scores ignore these classes",
        "y: no row of 'c' trains the models of fold 2",
    ]
    always = np.where(y["y"] == 2, -1, folds)  # such rows train in every fold
    more = pd.concat([y, pd.DataFrame({"y": [2.0]})])  # a row of extra_train
    assert (
        len(missing_class_warnings(y, list("abc"), always))
        == len(missing_class_warnings(more, list("abc"), folds))
        == 1
    )
    assert missing_class_warnings(y, [], folds) == []
    assert missing_class_warnings(y[y["y"] != 2], ["a", "b"], folds[y["y"] != 2]) == []


def test_one_class_alone_in_the_rows_that_train_a_label_is_reported_and_blocks_in_time_train_on_earlier_ones() -> (
    None
):
    y = pd.DataFrame({"a": [0, 1, 0, 1], "b": [0, 0, 1, NAN]})
    folds = np.array([0, 0, 1, 1])
    assert missing_class_warnings(y, ["0", "1"], folds)[1:] == [
        "b: no row of '0' trains the models of fold 0",
        "b: no row of '1' trains the models of fold 1",
    ]
    in_time = missing_class_warnings(y[["a"]], ["0", "1"], np.array([-1, 0, 0, 1]), time_ordered=True)
    assert in_time[1:] == ["a: no row of '1' trains the models of fold 0"]


def test_the_table_of_folds_shows_classes(tmp_path: Path) -> None:
    labels = ["no", "yes", "yes", "no", "yes", "rare"]
    smiles = ["CCO", "CCC", "CCN", "c1ccccc1", "CC(=O)O", "CCCl"]
    lines = [f"{i},{s},{y}" for i, s, y in zip("abcdef", smiles, labels, strict=True)]
    path = write_small(tmp_path, ["id,SMILES,y", *lines], problem_type="multiclass", metric="accuracy")
    output, _, _ = divided(path, kind="stratified")
    assert "some folds have no row of 'no' (2 rows), 'rare' (1 rows)" in output
    (line,) = [line.split() for line in output.splitlines() if line.startswith("share of y=yes")]
    assert [float(share) for share in line[3:]] == [0.5, 0.5, 0.5]
