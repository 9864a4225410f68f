"""What the notebook runs: hidden rows predicted from a read-only pack, wherever it is mounted; each lack is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.errors import DataError
from competition.files import read_json, read_text_table, write_json, write_table
from competition.paths import Pack, Paths
from submissions.kernel.install import check_files, check_packages, facts_of, install
from submissions.kernel.offline import find_test, in_order_of_sample, make_tolerant, predict_test
from submissions.predict import predict
from tests.submissions.kernel.conftest import mount_competition


@pytest.fixture
def inputs(mounted: Pack, tmp_path: Path) -> Iterator[Path]:
    """/kaggle/input as it was in former times, with archives that were not unpacked; still empty of the competition."""
    flat = tmp_path / "flat"
    shutil.move(mounted.root, flat / "mixed-pack")
    for name in ("code", "work", "wheels"):
        shutil.make_archive(str(flat / "mixed-pack" / name), "zip", flat / "mixed-pack" / name)
        shutil.rmtree(flat / "mixed-pack" / name)
    yield flat
    set_permissions(flat, 0o755, 0o644)


def set_permissions(inputs: Path, of_folders: int, of_files: int) -> None:
    for path in [inputs, *inputs.rglob("*")]:
        path.chmod(of_folders if path.is_dir() else of_files)


def run_notebook(notebook: Path, inputs: Path, working: Path) -> subprocess.CompletedProcess[str]:
    """The code of its cells as one script, with inputs that cannot be written to (but by root)."""
    set_permissions(inputs, 0o555, 0o444)
    cells = json.loads(notebook.read_text())["cells"]
    script = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    known = {key: value for key, value in os.environ.items() if key not in ("WORK_DIR", "PYTHONPATH")}
    variables = {**known, "KAGGLE_INPUT": str(inputs), "KAGGLE_WORKING": str(working)}
    return subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=False)


def test_the_notebook_predicts_hidden_rows_as_predict_does_and_fills_unreadable_ones(
    made: Path, work: Paths, inputs: Path, tmp_path: Path
) -> None:
    """Other ids, another order in the sample, a molecule that is none, though `unparsable` is `error` in the YAML."""
    folder, working = inputs / "some-molecules", tmp_path / "working"
    shutil.move(mount_competition(made, tmp_path / "other"), folder)
    hidden = read_text_table(folder / "test.csv").assign(id=lambda table: [f"h{i}" for i in table.index])
    wanted = read_text_table(predict(work.name, _written(tmp_path / "all.csv", hidden), 1)).set_index("id")
    hidden.loc[3, "SMILES"] = "no molecule"
    write_table(folder / "test.csv", hidden)
    ids = hidden["id"][::-1]
    write_table(folder / "sample_submission.csv", pd.DataFrame({"id": ids, "lumo": 0.0, "mu": 0.0}))

    done = run_notebook(next(work.notebook.glob("*.ipynb")), inputs, working)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in working.iterdir()] == ["submission.csv"]
    found = read_text_table(working / "submission.csv")
    assert list(found["id"]) == list(ids)
    means = read_json(work.run(work.latest_run.read_text().strip()) / "run.json")["label_means"]
    found = found.set_index("id")
    assert found.loc["h3"].astype(float).tolist() == means
    wanted = wanted.drop(index="h3")
    pd.testing.assert_frame_equal(found.loc[wanted.index], wanted)
    for said in (
        "installed from the pack: nothing",
        "20 rows, 1 of them unreadable and filled with the mean label",
        "competition.unparsable is drop here, not error",
    ):
        assert said in done.stdout


def test_the_notebook_stops_with_one_sentence_where_a_weight_was_changed(
    made: Path, work: Paths, inputs: Path, tmp_path: Path
) -> None:
    shutil.move(mount_competition(made, tmp_path / "other"), inputs / "some-molecules")
    facts = read_json(inputs / "mixed-pack" / "pack.json")
    name = next(name for name in facts["files"] if name.endswith("target_0.txt"))
    facts["files"][name]["sha256"] = "0" * 64
    write_json(inputs / "mixed-pack" / "pack.json", facts)
    done = run_notebook(next(work.notebook.glob("*.ipynb")), inputs, tmp_path / "working")
    assert done.returncode == 1
    assert f"must be the pack as ./run.sh kernel wrote it, but {name} has changed" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "working").exists()


def _written(path: Path, table: pd.DataFrame) -> Path:
    write_table(path, table)
    return path


def test_a_file_that_is_missing_cut_or_changed_is_named(mounted: Pack) -> None:
    facts = facts_of(mounted)
    check_files(mounted, facts)
    booster = next(mounted.root.rglob("target_0.txt"))
    content = booster.read_text()
    booster.write_text(content.replace("1", "2"))
    with pytest.raises(DataError, match=r"but work/mixed/models/trees/.*/target_0.txt has changed"):
        check_files(mounted, facts)
    booster.write_text(content[:-1])
    with pytest.raises(DataError, match=r"target_0.txt has \d+ bytes instead of"):
        check_files(mounted, facts)
    booster.unlink()
    with pytest.raises(DataError, match=r"target_0.txt is missing. Upload it again"):
        check_files(mounted, facts)


def test_a_wheel_that_is_missing_is_named(mounted: Pack) -> None:
    wheel = {"version": "1.0", "range": ">=1", "file": "not_there-1.0-py3-none-any.whl"}
    facts = {**facts_of(mounted), "wheels": {"not-there": wheel}}
    with pytest.raises(DataError, match=r"the package not_there-1.0-py3-none-any.whl must be in .*/wheels"):
        install(mounted, facts)


def test_packages_of_the_image_out_of_range_are_named_with_what_was_found(mounted: Pack) -> None:
    facts = facts_of(mounted)
    check_packages(facts)
    wrong: dict[str, Any] = {**facts, "python": "3.9", "image": {"numpy": "<1", "not-there": ">=2"}, "wheels": {}}
    with pytest.raises(DataError, match=r"Python 3.*, needed 3.9; numpy 2.*, needed numpy<1; no not-there, needed"):
        check_packages(wrong)


def test_the_test_file_is_found_by_the_competition_wherever_it_is_mounted(mounted: Pack) -> None:
    inputs = mounted.root.parents[2]
    facts = facts_of(mounted)
    with pytest.raises(DataError, match=r"one file test.csv must be below .*some-molecules; there is none. Attach"):
        find_test(facts, inputs)
    (mounted.root / "test.csv").touch()  # in the pack: none of the competition's
    for folder in ("datasets/you/other", "datasets/you/another"):
        (inputs / folder).mkdir(parents=True)
        (inputs / folder / "test.csv").touch()
    with pytest.raises(DataError, match=r"there are 2: .*another/test.csv, .*other/test.csv. Detach"):
        find_test(facts, inputs)
    (inputs / "some-molecules" / "data").mkdir(parents=True)
    (inputs / "some-molecules" / "data" / "test.csv").touch()
    assert find_test(facts, inputs) == inputs / "some-molecules" / "data" / "test.csv"


def test_a_column_that_the_test_file_lacks_is_named_with_those_found(mounted: Pack, tmp_path: Path) -> None:
    test = _written(tmp_path / "test.csv", pd.DataFrame({"id": ["a"], "smiles": ["C"], "note": ["b"]}))
    with pytest.raises(DataError, match=r"lacking: SMILES, pH, site \(it has id, smiles, note\)"):
        predict_test(facts_of(mounted), test, tmp_path / "submission.csv")


def test_rows_have_the_order_of_the_sample_only_if_it_names_the_same_rows(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["a", "b", "c"], "y": np.arange(3.0)})
    sample = tmp_path / "sample.csv"
    assert "there is no sample.csv" in in_order_of_sample(table, sample, "id")[1]
    write_table(sample, table.iloc[[2, 0, 1]])
    ordered, said = in_order_of_sample(table, sample, "id")
    assert (list(ordered["id"]), list(ordered["y"])) == (["c", "a", "b"], [2.0, 0.0, 1.0])
    assert said == "rows in the order of sample.csv"
    write_table(sample, table.iloc[:2])
    same, said = in_order_of_sample(table, sample, "id")
    assert list(same["id"]) == ["a", "b", "c"]
    assert "names other rows" in said


def test_no_setting_lets_one_row_end_a_prediction() -> None:
    config = {
        "competition": {"unparsable": "drop"},
        "stages": {"a": {"unembeddable": "error", "seeds": [0]}, "b": {"too_long": "cut_middle"}},
    }
    assert make_tolerant(config) == ["a.unembeddable is flat here, not error"]
    assert config["stages"] == {"a": {"unembeddable": "flat", "seeds": [0]}, "b": {"too_long": "cut_middle"}}


def test_code_outside_a_pack_says_that_it_needs_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pack.json must be there"):
        facts_of(Pack(tmp_path))
    write_json(tmp_path / "pack.json", {"name": "x"})
    assert facts_of(Pack(tmp_path)) == {"name": "x"}
