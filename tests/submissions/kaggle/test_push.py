"""Data set and notebook go to the platform through the real client, each once, and every failure is told."""

import io
import zipfile

import pytest

from core.errors import DataError, ServiceError
from core.files import write_json
from core.paths import Paths
from submissions.kaggle.pack import CPU, write_notebook
from submissions.kaggle.paths import Kernel
from submissions.kaggle.push import push, pushed_notebook
from tests.kaggle_server import USER

DATASET, NOTEBOOK = f"{USER}/tides-pack", f"{USER}/tides-offline"


def packed(run="1", training=False):
    """The least folder of a bundle and its notebook."""
    paths = Paths.for_competition("tides")
    kernel, purpose = Kernel.of(paths, training), "training" if training else "prediction"
    write_json(kernel.bundle.code / "deep" / "x.json", {})
    write_json(kernel.bundle.manifest, {"run": run})
    manifest = {"name": "tides", "purpose": purpose, "kaggle": None, "accelerator": CPU}
    write_notebook(kernel.notebook, kernel.bundle, manifest, USER)
    return paths


def test_a_bundle_is_pushed_a_new_run_as_a_new_version_and_what_trains_next_to_it(
    server,
):
    paths = packed()
    with pytest.raises(DataError, match="has no notebook on Kaggle"):
        pushed_notebook(paths)
    server.lag = 2  # looks until the platform has a version
    server.faults.append(("/upload/", "cut"))
    push("tides", training=False)
    assert pushed_notebook(paths) == (NOTEBOOK, 1)
    assert server.datasets[DATASET]["versions"][0]["private"] is True
    assert server.kernels[NOTEBOOK]["versions"][0]["enableInternet"] is False
    calls = [path.rsplit("/", 1)[-1] for path, _ in server.requests]
    assert calls[calls.index("CreateDataset") : calls.index("SaveKernel")].count("GetDataset") == 3

    packed(run="2")
    with pytest.raises(DataError, match="has no notebook on Kaggle"):
        pushed_notebook(paths)
    push("tides", training=False)
    packed(training=True)
    push("tides", training=True)
    assert pushed_notebook(paths) == (NOTEBOOK, 2)
    version = server.datasets[DATASET]["versions"][1]
    assert version["notes"] == "run 2"
    with zipfile.ZipFile(io.BytesIO(version["files"]["code.zip"])) as archive:  # the client takes no folders
        assert "deep/x.json" in archive.namelist()
    assert len(server.kernels[f"{USER}/tides-train"]["versions"]) == 1


@pytest.mark.parametrize(
    ("call", "fault", "words"),
    [
        ("/upload/", (403, b""), r"upload of .*code\.zip.* failed"),  # the client goes on without it
        ("CreateDataset", (200, {"status": "error", "error": "The title is taken"}), "rejected .*: The title is"),
        ("GetDatasetStatus", (500, {"code": 500, "message": "down"}), "answered: down"),  # not: there is none
        ("SaveKernel", (200, {"error": "Maximum batch GPU session count reached"}), "session count reached"),
        ("SaveKernel", (200, {"invalidDatasetSources": [DATASET]}), f"does not know {DATASET}"),
    ],
)  # fmt: skip
def test_what_is_refused_or_lacks_a_file_is_an_error_and_no_notebook_was_pushed(server, call, fault, words):
    server.faults.append((call, fault))
    paths = packed()
    with pytest.raises(ServiceError, match=words):
        push("tides", training=False)
    with pytest.raises(DataError, match="has no notebook on Kaggle"):
        pushed_notebook(paths)


@pytest.mark.parametrize("state", ["FAILED", "BLOBS_RECEIVED"])
def test_a_data_set_that_fails_or_is_slow_is_reported(server, monkeypatch, state):
    monkeypatch.setattr("submissions.kaggle.push.LIMIT", 0.0)
    packed()
    push("tides", training=False)
    server.datasets[DATASET]["status"] = state
    with pytest.raises(ServiceError, match=rf"has not unpacked the data set .* \({state.lower()}\)"):
        push("tides", training=False)
