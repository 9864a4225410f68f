"""The section of the report about st_rae: its numbers are those of the predictions and the intervals."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.files import read_text_table, write_table
from competition.intervals import read_intervals
from competition.metrics import METRICS
from submissions.report.interval_section import interval_section
from submissions.run import SUBMISSION_FILE, Run
from tests.submissions.fakes import TARGETS, built, fake_competition, prepare_and_fake_jobs, with_setting

ENDS = {"intervals": {"height": ["low", "high"]}, "metric": "rae"}


def with_intervals(folder: Path, tables: tuple[str, ...]) -> Path:
    """A made-up competition with intervals of +- 0.5 in some tables."""
    path = fake_competition(folder, 90, 30, competition={"metric": "rae"})
    for name in tables:
        table = read_text_table(folder / f"{name}.csv")
        heights = table["height"].astype(float)
        write_table(folder / f"{name}.csv", table.assign(low=heights - 0.5, high=heights + 0.5))
    return path


def built_run(path: Path, **settings: Any) -> Run:
    prepare_and_fake_jobs(with_setting(path, "competition", **settings))
    return built(path)


def test_st_rae_of_submission_and_stages_is_that_of_their_held_out_and_test_predictions(
    tmp_path: Path,
) -> None:
    run = built_run(with_intervals(tmp_path, ("train", "answers")), **ENDS)
    table, explanation = interval_section(run)
    assert table.header == ["file or stage", "st_rae", "standard_error", *TARGETS, "answers"]  # type: ignore[union-attr]
    rows = {row[0]: row[1:] for row in table.rows}  # type: ignore[union-attr]
    assert list(rows) == [SUBMISSION_FILE, "stage good", "stage fair", "stage poor"]
    y, y_pred = run.stage_predictions.y, run.stage_predictions.stage_oof("fair")
    distance = np.maximum(np.abs(y_pred - y)[:, 0] - 0.5, 0).sum() / np.abs(y[:, 0] - y[:, 0].mean()).sum()
    rae = METRICS["rae"].score_column(y[:, 1], y_pred[:, 1])
    expected = [(distance + rae) / 2, distance, rae]
    shown = [float(rows["stage fair"][i]) for i in (0, 2, 3)]
    np.testing.assert_allclose(shown, expected, atol=1e-3)
    assert 0 < float(rows["stage fair"][1]) < 0.2
    answers = read_text_table(tmp_path / "answers.csv").set_index("id", drop=False)
    submission = pd.read_csv(run.folder / SUBMISSION_FILE, dtype={"id": str})
    intervals = read_intervals(answers.loc[submission["id"]], run.config.competition, "answers.csv")
    of_test = METRICS["rae"](intervals.y, intervals.move_to_labels(submission[TARGETS].to_numpy()))
    np.testing.assert_allclose(float(rows[SUBMISSION_FILE][-1]), of_test, atol=1e-3)
    assert "Training, blend and selection use rae" in str(explanation)


def test_without_intervals_in_the_answers_held_out_rows_are_scored_and_the_lack_is_reported(
    tmp_path: Path,
) -> None:
    run = built_run(with_intervals(tmp_path, ("train",)), **ENDS)
    table, _, note = interval_section(run)
    assert table.header == ["file or stage", "st_rae", "standard_error", *TARGETS]  # type: ignore[union-attr]
    assert note == "The answers have no columns with intervals, so that st_rae on them is unknown."


def test_intervals_change_neither_the_jobs_nor_the_submission(tmp_path: Path) -> None:
    path = with_intervals(tmp_path, ("train", "answers"))
    plain = built_run(path)
    assert interval_section(plain) == []
    run = built_run(path, **ENDS)
    assert run.plan.keys == plain.plan.keys and run.name != plain.name
    assert (run.folder / SUBMISSION_FILE).read_bytes() == (plain.folder / SUBMISSION_FILE).read_bytes()
