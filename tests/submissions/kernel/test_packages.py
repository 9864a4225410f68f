"""What travels is what prediction imports, all that this declares, and nothing that the image has."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from competition.errors import DataError, ServiceError
from competition.files import read_json
from competition.paths import Paths, wheels_cache
from submissions.kernel import packages, wheels
from submissions.kernel.packages import Needs, closure, environment_of, image_packages, imports_of
from tests.submissions.kernel.conftest import PYTHON, tiny_wheel

IMAGE = environment_of("3.12")


def closure_of(declared: dict[str, list[str]], *roots: str, image: set[str]) -> tuple[set[str], dict[str, str]]:
    return closure(roots, image, IMAGE, lambda name: [Requirement(text) for text in declared.get(name, [])])


def test_a_package_that_only_training_or_another_stage_needs_does_not_travel(work: Paths) -> None:
    """The run has trees and a ridge: no network, no search of settings, no platform's client."""
    facts = read_json(work.pack.facts)
    assert {"rdkit", "skops"} <= set(facts["wheels"])
    training = {"optuna", "kaggle", "chemprop", "unimol-tools", "transformers", "catboost", "accelerate"}
    assert not training & {*facts["wheels"], *facts["image"]}


def test_the_range_of_an_image_package_is_that_of_the_project(work: Paths) -> None:
    assert read_json(work.pack.facts)["image"]["lightgbm"] == "<5,>=4.6"


def test_scikit_learn_travels_in_its_own_version_where_its_estimators_are_the_weights(work: Paths) -> None:
    shipped = read_json(work.pack.facts)["wheels"]["scikit-learn"]
    assert shipped["range"] == f"=={shipped['version']}"


def test_the_closure_follows_markers_and_extras_of_the_image() -> None:
    declared = {
        "a": ["b[fast]>=1", "old; python_version<'3.12'", "win; sys_platform=='win32'", "c<9"],
        "b": ["d", "turbo>2; extra=='fast'", "slow; extra=='slow'"],
        "d": ["c>3"],
    }
    shipped, ranges = closure_of(declared, "a", image={"c"})
    assert shipped == {"a", "b", "d", "turbo"}
    assert ranges == {"b": ">=1", "c": "<9,>3", "d": "", "turbo": ">2"}


def test_of_a_package_of_the_image_only_what_an_extra_adds_travels() -> None:
    shipped, ranges = closure_of({"a": ["b[fast]"], "b": ["d", "turbo; extra=='fast'"]}, "a", image={"b"})
    assert shipped == {"a", "turbo"}
    assert "d" not in ranges


def test_torch_is_in_the_image_and_never_travels() -> None:
    assert {"torch", "numpy", "scikit-learn"} <= image_packages()


def test_packages_that_own_code_imports_are_found_wherever_it_does(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import os\n\ndef f():\n    from sklearn.svm import SVR\n    import yaml as y\n")
    assert imports_of([tmp_path / "own.py"]) == {"scikit-learn", "pyyaml"}


def test_wheels_that_need_more_than_travels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "image_packages", lambda: {"numpy"})
    tiny_wheel(tmp_path, "top", "1.0", ["numpy>=1", "middle>=2,<3", "win; sys_platform=='win32'"])
    tiny_wheel(tmp_path, "middle", "2.5", [])
    wheels.check_closed(["top"], tmp_path, "3.12")
    tiny_wheel(tmp_path, "middle", "2.5", ["bottom>1"])
    with pytest.raises(DataError, match=r"bottom>1 is needed, and it neither travels nor is in the image"):
        wheels.check_closed(["top"], tmp_path, "3.12")
    (tmp_path / "middle-2.5-py3-none-any.whl").unlink()
    tiny_wheel(tmp_path, "middle", "3.5", [])
    with pytest.raises(DataError, match=r"middle<3,>=2 is needed, and 3.5 travels"):
        wheels.check_closed(["top"], tmp_path, "3.12")


def test_a_wheel_is_fetched_once_and_a_second_pack_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(name: str, version: str, cache: Path, python: str) -> None:
        fetched.append(name)
        tiny_wheel(cache, name, version, [])

    monkeypatch.setattr(wheels, "fetch", fetch)
    needs = Needs({"my-own": "1.0"}, {"my-own": ""}, {}, ["my-own"])
    for i in range(2):
        assert wheels.collect(needs, tmp_path / str(i), PYTHON) == {"my-own": "my_own-1.0-py3-none-any.whl"}
        assert (tmp_path / str(i) / "my_own-1.0-py3-none-any.whl").is_file()
    assert fetched == ["my-own"]


@pytest.mark.parametrize(
    ("tag", "fits"),
    [
        ("py3-none-any", True),
        ("cp312-cp312-manylinux_2_28_x86_64", True),
        ("cp39-abi3-manylinux2014_x86_64", True),
        ("cp311-cp311-manylinux_2_28_x86_64", False),
        ("cp312-cp312-macosx_11_0_arm64", False),
        ("cp312-cp312-musllinux_1_2_x86_64", False),
    ],
)
def test_a_wheel_of_the_cache_counts_only_if_the_image_takes_it(tmp_path: Path, tag: str, fits: bool) -> None:
    tiny_wheel(tmp_path, "a", "1.0", [], tag)
    (tmp_path / "broken.whl").touch()
    assert (wheels.cached("a", "1.0", tmp_path, "3.12") is not None) is fits
    assert wheels.cached("a", "2.0", tmp_path, "3.12") is None


@pytest.mark.parametrize("built", ["", "x-1.0-cp311-cp311-linux_x86_64.whl"])
def test_a_package_without_a_wheel_for_the_image_is_named_and_leaves_nothing_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, built: str
) -> None:
    """pip finds no wheel; the source cannot be built, or only for this machine."""

    def pip(verb: str, *arguments: str) -> str:
        if verb == "wheel" and built:
            zipfile.ZipFile(Path(arguments[-1]) / built, "w").close()
            return ""
        return "ERROR: nothing found"

    monkeypatch.setattr(wheels, "_pip", pip)
    with pytest.raises(ServiceError, match=r"x 1\.0 must be"):
        wheels.find("x", "1.0", "3.12")
    assert [path.name for path in wheels_cache().iterdir()] == [built] * bool(built)


def test_a_pack_that_cannot_predict_says_why(work: Paths) -> None:
    """A weight that is gone from the pack shows before anything is fetched."""
    from competition.config import validate
    from submissions.config import Config
    from submissions.run import MANIFEST

    run = work.run(work.latest_run.read_text().strip())
    config = validate(Config, read_json(run / MANIFEST)["config"], run)
    next(work.pack.root.rglob("target_0.txt")).unlink()
    with pytest.raises(DataError, match=r"must predict rows of .* by itself, and does not: DataError: .* is gone"):
        packages.rehearse(work, config, work.pack)
