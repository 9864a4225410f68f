"""The real client against a server that speaks its protocol: nothing is spent twice, no failure passes for success."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from competition.errors import ConfigError, ServiceError
from competition.files import write_json
from competition.paths import PROJECT
from submissions.leaderboard import client, process
from submissions.leaderboard.client import Limits, Unsure
from tests.kaggle_server import KEY, SIGNATURE, TOKEN, USER, KaggleServer

DATASET, NOTEBOOK = f"{USER}/tides-pack", f"{USER}/tides-offline"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "submission.csv"
    path.write_text("id,height\n" + "".join(f"{i},{i / 7}\n" for i in range(5000)))
    return path


def test_a_submitted_file_arrives_whole_with_its_message_and_its_reference_comes_back(
    server: KaggleServer, file: Path
) -> None:
    message = "--run 3f, \"quoted\" 'too' ü\nand a second line"
    ref = client.submit_file("tides", file, message)
    assert [(str(one["ref"]), one["content"]) for one in server.submissions] == [(ref, file.read_bytes())]
    (listed,) = client.submissions("tides")
    assert (listed.ref, listed.file, listed.description, listed.status) == (ref, file.name, message, "pending")
    assert (listed.public, listed.private, listed.error) == (None, None, "")


def after(status: int, message: str) -> tuple[Any, ...]:
    return (status, {"code": status, "message": message}, "after")


CERTAIN: list[tuple[str, Any, str]] = [
    ("StartSubmissionUpload", "cut", "must be reached"),
    ("StartSubmissionUpload", (401, {"code": 401, "message": "no"}), "credentials from KAGGLE_USERNAME and KAGGLE_KEY"),
    ("StartSubmissionUpload", (403, {"code": 403, "message": "no"}), "accept its rules at https://www.kaggle.com/comp"),
    ("StartSubmissionUpload", (404, b"<html>lost</html>"), "Kaggle knows none"),
    ("StartSubmissionUpload", (500, {"code": 500, "message": "over capacity"}), "over capacity"),
    ("/upload/", (500, b""), "Could not submit to competition"),
    ("/upload/", (403, b""), "Could not submit to competition"),
    ("CreateSubmission", (400, {"code": 400, "message": "The column height is missing."}), "column height is missing"),
    ("CreateSubmission", (200, {"code": 400, "message": "The column height is missing."}), "column height is missing"),
    ("CreateSubmission", (401, b"<html>no</html>"), "credentials from"),
    ("CreateSubmission", (429, {"code": 429, "message": "Too many requests"}), "429 to CreateSubmission: Too many"),
]


@pytest.mark.parametrize(("call", "answer", "words"), CERTAIN)
def test_a_failure_that_spent_nothing_is_told_with_its_reason(
    server: KaggleServer, file: Path, call: str, answer: Any, words: str
) -> None:
    server.faults.append((call, answer))
    with pytest.raises(ServiceError, match=words) as raised:
        client.submit_file("tides", file, "m")
    assert not isinstance(raised.value, Unsure)
    assert server.submissions == []
    assert len(server.calls("CreateSubmission")) <= 1


def test_a_killed_submit_leaves_no_client_behind_that_submits_later(server: KaggleServer, file: Path) -> None:
    server.faults.append(("StartSubmissionUpload", "wait"))
    code = f"from submissions.leaderboard import client; client.submit_file('tides', {str(file)!r}, 'm')"
    with subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT) as process:
        until(lambda: bool(server.calls("StartSubmissionUpload")))
        process.kill()
    server.go_on.set()
    with pytest.raises(TimeoutError):
        until(lambda: bool(server.calls("CreateSubmission")), seconds=2.0)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


UNSURE: list[tuple[Any, int]] = [
    ("cut", 0),
    ("cut after", 1),
    ((500, {"code": 500, "message": "m"}), 0),
    (after(500, "late"), 1),
    ((502, b"<html>Bad gateway</html>", "after"), 1),
    (after(408, "slow"), 1),
    ((200, b"<html>Log in to this network</html>"), 0),
]


@pytest.mark.parametrize(("answer", "spent"), UNSURE)
def test_a_submission_that_may_have_been_made_is_told_apart_and_asked_for_once(
    server: KaggleServer, file: Path, answer: Any, spent: int
) -> None:
    server.faults.append(("CreateSubmission", answer))
    with pytest.raises(Unsure, match="may have been made: look at the list"):
        client.submit_file("tides", file, "m")
    assert len(server.submissions) == spent
    assert len(server.calls("CreateSubmission")) == 1


def test_a_client_that_hangs_is_stopped_and_what_it_asked_for_is_known(
    server: KaggleServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SUBMIT_SECONDS", 3.0)
    server.faults.append(("CreateSubmission", "hang"))
    with pytest.raises(Unsure, match="no end after 3 s"):
        client.submit_file("tides", file, "m")
    server.faults.append(("StartSubmissionUpload", "hang"))
    with pytest.raises(ServiceError, match="no end after 3 s") as raised:
        client.submit_file("tides", file, "m")
    assert not isinstance(raised.value, Unsure)


def test_an_upload_that_is_cut_is_repeated_by_the_client_and_spends_one_slot(server: KaggleServer, file: Path) -> None:
    server.faults.append(("/upload/", "cut"))
    client.submit_file("tides", file, "m")
    assert len(server.calls("/upload/")) == 2
    assert [one["content"] for one in server.submissions] == [file.read_bytes()]


def test_the_daily_limit_is_an_error_with_the_platforms_words(server: KaggleServer, file: Path) -> None:
    server.competitions["tides"]["limit"] = 1
    client.submit_file("tides", file, "first")
    with pytest.raises(ServiceError, match="has used its daily submissions") as raised:
        client.submit_file("tides", file, "second")
    assert not isinstance(raised.value, Unsure)
    assert len(server.submissions) == 1


def test_limits_are_what_the_client_tells(server: KaggleServer, file: Path) -> None:
    tells = tuple(map(int, version("kaggle").split(".")[:3])) >= (2, 2, 4)
    assert client.limits("tides") == (Limits(5, 5) if tells else Limits(None, None))
    client.submit_file("tides", file, "m")
    assert client.limits("tides") == (Limits(4, 5) if tells else Limits(None, None))


def test_scores_and_errors_of_submissions_are_listed_newest_first_over_all_pages(server: KaggleServer) -> None:
    asked = {"competitionName": "tides"}
    server.competitions["tides"]["limit"] = 300
    for i in range(203):
        server.submit(asked | {"submissionDescription": f"m{i}"}, "submission.csv", b"")
    server.score("1000", 0.5, 0.25)
    server.score("1001", None, error="The ids do not match.")
    listed = client.submissions("tides")
    assert [one.description for one in listed] == [f"m{i}" for i in reversed(range(203))]
    assert [one.date for one in listed] == sorted((one.date for one in listed), reverse=True)
    assert (listed[-1].status, listed[-1].public, listed[-1].private) == ("complete", 0.5, 0.25)
    assert (listed[-2].status, listed[-2].public, listed[-2].error) == ("error", None, "The ids do not match.")


def test_a_notebook_version_is_submitted_and_one_that_is_not_there_refused(server: KaggleServer) -> None:
    server.kernels[NOTEBOOK] = {"versions": [{}, {}], "status": ["COMPLETE"], "failure": ""}
    ref = client.submit_kernel("tides", NOTEBOOK, 2, "m")
    assert [(str(one["ref"]), one["fileName"]) for one in server.submissions] == [(ref, "submission.csv")]
    (asked,) = server.calls("CreateCodeSubmission")
    assert (asked["kernelOwner"], asked["kernelVersion"], asked["submissionDescription"]) == (USER, 2, "m")
    with pytest.raises(ServiceError, match=r"knows no version 3 of it .* version not found\); upload it with"):
        client.submit_kernel("tides", NOTEBOOK, 3, "m")
    server.faults.append(("CreateCodeSubmission", "cut after"))
    with pytest.raises(Unsure):
        client.submit_kernel("tides", NOTEBOOK, 2, "m")
    assert len(server.submissions) == 2


# ---- who it is, and what must stay secret ----


def test_without_credentials_nothing_is_asked_and_the_message_says_how_to_get_them(
    server: KaggleServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    for action in (client.username, lambda: client.submit_file("tides", file, "m")):
        with pytest.raises(ServiceError, match=r"KAGGLE_API_TOKEN or into the file ~/\.kaggle/access_token"):
            action()
    assert server.requests == []


@pytest.mark.parametrize("place", ["variables", "kaggle.json", "token", "token file", "file named by the variable"])
def test_each_kind_of_credentials_is_found(
    server: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    home = tmp_path / "home" / ".kaggle"
    if place != "variables":
        monkeypatch.delenv("KAGGLE_USERNAME")
        monkeypatch.delenv("KAGGLE_KEY")
    if place == "kaggle.json":
        (home / "kaggle.json").write_text(json.dumps({"username": USER, "key": KEY}))
        (home / "kaggle.json").chmod(0o644)  # the client warns of it on standard output
    if place == "token":
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    if place == "token file":
        (home / "access_token").write_text(TOKEN + "\n")
    if place == "file named by the variable":
        (tmp_path / "mine").write_text(TOKEN)
        monkeypatch.setenv("KAGGLE_API_TOKEN", str(tmp_path / "mine"))
    assert client.username() == USER
    assert bool(server.requests) == ("token" in place or "file named" in place)
    assert client.submissions("tides") == []


def test_a_token_that_is_no_longer_valid_is_told_by_its_place(
    server: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_of_last_year")
    for action in (client.username, lambda: client.submissions("tides")):
        with pytest.raises(ServiceError, match="credentials from KAGGLE_API_TOKEN, and refused them") as raised:
            action()
        assert "KGAT_" not in str(raised.value)


@pytest.mark.parametrize("token", [False, True])
def test_no_secret_is_printed_or_raised(
    server: KaggleServer,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    token: bool,
) -> None:
    for name, value in server.environment(tmp_path / "home", token=token).items():
        monkeypatch.setenv(name, value)
    echo = f"no {KEY} {TOKEN} at http://localhost/upload/blob-0?{SIGNATURE}&x=1 or http://u:p@localhost"
    seen = []
    for fault in (
        ("StartSubmissionUpload", (500, {"code": 500, "message": echo})),
        ("StartSubmissionUpload", (400, echo.encode())),
        ("CreateSubmission", (500, {"code": 500, "message": echo})),
        ("/upload/", (500, echo.encode())),
        ("CreateSubmission", "cut"),
    ):
        server.faults.append(fault)
        with pytest.raises(ServiceError) as raised:
            client.submit_file("tides", file, "m")
        seen.append(f"{raised.value!r} {raised.value.__cause__!r} {raised.value.__context__!r}")
    seen += capfd.readouterr()
    assert "no " in seen[0]
    used = TOKEN if token else KEY
    assert not any(secret in text for secret in (used, SIGNATURE) for text in seen)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and used.encode() in path.read_bytes()]
    assert left == []


def test_a_missing_client_is_told_with_how_to_install_it(server: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -r requirements-kaggle\.txt"):
        client.submissions("tides")


def test_a_folder_named_kaggle_and_a_newer_version_do_not_disturb(
    server: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kaggle").mkdir()
    (tmp_path / "kaggle" / "__init__.py").write_text("raise SystemExit('not the client')\n")
    monkeypatch.chdir(tmp_path)
    server.headers["X-Kaggle-APIVersion"] = "99.0"
    for token in (False, True):
        for name, value in server.environment(tmp_path / "home", token=token).items():
            monkeypatch.setenv(name, value)
        assert client.username() == USER
        assert client.submissions("tides") == []
        assert client.files("tides") == {}


# ---- data sets and notebooks ----


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack" / "dataset"
    (folder / "code" / "deep").mkdir(parents=True)
    (folder / "code" / "run.sh").write_text("echo\n")
    (folder / "code" / "deep" / "x.py").write_text("x = 1\n")
    (folder / "pack.json").write_text("{}\n")
    metadata = {"id": DATASET, "title": "Tides, packed", "licenses": [{"name": "CC0-1.0"}]}
    write_json(folder / "dataset-metadata.json", metadata)
    return folder


def test_a_data_set_is_created_private_then_versioned_and_folders_travel_as_archives(
    server: KaggleServer, pack: Path, tmp_path: Path
) -> None:
    assert client.dataset_status(DATASET) is None
    assert client.create_or_version_dataset(pack, "first") == 0
    assert client.dataset_status(DATASET) == ("ready", 1)
    (pack / "pack.json").write_text('{"run": 2}\n')
    assert client.create_or_version_dataset(pack, "second") == 1
    first, second = server.datasets[DATASET]["versions"]
    assert first["private"] is True
    assert second["notes"] == "second"
    assert (first["files"]["pack.json"], second["files"]["pack.json"]) == (b"{}\n", b'{"run": 2}\n')
    with zipfile.ZipFile(io.BytesIO(second["files"]["code.zip"])) as packed:
        assert {"run.sh", "deep/x.py"} <= set(packed.namelist())
    assert [path.name for path in pack.parent.iterdir()] == ["dataset"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_data_set_that_lacks_a_file_is_an_error_though_the_client_ends_with_success(
    server: KaggleServer, pack: Path, tmp_path: Path
) -> None:
    server.faults.append(("/upload/", (403, b"")))
    with pytest.raises(ServiceError, match=r"must have all files, and (code\.zip|pack\.json) could not be uploaded"):
        client.create_or_version_dataset(pack, "m")
    assert [path.name for path in pack.parent.iterdir()] == ["dataset"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_cut_upload_of_a_data_set_goes_on_and_arrives_whole(server: KaggleServer, pack: Path) -> None:
    server.faults.append(("/upload/", "cut"))
    client.create_or_version_dataset(pack, "m")
    assert sorted(server.datasets[DATASET]["versions"][0]["files"]) == ["code.zip", "pack.json"]


def test_a_refused_data_set_is_an_error_though_the_client_ends_with_success(server: KaggleServer, pack: Path) -> None:
    server.faults.append(("CreateDataset", (200, {"status": "error", "error": "The title is taken"})))
    with pytest.raises(ServiceError, match=r"refused: The title is taken\."):
        client.create_or_version_dataset(pack, "m")
    server.faults.append(("GetDatasetStatus", (500, {"code": 500, "message": "down"})))
    with pytest.raises(ServiceError, match="500 to GetDatasetStatus: down"):  # which is not: there is no data set
        client.create_or_version_dataset(pack, "m")
    assert server.datasets == {}


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    folder = tmp_path / "pack" / "notebook"
    cell = {"cell_type": "code", "source": ["1"], "outputs": [], "metadata": {}, "execution_count": None}
    write_json(folder / "tides-offline.ipynb", {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    write_json(
        folder / "kernel-metadata.json",
        {"id": NOTEBOOK, "title": "Tides offline", "code_file": "tides-offline.ipynb", "language": "python",
         "kernel_type": "notebook", "is_private": True, "enable_internet": False, "dataset_sources": [DATASET]},
    )  # fmt: skip
    return folder


def test_a_notebook_is_pushed_without_internet_and_its_version_comes_back(server: KaggleServer, notebook: Path) -> None:
    server.datasets[DATASET] = {"versions": [], "status": ["READY"]}
    assert [client.push_kernel(notebook), client.push_kernel(notebook)] == [1, 2]
    saved = server.kernels[NOTEBOOK]["versions"][0]
    assert (saved["enableInternet"], saved["isPrivate"], saved["datasetDataSources"]) == (False, True, [DATASET])


def test_a_push_that_fails_is_an_error_though_the_client_ends_with_success(
    server: KaggleServer, notebook: Path
) -> None:
    with pytest.raises(ServiceError, match=f"does not know {DATASET}"):  # the notebook was saved without its data
        client.push_kernel(notebook)
    server.faults.append(("SaveKernel", (200, {"error": "Maximum batch GPU session count reached"})))
    with pytest.raises(ServiceError, match="session count reached"):
        client.push_kernel(notebook)
    server.faults.append(("SaveKernel", (400, {"code": 400, "message": "Bad notebook"})))
    with pytest.raises(ServiceError, match="400 to SaveKernel: Bad notebook"):
        client.push_kernel(notebook)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("QUEUED", "queued"), ("RUNNING", "running"), ("COMPLETE", "complete"), ("CANCEL_ACKNOWLEDGED", "cancelled")],
)
def test_states_of_a_notebook_have_our_words(server: KaggleServer, theirs: str, ours: str) -> None:
    server.kernels[NOTEBOOK] = {"versions": [{}], "status": [theirs], "failure": ""}
    assert client.kernel_status(NOTEBOOK) == (ours, "")


def test_a_notebook_that_failed_comes_with_the_reason(server: KaggleServer) -> None:
    server.kernels[NOTEBOOK] = {"versions": [{}], "status": ["ERROR"], "failure": "No module named rdkit"}
    assert client.kernel_status(NOTEBOOK) == ("error", "No module named rdkit")


def test_credentials_in_an_unfinished_trace_and_in_addresses_are_taken_out() -> None:
    trace = f"POST http://localhost/api\nAuthorization: Basic YWRhOjAx\nAccept: */*\n\n{{'token': '{TOKEN}'"
    clean = process.without_secrets(trace, [TOKEN])
    assert "YWRhOjAx" not in clean and TOKEN not in clean
    said = process.presentable("PUT https://me:word@host/a/b?X-Signature=abc&Expires=1\n failed; really? yes=no")
    assert said == "PUT https://host/a/b?... failed; really? yes=no"


def test_of_what_the_client_prints_only_bars_are_shown_and_those_on_a_terminal(
    server: KaggleServer, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client.submit_file("tides", file, "m")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    client.submit_file("tides", file, "m")
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%|" in err
    assert all("%|" in line for line in re.split(r"[\r\n]", err) if line)
