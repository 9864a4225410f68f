"""The real client against a server that speaks its protocol: nothing is spent twice, no failure passes for
success.
"""

import sys

import pytest

from core.errors import ConfigError, ServiceError
from submissions.kaggle import client
from tests.kaggle_server import KEY, SIGNATURE, TOKEN, USER


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text("id,height\n" + "".join(f"{i},{i / 7}\n" for i in range(5000)))
    return path


def answer(status, message):
    return status, {"code": status, "message": message}


def test_a_file_arrives_intact_and_once_though_the_upload_was_cut(server, file):
    message = "--run 3f, \"quoted\" 'too' ü"
    assert client.submissions_left("tides") == 5
    server.faults.append(("/upload/", "cut"))
    ref = client.submit_file("tides", file, message)
    assert [(str(one["ref"]), one["content"]) for one in server.submissions] == [(ref, file.read_bytes())]
    (listed,) = client.submissions("tides")
    assert (str(listed.ref), listed.description, listed.status.name) == (ref, message, "PENDING")
    assert client.submissions_left("tides") == 4


@pytest.mark.parametrize(
    ("call", "fault", "words"),
    [
        ("StartSubmissionUpload", "cut", "could not be reached"),
        ("StartSubmissionUpload", answer(403, "no"), "its rules at https://www.kaggle.com/competitions/tides/rules"),
        ("StartSubmissionUpload", (404, b"<html>lost</html>"), "is tides the slug in the competition's URL"),
        ("/upload/", (500, b""), r"has not confirmed the submission \(Could not submit"),
        ("CreateSubmission", answer(400, "The column is missing."), r"column is missing\.$"),
        ("CreateSubmission", (200, {"code": 400, "message": "The column is missing."}), "column is missing"),
        ("CreateSubmission", answer(500, "late"), "answered: late"),
        ("CreateSubmission", (200, b"<html>Log in to this network</html>"), "Kaggle"),
    ],
)  # fmt: skip
def test_a_failure_is_reported_with_its_reason_and_nothing_is_sent_twice(server, file, call, fault, words):
    server.faults.append((call, fault))
    with pytest.raises(ServiceError, match=words):
        client.submit_file("tides", file, "m")
    assert server.submissions == []
    assert len(server.calls("CreateSubmission")) <= 1


def test_submissions_are_listed_over_all_pages(server):
    server.competitions["tides"]["limit"] = 300
    for i in range(200):
        server.submit({"competitionName": "tides", "submissionDescription": f"m{i}"}, "submission.csv", b"")
    assert sorted(one.ref for one in client.submissions("tides")) == list(range(1000, 1200))


def test_no_secret_is_printed_or_raised(server, file, monkeypatch, capfd):
    monkeypatch.setenv("VERBOSE", "true")
    signed = f"no http://localhost/upload/blob-0?{SIGNATURE}&x=1 now"
    raised = ""
    for fault in (("StartSub", answer(500, signed)), ("/upload/", (500, b"no")), ("CreateSub", "cut")):
        server.faults.append(fault)
        with pytest.raises(ServiceError) as error:
            client.submit_file("tides", file, "m")
        raised += str(error.value)
    assert capfd.readouterr() == ("", "") and "no http://localhost/upload/blob-0 now" in raised
    assert KEY not in raised and SIGNATURE not in raised


def test_a_missing_client_is_reported_with_how_to_install_it(monkeypatch):
    client.login.cache_clear()
    monkeypatch.setitem(sys.modules, "kaggle.api.kaggle_api_extended", None)
    with pytest.raises(ConfigError, match=r"pip install -r requirements-kaggle\.txt"):
        client.submissions("tides")


def test_without_credentials_or_with_old_ones_it_is_explained_how_to_get_them(server, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    how = r"KAGGLE_API_TOKEN or ~/\.kaggle/access_token"
    for token in ("", "KGAT_old"):
        monkeypatch.setenv("KAGGLE_API_TOKEN", token)
        with pytest.raises(ServiceError, match=how) as raised:
            client.username()
        assert "KGAT_" not in str(raised.value)
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    assert client.username() == USER
