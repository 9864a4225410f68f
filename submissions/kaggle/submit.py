"""Submissions to the leaderboard.

Nothing is sent twice, and nothing that was sent is lost: a submission is in the ledger before it is sent, and
its message on the platform ends with its id. If its outcome is unknown, after a lost connection or a kill,
the platform's list is read.
"""

import secrets
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from competition.config import CompetitionConfig, load_competition
from competition.metrics import Metric
from core import cli
from core.errors import ConfigError, ServiceError, SubmissionError, UserError
from core.files import PROJECT, digest, read_json, sha256_of, work_root, write_atomically
from core.paths import display_path
from core.user_tables import read_text_table
from submissions.kaggle import client
from submissions.kaggle.ledger import (
    BY_HAND,
    Submission,
    find_run,
    find_submission,
    format_board_score,
    read,
    scores_of,
    without_other_scores,
    write,
)
from submissions.kaggle.paths import Kernel
from submissions.kaggle.push import pushed_notebook
from submissions.manifest import SUBMISSION_FILE, describe_expected, read_manifest
from submissions.run import latest_run
from submissions.submission_file import check_submission

LIMIT = 1800.0
"""Seconds to wait for a score."""
STATES = {"PENDING": "submitted", "COMPLETE": "scored", "ERROR": "failed"}
"""State on the platform -> status in the ledger."""
ENDED = {"scored", "failed"}
Send = Callable[[str], str]
"""Sends a submission with a message and returns the platform's reference."""


def sync_ledger(competition: CompetitionConfig) -> list[Submission]:
    """Update the ledger from the platform's list; return its rows.

    A submission that is not listed is lost. It is searched again with every later submission, since platforms
    may be slow.
    """
    ledger = competition.paths.ledger
    waiting = [row for row in read(ledger) if is_open(row)]
    listed = client.submissions(str(competition.kaggle)) if waiting else []
    for row in waiting:
        entries = [
            entry
            for entry in listed
            if str(entry.ref) == row.ref or entry.description.endswith(f"[{row.submission}]")
        ]
        if not entries:
            write(ledger, row.with_changes(status="lost" if row.status == "submitting" else row.status))
            continue
        entry = entries[0]
        status = STATES[entry.status.name]
        reason = f": {entry.error_description}" if status == "failed" else ""
        row = row.with_changes(
            ref=str(entry.ref),
            status=status,
            public=float(entry.public_score) if entry.public_score else None,
            private=float(entry.private_score) if entry.private_score else None,
            message=f"{row.message}{reason}",
        )
        write(ledger, row)
    return read(ledger)


def is_open(row: Submission) -> bool:
    """Return whether the platform may have news about a submission."""
    return row.status != "failed" and row.ref != BY_HAND and row.private is None


def send_once(competition: CompetitionConfig, row: Submission, send: Send) -> None:
    """Send a submission; after an error, check in the platform's list whether it arrived."""
    ledger = competition.paths.ledger
    write(ledger, row)
    try:
        ref = send(f"{row.message} [{row.submission}]")
    except ServiceError as error:
        time.sleep(client.POLL)
        sent = find_submission(row.submission, sync_ledger(competition))
        if sent.status == "lost":
            write(ledger, sent.with_changes(message=f"{row.message}: {error}"))
            raise
        print(f"The submission arrived despite an error ({error}): the platform lists it.")
    else:
        write(ledger, row.with_changes(status="submitted", ref=ref))


def file_to_send(competition: CompetitionConfig, file: Path) -> tuple[Submission, Send]:
    """Return the ledger row of a file, and a function that sends a copy, which later runs do not change.

    Raises:
        SubmissionError: if the file does not match the sample.
    """
    form = read_text_table(file).attrs.get("form")
    if form:
        raise SubmissionError(f"{display_path(file)} is no plain CSV ({form}); save it as one.")
    check_submission(file, read_text_table(competition.sample_submission), competition.id, competition.task)
    print(f"{display_path(file)} matches the sample")
    paths = competition.paths
    file_digest = sha256_of(file)
    copy = paths.submitted(file_digest[:12])
    write_atomically(copy, file.read_bytes())
    row = _row(str(copy.relative_to(paths.root)), file_digest, find_run(paths, file_digest))
    return row, partial(client.submit_file, str(competition.kaggle), copy)


def notebook_to_send(competition: CompetitionConfig) -> tuple[Submission, Send]:
    """Return the ledger row of the latest pushed version of the notebook, and a function that submits it."""
    paths = competition.paths
    notebook, version = pushed_notebook(paths)
    bundle = Kernel.of(paths).bundle
    packed = read_json(bundle.manifest, "run")
    manifest = read_manifest(bundle.work / paths.run(packed["run"]).relative_to(work_root()))
    made = scores_of(manifest, manifest.choice.chosen)
    row = _row(f"version {version} of {notebook}", digest([notebook, version], 64), made)
    return row, partial(client.submit_kernel, str(competition.kaggle), notebook, version)


