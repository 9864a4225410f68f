"""Standard deviations that stages predict: in spread.csv, and their coverage in the report."""

from pathlib import Path

import numpy as np
import pytest

from core.files import read_table
from models.jobs.predictions import read_predictions, std_file
from submissions.report.elements import Table
from submissions.report.predictions import prediction_section
from tests.submissions.fakes import built, fake_competition, train_all

STAGES = {"gp": {"kind": "gp", "kernels": []}, "trees": {"kind": "lightgbm", "max_trees": 20}}


def test_standard_deviations_of_a_stage_are_beside_the_disagreement_and_their_coverage_is_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    path = fake_competition(tmp_path, stages=STAGES, submissions={"stack": False})
    train_all(path)
    run = built(path)
    ids, targets = run.columns.test_ids, run.task.targets
    files = [std_file(job.test_file(run.plan.test_key)) for job in run.plan.jobs_of_stage("gp")]
    expected = np.mean([read_predictions(file, ids, targets) for file in files], axis=0)
    table = read_table(run.folder / "spread.csv", ["id"])
    assert list(table) == ["id", *targets, *(f"{target} std of gp" for target in targets)]
    np.testing.assert_allclose(table.iloc[:, 3:], expected, rtol=1e-9)
    assert 0.8 < expected.mean() < 1.4  # the noise of the labels is 1
    (coverage,) = [part for part in prediction_section(run) if isinstance(part, Table)]
    assert [row[:2] for row in coverage.rows] == [["gp", "height"], ["gp", "depth"]]
    for _, _, within_one, within_two in coverage.rows:
        assert 0.55 < float(within_one) < 0.8
        assert 0.88 < float(within_two) < 1
