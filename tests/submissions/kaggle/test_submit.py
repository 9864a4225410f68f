"""What is sent is checked, asked for, sent once, and written down, whatever the platform and the network do."""

import re
import shutil
from collections.abc import Callable

import pytest

from competition.metrics import METRICS
from core import cli
from core.files import read_json, read_table, sha256_of, write_json, write_table
from pipeline import commands
from submissions.kaggle import client, submit
from submissions.kaggle.ledger import BY_HAND, read, write
from submissions.kaggle.paths import Kernel
from tests.kaggle_server import KEY
from tests.submissions.kaggle.conftest import one

SLUG = "tides"
Command = Callable[[str], int]


@pytest.fixture
def outputs():
    """What each command has printed, in which no secret ever is."""
    printed: list[str] = []
    yield printed
    assert KEY not in "".join(printed)


@pytest.fixture
def submitted(paths, server, done, capsys, outputs):
    """`./run.sh submit` with options; returns its status."""
    server.scores = (0.51,)  # at once

    def run(options):
        status = 0
        try:
            cli.run(lambda: commands.main(["submit", str(done), *options.split()]))
        except SystemExit as end:
            status = end.code
        outputs.append("".join(capsys.readouterr()))
        return status

    return run


def run_folder(paths):
    return paths.run(paths.latest_run.read_text().strip())


def statuses(paths):
    return [row.status for row in read(paths.ledger)]


def test_a_submission_is_sent_with_its_score_expected_and_its_score_comes_back(
    submitted, outputs, paths, server
):
    assert submitted("--yes") == 0
    assert "tides: 5 submissions left" in outputs[0]
    (row,), folder = read(paths.ledger), run_folder(paths)
    choice = read_json(folder / "run.json")["choice"]
    assert (row.status, row.run, row.chosen) == ("scored", folder.name, choice["chosen"])
    assert row.cross_fitted_score == choice["candidates"][row.chosen]["score"] == choice["expected"]["score"]
    assert row.interval.model_dump() == choice["expected"]["interval"]
    assert (row.public, row.private) == (0.51, None)
    assert row.file_digest == sha256_of(folder / "submission.csv") == sha256_of(paths.root / row.file)
    (sent,) = server.submissions
    assert str(sent["ref"]) == row.ref
    assert re.fullmatch("[a-f][0-9a-f]{5}", row.submission)  # no spreadsheet's number
    expected = (
        rf"run {row.run}, {row.chosen}, expected rmse .* \(80 % interval .* to .*\) \[{row.submission}\]"
    )
    assert re.fullmatch(expected, sent["description"])
    assert f"{row.submission}: public 0.51, private -, expected" in outputs[0]


def test_without_a_yes_nothing_is_sent_and_what_was_checked_is_sent_whatever_becomes_of_the_file(
    submitted, paths, server, monkeypatch
):
    file = run_folder(paths) / "submission.csv"
    checked = file.read_bytes()
    assert submitted("") == 2
    monkeypatch.setattr(submit, "confirm", lambda question: False)
    assert submitted("") == 0
    assert not server.submissions and not read(paths.ledger)
    monkeypatch.setattr(submit, "confirm", lambda question: bool(file.write_text("id,height\nbroken,\n")))
    assert submitted("") == 0
    assert [sent["content"] for sent in server.submissions] == [checked]


def test_the_same_file_is_sent_once_and_another_within_the_daily_limit(submitted, paths, server, monkeypatch):
    monkeypatch.setattr(submit, "LIMIT", 60.0)
    server.competitions[SLUG]["limit"] = 2
    server.scores = ()  # what waits for its score counts as sent
    candidates = [f"--file {run_folder(paths)}/candidates/{name}.csv" for name in ("mean", "best_single")]
    lines = ["--yes", "--yes", *(f"--yes {candidate}" for candidate in candidates)]
    assert [submitted(line) for line in lines] == [0, 2, 0, 2]
    assert len(server.submissions) == len(read(paths.ledger)) == 2


