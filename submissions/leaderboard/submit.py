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
from dataclasses import replace
from functools import partial
from pathlib import Path

from competition import command
from competition.config import CompetitionConfig, load_competition
from competition.durations import in_words, seconds_of
from competition.errors import ConfigError, DataError, ServiceError, SubmissionError
from competition.files import digest, read_json, read_text_table, sha256_of, write_atomically
from competition.metrics import Metric, load_metric
from competition.paths import Paths, shown
from competition.revision import revision
from submissions.kernel.push import pushed_notebook
from submissions.leaderboard import client
from submissions.leaderboard.ledger import BY_HAND, Submission, new_id, now, read, write
from submissions.leaderboard.origin import products, scores_of
from submissions.leaderboard.sending import attempt, is_open, settle, wait_for_score
from submissions.run import CHOICE, SUBMISSION_FILE, latest_run
from submissions.sample import check_submission
from submissions.words import number, with_error

Send = Callable[[str], str]
"""Sends a submission with a message and returns the platform's reference."""


def file_to_send(competition: CompetitionConfig, paths: Paths, file: Path) -> tuple[Submission, Send]:
    """The ledger's row of a file that fits the sample, and how it is sent.

    What is checked and sent is a copy, which later runs, and those that end while a question waits, leave alone.
    """
    if not file.is_file():
        raise DataError(f"There is no file {file}; correct --file, or run ./run.sh full {paths.name} again.")
    name = new_id()
    copy = paths.submitted(name)
    write_atomically(copy, file.read_bytes())
    try:
        check_submission(copy, read_text_table(competition.sample_submission), competition.id)
    except SubmissionError as error:
        copy.unlink()
        raise SubmissionError(str(error).replace(str(copy), str(file))) from None
    print(f"{shown(file)} fits the sample")
    made = products(paths).get(sha256_of(copy))
    row = _row(name, str(copy.relative_to(paths.root)), sha256_of(copy), made)
    return row, partial(client.submit_file, str(competition.kaggle), copy)


def notebook_to_send(slug: str, paths: Paths) -> tuple[Submission, Send]:
    """The same for the version of the notebook that was pushed last."""
    notebook, version = pushed_notebook(paths)
    run = paths.run(read_json(paths.kernel.bundle.manifest, "run")["run"])
    row = _row(new_id(), f"version {version} of {notebook}", digest([notebook, version], 64), (run, CHOICE))
    return row, partial(client.submit_kernel, slug, notebook, version)


def _row(name: str, file: str, file_digest: str, made: tuple[Path, str] | None) -> Submission:
    row = Submission(name, now(), "submitting", file=file, file_digest=file_digest, revision=revision())
    return replace(row, **scores_of(*made)) if made else row


def confirm(question: str) -> bool:
    """Ask on the terminal, where there is somebody to answer."""
    if not sys.stdin.isatty():
        raise ConfigError("A slot is spent only after a yes, and nobody can answer here. Add --yes.")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def spend(slug: str, row: Submission, send: Send, ledger: Path, again: bool, yes: bool) -> bool:
    """Look, ask (unless `yes`) and send; whether it was sent.

    Raises:
        SubmissionError: if it was sent before, which `again` allows.
        ServiceError: if none is left today, or the platform refuses.
    """
    for one in settle(slug, ledger):
        sent = one.status in ("submitted", "scored") and one.ref != BY_HAND
        if sent and one.file_digest == row.file_digest and not again:
            raise SubmissionError(
                f"This was sent at {one.time} as {one.submission}, public {number(one.public)}; --again spends another "
                "slot on it."
            )
    left, per_day = client.limits(slug) or ("an unknown number", None)
    if left == 0:
        which = f"the {per_day} submissions of today (UTC)" if per_day else "all submissions"
        raise ServiceError(f"You have used {which} of {slug}.")
    print(f"{slug}: {left}{f' of {per_day}' if per_day else ''} left today")
    if not (yes or confirm("Send it?")):
        return False
    attempt(slug, replace(row, time=now()), send, ledger)
    print(f"Sent as {row.submission}.")
    return True


