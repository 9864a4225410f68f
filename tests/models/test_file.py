"""Stage `file`: rows joined on id, the key of jobs, whose folds are compared and what looks wrong."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.errors import ConfigError, DataError
from competition.paths import Paths
from competition.prepare import run as run_prepare
from competition.task import Task
from folds.make import load_folds_config
from folds.make import run as make_folds
from models.config import FileStage, load_stages
from models.jobs.plan import plan
from models.notes import read_notes
from models.registry import build_stage
from models.stages.file import doubts, fold_mark, read_theirs
from tests.competition.small import write_small
from tests.models.made import context, rows


def write_files(folder: Path, oof: list[str], test: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "oof.csv").write_text("\n".join(oof) + "\n")
    (folder / "test.csv").write_text("\n".join(test) + "\n")
    return folder


def write_yaml(folder: Path, block: str, **competition: Any) -> Path:
    path = write_small(folder, **competition)
    path.write_text(path.read_text().replace("kind: lightgbm", block))
    return path


def test_a_job_hands_out_predictions_by_id_under_the_submissions_names_and_needs_the_folder_no_more(
    tmp_path: Path,
) -> None:
    """The id `a` stands in both tables."""
    theirs = write_files(tmp_path / "x", ["s,y,id", "3,9,c", "1,9,a", "2,9,b"], ["id,s", "d,-2", "a,-1"])
    config, job = FileStage(kind="file", folder=str(theirs)), tmp_path / "job"
    job.mkdir()
    told = replace(context(tmp_path), task=Task(["y"], ["s"]))
    build_stage(config, told).fit(rows([5.0, 6.0], x=[0, 0]), None, job)
    shutil.rmtree(theirs)
    for held_out, ids, expected in ((True, "bca", [2.0, 3.0, 1.0]), (False, "ad", [-1.0, -2.0])):
        stage = build_stage(config, replace(told, predicts_held_out=held_out))
        assert stage.predict(replace(rows(x=list(ids)), ids=list(ids)), job)[:, 0].tolist() == expected
    with pytest.raises(DataError, match=r"lacks predictions for 1 rows of the competition \('e'\)"):
        stage.predict(replace(rows(x=["e"]), ids=["e"]), job)


def test_the_key_is_that_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    oof, test = ["id,y,z", *(f"{name},1,{i}" for i, name in enumerate("abcdef"))], ["id,y,z", "t1,1,2", "t2,2,1"]

    def key(folder: str, **named: Any) -> str:
        path = write_yaml(tmp_path, f"kind: file\n    folder: {folder}", **named)
        config, paths = load_competition(str(path)), Paths.of(str(path))
        run_prepare(config, paths, path)
        make_folds(config, load_folds_config(str(path)), paths)
        return plan(config, load_stages(str(path)), paths).keys["trees"]

    write_files(tmp_path / "here", oof, test)
    before = key("here")
    assert key("here", sample=["id,z", "t1,0", "t2,0"], submission_columns=["z"]) != before  # read otherwise
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert key("there") == before
    for changed in ((oof[:-1], test), (oof, [*test, "new,1,1"])):
        write_files(tmp_path / "there", *changed)
        assert key("there") != before
    (tmp_path / "there" / "test.csv").unlink()
    with pytest.raises(ConfigError, match=r"needs oof\.csv and test\.csv; there is no .*there/test\.csv\. Correct"):
        key("there")


@pytest.mark.parametrize("setting", ["seeds: [0, 1]", "target_transform: log1p", "extra_rows: train"])
def test_one_seed_no_transform_and_no_extra_rows_are_legal(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"stages\.trees\.{setting.split(':')[0]}: "):
        load_stages(str(write_yaml(tmp_path, f"kind: file\n    folder: x\n    {setting}")))


IDS = ["a", "b", "c", "d", "e", "f"]


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
    ours = np.array([0, 0, 1, 1, 2, -1])
    assert fold_mark(tmp_path / "oof.csv", "id", ["y"], IDS, ours) == mark
    assert fold_mark(tmp_path / "oof.csv", "id", ["fold"], IDS, ours) == "unknown folds"  # it is a prediction
    write_files(tmp_path, ["id,y", *(f"{name},1" for name in IDS)], ["id"])
    assert fold_mark(tmp_path / "oof.csv", "id", ["y"], IDS, ours) == "unknown folds"


def test_rows_that_are_not_wanted_may_lack_a_prediction_and_foreign_ones_are_named(tmp_path: Path) -> None:
    oof = write_files(tmp_path, ["id,y", "a,1", "b,", "c,3"], ["id,y"]) / "oof.csv"
    assert read_theirs(oof, "id", ["y"], ["c", "a"], {"a", "b", "c", "d"})["y"].loc[["c", "a"]].tolist() == [3.0, 1.0]
    with pytest.raises(DataError, match=r"lacks .* for 2 rows .* \('b', 'd'\) and has 1 rows .* not have \('c'\)"):
        read_theirs(oof, "id", ["y"], ["b", "d"], {"a", "b", "d"})


def test_test_predictions_in_other_units_than_the_oof_ones_are_said_and_noted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    oof, test = (pd.DataFrame(rng.normal(size=(50, 2)) + [5, 50], columns=["p", "q"]) for _ in range(2))
    one = np.ones(2)
    assert doubts(oof, test, one) == []
    assert doubts(oof.iloc[:5] * 100, test, one) == []
    for changed, said in (
        (test.assign(q=np.log(test["q"])), "q of test.csv is not like that of oof.csv (median 3.9"),
        (test.assign(p=(test["p"] - 5) * 10 + 5), "p of test.csv is not like"),
    ):
        assert [each.startswith(said) for each in doubts(oof, changed, one)] == [True]
    lines = [f"r{i},{value}" for i, value in enumerate(oof["p"])]
    files = write_files(tmp_path, ["id,y", *lines], ["id,y", *(f"{line}e3" for line in lines)])
    stage = build_stage(FileStage(kind="file", folder=str(files)), context(tmp_path))
    stage.fit(rows(oof["p"], x=range(50)), None, tmp_path)
    assert read_notes(tmp_path)[0].startswith("y of test.csv is not like")
