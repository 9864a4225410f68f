"""`./run.sh ledger`: the table, what the scores can say, and what a person adds by hand."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from competition.errors import ConfigError
from competition.files import write_json
from competition.metrics import METRICS
from competition.paths import Paths
from submissions.leaderboard import overview
from submissions.leaderboard.draws import Draws
from submissions.leaderboard.ledger import BY_HAND, Submission, read, write
from submissions.leaderboard.overview import distinct, noise, rank_correlations, to_select
from submissions.run import BLEND

Command = Callable[..., str]
RMSE = METRICS["rmse"]


@pytest.fixture
def said(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """What `./run.sh ledger` prints, given options."""

    def run(*options: str, competition: str = "mixed") -> str:
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "own" / f"{competition}.yaml"), *options])
        overview.main()
        return capsys.readouterr().out

    return run


def one(name: str, day: int, **fields: object) -> Submission:
    base = {"status": "submitted", "file_digest": f"of {name}", "message": f"try {name}"}
    return Submission(name, f"2026-11-{day:02d}T10:00:00+00:00", **{**base, **fields})  # type: ignore[arg-type]


def test_without_submissions_there_is_one_sentence(said: Command, paths: Paths) -> None:
    assert said() == "No submissions of mixed yet: ./run.sh submit mixed makes one and writes it down.\n"
    with pytest.raises(ConfigError):
        said("--public", "0.5", competition="nothing")
    assert not paths.ledger.exists()


def test_every_submission_is_a_row_with_what_chance_does_and_what_to_select(
    said: Command, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = paths.run(paths.latest_run.read_text().strip())
    monkeypatch.setattr(overview, "products", lambda paths: {"of blend": (run, BLEND)})
    for day, (name, cv) in enumerate({"chosen": 0.65, "copy": 0.65, "blend": 0.66}.items(), 1):
        row = one(name, day, run=run.name, cross_fitted_score=cv, status="scored", public=cv + 0.02)
        write(paths.ledger, replace(row, file_digest="of chosen") if name == "copy" else row)
    write(paths.ledger, one("mine", 4, status="scored", public=0.9, cross_fitted_score=0.8))
    write(paths.ledger, one("gone", 5, status="failed", message="try: 3 rows too few"))
    page = said()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[0:2] == "| "]
    assert rows[0] == ["id", "time", "run", "cross_fitted_score", "public", "status", "message"]  # what has cells
    assert [row[0] for row in rows[1:]] == ["chosen", "copy", "blend", "mine", "gone"]
    assert rows[-1][-2:] == ["failed", "try: 3 rows too few"]
    text = " ".join(page.split())
    assert "Spearman of cross_fitted_score and public: 1.00, n = 3." in text
    assert "on 9 public rows and" in text and "on 21 private rows" in text
    assert "below one paired standard deviation is not evidence" in text
    assert "Select copy and blend: the better of their private scores is" in text
    assert "./run.sh folds mixed tells if they do" in text
    assert (paths.report / "ledger.png").read_bytes().startswith(b"\x89PNG")
    write_json(paths.shift, {"adversarial": {"auc": 0.83}})
    assert "The draws are optimistic: train and test differ (AUC 0.83" in " ".join(said().split())
    assert "on 15 public rows" in " ".join(said("--public-share", "0.5").split())
    shutil.rmtree(run)
    assert "so nothing is said of chance. Select by CV." in " ".join(said().split())


def frame(**scores: list[float]) -> pd.DataFrame:
    table = pd.DataFrame(scores, index=list("abcd"))
    return table.reindex(columns=["cross_fitted_score", "public", "private"]).astype(float)


DRAWS = Draws(
    pd.DataFrame({"a": [0.0, 1.0], "b": [0.2, 1.0], "c": [0.1, 1.3]}),
    pd.DataFrame({"a": [0.0, 1.0], "b": [0.0, 1.1], "c": [0.6, 0.5]}), 100, (10, 20),
)  # fmt: skip


def test_a_lead_on_the_board_is_held_against_its_paired_deviation() -> None:
    scores = frame(public=[0.5, 0.6, 0.9, 0.1])  # d has no draws; a - b is 0.2 or 0: a deviation of 0.1414
    said = [noise(scores, DRAWS, metric)[1] for metric in (RMSE, METRICS["r2"])]
    assert said[0].startswith("On the board a leads b by 0.10000, with a paired standard deviation of 0.14142. A gain")
    assert said[1].startswith("On the board c leads b by 0.30000, with a paired standard deviation of 0.28284. A gain")
    assert len(noise(frame(public=[0.5, None, None, 0.1]), DRAWS, RMSE)) == 1  # type: ignore[list-item]


def test_ranks_are_compared_where_three_files_have_both_scores() -> None:
    cv, public = [0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.2, 0.4]
    assert rank_correlations(frame(cross_fitted_score=cv, public=public), None) == [
        "Spearman of cross_fitted_score and public: 0.80, n = 4."
    ]
    found = rank_correlations(frame(cross_fitted_score=cv, public=public, private=cv), None)
    assert [line.split(":")[1] for line in found] == [" 0.80, n = 4.", " 1.00, n = 4.", " 0.80, n = 4."]
    few = frame(cross_fitted_score=cv, public=[0.1, 0.2, None, None])  # type: ignore[list-item]
    assert "needs 3 files" in rank_correlations(few, None)[0]


def test_the_pair_of_the_draws_is_selected_or_the_one_file_that_there_is() -> None:
    chosen, why = to_select(DRAWS, RMSE)
    assert chosen == ["a", "c"]
    assert "is expected to be 0.25000 (0.50000 of a and 0.55000 of c alone, correlation -1.000)" in why
    alone = replace(DRAWS, private=DRAWS.private[["b"]])
    assert to_select(alone, RMSE) == (["b"], "Select b; the private score to expect is 0.55000 of b.")


def test_copies_of_a_file_count_once_and_what_never_reached_the_platform_not_at_all() -> None:
    known = [
        one("a", 1, file_digest="same"),
        one("b", 2, file_digest="same", status="scored", public=0.5),
        one("c", 3, file_digest="same", status="scored", public=0.5),
        one("d", 4, status="failed"),
        one("e", 5, status="submitting"),
        one("f", 6, file_digest=""),
        one("g", 7, ref=BY_HAND),
        one("h", 8, ref=BY_HAND, status="scored", public=0.5),
    ]
    assert sorted(s.submission for s in distinct(known)) == ["c", "f", "h"]


def test_a_score_by_hand_goes_to_the_latest_without_one_or_to_the_one_named(said: Command, paths: Paths) -> None:
    for day, name in enumerate("abc", 1):
        write(paths.ledger, one(name, day))
    write(paths.ledger, replace(one("c", 3), status="failed"))
    assert said("--public", "0.61", "--private", "0").startswith("Added to b of 2026-11-02T10:00:00+00:00: try b\n")
    said("--public", "0.62")
    said("--public", "0.65", "--submission", "b")
    assert {s.submission: (s.status, s.public, s.private) for s in read(paths.ledger)} == {
        "a": ("scored", 0.62, None), "b": ("scored", 0.65, 0.0), "c": ("failed", None, None)
    }  # fmt: skip
    with pytest.raises(ConfigError, match="no submission without this score"):
        said("--public", "0.6")
    with pytest.raises(ConfigError, match="no submission 'd'"):
        said("--public", "0.6", "--submission", "d")
    with pytest.raises(ConfigError, match="--submission needs the score"):
        said("--submission", "a")
    with pytest.raises(ConfigError, match="--public-share must be between 0 and 1; found 30"):
        said("--public-share", "30")


def test_what_was_selected_is_marked_and_replaces_what_was_before(said: Command, paths: Paths) -> None:
    for day, name in enumerate("abc", 1):
        write(paths.ledger, one(name, day, selected="yes" if name == "a" else ""))
    assert said("--select", "b", "c").startswith("Noted here; select them on the platform's page")
    assert [s.selected for s in read(paths.ledger)] == ["", "yes", "yes"]
