"""The log of a competition's submissions, work/<name>/ledger.csv: one event per row, rows are only ever added.

An attempt writes `submitting` before the upload, then `submitted` or `failed`, and `scored` with each score; all of
them carry its `submission`. A row is one write under a lock on the file and is on the disk when `append` returns, so
that a process which dies between two events leaves a trace of what it was doing. What is left of a row that was cut
off (a power failure, a full disk) is ended by the next writer with `TORN`, skipped by readers, and shown by the verb.
"""

from __future__ import annotations

import codecs
import csv
import errno
import fcntl
import io
import math
import os
import secrets
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from competition.errors import DataError

EVENTS = ("submitting", "submitted", "failed", "scored", "selected")
TORN = " <- torn"
BY_HAND = "by hand"
"""`ref` of a file that this program did not send."""


@dataclass(frozen=True)
class Event:
    """One row of the log; texts that are not known are empty, numbers None.

    time: UTC, ISO 8601 to the second.
    submission: of one attempt, see `new_submission`; of `selected`, all that are chosen, with spaces between.
    file_digest: sha256 of the file that was submitted.
    standard_error: of the cross_fitted_score.
    public, private: scores on the leaderboard, in the competition's metric.
    ref: the platform's own name of the submission.
    """

    time: str
    event: str
    submission: str
    file_digest: str = ""
    file: str = ""
    run: str = ""
    chosen: str = ""
    revision: str = ""
    cv_score: float | None = None
    cross_fitted_score: float | None = None
    standard_error: float | None = None
    public: float | None = None
    private: float | None = None
    message: str = ""
    ref: str = ""


@dataclass(frozen=True)
class Submission(Event):
    """One attempt: the last known value of every field, and the time of its first event.

    event: the last one, which is its status; `submitting` is an attempt of which nothing more is known.
    """

    selected: bool = False

    @property
    def status(self) -> str:
        """`submitting`, `submitted`, `scored` or `failed`."""
        return self.event


COLUMNS = tuple(field.name for field in fields(Event))
NUMBERS = tuple(field.name for field in fields(Event) if field.default is None)
HEADER = ",".join(COLUMNS)


def now() -> str:
    """The time of an event."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_submission() -> str:
    """An id for one attempt: a letter and 5 hexadecimal digits, drawn, since another process may begin one now.

    A spreadsheet takes 012345 and 12e456 for numbers, and saves other ones.
    """
    return secrets.choice("abcdef") + secrets.token_hex(3)[1:]


def append(path: Path, event: Event) -> None:
    """Add a row, which is on the disk when this returns; any number of processes may do so at once.

    White space in texts, newlines among it, becomes single spaces; a number that is not finite is none.

    Raises:
        OSError: if the disk takes only a part of the row; the part is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # closing lets it go, and so does the end of the process
        there = path.read_bytes()
        rows = [HEADER] if HEADER.encode() not in there.removeprefix(codecs.BOM_UTF8).splitlines() else []
        text = "".join(f"{row}\n" for row in [*rows, _row(event)])
        content = ("" if there.endswith(b"\n") or not there else f"{TORN}\n").encode() + text.encode()
        if os.write(descriptor, content) < len(content):
            os.ftruncate(descriptor, len(there))
            raise OSError(errno.ENOSPC, "there is no room for a row", str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> list[Event]:
    """All events, as they were added; none where there is no file.

    Raises:
        DataError: naming file and line, if a row is damaged otherwise than by the end of its writer (see `torn_rows`).
    """
    rows = [(number, line) for number, line in _lines(path) if not _is_torn(line)]
    if rows and rows[0][1] != HEADER.encode():
        raise DataError(f"{path}, line {rows[0][0]}: must be {HEADER}; move the file away, or put the line back.")
    return [_event(path, number, line) for number, line in rows[1:]]


def torn_rows(path: Path) -> list[str]:
    """What is left of rows whose writer was stopped in the middle, each with its line."""
    lines = _lines(path)
    torn = [(number, line.removesuffix(TORN.encode())) for number, line in lines if _is_torn(line)]
    return [f"line {number}: {line.decode(errors='replace')}" for number, line in torn]


def submissions(events: Sequence[Event]) -> list[Submission]:
    """The attempts behind events, in order of time."""
    found: dict[str, Submission] = {}
    chosen: set[str] = set()
    for event in events:
        if event.event == "selected":
            chosen = set(event.submission.split())
        elif (former := found.get(event.submission)) is None:
            found[event.submission] = Submission(*astuple(event))
        else:
            known = {name: value for name, value in vars(event).items() if value not in ("", None)}
            found[event.submission] = replace(former, **{**known, "time": former.time})
    marked = [replace(one, selected=one.submission in chosen) for one in found.values()]
    return sorted(marked, key=lambda one: one.time)


def _row(event: Event) -> str:
    cells = [_cell(getattr(event, name)) for name in COLUMNS]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _cell(value: str | float | None) -> str:
    if isinstance(value, str):
        return " ".join(value.split())
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def _lines(path: Path) -> list[tuple[int, bytes]]:
    """Lines with their numbers; a last one that has no end, whose writer is gone, as one that is marked."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # nobody is writing
            *ended, last = file.read().removeprefix(codecs.BOM_UTF8).split(b"\n")  # a mark of spreadsheets
    except FileNotFoundError:
        return []
    lines = [*ended, last + TORN.encode()] if last else ended
    numbered = enumerate((line.rstrip(b"\r") for line in lines), 1)  # saved by a spreadsheet
    return [(number, line) for number, line in numbered if line]


def _is_torn(line: bytes) -> bool:
    return line.endswith(TORN.encode())


def _event(path: Path, number: int, line: bytes) -> Event:
    try:
        (cells,) = csv.reader([line.decode()], strict=True)
        if len(cells) != len(COLUMNS):
            raise ValueError(f"it has {len(cells)} cells")
        values = {name: _value(name, cell) for name, cell in zip(COLUMNS, cells, strict=True)}
        event = Event(**values)  # type: ignore[arg-type]
        datetime.fromisoformat(event.time)
        if event.event not in EVENTS or not event.submission:
            raise ValueError(f"no event {event.event!r} of a submission {event.submission!r}")
    except (csv.Error, ValueError) as error:
        raise DataError(
            f"{path}, line {number}: must be an event of {len(COLUMNS)} cells ({error}); mend or remove the line."
        ) from None
    return event


def _value(name: str, cell: str) -> str | float | None:
    if name not in NUMBERS:
        return cell
    if cell and not math.isfinite(float(cell)):
        raise ValueError(f"{name} is {cell}")
    return float(cell) if cell else None
