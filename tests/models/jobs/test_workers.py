"""Workers: who gets which core and GPU, and that none outlives the process that started it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import pytest

from competition.errors import ConfigError, DataError
from competition.paths import PROJECT
from models.jobs import workers as workers_module
from models.jobs.workers import Item, Workers, progress
from models.training import machine
from tests.models.jobs.common import HereWorkers


def write_environment(path: Path) -> None:
    for step in range(4):
        progress(step + 1, 4)
    path.write_text(" ".join(os.environ.get(name, "-") for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")))


def fail() -> None:
    raise ConfigError("said by a worker")


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def linger(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


def require_results_mistakes_and_lost_workers(workers: Workers, folder: Path) -> None:
    """What local workers and those of a cluster have in common."""
    done: list[int] = []
    four = [Item(write_environment, (folder / f"{i}",), done=lambda i=i: done.append(i)) for i in range(4)]
    assert workers.run(four, "items") == []
    assert sorted(done) == [0, 1, 2, 3]
    assert {(folder / f"{i}").read_text().split()[0] for i in range(4)} == {"1"}
    with pytest.raises(ConfigError, match="^said by a worker$"):
        workers.run([Item(fail, ())], "items")
    with pytest.raises(DataError, match="memory ran out; finished jobs are kept"):
        workers.run([Item(be_killed, ())], "items")


def test_items_run_in_workers_that_see_one_thread_and_their_gpu_or_none_and_mistakes_are_raised_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "usable_gpus", lambda: ["5"])
    with Workers(2) as workers:
        workers.run([Item(write_environment, (tmp_path / f"{gpu}",), gpu=gpu) for gpu in (True, False)], "items")
        assert [(tmp_path / gpu).read_text().strip() for gpu in ("True", "False")] == ["1 5", "1"]
        require_results_mistakes_and_lost_workers(workers, tmp_path)


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 cores and one GPU, whose workers are threads."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 16)
    monkeypatch.setattr(workers_module, "usable_gpus", lambda: ["5"])
    monkeypatch.setattr(workers_module, "ProcessPoolExecutor", lambda n, *rest: ThreadPoolExecutor(n))


def test_a_gpu_trains_one_network_at_a_time_while_other_cores_grow_trees(one_gpu: None) -> None:
    gpu, found_free = threading.Lock(), []
    all_at_once = threading.Barrier(16, timeout=20)  # 15 trees and one network

    def train_network(first: bool) -> None:
        found_free.append(gpu.acquire(blocking=False))
        if first:
            all_at_once.wait()
        time.sleep(0.05)
        gpu.release()

    items = [Item(train_network, (i == 0,), gpu=True) for i in range(4)]
    items += [Item(all_at_once.wait, ()) for _ in range(15)]
    with Workers() as workers:
        workers.run(items, "items")
    assert found_free == [True] * 4


def test_items_of_several_threads_fill_the_cores_and_no_more(one_gpu: None) -> None:
    threes, sixteen, network = Item(print, (), threads=3), Item(print, (), threads=16), Item(print, (), gpu=True)
    workers = Workers()
    assert list(workers._ready([threes, sixteen, network])) == [threes, sixteen, network]
    workers.running = {Item(print, (), threads=3): 0.0 for _ in range(5)}
    assert list(workers._ready([threes, sixteen, network])) == [network]
    workers.running = {sixteen: 0.0}
    assert list(workers._ready([threes, network])) == [network]  # which waits for no core


def test_an_item_starts_after_the_groups_and_files_that_it_needs(tmp_path: Path) -> None:
    order: list[str] = []
    items = [
        Item(order.append, ("refit",), files=(tmp_path / "first",)),
        Item(order.append, ("stage",), after=frozenset(["conformers"])),
        Item(order.append, ("first",), group="conformers", done=(tmp_path / "first").touch),
        Item(order.append, ("second",), group="conformers"),
    ]
    never = Item(order.append, ("never",), files=(tmp_path / "never",))
    assert HereWorkers().run([*items, never], "items") == [never]
    assert sorted(order) == ["first", "refit", "second", "stage"]
    assert order.index("stage") > order.index("second")
    assert order.index("refit") > order.index("first")


SCRIPT = """
from pathlib import Path
from competition import command
from models.jobs.workers import Item, Workers
from tests.models.jobs.test_workers import linger
def main():
    with Workers(1) as workers:
        workers.run([Item(linger, (Path("pid"),))], "x")
if __name__ == "__main__":
    command.run(main)
"""


@pytest.mark.parametrize(("send", "how"), [(os.kill, signal.SIGKILL), (os.killpg, signal.SIGINT)])
def test_workers_end_when_their_parent_does(tmp_path: Path, send: Callable[[int, int], None], how: int) -> None:
    """A kill is of the parent alone, Ctrl-C of all processes that are in its group."""
    (tmp_path / "script.py").write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )  # fmt: skip
    pid, deadline = tmp_path / "pid", time.monotonic() + 60
    while not pid.exists() or not pid.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    send(parent.pid, how)
    said = parent.communicate()[1]
    if how == signal.SIGINT:
        assert (parent.returncode, said.count("\n")) == (130, 2)  # an empty line and a sentence, of no worker
        assert "Interrupted. Finished jobs are kept" in said
    worker = Path(f"/proc/{pid.read_text()}/stat")
    while worker.exists() and worker.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_more_is_asked_for_when_a_core_is_idle_until_there_is_none(tmp_path: Path) -> None:
    left, asked = [[Item(print, (), threads=2)], [Item(print, ()), Item(print, ())]], []

    def more() -> list[Item]:
        asked.append(len(workers.running))
        return left.pop(0) if left else []

    workers = HereWorkers(2)
    assert workers.run([Item(print, ())], "items", more) == []
    assert (left, asked[0]) == ([], 1)  # one of two cores was idle
    assert workers.spent == {"": 4.0}


def test_running_items_are_ended_at_the_deadline() -> None:
    before, three = time.monotonic(), [Item(time.sleep, (60,)) for _ in range(3)]
    with Workers(2) as workers:
        workers.deadline = before + 1.5
        assert workers.run(three, "items") == three[2:]
    assert 1.5 <= time.monotonic() - before < 10


def test_a_mac_has_no_affinity_and_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: not str(path).startswith("/proc") and exists(path))
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert Workers().capacity() == (os.cpu_count(), 0)
    assert machine.machine()["cores"] == os.cpu_count()
    assert machine.machine()["processor"]
    assert not machine.cpu_has_bf16()


@pytest.mark.parametrize(("visible", "expected"), [("", []), ("-1", []), ("2, 3", ["2", "3"]), (None, ["0", "1"])])
def test_gpus_are_those_that_cuda_shows(visible: str | None, expected: list[str], monkeypatch: Any) -> None:
    listed = subprocess.CompletedProcess([], 0, stdout="GPU 0: A\nGPU 1: A\n")
    monkeypatch.setattr(machine.shutil, "which", lambda name: name)
    monkeypatch.setattr(machine.subprocess, "run", lambda *args, **options: listed)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.usable_gpus() == expected
