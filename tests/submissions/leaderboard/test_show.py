"""`./run.sh ledger`: the table, what was found, and what a person adds by hand."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.errors import ConfigError, DataError
from competition.files import sha256_of, write_table
from competition.paths import Paths
from submissions.leaderboard import show
from submissions.leaderboard.choose import correlation_of_files
from submissions.leaderboard.ledger import BY_HAND, Event, append, read, submissions
from submissions.leaderboard.show import add_score, select
from tests.submissions.fakes import TARGETS, fake_competition


@pytest.fixture
def competition(tmp_path: Path) -> Path:
    """A YAML (rmse, less is better) that has no submissions; its products go to a folder of the test."""
    return fake_competition(tmp_path)


def ledger_of(path: Path) -> Path:
    return Paths.of(str(path)).ledger


def submit(path: Path, name: str, day: int, **fields: object) -> None:
    when, base = f"2026-11-{day:02d}T10:00:00+00:00", {"file_digest": f"file {name}", "run": "cda943de32b5"}
    append(ledger_of(path), Event(when, "submitting", name, **{**base, **fields}))  # type: ignore[arg-type]
    append(ledger_of(path), Event(when, "submitted", name, ref="77"))


def submit_many(path: Path, n: int = 8) -> None:
    """Submissions `s1` and so on, each better than the one before; the leaderboard follows, and calls s3 far worse."""
    for i in range(1, n + 1):
        cv = 1 - 0.05 * i
        submit(path, f"s{i}", i, cross_fitted_score=cv, standard_error=0.02, chosen="mean", message=f"try {i}")
        add_score(ledger_of(path), cv + 0.1 + 0.002 * (-1) ** i + (0.5 if i == 3 else 0), None)


def said(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *more: str) -> str:
    monkeypatch.setattr(sys, "argv", ["", str(path), *more])
    capsys.readouterr()
    show.main()
    return capsys.readouterr().out


def rows_of(page: str) -> dict[str, list[str]]:
    lines = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells] for cells in lines}


def test_without_submissions_there_is_one_sentence(
    competition: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = competition.stem
    page = said(competition, capsys, monkeypatch)
    assert page == f"No submissions of {name} yet: ./run.sh submit {name} makes one and writes it down.\n"
    assert not ledger_of(competition).exists()


def test_every_submission_is_a_row_and_the_picture_is_drawn(
    competition: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_many(competition)
    submit(competition, "lost", 20, cross_fitted_score=0.3, message='one, "two" and\nthree, in many words' * 9)
    append(ledger_of(competition), Event("2026-11-20T10:01:00+00:00", "failed", "lost", message="3 rows too few"))
    submit(competition, "plain", 21, cross_fitted_score=1.3, message="run cda943de32b5, mean, cross-fitted rmse 0.3")
    append(ledger_of(competition), Event("2026-11-21T10:01:00+00:00", "submitting", "killed", run="0f1e2d3c4b5a"))
    page = said(competition, capsys, monkeypatch)
    assert page.startswith(f"# Submissions of {competition.stem}: rmse, less is better\n")
    rows = rows_of(page)
    header = ["id", "time", "run", "chosen", "cross_fitted", "public", "marks", "message"]  # no cv_score, no private
    assert rows["id"] == header
    assert rows["s2"] == ["s2", "11-02 10:00", "cda943de", "mean", "0.90000", "1.0020", "", "try 2"]
    assert (rows["s3"][6], rows["lost"][6], rows["killed"][6]) == ("outlier", "failed", "in doubt")
    assert (rows["lost"][7], rows["plain"][7]) == ("3 rows too few", "")  # what the run's columns say is not repeated
    assert list(rows) == ["id", *(f"s{i}" for i in range(1, 9)), "lost", "plain", "killed"]
    assert max(map(len, page.splitlines())) <= 120
    assert "- CV and leaderboard agree: Spearman" in page
    assert re.search(r"- s3: 0\.\d+ \(\d+\.\d standard errors of CV\) worse than the line of 7 others", page)
    assert "- s8: best by cross_fitted_score, 0.60000." in page
    assert "- killed: its upload began and its end is not known; ask with ./run.sh submit mixed --fetch." in page
    assert "- lost: failed: 3 rows too few" in page
    picture = Paths.of(str(competition)).report / "ledger.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "Picture: " in page


@pytest.mark.parametrize("columns", ["40", "100", "140"])
def test_messages_take_the_room_that_a_terminal_has(
    competition: Path, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_many(competition, 2)
    submit(competition, "last", 20, message="word " * 60)
    monkeypatch.setenv("COLUMNS", columns)
    page = said(competition, capsys, monkeypatch)
    widths = [len(line) for line in page.splitlines() if line.startswith("|")]
    assert set(widths) == {max(100, int(columns))}


def test_a_score_by_hand_goes_to_the_latest_without_one_or_to_the_one_named(
    competition: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, name in enumerate("abc", 1):
        submit(competition, name, i, cross_fitted_score=0.5, message=f"try {name}")
    append(ledger_of(competition), Event("2026-11-09T10:01:00+00:00", "failed", "c"))
    page = said(competition, capsys, monkeypatch, "--public", "0.61", "--private", "0")
    assert page.startswith("Added to b of 2026-11-02 10:00, try b.\n")
    said(competition, capsys, monkeypatch, "--public", "0.62")
    said(competition, capsys, monkeypatch, "--public", "0.65", "--submission", "b")
    scores = {s.submission: (s.public, s.private) for s in submissions(read(ledger_of(competition)))}
    assert scores == {"a": (0.62, None), "b": (0.65, 0.0), "c": (None, None)}
    with pytest.raises(ConfigError, match="must be a submission without a public score, and there is none among 3"):
        said(competition, capsys, monkeypatch, "--public", "0.6")
    with pytest.raises(ConfigError, match="must be one of a, b, c; found 'd'"):
        said(competition, capsys, monkeypatch, "--public", "0.6", "--submission", "d")
    with pytest.raises(ConfigError, match="--private must be a finite number; found nan"):
        said(competition, capsys, monkeypatch, "--private", "nan")
    with pytest.raises(ConfigError, match="--submission must come with the --public or --private"):
        said(competition, capsys, monkeypatch, "--submission", "a")
    assert len(read(ledger_of(competition))) == 10


def test_what_was_selected_is_marked_and_replaces_what_was_before(
    competition: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_many(competition, 3)
    select(ledger_of(competition), ["s1", "s2"])
    page = said(competition, capsys, monkeypatch, "--select", "s2", "s3")
    assert page.startswith("Noted here; select them on the platform's page")
    assert [name for name, cells in rows_of(page).items() if "selected" in cells[-2]] == ["s2", "s3"]
    append(ledger_of(competition), Event("2026-11-09T10:01:00+00:00", "failed", "s1"))
    with pytest.raises(ConfigError, match="must have reached the platform; s1 failed"):
        select(ledger_of(competition), ["s1"])
    with pytest.raises(ConfigError, match="must be one of s1, s2, s3; found 'x'"):
        select(ledger_of(competition), ["s2", "x"])


def test_a_name_that_is_no_competition_gets_no_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path))
    with pytest.raises(ConfigError):
        said(tmp_path / "nothing.yaml", capsys, monkeypatch, "--public", "0.5")
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_of_a_row_is_shown_and_a_damaged_one_is_named(
    competition: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(competition, "a", 1)
    path = ledger_of(competition)
    path.write_bytes(path.read_bytes()[:-10])
    page = " ".join(said(competition, capsys, monkeypatch).split())
    assert "| a | 11-01 10:00 | cda943de | in doubt |" in page
    assert "ledger.csv, line 3: 2026-11-01T10:00:00+00:00,submitted,a," in page
    assert "cut off while it was written, left out." in page
    path.write_text(path.read_text() + "\nnot a row\n")
    with pytest.raises(DataError, match=r"ledger\.csv, line 3: must be an event"):
        said(competition, capsys, monkeypatch)


def test_files_are_compared_on_ids_and_only_while_they_are_what_was_submitted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": [f"0{i}" for i in range(40)], **{t: rng.normal(size=40) for t in TARGETS}})
    other = table.assign(height=-table["height"])
    write_table(tmp_path / "a.csv", table)
    write_table(tmp_path / "b.csv", other.iloc[::-1])
    write_table(tmp_path / "c.csv", table.assign(height=1.0))
    a, b, c = (
        submissions([Event("2026", "submitted", name, sha256_of(tmp_path / file), file)])[0]
        for name, file in (("a", "a.csv"), ("b", "b.csv"), ("c", str(tmp_path / "c.csv")))
    )
    alike = correlation_of_files(tmp_path, "id")
    assert alike(a, a) == pytest.approx(1)
    assert alike(a, b) == pytest.approx(0)  # 1 for the one target, -1 for the other
    assert alike(a, c) == pytest.approx(1)  # a constant has no correlation, the other target has
    assert correlation_of_files(tmp_path, "row")(a, b) is None
    write_table(tmp_path / "b.csv", table)
    assert alike(a, b) is None
    (tmp_path / "a.csv").unlink()
    assert alike(a, c) is None


def test_of_two_rows_of_one_file_the_one_that_was_sent_counts_and_the_other_score_is_told(
    competition: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ledger_of(competition)
    submit(competition, "a1", 1, cross_fitted_score=0.7, file_digest="one")
    append(path, Event("2026-11-01T11:00:00+00:00", "submitted", "a1", ref=BY_HAND))
    submit(competition, "b2", 2, cross_fitted_score=0.7, file_digest="one")
    add_score(path, 0.71, 0.77, "b2")
    assert "same file" not in said(competition, capsys, monkeypatch)
    page = said(competition, capsys, monkeypatch, "--public", "0.9", "--submission", "a1")
    assert "a1 is the same file as b2, and has public 0.90000 where that has 0.71000" in " ".join(page.split())
    assert "- b2: best by" in page
    assert "The best private score is 0.77000, of b2; to select was b2 0.77000." in page
    assert "Its public score was 0.90000 before." in said(
        competition, capsys, monkeypatch, "--public", "0.8", "--submission", "a1"
    )