def _row(file: str, file_digest: str, made: dict[str, Any]) -> Submission:
    # An id with only digits, such as 012345 or 12e456, would be a number in a spreadsheet.
    name = secrets.choice("abcdef") + secrets.token_hex(3)[1:]
    time_sent = datetime.now(UTC).isoformat(timespec="seconds")
    sent = {"file": file, "file_digest": file_digest, "revision": revision(), **made}
    return Submission(submission=name, time=time_sent, status="submitting", **sent)


def revision() -> str:
    """Return the short hash of git, with `-dirty` if files differ; "unknown" for untracked code."""
    try:
        # The folder may be inside the repository of another project.
        _git("ls-files", "--error-unmatch", "run.sh")
        return _git("describe", "--always", "--dirty", "--exclude=*", "--abbrev=10").strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def confirm(question: str) -> bool:
    """Return the answer of the user at a terminal; a ConfigError without a terminal."""
    if not sys.stdin.isatty():
        raise ConfigError("Sending needs a confirmation, and there is no terminal. Add --yes.")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def check_slot(competition: CompetitionConfig, row: Submission) -> None:
    """Check that a submission is left, and that the file was not sent before."""
    for sent_row in sync_ledger(competition):
        was_sent = sent_row.status in ("submitted", "scored") and sent_row.ref != BY_HAND
        if was_sent and sent_row.file_digest == row.file_digest:
            raise SubmissionError(
                f"This was sent at {sent_row.time} as {sent_row.submission}, public "
                f"{format_board_score(sent_row.public)}, and would get the same score."
            )
    slug = str(competition.kaggle)
    n_left = client.submissions_left(slug)
    if n_left == 0:
        raise ServiceError(f"No submissions to {slug} are left for now.")
    print(f"{slug}: {'an unknown number of' if n_left is None else n_left} submissions left")


def describe_outcome(row: Submission, metric: Metric) -> str:
    """Return the status or the scores of a submission, in a line."""
    if row.public is None:
        return f"{row.submission}: {row.status}, {row.message}"
    public = format_board_score(row.public)
    private = format_board_score(row.private)
    line = f"{row.submission}: public {public}, private {private}, expected {_expected(row)}"
    interval = row.interval
    if interval is None:
        return line
    if interval.holds(row.public):
        return f"{line}, which holds the public score"
    is_better = (row.public > interval.upper) == metric.greater_is_better
    note = "the interval is for the whole test table, and scores of a part of it vary more"
    return f"{line}: public is {'better' if is_better else 'worse'} ({note})"


def _expected(row: Submission) -> str:
    """Return the score to expect, and its interval if it has one."""
    score, interval = describe_expected(row.expected_score, row.interval)
    return score if row.interval is None else f"{score} ({interval})"


def fetch_scores(competition: CompetitionConfig) -> list[str]:
    """Update the ledger from the platform; return a line for each submission with news, or a warning."""
    paths = competition.paths
    before = read(paths.ledger)
    if competition.kaggle is None or not any(map(is_open, before)):
        return []
    try:
        with cli.locked(paths, paths.submit_lock):
            after = sync_ledger(competition)
    except UserError as error:
        return [f"WARNING: scores were not fetched: {error}"]
    return [describe_outcome(row, competition.scorer) for row in after if row not in before]


def wait_for_score(competition: CompetitionConfig, name: str) -> str:
    """Wait until the platform has scored a submission, and describe the outcome."""
    print(
        "Waiting for the score, half an hour at most; after Ctrl-C, "
        f"./run.sh ledger {competition.paths.on_command_line} gets it later.",
        flush=True,
    )
    client.wait(
        name, lambda: find_submission(name, sync_ledger(competition)).status, final=ENDED, limit=LIMIT
    )
    return describe_outcome(find_submission(name, read(competition.paths.ledger)), competition.scorer)


def submit(options: Namespace) -> None:
    """Submit a file or a notebook with the options of the command line."""
    competition = load_competition(options.competition)
    paths = competition.paths
    if competition.kaggle is None and options.kernel:
        raise ConfigError(f"--kernel submits to Kaggle, and {options.competition} has no competition.kaggle.")
    with cli.locked(paths, paths.submit_lock):
        if options.kernel:
            row, send = notebook_to_send(competition)
        else:
            row, send = file_to_send(
                competition, options.file or latest_run(options.competition).folder / SUBMISSION_FILE
            )
        row = without_other_scores(competition, row)
        of_run = f"run {row.run}, {row.chosen}, expected {competition.scorer.name} {_expected(row)}"
        row = row.with_changes(message=options.message or (of_run if row.run else "a file from no run"))
        print(f"{row.file}: {row.message}")
        if competition.kaggle is None:
            write(paths.ledger, row.with_changes(status="submitted", ref=BY_HAND))
            file = display_path(paths.root / row.file)
            print("Nothing was sent, since the YAML has no competition.kaggle (the slug on Kaggle).")
            print(f"Submit {file} yourself, and add its score to the ledger:")
            print(f"./run.sh ledger {options.competition} --submission {row.submission} --public SCORE")
            return
        check_slot(competition, row)
        if not (options.yes or confirm("Send it?")):
            print("Nothing was sent.")
            return
        send_once(competition, row, send)
        print(f"Sent as {row.submission}.")
        print(wait_for_score(competition, row.submission))
    print(f"All submissions: ./run.sh ledger {options.competition}")
