"""`kernel --try`: one real run of boosted trees, packed, and its notebook proved; then with something taken away."""

from __future__ import annotations

import re
import shutil
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.errors import ConfigError, DataError, SubmissionError
from competition.files import read_json, read_text_table, write_table
from competition.paths import Paths
from submissions.kernel import hidden, limits, packages, prove, sandbox, wheels
from submissions.kernel.limits import Limits
from tests.submissions.fakes import fake_competition
from tests.submissions.kernel.conftest import run_and_build

SHIPPED = "threadpoolctl"
"""One file of Python, which prediction imports: the only package that travels here."""
IMAGE = "numpy scipy scikit-learn lightgbm optuna pydantic PyYAML tqdm packaging rdkit pandas skops matplotlib"


def wheel_of_installed(name: str, version: str, cache: Path, python: str) -> None:
    """Stands in for pip: a wheel of the files that are installed here."""
    assert name == SHIPPED, f"{name} must be in the image of these tests"
    distribution = metadata.distribution(name)
    files = [file for file in distribution.files or [] if ".." not in file.parts and file.suffix != ".pyc"]
    files = [file for file in files if file.name not in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")]
    with zipfile.ZipFile(cache / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for file in files:
            archive.write(str(distribution.locate_file(file)), str(file))
        archive.writestr(f"{name}-{version}.dist-info/RECORD", "".join(f"{file},,\n" for file in files))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a competition of numbers and, in `work`, its run and its pack."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "image.txt").write_text(IMAGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        patch.setattr(wheels, "fetch", wheel_of_installed)
        patch.setattr(packages, "IMAGE", folder / "image.txt")
        stages = {"trees": {"kind": "lightgbm", "max_trees": 10}}
        submissions = {"default": "mean", "stack": False, "postprocess": []}
        run_and_build(fake_competition(folder, 90, 20, stages=stages, submissions=submissions))
    return folder


@pytest.fixture
def paths(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A copy of the products that a test may change."""
    shutil.copytree(packed / "work", tmp_path / "work")
    monkeypatch.setattr(packages, "IMAGE", packed / "image.txt")
    return Paths("mixed")


def test_the_notebook_predicts_hidden_rows_as_predict_does(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(read_json(paths.pack.facts)["wheels"]) == [SHIPPED]
    prove.prove("mixed", 50, Limits(), n_workers=1)
    said = capsys.readouterr().out
    assert "50 rows of train.csv" in said
    assert "nothing could be reached" in said
    assert re.search(r"difference +at most 0 of a target's spread", said)
    assert re.search(r"^proved .* GB of memory at most; (namespaces|permissions)", said, re.MULTILINE)
    assert f"installed from the pack: {SHIPPED}" in paths.proof_log.read_text()
    assert not paths.proof.exists()


def test_without_namespaces_and_in_the_old_layout_it_is_proved_too(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sandbox, "NAMESPACES", ["no-such-tool"])
    prove.prove("mixed", 20, Limits(), flat=True, n_workers=1)
    said = capsys.readouterr().out
    assert "permissions (this system gives no namespaces)" in said.splitlines()[-1]
    assert (paths.pack.root / "pack.json").stat().st_mode & 0o200


def test_a_pack_without_its_wheel_fails_in_one_sentence(paths: Paths) -> None:
    next(paths.pack.wheels.glob("*.whl")).unlink()
    with pytest.raises(DataError, match=rf"the notebook fails: .*{SHIPPED}.*proof\.log\)$") as caught:
        prove.prove("mixed", 20, Limits(), n_workers=1)
    assert "\n" not in str(caught.value)
    assert not paths.proof.exists()


def test_a_pack_without_a_weight_file_fails_in_one_sentence(paths: Paths) -> None:
    weights = sorted(path for path in paths.pack.work.rglob("fold_*/*") if path.suffix == ".txt")
    weights[0].unlink()
    with pytest.raises(DataError, match=rf"the notebook fails: .*{weights[0].name}.*missing") as caught:
        prove.prove("mixed", 20, Limits(), n_workers=1)
    assert "\n" not in str(caught.value)


def test_a_hidden_test_table_without_a_column_fails_in_one_sentence(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_x(competition: object, known_labels: bool, n_rows: int, folder: Path) -> tuple[int, str]:
        found = hidden.write_hidden_test(competition, known_labels, n_rows, folder)  # type: ignore[arg-type]
        write_table(folder / "test.csv", read_text_table(folder / "test.csv").drop(columns="x"))
        return found

    monkeypatch.setattr(prove, "write_hidden_test", without_x)
    with pytest.raises(DataError, match=r"the notebook fails: .*columns are lacking: x") as caught:
        prove.prove("mixed", 20, Limits(), n_workers=1)
    assert "\n" not in str(caught.value)


def test_a_pack_of_an_earlier_run_is_not_proved(paths: Paths) -> None:
    paths.latest_run.write_text("another\n")
    with pytest.raises(DataError, match="must hold the latest run, another"):
        prove.prove("mixed", 20, Limits())


def test_other_predictions_and_other_files_are_refused(packed: Path, tmp_path: Path) -> None:
    competition = load_competition(str(packed / "mixed.yaml"))
    spread = np.nanstd(pd.read_csv(packed / "train.csv")["height"])
    table = pd.DataFrame({"id": ["a", "b"], "height": [1.0, 2.0], "depth": [3.0, 4.0]})
    write_table(tmp_path / "here.csv", table)
    write_table(tmp_path / "there.csv", table.iloc[::-1].assign(height=[2.0, 1.0 + 2e-6 * spread]))
    with pytest.raises(SubmissionError, match="'height' differs by 2e-06"):
        prove._compare(competition, tmp_path / "there.csv", tmp_path / "here.csv")
    write_table(tmp_path / "there.csv", table.iloc[::-1].assign(height=[2.0, 1.0 + 5e-7 * spread]))
    prove._compare(competition, tmp_path / "there.csv", tmp_path / "here.csv")
    with pytest.raises(SubmissionError, match=r"nothing else; found here\.csv, there\.csv"):
        prove._only_submission(tmp_path)


def test_hidden_rows_are_training_inputs_under_new_ids_and_without_labels(packed: Path, tmp_path: Path) -> None:
    competition = load_competition(str(packed / "mixed.yaml"))
    assert hidden.write_hidden_test(competition, False, 40, tmp_path) == (40, "train.csv")
    test, raw = read_text_table(tmp_path / "test.csv"), read_text_table(packed / "train.csv")
    sample = read_text_table(tmp_path / "sample_submission.csv")
    assert list(test.columns) == ["id", "x", "z"]
    assert set(test["x"]) <= set(raw["x"]) and list(test["x"]) != list(raw["x"][:40])
    assert not set(test["id"]) & {*raw["id"], *read_text_table(packed / "test.csv")["id"]}
    assert sorted(sample["id"]) == sorted(test["id"]) and list(sample["id"]) != list(test["id"])
    assert list(sample.columns) == ["id", "height", "depth"]
    known = hidden.write_hidden_test(competition, True, 40, tmp_path)
    assert known == (20, "test.csv")


def test_what_a_failed_cell_says_is_one_sentence() -> None:
    ours = "some line\nDataError: a file must be there.\nTraceback ...\nRuntimeError: failed; see above"
    assert prove._sentence(ours) == ("DataError", "a file must be there.")
    assert prove._sentence("x\nERROR: No matching distribution found for y\nmore") == (
        "", "No matching distribution found for y",
    )  # fmt: skip
    assert prove._sentence("Traceback\n  line\nKeyError: 'x'\n") == ("", "KeyError: 'x'")


def test_limits_are_numbers_above_0() -> None:
    with pytest.raises(ConfigError, match="must be numbers above 0; found '-1'"):
        limits._positive("-1")
