"""What the platform's answers mean: states, scores and dates in our words, and failures as one sentence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from competition.errors import ServiceError
from submissions.leaderboard.process import Ran, find_credentials, presentable


def answer(ran: Ran, name: str, slug: str | None = None) -> dict[str, Any]:
    """The answer to the call.

    Raises:
        ServiceError: if there is none, or it is an error.
    """
    found = [call for call in ran.calls if call.name == name]
    if not found or found[-1].status is None or found[-1].status >= 400:
        raise failure(ran, slug)
    return found[-1].body


def reason_of(ran: Ran) -> str:
    """Which call failed, and how."""
    call = ran.calls[-1] if ran.calls else None
    if call is None or (call.status or 0) in range(1, 400):
        return ran.said
    said = presentable(str(call.body.get("message") or ran.said))
    return f"no answer to {call.name}: {said}" if call.status is None else f"{call.status} to {call.name}: {said}"


def failure(ran: Ran, slug: str | None = None) -> ServiceError:
    """The error of a run that did not reach its end, as one sentence."""
    status = ran.calls[-1].status if ran.calls else 200
    reason = reason_of(ran)
    if status == 401 or "Authentication required" in ran.text:
        return ServiceError(
            f"Kaggle must accept the credentials from {find_credentials().source}, and refused them; make a new token "
            "at https://www.kaggle.com/settings/api."
        )
    if status == 403 and slug:
        return ServiceError(rules(slug, reason))
    if status == 404 and slug:
        return ServiceError(
            f"{slug} must be a competition as in the address of its page, and Kaggle knows none ({reason}); correct "
            "the name."
        )
    if status is None:
        return ServiceError(f"Kaggle must be reached, and was not ({reason}); look at the network and run again.")
    return ServiceError(f"Kaggle must do what was asked, and did not: {sentence(reason)}")


def rules(slug: str, reason: str) -> str:
    """The error of a user who has not joined."""
    return (
        f"You must have joined the competition {slug}, and Kaggle refused ({reason}); accept its rules at "
        f"https://www.kaggle.com/competitions/{slug}/rules and run again."
    )


def sentence(reason: Any) -> str:
    """A reason of the platform's on one line, with one full stop."""
    return presentable(str(reason or "no reason given")).rstrip(". ") + "."


def state_of(found: str, *names: str) -> str:
    """Which of the names a value of an enumeration, such as KernelWorkerStatus.COMPLETE, is."""
    return next((name for name in names if found.lower().endswith(name)), found.lower())


def utc(date: str) -> str:
    """A date of the platform, with seven digits after the point, in the form of ours."""
    try:
        return datetime.fromisoformat(date.rstrip("Z")).replace(tzinfo=UTC).isoformat(timespec="seconds")
    except ValueError:
        return date


def number(text: Any) -> float | None:
    """A score, where there is one."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
