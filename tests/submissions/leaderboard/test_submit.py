"""What is sent is checked, asked for, sent once, and written down, whatever the platform and the network do."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from competition import command
from competition.files import read_json, read_table, sha256_of, write_json, write_table
from competition.paths import Paths
from submissions.leaderboard import attempts, ledger, submit
from submissions.leaderboard.ledger import Submission, read, submissions
from tests.kaggle_server import KEY, KaggleServer
from tests.submissions.fakes import fake_competition, prepare_and_fake_jobs, run_steps

SLUG = "heights"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a competition that is on Kaggle."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        path = fake_competition(folder)
        document = yaml.safe_load(path.read_text())
        document["competition"]["kaggle"] = SLUG
        path.write_text(yaml.safe_dump(document))
        prepare_and_fake_jobs(path)
        run_steps(path)
    return folder


@pytest.fixture
def yaml_file(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "own")
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "own" / "work"))
    monkeypatch.setattr(attempts, "POLL", 0.01)
    return next((tmp_path / "own").glob("*.yaml"))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    with KaggleServer() as server:
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        server.competitions[SLUG] = {"files": {}, "limit": 5}
        server.scores = (0.51, None)
        yield server


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """All that was printed; no secret is ever in it."""
    lines: list[str] = []
    yield lines
    text = "\n".join(lines) + "".join(capsys.readouterr())
    assert KEY not in text


def run(
    said: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: Path, *options: str
) -> tuple[int, str]:
    """Status and output of `./run.sh submit`."""
    monkeypatch.setattr(sys, "argv", ["submit", str(path), *options])
    status = 0
    try:
        command.run(submit.main)
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    said.append(out + err)
    return status, out + err


@pytest.fixture
def submitted(said, capsys, monkeypatch, yaml_file):  # type: ignore[no-untyped-def]
    """Runs the command on the YAML with options."""
    return lambda *options: run(said, capsys, monkeypatch, yaml_file, *options)


def known(path: Path) -> list[Submission]:
    return submissions(read(Paths.of(str(path)).ledger))


def events(path: Path) -> list[str]:
    return [event.event for event in read(Paths.of(str(path)).ledger)]


def test_a_submission_is_sent_with_its_score_expected_and_its_score_comes_back(
    submitted, yaml_file: Path, server: KaggleServer
) -> None:
    status, out = submitted("--yes")
    assert status == 0, out
    assert "5 of 5 left today" in out
    (one,) = known(yaml_file)
    paths = Paths.of(str(yaml_file))
    folder = paths.run(paths.latest_run.read_text().strip())
    selection = read_json(folder / "selection.json")
    assert one.run == folder.name and one.chosen == selection["chosen"]
    assert one.cross_fitted_score == selection["procedure"]["cross_fitted_score"]
    assert one.standard_error == selection["procedure"]["standard_error"]
    assert one.cv_score == selection["cross_fitted_score"]
    assert one.public == 0.51 and one.private is None
    assert one.file_digest == sha256_of(folder / "submission.csv") == sha256_of(paths.root / one.file)
    (sent,) = server.submissions
    assert str(sent["ref"]) == one.ref
    assert re.fullmatch(
        rf"run {one.run}, {one.chosen}, cross-fitted .* \+- .* \[{one.submission}\]", sent["description"]
    )
    assert events(yaml_file) == ["submitting", "submitted", "scored"]
    assert "public 0.51; cross-fitted" in " ".join(out.split()) or "public 0.51" in out


def test_the_users_own_message_and_file_are_sent(
    submitted, yaml_file: Path, server: KaggleServer, tmp_path: Path
) -> None:
    paths = Paths.of(str(yaml_file))
    table = read_table((submit.latest_run(paths) / "submission.csv"), ["id"])
    write_table(tmp_path / "mine.csv", table.assign(height=1.5))
    status, out = submitted("--yes", "-m", "by hand", "--file", str(tmp_path / "mine.csv"))
    assert status == 0, out
    (one,) = known(yaml_file)
    assert one.run == "" and one.cross_fitted_score is None
    assert server.submissions[0]["description"] == f"by hand [{one.submission}]"


def test_a_blend_that_was_not_chosen_is_known_by_its_own_score(
    submitted, yaml_file: Path, server: KaggleServer
) -> None:
    paths = Paths.of(str(yaml_file))
    folder = paths.run(paths.latest_run.read_text().strip())
    (folder / "submission.csv").unlink()
    status, out = submitted("--yes", "--file", str(folder / "blend.csv"))
    assert status == 0, out
    blend = read_json(folder / "blend.json")
    assert known(yaml_file)[0].cross_fitted_score == blend["candidates"][blend["chosen"]]["cross_fitted_score"]


def test_a_file_that_does_not_fit_the_sample_spends_nothing(
    submitted, yaml_file: Path, server: KaggleServer, tmp_path: Path
) -> None:
    table = read_table(submit.latest_run(Paths.of(str(yaml_file))) / "submission.csv", ["id"])
    write_table(tmp_path / "short.csv", table.iloc[1:])
    status, out = submitted("--yes", "--file", str(tmp_path / "short.csv"))
    assert status == 2 and "must have the ids of the sample" in out
    assert not server.requests and not known(yaml_file)


def test_without_an_answer_nothing_is_sent(
    submitted, yaml_file: Path, server: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out = submitted()
    assert status == 2 and "Add --yes" in out
    monkeypatch.setattr(submit, "confirm", lambda question: False)
    status, out = submitted()
    assert status == 0 and "Nothing was sent." in out
    assert not server.submissions and not known(yaml_file)


def test_what_was_checked_is_sent_whatever_becomes_of_the_file_meanwhile(
    submitted, yaml_file: Path, server: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = submit.latest_run(Paths.of(str(yaml_file))) / "submission.csv"
    checked = file.read_bytes()

    def change(_: str) -> bool:
        file.write_text("id,height\nbroken,\n")
        return True

    monkeypatch.setattr(submit, "confirm", change)
    status, out = submitted()
    assert status == 2 and "has changed since" in out
    assert not server.submissions and not ledger.read(Paths.of(str(yaml_file)).ledger)
    file.write_bytes(checked)
    send = submit.attempt
    monkeypatch.setattr(submit, "attempt", lambda *given: (change(""), send(*given)))
    status, out = submitted("--yes")
    assert status == 0, out
    assert [one["content"] for one in server.submissions] == [checked]


def test_the_same_file_is_sent_twice_only_with_again(submitted, yaml_file: Path, server: KaggleServer) -> None:
    submitted("--yes")
    status, out = submitted("--yes")
    assert status == 2 and "this was sent at" in out and "public 0.51" in out
    assert len(server.submissions) == 1
    assert submitted("--yes", "--again")[0] == 0
    assert len(server.submissions) == 2 and len(known(yaml_file)) == 2


def test_the_daily_limit_is_seen_before_a_slot_is_spent(submitted, yaml_file: Path, server: KaggleServer) -> None:
    server.competitions[SLUG]["limit"] = 1
    submitted("--yes")
    status, out = submitted("--yes", "--again")
    assert status == 2 and "1 submissions a day and none is left" in out
    assert len(server.submissions) == 1 and events(yaml_file).count("submitting") == 1


def test_a_limit_on_all_submissions_does_not_send_to_tomorrow(
    submitted, server: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit.client, "limits", lambda slug: submit.client.Limits(0, None))
    status, out = submitted("--yes")
    assert status == 2 and "used all of them" in out and "tomorrow" not in out and "None" not in out
    assert not server.submissions


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (("CreateSubmission", (400, {"code": 400, "message": "Submission not allowed: team is full"})), "team is full"),
        (("CreateSubmission", (401, {"code": 401, "message": "Unauthenticated"})), "new token"),
        (("StartSubmissionUpload", (403, {"code": 403, "message": "Permission denied"})), "accept its rules"),
    ],
)
def test_a_refusal_is_told_with_its_reason_and_written_down_and_the_next_try_is_free(
    submitted, yaml_file: Path, server: KaggleServer, fault: tuple, words: str
) -> None:
    server.faults.append(fault)
    status, out = submitted("--yes")
    assert status == 2 and words in out and "Traceback" not in out
    assert events(yaml_file) == ["submitting", "failed"] and not server.submissions
    assert submitted("--yes")[0] == 0
    assert len(server.submissions) == 1


@pytest.mark.parametrize("fault", ["cut after", (500, {"code": 500, "message": "Internal error"}, "after")])
def test_a_submission_whose_answer_was_lost_is_found_and_not_sent_again(
    submitted, yaml_file: Path, server: KaggleServer, fault: object
) -> None:
    server.faults.append(("CreateSubmission", fault))
    status, out = submitted("--yes")
    assert status == 0, out
    assert "it arrived" in out
    assert len(server.submissions) == 1
    assert events(yaml_file) == ["submitting", "submitted", "scored"] and known(yaml_file)[0].public == 0.51


@pytest.mark.parametrize("fault", ["cut", (500, {"code": 500, "message": "Internal error"})])
def test_a_submission_that_was_lost_is_said_to_be_lost_and_can_be_sent_again(
    submitted, yaml_file: Path, server: KaggleServer, fault: object
) -> None:
    server.faults.append(("CreateSubmission", fault))
    status, out = submitted("--yes")
    assert status == 2 and not server.submissions
    assert events(yaml_file) == ["submitting", "failed"]
    assert submitted("--yes")[0] == 0
    assert len(server.submissions) == 1


def test_a_submission_that_the_platform_lists_late_is_not_sent_again(
    submitted, yaml_file: Path, server: KaggleServer
) -> None:
    server.faults.append(("CreateSubmission", "cut after"))
    server.faults += [("ListSubmissions", (200, {"submissions": []}))] * 3
    status, out = submitted("--yes")
    assert status == 2 and known(yaml_file)[0].status == "failed"
    status, out = submitted("--yes")
    assert status == 2 and "this was sent" in out
    (one,) = known(yaml_file)
    assert one.status == "scored" and one.public == 0.51 and "never arrived" not in one.message
    assert len(server.submissions) == 1


def test_a_passing_trouble_while_the_score_is_waited_for_is_passed_over(
    submitted, yaml_file: Path, server: KaggleServer
) -> None:
    server.faults += [("ListSubmissions", (500, {"code": 500, "message": "try later"}))] * 2
    status, out = submitted("--yes")
    assert status == 0 and "public 0.51" in out
    server.faults += [("ListSubmissions", (500, {"code": 500, "message": "try later"}))] * 9
    status, out = submitted("--yes", "--again")
    assert status == 2 and "try later" in out


def test_after_a_kill_the_platform_is_asked_before_anything_is_sent(
    submitted, yaml_file: Path, server: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> str:
        real(*arguments)
        raise KeyboardInterrupt

    real = submit.client.submit_file
    with monkeypatch.context() as patch:
        patch.setattr(submit.client, "submit_file", killed)
        assert submitted("--yes")[0] == 130
    assert events(yaml_file) == ["submitting"] and len(server.submissions) == 1
    status, out = submitted("--yes")
    assert status == 2 and "this was sent" in out
    assert len(server.submissions) == 1
    assert events(yaml_file) == ["submitting", "submitted", "scored"]


def test_a_score_that_never_comes_is_waited_for_no_longer_than_asked_and_fetched_later(
    submitted, yaml_file: Path, server: KaggleServer
) -> None:
    server.scores = None
    status, out = submitted("--yes", "--wait", "0.05")
    assert status == 0 and "No score after 0.05 s" in out
    assert "No score yet" in submitted("--fetch")[1]
    server.score(known(yaml_file)[0].ref, 0.4, 0.3)
    status, out = submitted("--fetch")
    assert status == 0 and "public 0.40000, private 0.30000" in out
    (one,) = known(yaml_file)
    assert (one.public, one.private) == (0.4, 0.3)
    status, out = submitted("--fetch")
    assert status == 0 and "No submission waits for a score." in out
    assert events(yaml_file).count("scored") == 1


def test_a_score_is_held_against_the_expected_one_in_its_standard_errors() -> None:
    one = Submission(ledger.now(), "scored", "a", cross_fitted_score=0.65, standard_error=0.03, public=0.71)
    assert (
        submit.outcome(one, False)
        == "public 0.71000; cross-fitted 0.65000 +- 0.03, so public is 2.0 standard errors worse"
    )
    assert submit.outcome(one, True).endswith("2.0 standard errors better")


def test_a_file_that_the_platform_cannot_score_is_told_with_the_reason(
    submitted, yaml_file: Path, server: KaggleServer
) -> None:
    server.scores = None
    submitted("--yes", "--no-wait")
    server.score(known(yaml_file)[0].ref, None, error="Evaluation: ids do not match")
    submitted("--fetch")
    (one,) = known(yaml_file)
    assert one.status == "failed" and one.message.endswith("Evaluation: ids do not match")


def test_a_dry_run_writes_the_checked_file_and_a_row_and_sends_nothing(
    submitted, yaml_file: Path, server: KaggleServer
) -> None:
    status, out = submitted("--dry-run")
    assert status == 0 and "--public SCORE" in out
    (one,) = known(yaml_file)
    paths = Paths.of(str(yaml_file))
    assert (one.status, one.ref) == ("submitted", submit.BY_HAND)
    assert (paths.root / one.file).read_bytes() == (submit.latest_run(paths) / "submission.csv").read_bytes()
    assert not server.requests
    assert submitted("--yes")[0] == 0, "a file that was only tried may be sent"


def test_without_a_slug_or_a_run_it_is_said_what_is_lacking(
    submitted, yaml_file: Path, server: KaggleServer, tmp_path: Path
) -> None:
    yaml_file.write_text(yaml_file.read_text().replace(f"kaggle: {SLUG}", ""))
    status, out = submitted("--yes")
    assert status == 2 and "competition.kaggle" in out and "--dry-run" in out
    Paths.of(str(yaml_file)).latest_run.unlink()
    status, out = submitted("--dry-run")
    assert status == 2 and "./run.sh full" in out
    assert not ledger.read(Paths.of(str(yaml_file)).ledger)


def test_a_pushed_notebook_is_submitted_once_per_version_with_the_scores_of_its_run(
    submitted, yaml_file: Path, server: KaggleServer
) -> None:
    paths = Paths.of(str(yaml_file))
    status, out = submitted("--kernel", "--yes")
    assert status == 2 and "--push" in out
    write_json(paths.pack.facts, {"run": submit.latest_run(paths).name})
    pushed = {"notebook": {"id": "ada/heights-offline", "version": 3}}
    write_json(paths.pushed, pushed | {"dataset": {"digest": "of another pack"}})
    status, out = submitted("--kernel", "--yes")
    assert status == 2 and "version 3 of ada/heights-offline has on Kaggle, and is not" in out and "--push" in out
    write_json(paths.pushed, pushed | {"dataset": {"digest": sha256_of(paths.pack.facts)}})
    status, out = submitted("--kernel", "--yes")
    assert status == 2 and "Kaggle knows no version" in out and "--push" in out
    server.kernels["ada/heights-offline"] = {"versions": [{}, {}, {}]}
    status, out = submitted("--kernel", "--yes")
    assert status == 0, out
    one = known(yaml_file)[-1]
    assert one.run == submit.latest_run(paths).name and one.cross_fitted_score is not None
    assert one.file == "version 3 of ada/heights-offline"
    assert len(server.submissions) == 1
    status, out = submitted("--kernel", "--yes")
    assert status == 2 and "was sent at" in out
