"""From finished jobs to the submission: one run, the same bytes however its steps are run, and no file that does not
fit."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.errors import DataError
from competition.files import read_table, read_text_table, write_table
from competition.paths import Paths
from models.jobs.folder import write_report
from submissions import stack as stack_step
from submissions import write as write_step
from submissions.blend import __main__ as blend_step
from submissions.blend.__main__ import blend
from submissions.blend.candidates import ALWAYS
from submissions.config import load_config
from submissions.fitted import candidate_of, submission_of
from submissions.predict import predict
from submissions.run import code_of_user, latest_run, open_run, require_same_code
from submissions.sample import check_submission
from submissions.write import write
from tests.submissions.fakes import (
    TARGETS,
    fake_competition,
    opened,
    prepare_and_fake_jobs,
    run_steps,
    submitted,
    train_all,
)

STEPS = (blend_step, stack_step, write_step)
SUBMISSIONS = ["blend.csv", "stack.csv", "submission.csv"]
NO_FEATURES = np.empty((30, 0))
TREES = {"kind": "lightgbm"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_three_files_fit_the_sample_and_the_chosen_one_is_the_submission(done: Path) -> None:
    run = open_run(str(done))
    sample = read_table(run.paths.sample)
    for name in SUBMISSIONS:
        check_submission(run.folder / name, sample, "id")
    assert (run.folder / "submission.csv").read_bytes() == (run.folder / "blend.csv").read_bytes()
    assert run.paths.latest_run.read_text() == f"{run.name}\n"
    answers = pd.read_csv(done.parent / "answers.csv", dtype={"id": str}).set_index("id").loc[run.columns.test_ids]
    assert np.corrcoef(submitted(run)[:, 0], answers["height"])[0, 1] > 0.9  # joined on id, not on position


def test_every_column_is_that_of_its_stage_joined_on_id(done: Path) -> None:
    run = open_run(str(done))
    columns = run.columns
    assert columns.names == ["fair", "good", "poor"]
    for j, stage in enumerate(columns.names):
        jobs = run.plan.of(stage)
        oof = pd.concat([pd.read_parquet(job.oof_file) for job in jobs]).set_index("id")
        np.testing.assert_array_equal(columns.oof[:, j], oof.loc[columns.ids, TARGETS].to_numpy())
        tests = [pd.read_parquet(job.test_file(run.plan.test_key)).set_index("id") for job in jobs]
        mean = np.mean([table.loc[columns.test_ids, TARGETS] for table in tests], axis=0)
        np.testing.assert_allclose(columns.test[:, j], mean, rtol=1e-12)
    labels = read_table(run.paths.train).set_index("id").loc[columns.ids, TARGETS].to_numpy()
    np.testing.assert_array_equal(columns.y, labels)
    assert np.isnan(columns.y).any()  # a missing label stays missing
    weights = run.weights["height"]
    assert weights["good"] > weights["fair"] > weights["poor"]


def test_a_stored_run_predicts_without_any_table_and_a_notebook_reads_its_columns(done: Path) -> None:
    columns = open_run(str(done)).columns
    for folder in ("prepared", "folds"):
        shutil.rmtree(Paths.of(str(done)).root / folder)
    run = latest_run(str(done))
    assert list(run.candidates) == [*ALWAYS, "lightgbm_stack", "ridge_stack"]  # from simple to complex
    y_pred = submission_of(run)(columns.test, columns.test_inputs, NO_FEATURES)
    files = [read_table(run.folder / f"{n}.csv", ["id"]).set_index("id") for n in ("submission", "stack")]
    written, stacked = (table.loc[columns.test_ids, TARGETS].to_numpy() for table in files)
    np.testing.assert_allclose(y_pred, written, rtol=1e-6)
    again = candidate_of(run, run.part("stack")["chosen"])(columns.test, NO_FEATURES)
    np.testing.assert_allclose(again, stacked, rtol=1e-6)

    table = run.oof_table()
    assert list(table.columns) == ["id", "fold", *TARGETS, *(f"{s} {t}" for s in columns.names for t in TARGETS)]
    assert list(table["id"]) == columns.ids
    np.testing.assert_array_equal(table["fold"], columns.folds)
    np.testing.assert_array_equal(table[TARGETS], columns.y)
    np.testing.assert_array_equal(table["good depth"], columns.oof[:, 1, 1])


def test_a_second_run_fits_nothing_and_one_that_was_killed_goes_on_to_the_same_bytes(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(open_run(str(done)).folder)
    run = run_steps(done)
    before = contents(run.folder)
    with monkeypatch.context() as patch:
        for step, name in ((blend_step, "cross_fit"), (stack_step, "cross_fit"), (write_step, "compare")):
            patch.delattr(step, name)
        assert contents(run_steps(done).folder) == before
    monkeypatch.setattr(sys, "argv", ["", str(done)])
    (run.folder / "blend.csv").write_text("id,height,depth\n")  # edited
    for lost in ("run.json", "cross_fitted/mean.parquet", "submission.csv"):
        (run.folder / lost).unlink()
        for step in STEPS:
            step.main()
        assert contents(run.folder) == before, lost


def test_new_predictions_under_the_same_keys_are_noticed(done: Path) -> None:
    before = open_run(str(done))
    job = before.plan.jobs[0]
    table = pd.read_parquet(job.oof_file)
    table.assign(height=table["height"] + 0.5).to_parquet(job.oof_file)
    with pytest.raises(DataError, match=r"oof\.parquet is not as its job wrote it; delete"):
        open_run(str(done))
    write_report(job.folder, {"seconds": 1.5})  # trained again
    after = open_run(str(done))
    with pytest.raises(DataError, match="was made from other predictions or other code"):
        write(after)
    blend(after)
    assert after.name == before.name
    assert after.made_from != before.made_from


def test_the_name_of_a_run_follows_settings_and_not_places_or_the_order_of_stages(done: Path, tmp_path: Path) -> None:
    run = open_run(str(done))
    before = {name: (run.folder / name).read_bytes() for name in SUBMISSIONS}
    reordered = {stage: {**TREES, "num_leaves": leaves} for stage, leaves in (("poor", 6), ("good", 4), ("fair", 5))}
    shutil.rmtree(run.folder)
    again = run_steps(fake_competition(tmp_path / "moved", stages=reordered))
    assert {name: (again.folder / name).read_bytes() for name in SUBMISSIONS} == before
    for same, settings in (
        (True, {"competition": {"answers": None}}),
        (False, {"submissions": {"trials": 41}}),
        (False, {"submissions": {"weights": "shared"}}),
    ):
        assert (open_run(str(fake_competition(tmp_path, **settings))).name == run.name) is same


def test_unfinished_jobs_and_skipped_steps_are_named(done: Path) -> None:
    run = open_run(str(done))
    shutil.rmtree(run.folder)
    blend(run)
    with pytest.raises(DataError, match="the step stack has not run"):
        write(run)
    (run.plan.jobs[0].folder / "report.json").unlink()
    with pytest.raises(DataError, match=r"is not finished\. Run \./run\.sh train"):
        open_run(str(done))


def test_dropped_rows_get_the_mean_of_the_labels_and_columns_stand_in_the_order_of_the_sample(tmp_path: Path) -> None:
    texts = {"text": ["x"], "numeric": ["z"], "unparsable": "drop", "submission_columns": ["H", "D"]}
    path = fake_competition(tmp_path, competition=texts, submissions={"stack": False})
    test = read_text_table(tmp_path / "test.csv")
    write_table(tmp_path / "test.csv", test.assign(x=test["x"].where(test.index != 4, "")))
    sample = read_text_table(tmp_path / "sample_submission.csv").rename(columns={"height": "H", "depth": "D"})
    write_table(tmp_path / "sample_submission.csv", sample[["D", "id", "H"]].iloc[::-1])
    prepare_and_fake_jobs(path)
    run = open_run(str(path))
    blend(run)
    _, filled = write(run)
    assert filled == 1
    table = read_table(run.folder / "submission.csv", ["id"])
    assert list(table.columns) == ["D", "id", "H"] == run.stored["sample_columns"]
    assert list(table["id"]) == list(sample["id"])[::-1]
    assert table["H"].mean() > 5 > table["D"].mean()
    means = read_table(run.paths.train)[TARGETS].mean().tolist()
    assert table.set_index("id").loc[test["id"][4], ["H", "D"]].tolist() == pytest.approx(means, rel=1e-6)
    assert set(test["id"]) - set(read_table(run.folder / "spread.csv", ["id"])["id"]) == {test["id"][4]}


@pytest.mark.parametrize("kind", ["group", "kfold"])
def test_the_bootstrap_draws_what_shares_a_fold(tmp_path: Path, kind: str) -> None:
    roles = {"numeric": ["x"], "group": "z", "metric": "mae"}
    path = fake_competition(tmp_path, folds={"kind": kind, "n_folds": 4}, competition=roles)
    table = read_text_table(tmp_path / "train.csv")
    table["z"] = [str(i % 10) for i in range(len(table))]
    table.loc[1, "x"] = table.loc[0, "x"]
    write_table(tmp_path / "train.csv", table)
    prepare_and_fake_jobs(path)
    groups = open_run(str(path)).columns.groups
    assert len(set(groups)) == (9 if kind == "group" else 149)  # the equal input ties two of ten groups together


# What stages did, and what is left out


def test_what_a_reader_has_to_know_of_a_stage_is_marked(done: Path) -> None:
    saw = {"kind": "bert", "pretrain_epochs": 1, "pretrain_on": "all_inputs"}
    shutil.rmtree(done.parent / "work")
    run = opened(done.parent, stages={"good": TREES, "fair": saw, "poor": {**TREES, "final_fit": "refit"}})
    other = [replace(job, other_code=job.stage == "good") for job in run.plan.jobs]
    blend(replace(run, plan=replace(run.plan, jobs=other)))
    marks = {stage["name"]: stage["marks"] for stage in run.stored["stages"]}
    assert marks == {"good": ["other code"], "fair": ["saw test inputs"], "poor": ["refit"]}


def test_code_of_the_user_that_has_changed_since_the_run_predicts_nothing(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text("def fit(P, y, metric, folds, weights): ...\n")
    config = load_config(str(fake_competition(tmp_path, submissions={"candidates": [f"{own}:fit"]})))
    stored = {"user_code": code_of_user(config)}
    require_same_code(config, stored)
    own.write_text("def fit(P, y, metric, folds): ...\n")
    with pytest.raises(DataError, match=r"code of mine\.py has changed since the run"):
        require_same_code(config, stored)


def test_a_refitted_and_a_pseudo_labelled_stage_predict_new_rows_as_they_predicted_the_test_table(
    tmp_path: Path,
) -> None:
    """By saved weights alone: the folds of a stage that was refitted are gone, and so are labels and source."""
    small = {**TREES, "max_trees": 15}
    stages = {
        "b": {**small, "num_leaves": 4, "final_fit": "both", "pseudo_labels": {"of": ["a"]}},
        "a": {**small, "final_fit": "refit"},
    }
    path = fake_competition(tmp_path, stages=stages, submissions={"stack": False, "default": "mean"})
    train_all(path)
    run, paths = run_steps(path), Paths.of(str(path))
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


def test_a_budget_leaves_out_unfinished_stages_and_seeds_and_the_run_is_that_of_a_yaml_without_them(
    tmp_path: Path,
) -> None:
    stages = {"fair": {**TREES, "seeds": [3, 1, 2]}, "good": {**TREES, "final_fit": "refit"}, "poor": TREES}
    whole = opened(tmp_path, 60, stages=stages)
    for lost in (whole.plan.of("fair")[4], whole.plan.of("good")[-1]):
        (lost.folder / "report.json").unlink()
    whole.plan.of("poor")[0].test_file(whole.plan.test_key).unlink()
    run, within = open_run(str(tmp_path / "mixed.yaml"), budget=7200), "finished within the budget of 2 h; left out"
    assert run.left_out == (
        f"fair, seed 2: 2 of 3 jobs {within}", f"good: 3 of 4 jobs {within}", f"poor: 2 of 3 jobs {within}",
    )  # fmt: skip
    blend(run)
    assert list(run.stored["config"]["stages"]) == run.columns.names == ["fair"]
    of_two_seeds = open_run(str(fake_competition(tmp_path, 60, stages={"fair": {**TREES, "seeds": [3, 1]}})))
    assert (run.name, run.made_from) == (of_two_seeds.name, of_two_seeds.made_from)
    assert whole.name != run.name
