"""The ledger: work/<name>/ledger.csv with one row per submission, and the choice of the two final ones.

A row is written before anything is sent, so that it survives if the process dies.

Which two files to select for the private score is simulated: tables as large as the test table are resampled
from the training rows with their out-of-fold predictions, by group, the same for all files. Most of the
difference between public and private scores comes from the choice of the rows (Roelofs et al., NeurIPS 2019).
"""

import math
import textwrap
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from competition.config import CompetitionConfig, validate
from competition.dataset import read_prepared
from competition.metrics import Metric
from competition.task import Task
from core.errors import ConfigError, DataError
from core.files import write_table
from core.paths import Paths
from core.settings import StrictModel
from core.text import format_number, is_finite
from core.user_tables import read_text_table
from submissions.blend.scoring import describe_resamples
from submissions.columns import scored_rows, training_labels
from submissions.expected_score import rows_to_expect
from submissions.manifest import (
    CANDIDATES_TABLE,
    MANIFEST,
    Interval,
    Manifest,
    candidate_file,
    read_manifest,
    verify_files,
)
from submissions.run import name_of_latest

BY_HAND = "by hand"
"""`ref` of a file that was sent by hand."""
BOARDS = ("cross_fitted_score", "public", "private")
MIN_FILES = 3
"""Number of files with two scores that a rank correlation needs."""


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
    expected_score: float | None = None  # of the test table, with the ends of its interval and their coverage
    lower: float | None = None
    upper: float | None = None
    coverage: float | None = None
    public: float | None = None  # on the leaderboard, as `private`
    private: float | None = None
    message: str = ""
    file: str = ""  # copy of the file, relative to the competition's outputs
    file_digest: str = ""
    revision: str = ""  # of the code
    ref: str = ""  # reference on the platform

    @property
    def interval(self) -> Interval | None:
        """The interval of the score to expect on the test table."""
        if self.lower is None or self.upper is None or self.coverage is None:
            return None
        return Interval(lower=self.lower, upper=self.upper, coverage=self.coverage)

    def with_changes(self, **changes: Any) -> "Submission":
        """Return the row with other values."""
        return self.model_copy(update=changes)


class Ledger(StrictModel):
    """The rows of the file by their number, for messages."""

    row: dict[int, Submission]


def read(path: Path) -> list[Submission]:
    """Return all submissions, the oldest first; [] if the file is missing."""
    if not path.exists():
        return []
    rows = read_text_table(path).to_dict("index")
    filled = {}
    for number, row in rows.items():
        filled[number] = {name: cell for name, cell in row.items() if cell}
    return list(validate(Ledger, {"row": filled}, path).row.values())


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
    files = paths.latest_run.parent.glob(f"[!.]*/{MANIFEST}")
    latest = name_of_latest(paths)  # other runs may have made the same file
    for file in sorted(files, key=lambda file: (file.parent.name != latest, file)):
        with suppress(DataError):  # of another version of the code
            manifest = read_manifest(file.parent)
            for name in (manifest.choice.chosen, *manifest.choice.candidates):
                if manifest.files[candidate_file(name, ".csv")] == file_digest:
                    return scores_of(manifest, name)
    return {}


def scores_of(manifest: Manifest, candidate: str) -> dict[str, Any]:
    """Return run, candidate and scores of the submission of a candidate, as in the ledger."""
    choice = manifest.choice
    score = choice.candidates[candidate].score
    of_run: dict[str, Any] = {"run": manifest.run, "chosen": candidate, "cross_fitted_score": score}
    expected = choice.expected
    if candidate == choice.chosen:
        of_run["expected_score"] = expected.score
        of_run |= expected.interval.model_dump() if expected.interval else {}
    return of_run


def without_other_scores(competition: CompetitionConfig, row: Submission) -> Submission:
    """Return a submission without the scores of its run if the YAML has another metric now."""
    manifest = manifest_of(competition.paths, row)
    if manifest is None or Path(manifest.metric).name == Path(competition.metric).name:
        return row
    of_run = ("cross_fitted_score", "expected_score", "lower", "upper", "coverage")
    return row.with_changes(**dict.fromkeys(of_run))


def out_of_fold(paths: Paths, one: Submission, task: Task) -> pd.DataFrame:
    """Return the cross-fitted predictions, or labels, that the metric scores; indexed by id.

    There are no rows if the run scored labels and `task` scores predictions, or the other way round.
    """
    run = paths.run(one.run or "no run")
    rows = scored_rows(run, task)
    if rows.empty:
        return rows
    verify_files(run, CANDIDATES_TABLE)
    table = pd.read_parquet(run / CANDIDATES_TABLE).set_index("id")
    names = {f"{one.chosen} {column}": column for column in task.scored_columns}
    return table[[*names]].rename(columns=names)


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
    sent = [row for row in rows if row.status == "submitted" and row.ref != BY_HAND]
    sent += [row for row in rows if row.status == "scored"]
    return list({row.file_digest or row.submission: row for row in sent}.values())


