"""The log of submissions: no row is lost or joined, whoever writes at once and whoever is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from competition.errors import DataError
from competition.paths import PROJECT
from submissions.leaderboard.ledger import (
    HEADER,
    TORN,
    Event,
    append,
    new_submission,
    now,
    read,
    submissions,
    torn_rows,
)

WRITER = """
import sys
from pathlib import Path
from submissions.leaderboard.ledger import Event, append, now
path, name, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for i in range(n):
    append(path, Event(now(), "submitted", f"{name}{i}", message="x" * (i % 300), cv_score=i / 7))
"""


def writer(path: Path, name: str, n: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, str(n)], cwd=PROJECT)


def at(second: int, event: str = "submitted", submission: str = "a1", **more: object) -> Event:
    return Event(f"2026-11-20T10:00:{second:02d}+00:00", event, submission, **more)  # type: ignore[arg-type]


def test_an_event_comes_back_as_it_went_in(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.csv"
    full = Event(
        now(), "scored", new_submission(), "ab" * 32, "submission, 2.csv", "cda943de32b5", "shrunk_ridge", "0a1b-dirty",
        0.1 + 0.2, 1e-17, -0.5, 0.75, 123456789.125, 'a "quoted", é', "ref,1",
    )  # fmt: skip
    empty = Event(now(), "submitting", new_submission())
    append(path, full)
    append(path, empty)
    assert read(path) == [full, empty]
    assert torn_rows(path) == []
    assert path.read_text().count(HEADER) == 1


def test_a_log_that_is_not_there_has_no_events(tmp_path: Path) -> None:
    assert read(tmp_path / "ledger.csv") == torn_rows(tmp_path / "ledger.csv") == []
    assert list(tmp_path.iterdir()) == []


def test_newlines_in_a_message_become_spaces_and_a_score_that_is_none_stays_out(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    append(path, at(0, message="two\r\nlines\u2028and  \t more\n", public=float("nan"), private=float("inf")))
    (event,) = read(path)
    assert (event.message, event.public, event.private) == ("two lines and more", None, None)
    assert len(path.read_bytes().splitlines()) == 2


def test_two_processes_that_write_at_once_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    writers = [writer(path, name, 500) for name in "pq"]
    assert [process.wait(timeout=60) for process in writers] == [0, 0]
    events = read(path)
    for name in "pq":
        assert [e.submission for e in events if e.submission[0] == name] == [f"{name}{i}" for i in range(500)]
    assert path.read_text().count(HEADER) == 1


def test_a_killed_writer_leaves_whole_rows_and_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    process = writer(path, "p", 10**6)
    while not path.exists() or len(path.read_bytes()) < 20_000:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    append(path, at(1))
    names = [event.submission for event in read(path)]
    assert names == [*(f"p{i}" for i in range(len(names) - 1)), "a1"]


@pytest.mark.parametrize("cut", [3, len(HEADER) + 1, len(HEADER) + 40, -1])
def test_a_row_that_was_cut_off_is_kept_apart_and_shown(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "ledger.csv"
    append(path, at(0, message='says "é', submission="torn"))
    path.write_bytes(path.read_bytes()[:cut])  # within the header, at its end, inside of the row, before its newline
    rows_left = 0 if cut == len(HEADER) + 1 else 1
    assert read(path) == []  # before the next writer
    assert len(torn_rows(path)) == rows_left
    append(path, at(1))
    append(path, at(2))
    assert read(path) == [at(1), at(2)]
    assert len(torn_rows(path)) == rows_left
    if cut == -1:
        cells = "2026-11-20T10:00:00+00:00,submitted,torn,,,,,,,,,,,"
        assert torn_rows(path) == [f'line 2: {cells}"says ""é",']
        assert f'é",{TORN}\n' in path.read_text()


def test_a_full_disk_leaves_no_part_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.csv"
    append(path, at(0))
    whole = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:20]))
    with pytest.raises(OSError, match="no room for a row"):
        append(path, at(1))
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("2026-11-20T10:00:00+00:00,submitted,a1", "it has 3 cells"),
        ("yesterday,submitted,a1" + "," * 12, "yesterday"),
        ("2026-11-20T10:00:00+00:00,deleted,a1" + "," * 12, "no event 'deleted'"),
        ("2026-11-20T10:00:00+00:00,submitted," + "," * 12, "of a submission ''"),
        ("2026-11-20T10:00:00+00:00,scored,a1" + "," * 6 + "much" + "," * 6, "much"),
        (
            "2026-11-20T10:00:00+00:00,scored,a1" + "," * 6 + "nan" + "," * 6,
            "is nan",
        ),
        ('2026-11-20T10:00:00+00:00,submitted,"a1' + "," * 12, "end of data"),
    ],
)
def test_a_damaged_row_is_named_with_its_line(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "ledger.csv"
    append(path, at(0))
    with path.open("a") as file:
        file.write(f"{line}\n")
    append(path, at(1))
    with pytest.raises(DataError, match=rf"{re.escape(str(path))}, line 3: .*({why})"):
        read(path)


def test_a_file_without_the_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    path.write_text("id,y\n1,2\n")
    with pytest.raises(DataError, match=r"ledger\.csv, line 1: must be time,event,submission"):
        read(path)


def test_a_log_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    append(path, at(0))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    append(path, at(1))
    assert read(path) == [at(0), at(1)]


def test_no_id_of_an_attempt_is_a_number_to_a_spreadsheet() -> None:
    ids = {new_submission() for _ in range(500)}
    assert len(ids) > 490 and all(re.fullmatch("[a-f][0-9a-f]{5}", one) for one in ids)


def test_an_attempt_has_the_last_value_of_each_field_and_the_time_of_its_first_event() -> None:
    (one,) = submissions(
        [
            at(1, "submitting", file="s.csv", message="first", cv_score=0.0),
            at(2, "submitted", ref="77"),
            at(9, "scored", public=0.5),
            at(12, "scored", private=0.0, public=0.6),
        ]
    )
    assert (one.time, one.status) == (at(1).time, "scored")
    assert (one.file, one.message, one.ref) == ("s.csv", "first", "77")
    assert (one.cv_score, one.public, one.private) == (0.0, 0.6, 0.0)


def test_attempts_stand_in_order_of_time_with_their_last_status() -> None:
    events = [
        at(5, submission="late"),
        at(1, "submitting", "early"),
        at(2, "submitting", "lost"),
        at(6, "failed", "early"),
    ]
    assert [(one.submission, one.status) for one in submissions(events)] == [
        ("early", "failed"), ("lost", "submitting"), ("late", "submitted"),
    ]  # fmt: skip
    assert submissions([]) == []


def test_the_last_choice_is_the_one_that_counts() -> None:
    events = [at(i, submission=name) for i, name in enumerate("abc")]
    chosen = [*events, at(7, "selected", "a b"), at(7, "selected", "b c")]
    assert [one.selected for one in submissions(chosen)] == [False, True, True]
    assert [one.status for one in submissions(chosen)] == ["submitted"] * 3
