"""The real client against a server that speaks its protocol: nothing is spent twice, no failure passes for success."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from competition.errors import ConfigError, ServiceError
from competition.files import write_json
from submissions.leaderboard import client
from tests.kaggle_server import KEY, SIGNATURE, TOKEN, USER, KaggleServer

DATASET, NOTEBOOK = f"{USER}/tides-pack", f"{USER}/tides-offline"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "submission.csv"
    path.write_text("id,height\n" + "".join(f"{i},{i / 7}\n" for i in range(5000)))
    return path


def answer(status: int, message: str, *when: str) -> tuple[Any, ...]:
    return status, {"code": status, "message": message}, *when


def test_a_file_arrives_whole_and_once_though_the_upload_was_cut(server: KaggleServer, file: Path) -> None:
    message = "--run 3f, \"quoted\" 'too' ü"
    assert client.submissions_left("tides") == 5
    server.faults.append(("/upload/", "cut"))
    ref = client.submit_file("tides", file, message)
    assert [(str(one["ref"]), one["content"]) for one in server.submissions] == [(ref, file.read_bytes())]
    (listed,) = client.submissions("tides")
    assert (str(listed.ref), listed.description, listed.status.name) == (ref, message, "PENDING")
    assert client.submissions_left("tides") == 4


CERTAIN: list[tuple[str, Any, str]] = [
    ("StartSubmissionUpload", "cut", "could not be reached"),
    ("StartSubmissionUpload", answer(403, "no"), "accept its rules at https://www.kaggle.com/competitions/tides/rules"),
    ("StartSubmissionUpload", (404, b"<html>lost</html>"), "is tides the last part of the address"),
    ("/upload/", (500, b""), "did not take the upload"),
    ("CreateSubmission", answer(400, "The column height is missing."), r"column height is missing\.$"),
    ("CreateSubmission", (200, {"code": 400, "message": "The column height is missing."}), "column height is missing"),
]


@pytest.mark.parametrize(("call", "fault", "words"), CERTAIN)
def test_a_failure_that_spent_nothing_is_told_with_its_reason(
    server: KaggleServer, file: Path, call: str, fault: Any, words: str
) -> None:
    server.faults.append((call, fault))
    with pytest.raises(ServiceError, match=words) as raised:
        client.submit_file("tides", file, "m")
    assert not isinstance(raised.value, client.Unsure)
    assert server.submissions == []
    assert len(server.calls("CreateSubmission")) <= 1


@pytest.mark.parametrize(
    ("fault", "spent"),
    [
        ("cut after", 1),
        (answer(500, "late", "after"), 1),
        (answer(408, "slow", "after"), 1),
        ((200, b"<html>Log in to this network</html>"), 0),
    ],
)
def test_a_submission_that_may_have_been_made_is_told_apart_and_asked_for_once(
    server: KaggleServer, file: Path, fault: Any, spent: int
) -> None:
    server.faults.append(("CreateSubmission", fault))
    with pytest.raises(client.Unsure, match="may have been made"):
        client.submit_file("tides", file, "m")
    assert len(server.submissions) == spent
    assert len(server.calls("CreateSubmission")) == 1


def test_submissions_are_listed_over_all_pages(server: KaggleServer) -> None:
    server.competitions["tides"]["limit"] = 300
    for i in range(200):
        server.submit({"competitionName": "tides", "submissionDescription": f"m{i}"}, "submission.csv", b"")
    assert sorted(one.ref for one in client.submissions("tides")) == list(range(1000, 1200))


def test_no_secret_is_printed_or_raised(
    server: KaggleServer, file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VERBOSE", "true")
    signed = f"no http://localhost/upload/blob-0?{SIGNATURE}&x=1 now"
    seen = []
    for fault in (("StartSub", answer(500, signed)), ("/upload/", (500, b"no")), ("CreateSub", "cut")):
        server.faults.append(fault)
        with pytest.raises(ServiceError) as raised:
            client.submit_file("tides", file, "m")
        seen.append(str(raised.value))
    assert capfd.readouterr() == ("", "") and "no http://localhost/upload/blob-0 now" in seen[0]
    assert not any(secret in text for secret in (KEY, SIGNATURE) for text in seen)


def test_a_missing_client_is_told_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    client.login.cache_clear()
    monkeypatch.setitem(sys.modules, "kaggle.api.kaggle_api_extended", None)
    with pytest.raises(ConfigError, match=r"pip install -r requirements-kaggle\.txt"):
        client.submissions("tides")


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack" / "dataset"
    write_json(folder / "code" / "deep" / "x.json", {})
    write_json(folder / "pack.json", {})
    metadata = {"id": DATASET, "title": "Tides, packed", "licenses": [{"name": "CC0-1.0"}]}
    write_json(folder / "dataset-metadata.json", metadata)
    return folder


def test_folders_of_a_data_set_travel_as_archives_and_a_second_upload_is_a_version(
    server: KaggleServer, pack: Path
) -> None:
    assert client.dataset_status(DATASET) is None
    assert client.create_or_version_dataset(pack, "first") == 0
    server.faults.append(("/upload/", "cut"))
    assert client.create_or_version_dataset(pack, "second") == 1
    with zipfile.ZipFile(io.BytesIO(server.datasets[DATASET]["versions"][1]["files"]["code.zip"])) as packed:
        assert "deep/x.json" in packed.namelist()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (("/upload/", (403, b"")), r"upload of (code\.zip|pack\.json) failed"),  # the client goes on without it
        (("CreateDataset", (200, {"status": "error", "error": "The title is taken"})), r"refused .*: The title"),
        (("GetDatasetStatus", answer(500, "down")), "answered: down"),  # which is not: there is no data set
    ],
)  # fmt: skip
def test_a_data_set_that_is_refused_or_lacks_a_file_is_an_error(
    server: KaggleServer, pack: Path, fault: Any, words: str
) -> None:
    server.faults.append(fault)
    with pytest.raises(ServiceError, match=words):
        client.create_or_version_dataset(pack, "m")


def test_a_notebook_that_lacks_its_data_set_is_an_error(server: KaggleServer, tmp_path: Path) -> None:
    cell = {"cell_type": "code", "source": ["1"], "outputs": [], "metadata": {}, "execution_count": None}
    write_json(tmp_path / "tides.ipynb", {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    write_json(
        tmp_path / "kernel-metadata.json",
        {"id": NOTEBOOK, "title": "Tides offline", "code_file": "tides.ipynb", "language": "python",
         "kernel_type": "notebook", "enable_internet": False, "dataset_sources": [DATASET]},
    )  # fmt: skip
    with pytest.raises(ServiceError, match=f"does not know {DATASET}"):  # the notebook was saved without its data
        client.push_kernel(tmp_path)


def test_without_credentials_or_with_old_ones_it_is_said_how_to_get_them(
    server: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    for token in ("", "KGAT_old"):
        monkeypatch.setenv("KAGGLE_API_TOKEN", token)
        with pytest.raises(ServiceError, match=r"KAGGLE_API_TOKEN or into the file ~/\.kaggle/access_token") as raised:
            client.username()
        assert "KGAT_" not in str(raised.value)
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    assert client.username() == USER
