"""Intervals around labels, in which a prediction has no error: the score st_rae, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.config import load_competition
from competition.errors import ConfigError, DataError
from competition.files import read_text_table
from competition.intervals import Intervals, read_intervals
from competition.metrics import METRICS
from competition.prepare import Prepared, describe, prepare
from tests.competition.small import write_small

RAE = METRICS["rae"]
TRAIN = ["id,SMILES,y,low,high", "a,CCO,0,-1,1", "b,CCC,2,,", "c,CCN,4,3,6", "d,CCF,,1,2", "e,CCCl,>9,1,2"]
Y_PRED = np.array([[2.0], [3.0], [5.0], [7.0], [7.0]])


def prepared(folder: Path, train: Any = TRAIN, **settings: Any) -> Prepared:
    intervals = {"intervals": {"y": ["low", "high"]}, "metric": "rae"}
    return prepare(load_competition(str(write_small(folder, train, **{**intervals, **settings}))))


def intervals_of(folder: Path, **settings: Any) -> Intervals:
    prepared(folder, **settings)
    table = read_text_table(folder / "train.csv")
    return read_intervals(table, load_competition(str(folder / "small.yaml")), "train.csv")


def test_a_prediction_has_its_distance_to_the_interval_as_its_error(tmp_path: Path) -> None:
    intervals = intervals_of(tmp_path)
    np.testing.assert_array_equal(intervals.lower[:, 0], [-1, 2, 3, np.nan, np.nan])
    np.testing.assert_array_equal(intervals.upper[:, 0], [1, 2, 6, np.nan, np.nan])
    moved = intervals.move_to_labels(Y_PRED)
    # Distances 1, 1 and 0; the labels 0, 2 and 4 have distances 2, 0 and 2 to their mean.
    assert RAE(intervals.y, moved) == pytest.approx((1 + 1 + 0) / 4)
    assert RAE(intervals.y, Y_PRED) == pytest.approx((2 + 1 + 1) / 4)
    below = intervals.move_to_labels(np.array([[-3.0], [2.0], [2.5], [0.0], [0.0]]))
    assert RAE(intervals.y, below) == pytest.approx((2 + 0 + 0.5) / 4)


def test_several_targets_are_averaged_and_one_without_intervals_has_its_rae(tmp_path: Path) -> None:
    train = ["id,SMILES,y,z,low,high", "a,CCO,0,0,-1,1", "b,CCC,2,1,,3", "c,CCN,4,2,3,", "d,CCF,,3,,"]
    sample = ["id,y,z", "t1,0,0", "t2,0,0"]
    intervals = intervals_of(tmp_path, train=train, sample=sample, targets=["y", "z"])
    np.testing.assert_array_equal(intervals.upper[:, 0], [1, 3, 4, np.nan])  # an empty end is the label
    y_pred = np.column_stack([[2.0, 3.0, 5.0, 7.0], [1.0, 1.0, 2.0, 3.0]])
    of_y, of_z = (1 + 0 + 1) / 4, 1 / 4
    assert RAE(intervals.y, intervals.move_to_labels(y_pred)) == pytest.approx((of_y + of_z) / 2)


def test_intervals_are_counted_and_change_no_table(tmp_path: Path) -> None:
    result = prepared(tmp_path)
    line = "intervals of y in train.csv: 2 of 3 labels, mean width 1.67"
    assert line in describe(result.report).splitlines()
    plain = prepared(tmp_path, intervals=None)
    assert result.train.equals(plain.train) and "intervals" not in describe(plain.report)


def changed(line: str) -> list[str]:
    return [TRAIN[0], TRAIN[1], line, *TRAIN[3:]]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (
            {"train": changed("b,CCC,2,3,2.5")}, DataError,
            r"train\.csv: column 'low' has lower ends of intervals above the upper ends in 'high' \(an empty end is "
            r"the label\): row 3 \(id 'b'\): '3'\. Correct them, or empty both ends",
        ),
        ({"train": changed("b,CCC,2,3,")}, DataError, r"lower ends of intervals above .* row 3 \(id 'b'\): '3'"),
        ({"train": changed("b,CCC,2,1,wide")}, DataError, r"'high' has cells that are not finite numbers: row 3 \(id"),
        ({"intervals": {"y": ["low", "up"]}}, DataError, r"train\.csv: missing columns: up; available: id, SMILES"),
        ({"intervals": {"q": ["low", "high"]}}, ConfigError, r"intervals: q is not a target \(y\)"),
        ({"intervals": {"y": ["low"]}}, ConfigError, r"competition\.intervals\.y: .*2"),
        (
            {"problem_type": "ordinal", "metric": "quadratic_kappa", "classes": ["0", "2", "4"]}, ConfigError,
            "intervals are for regression, and problem_type is ordinal; remove them",
        ),
        ({"metric": "st_rae"}, ConfigError, r"metric: cannot be st_rae, .* set metric: rae, and the columns of the"),
    ],
)  # fmt: skip
def test_broken_intervals_are_refused_with_their_row(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        prepared(tmp_path, **settings)
