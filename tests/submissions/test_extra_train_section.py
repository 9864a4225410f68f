"""The section of the report about extra tables."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from competition.dataset import EXTRA
from core.files import write_json, write_table
from core.paths import Paths
from models.jobs.job_rows import UNUSED_LABELS
from models.jobs.plan import REPORT
from submissions.report.scores import extra_train_section


def test_each_table_has_its_rows_weight_and_calibration_and_unused_labels_are_listed_once_a_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path))
    paths = Paths("made_up")
    write_table(paths.train, pd.DataFrame({"id": list("abcde"), EXTRA: [0, 0, 1, 2, 2]}))
    unused = {"fold_0": [], "fold_1": ["the labels of y in others.csv are not used"]}
    jobs = []
    for stage in ("trees", "net"):
        for fold, messages in unused.items():
            jobs.append(SimpleNamespace(folder=tmp_path / stage / fold))
            write_json(jobs[-1].folder / REPORT, {UNUSED_LABELS: messages})
    extra = [
        SimpleNamespace(file=Path("more.csv"), weight=1.0, calibrate="none"),
        SimpleNamespace(file=Path("others.csv"), weight=0.3, calibrate="affine"),
    ]
    competition = SimpleNamespace(extra_train=extra)
    run: Any = SimpleNamespace(
        paths=paths, plan=SimpleNamespace(jobs=jobs), config=SimpleNamespace(competition=competition)
    )
    table, *lines = extra_train_section(run)
    rows = table.rows  # type: ignore[union-attr]
    assert rows == [["more.csv", "1", "1", "none"], ["others.csv", "2", "0.3", "affine"]]
    assert lines == ["In fold_1 the labels of y in others.csv are not used."]
