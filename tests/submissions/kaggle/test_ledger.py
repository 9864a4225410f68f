"""The ledger: a row per submission, which two files to select, and what a person adds by hand."""

import shutil
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from competition.metrics import METRICS
from core.errors import ConfigError
from pipeline import commands
from submissions.kaggle.ledger import (
    BY_HAND,
    distinct,
    pick_final_two,
    rank_correlations,
    read,
    write,
)
from submissions.manifest import read_manifest, write_manifest
from tests.submissions.kaggle.conftest import one

Command = Callable[..., str]
RMSE, R2 = METRICS["rmse"], METRICS["r2"]


@pytest.fixture
def run_ledger(paths, tmp_path, monkeypatch, capsys):
    """What `./run.sh ledger` prints, given options, for a competition of another platform."""
    yaml_file = tmp_path / "mixed.yaml"
    yaml_file.write_text(yaml_file.read_text().replace("kaggle: tides", ""))

    def run(*options):
        commands.main(["ledger", str(yaml_file), *options])
        return capsys.readouterr().out.strip()

    return run


def test_files_of_runs_with_other_folds_are_not_simulated_together(run_ledger, paths):
    run = paths.run(paths.latest_run.read_text().strip())
    other = paths.run("a0b1c2d3e4f5")
    shutil.copytree(run, other)
    manifest = read_manifest(other)
    write_manifest(other, manifest.model_copy(update={"tables": {**manifest.tables, "folds.csv": "others"}}))
    for day, name in enumerate((run.name, other.name), 1):
        made = {"run": name, "chosen": "mean", "file_digest": name, "cross_fitted_score": 0.6}
        write(paths.ledger, one(f"of{day}", day, status="scored", public=0.7, **made))
    output = " ".join(run_ledger().split())
    assert "have different folds" in output and "Select of" not in output


def test_scores_of_another_metric_than_that_of_the_yaml_are_not_shown(run_ledger, paths, tmp_path):
    run = paths.latest_run.read_text().strip()
    write(
        paths.ledger,
        one("first", 1, run=run, chosen="mean", cross_fitted_score=0.7, status="scored", public=0.8),
    )
    assert " 0.7 " in run_ledger()
    (yaml_file,) = tmp_path.glob("mixed.yaml")
    text = yaml_file.read_text()
    yaml_file.write_text(text.replace("metric: rmse", "metric: mae"))
    assert yaml_file.read_text() != text
    assert " 0.7 " not in run_ledger()


def test_every_submission_is_a_row_and_two_are_to_select(run_ledger, paths):
    run = paths.run(paths.latest_run.read_text().strip())
    for day, (name, chosen) in enumerate({"first": "convex", "copy": "convex", "other": "mean"}.items(), 1):
        scores = {"cross_fitted_score": 0.6 + day / 10, "public": 0.65 + day / 10}
        made = {"run": run.name, "chosen": chosen, "file_digest": f"of {chosen}", **scores}
        write(paths.ledger, one(name, day, status="scored", **made))
    write(paths.ledger, one("mine", 4, status="scored", public=0.98765, cross_fitted_score=0.98))
    write(paths.ledger, one("gone", 5, status="failed", message="try: 3 rows too few"))
    output = run_ledger()
    header, *rows = (line.split() for line in output.splitlines()[2:8])
    assert " ".join(header) == "submission time run chosen cross_fitted_score public status message"
    assert [row[0] for row in rows] == ["first", "copy", "other", "mine", "gone"]
    assert "0.98765" in rows[3]  # as the board shows it
    assert " ".join(rows[-1][4:]) == "- - failed try: 3 rows too few"
    text = " ".join(output.split())
    assert "Spearman of cross_fitted_score and public: 1.00, n = 3." in text
    assert "Select copy and other: the better of their scores on resampled rows is" in text
    shutil.rmtree(run)
    assert "so the choice of two cannot be simulated. Select by CV." in " ".join(run_ledger().split())


