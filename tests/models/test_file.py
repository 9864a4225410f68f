"""Stage `file`: rows joined on id, the key of jobs, whose folds are compared and what looks wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.errors import ConfigError, DataError
from competition.files import read_table
from competition.paths import Paths
from competition.prepare import prepare
from competition.prepare import run as run_prepare
from folds.make import load_folds_config
from folds.make import run as make_folds
from folds.table import read_folds
from models.config import load_stages
from models.jobs.plan import Plan, plan
from models.jobs.work import run_job
from models.notes import read_notes
from models.settings import FileStage
from models.stages.file import doubts, files_of, fold_mark, read_theirs
from tests.competition.small import write_small
from tests.conftest import mixed_tables, write_competition
from tests.models.theirs import write_theirs


def write_files(folder: Path, oof: list[str], test: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "oof.csv").write_text("\n".join(oof) + "\n")
    (folder / "test.csv").write_text("\n".join(test) + "\n")
    return folder


def planned(path: Path) -> Plan:
    config, paths = load_competition(str(path)), Paths.of(str(path))
    run_prepare(config, paths, path)
    make_folds(config, load_folds_config(str(path)), paths)
    return plan(config, load_stages(str(path)), paths)


def run_all(path: Path) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """All OOF rows of the one stage, and the test predictions of each job."""
    todo, config, paths = planned(path), load_competition(str(path)), Paths.of(str(path))
    stages = load_stages(str(path))
    for job in todo.jobs:
        run_job(job, stages[job.stage], config, paths, todo.test_key)
    oof = pd.concat([read_table(job.folder / "oof.csv", ["id"]) for job in todo.jobs]).set_index("id")
    return oof, [read_table(job.test_file(todo.test_key), ["id"]).set_index("id") for job in todo.jobs]


def test_each_job_hands_out_the_rows_of_its_fold_and_of_the_test_table_by_id(tmp_path: Path) -> None:
    train, test = mixed_tables()
    write_theirs(tmp_path / "theirs" / "x", train, test, ["lumo", "mu"])
    path = write_competition(tmp_path, train, test, stages={"x": {"kind": "file", "folder": "theirs/x"}})
    oof, tests = run_all(path)
    given = pd.read_csv(tmp_path / "theirs" / "x" / "oof.csv").set_index("id")
    assert sorted(oof.index) == sorted(train["id"])
    pd.testing.assert_frame_equal(oof, given.loc[oof.index])
    given = pd.read_csv(tmp_path / "theirs" / "x" / "test.csv").set_index("id")
    assert len(tests) == 3
    for part in tests:
        pd.testing.assert_frame_equal(part, given.loc[list(test["id"])])


def test_an_id_of_both_tables_has_a_prediction_in_each(tmp_path: Path) -> None:
    path = write_small(tmp_path, test=["id,SMILES", "a,CCCC", "b,CCBr"], sample=["id,y", "a,0", "b,0"])
    path.write_text(path.read_text().replace("kind: lightgbm", "kind: file\n    folder: x"))
    oof_lines = ["y,id", *(f"{i}.5,{name}" for i, name in enumerate("fedcba"))]
    write_files(tmp_path / "x", oof_lines, ["id,y", "b,-2", "a,-1"])
    oof, tests = run_all(path)
    assert oof["y"].to_dict() == {"a": 5.5, "b": 4.5, "c": 3.5, "d": 2.5, "e": 1.5, "f": 0.5}
    assert all(part["y"].to_dict() == {"a": -1.0, "b": -2.0} for part in tests)


def test_columns_have_the_names_of_the_submission(tmp_path: Path) -> None:
    path = write_small(tmp_path, sample=["id,score", "t1,0", "t2,0"], submission_columns=["score"])
    path.write_text(path.read_text().replace("kind: lightgbm", "kind: file\n    folder: x"))
    oof_lines = ["id,y,score", *(f"{name},99,{i}" for i, name in enumerate("abcdef"))]
    write_files(tmp_path / "x", oof_lines, ["id,score", "t1,1", "t2,2"])
    oof, tests = run_all(path)
    assert oof["y"].to_dict() == {name: float(i) for i, name in enumerate("abcdef")}
    assert tests[0]["y"].to_dict() == {"t1": 1.0, "t2": 2.0}


def test_the_key_is_that_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    train, test = mixed_tables()

    def key(folder: str) -> str:
        path = write_competition(tmp_path, train, test, stages={"x": {"kind": "file", "folder": folder}})
        return planned(path).keys["x"]

    write_theirs(tmp_path / "here", train, test, ["lumo", "mu"])
    before = key("here")
    names = {"submission_columns": ["mu", "lumo"]}  # the same files, read otherwise
    swapped = write_competition(
        tmp_path, train, test, stages={"x": {"kind": "file", "folder": "here"}}, competition=names
    )
    (tmp_path / "sample_submission.csv").write_text((tmp_path / "sample_submission.csv").read_text())
    assert planned(swapped).keys["x"] != before
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert key("there") == before
    for name in ("oof.csv", "test.csv"):
        text = (tmp_path / "there" / name).read_text()
        (tmp_path / "there" / name).write_text(text + "new,1,1\n")
        assert key("there") != before
        (tmp_path / "there" / name).write_text(text)


def test_a_job_needs_no_folder_of_theirs_once_it_is_finished(tmp_path: Path) -> None:
    write_files(tmp_path / "x", ["id,y", *(f"{name},1" for name in "abcdef")], ["id,y", "t1,1", "t2,2"])
    path = write_small(tmp_path)
    path.write_text(path.read_text().replace("kind: lightgbm", "kind: file\n    folder: x"))
    run_all(path)
    shutil.rmtree(tmp_path / "x")
    with pytest.raises(ConfigError, match=r"must be one with oof\.csv and test\.csv; there is no folder .*/x\."):
        planned(path)


def test_one_seed_and_no_transform_are_legal(tmp_path: Path) -> None:
    path = write_small(tmp_path)
    for settings, words in (
        ("seeds: [0, 1]", r"stages\.trees\.seeds: must name one seed.* \(found \[0, 1\]\)"),
        ("target_transform: log1p", r"stages\.trees\.target_transform: .*'none'"),
        ("extra_rows: train", r"stages\.trees\.extra_rows: .*'ignore'"),
    ):
        write_small(tmp_path)
        block = f"kind: file\n    folder: x\n    {settings}"
        path.write_text(path.read_text().replace("kind: lightgbm", block))
        with pytest.raises(ConfigError, match=words):
            load_stages(str(path))
    assert FileStage(kind="file", folder="x", seeds=[3]).seeds == [3]


IDS = ["a", "b", "c", "d", "e", "f"]
OURS = np.array([0, 0, 1, 1, 2, -1])


@pytest.mark.parametrize(
    ("theirs", "mark"),
    [
        ([0, 0, 1, 1, 2, 0], None),
        ([2, 2, 0, 0, 1, 1], None),  # other numbers, the same partition; fold -1 of ours is never scored
        (["x", "x ", "y", "y", "z", ""], None),
        ([0, 1, 0, 1, 2, 0], "other folds"),
        ([0, 0, 1, 1, 1, 1], "other folds"),  # two of ours are one there
        ([0, 0, 1, 2, 3, 3], "other folds"),  # one of ours is two there
        ([0, 0, 1, 1, "", 0], "unknown folds"),
    ],
)
def test_folds_are_compared_as_a_partition(theirs: list, mark: str | None, tmp_path: Path) -> None:
    lines = [f"{name},1,{fold}" for name, fold in zip(IDS, theirs, strict=True)]
    write_files(tmp_path, ["id,y,fold", *reversed(lines)], ["id,y"])
    assert fold_mark(tmp_path / "oof.csv", "id", ["y"], IDS, OURS) == mark


def test_without_a_column_fold_the_folds_are_unknown(tmp_path: Path) -> None:
    write_files(tmp_path, ["id,y", *(f"{name},1" for name in IDS)], ["id,y"])
    assert fold_mark(tmp_path / "oof.csv", "id", ["y"], IDS, OURS) == "unknown folds"
    write_files(tmp_path, ["id,fold", *(f"{name},1" for name in IDS)], ["id,fold"])
    assert fold_mark(tmp_path / "oof.csv", "id", ["fold"], IDS, OURS) == "unknown folds"  # it is the target


def test_rows_that_are_not_wanted_may_lack_a_prediction(tmp_path: Path) -> None:
    write_files(tmp_path, ["id,y", "a,1", "b,", "c,3"], ["id,y"])
    values = read_theirs(tmp_path / "oof.csv", "id", ["y"], ["c", "a"], {"a", "b", "c", "d"})
    assert values["y"].loc[["c", "a"]].tolist() == [3.0, 1.0]
    with pytest.raises(DataError, match=r"one is empty in row 3 \(id 'b'\)\. Fill"):
        read_theirs(tmp_path / "oof.csv", "id", ["y"], ["b"])


def columns_of(n: int = 200) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    labels = pd.DataFrame(rng.normal(size=(n, 2)) + [5, 50], columns=["p", "q"])
    oof = labels + rng.normal(size=(n, 2))
    return (
        oof.sample(frac=1, random_state=1),
        pd.DataFrame(rng.normal(size=(n, 2)) + [5, 50], columns=["p", "q"]),
        labels,
    )


def test_good_columns_raise_no_doubts_with_missing_labels_and_few_rows() -> None:
    oof, test, labels = columns_of()
    labels.loc[::3, "p"] = np.nan
    assert doubts(oof, test, labels) == []
    assert doubts(oof.iloc[:5] * 100, test, labels) == []
    mean = pd.DataFrame({"p": [5.0] * 200, "q": [50.0] * 200})
    assert doubts(mean, mean, labels) == []


def test_other_units_a_wrong_sign_and_swapped_columns_are_said() -> None:
    oof, test, labels = columns_of()
    units, _ = doubts(oof.assign(p=oof["p"] * 10), test.assign(p=test["p"] * 10), labels)
    assert units.startswith("p of oof.csv is 4")
    assert units.endswith("other units?")
    (sign,) = doubts(oof.assign(p=10 - oof["p"]), test, labels)
    assert sign.startswith("p of oof.csv runs against the labels (correlation -0.7")
    (other,) = doubts(oof, test.assign(q=np.log(test["q"])), labels)
    assert other.startswith("q of test.csv is not like that of oof.csv (median 3.9")
    (wide,) = doubts(oof, (test - [5, 50]) * 10 + [5, 50], labels.assign(q=np.nan))
    assert wide.startswith("p of test.csv is not like")
    alike = labels - [5, 50]
    crossed = oof.sub([5, 50]).rename(columns={"p": "q", "q": "p"})[["p", "q"]]
    assert doubts(crossed, test - [5, 50], alike) == [
        "p and q of oof.csv are each more like the labels of the other: swapped?"
    ]


def test_doubts_are_notes_of_the_job(tmp_path: Path) -> None:
    train, test = mixed_tables()
    scaled = train.assign(lumo=train["lumo"] * 1000)
    write_theirs(tmp_path / "x", scaled, test, ["lumo", "mu"])
    path = write_competition(tmp_path, train, test, stages={"x": {"kind": "file", "folder": "x"}})
    run_all(path)
    folder = planned(path).jobs[0].folder
    assert any(note.startswith("lumo of oof.csv is") for note in read_notes(folder))


def test_rows_without_any_input_column_are_each_their_own_unit(tmp_path: Path) -> None:
    train = ["id,y", *(f"{name},{i}" for i, name in enumerate("abcdef"))]
    path = write_small(tmp_path, train=train, test=["id", "a", "z"], sample=["id,y", "a,0", "z,0"], smiles=None)
    prepared = prepare(load_competition(str(path)))
    keys = [*prepared.train["__input"], *prepared.test["__input"]]
    assert len(set(keys)) == 8
    assert prepared.report["test_rows_whose_input_is_in_train"] == 0
    run_prepare(load_competition(str(path)), Paths("small"), path)
    make_folds(load_competition(str(path)), load_folds_config(str(path)), Paths("small"))
    assert sorted(read_folds(Paths("small").folds, list("abcdef"))) == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ConfigError, match="at least one input column must be named"):
        plan(load_competition(str(path)), load_stages(str(path)), Paths("small"))


def test_a_lacking_file_is_named(tmp_path: Path) -> None:
    write_files(tmp_path / "x", ["id,y"], ["id,y"])
    (tmp_path / "x" / "test.csv").unlink()
    with pytest.raises(ConfigError, match=r"x lacks test\.csv\. Correct the path"):
        files_of(FileStage(kind="file", folder=str(tmp_path / "x")))
