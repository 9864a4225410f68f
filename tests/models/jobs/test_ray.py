"""The same jobs on a Ray cluster of several nodes on this machine: placed, lost, started again, to the same bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs requirements-ray.txt, which ./run.sh test --all installs")

from ray.cluster_utils import Cluster

from competition.errors import ConfigError, ServiceError
from models.jobs import ray_workers
from models.jobs.ray_workers import RayWorkers, require_cluster, workers_of
from tests.models.jobs.common import counted, ended, products, start, trained, wait_until_begun
from tests.models.jobs.test_workers import require_results_mistakes_and_lost_workers


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs and four nodes with one each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(num_cpus=1) for _ in range(4)]
    yield made
    made.shutdown()


def test_items_mistakes_and_killed_workers_are_those_of_local_workers(tmp_path: Path, monkeypatch: Any) -> None:
    """On the cluster of this machine that is started for a run."""
    monkeypatch.setattr(ray_workers, "RETRIES", 1)
    with RayWorkers(2) as workers:
        require_results_mistakes_and_lost_workers(workers, tmp_path)


@pytest.mark.slow
def test_jobs_of_lost_nodes_are_trained_by_others_to_the_bytes_of_local_workers(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, hold = counted(tmp_path, seeds=3), tmp_path / "hold"
    hold.touch()
    run = start(path, "--executor", "ray", "--ray-address", cluster.address)
    wait_until_begun(tmp_path, 9 + 4, run)
    for node in cluster.nodes[:2]:
        cluster.remove_node(node, allow_graceful=False)
    assert run.stdout is not None
    while "the cluster has 2 CPUs and 0 GPUs now" not in (line := run.stdout.readline()):
        assert line, run.communicate()
    hold.unlink()
    ended(run)
    said = ended(start(path))
    assert said == "stage a  9 of 9 jobs are finished\nstage b  9 of 9 jobs are finished\n"
    counts = trained(tmp_path)
    assert (len(counts), counts.total()) == (18, 18 + 2)  # those that were on the two nodes
    shared = products()
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "alone"))
    ended(start(path, "--workers", "4"))
    assert products() == shared


@pytest.mark.parametrize("address", ["127.0.0.1:1", "head:port"])
def test_a_cluster_that_is_not_there_is_one_sentence(address: str) -> None:
    with pytest.raises(ServiceError, match=f"no Ray cluster answers at '{address}'.*Name its HOST:PORT"):
        require_cluster(address)


def test_ray_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package ray.*pip install -r requirements-ray.txt"):
        workers_of("ray", None, 1)()
