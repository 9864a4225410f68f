"""The folder of a run, work/<name>/submissions/<run>/: the names of its files, and the fields of run.json.

run.json                  `Manifest`: configuration, candidates, and the choice among them; written last
oof.csv                   ids, folds, labels and the out-of-fold predictions of all stages and of the
                          submission (`Run.oof`)
candidates/NAME.json      a fitted candidate
candidates/NAME.csv       its submission
stages/NAME.csv           the submission of a single stage
candidates.parquet        cross-fitted predictions, or labels, of each candidate
cross_fitted.csv          the same of the submission
submission.csv            the submission of the chosen candidate
spread.csv                standard deviation of each row's prediction over seeds and folds
NAME.yaml                 the competition with the stages, epochs and seeds of the run, for any command
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from core.errors import DataError
from core.files import read_json, sha256_of, write_json
from core.paths import display_path
from core.settings import StrictModel
from core.text import format_table, format_within
from models.registry import BASELINE
from submissions.blend.scoring import describe_resamples
from submissions.levels import MISSING, Level

MANIFEST = "run.json"
SUBMISSION_FILE = "submission.csv"
OOF_TABLE = "oof.csv"
CROSS_FITTED = "cross_fitted.csv"
CANDIDATES_TABLE = "candidates.parquet"
STD_FILE = "spread.csv"
SO_FAR = "so_far"
"""Folder of a submission that is not complete, next to those of the runs."""
FORMAT = 7
"""Version of the fields of run.json and of the files of candidates."""
TIME = "time"
EPOCHS = "epochs"
"""Reasons of a budget: a stage or seed is left out, or a network has fewer epochs than the YAML says."""
BUDGET_ADVICE = (
    "A larger --budget trains more, and --budget none everything in full; finished jobs are kept, except "
    "those of networks that get more epochs."
)
LEFT_OUT_HEADER = ["stage", "seed", "reason", "error"]
NOT_EXAMINED = "It was not examined whether test rows differ from training rows."
ONLY_BASELINE = "WARNING: no stage but the baseline was finished, so the submission is that of the baseline."
MAX_ERROR = 110
"""Characters of an error in tables."""


def _none_unless_finite(value: Any) -> Any:
    return None if isinstance(value, Real) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_none_unless_finite)]
"""A number; None if it is undefined or infinite."""


@dataclass(frozen=True)
class LeftOut:
    """A stage, or one of its seeds, that is not in a run.

    Attributes:
        seed: None for the whole stage.
        reason: see `models.jobs.scheduler.JobResult`; EPOCHS for a stage that is in the run with fewer
            epochs.
        error: one line.
        log: file with the traceback.
    """

    stage: str
    seed: int | None
    reason: str
    error: str
    log: Path | str | None = None

    @property
    def row(self) -> list[str]:
        """Row of a table with the columns LEFT_OUT_HEADER."""
        seed = "all" if self.seed is None else str(self.seed)
        return [self.stage, seed, self.reason, textwrap.shorten(self.error, MAX_ERROR, placeholder=" ...")]


def describe_left_out(left_out: Sequence[LeftOut]) -> str:
    """Return a table of what is left out, and the files of the tracebacks; "" if nothing is."""
    if not left_out:
        return ""
    lines = [
        "Left out:",
        "",
        format_table(LEFT_OUT_HEADER, [each.row for each in left_out]),
        *left_out_notes(left_out),
    ]
    return "\n".join(lines)


def left_out_notes(left_out: Sequence[LeftOut]) -> list[str]:
    """Return what to do about what a budget left out, and a line per traceback."""
    advice = [BUDGET_ADVICE] if any(each.reason in (TIME, EPOCHS) for each in left_out) else []
    logs = [
        f"traceback of {each.stage}: {display_path(Path(each.log))}"
        for each in left_out
        if each.log is not None
    ]
    return [*advice, *logs]


class StageRecord(StrictModel):
    """What a stage was made from."""

    key: str
    """Key of its jobs."""
    marks: list[str]
    """What a reader of the tables has to know about it (`submissions.report.scores.FLAGS`)."""


class Compared(StrictModel):
    """A score, compared with another one on the same rows, in the unit of the metric."""

    score: Number
    """Cross-fitted score."""
    difference: Number
    """It minus the other score."""
    score_standard_error: Number
    """Bootstrap standard error of the score."""
    standard_error: Number
    """Bootstrap standard error of the difference."""
    n_resamples: int
    """Number of resamples of both."""


class StageScores(Compared):
    """A single stage, compared with the submission."""

    target_scores: dict[str, Number]
    """Score of all targets, "all", and of each; of a single target only its score."""
    fold_scores: dict[str, list[Number]]
    """The same in each fold."""
    file: str
    """Its submission, relative to the folder of the run."""


class CandidateScores(StageScores):
    """A candidate, compared with the default."""

    in_sample_score: Number
    """Score on the rows that it was fitted on."""
    weights: dict[str, dict[str, float]]
    """Output -> stage -> weight, of a stack those of its base; empty for a candidate without weights."""
    settings: list[dict[str, float]]
    """Tuned settings of each target."""
    thresholds: list[Number]
    """Numbers of the decision that turns predictions into labels; empty without one."""
    is_postprocessed: bool
    """Whether `submissions.postprocess` is applied to it."""


class ExpectedShift(StrictModel):
    """How test rows differ from training rows."""

    sentence: str
    factor: Number
    """How many times larger the error of the test rows is expected to be; None if that was not measured."""


class Interval(StrictModel):
    """An interval that holds a value with the probability `coverage`."""

    lower: float
    upper: float
    coverage: float

    def holds(self, value: float) -> bool:
        """Return whether a value is in the interval."""
        return self.lower <= value <= self.upper


class Expected(StrictModel):
    """The score to expect on the test table (`submissions.expected_score`)."""

    score: Number
    """The cross-fitted score; under a shift that was measured, with an error that is `ExpectedShift.factor`
    times as large."""
    interval: Interval | None
    """None if the error of the test rows is not known."""
    unknown: str
    """Why it is not known, a sentence; "" if it is."""
    shift: ExpectedShift | None
    """None unless test rows differ from training rows."""
    warnings: list[str]
    """About a score that is not better than that of a constant, and test predictions with another mean or
    spread than those out of fold."""

    @property
    def text(self) -> str:
        """The score with its interval."""
        score, interval = describe_expected(self.score, self.interval)
        return f"{score} ({interval})"


def describe_expected(score: float | None, interval: Interval | None) -> tuple[str, str]:
    """Return a score to expect and its interval as text, with no digits beyond the second of half the interval."""
    if interval is None:
        return format_within(score, None), "interval not known"
    half = (interval.upper - interval.lower) / 2
    ends = f"{format_within(interval.lower, half)} to {format_within(interval.upper, half)}"
    return format_within(score, half), f"{interval.coverage:.0%} interval {ends}".replace("%", " %")


class Choice(StrictModel):
    """The candidates and the choice among them."""

    scores_labels: bool
    """Whether the metric scores labels, which a decision makes from predictions (`Task.scores_labels`)."""
    chosen: str
    """The candidate that is submitted."""
    default: str
    """The candidate that is submitted unless another one is clearly better."""
    reason: str
    """The reason of the choice, a sentence."""
    failed: list[str]
    """A line per candidate, or other part, that could not be made."""
    candidates: dict[str, CandidateScores]
    stages: dict[str, StageScores]
    best_stage: str
    """The stage with the best score. It is chosen on the same rows, which favours it a little."""
    ablation: dict[str, Compared]
    """Stage -> the default blend without it, compared with the blend of all."""
    expected: Expected

    @property
    def submitted(self) -> CandidateScores:
        """The candidate that is submitted."""
        return self.candidates[self.chosen]


class Manifest(StrictModel):
    """Content of run.json: what a later `predict` needs, and what the report and `compare` show."""

    format: int
    """FORMAT of the code that wrote it."""
    run: str
    """Name of the run: a digest of configuration, tables and keys of jobs."""
    made_from: str
    """Digest of predictions, code, packages and `submissions.run.Facts`."""
    level: Level
    """Level of the submission."""
    config: dict[str, Any]
    """The settings (`submissions.config.Config`) as data, so that a run survives changes of user code."""
    stages: dict[str, StageRecord]
    columns: list[str]
    """The stages in the order of the columns of the blends."""
    sample_columns: list[str]
    """Columns of sample_submission.csv."""
    n_folds: int
    folds: list[int]
    """Folds whose models are in the submission: all, except at the level of folds."""
    label_means: list[Number]
    """Means of the labels, or shares of the classes: predictions of rows that cannot be read."""
    tables: dict[str, str]
    """File name -> digest of the prepared tables and of folds.csv."""
    test_key: str
    """Digest of the test table."""
    user_code: list[tuple[str, str]]
    """Name and digest of each file of user code."""
    opened: dict[str, dict[str, str]]
    """What user code has opened for the tables, the jobs and the run (`core.user_code.Opened`)."""
    versions: dict[str, str]
    """Versions of Python and of packages."""
    left_out: list[LeftOut]
    """Requested stages and seeds that are not in the run."""
    budget: float | None
    """Seconds of the command that built the run; None without a budget."""
    shift: str | None
    """Digest of what was measured of the shift of the test rows; None if nothing was."""
    choice: Choice
    files: dict[str, str]
    """File of the folder -> its digest."""

    @property
    def remarks(self) -> list[str]:
        """A line per candidate, or other part, that is left out, and about a slow metric and a lone baseline."""
        lines = [*self.choice.failed, *describe_resamples(self.choice.submitted.n_resamples)]
        if self.left_out and all(stage["kind"] == BASELINE for stage in self.config["stages"].values()):
            lines.append(ONLY_BASELINE)
        if self.level not in MISSING:
            return lines
        return [*lines, f"{MISSING[self.level]} are left out: there was no time for them so far."]

    @property
    def metric(self) -> str:
        """The metric of the settings."""
        return str(self.config["competition"]["metric"])

    @property
    def classes(self) -> list[str]:
        """The classes of the settings."""
        return list(self.config["competition"]["classes"])


def candidate_file(name: str, suffix: str) -> str:
    """Return a file of a candidate, relative to the run's folder: fitted (.json), submission (.csv)."""
    return f"candidates/{name.replace(':', '.')}{suffix}"


def stage_file(name: str) -> str:
    """Return the submission of a single stage, relative to the folder of the run."""
    return f"stages/{name}.csv"


def read_manifest(folder: Path) -> Manifest:
    """Return run.json of a run; a DataError if it is missing, broken or of another version of the code."""
    path = folder / MANIFEST
    content = read_json(path, "run")
    if content.get("format") != FORMAT:
        raise DataError(
            f"{folder} was made by an older version of this code; run ./run.sh full NAME to make it again."
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path} is broken ({key}: {first['msg']}); delete {folder} and run ./run.sh full NAME."
        ) from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write run.json, the last file of a run."""
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def verify_files(folder: Path, *files: str, manifest: Manifest | None = None) -> Manifest:
    """Return run.json; a DataError if a file is missing or has changed.

    Args:
        files: files to verify; all by default.
        manifest: run.json if it was read before; None to read it.
    """
    manifest = manifest or read_manifest(folder)
    for name in files or manifest.files:
        file = folder / name
        if name not in manifest.files or not file.is_file() or sha256_of(file) != manifest.files[name]:
            raise DataError(
                f"{folder}: {name} is missing or has changed. Run ./run.sh full NAME to make it again."
            )
    return manifest