def test_ranks_are_compared_where_three_files_have_both_scores():
    scores = pd.DataFrame({"cross_fitted_score": [0.1, 0.2, 0.3, 0.4], "public": [0.1, 0.3, 0.2, 0.9]})
    text = rank_correlations(scores.assign(private=[np.nan, 0.4, 0.3, 0.2]))
    assert [line.split(": ")[1] for line in text] == ["0.80, n = 4.", "-1.00, n = 3.", "-0.50, n = 3."]
    assert "needs 3 files" in rank_correlations(scores[:2].assign(private=np.nan))[0]


def test_the_pair_whose_better_one_is_best_beats_the_two_best():
    private = pd.DataFrame({"a": [2.0] * 4, "b": [2, 2, 2, 2.4], "c": [1.0, 5, 1, 5]})
    text = pick_final_two(private, RMSE)
    assert text.startswith("Select a and c: ") and "1.500 on average (2.000 of a and 3.000 of c alone" in text
    text = pick_final_two(private[["b", "c"]], R2)
    assert text.startswith("Select b and c: ") and "rows is 3.500 on" in text and "correlation 0.577)" in text
    assert pick_final_two(private[["b"]], RMSE) == "Select b; the mean score on resampled rows is 2.100 of b."


def test_copies_of_a_file_count_once_and_what_never_reached_the_platform_not_at_all():
    scored = {"status": "scored", "public": 0.5}
    duplicates = [*(one(name, file_digest="same", **scored) for name in "bc"), one("a", file_digest="same")]
    duplicates += [one("d", status="failed"), one("e", status="submitting"), one("f", file_digest="")]
    duplicates += [one("g", ref=BY_HAND), one("h", ref=BY_HAND, **scored)]
    assert sorted(each.submission for each in distinct(duplicates)) == ["c", "f", "h"]


def test_a_score_by_hand_goes_to_the_latest_without_one_or_to_the_one_named(run_ledger, paths):
    assert run_ledger().startswith("No submissions of mixed yet")
    write(paths.ledger, one("a", 1), one("b", 2), one("c", 3, status="failed"))
    said = run_ledger("--public", "0.61", "--private", "0")
    assert said.startswith("Added to b of 2026-11-02T10:00:00Z: try b\n")
    run_ledger("--public", "0.62")
    run_ledger("--public", "0.65", "--submission", "b")
    rows = [(row.submission, row.status, row.public, row.private) for row in read(paths.ledger)]
    assert rows == [("a", "scored", 0.62, None), ("b", "scored", 0.65, 0.0), ("c", "failed", None, None)]
    for options, words in {
        "--public 0.6": "All submissions have this score",
        "--public 0.6 --submission d": "Unknown submission 'd'; the ledger has a, b, c",
        "--submission a": "--submission needs the score",
    }.items():
        with pytest.raises(ConfigError, match=words):
            run_ledger(*options.split())


def test_a_submission_comes_back_as_it_went_in_and_is_replaced_by_its_id(tmp_path):
    path = tmp_path / "new" / "ledger.csv"
    first = one("e12345", message="two\nlines", status="submitting")
    full = one(
        "fedcba", 2, status="scored", run="cda943de32b5", chosen="shrunk_ridge", public=0.0,
        cross_fitted_score=0.1 + 0.2, lower=-0.5, private=123456789.125, message='a "quoted", é',
    )  # fmt: skip
    write(path, first)
    write(path, full)
    assert read(path) == [first, full]
    write(path, first.with_changes(status="failed"))
    assert [row.status for row in read(path)] == ["failed", "scored"]
    table = pd.read_csv(path, dtype=str)
    table.insert(0, "mine", "7")  # saved by a spreadsheet, with one more column
    table.to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")
    assert read(path)[1] == full


def test_damaged_cells_are_reported(tmp_path):
    path = tmp_path / "ledger.csv"
    write(path, one("a1", status="scored", cross_fitted_score=0.5))
    path.write_text(path.read_text().replace("0.5", "much").replace("scored", "sent"))
    words = r"ledger\.csv has 2 error[^$]*row\.2\.status[^$]*row\.2\.cross_fitted_score.*'much'"
    with pytest.raises(ConfigError, match=words):
        read(path)
