"""Kaggle through its own, unmodified command line.

Does it repeat calls by itself? (kaggle 2.2.3 and 2.2.4.) The upload of a file, PUT to the address of the upload, is
repeated up to ten times after a lost connection. StartSubmissionUpload and CreateSubmission are sent once, whatever
comes back: one run of the client spends at most one slot. CreateDataset and CreateDatasetVersion are repeated after
429 (2.2.4: and after a lost connection), which at worst makes one version too many. Nothing here repeats a call.

An upload that was cut leaves a file in the temporary folder that a later upload of the same path may take up, though
the content is another; so each upload has a temporary folder of its own, which goes with it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.errors import ServiceError
from competition.files import read_json
from submissions.leaderboard.answers import answer, failure, number, reason_of, rules, sentence, state_of, utc
from submissions.leaderboard.process import Ran, find_credentials, run_client

CALL_SECONDS = 300.0
SUBMIT_SECONDS = 3600.0
TRANSFER_SECONDS = 24 * 3600.0
PAGE = "--page-size=100"
TIMED_OUT = 408
STATES = {"cancel_requested": "cancelled", "cancel_acknowledged": "cancelled", "new_script": "queued"}


class Unsure(ServiceError):
    """The connection broke when the submission may have been made: look at `submissions` before trying again."""


@dataclass(frozen=True)
class Submitted:
    """A submission as the platform lists it."""

    ref: str
    date: str
    """UTC, ISO 8601."""
    file: str
    description: str
    status: str
    """pending, complete or error."""
    public: float | None
    private: float | None
    error: str


@dataclass(frozen=True)
class Limits:
    """Submissions that the day still allows; None: the client or the platform does not tell."""

    left_today: int | None
    per_day: int | None


def username() -> str:
    """Who the credentials belong to; the platform is asked only where they are a token.

    Raises:
        ServiceError: without credentials, or if they are refused.
    """
    known = find_credentials().username
    if known:
        return known
    ran = run_client("config", "view", seconds=CALL_SECONDS)
    for line in ran.text.splitlines():
        if line.startswith("- username: ") and not line.endswith(": None"):
            return line.removeprefix("- username: ").strip()
    raise failure(ran)


def files(slug: str) -> dict[str, int]:
    """Names and sizes in bytes of a competition's files; those in folders have the folder in the name."""
    found: dict[str, int] = {}
    for body in _pages("ListDataFiles", "competitions", "files", slug):
        found |= {str(file["name"]): int(file.get("totalBytes", 0)) for file in body.get("files", [])}
    return found


def fetch(slug: str, folder: Path) -> Path:
    """Download all files of a competition as one archive into `folder`, going on where an earlier call was cut.

    Not traced: only the archive itself can show that it is whole.

    Raises:
        ServiceError: if the client failed, or the rules of the competition were not accepted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ran = run_client(
        "competitions", "download", slug, f"--path={folder}", seconds=TRANSFER_SECONDS, traced=False, progress=True
    )
    archive = folder / f"{slug}.zip"
    if ran.status == 0 and archive.is_file():
        return archive
    if "403" in ran.said or "rules" in ran.said:
        raise ServiceError(rules(slug, ran.said))
    raise failure(ran, slug)


def submit_file(slug: str, file: Path, message: str) -> str:
    """Submit a file; spends a slot.

    Returns:
        The platform's reference of the submission.

    Raises:
        ServiceError: if no submission was made, with the platform's reason.
        Unsure: if one may have been made.
    """
    ran = run_client(
        "competitions", "submit", slug, f"--file={file}", f"--message={message}",
        seconds=SUBMIT_SECONDS, progress=True,
    )  # fmt: skip
    return _submitted(ran, "CreateSubmission", slug)


def submit_kernel(slug: str, kernel: str, version: int, message: str) -> str:
    """Submit the `submission.csv` of a notebook version to a code competition; spends a slot.

    Args:
        slug: of the competition.
        kernel: owner/notebook.
        version: as `push_kernel` tells it.
        message: description of the submission.

    Returns, Raises: as `submit_file`.
    """
    ran = run_client(
        "competitions", "submit", slug, f"--kernel={kernel}", f"--version={version}", "--file=submission.csv",
        f"--message={message}", seconds=SUBMIT_SECONDS,
    )  # fmt: skip
    if ran.calls and ran.calls[-1].name == "CreateCodeSubmission" and ran.calls[-1].status == 404:
        raise ServiceError(
            f"The notebook {kernel} must be on Kaggle, and Kaggle knows no version {version} of it for {slug} "
            f"({reason_of(ran)}); upload it with ./run.sh kernel --push."
        )
    return _submitted(ran, "CreateCodeSubmission", slug)


def _submitted(ran: Ran, name: str, slug: str) -> str:
    asked = [call for call in ran.calls if call.name == name]
    status = asked[0].status or 0 if asked else None
    if status is None or (400 <= status < 500 and status != TIMED_OUT):
        raise failure(ran, slug)
    ref = asked[0].body.get("ref") if status == 200 else None
    if not ref:
        raise Unsure(
            f"Kaggle must confirm the submission to {slug}, and did not ({reason_of(ran)}); it may have been made: "
            "look at the list of submissions before you submit again."
        )
    return str(ref)


def submissions(slug: str) -> list[Submitted]:
    """The submissions of the user's team, newest first."""
    found = [
        Submitted(
            ref=str(one.get("ref", "")),
            date=utc(one.get("date", "")),
            file=one.get("fileName") or "",
            description=one.get("description") or "",
            status=state_of(one.get("status") or "pending", "pending", "complete", "error"),
            public=number(one.get("publicScore")),
            private=number(one.get("privateScore")),
            error=one.get("errorDescription") or "",
        )
        for body in _pages("ListSubmissions", "competitions", "submissions", slug)
        for one in body.get("submissions", [])
    ]
    return sorted(found, key=lambda one: one.date, reverse=True)


