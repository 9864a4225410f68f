"""Labels of extra tables that a fold does not use are in the report."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from core.files import write_json
from models.jobs.compute import UNUSED_LABELS
from models.jobs.plan import REPORT
from submissions.report.scores import unused_labels


def test_unused_labels_are_listed_once_a_fold(tmp_path: Path) -> None:
    unused = {"fold_0": [], "fold_1": ["the labels of y in others.csv are not used"]}
    jobs = []
    for stage in ("trees", "net"):
        for fold, messages in unused.items():
            jobs.append(SimpleNamespace(folder=tmp_path / stage / fold))
            write_json(jobs[-1].folder / REPORT, {UNUSED_LABELS: messages})
    run: Any = SimpleNamespace(plan=SimpleNamespace(jobs=jobs))
    assert unused_labels(run) == ["In fold_1 the labels of y in others.csv are not used."]
