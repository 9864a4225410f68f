"""Real worker processes: what they see, how they die, and that none outlives its driver."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from core.files import PROJECT
from models.jobs import local
from models.jobs.local import LocalExecutor
from models.jobs.scheduler import Executor, JobResult, Queue, Resources, Task, run
from models.training import hardware
from models.training.hardware import Card


class Unpicklable(Exception):
    """An exception that cannot be made again from its arguments."""

    def __init__(self, text: str, *, response: int) -> None:
        super().__init__(text)
        self.response = response


def write_environment(path: Path) -> None:
    variables = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    path.write_text(f"{os.getpid()} " + " ".join(os.environ.get(name, "-") for name in variables))


def raise_config_error() -> None:
    raise ConfigError("lower the learning_rate")


def raise_unpicklable() -> None:
    raise Unpicklable("HTTP 404", response=404)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    ctypes.string_at(0)


def sleep_with_pid(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


def results_of(executor: Executor, **functions: Callable[..., Any]) -> dict[str, JobResult]:
    return run(
        Queue([Task(name, function, group=name) for name, function in functions.items()]), executor, "tasks"
    )


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    with closing(LocalExecutor(2, cards=[])) as made:
        yield made


def test_exceptions_of_a_task_are_results_with_their_text(executor: LocalExecutor) -> None:
    results = results_of(
        executor, config=raise_config_error, unpicklable=raise_unpicklable, exit=sys.exit, fine=os.getpid
    )
    assert {name: (result.status, result.reason, result.error) for name, result in results.items()} == {
        "config": ("failed", "error", "ConfigError: lower the learning_rate"),
        "unpicklable": ("failed", "error", "Unpicklable: HTTP 404"),
        "exit": ("failed", "error", "SystemExit"),
        "fine": ("ok", "", ""),
    }


@pytest.mark.parametrize(
    ("death", "how"), [(kill, "SIGKILL(-9)"), (crash, "SIGSEGV(-11)"), (os._exit, "EXIT(0)")]
)
def test_a_worker_that_dies_harms_its_task_alone_which_is_tried_twice(
    death: Callable[..., Any],
    how: str,
    executor: LocalExecutor,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (0,) if death is os._exit else ()
    tasks = [Task("death", death, arguments, group="death")]
    tasks += [Task(f"{i}", write_environment, (tmp_path / f"{i}",), group="fine") for i in range(4)]
    results = run(Queue(tasks), executor, "tasks")
    assert {result.status for name, result in results.items() if name != "death"} == {"ok"}
    assert (results["death"].status, results["death"].reason) == ("failed", "killed")
    assert results["death"].error.startswith(f"its worker died ({how})")
    assert capsys.readouterr().out.count("tried once more, alone") == 1


def test_a_worker_that_died_while_it_was_idle_is_replaced(tmp_path: Path) -> None:
    tasks = [Task(f"{i}", write_environment, (tmp_path / f"{i}",)) for i in range(2)]
    with closing(LocalExecutor(1, cards=[])) as executor:
        run(Queue(tasks[:1]), executor, "tasks")
        pid = int((tmp_path / "0").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        require_gone_pid(pid)
        assert run(Queue(tasks[1:]), executor, "tasks")["1"].status == "ok"


def require_gone_pid(pid: int) -> None:
    """Wait until a killed process has ended, and its executor knows it."""
    for _ in range(100):
        time.sleep(0.1)
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            break
    time.sleep(0.5)


def test_a_task_that_no_worker_takes_fails_and_the_others_run(
    executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = LocalExecutor.submit

    def refuse(self: LocalExecutor, task: Task) -> Any:
        if task.name == "refused":
            raise OSError("cannot fork")
        return submit(self, task)

    monkeypatch.setattr(LocalExecutor, "submit", refuse)
    results = results_of(executor, refused=os.getpid, fine=os.getpid)
    assert {name: result.status for name, result in results.items()} == {"refused": "failed", "fine": "ok"}
    assert "cannot fork" in results["refused"].error


def test_a_task_that_ends_at_the_deadline_counts(executor: LocalExecutor) -> None:
    """The queue asks for more tasks while it ends, and this takes until the deadline."""
    task = Task("done", os.getpid)
    queue = Queue([task])

    def more() -> bool:
        if task in queue.running:
            time.sleep(1.0)
            executor.fits(Resources())  # forgets the task that has ended
            queue.deadline = time.monotonic()
        return False

    queue.more = more
    assert run(queue, executor, "tasks")["done"].status == "ok"


def test_workers_have_one_thread_and_no_card_and_are_reused(executor: LocalExecutor, tmp_path: Path) -> None:
    run(Queue([Task(f"{i}", write_environment, (tmp_path / f"{i}",)) for i in range(6)]), executor, "tasks")
    written = [(tmp_path / f"{i}").read_text().split(" ", 1) for i in range(6)]
    assert {variables for _, variables in written} == {"1 "}
    assert len({pid for pid, _ in written}) <= 2


def test_a_worker_on_a_card_sees_that_card_and_fails_if_torch_does_not(tmp_path: Path) -> None:
    cards = [Card("GPU-5f0e", 80.0, True)]
    task = Task("network", write_environment, (tmp_path / "never",), Resources(1, 0.5))
    with closing(LocalExecutor(1, cards=cards)) as executor:
        results = run(Queue([task]), executor, "tasks")
    expected = "RuntimeError: placed on a GPU (CUDA_VISIBLE_DEVICES=GPU-5f0e), but torch sees none"
    assert (results["network"].reason, results["network"].error) == ("error", expected)
    assert not (tmp_path / "never").exists()


def test_where_torch_has_no_cuda_networks_run_on_the_cores_and_one_line_explains_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside an nvidia-smi that shows a card, which nobody asks."""
    import torch

    if torch.version.cuda is not None:
        pytest.skip("this torch is built with CUDA")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: A100'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    network = Resources(1, 1.0)
    tasks = [Task(f"{i}", time.sleep, (0.1,), network) for i in range(5)]
    with closing(LocalExecutor(5)) as executor:
        queue = Queue(tasks)
        started = [queue.next(executor) for _ in tasks if executor.fits(network)]
        for task in started:
            assert task is not None
            executor.submit(task)
        assert len(executor.running) == 5
    reason = "Torch not compiled with CUDA enabled"
    assert capsys.readouterr().out == f"no GPU is used: torch {torch.__version__} sees no GPU: {reason}\n"


