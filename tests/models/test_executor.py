"""Worker processes: order, errors, and that none outlives the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from competition.errors import ConfigError, DataError
from competition.paths import Paths
from models.jobs import ray_executor
from models.jobs import tasks as tasks_module
from models.jobs.claims import Claims
from models.jobs.executor import Executor, runner_of
from models.jobs.tasks import Task


def write_thread_count(path: Path, progress: Any = None) -> None:
    for step in range(4):
        progress(step + 1, 4)
    path.write_text(os.environ["OMP_NUM_THREADS"])


def fail() -> None:
    raise ConfigError("said by a worker")


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def linger(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


def four_tasks(folder: Path, done: list[int]) -> list[Task]:
    """Each writes how many threads it has, and tells `done` when it is."""
    return [
        Task(f"{i}", write_thread_count, (folder / f"{i}",), takes_progress=True, done=lambda i=i: done.append(i))
        for i in range(4)
    ]


def test_tasks_run_in_workers_of_one_thread_and_report_when_done(tmp_path: Path) -> None:
    done: list[int] = []
    tasks = four_tasks(tmp_path, done)
    with Executor(2, len(tasks)) as executor:
        executor.run(tasks, "tasks")
    assert sorted(done) == [0, 1, 2, 3]
    assert [(tmp_path / f"{i}").read_text() for i in range(4)] == ["1"] * 4


def test_a_mistake_in_a_worker_is_raised_as_it_is() -> None:
    with pytest.raises(ConfigError, match="said by a worker"), Executor(1, 1) as executor:
        executor.run([Task("fails", fail, ())], "tasks")


def test_a_killed_worker_is_one_clear_sentence() -> None:
    with pytest.raises(DataError, match="memory ran out; finished jobs are kept"), Executor(1, 1) as executor:
        executor.run([Task("dies", be_killed, ())], "tasks")


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from models.jobs.executor import Executor\n"
        "from models.jobs.tasks import Task\n"
        "from tests.models.test_executor import linger\n"
        "if __name__ == '__main__':\n"
        "    with Executor(1, 1) as executor:\n"
        f"        executor.run([Task('x', linger, (Path({str(tmp_path / 'pid')!r}),))], 'x')\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(root)})
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    while _alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def write_later(path: Path) -> None:
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(2); open({str(path)!r}, 'x')"])


def test_what_can_be_seen_only_later_is_waited_for_and_what_never_comes_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network file system, which shows after a while what another machine wrote."""
    done: list[bool] = []
    path = tmp_path / "seen"
    late = Task("late", write_later, (path,), claim="a", finished=path.exists, done=lambda: done.append(path.exists()))
    never = Task("never", print, (), claim="b", finished=(tmp_path / "never").exists)
    with Claims(Paths("shared")) as claims, Executor(1, 1) as executor:
        executor.run([late], "tasks", claims=claims)
        assert done == [True]
        monkeypatch.setattr(tasks_module, "GONE_AFTER", 1.0)
        with pytest.raises(DataError, match="what never wrote must be in the folder for products, and is not"):
            executor.run([never], "tasks", claims=claims)


def test_ray_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="must find the package ray.*pip install -r requirements-ray.txt"):
        runner_of("ray", None)(1, 1)


def test_an_executor_that_is_not_known_is_named() -> None:
    command = [sys.executable, "-m", "models.jobs.train", "smoke", "--executor", "dask"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--executor: invalid choice: 'dask'" in done.stderr
