"""Drivers as a person starts them: two at once, shards, one that is killed, and folders that take no files."""

import os
import signal
import subprocess
import sys

import pytest

from core.files import PROJECT
from core.paths import Paths
from tests.conftest import mixed_tables, write_competition
from tests.models.jobs.common import TREES, counted, ended, products, start, trained, wait_until_running

N_JOBS = 12


def test_a_second_driver_gets_a_message_and_after_a_kill_the_next_one_goes_on(tmp_path, monkeypatch):
    """The first is killed with six jobs finished and two under way; in the end all bytes are those of one
    that was not disturbed.
    """
    path, hold = counted(tmp_path), tmp_path / "hold"
    hold.touch()
    first = start(path, "--workers", "2")
    wait_until_running(tmp_path, 8, first)
    message = ended(start(path), 2)
    assert message.startswith(f"DataError: {Paths('mixed').root} is in use (train on ")
    assert f"process {first.pid})" in message
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    hold.unlink()
    output = ended(start(path, "--workers", "2"))
    assert "\nstage a  6 of 6 jobs are finished\n" in output
    assert output.count("valid rmse") == 6
    counts = trained(tmp_path)
    assert (len(counts), counts.total(), max(counts.values())) == (N_JOBS, N_JOBS + 2, 2)
    resumed = products()
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "alone"))
    ended(start(path, "--workers", "1"))
    assert products() == resumed


def test_shards_at_once_train_their_shares_and_a_second_one_of_them_gets_a_message(tmp_path):
    path, hold = counted(tmp_path), tmp_path / "hold"
    hold.touch()
    shards = [start(path, "--workers", "1", "--shard", f"{i}/3") for i in (2, 1, 3)]
    wait_until_running(tmp_path, 9, shards[0])
    assert "is in use (train on " in ended(start(path, "--shard", "3/3"), 2)
    assert "is in use (train on " in ended(start(path), 2)
    hold.unlink()
    assert [ended(shard).count("valid rmse") for shard in shards] == [4, 4, 4]
    assert trained(tmp_path) == dict.fromkeys(trained(tmp_path), 1)
    assert len([name for name in products() if name.endswith("oof.parquet")]) == N_JOBS


def test_a_full_folder_is_one_sentence(tmp_path):
    """A real one, in a name space of its own, where the machine allows one."""
    path = write_competition(tmp_path, *mixed_tables(), stages={"trees": {**TREES, "max_trees": 500}})
    (tmp_path / "work").mkdir()
    train = f"{sys.executable} -m pipeline train {path} --workers 1"
    shell = f"mount -t tmpfs -o size=200k none $WORK_DIR || exit 77; {train}"
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell]
    done = subprocess.run(unshare, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode in (1, 77) and "Error" not in done.stderr:
        pytest.skip(f"no name spaces here: {done.stderr}")
    assert done.returncode == 2, done.stderr
    assert (
        f"no file can be written in the work folder {tmp_path / 'work'} ([Errno 28] No space left"
        in done.stderr
    )
    assert done.stderr.count("\n") == 1
