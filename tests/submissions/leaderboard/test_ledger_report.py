"""`./run.sh ledger`: the table, what the scores can say, and what a person adds by hand."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.errors import ConfigError
from competition.metrics import METRICS
from competition.paths import Paths
from competition.task import Task
from submissions.compare import PairedScorer
from submissions.leaderboard import ledger_report
from submissions.leaderboard.ledger import BY_HAND, read, write
from submissions.leaderboard.ledger_report import (
    distinct,
    draw,
    leaderboard_gap,
    less_variances,
    pick_final_two,
    rank_correlations,
)
from tests.submissions.leaderboard.conftest import one

Command = Callable[..., str]
RMSE, R2 = METRICS["rmse"], METRICS["r2"]


@pytest.fixture
def run_ledger(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """What `./run.sh ledger` prints, given options."""

    def run(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "mixed.yaml"), *options])
        ledger_report.main()
        return capsys.readouterr().out.strip()

    return run


def test_every_submission_is_a_row_with_what_chance_does_and_what_to_select(
    run_ledger: Command, paths: Paths
) -> None:
    run = paths.run(paths.latest_run.read_text().strip())
    for day, (name, chosen) in enumerate({"first": "convex", "copy": "convex", "other": "mean"}.items(), 1):
        made = {
            "run": run.name,
            "chosen": chosen,
            "cross_fitted_score": 0.6 + day / 10,
            "public": 0.65 + day / 10,
        }
        write(paths.ledger, one(name, day, status="scored", **made).with_changes(file_digest=f"of {chosen}"))
    write(paths.ledger, one("mine", 4, status="scored", public=0.99, cross_fitted_score=0.98))
    write(paths.ledger, one("gone", 5, status="failed", message="try: 3 rows too few"))
    header, *rows = [line.split() for line in run_ledger().splitlines()[2:8]]
    assert header == [
        "submission",
        "time",
        "run",
        "chosen",
        "cross_fitted_score",
        "public",
        "status",
        "message",
    ]
    assert [row[0] for row in rows] == ["first", "copy", "other", "mine", "gone"]
    assert rows[-1][4:] == ["-", "-", "failed", "try:", "3", "rows", "too", "few"]
    text = " ".join(run_ledger().split())
    assert "Spearman of cross_fitted_score and public: 1.00, n = 3." in text
    assert "on 9 public rows and" in text and "on 21 private rows, drawn from 150 out-of-fold rows" in text
    assert "Select copy and other: the better of their scores on the drawn private rows is" in text
    assert "on 15 public rows" in " ".join(run_ledger("--public-share", "0.5").split())
    shutil.rmtree(run)
    assert "so the effect of chance is unknown. Select by CV." in " ".join(run_ledger().split())


def test_files_are_compared_with_the_errors_expected_on_the_test_table_if_all_runs_know_them() -> None:
    y = pd.DataFrame({"y": [0.0, 0.0]}, ["a", "b"])
    oof = {"first": pd.DataFrame({"y": [2.0, 2.0]}, ["a", "b"]), "second": pd.DataFrame({"y": [1.0]}, ["b"])}
    corrected = less_variances(oof, {"first": [3.0], "second": [0.0]}, y)
    assert list(corrected["first"]["y"]) == [1.0, 1.0]
    assert list(corrected["second"]["y"]) == [1.0]
    assert less_variances(oof, {"first": [3.0], "second": None}, y) is oof


def test_parts_of_the_real_sizes_have_the_noise_of_a_mean_over_groups() -> None:
    groups = pd.Series(np.arange(2000) // 4)  # of four rows each
    errors = np.random.default_rng(0).exponential(size=500)[groups]
    shifted = errors + 0.1
    shifted[0] = np.nan  # not among the rows that all predict
    oof = {name: pd.DataFrame({"height": values}) for name, values in (("a", errors), ("b", shifted))}
    labels = PairedScorer(
        Task(["height"]), pd.DataFrame({"height": 0 * errors}), groups, METRICS["mae"], 1000, 0
    )
    public, private = draw(oof, labels, (100, 400))
    for part, n in ((public, 100), (private, 400)):
        assert part["a"].mean() == pytest.approx(errors.mean(), rel=0.03)
        assert part["a"].std() == pytest.approx(errors.std() / np.sqrt(n / 4), rel=0.1)
        assert (part["b"] - part["a"]).to_numpy() == pytest.approx(0.1)  # the same draws
    assert abs(public["a"].corr(private["a"])) < 0.1


def test_a_lead_on_the_board_is_compared_with_its_paired_deviation() -> None:
    board = pd.Series({"a": 0.5, "b": 0.6, "c": 0.9, "d": 0.1})  # d has no draws; a - b is 0.2 or 0: 0.1414
    public = pd.DataFrame({"a": [0.0, 1.0], "b": [0.2, 1.0], "c": [0.1, 1.3]})
    (text,) = leaderboard_gap(board, public, RMSE)
    assert text.startswith(
        "On the board a leads b by 0.1000, with a paired standard deviation of 0.1414. A gain"
    )
    assert leaderboard_gap(board, public, R2)[0].startswith("On the board c leads b by 0.3000, with a paired")
    assert leaderboard_gap(board[["a", "d"]], public, RMSE) == []


def test_ranks_are_compared_where_three_files_have_both_scores() -> None:
    scores = pd.DataFrame({"cross_fitted_score": [0.1, 0.2, 0.3, 0.4], "public": [0.1, 0.3, 0.2, 0.9]})
    text = rank_correlations(scores.assign(private=[np.nan, 0.4, 0.3, 0.2]))
    assert [line.split(": ")[1] for line in text] == ["0.80, n = 4.", "-1.00, n = 3.", "-0.50, n = 3."]
    assert "needs 3 files" in rank_correlations(scores[:2].assign(private=np.nan))[0]


def test_the_pair_whose_better_one_is_best_beats_the_two_best() -> None:
    private = pd.DataFrame({"a": [2.0, 2, 2, 2], "b": [2.0, 2, 2, 2.4], "c": [1.0, 5, 1, 5]})
    text = pick_final_two(private, RMSE)
    assert text.startswith("Select a and c: ") and "1.500 on average (2.000 of a and 3.000 of c alone" in text
    text = pick_final_two(private[["b", "c"]], R2)
    assert text.startswith("Select b and c: ") and "rows is 3.500 on" in text and "correlation 0.577)" in text
    assert (
        pick_final_two(private[["b"]], RMSE)
        == "Select b; the mean score on the drawn private rows is 2.100 of b."
    )


def test_copies_of_a_file_count_once_and_what_never_reached_the_platform_not_at_all() -> None:
    scored = {"status": "scored", "public": 0.5}
    duplicates = [*(one(name, file_digest="same", **scored) for name in "bc"), one("a", file_digest="same")]
    duplicates += [one("d", status="failed"), one("e", status="submitting"), one("f", file_digest="")]
    duplicates += [one("g", ref=BY_HAND), one("h", ref=BY_HAND, **scored)]
    assert sorted(each.submission for each in distinct(duplicates)) == ["c", "f", "h"]


def test_a_score_by_hand_goes_to_the_latest_without_one_or_to_the_one_named(
    run_ledger: Command, paths: Paths
) -> None:
    assert run_ledger().startswith("No submissions of mixed yet")
    write(paths.ledger, one("a", 1), one("b", 2), one("c", 3, status="failed"))
    assert run_ledger("--public", "0.61", "--private", "0").startswith(
        "Added to b of 2026-11-02T10:00:00Z: try b\n"
    )
    run_ledger("--public", "0.62")
    run_ledger("--public", "0.65", "--submission", "b")
    assert {s.submission: (s.status, s.public, s.private) for s in read(paths.ledger)} == {
        "a": ("scored", 0.62, None), "b": ("scored", 0.65, 0.0), "c": ("failed", None, None)
    }  # fmt: skip
    for options, words in (
        (("--public", "0.6"), "All submissions have this score"),
        (("--public", "0.6", "--submission", "d"), "Unknown submission 'd'"),
        (("--submission", "a"), "--submission needs the score"),
        (("--public-share", "30"), "--public-share must be between 0 and 1; got 30"),
    ):
        with pytest.raises(ConfigError, match=words):
            run_ledger(*options)
