"""What another process reads of losses.csv."""

from pathlib import Path
from unittest import mock

from models.training.loss_log import LossLog, LossRecord, read_losses


def test_rows_are_read_as_they_were_written_and_there_are_none_before_the_first(tmp_path: Path) -> None:
    (tmp_path / "losses.csv").write_text("rows of an attempt that was killed")
    log = LossLog(tmp_path, mock.Mock())
    assert read_losses(tmp_path) == []
    values = {"phase": "train", "epoch": 1, "learning_rate": 1e-3}
    log.write(**values, step=20, loss=0.1 + 0.2)
    log.write(**values, step=40, loss=2e-9, held_out_score=-1.5)
    seconds = [record.seconds for record in log.records]
    assert read_losses(tmp_path) == [
        LossRecord("train", 1, 20, 0.1 + 0.2, 1e-3, seconds[0]),
        LossRecord("train", 1, 40, 2e-9, 1e-3, seconds[1], -1.5),
    ]
