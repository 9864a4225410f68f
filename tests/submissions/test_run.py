"""From finished jobs to the submission: one run, the same bytes however its steps are run, and no file that
does not fit.
"""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from competition.task import Task
from core.errors import DataError, SubmissionError
from core.files import read_table, read_text_table, write_table
from core.paths import Paths
from models.jobs.job_files import write_report
from pipeline import commands
from submissions import build as build_step
from submissions.blend.candidates import ALWAYS
from submissions.build import build_submission
from submissions.predict import load_candidate, predict
from submissions.run import BUDGET_ADVICE, LeftOut, describe_left_out, latest_run
from submissions.submission_file import check_submission, write_submission
from tests.submissions.fakes import (
    TARGETS,
    built,
    fake_competition,
    opened,
    prepare_and_fake_jobs,
    run_of,
    train_all,
)

SUBMISSIONS = ["candidates/mean.csv", "candidates/shrunk_ridge.csv", "submission.csv"]
TREES = {"kind": "lightgbm"}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def by_id(file: Path) -> pd.DataFrame:
    return read_table(file, ["id"]).set_index("id")


def marks_of(run: object) -> dict[str, list[str]]:
    return {stage["name"]: stage["marks"] for stage in run.stored["stages"]}


def test_all_columns_and_submissions_are_joined_on_id(done: Path) -> None:
    run = run_of(done)
    stage_preds, paths = run.columns, run.paths
    for name in SUBMISSIONS:
        check_submission(run.folder / name, read_table(paths.sample), "id", run.task)
    chosen = run.folder / "candidates" / f"{run.chosen}.csv"
    assert (run.folder / "submission.csv").read_bytes() == chosen.read_bytes()
    assert paths.latest_run.read_text() == f"{run.name}\n"
    answers = by_id(done.parent / "answers.csv").loc[stage_preds.test_ids]
    assert by_id(run.folder / "submission.csv")["height"].corr(answers["height"]) > 0.9

    assert sorted(stage_preds.names) == ["fair", "good", "poor"]
    for j, stage in enumerate(stage_preds.names):
        jobs = run.plan.jobs_of_stage(stage)
        oof = pd.concat([by_id(job.oof_file) for job in jobs])
        np.testing.assert_array_equal(stage_preds.preds[:, j], oof.loc[stage_preds.ids, TARGETS])
        mean = np.mean(
            [by_id(job.test_file(run.plan.test_key)).loc[stage_preds.test_ids] for job in jobs], axis=0
        )
        np.testing.assert_allclose(stage_preds.test[:, j], mean, rtol=1e-12)
    np.testing.assert_array_equal(stage_preds.y, by_id(paths.train).loc[stage_preds.ids, TARGETS])
    assert np.isnan(stage_preds.y).any()  # a missing label stays missing
    weights = run.weights["height"]
    assert weights["good"] > weights["fair"] > weights["poor"]


def test_each_stage_alone_has_a_submission(done: Path) -> None:
    run = run_of(done)
    for j, stage in enumerate(run.columns.names):
        written = by_id(run.folder / "stages" / f"{stage}.csv").loc[run.columns.test_ids, TARGETS]
        np.testing.assert_allclose(written, run.columns.test[:, j], rtol=1e-6)


def test_a_stored_run_predicts_without_any_table_and_a_notebook_reads_its_columns(done: Path) -> None:
    stage_preds = run_of(done).columns
    for folder in ("prepared", "folds"):
        shutil.rmtree(Paths.for_competition(str(done)).root / folder)
    run = latest_run(str(done))
    assert list(run.candidates) == [*ALWAYS, "shrunk_ridge"]  # from simple to complex
    for name in ("mean", "shrunk_ridge"):
        predicted = load_candidate(run, name).predict(stage_preds.test)
        written = by_id(run.folder / "candidates" / f"{name}.csv").loc[stage_preds.test_ids, TARGETS]
        np.testing.assert_allclose(predicted, written, rtol=1e-6)

    table = run.oof_table()
    assert list(table.columns) == [
        "id",
        "fold",
        *TARGETS,
        *(f"{s} {t}" for s in stage_preds.names for t in TARGETS),
    ]
    assert list(table["id"]) == stage_preds.ids
    np.testing.assert_array_equal(table["fold"], stage_preds.folds)
    np.testing.assert_array_equal(table[TARGETS], stage_preds.y)
    np.testing.assert_array_equal(table["good depth"], stage_preds.stage_oof("good")[:, 1])


