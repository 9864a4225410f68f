"""The ledger: a row per submission; a ledger of events is converted."""

from __future__ import annotations

from pathlib import Path

import pytest

from competition.errors import ConfigError
from submissions.leaderboard.ledger import Submission, named, read, write
from tests.submissions.leaderboard.conftest import one

EVENTS = """time,event,submission,file_digest,file,run,chosen,revision,cv_score,cross_fitted_score,standard_error,\
public,private,message,ref
2026-11-20T10:00:00+00:00,submitting,b1,abab,submitted/b1.csv,cda9,mean,0a1b,0.5,0.55,0.01,,,"a ""first"", try",
2026-11-20T10:00:01+00:00,submitted,b1,,,,,,,,,,,,77
2026-11-20T10:00:09+00:00,scored,b1,,,,,,,,,0.6,,,77
2026-11-20T10:01:00+00:00,submitted,to <- torn
2026-11-20T11:00:00+00:00,submitting,a2,cdcd,,,,,,,,,,second,
2026-11-20T11:00:01+00:00,failed,a2,,,,,,,,,,,second: refused,
2026-11-20T12:00:00+00:00,selected,b1 a2,,,,,,,,,,,,
2026-11-20T12:00:01+00:00,selected,b1,,,,,,,,,,,,
2026-11-20T13:00:00+00:00,scored,b1,,,,,,,,,0.61,0.7,,77
2026-11-20T13:00:00+00:00,submi"""


def test_a_submission_comes_back_as_it_went_in_and_is_replaced_by_its_id(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.csv"
    assert read(path) == []
    first = one("e12345", message="two\nlines", status="submitting")
    full = one(
        "fedcba", 2, status="scored", run="cda943de32b5", chosen="shrunk_ridge", cv_score=0.1 + 0.2, public=0.0,
        cross_fitted_score=1e-17, standard_error=-0.5, private=123456789.125, selected="yes", message='a "quoted", é',
        file="submission, 2.csv", file_digest="ab" * 32, revision="0a1b-dirty", ref="ref,1",
    )  # fmt: skip
    write(path, first)
    write(path, full)
    assert read(path) == [first, full]
    write(path, first.but(status="failed"))
    assert [each.status for each in read(path)] == ["failed", "scored"]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))  # saved by a spreadsheet
    assert read(path)[1] == full == named(full.submission, read(path))
    with pytest.raises(ConfigError, match="no submission 'x'; the ledger has e12345, "):
        named("x", read(path))


def test_damaged_cells_are_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    write(path, one("a1", status="scored", cv_score=0.5))
    path.write_text(path.read_text().replace("0.5", "much").replace("scored", "sent"))
    with pytest.raises(ConfigError, match=r"ledger\.csv has 2 mistake[^$]*row\.2\.status[^$]*row\.2\.cv_score.*'much'"):
        read(path)


def test_a_ledger_of_events_is_converted_once_and_a_copy_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ledger.csv"
    path.write_text(EVENTS)
    b1, a2 = read(path)
    assert b1 == Submission(
        submission="b1", time="2026-11-20T10:00:00+00:00", status="scored", run="cda9", chosen="mean", cv_score=0.5,
        cross_fitted_score=0.55, standard_error=0.01, public=0.61, private=0.7, selected="yes",
        message='a "first", try', file="submitted/b1.csv", file_digest="abab", revision="0a1b", ref="77",
    )  # fmt: skip
    assert (a2.time, a2.status, a2.message) == ("2026-11-20T11:00:00+00:00", "failed", "second: refused")
    assert (tmp_path / "ledger_events.csv").read_text() == EVENTS
    assert "the events are kept in" in capsys.readouterr().out
    assert read(path) == [b1, a2] and capsys.readouterr().out == ""
    path.write_text(EVENTS.splitlines()[0] + "\n")
    assert read(path) == []
