"""Workers: who gets which core and GPU, errors, and that none outlives the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from competition.errors import ConfigError, DataError
from competition.paths import PROJECT
from models.jobs import local_workers, ray_workers
from models.jobs.local_workers import LocalWorkers
from models.jobs.ray_workers import workers_of
from models.jobs.workers import Item, progress
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


def four_items(folder: Path, done: list[int]) -> list[Item]:
    """Each writes its environment, and tells `done` when it is finished."""
    return [Item(write_environment, (folder / f"{i}",), done=lambda i=i: done.append(i)) for i in range(4)]


def test_items_run_in_workers_of_one_thread_and_mistakes_are_raised_as_they_are(tmp_path: Path) -> None:
    done: list[int] = []
    with pytest.raises(ConfigError, match="said by a worker"), LocalWorkers(2) as workers:
        assert workers.run(four_items(tmp_path, done), "items") == ([], [])
        assert sorted(done) == [0, 1, 2, 3]
        assert {(tmp_path / f"{i}").read_text().split()[0] for i in range(4)} == {"1"}
        workers.run([Item(fail, ())], "items")


def test_a_killed_worker_is_one_clear_sentence() -> None:
    with pytest.raises(DataError, match="memory ran out; finished jobs are kept"), LocalWorkers(1) as workers:
        workers.run([Item(be_killed, ())], "items")


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 cores and one GPU, whose workers are threads."""
    monkeypatch.setattr(local_workers, "usable_cores", lambda: 16)
    monkeypatch.setattr(local_workers, "usable_gpus", lambda: ["5"])
    monkeypatch.setattr(local_workers, "ProcessPoolExecutor", lambda n, *rest: ThreadPoolExecutor(n))


@pytest.mark.parametrize("n_workers", [None, 16])
def test_a_gpu_trains_one_network_at_a_time_while_all_other_cores_grow_trees(
    n_workers: int | None, one_gpu: None
) -> None:
    lock, networks, most = threading.Lock(), 0, 0
    all_at_once = threading.Barrier(16, timeout=20)  # 15 trees and one network

    def train_network(first: bool) -> None:
        nonlocal networks, most
        with lock:
            networks += 1
            most = max(most, networks)
        if first:
            all_at_once.wait()
        time.sleep(0.05)
        with lock:
            networks -= 1

    items = [Item(train_network, (i == 0,), gpu=True) for i in range(4)]
    items += [Item(all_at_once.wait, ()) for _ in range(15)]
    with LocalWorkers(n_workers) as workers:
        workers.run(items, "items")
    assert most == 1


def test_items_of_several_threads_fill_the_cores_and_no_more(one_gpu: None) -> None:
    with LocalWorkers() as workers:
        threes, sixteen, network = Item(print, (), threads=3), Item(print, (), threads=16), Item(print, (), gpu=True)
        assert [workers.slots(item) for item in (threes, sixteen, network, Item(print, ()))] == [5, 1, 1, 16]
        workers.running = {Item(print, (), threads=3): 0.0 for _ in range(5)}
        assert not workers._has_room(threes)
        assert workers._has_room(network)
        workers.running.clear()
        assert workers._has_room(sixteen)


def test_a_worker_sees_its_own_gpu_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_workers, "usable_gpus", lambda: ["5"])
    with LocalWorkers(2) as workers:
        workers.run([Item(write_environment, (tmp_path / f"{gpu}",), gpu=gpu) for gpu in (True, False)], "items")
    assert (tmp_path / "True").read_text() == "1 5"
    assert (tmp_path / "False").read_text().strip() == "1"


def test_an_item_starts_after_the_groups_and_files_that_it_needs() -> None:
    order: list[str] = []
    can_start = lambda: "first" in order  # noqa: E731
    items = [
        Item(order.append, ("refit",), can_start=can_start),
        Item(order.append, ("stage",), after=frozenset(["conformers"])),
        Item(order.append, ("first",), group="conformers"),
        Item(order.append, ("second",), group="conformers"),
    ]
    never = Item(order.append, ("never",), can_start=lambda: False)
    assert HereWorkers().run([*items, never], "items") == ([never], [])
    assert sorted(order) == ["first", "refit", "second", "stage"]
    assert order.index("stage") > order.index("second")
    assert order.index("refit") > order.index("first")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_when_their_parent_does(tmp_path: Path, how: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from competition import command\n"
        "from models.jobs.local_workers import LocalWorkers\n"
        "from models.jobs.workers import Item\n"
        "from tests.models.jobs.test_workers import linger\n"
        "def main():\n"
        "    with LocalWorkers(1) as workers:\n"
        f"        workers.run([Item(linger, (Path({str(tmp_path / 'pid')!r}),))], 'x')\n"
        "if __name__ == '__main__':\n"
        "    command.run(main)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    parent = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker = int((tmp_path / "pid").read_text())
    parent.send_signal(how)
    said = parent.communicate()[1]
    assert how == signal.SIGKILL or (parent.returncode == 130 and "Interrupted. Finished jobs are kept" in said)
    while _alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_mac_has_no_affinity_and_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: not str(path).startswith("/proc") and exists(path))
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    with LocalWorkers() as workers:
        assert workers.capacity() == (os.cpu_count(), 0)
    found: dict[str, Any] = machine.machine()
    assert found["cores"] == os.cpu_count()
    assert found["processor"]
    assert not machine.cpu_has_bf16()


@pytest.mark.parametrize(("visible", "expected"), [("", []), ("-1", []), ("2, 3", ["2", "3"]), (None, ["0", "1"])])
def test_gpus_are_those_that_cuda_shows(
    visible: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = subprocess.CompletedProcess([], 0, stdout="GPU 0: A\nGPU 1: A\n")
    monkeypatch.setattr(machine.shutil, "which", lambda name: name)
    monkeypatch.setattr(machine.subprocess, "run", lambda *args, **options: listed)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.usable_gpus() == expected


def test_ray_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package ray.*pip install -r requirements-ray.txt"):
        workers_of("ray", None)(1)
