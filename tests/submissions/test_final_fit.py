"""Refits, pseudo-labels and the spread of a submission, from finished jobs to files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from competition.config import load_competition
from competition.errors import ConfigError
from competition.files import read_table, read_text_table, write_table
from competition.paths import Paths
from competition.prepare import run as prepare
from folds.make import load_folds_config
from folds.make import run as make_folds
from models.config import load_stages
from models.jobs.plan import plan
from models.jobs.predictions import read_predictions
from models.jobs.train import train
from submissions import blend, write
from submissions.config import load_config
from submissions.predict import predict
from submissions.run import open_run
from tests.submissions.fakes import TARGETS, fake_competition, prepare_and_fake_jobs

SMALL = {"kind": "lightgbm", "max_trees": 15}


def test_a_refitted_and_a_pseudo_labelled_stage_predict_new_rows_as_they_predicted_the_test_table(
    tmp_path: Path,
) -> None:
    """By saved weights alone: the folds of a stage that was refitted are gone, and so are labels and source."""
    stages = {
        "b": {**SMALL, "num_leaves": 4, "final_fit": "both", "pseudo_labels": {"of": ["a"]}},
        "a": {**SMALL, "final_fit": "refit"},
    }
    path = fake_competition(tmp_path, stages=stages, submissions={"stack": False, "default": "mean"})
    config, paths = load_competition(str(path)), Paths.of(str(path))
    prepare(config, paths, path)
    make_folds(config, load_folds_config(str(path)), paths)
    todo = plan(config, load_stages(str(path)), paths)
    train(config, paths, todo, 2)
    run = open_run(str(path))
    blend.blend(run)
    write.write(run)
    marks = {stage["name"]: stage["marks"] for stage in run.stored["stages"]}
    assert marks == {"a": ["refit"], "b": ["pseudo-labels", "refit"]}

    for job in run.plan.of("a")[:-1]:
        shutil.rmtree(job.folder)
    for table in (paths.train, paths.folds, tmp_path / "train.csv"):
        table.unlink()
    rows = read_text_table(tmp_path / "test.csv").iloc[:7:2]
    write_table(tmp_path / "new.csv", rows)
    new = read_table(predict(str(path), tmp_path / "new.csv", 1), ["id"])
    written = read_table(run.folder / "submission.csv", ["id"]).set_index("id").loc[list(rows["id"])]
    np.testing.assert_allclose(new[TARGETS], written[TARGETS], rtol=1e-6)


def test_the_spread_is_the_standard_deviation_over_submissions_of_one_model_per_stage(tmp_path: Path) -> None:
    """`good` has two seeds and `fair` one, three folds: six members, `fair` twice in each of its folds."""
    stages = {
        "good": {"kind": "lightgbm", "num_leaves": 4, "seeds": [0, 1], "final_fit": "both"},
        "fair": {"kind": "lightgbm", "num_leaves": 5},
    }
    path = fake_competition(tmp_path, stages=stages, submissions={"stack": False, "default": "mean", "margin": 1e6})
    prepare_and_fake_jobs(path)
    run = open_run(str(path))
    blend.blend(run)
    write.write(run)
    ids = run.columns.test_ids
    of = {
        (job.stage, job.seed, job.fold): read_predictions(job.test_file(run.plan.test_key), ids, TARGETS)
        for job in run.plan.jobs
    }
    members = [(of["good", seed, fold] + of["fair", 0, fold]) / 2 for seed in (0, 1) for fold in range(3)]
    table = read_table(run.folder / "spread.csv", ["id"])
    assert list(table.columns) == ["id", *TARGETS]
    assert list(table["id"]) == ids
    np.testing.assert_allclose(table[TARGETS], np.std(members, axis=0, ddof=1), rtol=1e-9)


def test_dropped_test_rows_have_no_spread(tmp_path: Path) -> None:
    texts = {"text": ["x"], "numeric": ["z"], "unparsable": "drop"}
    path = fake_competition(tmp_path, competition=texts, submissions={"stack": False})
    test = read_text_table(tmp_path / "test.csv")
    write_table(tmp_path / "test.csv", test.assign(x=test["x"].where(test.index != 4, "")))
    prepare_and_fake_jobs(path)
    run = open_run(str(path))
    blend.blend(run)
    write.write(run)
    assert set(test["id"]) - set(read_table(run.folder / "spread.csv", ["id"])["id"]) == {test["id"][4]}


def test_a_whole_yaml_with_a_source_that_cannot_label_is_refused(tmp_path: Path) -> None:
    path = fake_competition(tmp_path, stages={"b": {**SMALL, "pseudo_labels": {"of": ["a"]}}})
    with pytest.raises(ConfigError, match=r"stages\.b\.pseudo_labels\.of"):
        load_config(str(path))