def test_after_a_kill_the_platform_is_queried_before_anything_is_sent(submitted, paths, server, monkeypatch):
    real = client.submit_file

    def killed(*arguments):
        assert statuses(paths) == ["submitting"], "written down before anything is sent"
        real(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(client, "submit_file", killed)
        assert submitted("--yes") == 130
    assert statuses(paths) == ["submitting"] and len(server.submissions) == 1
    assert submitted("--yes") == 2
    assert len(server.submissions) == 1 and statuses(paths) == ["scored"]


def test_a_public_score_is_held_against_the_interval_of_the_expected_one():
    expected = {"expected_score": 0.65, "lower": 0.6, "upper": 0.7, "coverage": 0.8}
    row = one("a", status="scored", **expected, public=0.71)
    line = "a: public 0.71, private -, expected 0.650 (80 % interval 0.600 to 0.700)"
    is_part = "the interval is for the whole test table, and scores of a part of it vary more"
    assert submit.describe_outcome(row, METRICS["rmse"]) == f"{line}: public is worse ({is_part})"
    assert submit.describe_outcome(row, METRICS["r2"]) == f"{line}: public is better ({is_part})"
    inside = submit.describe_outcome(row.with_changes(public=0.7), METRICS["r2"])
    assert inside.endswith("to 0.700), which holds the public score")
    unknown = submit.describe_outcome(row.with_changes(lower=None), METRICS["r2"])
    assert unknown == "a: public 0.71, private -, expected 0.6500"


def test_for_another_platform_the_checked_file_and_a_row_are_written_and_nothing_is_sent(
    submitted, outputs, paths, server, tmp_path
):
    yaml_file = tmp_path / "mixed.yaml"
    with_slug = yaml_file.read_text()
    yaml_file.write_text(with_slug.replace(f"kaggle: {SLUG}", ""))
    assert submitted("") == 0
    assert "--public SCORE" in outputs[0]
    (row,) = read(paths.ledger)
    assert (row.status, row.ref) == ("submitted", BY_HAND)
    assert (paths.root / row.file).read_bytes() == (run_folder(paths) / "submission.csv").read_bytes()
    assert submitted("--kernel") == 2
    paths.latest_run.unlink()
    assert submitted("") == 2
    assert not server.requests and len(read(paths.ledger)) == 1


def test_a_pushed_notebook_is_submitted_once_per_version_with_the_scores_of_its_run(
    submitted, outputs, paths, server
):
    assert submitted("--kernel --yes") == 2
    kernel, run, notebook = Kernel.of(paths), run_folder(paths).name, "ada/heights-offline"
    manifest = kernel.bundle.manifest
    write_json(manifest, {"run": run})
    packed = kernel.bundle.work / run_folder(paths).relative_to(paths.root.parent) / "run.json"
    packed.parent.mkdir(parents=True)
    packed.write_bytes((run_folder(paths) / "run.json").read_bytes())
    shutil.rmtree(run_folder(paths))  # as after a later run of what the notebook packed
    write_json(kernel.pushed, {"notebook": notebook, "version": 3, "bundle": sha256_of(manifest)})
    assert submitted("--kernel --yes") == 2
    assert statuses(paths) == ["lost"]  # Kaggle has no such version
    server.kernels[notebook] = {"versions": [{}, {}, {}]}
    server.faults.append(("CreateCodeSubmission", "cut after"))
    assert submitted("--kernel --yes") == 0
    assert "arrived despite an error" in outputs[-1]
    row = read(paths.ledger)[-1]
    assert (row.run, row.file) == (run, "version 3 of ada/heights-offline")
    assert row.cross_fitted_score is not None
    assert submitted("--kernel --yes") == 2 and len(server.submissions) == 1


def test_what_does_not_fit_or_is_not_there_spends_nothing(submitted, paths, server, tmp_path):
    short = tmp_path / "short.csv"
    write_table(short, read_table(run_folder(paths) / "submission.csv").iloc[1:])
    for file in (short, tmp_path / "none.csv"):
        assert submitted(f"--yes --file {file}") == 2
    assert not server.requests and not read(paths.ledger)


def test_a_file_of_the_user_has_no_score_and_a_candidate_of_the_run_has_one(
    submitted, paths, server, tmp_path
):
    folder = run_folder(paths)
    write_table(tmp_path / "mine.csv", read_table(folder / "submission.csv").assign(height=1.5))
    assert submitted(f"--yes -m mine --file {tmp_path}/mine.csv") == 0
    (folder / "submission.csv").unlink()
    assert submitted(f"--yes --file {folder}/candidates/mean.csv") == 0
    mine, blend = sorted(read(paths.ledger), key=lambda row: row.run)
    assert (mine.run, mine.cross_fitted_score, mine.message) == ("", None, "mine")
    choice = read_json(folder / "run.json")["choice"]
    assert blend.cross_fitted_score == choice["candidates"]["mean"]["score"]


REFUSED = ("CreateSubmission", (400, {"code": 400, "message": "the team is full"}))
NOT_LISTED = ("ListSubmissions", (200, {"submissions": []}))


@pytest.mark.parametrize(
    ("faults", "status", "state", "sent", "again"),
    [
        ([REFUSED], 2, "lost", 0, 0),
        ([("CreateSubmission", "cut after")], 0, "scored", 1, 2),  # the answer was lost
        ([("CreateSubmission", "cut")], 2, "lost", 0, 0),  # it never arrived
        ([("CreateSubmission", "cut after"), NOT_LISTED], 2, "lost", 1, 2),
    ],
)
def test_a_submission_that_was_refused_or_whose_answer_was_lost_is_resent_only_if_it_never_arrived(
    submitted, paths, server,
    faults, status, state, sent, again,
):  # fmt: skip
    server.faults += faults
    assert submitted("--yes") == status
    assert statuses(paths) == [state] and len(server.submissions) == sent
    assert read(paths.ledger)[0].message.endswith("the team is full.") == (REFUSED in faults)
    assert submitted("--yes") == again
    assert len(server.submissions) == 1 and statuses(paths)[-1] == "scored"


def test_a_score_is_waited_for_no_longer_than_the_limit_and_over_a_passing_trouble_and_fetched_later(
    submitted, paths, server, clock, done, capsys
):
    def ledger():
        commands.main(["ledger", str(done)])
        return capsys.readouterr().out

    server.scores = ()
    server.faults += [("ListSubmissions", (500, {"code": 500, "message": "try later"}))] * 2
    assert submitted("--yes") == 0
    assert submit.LIMIT - 2 * client.POLL <= sum(clock) <= submit.LIMIT
    (row,) = read(paths.ledger)
    server.score(row.ref, 0.4, 0.3)
    news = f"{row.submission}: public 0.4, private 0.3"
    assert news in ledger()
    assert news not in ledger()
    write(paths.ledger, row.with_changes(submission="b"))
    server.score(row.ref, error="Evaluation: ids do not match")
    ledger()
    scored, failed = read(paths.ledger)
    assert (scored.public, scored.private, failed.status) == (0.4, 0.3, "failed")
    assert "ids do not match" in failed.message
    server.faults += [("ListSubmissions", (500, {"code": 500, "message": "down"}))] * 9
    write(paths.ledger, row.with_changes(submission="c"))
    assert "WARNING: scores were not fetched: " in ledger()
