"""A test table of any length is predicted in pieces, and the pieces make the same table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.paths import Paths
from competition.tables import Rows
from models.jobs import work
from models.jobs.plan import Job
from tests.conftest import mixed_tables, write_competition


class Lengths:
    """A stage that predicts the number in a row's id and remembers how many rows it was given."""

    seen: list[int]

    def __init__(self, spread: bool) -> None:
        self.seen, self.gives_spread = [], spread

    def predict(self, rows: Rows, folder: Path) -> np.ndarray:
        self.seen.append(len(rows))
        y_pred = np.array([[float(name), -float(name)] for name in rows.ids])
        if self.gives_spread:
            self.spread = y_pred / 10
        return y_pred


@pytest.mark.parametrize(("n_rows", "seen"), [(4, [4]), (10, [4, 4, 2])])
@pytest.mark.parametrize("spread", [False, True])
def test_rows_reach_a_stage_in_pieces_and_leave_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_rows: int, seen: list[int], spread: bool
) -> None:
    competition = load_competition(str(write_competition(tmp_path, *mixed_tables())))
    stage, targets = Lengths(spread), competition.targets[:2]
    competition = competition.model_copy(update={"targets": targets})
    monkeypatch.setattr(work, "PIECE", 4)
    monkeypatch.setattr(work, "build_stage", lambda config, context: stage)
    ids = [str(i) for i in range(n_rows)]
    job = Job("lengths", "key", 0, 0, tmp_path / "job")
    work.predict_job(job, None, competition, Paths("mixed"), Rows(ids, pd.DataFrame(index=range(n_rows)), None), "t")
    assert stage.seen == seen
    written = pd.read_parquet(job.test_file("t"))
    assert list(written["id"]) == ids
    assert written[targets[0]].tolist() == [float(i) for i in range(n_rows)]
    file = job.folder / "test" / "t_spread.parquet"
    assert file.exists() is spread
    if spread:
        assert pd.read_parquet(file)[targets[1]].tolist() == [-i / 10 for i in range(n_rows)]
