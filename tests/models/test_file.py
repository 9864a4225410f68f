"""Stage `file`: rows joined on id, the key of jobs, whose folds are compared and what looks wrong."""

import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from competition.task import Task
from core.errors import DataError
from models.job_folder import read_notes
from models.stages.file import File, fold_mark
from tests.conftest import mixed_tables
from tests.models.external_predictions import write_external_predictions
from tests.models.jobs.common import planned
from tests.models.made import build_stage, context, fitted, rows


def write_files(folder, oof, test):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "oof.csv").write_text("\n".join(oof) + "\n")
    (folder / "test.csv").write_text("\n".join(test) + "\n")
    return folder


@pytest.mark.parametrize(
    ("predicts_held_out", "ids", "expected"), [(True, "bca", [2.0, 3.0, 1.0]), (False, "ad", [-1.0, -2.0])]
)
def test_a_job_hands_out_predictions_by_id_under_submission_names_and_needs_the_folder_no_more(
    predicts_held_out, ids, expected, tmp_path
):
    """The id `a` stands in both tables."""
    external = write_files(tmp_path / "x", ["s,y,id", "3,9,c", "1,9,a", "2,9,b"], ["id,s", "d,-2", "a,-1"])
    stage_context = context(tmp_path, task=Task(["y"], ["s"]), predicts_held_out=predicts_held_out)
    stage = build_stage(File(kind="file", folder=str(external)), stage_context)
    stage.fit(rows([5.0, 6.0], x=[0, 0]), tmp_path)
    shutil.rmtree(external)
    assert stage.predict(replace(rows(x=list(ids)), ids=list(ids)), tmp_path)[:, 0].tolist() == expected


def test_the_key_is_that_of_the_content_of_both_files(tmp_path):
    def key():
        return planned(tmp_path, stages={"theirs": {"kind": "file", "folder": "x"}}).keys["theirs"]

    external = write_external_predictions(tmp_path / "x", *mixed_tables(), ["lumo", "mu"])
    before = key()
    for file in (external / "oof.csv", external / "test.csv"):
        content = file.read_text()
        file.write_text(content + "new,1,1\n")
        assert key() != before
        file.write_text(content)
    assert key() == before


@pytest.mark.parametrize(
    ("folds_of_file", "mark"),
    [
        ([2, 2, 0, 0, 1, 1], None),  # other numbers, the same partition; fold -1 of ours is never scored
        (["x", "x ", "y", "y", "z", ""], None),
        ([0, 0, 1, 1, 1, 1], "other folds"),  # two of ours are one there
        ([0, 0, 1, 2, 3, 3], "other folds"),  # one of ours is two there
        ([0, 0, 1, 1, "", 0], "unknown folds"),
        ([""] * 6, "unknown folds"),
    ],
)
def test_folds_are_compared_as_a_partition(folds_of_file, mark, tmp_path):
    lines = [f"{name},1,{fold}" for name, fold in zip("abcdef", folds_of_file, strict=True)]
    write_files(tmp_path, ["id,y,fold", *reversed(lines)], ["id,y"])
    folds = np.array([0, 0, 1, 1, 2, -1])
    assert fold_mark(tmp_path / "oof.csv", "id", list("abcdef"), folds) == mark


@pytest.mark.parametrize(("factor", "is_noted"), [(-1, False), (10, True)])
def test_test_predictions_in_other_units_than_the_oof_ones_are_noted(factor, is_noted, tmp_path):
    y = np.random.default_rng(0).normal(size=50)
    oof, test = (["id,y", *(f"r{i},{value}" for i, value in enumerate(values))] for values in (y, factor * y))
    config = File(kind="file", folder=str(write_files(tmp_path, oof, test)))
    fitted(config, context(tmp_path), rows(y, x=range(50)), tmp_path / "job")
    starts = [note[:26] for note in read_notes(tmp_path / "job")]
    assert starts == ["y of test.csv differs from"] * is_noted


OF_CLASSES = Task(["y"], ["p_low", "p_mid", "p_top"], "multiclass", ["low", "mid", "top"])
BINARY = Task(["y"], ["no", "yes"], "binary", ["a", "b"])


@pytest.mark.parametrize(
    ("task", "header", "line", "expected"),
    [
        (OF_CLASSES, "y=top,id,y=low,y=mid", "0.1,a,0.2,0.7", [0.2, 0.7, 0.1]),  # whatever their order
        (OF_CLASSES, "id,p_top,p_mid,p_low", "a,0.1,0.7,0.2", [0.2, 0.7, 0.1]),
        (OF_CLASSES, "id,y=low,y=mid,y=top", "a,0.2,0.7,0.2", r"oof\.csv: row 2 \(id 'a'\) has no prob"),
        (OF_CLASSES, "id,y=low,y=mid", "a,0.3,0.7", "missing columns: y=top"),
        (Task(["y"], ["label"], "binary", ["0", "1"]), "y,id", "0.3,a", [0.3]),
        (BINARY, "yes,id,no", "0.3,a,0.7", [0.3]),
        (BINARY, "id,y=a,y=b", "a,0.7,0.3", [0.3]),
        (BINARY, "id,y", "a,-0.1", r"row 2 .*no probabilities in"),
        (Task(["y"], None, "ordinal", ["1", "2", "3"]), "id,y", "a,2.5", [1.5]),  # in the grades' own units
        (Task(["y"], None, "ordinal", ["0", "2", "6"]), "id,y", "a,4", [1.5]),
        (Task(["y"], None, "ordinal", ["3", "2", "1"]), "id,y", "a,2.5", [0.5]),
        (Task(["y"], None, "ordinal", ["low", "mid"]), "id,y", "a,0.5", [0.5]),
    ],
)
def test_classes_are_joined_by_name_and_what_is_no_probability_is_refused_with_its_row(
    task, header, line, expected, tmp_path
):
    config = File(kind="file", folder=str(write_files(tmp_path / "x", [header, line], [header, line])))
    stage = build_stage(config, context(tmp_path, task=task))
    with pytest.raises(DataError, match=expected) if isinstance(expected, str) else nullcontext():
        stage.fit(rows([0.0, 1.0], x=[0, 0]), tmp_path)
        y_pred = stage.predict(replace(rows(x=["a"]), ids=["a"]), tmp_path)
        assert y_pred[0].tolist() == pytest.approx(expected)
