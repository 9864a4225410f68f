"""How commands end, who may work on a competition at a time, options and times in words, and which code and
packages these are.
"""

import errno
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from competition.config import load_competition
from competition.prepare import prepare, write_prepared
from core import cli
from core.environment import mismatch
from core.errors import ConfigError, DataError, NothingToSubmit
from core.files import PROJECT, read_table
from core.paths import Paths
from core.settings import parse_duration
from core.text import format_duration, format_with_error
from pipeline.commands import parse
from tests.competition.small import TRAIN, write_small


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (None, 0), (0, 0), (1, 1), (3, 3), (DataError("x"), 2), (NothingToSubmit("x"), 1), (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141), (OSError(errno.ENOSPC, "No space"), 2), (OSError(errno.EROFS, "read-only"), 2),
        (PermissionError(errno.EPERM, "immutable"), 2), (FileNotFoundError(errno.ENOENT, "no work folder"), 2),
        (ValueError("ours"), None), (OSError(errno.EIO, "disk"), None),
    ],
)  # fmt: skip
def test_a_command_ends_with_its_status_or_that_of_its_error_or_keeps_the_traceback_of_a_bug(end, status):
    def main():
        if isinstance(end, BaseException):
            raise end
        return end

    with pytest.raises(SystemExit if status is not None else type(end)) as ended:
        cli.run(main)
        sys.exit(0)
    assert getattr(ended.value, "code", None) == status


SENT = """
import os, runpy, signal, sys

class Terminates:
    def find_spec(self, name, *given):
        if name == "pipeline.commands":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Terminates())
sys.argv = ["pipeline", "check", "smoke", "--json"]
runpy.run_module("pipeline", run_name="__main__")
"""


def test_a_signal_while_modules_are_imported_ends_a_command_with_its_status_as_json():
    done = subprocess.run(
        [sys.executable, "-c", SENT], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130 and "Traceback" not in done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == 130 and "Interrupted" in result["mistakes"][0]["message"]


@pytest.mark.parametrize(("place", "advice"), [("out", "Choose another path"), ("work", "set WORK_DIR")])
def test_a_file_that_cannot_be_written_is_blamed_and_not_another_folder(place, advice, tmp_path, capsys):
    (tmp_path / place).touch()
    with pytest.raises(SystemExit):
        cli.run(lambda: (tmp_path / place / "deep" / "file.csv").write_text("x"))
    message = capsys.readouterr().err
    assert str(tmp_path / place) in message and advice in message


def test_products_are_used_by_one_command_at_a_time_and_one_that_waits_prints_for_whom():
    paths = Paths.for_competition("one")
    code = (
        "from core import cli\nfrom core.paths import Paths\n"
        "with cli.locked(Paths.for_competition('one'), wait=True):\n    print('mine')\n"
    )
    with cli.locked(paths):
        with pytest.raises(DataError, match=rf"one is in use \(.*process {os.getpid()}\)"), cli.locked(paths):
            raise AssertionError("both hold the lock")
        command = [sys.executable, "-c", code]
        waiting = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        assert waiting.stdout.readline().startswith("waiting for ")
        assert waiting.poll() is None
    assert waiting.communicate()[0] == "mine\n"


def test_one_driver_trains_or_one_on_each_shard_and_tables_change_while_none_does(tmp_path):
    paths = Paths.for_competition("small")

    def prepare_with(label):
        path = write_small(tmp_path, [*TRAIN[:3], f"c,CCN,{label}", *TRAIN[4:]])
        competition = load_competition(str(path))
        write_prepared(prepare(competition), competition)
        return read_table(paths.train)["y"][2]

    def other_driver(shard, n_shards):
        return cli.locked(paths, paths.training_lock(shard, n_shards))

    assert prepare_with("3.0") == 3.0
    with other_driver(1, 4), other_driver(2, 4):
        for shard in ((1, 4), (1, 3), None):
            with pytest.raises(DataError, match="in use"), cli.training(paths, shard):
                raise AssertionError("two drivers are at the same jobs")
        prepare_with("3.0")
        with pytest.raises(DataError, match="small is in use"):
            prepare_with("7.5")
    with other_driver(1, 1), pytest.raises(DataError, match="in use"), cli.training(paths, (1, 4)):
        raise AssertionError("two drivers are at the same jobs")
    with cli.training(paths, (1, 3)):
        assert prepare_with("7.5") == 7.5  # its own tables


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.63719, 0.0254, "0.637 +- 0.025"), (-0.005541, 0.0045, "-0.0055 +- 0.0045"), (7.5, 2.0, "7.5 +- 2.0"),
        (0.63719, 0.0996, "0.64 +- 0.10"), (0.0001449, 0.051, "0.000 +- 0.051"), (0.5, 1e-7, "0.5000 +- 1.0e-07"),
        (-0.00042, 9.4e-5, "-0.000420 +- 0.000094"),
        (12.3456, 0.0, "12.35 +- 0.0"), (0.5, None, "0.5000"), (None, 0.1, "-"),
    ],
)  # fmt: skip
def test_a_number_has_no_more_decimals_than_its_standard_error(value, error, text):
    assert format_with_error(value, error) == text


def test_times_are_read_and_formatted_and_any_other_text_is_refused():
    for text, seconds in {"2h": 7200, "90m": 5400, "30s": 30, "45": 45, "1.5h": 5400, " 0.5 ": 0.5}.items():
        assert parse_duration(text) == seconds
    for seconds, text in {7200: "2 h", 3599: "60 min", 90: "1.5 min", 59.96: "60 s"}.items():
        assert format_duration(seconds) == text
    for text in ("", "2d", "-1", "0h", "nan", "2h30", "²h"):
        with pytest.raises(ConfigError, match=rf"such as 2h, .*; got {re.escape(repr(text))}"):
            parse_duration(text)


def test_missing_packages_are_reported_and_versions_are_numbers():
    without_packages = [sys.executable, "-I", "-S", str(PROJECT / "core" / "environment.py")]
    done = subprocess.run(without_packages, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "torch is missing, needed torch>=" in done.stderr
    assert mismatch("name", ">=2.10,<3", "2.13.0+cpu") == ""
    assert mismatch("name", ">=2.10", "2.9") == "name 2.9, needed >=2.10"
    assert mismatch("name", "<3", "3.0")


@pytest.mark.parametrize(
    "options",
    [
        "--shard 0/4", "--shard 5/4", "--shard a/b", "--shard 1", "--shard 1/4/2", "--workers 0", "--holdout 0.9",
        "--set x", "--stages ,",
    ],
)  # fmt: skip
def test_impossible_values_of_options_are_refused(options):
    name, value = options.split()
    with pytest.raises(ConfigError, match=f"{name} takes"):
        parse(["train", name, value])


def test_train_has_no_budget(capsys):
    with pytest.raises(SystemExit):
        parse(["train", "toy", "--budget", "300s"])
    assert "unrecognized arguments: --budget" in capsys.readouterr().err


def test_options_are_read_and_a_tracker_reaches_workers(monkeypatch):
    monkeypatch.setenv("LOSS_TRACKER", "")
    line = "train toy --holdout 0.2 --shard 2/4 --workers 3 --tracker tensorboard"
    options = parse(line.split())
    assert (options.held_out_of, Path(options.competition).name) == ("toy", "toy_holdout20.yaml")
    assert (options.shard, options.workers, os.environ["LOSS_TRACKER"]) == ((2, 4), 3, "tensorboard")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install mlflow"):
        parse(["full", "--tracker", "mlflow"])
