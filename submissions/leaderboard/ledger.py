"""Show all submissions of a competition and their scores: `./run.sh ledger [COMPETITION]`.

--public and --private add a score by hand, if `./run.sh submit` did not wait for it or the platform is another
one. The ledger is work/NAME/ledger.csv, one row per submission. A row is written before anything is sent, so that it
stays if the process dies.
"""

import math
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from competition.config import load_competition, validate
from core import cli
from core.errors import ConfigError, DataError
from core.files import read_text_table, write_table
from core.paths import Paths
from core.settings import StrictModel
from core.text import format_number
from submissions.run import CHOICE, MANIFEST, candidate_file, read_manifest

BOARDS = ("cross_fitted_score", "public", "private")
MIN_FILES = 3
"""Number of files with two scores that a rank correlation needs."""
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


def add_scores(ledger: Path, given: dict[str, float], name: str | None = None) -> Submission:
    """Add scores to a submission; return it without them.

    Args:
        given: "public", "private" or both -> score.
        name: id of the submission; None for the latest one that has not failed and has none of these scores.
    """
    if not all(map(math.isfinite, given.values())):
        raise ConfigError("--public and --private take a finite number.")
    rows = read(ledger)
    without = [
        row for row in rows if row.status != "failed" and all(getattr(row, board) is None for board in given)
    ]
    if name is None and not without:
        raise ConfigError("All submissions have this score; choose the one to correct with --submission.")
    row = find_submission(name, rows) if name else without[-1]
    write(ledger, row.with_changes(status="scored", **given))
    return row


def page(competition: str) -> str:
    """Return the table of submissions, and how similarly CV and the leaderboard rank them, for a terminal."""
    metric, paths = load_competition(competition).scorer, Paths.for_competition(competition)
    rows = read(paths.ledger)
    if not rows:
        return (
            f"No submissions of {paths.name} yet: ./run.sh submit {paths.name} makes one and writes it down."
        )
    table = pd.DataFrame([row.model_dump() for row in rows])
    files = table[table["status"] != "failed"].drop_duplicates("file_digest", keep="last")
    direction = "greater" if metric.greater_is_better else "lower"
    title = f"# Submissions of {paths.name}: {metric.name}, {direction} is better"
    return "\n\n".join([title, _table(table), "\n".join(rank_correlations(files[[*BOARDS]].astype(float)))])


def rank_correlations(scores: pd.DataFrame) -> list[str]:
    """Return a sentence per pair of scores on how similarly they rank the files."""
    lines = []
    for first, second in combinations(BOARDS, 2):
        complete = scores[[first, second]].dropna()
        if len(complete) >= MIN_FILES:
            rho = complete[first].corr(complete[second], "spearman")
            lines.append(f"Spearman of {first} and {second}: {rho:.2f}, n = {len(complete)}.")
    return lines or [
        f"A rank correlation of CV and the leaderboard needs {MIN_FILES} files with both scores."
    ]


def _table(table: pd.DataFrame) -> str:
    """Return a row per submission; empty columns are left out."""
    is_default = table["message"].str.startswith("run ")
    table = table.assign(message=table["message"].where(~is_default, "").str.slice(stop=60))
    columns = ["submission", "time", "run", "chosen", *BOARDS, "status", "message"]
    table = table[columns].astype(object).replace("", None).dropna(axis=1, how="all")
    return str(table.fillna("-").to_string(index=False, float_format=format_number, justify="left"))


def main() -> None:
    """Parse the command line and run the command."""
    options = cli.parser(__doc__, "ledger", ())
    options.add_argument(
        "--public", type=float, metavar="SCORE", help="Add a score on the public leaderboard."
    )
    options.add_argument(
        "--private", type=float, metavar="SCORE", help="Add a score on the private leaderboard."
    )
    options.add_argument(
        "--submission", metavar="ID", help="Submission of --public and --private (default: the latest)."
    )
    args = options.parse_args()
    load_competition(args.competition)  # a misspelled name gets no ledger
    paths = Paths.for_competition(args.competition)
    scores = {"public": args.public, "private": args.private}
    given = {board: score for board, score in scores.items() if score is not None}
    if args.submission and not given:
        raise ConfigError("--submission needs the score to add, --public or --private.")
    if given:
        with cli.locked(paths, paths.submit_lock):
            row = add_scores(paths.ledger, given, args.submission)
        print(f"Added to {row.submission} of {row.time}: {row.message}\n")
    print(page(args.competition))


if __name__ == "__main__":
    cli.run(main)
