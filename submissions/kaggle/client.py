"""Calls to Kaggle, through its Python package (`kaggle==2.2.4`).

Every failure becomes one sentence. The package reads the credentials, and they are never printed: its output
is hidden, and queries are removed from addresses in its errors.
"""

import io
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import ConfigError, DataError, ServiceError, join_first
from core.files import read_json, replaced
from core.paths import display_path
from submissions.kaggle.paths import kaggle_files

PAGE = 100
POLL = 10.0
"""Seconds between two requests for a state."""
TOKEN = "create a token at https://www.kaggle.com/settings/api"
ADVICE = {
    401: f"it does not accept your credentials, so {TOKEN}",
    403: "join the competition and accept its rules at https://www.kaggle.com/competitions/{slug}/rules",
    404: "is {slug} the slug in the competition's URL?",
}
"""Status of HTTP -> advice."""


SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx")
"""Ends of the names of tables."""
NAMES = {"train": "train(ing|set|data)?", "test": "test(set|data)?", "sample": "(sample|example)?sub.*"}
"""Table -> pattern of the letters of its name."""


@cache
def login() -> Any:
    """Return the `KaggleApi` of the package with the user's credentials."""
    try:
        with _api_errors():
            from kaggle.api.kaggle_api_extended import KaggleApi

            api = KaggleApi()
            api.authenticate()
    except ImportError:
        raise ConfigError(
            "Kaggle's client is not installed; run: pip install -r requirements-kaggle.txt"
        ) from None
    except SystemExit:
        raise ServiceError(
            f"Kaggle found no valid credentials here; {TOKEN} "
            "and put it in KAGGLE_API_TOKEN or ~/.kaggle/access_token."
        ) from None
    return api


def username() -> str:
    """Return the user name of the credentials."""
    return str(login().config_values["username"])


def slug_of(text: str) -> str:
    """Return the slug of a competition, given the slug or the address of its page."""
    site = r"(?:(?:https?://)?(?:www\.)?kaggle\.com/)?(?:competitions/|c/)?"
    match = re.fullmatch(rf"{site}([a-z0-9][a-z0-9-]*)(?:[/?#].*)?", text)
    if not match:
        raise ConfigError(f"--kaggle takes a competition's slug, the end of its URL; got {text!r}.")
    return match[1]


def download(slug: str) -> Path:
    """Download all files of a competition, unless they exist; return their folder.

    Each archive among them becomes a folder with its name.
    """
    folder = kaggle_files(slug)
    if folder.is_dir():
        print(f"The files of {slug} are in {display_path(folder)} already; delete it to download them again.")
        return folder
    print(f"Downloading the files of {slug} ...", flush=True)
    with _api_errors(slug):  # an interrupted download continues
        login().competition_download_files(slug, path=str(folder.parent), quiet=False)
    archive = folder.parent / f"{slug}.zip"
    with replaced(folder) as fresh:
        shutil.unpack_archive(archive, fresh)
        for inner in sorted(fresh.rglob("*.zip")):
            unpacked = inner.with_suffix(".unpacked")
            try:
                shutil.unpack_archive(inner, unpacked)
                inner.unlink()
                unpacked.rename(inner)
            except (shutil.ReadError, RuntimeError) as error:  # RuntimeError: it needs a password
                print(f"Not unpacked: {inner.name} ({error})")
    archive.unlink()
    return folder


def find_tables(folder: Path, **given: Path | None) -> dict[str, Path]:
    """Return "train", "test" and "sample" -> file of a download.

    Args:
        folder: folder of `download`.
        given: "train", "test" and "sample" -> file that the user gives, in the download or another folder;
            None to detect it by its name.
    """
    files = [path for path in folder.rglob("*") if path.suffix in SUFFIXES and "__MACOSX" not in path.parts]
    files.sort()
    # sample_submission and sampleSubmission have the same letters.
    letters = {path: re.sub(r"[^a-z]", "", path.stem.lower()) for path in files}
    tables = {}
    unclear = []
    for table, file in given.items():
        matches = [path for path in files if re.fullmatch(NAMES[table], letters[path])]
        if file is not None:
            matches = [folder / file if (folder / file).is_file() else file]
        if len(matches) == 1:
            tables[table] = matches[0]
        else:
            unclear.append(f"--{table} ({'several fit' if matches else 'none fits'})")
    if unclear:
        names = ", ".join(path.relative_to(folder).as_posix() for path in files[:20])
        raise DataError(
            f"The three tables cannot be detected by their names; add {', '.join(unclear)} with one of: "
            f"{names or 'none is a table'}."
        )
    others = [path.relative_to(folder).as_posix() for path in files if path not in tables.values()]
    if others:
        print(f"not read: {join_first(others, str)}; extra_train reads more labelled rows (docs/stages.md)")
    return tables


def submit_file(slug: str, file: Path, message: str) -> str:
    """Submit a file, which uses one of the daily submissions; return its reference on the platform.

    The package sends it only once, even after an error; `submissions` tells whether it arrived.
    """
    with _api_errors(slug):
        return _reference(login().competition_submit(str(file), message, slug))