def limits(slug: str) -> Limits:
    """What is left of today's submissions; kaggle 2.2.3 has no command that tells, 2.2.4 has."""
    ran = run_client("competitions", "submission-limits", slug, seconds=CALL_SECONDS)
    if "invalid choice: 'submission-limits'" in ran.errors:
        return Limits(None, None)
    body = answer(ran, "GetSubmissionLimits", slug)
    if not any(body.values()):  # so it answers to users without a team, who have not submitted yet
        return Limits(None, None)
    left = int(body.get("numAllowedNow", 0))
    return Limits(left, None if body.get("limitedByTotal") else left + int(body.get("numToday", 0)))


def dataset_status(dataset: str) -> tuple[str, int] | None:
    """State, such as ready or failed, and number of the current version of owner/slug; None: no such data set."""
    ran = run_client("datasets", "status", dataset, "--format=json", seconds=CALL_SECONDS)
    if ran.calls and ran.calls[-1].name == "GetDatasetStatus" and ran.calls[-1].status in (403, 404):
        return None  # 403: private data sets of others, and names that nobody has
    state = answer(ran, "GetDatasetStatus").get("status") or "not_yet_persisted"
    version = answer(ran, "GetDataset").get("currentVersionNumber") or 0
    return state_of(state, "ready", "failed", "deleted"), int(version)


def create_or_version_dataset(folder: Path, message: str) -> int:
    """Upload a folder with dataset-metadata.json as a new data set, or as a new version of it; folders go as archives.

    Returns:
        The number of the version that was the current one before; 0 for a new data set.

    Raises:
        ServiceError: if it was refused, or lacks one of the files.
    """
    dataset = str(read_json(folder / "dataset-metadata.json", "id")["id"])
    known = dataset_status(dataset)
    new = known is None
    options = ["create"] if new else ["version", f"--message={message}"]
    temporary = folder.parent / ".upload"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        ran = run_client(
            "datasets", *options, f"--path={folder}", "--dir-mode=zip",
            seconds=TRANSFER_SECONDS, temporary=temporary, progress=True,
        )  # fmt: skip
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    body = answer(ran, "CreateDataset" if new else "CreateDatasetVersion")
    if str(body.get("status", "")).lower() != "ok":
        raise ServiceError(f"Kaggle must take the data set {dataset}, and refused: {sentence(body.get('error'))}")
    lost = [line.split(": ", 1)[1] for line in ran.text.splitlines() if line.startswith("Upload unsuccessful: ")]
    if lost:  # the client goes on without them
        raise ServiceError(
            f"The data set {dataset} must have all files, and {', '.join(lost)} could not be uploaded; run the same "
            "command again."
        )
    return known[1] if known else 0


def push_kernel(folder: Path) -> int:
    """Upload a folder with kernel-metadata.json and its notebook, which Kaggle then runs; returns the version.

    Raises:
        ServiceError: if it was refused, or a data source is not known to the platform.
    """
    ran = run_client("kernels", "push", f"--path={folder}", seconds=CALL_SECONDS)
    body = answer(ran, "SaveKernel")
    unknown = [
        source
        for key in ("invalidDatasetSources", "invalidCompetitionSources", "invalidKernelSources", "invalidModelSources")
        for source in body.get(key) or []
    ]
    error = body.get("error") or (f"it does not know {', '.join(unknown)}" if unknown else "")
    if error or not body.get("versionNumber"):
        raise ServiceError(f"Kaggle must take the notebook in {folder}, and did not: {sentence(error or ran.said)}")
    return int(body["versionNumber"])


def kernel_status(kernel: str) -> tuple[str, str]:
    """State of the newest run of owner/notebook: queued, running, complete, error or cancelled; and the reason."""
    body = answer(run_client("kernels", "status", kernel, seconds=CALL_SECONDS), "GetKernelSessionStatus")
    state = state_of(body.get("status") or "queued", "queued", "running", "complete", "error", *STATES)
    return STATES.get(state, state), body.get("failureMessage") or ""


def _pages(name: str, *command: str) -> list[dict[str, Any]]:
    """Answers of a command that lists, one per page."""
    pages, token = [], ""
    while True:
        ran = run_client(*command, PAGE, *([f"--page-token={token}"] if token else []), seconds=CALL_SECONDS)
        pages.append(answer(ran, name, command[-1]))
        following = pages[-1].get("nextPageToken") or ""
        if not following or following == token:
            return pages
        token = following
