"""The ledger: a row per submission, whoever writes at once; a ledger of events is converted."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from competition.errors import ConfigError, DataError
from submissions.leaderboard.ledger import Submission, named, new_id, now, read, write

EVENTS = """time,event,submission,file_digest,file,run,chosen,revision,cv_score,cross_fitted_score,standard_error,\
public,private,message,ref
2026-11-20T10:00:00+00:00,submitting,a1,abab,submitted/a1.csv,cda9,mean,0a1b,0.5,0.55,0.01,,,"a ""first"", try",
2026-11-20T10:00:01+00:00,submitted,a1,,,,,,,,,,,,77
2026-11-20T10:00:09+00:00,scored,a1,,,,,,,,,0.6,,,77
2026-11-20T10:01:00+00:00,submitted,to <- torn
2026-11-20T11:00:00+00:00,submitting,b2,cdcd,,,,,,,,,,second,
2026-11-20T11:00:01+00:00,failed,b2,,,,,,,,,,,second: never arrived,
2026-11-20T12:00:00+00:00,selected,a1 b2,,,,,,,,,,,,
2026-11-20T12:00:01+00:00,selected,a1,,,,,,,,,,,,
2026-11-20T13:00:00+00:00,scored,a1,,,,,,,,,0.61,0.7,,77
2026-11-20T13:00:00+00:00,submi"""


def test_a_submission_comes_back_as_it_went_in_and_is_replaced_by_its_id(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.csv"
    assert read(path) == []
    full = Submission(
        new_id(), now(), "scored", "cda943de32b5", "shrunk_ridge", 0.1 + 0.2, 1e-17, -0.5, 0.75, 123456789.125, "yes",
        'a "quoted", é', "submission, 2.csv", "ab" * 32, "0a1b-dirty", "ref,1",
    )  # fmt: skip
    early = Submission("e12345", "2020-01-01T00:00:00+00:00", "submitting", message="two\r\nlines")
    write(path, full)
    write(path, early)
    assert read(path) == [replace(early, message="two lines"), full]  # in order of time
    write(path, replace(early, status="failed"))
    assert [one.status for one in read(path)] == ["failed", "scored"]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))  # saved by a spreadsheet
    assert read(path)[1] == full
    assert named(full.submission, read(path)) == full
    with pytest.raises(ConfigError, match="no submission 'x'; the ledger has e12345, "):
        named("x", read(path))


def test_writers_at_once_lose_no_row(tmp_path: Path) -> None:
    path, names = tmp_path / "ledger.csv", [f"p{i}" for i in range(16)]
    with ThreadPoolExecutor(4) as pool:  # the lock is on an opening of the file, so that threads are like processes
        list(pool.map(lambda name: write(path, Submission(name, now(), "submitting")), names))
    assert {one.submission for one in read(path)} == set(names)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0.5", "much", "row 2 .*much"),
        ("scored", "sent", "row 2 .*'sent'"),
        ("submission,", "id,", "must begin with"),
    ],
)
def test_a_damaged_ledger_is_named_with_its_row(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "ledger.csv"
    write(path, Submission("a1", now(), "scored", cv_score=0.5))
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=rf"{re.escape(str(path))}.*{words}"):
        read(path)


def test_a_ledger_of_events_is_converted_once_and_a_copy_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ledger.csv"
    path.write_text(EVENTS)
    a1, b2 = read(path)
    assert a1 == Submission(
        "a1", "2026-11-20T10:00:00+00:00", "scored", "cda9", "mean", 0.5, 0.55, 0.01, 0.61, 0.7, "yes",
        'a "first", try', "submitted/a1.csv", "abab", "0a1b", "77",
    )  # fmt: skip
    assert b2 == Submission("b2", "2026-11-20T11:00:00+00:00", "lost", message="second", file_digest="cdcd")
    assert (tmp_path / "ledger_events.csv").read_text() == EVENTS
    assert "the events are kept in" in capsys.readouterr().out
    assert read(path) == [a1, b2] and capsys.readouterr().out == ""


def test_no_id_is_a_number_to_a_spreadsheet() -> None:
    ids = {new_id() for _ in range(500)}
    assert len(ids) > 490 and all(re.fullmatch("[a-f][0-9a-f]{5}", one) for one in ids)
