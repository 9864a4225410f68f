"""The section of the report about extra tables: the gains by them are those of their predictions."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.files import write_json, write_table
from competition.metrics import METRICS
from competition.paths import Paths
from competition.task import Task
from submissions.report.extra_train_section import extra_train_section

TARGETS = ["a", "b"]


def test_the_gain_by_a_table_is_that_of_the_predictions_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path))
    paths = Paths("made_up")
    rng = np.random.default_rng(0)
    ids = [f"x{i}" for i in rng.permutation(60)]
    y = pd.DataFrame(rng.normal(size=(60, 2)), ids, TARGETS)
    y.iloc[5, 0] = np.nan
    write_table(paths.train, y.rename_axis("id").reset_index())
    write_table(paths.groups, pd.DataFrame({"id": ids, "group": np.arange(60) // 2}))
    errors = {"without": 1.0, "with 1": 0.5, "with 2": 1.25}
    tables = [
        y.fillna(0.0).add(error).sample(frac=1, random_state=1).assign(__model=name).reset_index(names="id")
        for name, error in errors.items()
    ]
    write_table(paths.extra_oof, pd.concat(tables, ignore_index=True))
    judged = {"labels": 10, "shared": 4, "before": 0.2, "after": 0.1, "weight": 0.5, "left_out": 1}
    sources = [{"source": i, "fold": 0, "targets": [judged, judged]} for i in (1, 2)]
    write_json(paths.extra_report, {"sources": sources})
    extra = [SimpleNamespace(file=Path("more.csv")), SimpleNamespace(file=Path("others.csv"))]
    competition = SimpleNamespace(id="id", targets=TARGETS, seed=0, extra_train=extra, judges_extra_rows=True)
    run: Any = SimpleNamespace(
        paths=paths,
        task=Task(TARGETS),
        metric=METRICS["rmse"],
        config=SimpleNamespace(competition=competition),
    )
    table, _ = extra_train_section(run)
    rows = table.rows  # type: ignore[union-attr]
    assert [row[0] for row in rows] == ["more.csv", "", "others.csv", ""]
    assert [row[-1].partition(" +-")[0] for row in rows] == ["0.5000", "", "-0.2500", ""]
    assert rows[0][2:-1] == ["10.00", "4.000", "0.2000", "0.1000", "0.5000", "1.000"]
