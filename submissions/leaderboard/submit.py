"""Submit to the leaderboard and write down what became of it: `./run.sh submit [COMPETITION] [-m MESSAGE]
[--file F]`.

The file is held against the sample first; then it says how many submissions are left and asks before it
spends one, waits for the score, and says how it compares with the expected one. --kernel submits the notebook
version that `./run.sh kernel --push` uploaded, for a code competition.

Nothing is sent twice, and nothing that was sent is forgotten: a submission is in the ledger before anything
is sent, and its message on the platform ends with its id. So where the end of it is not known, after a lost
connection or a kill, the platform's own list tells.

Reads: the submission of the latest run (or --file), the sample, the run that the file is of.
Writes: work/<name>/ledger.csv, and a copy of the file in work/<name>/submitted/.
"""

import argparse
import secrets
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from competition import cli
from competition.config import CompetitionConfig, load_competition
from competition.errors import ConfigError, ServiceError, SubmissionError
from competition.files import digest, read_json, read_text_table, sha256_of, write_atomically
from competition.metrics import Metric
from competition.paths import Paths, display_path
from competition.revision import revision
from competition.task import build_metric, build_task
from submissions.formatting import format_number, format_with_error
from submissions.kernel.push import pushed_notebook
from submissions.leaderboard import client
from submissions.leaderboard.ledger import (
    BY_HAND,
    Submission,
    find_run,
    find_submission,
    read,
    scores_of,
    write,
)
from submissions.run import SUBMISSION_FILE, latest_run
from submissions.submission_file import check_submission

LIMIT = 1800.0
"""Seconds that a score is waited for."""
STATES = {"PENDING": "submitted", "COMPLETE": "scored", "ERROR": "failed"}
"""The platform's states in the ledger's words."""
ENDED = {"scored", "failed"}
Send = Callable[[str], str]
"""Sends a submission with a message and returns the platform's reference."""


def settle(slug: str, ledger: Path) -> list[Submission]:
    """Bring the ledger up to what the platform knows: submissions with an unknown end, scores that came
    later.

    What it does not list is lost, and looked for again with every later submission: platforms may be slow.
    """
    waiting = [one for one in read(ledger) if is_open(one)]
    listed = client.submissions(slug) if waiting else []
    for one in waiting:
        tag = f"[{one.submission}]"
        found = next(
            (each for each in listed if str(each.ref) == one.ref or each.description.endswith(tag)), None
        )
        if found is None:
            write(ledger, one.but(status="lost" if one.status == "submitting" else one.status))
            continue
        public, private = (
            float(score) if score else None for score in (found.public_score, found.private_score)
        )
        one = one.but(ref=str(found.ref), status=STATES[found.status.name], public=public, private=private)
        write(
            ledger,
            one.but(message=f"{one.message}: {found.error_description}") if one.status == "failed" else one,
        )
    return read(ledger)


def is_open(one: Submission) -> bool:
    """Whether the platform may know more of a submission than the ledger."""
    return one.status != "failed" and one.ref != BY_HAND and one.private is None


def attempt(slug: str, one: Submission, send: Send, ledger: Path) -> None:
    """Send a submission; after an error the platform's list tells whether it arrived all the same."""
    write(ledger, one)
    try:
        ref = send(f"{one.message} [{one.submission}]")
    except ServiceError as error:
        time.sleep(client.POLL)
        found = find_submission(one.submission, settle(slug, ledger))
        if found.status == "lost":
            write(ledger, found.but(message=f"{one.message}: {error}"))
            raise
        print(f"The platform's list has the submission: it arrived, in spite of an error ({error}).")
    else:
        write(ledger, one.but(status="submitted", ref=ref))


def file_to_send(competition: CompetitionConfig, paths: Paths, file: Path) -> tuple[Submission, Send]:
    """The ledger's row of a file that fits the sample, and how its copy is sent, which later runs leave
    alone.
    """
    check_submission(
        file, read_text_table(competition.sample_submission), competition.id, build_task(competition)
    )
    print(f"{display_path(file)} fits the sample")
    file_digest = sha256_of(file)
    copy = paths.submitted(file_digest[:12])
    write_atomically(copy, file.read_bytes())
    row = _row(str(copy.relative_to(paths.root)), file_digest, find_run(paths, file_digest))
    return row, partial(client.submit_file, str(competition.kaggle), copy)


def notebook_to_send(slug: str, paths: Paths) -> tuple[Submission, Send]:
    """The same for the version of the notebook that was pushed last."""
    notebook, version = pushed_notebook(paths)
    made = scores_of(paths.run(read_json(paths.kernel.bundle.manifest, "run")["run"]))
    row = _row(f"version {version} of {notebook}", digest([notebook, version], 64), made)
    return row, partial(client.submit_kernel, slug, notebook, version)


def _row(file: str, file_digest: str, made: dict[str, Any]) -> Submission:
    name = (
        secrets.choice("abcdef") + secrets.token_hex(3)[1:]
    )  # spreadsheets take 012345 and 12e456 for numbers
    time_sent = datetime.now(UTC).isoformat(timespec="seconds")
    sent = {"file": file, "file_digest": file_digest, "revision": revision(), **made}
    return Submission(submission=name, time=time_sent, status="submitting", **sent)


