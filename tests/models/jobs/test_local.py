"""Real worker processes: what they see, how they end, and that none outlives its driver."""

import multiprocessing
import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from models import hardware
from models.hardware import Card
from models.jobs.local import LocalExecutor
from models.jobs.scheduler import Queue, Resources, Task, run
from models.jobs.train import train
from tests.models.jobs.common import (
    GNN,
    TREES,
    InlineExecutor,
    counted,
    planned,
    processes_in,
    products,
    start,
    wait_until_running,
)


def write_environment(path, seconds=0.0):
    """The process and what it sees, and then it takes some seconds."""
    variables = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    path.write_text(f"{os.getpid()} " + " ".join(os.environ.get(name, "-") for name in variables))
    time.sleep(seconds)


def environment_tasks(folder, n, seconds=0.0, **settings):
    arguments = [(folder / f"{i}", seconds) for i in range(n)]
    return [Task(each[0].name, write_environment, each, **settings) for each in arguments]


def results_of(tasks, n_workers, cards):
    with closing(LocalExecutor(n_workers, cards=cards)) as executor:
        return run(Queue(tasks), executor)


def require_gone(pid):
    """Wait until a process has ended or is a zombie."""
    file = Path(f"/proc/{pid}/stat")
    deadline = time.monotonic() + 20
    while file.exists() and file.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_have_one_thread_and_no_card_and_are_reused(tmp_path):
    results_of(environment_tasks(tmp_path, 6), 2, cards=[])
    written = [file.read_text().split(" ", 1) for file in tmp_path.iterdir()]
    assert [variables for _, variables in written] == ["1 "] * 6
    assert len({pid for pid, _ in written}) <= 2


def test_a_worker_predicts_the_same_bytes_as_this_process_in_which_many_tests_run_jobs(tmp_path, monkeypatch):
    stages = {
        "graph": {**GNN, "epochs": 2},
        "trees": TREES,
        "line": {"kind": "sklearn", "features": ["maccs"]},
    }

    def predictions(name, executor):
        monkeypatch.setenv("WORK_DIR", str(tmp_path / name))
        with closing(executor):
            train(planned(tmp_path, stages=stages, folds={"n_folds": 2}), executor)
        return {file: digest for file, digest in products().items() if file.endswith(".parquet")}

    of_worker = predictions("worker", LocalExecutor(1, cards=[]))
    assert len(of_worker) == 2 * 2 * len(stages)
    assert predictions("here", InlineExecutor()) == of_worker


def test_a_worker_that_died_while_it_was_idle_is_replaced(tmp_path):
    first, second = environment_tasks(tmp_path, 2)
    with closing(LocalExecutor(1, cards=[])) as executor:
        run(Queue([first]), executor)
        pid = int((tmp_path / "0").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        require_gone(pid)
        time.sleep(0.5)  # until its executor knows it
        assert run(Queue([second]), executor)["1"].status == "ok"


def test_a_worker_on_a_card_sees_that_card_and_fails_if_torch_does_not(tmp_path):
    tasks = environment_tasks(tmp_path, 1, resources=Resources(1, 0.5))
    result = results_of(tasks, 1, cards=[Card("GPU-5f0e", 80.0, True)])["0"]
    expected = "RuntimeError: placed on a GPU (CUDA_VISIBLE_DEVICES=GPU-5f0e), but torch sees none"
    assert (result.reason, result.error) == ("error", expected)
    assert not (tmp_path / "0").exists()


def test_running_tasks_end_with_their_processes_at_the_deadline(tmp_path):
    queue = Queue(environment_tasks(tmp_path, 3, seconds=60.0))
    started = time.monotonic()
    queue.deadline = started + 5
    with closing(LocalExecutor(2, cards=[])) as executor:
        results = run(queue, executor)
    assert 5 <= time.monotonic() - started < 15
    assert [(result.status, result.reason) for result in results.values()] == [("skipped", "time")] * 3
    for file in tmp_path.iterdir():
        require_gone(int(file.read_text().split()[0]))


def terminate_process():
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()  # by SIGTERM
    process.join(10)
    is_alive = process.is_alive()
    process.kill()
    assert not is_alive


def test_a_stage_can_end_processes_that_it_started():
    with closing(LocalExecutor(1, cards=[])) as executor:
        result = run(Queue([Task("stage", terminate_process)]), executor)["stage"]
    assert result.status == "ok", result.error


@pytest.mark.parametrize(
    ("send", "how", "times"),
    [
        (os.kill, signal.SIGKILL, 1), (os.killpg, signal.SIGINT, 1), (os.killpg, signal.SIGINT, 2),
        (os.kill, signal.SIGTERM, 1), (os.killpg, signal.SIGTERM, 1), (os.kill, signal.SIGHUP, 1),
    ],
)  # fmt: skip
def test_workers_end_when_their_driver_does(tmp_path, send, how, times):
    """A kill is of the driver only, Ctrl-C of all processes in its group, once or by an impatient person twice.

    Batch systems send SIGTERM to the driver or to all processes, a closed terminal SIGHUP.
    """
    path = counted(tmp_path, seconds=60.0)
    driver = start(path, "--workers", "2")
    wait_until_running(tmp_path, 2, driver)
    for _ in range(times):
        send(driver.pid, how)
        time.sleep(0.02)
    errors = driver.communicate()[1]
    if how != signal.SIGKILL and times == 1:  # an empty line and a sentence, of no worker
        assert (driver.returncode, errors.count("\n")) == (130, 2), errors
        assert "Interrupted. Finished jobs are kept" in errors
    deadline = time.monotonic() + 20
    while processes_in(tmp_path / "work"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_mac_has_no_affinity_and_no_proc(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: not str(path).startswith("/proc") and exists(path))
    assert LocalExecutor().capacity() == Resources(os.cpu_count() or 1, 0)
    machine = hardware.machine()
    assert machine["cores"] == os.cpu_count() and machine["processor"]


def test_cards_are_called_as_in_cuda_visible_devices(monkeypatch):
    import torch

    properties = type("Properties", (), {"total_memory": 80 * 2**30, "major": 8})
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device: ones(*size))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    for visible, names in (("MIG-1, MIG-2", ["MIG-1", "MIG-2"]), ("", ["0", "1"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [card.name_for_cuda for card in hardware.visible_cards()[0]] == names
