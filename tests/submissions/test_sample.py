"""Submission files: in the layout of the sample, and nothing that a judge would refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.errors import SubmissionError
from competition.files import read_table
from competition.task import Task
from submissions.sample import submission_table, write_submission

SAMPLE = pd.DataFrame({"id": ["01", "b,c", " d"], "y": ["0", "0", "0"]})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": ["1", "b,c", " d"], "y": [1, 2, 3]}, r"lacks 1 \['01'\] and has 1 others \['1'\]"),
        ({"id": ["b,c", "01", " d"], "y": [1, 2, 3]}, "in its order.*lacks 0"),
        ({"id": ["01", "b,c"], "y": [1, 2]}, "lacks 1"),
        ({"id": ["01", "b,c", " d", " d"], "y": [1, 2, 3, 3]}, "4 rows for 3 ids"),
        ({"id": ["01", "b,c", " d"], "z": [1, 2, 3]}, "must have the columns id, y"),
        ({"y": [1, 2, 3], "id": ["01", "b,c", " d"]}, "in this order; found y, id"),
        ({"id": ["01", "b,c", " d"], "y": [1, np.nan, 3]}, "id 'b,c'"),
        ({"id": ["01", "b,c", " d"], "y": [1, 2, -np.inf]}, "1 row"),
        ({"id": ["01", "b,c", " d"], "y": [1, 2, "many"]}, "'many'"),
    ],
)
def test_a_file_that_does_not_fit_the_sample_is_refused_and_not_left_behind(
    tmp_path: Path, table: dict, message: str
) -> None:
    with pytest.raises(SubmissionError, match=message):
        write_submission(tmp_path / "blend.csv", pd.DataFrame(table), SAMPLE, "id")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fits_the_sample_is_written_with_seven_digits(tmp_path: Path) -> None:
    y_pred = np.array([[200 / 3], [1.23456789e-300]])
    table, filled = submission_table(SAMPLE, "id", Task(["target"], ["y"]), [" d", "01"], y_pred, [7.0])
    write_submission(tmp_path / "blend.csv", table, SAMPLE, "id")
    assert filled == 1
    assert read_table(tmp_path / "blend.csv", ["id"])["y"].tolist() == [1.234568e-300, 7.0, 66.66667]
