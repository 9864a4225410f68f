"""Submit to the leaderboard and write down what became of it: `./run.sh submit [COMPETITION] [-m MESSAGE] [--file F]`.

The file is held against the sample first; then it says what is left of today's limit and asks before it spends a slot,
waits for the score, and says how it compares with the expected one. --kernel submits the notebook version that
`./run.sh kernel --push` uploaded, for a code competition.

Reads: the submission of the latest run (or --file), the sample, the run that the file is of.
Writes: work/<name>/ledger.csv, and a copy of the file in work/<name>/submitted/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from competition import command
from competition.config import CompetitionConfig, load_competition
from competition.durations import in_words, seconds_of
from competition.errors import ConfigError, DataError, ServiceError, SubmissionError
from competition.files import digest, read_json, read_text_table, sha256_of, write_atomically
from competition.metrics import load_metric
from competition.paths import Paths, shown
from competition.revision import revision
from submissions.apply import (
    BLEND,
    BLEND_FILE,
    SELECTION,
    STACK,
    STACK_FILE,
    SUBMISSION_FILE,
    check_submission,
    read_step,
)
from submissions.blend import number
from submissions.kernel.push import pushed_notebook
from submissions.leaderboard import client
from submissions.leaderboard.attempts import attempt, is_open, require_unspent, settle, wait_for_score
from submissions.leaderboard.ledger import (
    BY_HAND,
    Event,
    Submission,
    append,
    new_submission,
    now,
    read,
    submissions,
)


@dataclass(frozen=True)
class Made:
    """What a submission is of; empty where no run made it."""

    run: str = ""
    chosen: str = ""
    cv_score: float | None = None
    cross_fitted_score: float | None = None
    standard_error: float | None = None


@dataclass(frozen=True)
class Sending:
    """What is submitted: a file, or a version of a notebook.

    digest: of the content, by which it is known again.
    name: for a person.
    file: None for a notebook.
    send: takes slug, message and, of a file, the copy that was kept; sends it, returns the platform's reference.
    """

    digest: str
    name: str
    made: Made
    file: Path | None
    send: Callable[[str, str, Path | None], str]


def made_by(file: Path, paths: Paths) -> Made:
    """The run that has this very file, and its scores.

    Raises:
        DataError: if that run has changed since.
    """
    known = sha256_of(file)
    for run in sorted((paths.root / "submissions").glob("*/")):
        for name, step in ((SUBMISSION_FILE, SELECTION), (BLEND_FILE, BLEND), (STACK_FILE, STACK)):
            if (run / name).is_file() and sha256_of(run / name) == known:
                return scores_of(run, step)
    return Made()


def scores_of(run: Path, step: str) -> Made:
    """The scores of the file that a step of a run wrote: as chosen, and as to be expected.

    Raises:
        DataError: if the run has changed since.
    """
    stored = read_step(run, step)
    if step == SELECTION:
        whole = stored["procedure"]
        return Made(
            run.name, stored["chosen"], stored["cross_fitted_score"], whole["cross_fitted_score"],
            whole["standard_error"],
        )  # fmt: skip
    score = stored["candidates"][stored["chosen"]]["cross_fitted_score"]  # that of a candidate that was not chosen
    return Made(run.name, stored["chosen"], score, score)


def file_to_send(competition: CompetitionConfig, paths: Paths, file: Path | None) -> Sending:
    """A file that fits the sample; None for the submission of the latest run.

    Raises:
        DataError: if there is no run.
        SubmissionError: if it does not fit.
    """
    if file is None:
        if not paths.latest_run.exists():
            raise DataError(f"{paths.root} must hold a finished run, and does not; run ./run.sh full {paths.name}.")
        file = latest_run(paths) / SUBMISSION_FILE
    known = sha256_of(file) if file.is_file() else ""  # before the check: `keep` finds what is changed from then on
    check_submission(file, read_text_table(competition.sample_submission), competition.id)
    return Sending(
        known, f"{shown(file)}, which fits the sample", made_by(file, paths), file,
        lambda slug, message, copy: client.submit_file(slug, copy or file, message),
    )  # fmt: skip


def notebook_to_send(paths: Paths) -> Sending:
    """The version of the notebook that was pushed last.

    Raises:
        DataError: if none was pushed, or the pack is another one by now.
    """
    notebook, version = pushed_notebook(paths)
    run = paths.run(read_json(paths.pack.facts, "run")["run"])
    return Sending(
        digest([notebook, version], 64), f"version {version} of {notebook}", scores_of(run, SELECTION), None,
        lambda slug, message, _: client.submit_kernel(slug, notebook, version, message),
    )  # fmt: skip


def latest_run(paths: Paths) -> Path:
    """Folder of the run that was finished last."""
    return paths.run(paths.latest_run.read_text().strip())


def message_of(made: Made, metric: str) -> str:
    """Run, chosen method and cross-fitted score."""
    if not made.run:
        return "a file of no run"
    return f"run {made.run}, {made.chosen}, cross-fitted {metric} {_with_error(made)}"


def _with_error(made: Made | Submission) -> str:
    error = "" if made.standard_error is None else f" +- {made.standard_error:.2g}"
    return f"{number(made.cross_fitted_score)}{error}"


def keep(file: Path, known: str, copy: Path) -> None:
    """Copy what is sent, so that later runs, also those that end while a question waits, leave it alone.

    Args:
        known: digest of the file that was checked.

    Raises:
        SubmissionError: if it has changed since.
    """
    write_atomically(copy, file.read_bytes())
    if sha256_of(copy) != known:
        copy.unlink()
        raise SubmissionError(
            f"{shown(file)} must stay as it was checked, and has changed since; run the same command again."
        )


def confirm(question: str) -> bool:
    """Ask on the terminal.

    Raises:
        ConfigError: if there is nobody to answer.
    """
    if not sys.stdin.isatty():
        raise ConfigError("a slot is spent only after a yes; nobody can answer here. Add --yes.")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def spend(slug: str, sending: Sending, event: Event, paths: Paths, again: bool, yes: bool) -> bool:
    """Look, ask and send; whether it was sent.

    Args:
        event: `submitting`, to be written.
        again: whether it may have been sent before.
        yes: whether not to ask.

    Raises:
        SubmissionError: if it was sent before, or has changed since it was checked.
        ServiceError: if none is left today, or the platform refuses.
    """
    known = settle(slug, paths)
    if not again:
        require_unspent(sending.digest, known)
    limits = client.limits(slug)
    if limits.left_today == 0:
        if limits.per_day is None:
            raise ServiceError(f"{slug} must take one more submission, and Kaggle says that you have used all of them.")
        raise ServiceError(
            f"{slug} takes {limits.per_day} submissions a day and none is left; come back tomorrow (UTC)."
        )
    of = "" if limits.per_day is None else f" of {limits.per_day}"
    left = "the platform does not say how many are" if limits.left_today is None else f"{limits.left_today}{of}"
    print(f"{slug}: {left} left today")
    if not (yes or confirm("Send it?")):
        return False
    name, copy = sending.name, None
    if sending.file is not None:
        copy = paths.submitted(event.submission)
        keep(sending.file, sending.digest, copy)
        name = str(copy.relative_to(paths.root))
    event = replace(event, time=now(), file=name)
    attempt(slug, event, lambda message: sending.send(slug, message, copy), paths)
    print(f"Sent as {event.submission}.")
    return True


def fetch(slug: str, paths: Paths, greater_is_better: bool) -> list[str]:
    """Ask the platform for what is not known yet; a line per submission that it was asked about."""
    waiting = {one.submission for one in submissions(read(paths.ledger)) if is_open(one)}
    asked = [one for one in settle(slug, paths) if one.submission in waiting]
    return [f"{one.submission}: {outcome(one, greater_is_better)}" for one in asked] or [
        "No submission waits for a score."
    ]


def outcome(one: Submission, greater_is_better: bool, waited: float | None = None) -> str:
    """What became of a submission, in a line; `waited` seconds, None where nobody did."""
    if one.status == "failed":
        return f"The platform did not score it: {one.message}"
    if one.public is None:
        after = "yet" if waited is None else f"after {in_words(waited)}"
        return f"No score {after}; ask again later with --fetch."
    private = "" if one.private is None else f", private {number(one.private)}"
    expected = "" if one.cross_fitted_score is None else f"; cross-fitted {_with_error(one)}"
    if one.cross_fitted_score is not None and one.standard_error:
        off = (one.public - one.cross_fitted_score) / one.standard_error * (1 if greater_is_better else -1)
        expected += f", so public is {abs(off):.1f} standard errors {'better' if off > 0 else 'worse'}"
    return f"public {number(one.public)}{private}{expected}"


def main() -> None:
    """Command line."""
    args = _options()
    competition, paths = load_competition(args.competition), Paths.of(args.competition)
    if competition.kaggle is None and not args.dry_run:
        raise ConfigError(
            "competition.kaggle of the YAML must be the last part of the competition's address on Kaggle; there is "
            "none. Add it, or use --dry-run for another platform."
        )
    slug = str(competition.kaggle)
    metric = load_metric(competition.metric, competition.greater_is_better)
    with command.locked(paths, paths.submit_lock):
        if args.fetch:
            print("\n".join(fetch(slug, paths, metric.greater_is_better)))
        else:
            sending = notebook_to_send(paths) if args.kernel else file_to_send(competition, paths, args.file)
            event = _event(sending, args.message or message_of(sending.made, metric.name))
            print(f"{sending.name}: {event.message}")
            if args.dry_run:
                _write_down(sending, event, paths)
            elif not spend(slug, sending, event, paths, args.again, args.yes):
                print("Nothing was sent.")
                return
    if not (args.fetch or args.dry_run or args.no_wait):
        one = wait_for_score(slug, event.submission, paths, args.wait)
        print(outcome(one, metric.greater_is_better, args.wait))
    print(f"All submissions: ./run.sh ledger {args.competition}")


def _event(sending: Sending, message: str) -> Event:
    made = sending.made
    return Event(
        time=now(), event="submitting", submission=new_submission(), file_digest=sending.digest, run=made.run,
        chosen=made.chosen, revision=revision(), cv_score=made.cv_score, cross_fitted_score=made.cross_fitted_score,
        standard_error=made.standard_error, message=message,
    )  # fmt: skip


def _write_down(sending: Sending, event: Event, paths: Paths) -> None:
    """The checked file and a row for a platform that the user goes to."""
    if sending.file is None:
        raise ConfigError("--dry-run is for a file; a notebook is proved with ./run.sh kernel --try.")
    copy = paths.submitted(event.submission)
    keep(sending.file, sending.digest, copy)
    name = str(copy.relative_to(paths.root))
    append(paths.ledger, replace(event, event="submitted", file=name, ref=BY_HAND))
    print(f"Nothing was sent. Submit {shown(copy)} yourself, and write its score down:")
    print(f"./run.sh ledger {paths.name} --submission {event.submission} --public SCORE")


def _options() -> argparse.Namespace:
    options = command.parser(__doc__, takes=())
    options.add_argument("-m", "--message", help="shown on the platform (default: run, chosen method and score)")
    options.add_argument("--file", type=Path, help="another file than the submission of the latest run")
    options.add_argument("--kernel", action="store_true", help="the notebook version that kernel --push uploaded")
    options.add_argument("--yes", action="store_true", help="spend the slot without asking")
    options.add_argument("--again", action="store_true", help="send what was sent before")
    options.add_argument("--dry-run", action="store_true", help="check and write down, send nothing")
    options.add_argument("--fetch", action="store_true", help="only ask for scores of what was sent before")
    options.add_argument("--wait", type=seconds_of, default=1800.0, metavar="TIME", help="for the score (default: 30m)")
    options.add_argument("--no-wait", action="store_true", help="do not wait for the score")
    args: argparse.Namespace = options.parse_args()
    return args


if __name__ == "__main__":
    command.run(main)