def outcome(one: Submission, metric: Metric) -> str:
    """What became of a submission, in a line."""
    if one.public is None:
        return f"{one.submission}: {one.status}, {one.message}"
    expected = with_error(one.cross_fitted_score, one.standard_error)
    said = f"{one.submission}: public {number(one.public)}, private {number(one.private)}, cross-fitted {expected}"
    if one.cross_fitted_score is None or not one.standard_error:
        return said
    off = (one.public - one.cross_fitted_score) / one.standard_error * (1 if metric.greater_is_better else -1)
    return f"{said}, so public is {abs(off):.1f} standard errors {'better' if off > 0 else 'worse'}"


def main() -> None:
    """Command line."""
    args = _options()
    competition, paths = load_competition(args.competition), Paths.of(args.competition)
    slug, metric = str(competition.kaggle), load_metric(competition.metric, competition.greater_is_better)
    if competition.kaggle is None and not args.dry_run:
        raise ConfigError(
            "competition.kaggle of the YAML is missing, the last part of the competition's address on Kaggle. Add it, "
            "or use --dry-run for another platform."
        )
    with command.locked(paths, paths.submit_lock):
        if args.fetch:
            waiting = [one.submission for one in read(paths.ledger) if is_open(one)]
            asked = [one for one in settle(slug, paths.ledger) if one.submission in waiting]
            print("\n".join(outcome(one, metric) for one in asked) or "No submission waits for a score.")
            return
        if args.kernel:
            row, send = notebook_to_send(slug, paths)
        else:
            file = args.file or latest_run(paths.name).folder / SUBMISSION_FILE
            row, send = file_to_send(competition, paths, file)
        expected = with_error(row.cross_fitted_score, row.standard_error)
        of_run = f"run {row.run}, {row.chosen}, cross-fitted {metric.name} {expected}"
        row = replace(row, message=args.message or (of_run if row.run else "a file of no run"))
        print(f"{row.file}: {row.message}")
        if args.dry_run:
            write(paths.ledger, replace(row, status="submitted", ref=BY_HAND))
            print(f"Nothing was sent. Submit {shown(paths.root / row.file)} yourself, and write its score down:")
            print(f"./run.sh ledger {paths.name} --submission {row.submission} --public SCORE")
            return
        try:
            sent = spend(slug, row, send, paths.ledger, args.again, args.yes)
        finally:
            if all(one.submission != row.submission for one in read(paths.ledger)):
                paths.submitted(row.submission).unlink(missing_ok=True)
    if not sent:
        print("Nothing was sent.")
    elif args.wait:
        print(f"Waiting for the score, {in_words(args.wait)} at most; --fetch asks for it later.", flush=True)
        print(outcome(wait_for_score(slug, row.submission, paths.ledger, args.wait), metric))
    print(f"All submissions: ./run.sh ledger {args.competition}")


def _options() -> argparse.Namespace:
    options = command.parser(__doc__, takes=())
    options.add_argument("-m", "--message", help="shown on the platform (default: run, chosen method and score)")
    what = options.add_mutually_exclusive_group()
    what.add_argument("--file", type=Path, help="another file than the submission of the latest run")
    what.add_argument("--kernel", action="store_true", help="the notebook version that kernel --push uploaded")
    what.add_argument("--fetch", action="store_true", help="only ask for scores of what was sent before")
    options.add_argument("--yes", action="store_true", help="spend the slot without asking")
    options.add_argument("--again", action="store_true", help="send what was sent before")
    options.add_argument("--dry-run", action="store_true", help="check and write down, send nothing")
    options.add_argument("--wait", type=seconds_of, default=1800.0, metavar="TIME", help="for the score (default: 30m)")
    options.add_argument("--no-wait", dest="wait", action="store_const", const=0.0, help="do not wait for the score")
    return options.parse_args()


if __name__ == "__main__":
    command.run(main)
