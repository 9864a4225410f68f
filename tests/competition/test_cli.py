"""How commands end, who may work on a competition at a time, times in words, and which code and packages
these are.
"""

import errno
import importlib.util
import os
import re
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from competition.config import load_competition
from competition.prepare import prepare, write_prepared
from core import cli
from core import paths as revision_module
from core.environment import mismatch
from core.errors import ConfigError, DataError, NothingToSubmit
from core.files import PROJECT, read_table
from core.paths import Paths, revision
from core.settings import parse_duration
from core.text import format_duration
from pipeline.commands import parse
from tests.competition.small import TRAIN, write_small


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DataError("x"), 2), (NothingToSubmit("x"), 1), (OSError(errno.ENOSPC, "No space"), 2),
        (OSError(errno.EROFS, "ro"), 2), (PermissionError(errno.EPERM, "immutable"), 2),
        (KeyboardInterrupt(), 130), (BrokenPipeError(), 141), (ValueError("ours"), None),
        (OSError(errno.EIO, "disk"), None),
    ],
)  # fmt: skip
def test_a_command_ends_with_the_status_of_its_error_or_keeps_the_traceback_of_a_bug(
    error: Any, status: Any
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(type(error) if status is None else SystemExit) as end:
        cli.run(main)
    assert getattr(end.value, "code", None) == status


@pytest.mark.parametrize(("place", "advice"), [("out", "Choose another path"), ("work", "set WORK_DIR")])
def test_a_file_that_cannot_be_written_is_blamed_and_not_another_folder(
    place: str,
    advice: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    (tmp_path / place).touch()
    with pytest.raises(SystemExit):
        cli.run(lambda: (tmp_path / place / "deep" / "file.csv").write_text("x") and None)
    message = capsys.readouterr().err
    assert str(tmp_path / place) in message
    assert advice in message


@pytest.mark.parametrize("is_made", [True, False])
def test_a_folder_for_products_that_cannot_be_made_is_blamed_and_no_other_missing_file(
    is_made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "gone" / "work"))
    if is_made:
        (tmp_path / "gone" / "work").mkdir(parents=True)
    with pytest.raises(FileNotFoundError if is_made else SystemExit):
        cli.run(lambda: (tmp_path / "gone" / "nowhere").rmdir() if is_made else (tmp_path / "gone").rmdir())
    assert ("set WORK_DIR to another folder" in capsys.readouterr().err) is not is_made


@pytest.mark.parametrize("status", [None, 0, 1, 3])
def test_a_command_ends_with_the_status_that_it_returns(status: int | None) -> None:
    if not status:
        cli.run(lambda: status)
        return
    with pytest.raises(SystemExit) as end:
        cli.run(lambda: status)
    assert end.value.code == status


def test_products_are_used_by_one_command_at_a_time_and_one_that_waits_prints_for_whom() -> None:
    paths = Paths.for_competition("one")
    code = (
        "from core import cli\nfrom core.paths import Paths\n"
        "with cli.locked(Paths.for_competition('one'), wait=True):\n    print('mine')\n"
    )
    with cli.locked(paths):
        with pytest.raises(DataError, match=rf"one is in use \(.*process {os.getpid()}\)"), cli.locked(paths):
            raise AssertionError("both hold the lock")
        waiting = subprocess.Popen(
            [sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True
        )
        assert waiting.stdout.readline().startswith("waiting for ")
        assert waiting.poll() is None
    assert waiting.communicate()[0] == "mine\n"


def test_one_driver_trains_or_one_on_each_shard_and_tables_change_while_none_does(tmp_path: Path) -> None:
    def prepare_with(label: str) -> float:
        path = write_small(tmp_path, [*TRAIN[:3], f"c,CCN,{label}", *TRAIN[4:]])
        competition = load_competition(str(path))
        write_prepared(prepare(competition), competition)
        return float(read_table(paths.train)["y"][2])

    paths = Paths.for_competition("small")
    assert prepare_with("3.0") == 3.0

    def other_driver(shard: int, n_shards: int) -> AbstractContextManager[None]:
        return cli.locked(paths, paths.training_lock(shard, n_shards))

    with other_driver(1, 4), other_driver(2, 4):
        for shard in ((1, 4), (1, 3), None):
            with pytest.raises(DataError, match="in use"), cli.training(paths, shard):
                raise AssertionError("two drivers are at the same jobs")
        prepare_with("3.0")
        with pytest.raises(DataError, match="small is in use"):
            prepare_with("7.5")
        assert read_table(paths.train)["y"][2] == 3.0
    with other_driver(1, 1), pytest.raises(DataError, match="in use"), cli.training(paths, (1, 4)):
        raise AssertionError("two drivers are at the same jobs")
    with cli.training(paths, (1, 3)):
        assert prepare_with("7.5") == 7.5  # its own tables


def test_times_are_read_and_formatted_and_any_other_text_is_refused() -> None:
    read = [parse_duration(text) for text in ("2h", "90m", "30s", "45", "1.5h", " 0.5 ")]
    assert read == [7200, 5400, 30, 45, 5400, 0.5]
    assert [format_duration(seconds) for seconds in (7200, 3599, 90, 59.96)] == [
        "2 h",
        "60 min",
        "1.5 min",
        "60 s",
    ]
    for text in ("", "2d", "-1", "0h", "nan", "2h30", "²h"):
        with pytest.raises(ConfigError, match=rf"such as 2h, .*; got {re.escape(repr(text))}"):
            parse_duration(text)


def test_missing_packages_are_reported_and_versions_are_numbers() -> None:
    bare = [
        sys.executable,
        "-I",
        "-S",
        str(PROJECT / "core" / "environment.py"),
    ]  # without any package
    done = subprocess.run(bare, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "torch is missing, needed torch>=" in done.stderr
    fits = [
        mismatch("name", *pair) == ""
        for pair in ((">=2.10,<3", "2.13.0+cpu"), (">=2.10", "2.9"), ("<3", "3.0"))
    ]
    assert fits == [True, False, False]


def test_the_revision_is_gits_and_reports_when_code_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(folder: Path, *arguments: str) -> str:
        line = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.org", *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()

    project = tmp_path / "project"
    monkeypatch.setattr(revision_module, "PROJECT", project)
    project.mkdir()
    (project / "run.sh").write_text("true")
    git(tmp_path, "init", "-q")  # of somebody else, around a copy of the project that it does not track
    assert revision() == "unknown"
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        git(project, *arguments)
    clean = revision()
    assert git(project, "rev-parse", "HEAD").startswith(clean)
    (project / "run.sh").write_text("false")
    assert revision() == f"{clean}-dirty"
    monkeypatch.setenv("PATH", str(project))  # no git at all
    assert revision() == "unknown"


def test_options_are_read_and_impossible_values_are_refused() -> None:
    options = parse(["train", "toy", "--holdout", "0.2", "--shard", "2/4", "--workers", "3"])
    assert (options.held_out_of, Path(options.competition).name) == ("toy", "toy_holdout20.yaml")
    assert (options.shard, options.workers) == ((2, 4), 3)
    shards = [("--shard", value) for value in ("0/4", "5/4", "a/b", "1", "1/4/2")]
    for name, value in (*shards, ("--workers", "0"), ("--holdout", "0.9"), ("--set", "x"), ("--stages", ",")):
        with pytest.raises(ConfigError, match=f"{name} takes"):
            parse(["train", name, value])
    with pytest.raises(ConfigError, match="a time is .* got 'never'"):
        parse(["full", "--budget", "never"])


def test_a_tracker_reaches_workers_and_one_that_is_not_installed_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOSS_TRACKER", "")
    parse(["full", "--tracker", "tensorboard"])
    assert os.environ["LOSS_TRACKER"] == "tensorboard"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install mlflow"):
        parse(["full", "--tracker", "mlflow"])