def test_a_hanging_task_is_ended_with_its_process_and_its_place_is_free(tmp_path: Path) -> None:
    tasks = [
        Task("hangs", sleep_with_pid, (tmp_path / "pid",), group="a"),
        Task("fine", os.getpid, group="b"),
    ]
    with closing(LocalExecutor(1, cards=[])) as executor:
        run(Queue([Task("warm", os.getpid)]), executor, "tasks")
        results = run(Queue(tasks, job_timeout=10.0), executor, "tasks")
    assert (results["hangs"].reason, results["fine"].status) == ("timeout", "ok")
    assert results["hangs"].error == "not finished after 10 s (--job-timeout)"
    require_gone(tmp_path / "pid")


def test_running_tasks_end_with_their_processes_at_the_deadline(tmp_path: Path) -> None:
    queue = Queue([Task(f"{i}", sleep_with_pid, (tmp_path / f"{i}",)) for i in range(3)])
    started = time.monotonic()
    queue.deadline = started + 5
    with closing(LocalExecutor(2, cards=[])) as executor:
        results = run(queue, executor, "tasks")
    assert 5 <= time.monotonic() - started < 15
    assert {(result.status, result.reason) for result in results.values()} == {("skipped", "time")}
    for pid in tmp_path.iterdir():
        require_gone(pid)


def require_gone(pid_file: Path, seconds: float = 20.0) -> None:
    """Wait until the process whose number a file holds is gone or a zombie."""
    process = Path(f"/proc/{pid_file.read_text()}/stat")
    deadline = time.monotonic() + seconds
    while process.exists() and process.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


SCRIPT = """
from contextlib import closing
from pathlib import Path
from core import cli
from models.jobs.local import LocalExecutor
from models.jobs.scheduler import Queue, Task, run
from tests.models.jobs.test_local import sleep_with_pid
def main():
    with closing(LocalExecutor(1)) as executor:
        run(Queue([Task("x", sleep_with_pid, (Path("pid"),))]), executor, "x")
if __name__ == "__main__":
    raise SystemExit(cli.run(main))
"""


@pytest.mark.parametrize(
    ("send", "how", "times"),
    [(os.kill, signal.SIGKILL, 1), (os.killpg, signal.SIGINT, 1), (os.killpg, signal.SIGINT, 2)],
)
def test_workers_end_when_their_driver_does(
    tmp_path: Path, send: Callable[[int, int], None], how: int, times: int
) -> None:
    """A kill is of the driver only, Ctrl-C of all processes in its group, once or by an impatient person
    twice.
    """
    (tmp_path / "script.py").write_text(SCRIPT)
    driver = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )  # fmt: skip
    pid, deadline = tmp_path / "pid", time.monotonic() + 60
    while not pid.exists() or not pid.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    send(driver.pid, how)
    if times == 2:
        time.sleep(0.02)
        send(driver.pid, how)
    errors = driver.communicate()[1]
    if how == signal.SIGINT and times == 1:
        assert (driver.returncode, errors.count("\n")) == (130, 2), (
            errors
        )  # an empty line and a sentence, of no worker
        assert "Interrupted. Finished jobs are kept" in errors
    require_gone(pid)


def test_a_mac_has_no_affinity_and_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: not str(path).startswith("/proc") and exists(path))
    assert LocalExecutor().capacity() == Resources(os.cpu_count() or 1, 0)
    assert hardware.machine()["cores"] == os.cpu_count()
    assert hardware.machine()["processor"]
    assert not hardware.cpu_has_bf16()


@pytest.mark.parametrize(
    ("visible", "names"), [("2, 3", ["2", "3"]), ("MIG-1,MIG-2", ["MIG-1", "MIG-2"]), (None, ["0", "1"])]
)
def test_cards_are_called_as_in_cuda_visible_devices(
    visible: str | None, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    properties = type("Properties", (), {"total_memory": 80 * 2**30, "major": 8})
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device: ones(*size))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cards, reason = hardware.visible_cards()
    assert (reason, [card.name_for_cuda for card in cards]) == ("", names)


def test_the_number_of_cores_is_that_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "cpu_count", lambda: 3)
    assert LocalExecutor().capacity().cpus == 3
    assert LocalExecutor(2).capacity().cpus == 2
