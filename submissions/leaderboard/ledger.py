"""What was submitted, work/<name>/ledger.csv: one row per submission, the whole file written anew with each change.

A row is there before anything is sent, so that a process which dies leaves a trace of what it was doing.
"""

from __future__ import annotations

import csv
import fcntl
import secrets
import shutil
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from competition.errors import ConfigError, DataError
from competition.files import read_text_table, write_table
from competition.paths import shown

STATES = ("submitting", "submitted", "scored", "failed", "lost")
BY_HAND = "by hand"
"""`ref` of a file that this program did not send."""
NEVER_ARRIVED = ": never arrived"
"""End of the message of a lost submission in an earlier ledger, which had a row per event."""


@dataclass(frozen=True)
class Submission:
    """One row; texts that are not known are empty, numbers None.

    submission: its id, see `new_id`.
    time: UTC, ISO 8601 to the second.
    status: submitting, until the platform has answered; submitted; scored; failed; lost: the platform does not list it.
    run, chosen: the run that made it, and the candidate.
    standard_error: of the cross_fitted_score.
    public, private: scores on the leaderboard, in the competition's metric.
    selected: "yes" for what the user selected on the platform.
    file, file_digest: what was sent, relative to the competition's products, and its sha256.
    ref: the platform's own name of the submission.
    """

    submission: str
    time: str
    status: str
    run: str = ""
    chosen: str = ""
    cv_score: float | None = None
    cross_fitted_score: float | None = None
    standard_error: float | None = None
    public: float | None = None
    private: float | None = None
    selected: str = ""
    message: str = ""
    file: str = ""
    file_digest: str = ""
    revision: str = ""
    ref: str = ""


COLUMNS = [field.name for field in fields(Submission)]
NUMBERS = [field.name for field in fields(Submission) if field.default is None]


def now() -> str:
    """The time of a submission."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_id() -> str:
    """An id for a submission: a letter and 5 hexadecimal digits; spreadsheets take 012345 and 12e456 for numbers."""
    return secrets.choice("abcdef") + secrets.token_hex(3)[1:]


def read(path: Path) -> list[Submission]:
    """All submissions in order of time; none where there is no file. An earlier ledger of events is converted.

    Raises:
        DataError: naming the row, if one is damaged.
    """
    if not path.exists():
        return []
    if path.read_bytes().startswith(b"time,event,submission,"):
        _convert(path)
    table = read_text_table(path)
    if list(table.columns) != COLUMNS:
        raise DataError(f"{path} must begin with {','.join(COLUMNS)}; put the line back, or move the file away.")
    found = []
    for i, row in enumerate(table.to_dict("records"), 2):
        try:
            numbers = {name: float(row[name]) if row[name] else None for name in NUMBERS}
            if row["status"] not in STATES:
                raise ValueError(f"the status {row['status']!r} is none of {', '.join(STATES)}")
        except ValueError as error:
            raise DataError(f"{path}, row {i} is damaged ({error}); correct it or delete it.") from None
        found.append(Submission(**{name: numbers.get(name, row[name]) for name in COLUMNS}))
    return sorted(found, key=lambda one: one.time)


def write(path: Path, one: Submission) -> None:
    """Add a submission, or replace the row that has its id; other processes may do so at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    one = replace(one, message=" ".join(one.message.split()))
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write_all(path, [*(other for other in read(path) if other.submission != one.submission), one])


def _write_all(path: Path, known: list[Submission]) -> None:
    write_table(path, pd.DataFrame([asdict(one) for one in known], columns=COLUMNS))


def named(name: str, known: list[Submission]) -> Submission:
    """The submission with an id.

    Raises:
        ConfigError: if there is none.
    """
    for one in known:
        if one.submission == name:
            return one
    raise ConfigError(
        f"There is no submission {name!r}; the ledger has {', '.join(one.submission for one in known) or 'none yet'}."
    )


def _convert(path: Path) -> None:
    """Replace a ledger of events by one of submissions; a copy stays beside it as ledger_events.csv.

    The last value of each cell counts; a row that was cut off while it was written is left out.
    """
    copy = path.with_name("ledger_events.csv")
    shutil.copy(path, copy)
    found: dict[str, dict[str, str]] = {}
    selected = ""
    for event in csv.DictReader(copy.read_text(encoding="utf-8").splitlines()):
        if event["event"] == "selected":
            selected = event["submission"]
        elif None not in event.values():
            former = found.setdefault(event["submission"], {"time": event["time"]})
            former |= {name: value for name, value in event.items() if value and name != "time"}
    for name, row in found.items():
        status = row.pop("event")
        lost = status == "failed" and row["message"].endswith(NEVER_ARRIVED)
        row |= {"status": "lost" if lost else status, "selected": "yes" if name in selected.split() else ""}
        row["message"] = row.get("message", "").removesuffix(NEVER_ARRIVED)
    write_table(path, pd.DataFrame(list(found.values()), columns=COLUMNS))
    print(f"{shown(path)} has one row per submission now; the events are kept in {shown(copy)}.")
