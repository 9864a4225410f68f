"""What travels is all that a bundle needs and the image has not; pip fetches it once."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from competition.errors import ServiceError
from competition.paths import PROJECT, Bundle
from submissions.kernel import wheels
from submissions.kernel.wheels import add_wheels, download, imported_by, versions_of
from tests.submissions.kernel.conftest import tiny_wheel

DECLARED = {
    "a": ["b[fast]>=1", "old; python_version<'3.12'", "win; sys_platform=='win32'", "c<9"],
    "b": ["d", "turbo>2; extra=='fast'", "slow; extra=='slow'"],
    "d": ["c>3"],
    "turbo": [],
}


def test_the_packages_are_followed_by_markers_and_extras_up_to_those_of_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wheels.metadata, "requires", DECLARED.__getitem__)
    monkeypatch.setattr(wheels.metadata, "version", lambda name: "1.0")
    assert versions_of(["A>=0"], {"c"}, "3.12") == dict.fromkeys(["a", "b", "d", "turbo"], "1.0")


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """An empty one of the real project and image, for which nothing is fetched."""
    monkeypatch.undo()
    monkeypatch.setattr(wheels, "download", lambda *arguments: None)
    (tmp_path / "bundle").mkdir()
    return Bundle(tmp_path / "bundle")


def shipped(bundle: Bundle) -> set[str]:
    return {line.partition("==")[0] for line in bundle.requirements.read_text().splitlines()}


def test_what_is_in_the_image_and_what_other_stages_need_does_not_travel(bundle: Bundle) -> None:
    said = add_wheels(bundle, {"lightgbm", "bert"}, "3.12")
    assert {"rdkit", "pandas"} <= shipped(bundle)
    assert not {"torch", "numpy", "chemprop", "unimol-tools", "lightning", "kaggle"} & shipped(bundle)
    assert "lightgbm>=4.6,<5" in said["image"] and not [text for text in said["image"] if text.startswith("rdkit")]
    add_wheels(bundle, {"gnn"}, "3.12")
    assert {"chemprop", "lightning"} <= shipped(bundle) and not {"torch", "unimol-tools"} & shipped(bundle)
    add_wheels(bundle, None, "3.12")  # for training, since run.sh asks for all
    assert {"chemprop", "unimol-tools"} <= shipped(bundle)


@pytest.mark.parametrize(("package", "kinds"), wheels.ONLY_FOR.items())
def test_a_package_that_is_left_out_is_imported_by_no_other_stage(package: str, kinds: set[str]) -> None:
    name = package.replace("-", "_")
    importing = {file.stem for file in (PROJECT / "models").rglob("*.py") if f"from {name}" in file.read_text()}
    assert importing and importing <= kinds | {"pairs"}  # pairs: of both Uni-Mol stages


def test_scikit_learn_travels_in_its_own_version_where_its_estimators_are_the_weights(bundle: Bundle) -> None:
    add_wheels(bundle, {"sklearn"}, "3.12")
    assert "scikit-learn" not in shipped(bundle)
    (bundle.root / "model.skops").touch()
    add_wheels(bundle, {"sklearn"}, "3.12")
    assert f"scikit-learn=={metadata.version('scikit-learn')}" in bundle.requirements.read_text().splitlines()


def test_packages_that_own_code_imports_are_found_wherever_it_does(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import os\n\ndef f():\n    from sklearn.svm import SVR\n    import yaml as y\n")
    assert imported_by(tmp_path) == {"scikit-learn", "PyYAML"}


def fetched(folder: Path, *names: str) -> set[str]:
    """Names of the wheels that pip fetches, which finds what lies in `folder`."""
    (folder / "requirements.txt").write_text("".join(f"{name}==1.0\n" for name in names))
    (folder / "wheels").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder))
        download(folder / "requirements.txt", folder / "wheels", "3.12")
    return {path.name for path in (folder / "wheels").iterdir()}


def test_of_several_wheels_that_for_the_image_is_taken(tmp_path: Path) -> None:
    fits = {("a", "py3-none-any"), ("b", "cp312-cp312-manylinux_2_28_x86_64"), ("c", "cp39-abi3-manylinux2014_x86_64")}
    for name, tag in fits | {("a", "cp311-cp311-manylinux_2_28_x86_64"), ("b", "cp312-cp312-macosx_11_0_arm64")}:
        tiny_wheel(tmp_path, name, "1.0", tag)
    assert fetched(tmp_path, "a", "b", "c") == {f"{name}-1.0-{tag}.whl" for name, tag in fits}


@pytest.mark.parametrize("tag", ["cp311-cp311-manylinux_2_28_x86_64", "cp312-cp312-musllinux_1_2_x86_64"])
def test_a_package_without_a_wheel_for_the_image_is_named(tmp_path: Path, tag: str) -> None:
    tiny_wheel(tmp_path, "a", "1.0", tag)
    with pytest.raises(ServiceError, match=r"for Python 3.12 on Linux: ERROR: No matching distribution .* a==1.0"):
        fetched(tmp_path, "a")


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
        with pytest.raises(ServiceError, match=r"a-1\.0-cp311-cp311-linux_x86_64\.whl was built for this machine"):
            fetched(tmp_path, "a")