def test_a_run_is_reused_while_nothing_changes_and_rebuilt_with_the_same_bytes_where_a_file_has(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run_of(done).folder)
    run = built(done)
    before = contents(run.folder)
    with monkeypatch.context() as patch:
        patch.delattr(build_step, "select_candidate")
        assert contents(built(done).folder) == before
    for lost in ("run.json", "candidates/mean.json", "submission.csv"):
        (run.folder / "spread.csv").write_text("id,height,depth\n")  # edited
        (run.folder / lost).unlink()
        assert contents(built(done).folder) == before, lost


def test_a_build_that_is_interrupted_leaves_no_file_and_the_run_before_as_it_was(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(done)
    before = contents(run.paths.latest_run.parent)
    path = fake_competition(done.parent, submissions={"trials": 3})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build_step, "_write_manifest", Mock(side_effect=KeyboardInterrupt))
        built(path)
    assert contents(run.paths.latest_run.parent) == before
    assert latest_run(str(path)).name == run.name


def test_an_interim_submission_has_no_stack_and_is_no_run(
    done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(done)
    latest, path = run.paths.latest_run.read_text(), fake_competition(done.parent, submissions={"trials": 3})
    new = pickle.loads(pickle.dumps(run_of(path)))  # as a worker gets it
    build_submission(new, interim=True)
    so_far = run.paths.root / "submissions" / "so_far"
    assert not (so_far / "candidates" / "lightgbm_stack.csv").exists()
    check_submission(so_far / "submission.csv", read_table(run.paths.sample), "id", run.task)
    assert run.paths.latest_run.read_text() == latest
    assert run.paths.submission.read_bytes() == (run.folder / "submission.csv").read_bytes()
    commands.main(["compare", str(path)])
    assert "so_far" not in capsys.readouterr().out
    build_submission(new)
    assert not so_far.exists()
    assert run.paths.latest_run.read_text() != latest
    assert run.paths.submission.read_bytes() == (new.folder / "submission.csv").read_bytes()


def test_new_predictions_and_unfinished_jobs_are_noticed(done: Path) -> None:
    before = run_of(done)
    job = before.plan.jobs[0]
    table = pd.read_parquet(job.oof_file)
    table.assign(height=table["height"] + 0.5).to_parquet(job.oof_file)
    with pytest.raises(DataError, match=r"oof\.parquet is missing or has changed; delete"):
        run_of(done)
    write_report(job.folder, {"seconds": 1.5})  # trained again, under the same key
    after = run_of(done)
    assert after.name == before.name
    assert before.is_built and not after.is_built
    build_submission(after)
    assert after.is_built and not before.is_built
    (job.folder / "report.json").unlink()
    with pytest.raises(DataError, match=r"is not finished, .* Run \./run\.sh train"):
        run_of(done)


def test_the_name_of_a_run_follows_settings_and_not_places_or_the_order_of_stages(
    done: Path, tmp_path: Path
) -> None:
    run = run_of(done)
    before = {name: (run.folder / name).read_bytes() for name in SUBMISSIONS}
    reordered = {
        stage: {**TREES, "parameters": {"num_leaves": leaves}}
        for stage, leaves in (("poor", 6), ("good", 4), ("fair", 5))
    }
    shutil.rmtree(run.folder)
    second_run = built(fake_competition(tmp_path / "moved", stages=reordered))
    assert {name: (second_run.folder / name).read_bytes() for name in SUBMISSIONS} == before
    assert run_of(fake_competition(tmp_path, competition={"answers": None})).name == run.name
    assert run_of(fake_competition(tmp_path, submissions={"trials": 41})).name != run.name


def test_dropped_rows_get_the_mean_of_the_labels_and_columns_stand_in_the_order_of_the_sample(
    tmp_path: Path,
) -> None:
    texts = {"text": ["x"], "numeric": ["z"], "unparsable": "drop", "submission_columns": ["H", "D"]}
    path = fake_competition(tmp_path, competition=texts, submissions={"stack": False})
    test = read_text_table(tmp_path / "test.csv")
    write_table(tmp_path / "test.csv", test.assign(x=test["x"].where(test.index != 4, "")))
    sample = read_text_table(tmp_path / "sample_submission.csv").rename(columns={"height": "H", "depth": "D"})
    write_table(tmp_path / "sample_submission.csv", sample[["D", "id", "H"]].iloc[::-1])
    prepare_and_fake_jobs(path)
    run = built(path)
    table = read_table(run.folder / "submission.csv", ["id"])
    assert list(table.columns) == ["D", "id", "H"] == run.stored["sample_columns"]
    assert list(table["id"]) == list(sample["id"])[::-1]
    assert table["H"].mean() > 5 > table["D"].mean()
    means = read_table(run.paths.train)[TARGETS].mean().tolist()
    assert table.set_index("id").loc[test["id"][4], ["H", "D"]].tolist() == pytest.approx(means, rel=1e-6)
    assert set(test["id"]) - set(by_id(run.folder / "spread.csv").index) == {test["id"][4]}


def test_the_bootstrap_draws_what_shares_a_fold(tmp_path: Path) -> None:
    path = fake_competition(tmp_path, folds={"kind": "group"}, competition={"numeric": ["x"], "group": "z"})
    table = read_text_table(tmp_path / "train.csv").assign(z=[str(i % 10) for i in range(150)])
    table.loc[3, "x"] = table.loc[2, "x"]  # an equal input ties two of ten groups together
    write_table(tmp_path / "train.csv", table)
    prepare_and_fake_jobs(path)
    assert len(set(run_of(path).columns.groups)) == 9


# What stages did, and what is left out


def test_what_a_reader_has_to_know_of_a_stage_is_marked(done: Path) -> None:
    saw = {"kind": "bert", "pseudo_labels": {"stages": ["good"]}}
    shutil.rmtree(done.parent / "work")
    run = opened(done.parent, stages={"good": TREES, "fair": saw, "poor": {**TREES, "final_fit": "refit"}})
    plan = replace(run.plan, reuse=True, made_by={**run.plan.made_by, "good": {}})
    build_submission(replace(run, plan=plan))
    assert marks_of(run) == {"good": ["other code"], "fair": ["pseudo-labels"], "poor": ["refit"]}


def test_a_stage_with_fewer_epochs_is_marked_and_what_a_budget_left_out_is_no_failure(done: Path) -> None:
    left_out = [
        LeftOut("fair", None, "epochs", "trained for 15 of 30 epochs"),
        LeftOut("unimol", 1, "time", ""),
    ]
    run = replace(run_of(done), left_out=left_out, made_from="with a budget")
    build_submission(run)
    assert marks_of(run) == {"good": [], "fair": ["fewer epochs"], "poor": []}
    assert run.exit_status == 0
    table = describe_left_out(left_out)
    assert "| fair   | all  | epochs | trained for 15 of 30 epochs |" in table
    assert table.endswith(BUDGET_ADVICE)
    assert BUDGET_ADVICE not in describe_left_out([LeftOut("unimol", 1, "error", "ValueError")])


def test_a_refitted_and_a_pseudo_labelled_stage_predict_new_rows_as_they_predicted_the_test_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By saved weights alone: the folds of a stage that was refitted are gone, and so are labels and source."""
    small = {**TREES, "max_trees": 15}
    labelled = {
        **small,
        "parameters": {"num_leaves": 4},
        "final_fit": "both",
        "pseudo_labels": {"stages": ["a"]},
    }
    stages = {"b": labelled, "a": {**small, "final_fit": "refit"}}
    path = fake_competition(
        tmp_path, stages=stages, submissions={"stack": False, "default": "mean", "margin": 1e6}
    )
    train_all(path)
    run, paths = built(path), Paths.for_competition(str(path))
    assert marks_of(run) == {"a": ["refit"], "b": ["pseudo-labels", "refit"]}

    for job in run.plan.jobs_of_stage("a")[:-1]:
        shutil.rmtree(job.folder)
    for table in (paths.train, paths.folds, tmp_path / "train.csv"):
        table.unlink()
    rows = read_text_table(tmp_path / "test.csv").iloc[:7:2]
    write_table(tmp_path / "new.csv", rows)
    written = predict(str(path), tmp_path / "new.csv", 1)
    new = by_id(written)
    np.testing.assert_allclose(new, by_id(run.folder / "submission.csv").loc[new.index], rtol=1e-6)
    assert list(new.index) == list(rows["id"])
    disagreement = by_id(written.with_name("spread.csv")).loc[new.index]
    assert (disagreement > 0).to_numpy().all()  # over the folds of b
    assert f"run {run.name}: {run.chosen}\n" in capsys.readouterr().out


# Files


SAMPLE = pd.DataFrame({"id": ["01", "b,c", " d"], "y": ["0", "0", "0"]})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"id": ["1", "b,c", " d"], "y": [1, 2, 3]},
            r"1 are missing \['01'\] and 1 are not in the sample \['1'\]",
        ),
        ({"id": ["b,c", "01", " d"], "y": [1, 2, 3]}, "in its order.* 0 are missing"),
        ({"id": ["01", "b,c", " d", " d"], "y": [1, 2, 3, 3]}, "4 rows for 3 ids"),
        ({"id": ["01", "b,c", " d"], "z": [1, 2, 3]}, "must have the columns id, y"),
        ({"y": [1, 2, 3], "id": ["01", "b,c", " d"]}, "in this order; got y, id"),
        ({"id": ["01", "b,c", " d"], "y": [1, np.nan, 3]}, "id 'b,c'"),
        ({"id": ["01", "b,c", " d"], "y": [1, 2, "many"]}, "'many'"),
    ],
)
def test_a_file_that_does_not_fit_the_sample_is_refused(tmp_path: Path, table: dict, message: str) -> None:
    write_table(tmp_path / "blend.csv", pd.DataFrame(table))
    with pytest.raises(SubmissionError, match=message):
        check_submission(tmp_path / "blend.csv", SAMPLE, "id", Task(["target"], ["y"]))


def test_what_a_sample_repeats_of_the_test_table_is_written_as_it_stands_there(tmp_path: Path) -> None:
    sample = SAMPLE.assign(SMILES=["C", "N", "not a molecule"])
    write_submission(
        tmp_path / "blend.csv", sample, "id", Task(["y"]), [" d", "01"], np.array([[3.0], [1.0]]), [2.0]
    )
    assert read_text_table(tmp_path / "blend.csv").to_numpy().tolist() == [
        ["01", "1.0", "C"], ["b,c", "2.0", "N"], [" d", "3.0", "not a molecule"],
    ]  # fmt: skip


def test_a_submission_has_seven_digits_and_is_removed_where_it_does_not_fit(tmp_path: Path) -> None:
    file, task = tmp_path / "blend.csv", Task(["target"], ["y"])
    y_pred = np.array([[200 / 3], [1.23456789e-300]])
    write_submission(file, SAMPLE, "id", task, [" d", "01"], y_pred, [7.0])
    assert read_table(file, ["id"])["y"].tolist() == [1.234568e-300, 7.0, 66.666667]
    with pytest.raises(SubmissionError, match="id ' d'"):
        write_submission(file, SAMPLE, "id", task, [" d", "01"], y_pred * [[np.inf], [1]], [7.0])
    assert list(tmp_path.iterdir()) == []


CLASSES, SHARES = {"problem_type": "multiclass", "classes": ["a", "b", "c"]}, [0.2, 0.5, 0.3]


def test_probabilities_have_seven_digits_and_labels_their_names_in_a_submission(tmp_path: Path) -> None:
    file, three = tmp_path / "blend.csv", SAMPLE.drop(columns="y")
    binary = Task(["y"], ["p0", "p1"], "binary", ["no", "yes"])
    P = np.array([[1 - 2**-40], [2 / 3], [1 / 7e9]])
    write_submission(file, three.assign(p1=0, p0=0), "id", binary, list(SAMPLE["id"]), P, [0.5])
    rows = [line.rsplit(",", 2)[1:] for line in file.read_text().splitlines()]
    assert rows == [
        ["p1", "p0"],
        ["1.0", "9.094947e-13"],
        ["0.66666667", "0.33333333"],
        ["1.428571e-10", "1.0"],
    ]
    names = Task(["y"], **CLASSES, scores_labels=True)
    write_submission(file, SAMPLE, "id", names, [" d", "01"], np.array([[0.0], [2.0]]), SHARES)
    assert [line[-1] for line in file.read_text().splitlines()] == ["y", "c", "b", "a"]


@pytest.mark.parametrize(
    ("settings", "cells", "message"),
    [
        (
            {},
            [0.2, 1.0, 1.0000001],
            "'y' must have probabilities from 0 to 1; 1 row.*id ' d' with '1.0000001'",
        ),
        ({}, [-1e-9, 0.5, ""], "2 row.*id '01' with '-1e-09'"),
        (
            {"scores_labels": True},
            ["a", "d", "c"],
            "'y' must have one of the classes a, b, c; 1 row.*id 'b,c' with 'd'",
        ),
        ({"top_k": 2}, ["a", "b c", "b b"], "up to 2 different classes, .* 1 row.*id ' d' with 'b b'"),
        ({"top_k": 2}, ["a d", "a b c", ""], "3 row"),
    ],
)
def test_a_file_with_other_cells_than_classes_allow_is_refused(
    tmp_path: Path, settings: dict, cells: list, message: str
) -> None:
    write_table(tmp_path / "blend.csv", SAMPLE.assign(y=cells))
    with pytest.raises(SubmissionError, match=message):
        check_submission(tmp_path / "blend.csv", SAMPLE, "id", Task(["y"], **CLASSES, **settings))
