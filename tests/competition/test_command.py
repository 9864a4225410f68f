"""How commands end, who may work on a competition at a time, times in words, and which code and packages these are."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from competition import command
from competition import revision as revision_module
from competition.config import load_competition
from competition.durations import in_words, seconds_of
from competition.environment import mismatch
from competition.errors import ConfigError, DataError
from competition.files import read_table
from competition.paths import PROJECT, Paths
from competition.prepare import run as prepare
from competition.revision import revision
from tests.competition.small import TRAIN, write_small

OTHER_LABEL = [*TRAIN[:3], "c,CCN,7.5", *TRAIN[4:]]


def test_the_command_ends_with_2_and_one_sentence_and_leaves_earlier_products_alone(tmp_path: Path) -> None:
    def run_prepare(path: Path) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "competition.prepare", str(path)]
        return subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=False)

    def products() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "work").rglob("*") if path.is_file()}

    first = run_prepare(write_small(tmp_path))
    assert first.returncode == 0, first.stderr
    assert "6 training rows, 2 test rows" in first.stdout
    written = products()
    for path in (write_small(tmp_path, [*TRAIN[:3], "c,CCN,high"]), tmp_path / "absent.yaml"):
        broken = run_prepare(path)
        assert (broken.returncode, broken.stdout) == (2, "")
        assert re.fullmatch(r"(DataError|ConfigError): .+\n", broken.stderr)
        assert products() == written


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DataError("x"), 2),
        (OSError(errno.ENOSPC, "No space"), 2),
        (OSError(errno.EROFS, "ro"), 2),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
        (ValueError("ours"), None),
        (OSError(errno.EIO, "disk"), None),
    ],
)
def test_a_command_ends_with_the_status_of_its_error_or_keeps_the_traceback_of_ours(
    error: BaseException, status: int | None
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(type(error) if status is None else SystemExit) as end:
        command.run(main)
    assert getattr(end.value, "code", None) == status


def test_products_are_used_by_one_command_at_a_time_and_one_that_waits_says_for_whom() -> None:
    paths = Paths.of("one")
    code = (
        "from competition import command\nfrom competition.paths import Paths\n"
        "with command.locked(Paths.of('one'), wait=True):\n    print('mine')\n"
    )
    with command.locked(paths):
        with pytest.raises(DataError, match=rf"one is in use \(.*process {os.getpid()}\)"), command.locked(paths):
            raise AssertionError("both hold the lock")
        waiting = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        assert waiting.stdout is not None
        assert waiting.stdout.readline().startswith("waiting for ")
        assert waiting.poll() is None
    assert waiting.communicate()[0] == "mine\n"


def test_one_driver_trains_or_one_on_each_shard() -> None:
    paths = Paths.of("one")
    with command.training(paths, (1, 4)), command.training(paths, (2, 4)):
        for shard in ((1, 4), (1, 3), None):
            with pytest.raises(DataError, match="in use"), command.training(paths, shard):
                raise AssertionError("two drivers are at the same jobs")
    with command.training(paths), pytest.raises(DataError, match="in use"), command.training(paths, (1, 4)):
        raise AssertionError("two drivers are at the same jobs")
    with command.training(paths, (1, 3)):
        pass


def test_tables_change_only_while_no_one_trains_on_them(tmp_path: Path) -> None:
    paths = Paths.of("small")

    def prepare_with(train: list[str]) -> None:
        path = write_small(tmp_path, train)
        prepare(load_competition(str(path)), paths, path)

    prepare_with(TRAIN)
    before = paths.train.read_bytes()
    with command.training(paths, (1, 2)):
        prepare_with(TRAIN)
        with pytest.raises(DataError, match="small is in use"):
            prepare_with(OTHER_LABEL)
    assert paths.train.read_bytes() == before
    prepare_with(OTHER_LABEL)
    assert read_table(paths.train)["y"].tolist()[2] == 7.5


def test_times_are_read_and_said() -> None:
    read = [seconds_of(text) for text in ("2h", "90m", "30s", "45", "1.5h", " 0.5 ")]
    assert read == [7200, 5400, 30, 45, 5400, 0.5]
    assert [in_words(seconds) for seconds in (7200, 3599, 90, 59.96)] == ["2 h", "60 min", "1.5 min", "60 s"]


@pytest.mark.parametrize("text", ["", "2d", "-1", "0h", "nan", "2h30", "²h"])
def test_any_other_time_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"such as 2h, 90m, 30s or 30; found {re.escape(repr(text))}"):
        seconds_of(text)


def test_what_to_do_about_missing_packages_depends_on_the_machine() -> None:
    clean = {name: value for name, value in os.environ.items() if name != "KAGGLE_KERNEL_RUN_TYPE"}
    bare = [sys.executable, "-I", "-S", str(PROJECT / "competition" / "environment.py")]  # without any package
    for variables, advice in (({}, "pip install -r"), ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, "./run.sh kernel NAME")):
        done = subprocess.run(bare, env=clean | variables, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "torch is missing, needed torch>=" in done.stderr and advice in done.stderr
    fits = [mismatch("name", *pair) == "" for pair in ((">=2.10,<3", "2.13.0+cpu"), (">=2.10", "2.9"), ("<3", "3.0"))]
    assert fits == [True, False, False]  # versions are numbers


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    line = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def test_the_revision_is_gits_and_says_when_code_differs_or_a_digest_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    monkeypatch.setattr(revision_module, "PROJECT", project)
    (project / "competition").mkdir(parents=True)
    for name in ("competition/a.py", "run.sh"):
        (project / name).write_text(f"# {name}\n")
    git(tmp_path, "init", "-q")  # of somebody else, around a copy of the project that it does not track
    of_code = revision()
    assert re.fullmatch("code-[0-9a-f]{10}", of_code)
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "all")
    clean = revision()
    assert git(project, "rev-parse", "HEAD").startswith(clean)
    (project / "notes.txt").write_text("no part of the project")
    assert revision() == clean
    (project / "competition/a.py").write_text("changed")
    assert revision() == f"{clean}-dirty"
    monkeypatch.setenv("PATH", str(project))  # no git at all
    assert revision().startswith("code-") and revision() != of_code
