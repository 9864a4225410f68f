"""The ledger of submissions, work/<name>/ledger.csv: one row per submission.

A row is written before anything is sent, so that it stays if the process dies.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from competition.config import validate
from competition.task import Task
from core.errors import ConfigError, DataError
from core.files import read_text_table, write_table
from core.paths import Paths
from core.settings import StrictModel
from submissions.run import (
    CANDIDATES_TABLE,
    CHOICE,
    MANIFEST,
    candidate_file,
    read_manifest,
    scored_rows,
    verify_files,
)

BY_HAND = "by hand"
"""`ref` of a file that was sent by hand."""


class Submission(StrictModel):
    """A row; unknown texts are empty, unknown numbers None."""

    model_config = {"extra": "ignore"}  # a column that a person has added is not kept
    submission: str  # its id
    time: str
    status: Literal["submitting", "submitted", "scored", "failed", "lost"]
    """submitting, until the platform has answered; lost: the platform does not list it."""
    run: str = ""  # that made it, with its candidate and what this is scored
    chosen: str = ""
    cross_fitted_score: float | None = None
    standard_error: float | None = None  # as an estimate of the score on the test table
    public: float | None = None  # on the leaderboard, as `private`
    private: float | None = None
    message: str = ""
    file: str = ""  # copy of the file, relative to the competition's outputs
    file_digest: str = ""
    revision: str = ""  # of the code
    ref: str = ""  # reference on the platform

    def with_changes(self, **changes: Any) -> "Submission":
        """Return the row with other values."""
        return self.model_copy(update=changes)


class Ledger(StrictModel):
    """The rows of the file by their number, for messages."""

    row: dict[int, Submission]


def read(path: Path) -> list[Submission]:
    """Return all submissions, the oldest first; [] if there is no file."""
    if not path.exists():
        return []
    rows = read_text_table(path).to_dict("index")
    rows = {number: {name: cell for name, cell in row.items() if cell} for number, row in rows.items()}
    return list(validate(Ledger, {"row": rows}, path).row.values())


def write(path: Path, *changed: Submission) -> None:
    """Add submissions, or replace the rows with their ids; the caller holds the lock."""
    rows = {one.submission: one.model_dump() for one in (*read(path), *changed)}
    write_table(path, pd.DataFrame(rows.values()))


def find_submission(name: str, rows: list[Submission]) -> Submission:
    """Return the submission with an id."""
    by_id = {one.submission: one for one in rows}
    if name not in by_id:
        raise ConfigError(f"Unknown submission {name!r}; the ledger has {', '.join(by_id) or 'none yet'}.")
    return by_id[name]


def find_run(paths: Paths, file_digest: str) -> dict[str, Any]:
    """Return run, candidate and scores of a file, as in the ledger; {} for a file of no run."""
    for manifest in sorted(paths.latest_run.parent.glob(f"[!.]*/{MANIFEST}")):
        with suppress(DataError):  # of another version of the code
            stored = read_manifest(manifest.parent)
            for name in (stored[CHOICE]["chosen"], *stored[CHOICE]["candidates"]):
                if stored["files"][candidate_file(name, ".csv")] == file_digest:
                    return scores_of(stored, name)
    return {}


def scores_of(stored: dict[str, Any], candidate: str) -> dict[str, Any]:
    """Return run, candidate and scores of the submission of a candidate, as in the ledger.

    Args:
        stored: content of run.json.
    """
    choice = stored[CHOICE]
    score = choice["candidates"][candidate]["score"]
    of_run = {"run": stored["run"], "chosen": candidate, "cross_fitted_score": score}
    if candidate == choice["chosen"]:
        of_run["standard_error"] = choice["expected"]["standard_error"]
    return of_run


def out_of_fold(paths: Paths, one: Submission, task: Task) -> pd.DataFrame:
    """Return the cross-fitted predictions, or labels, that the metric scores; indexed by id.

    There are no rows if the run scored labels and `task` scores predictions, or the other way round.
    """
    run = paths.run(one.run or "no run")
    if scored_rows(run, task).empty:
        return scored_rows(run, task)
    verify_files(run, CANDIDATES_TABLE)
    table = pd.read_parquet(run / CANDIDATES_TABLE).set_index("id")
    names = {f"{one.chosen} {column}": column for column in task.scored_columns}
    return table[[*names]].rename(columns=names)
