"""The few calls to Kaggle that this project makes, through the platform's own package (`kaggle==2.2.4`).

Every failure becomes one sentence. Credentials are found by the package itself and never printed: what it
prints is dropped, and addresses in its errors lose what stands behind `?`.
"""

import io
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from competition.errors import ConfigError, ServiceError
from competition.files import read_json

PAGE = 100
POLL = 10.0
"""Seconds until the platform is looked at, or looked at again."""
TOKEN = "make a token at https://www.kaggle.com/settings/api"
ADVICE = {
    401: f"it does not accept your credentials, so {TOKEN}",
    403: "join the competition and accept its rules at https://www.kaggle.com/competitions/{slug}/rules",
    404: "is {slug} the last part of the address of the competition's page?",
}  # by the status of the answer


@cache
def login() -> Any:
    """The package's `KaggleApi` with the user's credentials."""
    try:
        with _asked():
            from kaggle.api.kaggle_api_extended import KaggleApi

            api = KaggleApi()
            api.authenticate()
    except ImportError:
        raise ConfigError(
            "Kaggle's client is not installed; run: pip install -r requirements-kaggle.txt"
        ) from None
    except SystemExit:
        raise ServiceError(
            f"Kaggle's client found no credentials that the platform accepts; {TOKEN} and put it into the "
            f"variable "
            "KAGGLE_API_TOKEN or into the file ~/.kaggle/access_token."
        ) from None
    return api


def username() -> str:
    """Who the credentials belong to."""
    return str(login().config_values["username"])


def fetch(slug: str, folder: Path) -> Path:
    """Download all files of a competition as one archive into `folder`, going on where an earlier call was
    cut.
    """
    with _asked(slug):
        login().competition_download_files(slug, path=str(folder), quiet=False)
    return folder / f"{slug}.zip"


def submit_file(slug: str, file: Path, message: str) -> str:
    """Submit a file, which spends a slot; returns the platform's reference.

    The package sends what spends the slot once, whatever comes back; after an error `submissions` tells
    whether it arrived.
    """
    with _asked(slug):
        return _reference(login().competition_submit(str(file), message, slug))


def submit_kernel(slug: str, kernel: str, version: int, message: str) -> str:
    """Submit the `submission.csv` of a version of owner/notebook to a code competition; as `submit_file`."""
    with _asked(slug):
        return _reference(login().competition_submit_code("submission.csv", message, slug, kernel, version))


def _reference(answer: Any) -> str:
    if not answer.ref:  # such as after an upload that failed, of which the package says so in a message
        raise ServiceError(
            f"Kaggle has not confirmed the submission ({answer.message}); run the same command again."
        )
    return str(answer.ref)


def submissions(slug: str) -> list[Any]:
    """The submissions of the user's team as the package's `ApiSubmission`."""
    found: list[Any] = []
    pages = 0
    while len(found) == pages * PAGE:
        pages += 1
        with _asked(slug):
            found += login().competition_submissions(slug, page_number=pages, page_size=PAGE)
    return found


def submissions_left(slug: str) -> int | None:
    """How many the platform takes now; None where it does not say, as before the first one."""
    with _asked(slug):
        found = login().competition_get_submission_limits(slug)
    return int(found.num_allowed_now) if found.num_allowed_now or found.num_total else None


def dataset_status(dataset: str) -> tuple[str, int] | None:
    """State, such as ready or failed, and number of the current version of owner/slug; None: no such data
    set.
    """
    try:
        with _asked():
            found = json.loads(login().dataset_status(dataset, format="json"))
    except ServiceError as error:
        if _status(error.__cause__) in (
            403,
            404,
        ):  # 403: private data sets of others, and names that nobody has
            return None
        raise
    return found["status"], found["current_version_number"]


def create_or_version_dataset(folder: Path, message: str) -> int:
    """Upload a folder with dataset-metadata.json, its folders as archives; returns the version before, 0 for
    none.
    """
    dataset = str(read_json(folder / "dataset-metadata.json", "id")["id"])
    known = dataset_status(dataset)
    with _asked() as said:
        if known is None:
            answer = login().dataset_create_new(str(folder), dir_mode="zip")
        else:
            answer = login().dataset_create_version(str(folder), message, dir_mode="zip")
    if answer.status.lower() != "ok":
        raise ServiceError(f"Kaggle refused the data set {dataset}: {_clean(answer.error)}.")
    if lost := re.findall("^Upload unsuccessful: (.*)$", said.getvalue(), re.MULTILINE):  # and it goes on
        raise ServiceError(
            f"The upload of {', '.join(lost)} failed, so the data set {dataset} lacks it; run it again."
        )
    return known[1] if known else 0


def push_kernel(folder: Path) -> int:
    """Upload a folder with kernel-metadata.json and its notebook, which Kaggle then runs; returns the
    version.
    """
    with _asked():
        answer = login().kernels_push(str(folder))
    unknown = [*answer.invalid_dataset_sources, *answer.invalid_competition_sources]
    if answer.error or unknown:
        error = _clean(answer.error) or f"it does not know {', '.join(unknown)}"
        raise ServiceError(f"Kaggle did not take the notebook in {folder}: {error}.")
    return int(answer.version_number)


def wait(what: str, look: Callable[[], str], final: set[str], limit: float) -> str:
    """Look until a state is a final one or the seconds are over; prints each new state, and returns the last."""
    end, said = time.monotonic() + limit, ""
    while True:
        try:
            state = look()
        except ServiceError as error:  # a passing trouble of the network, perhaps
            state = str(error)
        if state != said:
            print(f"{what}: {state}", flush=True)
        if state in final or time.monotonic() + POLL > end:
            return state
        said = state
        time.sleep(POLL)


@contextmanager
def _asked(slug: str | None = None) -> Iterator[io.StringIO]:
    """Turns a failed call into a ServiceError, whose cause it is; yields what the package prints, which is
    hidden.
    """
    bars = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        with redirect_stdout(io.StringIO()) as said, redirect_stderr(bars):
            yield said
    except (OSError, ValueError) as error:  # of requests, of the package's own checks
        status = _status(error)
        if status is None and isinstance(error, OSError):
            if error.errno:  # of the disk
                raise
            why = (
                f"could not be reached ({type(error).__name__}); look at the network and run the "
                f"command again"
            )
        else:
            why = f"answered: {_clean(str(error))}"
        advice = ADVICE.get(status or 0, "") if slug or status == 401 else ""
        raise ServiceError(f"Kaggle {why}{advice and '; '}{advice.format(slug=slug)}.") from error


def _status(error: BaseException | None) -> int | None:
    """Of the answer behind an error: that of its body, which may come with 200, or else that of HTTP."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    try:
        return int(response.json()["code"])
    except (ValueError, KeyError, TypeError):
        return int(response.status_code)


def _clean(text: str) -> str:
    """A reason on one line, without its full stop and without the signatures of addresses."""
    return re.sub(r"(?<=\S)\?[^\s'\")>,]*=[^\s'\")>,]*", "", " ".join(text.split()))[:300].rstrip(". ")
