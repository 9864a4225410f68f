"""Nothing is sent twice, and nothing that was sent is forgotten.

A submission is in the ledger before anything is sent, and its message on the platform ends with its id. So where the
end of it is not known, after a lost connection or a kill, the platform's own list tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from competition.errors import ServiceError
from submissions.leaderboard import client
from submissions.leaderboard.ledger import BY_HAND, Submission, named, read, write

POLL = 10.0
"""Seconds until the platform's list is looked at, or looked at again."""
STATES = {"PENDING": "submitted", "COMPLETE": "scored", "ERROR": "failed"}
"""The platform's states in the ledger's words."""


def settle(slug: str, ledger: Path, only: str | None = None) -> list[Submission]:
    """Bring the ledger up to what the platform knows: submissions with an unknown end, scores that came later.

    What it does not list is lost, and looked for again with every later submission: platforms may be slow.

    Args:
        only: id of the one submission to look for; None for all, which no other process may be sending.
    """
    waiting = [one for one in read(ledger) if is_open(one) and only in (None, one.submission)]
    listed = client.submissions(slug) if waiting else []
    for one in waiting:
        found = next((t for t in listed if str(t.ref) == one.ref or t.description.endswith(_tag(one))), None)
        if found is not None:
            write(ledger, _as_listed(one, found))
        elif one.status == "submitting":
            write(ledger, replace(one, status="lost"))
    return read(ledger)


def is_open(one: Submission) -> bool:
    """Whether the platform may know more of a submission than the ledger."""
    scored = one.public is not None and one.private is not None
    return one.status in ("submitting", "lost") or not (one.status == "failed" or one.ref == BY_HAND or scored)


def _tag(one: Submission) -> str:
    return f"[{one.submission}]"


def _as_listed(one: Submission, listed: Any) -> Submission:
    """The submission with what the platform's `ApiSubmission` says of it."""
    one = replace(one, ref=str(listed.ref), status=STATES[listed.status.name])
    if one.status == "failed":
        return replace(one, message=f"{one.message}: {listed.error_description or 'the platform could not score it'}")
    public, private = (float(score) if score else None for score in (listed.public_score, listed.private_score))
    return replace(one, public=public, private=private)


def attempt(slug: str, one: Submission, send: Callable[[str], str], ledger: Path) -> None:
    """Send a submission, with a function of the message that returns the platform's reference.

    Raises:
        ServiceError: if the platform refused it, or it is not known whether it arrived; the ledger has it.
    """
    write(ledger, one)
    try:
        ref = send(f"{one.message} {_tag(one)}")
    except client.Unsure:
        time.sleep(POLL)
        if named(one.submission, settle(slug, ledger, one.submission)).status == "lost":
            raise
        print("The connection broke, but the platform's list has the submission: it arrived.")
    except ServiceError as error:
        write(ledger, replace(one, status="failed", message=f"{one.message}: {error}"))
        raise
    else:
        write(ledger, replace(one, status="submitted", ref=ref))


def wait_for_score(slug: str, submission: str, ledger: Path, seconds: float) -> Submission:
    """Ask for the score until it is there or the time is over; returns the submission as the ledger then has it.

    Raises:
        ServiceError: if the platform does not answer several times in a row.
    """
    end, misses = time.monotonic() + seconds, 0
    while True:
        try:
            settle(slug, ledger, submission)
            misses = 0
        except ServiceError:
            misses += 1
            if misses > client.MISSES:
                raise
        one = named(submission, read(ledger))
        if one.status != "submitted" or time.monotonic() + POLL > end:
            return one
        time.sleep(POLL)
