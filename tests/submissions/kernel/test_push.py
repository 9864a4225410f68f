"""Data set and notebook go to the platform through the real client, each once, and every failure is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from competition.errors import ConfigError, DataError, ServiceError
from competition.files import write_json
from competition.paths import Paths
from submissions.kernel import push as push_module
from submissions.kernel.push import push, pushed_notebook
from submissions.leaderboard import client
from tests.kaggle_server import USER, KaggleServer

DATASET, NOTEBOOK = f"{USER}/tides-pack", f"{USER}/tides-offline"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    with KaggleServer() as server:
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        yield server


def packed(run: str = "1", owner: str = USER, training: bool = False) -> Paths:
    """The least folder of a bundle and its notebook."""
    paths = Paths.of("tides")
    kernel = paths.training_kernel if training else paths.kernel
    what, does = ("training", "train") if training else ("pack", "offline")
    write_json(kernel.bundle.manifest, {"purpose": "training"} if training else {"run": run})
    write_json(kernel.bundle.code / "x.json", {})
    about = {"id": f"{owner}/tides-{what}", "title": f"tides {what}", "licenses": [{"name": "other"}]}
    write_json(kernel.bundle.metadata, about)
    write_json(kernel.notebook / "x.ipynb", {"cells": [], "metadata": {}})
    about = {"id": f"{owner}/tides-{does}", "title": f"tides {does}", "code_file": "x.ipynb", "language": "python"}
    about |= {"kernel_type": "notebook", "enable_internet": False, "dataset_sources": [f"{owner}/tides-{what}"]}
    write_json(kernel.notebook / "kernel-metadata.json", about)
    return paths


@pytest.fixture
def arrived(server: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> KaggleServer:
    """The data set is no matter here: any arrives at once, without the client."""
    server.datasets |= {DATASET: {"versions": [{}]}, f"{USER}/tides-training": {"versions": [{}]}}
    monkeypatch.setattr(client, "dataset_status", lambda dataset: ("ready", 1))
    monkeypatch.setattr(client, "create_or_version_dataset", lambda folder, message: 0)
    return server


def run_push(limit: float = 60.0) -> None:
    push("tides", poll=0.01, limit=limit)


def versions(server: KaggleServer) -> tuple[int, int]:
    """Of data set and notebook."""
    return len(server.datasets[DATASET]["versions"]), len(server.kernels[NOTEBOOK]["versions"])


def test_a_bundle_is_pushed_once_and_a_new_run_as_a_new_version(
    server: KaggleServer, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = packed()
    with pytest.raises(DataError, match="has no notebook on Kaggle"):
        pushed_notebook(paths)
    server.lag = 2  # looks until the platform has a version
    run_push()
    out = capsys.readouterr().out
    assert f"https://www.kaggle.com/code/{NOTEBOOK} (version 1) has run to its end" in out
    assert "./run.sh submit tides --kernel" in out
    assert (versions(server), pushed_notebook(paths)) == ((1, 1), (NOTEBOOK, 1))
    assert server.datasets[DATASET]["versions"][0]["private"] is True
    assert server.kernels[NOTEBOOK]["versions"][0]["enableInternet"] is False
    asked = [path.rsplit("/", 1)[-1] for path, _ in server.requests]
    assert asked[asked.index("CreateDataset") : asked.index("SaveKernel")].count("GetDataset") == 3

    run_push()
    assert versions(server) == (1, 1)
    assert "uploading" not in capsys.readouterr().out

    packed(run="2")
    with pytest.raises(DataError, match="has no notebook on Kaggle"):
        pushed_notebook(paths)
    run_push()
    assert (versions(server), pushed_notebook(paths)) == ((2, 2), (NOTEBOOK, 2))
    assert server.datasets[DATASET]["versions"][1]["notes"] == "run 2"


def test_what_trains_is_pushed_beside_what_predicts(arrived: KaggleServer, capsys: pytest.CaptureFixture[str]) -> None:
    paths = packed()
    run_push()
    packed(training=True)
    push("tides", training=True, poll=0.01)
    assert "submit it there" in capsys.readouterr().out
    assert len(arrived.kernels[f"{USER}/tides-train"]["versions"]) == 1
    assert (versions(arrived)[1], pushed_notebook(paths)) == (1, (NOTEBOOK, 1))


@pytest.mark.parametrize("stopped", ["data set", "notebook"])
def test_a_push_that_was_stopped_goes_on_without_uploading_again(
    server: KaggleServer, monkeypatch: pytest.MonkeyPatch, stopped: str
) -> None:
    packed()

    def stop(what: str, *rest: object) -> str:
        if what.startswith(stopped):
            raise KeyboardInterrupt
        return "ready"

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(push_module, "wait", stop)
        run_push()
    run_push()
    assert versions(server) == (1, 1)


def test_what_is_slower_than_the_limit_is_told_and_waited_for_by_the_next_call(arrived: KaggleServer) -> None:
    packed()
    arrived.kernels[NOTEBOOK] = {"versions": [], "status": ["RUNNING"], "failure": ""}
    with pytest.raises(ServiceError, match=r"has not finished the notebook .* \(running\); run the same"):
        run_push(limit=0.0)
    arrived.kernels[NOTEBOOK]["status"] = ["RUNNING", "COMPLETE"]
    run_push()
    assert versions(arrived) == (1, 1)


def test_a_notebook_that_fails_or_is_refused_is_told_and_saved_again_by_the_next_call(arrived: KaggleServer) -> None:
    paths = packed()
    arrived.kernels[NOTEBOOK] = {"versions": [], "status": ["RUNNING", "ERROR"], "failure": "No module named rdkit"}
    for reason in ("session count reached", r"on Kaggle \(No module named rdkit\); read its log at https://www"):
        if reason.startswith("session"):
            arrived.faults.append(("SaveKernel", (200, {"error": "Maximum batch GPU session count reached"})))
        with pytest.raises(ServiceError, match=reason):
            run_push()
        with pytest.raises(DataError, match="has no notebook on Kaggle"):
            pushed_notebook(paths)
    arrived.kernels[NOTEBOOK] |= {"status": ["COMPLETE"], "failure": ""}
    run_push()
    assert versions(arrived) == (1, 2)


def test_a_data_set_that_fails_is_uploaded_again_by_the_next_call(server: KaggleServer) -> None:
    packed()
    server.datasets[DATASET] = {"versions": [{}], "status": ["READY", "FAILED"], "current": 1, "looks": 0}
    with pytest.raises(ServiceError, match=r"could not unpack the data set .* \(failed\)"):
        run_push()
    server.datasets[DATASET]["status"] = ["READY"]
    run_push()
    assert versions(server) == (3, 1)


def test_a_passing_trouble_while_waiting_is_passed_over_and_a_lasting_one_is_not(arrived: KaggleServer) -> None:
    packed()
    down = ("GetKernelSessionStatus", (503, {"code": 503, "message": "down"}))
    arrived.faults += [down] * 2
    run_push()
    assert arrived.faults == []
    arrived.faults += [down] * 4
    with pytest.raises(ServiceError, match="down"):
        run_push()


def test_an_owner_who_is_not_the_user_is_refused_before_anything_is_sent(server: KaggleServer) -> None:
    packed(owner="grace")
    with pytest.raises(ConfigError, match=rf"for the owner grace, .* of {USER}; .* --owner {USER}"):
        run_push()
    assert server.requests == []