def confirm(question: str) -> bool:
    """Ask on the terminal, where there is somebody to answer."""
    if not sys.stdin.isatty():
        raise ConfigError("A slot is spent only after a yes, and nobody can answer here. Add --yes.")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def check_slot(slug: str, row: Submission, ledger: Path, again: bool) -> None:
    """Check that there is a slot, and that what it is spent on was not sent before, unless `again` allows it."""
    for one in settle(slug, ledger):
        sent = one.status in ("submitted", "scored") and one.ref != BY_HAND
        if sent and one.file_digest == row.file_digest and not again:
            raise SubmissionError(
                f"This was sent at {one.time} as {one.submission}, public {format_number(one.public)}; "
                f"--again "
                "spends another slot on it."
            )
    left = client.submissions_left(slug)
    if left == 0:
        raise ServiceError(f"You have used all submissions that {slug} takes now.")
    print(f"{slug}: {'an unknown format_number' if left is None else left} left now")


def outcome(one: Submission, metric: Metric) -> str:
    """What became of a submission, in a line."""
    if one.public is None:
        return f"{one.submission}: {one.status}, {one.message}"
    expected = format_with_error(one.cross_fitted_score, one.standard_error)
    public, private = format_number(one.public), format_number(one.private)
    said = f"{one.submission}: public {public}, private {private}, cross-fitted {expected}"
    if one.cross_fitted_score is None or not one.standard_error:
        return said
    off = (one.public - one.cross_fitted_score) / one.standard_error * (1 if metric.greater_is_better else -1)
    return f"{said}, so public is {abs(off):.1f} standard errors {'better' if off > 0 else 'worse'}"


def main() -> None:
    """Command line."""
    args = _options()
    competition, paths = load_competition(args.competition), Paths.for_competition(args.competition)
    ledger = paths.ledger
    slug, metric = str(competition.kaggle), build_metric(competition)
    if competition.kaggle is None and not args.dry_run:
        raise ConfigError(
            "competition.kaggle of the YAML is missing, the last part of the competition's address on "
            "Kaggle. Add it, "
            "or use --dry-run for another platform."
        )
    with cli.locked(paths, paths.submit_lock):
        if args.fetch:
            waiting = [one.submission for one in read(ledger) if is_open(one)]
            asked = [one for one in settle(slug, ledger) if one.submission in waiting]
            print("\n".join(outcome(one, metric) for one in asked) or "No submission waits for a score.")
            return
        if args.kernel:
            row, send = notebook_to_send(slug, paths)
        else:
            row, send = file_to_send(
                competition, paths, args.file or latest_run(paths.name).folder / SUBMISSION_FILE
            )
        expected = format_with_error(row.cross_fitted_score, row.standard_error)
        of_run = f"run {row.run}, {row.chosen}, cross-fitted {metric.name} {expected}"
        row = row.but(message=args.message or (of_run if row.run else "a file of no run"))
        print(f"{row.file}: {row.message}")
        if args.dry_run:
            write(ledger, row.but(status="submitted", ref=BY_HAND))
            print(
                f"Nothing was sent. Submit {display_path(paths.root / row.file)} yourself, and write its "
                f"score down:"
            )
            print(f"./run.sh ledger {args.competition} --submission {row.submission} --public SCORE")
            return
        check_slot(slug, row, ledger, args.again)
        if not (args.yes or confirm("Send it?")):
            print("Nothing was sent.")
            return
        attempt(slug, row, send, ledger)
        print(f"Sent as {row.submission}.")
        if not args.no_wait:
            print("Waiting for the score, half an hour at most; --fetch asks for it later.", flush=True)
            client.wait(
                row.submission,
                lambda: find_submission(row.submission, settle(slug, ledger)).status,
                ENDED,
                LIMIT,
            )
            print(outcome(find_submission(row.submission, read(ledger)), metric))
    print(f"All submissions: ./run.sh ledger {args.competition}")


def _options() -> argparse.Namespace:
    options = cli.parser(__doc__, takes=())
    options.add_argument(
        "-m", "--message", help="shown on the platform (default: run, chosen method and score)"
    )
    what = options.add_mutually_exclusive_group()
    what.add_argument("--file", type=Path, help="another file than the submission of the latest run")
    what.add_argument(
        "--kernel", action="store_true", help="the notebook version that kernel --push uploaded"
    )
    what.add_argument("--fetch", action="store_true", help="only ask for scores of what was sent before")
    options.add_argument("--yes", action="store_true", help="spend the slot without asking")
    options.add_argument("--again", action="store_true", help="send what was sent before")
    options.add_argument("--dry-run", action="store_true", help="check and write down, send nothing")
    options.add_argument(
        "--no-wait", action="store_true", help="do not wait for the score, half an hour at most"
    )
    return options.parse_args()


if __name__ == "__main__":
    cli.run(main)
