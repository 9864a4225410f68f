"""What another process reads of losses.csv."""

from pathlib import Path

import pytest

from models.training.loss_log import HEADER, LossRecord, read_losses


@pytest.mark.parametrize(
    ("text", "n_rows"),
    [
        (None, 0),
        ("", 0),
        (HEADER, 0),
        (HEADER + "train,1,20,0.25,0.001,10.2,\n", 1),
        (HEADER + "train,1,20,0.25,0.001,10.2,\ntrain,1,40,0.1", 1),
    ],
)
def test_only_complete_rows_are_read_while_a_job_writes(
    tmp_path: Path, text: str | None, n_rows: int
) -> None:
    if text is not None:
        (tmp_path / "losses.csv").write_text(text)
    assert read_losses(tmp_path) == [LossRecord("train", 1, 20, 0.25, 0.001, 10.2)] * n_rows
