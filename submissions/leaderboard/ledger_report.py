"""Show all submissions of a competition and their scores: `./run.sh ledger [COMPETITION]`.

--public and --private add a score by hand, if `./run.sh submit` did not wait for it or the platform is another
one.

Which two files to select for the private score is simulated: tables of the size of the test table are drawn from the
training rows with their out-of-fold predictions, by group, the same for all files. Most of the difference between
public and private scores comes from the choice of the rows (Roelofs et al., NeurIPS 2019).

Reads: ledger.csv, and the out-of-fold predictions of the runs. Writes: with --public or --private, rows of
ledger.csv.
"""

import math
import textwrap
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import pandas as pd

from competition.config import load_competition
from competition.metrics import Metric
from core import cli
from core.errors import ConfigError, DataError
from core.files import read_table
from core.paths import Paths
from core.text import format_number
from submissions.columns import training_labels
from submissions.leaderboard.ledger import (
    BY_HAND,
    Submission,
    find_submission,
    out_of_fold,
    read,
    write,
)

PUBLIC = "public"
PRIVATE = "private"
BOARDS = ("cross_fitted_score", PUBLIC, PRIVATE)
MIN_FILES = 3
"""Number of files with two scores that a rank correlation needs."""


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


def distinct(rows: list[Submission]) -> list[Submission]:
    """Return one submission per file that was sent: the latest with a score, else the latest."""
    sent = [
        row for row in rows if row.status == "scored" or (row.status == "submitted" and row.ref != BY_HAND)
    ]
    sent.sort(key=lambda row: row.status == "scored")
    return list({row.file_digest or row.submission: row for row in sent}.values())


def page(competition: str) -> str:
    """Return the table of submissions and remarks on their scores, for a terminal."""
    settings, paths = load_competition(competition), Paths.for_competition(competition)
    metric, rows = settings.scorer, read(paths.ledger)
    if not rows:
        return (
            f"No submissions of {paths.name} yet: ./run.sh submit {paths.name} makes one and writes it down."
        )
    files = distinct(rows)
    scores = pd.DataFrame([row.model_dump() for row in files], columns=["submission", *BOARDS])
    lines = rank_correlations(scores.set_index("submission").astype(float))
    tables = {}
    for row in files:
        with suppress(DataError):  # a file of no run, or of one that was deleted
            tables[row.submission] = out_of_fold(paths, row, settings.task)
    tables = {name: table for name, table in tables.items() if len(table)}
    drawn = None
    if tables:
        labels = training_labels(settings, paths)
        scored = {name: labels.aligned(table) for name, table in tables.items()}
        on_rows_of_all = labels.on_rows_of(*scored.values())
        if on_rows_of_all.has_fold.sum() >= 2:
            drawn = on_rows_of_all.resampled(scored, len(read_table(paths.test)))
    if drawn is not None:
        lines.append(pick_final_two(drawn, metric))
    else:
        why = (
            "The runs of these files are missing"
            if files
            else "None of these files has a score yet (--public)"
        )
        lines.append(f"{why}, so nothing says which two to select. Select by CV.")
    wrapped = [textwrap.fill(line, 110, initial_indent="- ", subsequent_indent="  ") for line in lines]
    label = f"{metric.name}, {'greater' if metric.greater_is_better else 'lower'} is better"
    return "\n\n".join([f"# Submissions of {paths.name}: {label}", _table(rows), "\n".join(wrapped)])


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


def pick_final_two(drawn: pd.DataFrame, metric: Metric) -> str:
    """Return which two files to select: the pair with the best expected score of its better file.

    Args:
        drawn: scores on the same drawn tables, (n_draws, n_files).
    """
    means = {str(name): f"{format_number(drawn[name].mean())} of {name}" for name in drawn}
    if len(means) == 1:
        return f"Select {next(iter(means))}; the mean score on the drawn rows is {means.popitem()[1]}."
    better = max if metric.greater_is_better else min
    expected = {
        pair: drawn[list(pair)].agg(better.__name__, axis=1).mean() for pair in combinations(means, 2)
    }
    a, b = better(expected, key=expected.__getitem__)
    return (
        f"Select {a} and {b}: the better of their scores on the drawn rows is "
        f"{format_number(expected[a, b])} "
        f"on average ({means[a]} and {means[b]} alone, correlation {drawn[a].corr(drawn[b]):.3f})."
    )


def _table(rows: list[Submission]) -> str:
    """Return a row per submission; empty columns are left out."""
    table = pd.DataFrame([row.model_dump() for row in rows])
    is_default = table["message"].str.startswith("run ")
    table["message"] = table["message"].where(~is_default, "").str.slice(stop=60)
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
    given = {
        board: score for board, score in ((PUBLIC, args.public), (PRIVATE, args.private)) if score is not None
    }
    if args.submission and not given:
        raise ConfigError("--submission needs the score to add, --public or --private.")
    if given:
        with cli.locked(paths, paths.submit_lock):
            row = add_scores(paths.ledger, given, args.submission)
        print(f"Added to {row.submission} of {row.time}: {row.message}\n")
    print(page(args.competition))


if __name__ == "__main__":
    cli.run(main)