def submit_kernel(slug: str, kernel: str, version: int, message: str) -> str:
    """Submit the `submission.csv` of a version of owner/notebook to a code competition; see `submit_file`."""
    with _api_errors(slug):
        return _reference(login().competition_submit_code("submission.csv", message, slug, kernel, version))


def _reference(answer: Any) -> str:
    if not answer.ref:  # such as after a failed upload
        raise ServiceError(
            f"Kaggle has not confirmed the submission ({answer.message}); run the same command again."
        )
    return str(answer.ref)


def submissions(slug: str) -> list[Any]:
    """Return the submissions of the user's team, as `ApiSubmission` of the package."""
    answer: list[Any] = []
    pages = 0
    while len(answer) == pages * PAGE:
        pages += 1
        with _api_errors(slug):
            answer += login().competition_submissions(slug, page_number=pages, page_size=PAGE)
    return answer


def submissions_left(slug: str) -> int | None:
    """Return how many submissions are left now; None if unknown, such as before the first one."""
    with _api_errors(slug):
        answer = login().competition_get_submission_limits(slug)
    return int(answer.num_allowed_now) if answer.num_allowed_now or answer.num_total else None


def dataset_status(dataset: str) -> tuple[str, int] | None:
    """Return state, such as ready, and version of the data set owner/slug; None if it does not exist."""
    try:
        with _api_errors():
            answer = json.loads(login().dataset_status(dataset, format="json"))
    except ServiceError as error:
        if _status(error.__cause__) in (403, 404):  # 403: private data sets of others, and unused names
            return None
        raise
    return answer["status"], answer["current_version_number"]


def create_or_version_dataset(folder: Path, message: str) -> int:
    """Upload a folder with dataset-metadata.json, subfolders as archives; return the version before, or 0."""
    dataset = str(read_json(folder / "dataset-metadata.json", "id")["id"])
    current = dataset_status(dataset)
    with _api_errors() as printed:
        if current is None:
            answer = login().dataset_create_new(str(folder), dir_mode="zip")
        else:
            answer = login().dataset_create_version(str(folder), message, dir_mode="zip")
    if answer.status.lower() != "ok":
        raise ServiceError(f"Kaggle rejected the data set {dataset}: {_clean(answer.error)}.")
    lost = re.findall(
        "^Upload unsuccessful: (.*)$", printed.getvalue(), re.MULTILINE
    )  # no error of the package
    if lost:
        raise ServiceError(
            f"The upload of {', '.join(lost)} failed, "
            f"so the data set {dataset} is incomplete; run the command again."
        )
    return current[1] if current else 0


def push_kernel(folder: Path) -> int:
    """Upload a folder with kernel-metadata.json and a notebook, which Kaggle runs; return the version."""
    with _api_errors():
        answer = login().kernels_push(str(folder))
    unknown = [*answer.invalid_dataset_sources, *answer.invalid_competition_sources]
    if answer.error or unknown:
        error = _clean(answer.error) or f"it does not know {', '.join(unknown)}"
        raise ServiceError(f"Kaggle did not accept the notebook in {folder}: {error}.")
    return int(answer.version_number)


def wait(what: str, look: Callable[[], str], final: set[str], limit: float) -> str:
    """Poll a state until it is final or the time is over; print each new state, and return the last one.

    Args:
        limit: seconds.
    """
    end = time.monotonic() + limit
    printed = ""
    while True:
        try:
            state = look()
        except ServiceError as error:  # the network may fail for a moment
            state = str(error)
        if state != printed:
            print(f"{what}: {state}", flush=True)
        if state in final or time.monotonic() + POLL > end:
            return state
        printed = state
        time.sleep(POLL)


@contextmanager
def _api_errors(slug: str | None = None) -> Iterator[io.StringIO]:
    """Turn a failed call into a ServiceError; yield the output of the package, which is hidden."""
    bars = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        with redirect_stdout(io.StringIO()) as printed, redirect_stderr(bars):
            yield printed
    except (OSError, ValueError) as error:  # of requests, and of checks of the package
        status = _status(error)
        if status is None and isinstance(error, OSError):
            if error.errno:  # of the disk
                raise
            why = (
                f"could not be reached ({type(error).__name__}); check the network and run the command again"
            )
        else:
            why = f"answered: {_clean(str(error))}"
        advice = ADVICE.get(status or 0, "") if slug or status == 401 else ""
        raise ServiceError(f"Kaggle {why}{advice and '; '}{advice.format(slug=slug)}.") from error


def _status(error: BaseException | None) -> int | None:
    """Return the status in the body of an answer, or else the HTTP status, which may differ."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    try:
        return int(response.json()["code"])
    except (ValueError, KeyError, TypeError):
        return int(response.status_code)


def _clean(text: str) -> str:
    """Return text on one line, without its full stop and without queries of addresses."""
    return re.sub(r"(?<=\S)\?[^\s'\")>,]*=[^\s'\")>,]*", "", " ".join(text.split()))[:300].rstrip(". ")
