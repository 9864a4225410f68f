"""Attempts to submit, and what became of each: nothing is sent twice, and nothing that was sent is forgotten.

An attempt is in the ledger before anything is sent, and its message on the platform ends with its id. So where the end
of one is not known, after a lost connection or a kill, the platform's own list tells it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from competition.errors import ServiceError, SubmissionError
from competition.paths import Paths
from submissions.blend import number
from submissions.leaderboard import client
from submissions.leaderboard.ledger import BY_HAND, Event, Submission, append, now, read, submissions

POLL = 10.0
"""Seconds between two looks at the platform's list."""
ARRIVES = 3
"""Looks after which a submission that the list does not have never arrived."""
LOST = ": never arrived"
"""End of the message of such a submission, which is looked for again with every later one: platforms may be slow."""
MISSES = 3
"""Looks in a row that may fail; more, and it is no passing trouble of the network."""


def tagged(message: str, submission: str) -> str:
    """A message that its attempt can be found by."""
    return f"{message} [{submission}]"


def settle(slug: str, paths: Paths, only: str | None = None) -> list[Submission]:
    """Bring the ledger up to what the platform knows: attempts with an unknown end, scores that came later.

    Args:
        only: id of the one attempt to look for; None for all, which no other process may be sending.

    Returns:
        All submissions, in order of time.

    Raises:
        ServiceError: if the platform does not answer.
    """
    waiting = [one for one in submissions(read(paths.ledger)) if is_open(one) and only in (None, one.submission)]
    for look in range(ARRIVES):
        if not waiting:
            break
        if look:
            time.sleep(POLL)
        theirs = client.submissions(slug)
        for one in list(waiting):
            found = next((t for t in theirs if t.ref == one.ref or t.description.endswith(f"[{one.submission}]")), None)
            if found is not None:
                _write_down(one, found, paths)
            if found is not None or one.status != "submitting":
                waiting.remove(one)
    for one in waiting:
        append(paths.ledger, _next(one, "failed", message=f"{one.message}{LOST}"))
    return submissions(read(paths.ledger))


def require_unspent(digest: str, known: list[Submission]) -> None:
    """Check that the same file was not sent before.

    Raises:
        SubmissionError: if it was.
    """
    for one in known:
        if one.file_digest == digest and one.status in ("submitted", "scored") and one.ref != BY_HAND:
            score = "" if one.public is None else f", public {number(one.public)}"
            raise SubmissionError(
                f"a slot should bring something new; this was sent at {one.time} as {one.submission}{score}. "
                "Add --again to send it once more."
            )


def attempt(slug: str, event: Event, send: Callable[[str], str], paths: Paths) -> None:
    """Make one attempt; its events are in the ledger whatever happens.

    Args:
        event: `submitting`.
        send: sends, with the message that it gets, and returns the platform's reference.

    Raises:
        ServiceError: if the platform refused it, or it is not known whether it arrived.
    """
    append(paths.ledger, event)
    try:
        ref = send(tagged(event.message, event.submission))
    except client.Unsure:
        if _named(settle(slug, paths, event.submission), event.submission).status == "failed":
            raise
        print("The connection broke, but the platform's list has the submission: it arrived.")
        return
    except ServiceError as error:
        append(paths.ledger, _next(event, "failed", message=f"{event.message}: {error}"))
        raise
    append(paths.ledger, _next(event, "submitted", ref=ref))


def wait_for_score(slug: str, submission: str, paths: Paths, seconds: float) -> Submission:
    """Ask for the score until it is there or the time is over; returns the submission as the ledger then has it.

    Raises:
        ServiceError: if the platform does not answer several times in a row.
    """
    started, misses = time.monotonic(), 0
    one = _named(submissions(read(paths.ledger)), submission)
    while True:
        try:
            one, misses = _named(settle(slug, paths, submission), submission), 0
        except ServiceError:
            misses += 1
            if misses > MISSES:
                raise
        waited = time.monotonic() - started
        if one.status != "submitted" or waited + POLL > seconds:
            break
        if sys.stderr.isatty():
            print(f"\rwaiting for the score, {waited:.0f} s", end="", file=sys.stderr, flush=True)
        time.sleep(POLL)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return one


def is_open(one: Submission) -> bool:
    """Whether the platform may know more of a submission than the ledger."""
    sent = one.status == "submitting" or (one.status in ("submitted", "scored") and one.ref != BY_HAND)
    return _is_lost(one) or (sent and (one.public is None or one.private is None))


def _is_lost(one: Submission) -> bool:
    return one.status == "failed" and one.message.endswith(LOST)


def _next(one: Event, event: str, **fields: object) -> Event:
    """A later event of the same attempt."""
    return Event(time=now(), event=event, submission=one.submission, **fields)  # type: ignore[arg-type]


def _write_down(one: Submission, theirs: client.Submitted, paths: Paths) -> None:
    """The events that the platform's state of a submission makes, if there is something new."""
    if one.status == "submitting" or _is_lost(one):
        append(paths.ledger, _next(one, "submitted", ref=theirs.ref, message=one.message.removesuffix(LOST)))
    if theirs.status == "error":
        reason = theirs.error or "the platform could not score it"
        append(
            paths.ledger, _next(one, "failed", ref=theirs.ref, message=f"{one.message.removesuffix(LOST)}: {reason}")
        )
    elif theirs.status == "complete" and (theirs.public, theirs.private) != (one.public, one.private):
        append(paths.ledger, _next(one, "scored", ref=theirs.ref, public=theirs.public, private=theirs.private))


def _named(known: list[Submission], submission: str) -> Submission:
    return next(one for one in known if one.submission == submission)
