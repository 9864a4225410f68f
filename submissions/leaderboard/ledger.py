"""The ledger of submissions, work/<name>/ledger.csv: one row per submission.

A row is written before anything is sent, so that it stays if the process dies.
"""

from pathlib import Path
from typing import Any, Literal

import pandas as pd

from competition.config import validate
from competition.errors import ConfigError
from competition.files import read_table, read_text_table, sha256_of, write_table
from competition.paths import Paths
from competition.strict_model import StrictModel
from competition.task import Task
from submissions.run import (
    BLEND,
    BLEND_FILE,
    CHOICE,
    STACK,
    STACK_FILE,
    SUBMISSION_FILE,
    cross_fitted_file,
    read_manifest,
    scored_rows,
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
    cv_score: float | None = None
    cross_fitted_score: float | None = None
    standard_error: float | None = None  # of cross_fitted_score
    expected_score: float | None = None  # on the test table
    expected_standard_error: float | None = None
    public: float | None = None  # on the leaderboard, as `private`
    private: float | None = None
    message: str = ""
    file: str = ""  # copy of the file, relative to the competition's outputs
    file_digest: str = ""
    revision: str = ""  # of the code
    ref: str = ""  # reference on the platform

    @property
    def expected(self) -> tuple[float | None, float | None]:
        """The score to expect and its standard error; the cross-fitted score of a candidate that was not chosen."""
        if self.expected_score is None:
            return self.cross_fitted_score, self.standard_error
        return self.expected_score, self.expected_standard_error

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
    for name, step in ((SUBMISSION_FILE, CHOICE), (BLEND_FILE, BLEND), (STACK_FILE, STACK)):
        for file in sorted(paths.latest_run.parent.glob(f"[!.]*/{name}")):
            if sha256_of(file) == file_digest:
                return scores_of(file.parent, step)
    return {}


def scores_of(run: Path, step: str = CHOICE) -> dict[str, Any]:
    """Return run, candidate and scores of the file that a step of a run has written, as in the ledger."""
    matches = read_manifest(run, step)[step]
    made = {"run": run.name, "chosen": matches["chosen"]}
    if step != CHOICE:  # a candidate that was not chosen
        score = matches["candidates"][matches["chosen"]]["cross_fitted_score"]
        return made | {"cv_score": score, "cross_fitted_score": score}
    scores = {name: matches["procedure"][name] for name in ("cross_fitted_score", "standard_error")}
    expected = matches["expected"]
    scores |= {
        "expected_score": expected["score"],
        "expected_standard_error": expected["standard_error"],
    }
    return made | {"cv_score": matches["cross_fitted_score"], **scores}


def fold_variance(paths: Paths, one: Submission) -> list[float] | None:
    """Return the variance of the fold models of a run's submission on the test table, per target; None if unknown."""
    expected = read_manifest(paths.run(one.run or "no run"), CHOICE)[CHOICE]["expected"]
    variance: list[float] | None = expected["variance"]
    return variance


def out_of_fold(paths: Paths, one: Submission, task: Task) -> pd.DataFrame:
    """Return the cross-fitted predictions, or labels, that the metric scores; indexed by id.

    There are no rows if the run scored labels and `task` scores predictions, or the other way round.
    """
    run = paths.run(one.run or "no run")
    table = scored_rows(run, task)
    if read_manifest(run, CHOICE)[CHOICE]["chosen"] == one.chosen or table.empty:
        return table
    table = read_table(run / cross_fitted_file(one.chosen, task.scores_labels)).set_index("id")
    return table.filter(regex="^cross_fitted ").rename(
        columns=lambda name: name.removeprefix("cross_fitted ")
    )