def page(competition: CompetitionConfig) -> str:
    """Return the table of submissions and remarks on their scores, for a terminal."""
    paths = competition.paths
    metric = competition.scorer
    rows = [without_other_scores(competition, row) for row in read(paths.ledger)]
    if not rows:
        return f"No submissions of {paths.name} yet: ./run.sh submit {paths.on_command_line} makes one and records it."
    files = distinct(rows)
    manifests = [manifest_of(paths, row) for row in rows]
    shifts = [manifest.choice.expected.shift for manifest in manifests if manifest]
    begin = [shift.sentence for shift in shifts if shift][-1:]
    scores = pd.DataFrame([row.model_dump() for row in files], columns=["submission", *BOARDS])
    lines = rank_correlations(scores.set_index("submission").astype(float))
    drawn = draw_scores(competition, files)
    runs = [manifest_of(paths, row) for row in files]
    if len({run.tables["folds.csv"] for run in runs if run}) > 1:
        lines.append(
            "Runs of these files have different folds, by which their cross-fitted scores may differ: the choice of "
            "two is not simulated. Select by the leaderboard, or train them with the same folds."
        )
    elif drawn is not None:
        lines += [pick_final_two(drawn, metric), *describe_resamples(len(drawn))]
    else:
        none_scored = "None of these files has a score yet (--public)"
        why = "The runs of these files are missing" if files else none_scored
        lines.append(f"{why}, so the choice of two cannot be simulated. Select by CV.")
    wrapped = [textwrap.fill(line, 110, initial_indent="- ", subsequent_indent="  ") for line in lines]
    label = f"{metric.name}, {metric.direction}"
    return "\n\n".join([*begin, f"# Submissions of {paths.name}: {label}", _table(rows), "\n".join(wrapped)])


def manifest_of(paths: Paths, one: Submission) -> Manifest | None:
    """Return run.json of the run of a submission; None without the run, or of another version of the code."""
    try:
        return read_manifest(paths.run(one.run or "no run"))
    except DataError:
        return None


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


def draw_scores(competition: CompetitionConfig, files: list[Submission]) -> pd.DataFrame | None:
    """Return the scores of files on the same drawn tables, (n_draws, n_files); None without common rows."""
    paths = competition.paths
    tables = {}
    for row in files:
        with suppress(DataError):  # a file of no run, or of one that was deleted
            table = out_of_fold(paths, row, competition.task)
            if len(table):
                tables[row.submission] = table
    if not tables:
        return None
    labels = training_labels(competition, paths)
    scored = {name: labels.aligned(table) for name, table in tables.items()}
    labels = labels.on_rows_of(*scored.values())
    if labels.has_fold.sum() < 2:
        return None
    n_rows = rows_to_expect(
        competition.kaggle is not None, len(read_prepared(paths.test)), int(labels.has_fold.sum())
    )
    return labels.resampled(scored, n_rows)


def pick_final_two(drawn: pd.DataFrame, metric: Metric) -> str:
    """Return which two files to select: the pair with the best expected score of its better file.

    Args:
        drawn: scores on the same drawn tables, (n_draws, n_files).
    """
    means = {str(name): f"{format_number(drawn[name].mean())} of {name}" for name in drawn}
    if len(means) == 1:
        return f"Select {next(iter(means))}; the mean score on resampled rows is {means.popitem()[1]}."
    better = max if metric.greater_is_better else min
    expected = {
        pair: drawn[list(pair)].agg(better.__name__, axis=1).mean() for pair in combinations(means, 2)
    }
    a, b = better(expected, key=expected.__getitem__)
    return (
        f"Select {a} and {b}: the better of their scores on resampled rows is "
        f"{format_number(expected[a, b])} "
        f"on average ({means[a]} and {means[b]} alone, correlation {drawn[a].corr(drawn[b]):.3f})."
    )


def format_board_score(score: float | None) -> str:
    """Return a score with the digits of a leaderboard, or "-" without one."""
    return f"{score:.7g}" if is_finite(score) else "-"


def _table(rows: list[Submission]) -> str:
    """Return a row per submission; empty columns are left out."""
    table = pd.DataFrame([row.model_dump() for row in rows])
    is_default = table["message"].str.startswith("run ")
    table["message"] = table["message"].where(~is_default, "").str.slice(stop=60)
    table[[*BOARDS]] = table[[*BOARDS]].map(format_board_score)
    columns = ["submission", "time", "run", "chosen", *BOARDS, "status", "message"]
    table = table[columns].astype(object).replace(["", "-"], None).dropna(axis=1, how="all")
    return str(table.fillna("-").to_string(index=False, justify="left"))
