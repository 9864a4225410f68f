"""Jobs on a Ray cluster of several nodes on this machine: placement, lost nodes, and equal predictions."""

from concurrent.futures import wait
from contextlib import closing

import pytest

pytest.importorskip("ray", reason="needs requirements-ray.txt, which ./run.sh test --all installs")

from ray.cluster_utils import Cluster

from core.errors import ConfigError, ServiceError
from models.jobs import cluster as cluster_module
from models.jobs.cluster import RayExecutor, make_executor, require_cluster
from models.jobs.scheduler import Queue, Resources, Task, run
from tests.models.jobs.common import counted, ended, products, start, trained, wait_until_running
from tests.models.jobs.test_local import environment_tasks
from tests.models.jobs.user_stages import fail


@pytest.fixture
def cluster():
    """A head without CPUs and four nodes with one each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(num_cpus=1) for _ in range(4)]
    yield made
    made.shutdown()


def test_results_and_lost_workers_are_those_of_local_workers(tmp_path, monkeypatch):
    """On the cluster of this machine that is started for a run."""
    monkeypatch.setattr(cluster_module, "RETRIES", 1)
    tasks = [Task(how, fail, (how,), group=how) for how in ("config", "unpicklable", "killed")]
    tasks += environment_tasks(tmp_path, 4, group="fine")
    with closing(RayExecutor(2)) as executor:
        results = run(Queue(tasks), executor)
        late = run(Queue([Task("hangs", fail, ("hangs",))], job_timeout=20.0), executor)
    assert results["config"].error == "ConfigError: lower the learning_rate"
    assert results["unpicklable"].error == "Unpicklable: HTTP 404"
    assert results["killed"].reason == "killed"
    assert [results[f"{i}"].status for i in range(4)] == ["ok"] * 4
    assert {file.read_text().split()[1] for file in tmp_path.iterdir()} == {"1"}
    assert late["hangs"].reason == "timeout"


def test_shares_of_cards_are_counted_and_a_task_without_its_card_fails_or_sees_none(tmp_path, monkeypatch):
    """On a node that says it has two cards, four halves run at once; torch sees no card."""
    node = {"num_cpus": 8, "num_gpus": 2, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        with closing(RayExecutor()) as executor:
            tasks = environment_tasks(tmp_path, 6, resources=Resources(1, 0.5))
            futures = []
            for task in tasks[:4]:
                assert executor.fits(task.resources)
                futures.append(executor.submit(task))
            assert not executor.fits(Resources(1, 0.5))
            wait(futures)
            results = run(Queue(tasks[4:]), executor)
            run(Queue(environment_tasks(tmp_path, 1, resources=Resources(1, 0.0))), executor)
    finally:
        made.shutdown()
    (without_card,) = tmp_path.iterdir()
    assert without_card.read_text().split(" ", 1)[1] == "1 "
    assert all("but torch sees none" in result.error for result in results.values())


@pytest.mark.slow
def test_jobs_of_lost_nodes_are_trained_by_others_to_the_bytes_of_local_workers(
    tmp_path, cluster, monkeypatch
):
    path, hold = counted(tmp_path, seeds=3), tmp_path / "hold"
    hold.touch()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    run = start(path, "--executor", "ray")
    wait_until_running(tmp_path, 9 + 4, run)
    for node in cluster.nodes[:2]:
        cluster.remove_node(node, allow_graceful=False)
    assert run.stdout is not None
    while "the cluster has 2 CPUs and 0 GPUs now" not in (line := run.stdout.readline()):
        assert line, run.communicate()
    hold.unlink()
    ended(run)
    output = ended(start(path))
    assert output == "stage a  9 of 9 jobs are finished\nstage b  9 of 9 jobs are finished\n"
    counts = trained(tmp_path)
    assert (len(counts), counts.total()) == (18, 18 + 2)  # those that were on the two nodes
    shared = products()
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "alone"))
    ended(start(path, "--workers", "4"))
    assert products() == shared


@pytest.mark.parametrize("address", ["127.0.0.1:1", "head:port"])
def test_a_cluster_that_is_not_there_is_one_sentence(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ServiceError, match=f"no Ray cluster answers at '{address}'.*to its HOST:PORT"):
        require_cluster()


def test_ray_that_is_not_installed_is_one_sentence(monkeypatch):
    monkeypatch.setattr(cluster_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package ray.*pip install -r requirements-ray.txt"):
        make_executor("ray", 1)
