"""The same jobs on a Ray cluster of several nodes on this machine: placed, lost, started again, to the same bytes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs requirements-ray.txt, which ./run.sh test --all installs")

from ray.cluster_utils import Cluster

from competition.errors import ConfigError, DataError, ServiceError
from competition.paths import PROJECT, Paths
from models.jobs import ray_executor
from models.jobs.ray_executor import RayExecutor, require_cluster
from models.jobs.tasks import Task
from tests.conftest import mixed_tables, write_competition
from tests.models.test_executor import be_killed, fail, four_tasks
from tests.models.test_sharing import STAGE, ended, products, trained


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs and four nodes with one each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(num_cpus=1) for _ in range(4)]
    yield made
    made.shutdown()


def write_on(path: Path) -> None:
    while True:
        with path.open("a") as file:
            file.write("x")
        time.sleep(0.05)


def train(path: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "models.jobs.train", str(path), "--prepare", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=PROJECT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def competition(folder: Path, seconds: float, seeds: int) -> Path:
    """Two stages with three folds each, whose jobs take some seconds."""
    settings = {"log": str(folder / "log"), "seconds": seconds}
    stage = {"kind": "custom", "code": f"{STAGE}:Counted", "settings": settings, "seeds": list(range(seeds))}
    return write_competition(folder, *mixed_tables(), stages={"a": stage, "b": stage})


def finished() -> int:
    return len(list(Paths("mixed").root.glob("models/*/*/*/fold_*/report.json")))


def test_tasks_mistakes_and_killed_workers_are_those_of_the_local_executor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the cluster of this machine that is started for a run."""
    monkeypatch.setattr(ray_executor, "RETRIES", 1)
    done: list[int] = []
    tasks = four_tasks(tmp_path, done)
    with RayExecutor(2, len(tasks)) as executor:
        executor.run(tasks, "tasks")
        assert sorted(done) == [0, 1, 2, 3]
        assert [(tmp_path / f"{i}").read_text() for i in range(4)] == ["1"] * 4
        with pytest.raises(ConfigError, match="^said by a worker$"):
            executor.run([Task("fails", fail, ())], "tasks")
        with pytest.raises(DataError, match="memory ran out; finished jobs are kept"):
            executor.run([Task("dies", be_killed, ())], "tasks")


def test_jobs_of_lost_nodes_are_trained_by_others_to_the_bytes_of_the_local_executor(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = competition(tmp_path, 0.5, seeds=10)
    run = train(path, "--executor", "ray", "--ray-address", cluster.address)
    while finished() < 8:
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    for node in cluster.nodes[:2]:
        cluster.remove_node(node, allow_graceful=False)
    assert finished() < 60
    said, errors = run.communicate(timeout=300)
    assert (run.returncode, errors) == (0, "")
    assert said.count("valid rmse") == 60
    assert "the cluster has 2 CPUs now" in said
    assert not [line for line in said.splitlines() if "ray" in line.lower()]
    counts = trained(tmp_path)
    assert len(counts) == 60
    assert sum(counts.values()) <= 62  # none but those that were on the two nodes
    shared = products()
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "alone"))
    ended(train(path, "--workers", "4"))
    assert products() == shared


def test_what_is_cancelled_writes_no_more(tmp_path: Path, cluster: Any) -> None:
    class Interrupted(RayExecutor):
        @property
        def n_workers(self) -> int:
            if (tmp_path / "0").exists():
                raise KeyboardInterrupt
            return 1

    tasks = [Task(f"{i}", write_on, (tmp_path / f"{i}",)) for i in range(2)]
    with pytest.raises(KeyboardInterrupt), Interrupted(1, 2, cluster.address) as executor:
        executor.run(tasks, "tasks")
    time.sleep(1)
    written = (tmp_path / "0").read_text()
    time.sleep(1)
    assert (tmp_path / "0").read_text() == written


def test_an_interrupted_run_goes_on_and_trains_what_is_finished_no_second_time(tmp_path: Path) -> None:
    path = competition(tmp_path, 1.0, seeds=2)
    options = ("--executor", "ray", "--workers", "2")
    run = train(path, *options)
    while finished() < 2:
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)
    assert "Interrupted. Finished jobs are kept" in ended(run, 130)
    n_finished, n_begun = finished(), sum(trained(tmp_path).values())
    time.sleep(2)
    assert (finished(), sum(trained(tmp_path).values())) == (n_finished, n_begun)
    said = ended(train(path, *options))
    assert said.count("valid rmse") == 12 - n_finished
    assert sum(trained(tmp_path).values()) == n_begun + 12 - n_finished


@pytest.mark.parametrize("what", ["nothing", "another service"])
def test_a_cluster_that_is_not_there_is_one_sentence_within_seconds(what: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if what == "another service":
            listener.listen()
        before = time.monotonic()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ServiceError, match=f"the Ray cluster at {address} must answer, and does not: "):
            require_cluster(address)
        assert time.monotonic() - before < 15


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port", ":6379"])
def test_an_address_of_no_cluster_is_named(address: str) -> None:
    with pytest.raises(ServiceError, match="there is no HOST:PORT"):
        require_cluster(address)
