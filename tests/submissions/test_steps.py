"""The commands from finished jobs to the report: the same bytes however they are run, and no file that does not fit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.errors import DataError, SubmissionError
from competition.files import read_table, read_text_table, write_table
from competition.metrics import METRICS
from competition.paths import PROJECT, Paths
from competition.task import Task
from models.jobs.attempts import write_report
from models.notes import write_notes
from submissions import blend, report, stack, write
from submissions.apply import predict_candidate, predict_run
from submissions.run import latest_run, open_run
from submissions.sample import check_submission, submission_table, write_submission
from tests.submissions.fakes import TARGETS, fake_competition, prepare_and_fake_jobs, run_steps

SUBMISSIONS = ["blend.csv", "stack.csv", "submission.csv"]
NO_FEATURES = np.empty((30, 0))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    return path


def test_the_three_files_fit_the_sample_and_the_chosen_one_is_the_submission(made: Path) -> None:
    run = run_steps(made)
    sample = read_table(run.paths.sample)
    for name in SUBMISSIONS:
        check_submission(run.folder / name, sample, "id")
    assert (run.folder / "submission.csv").read_bytes() == (run.folder / "blend.csv").read_bytes()
    assert run.paths.latest_run.read_text() == f"{run.name}\n"
    predicted = read_table(run.folder / "submission.csv", ["id"]).set_index("id")
    answers = pd.read_csv(made.parent / "answers.csv", dtype={"id": str}).set_index("id").loc[predicted.index]
    assert np.corrcoef(predicted["height"], answers["height"])[0, 1] > 0.9  # joined on id, not on position


def test_every_column_is_that_of_its_stage_joined_on_id(made: Path) -> None:
    run = open_run(str(made))
    loaded = run.columns
    assert loaded.names == ["fair", "good", "poor"]
    for j, stage in enumerate(loaded.names):
        jobs = run.plan.of(stage)
        oof = pd.concat([pd.read_parquet(job.oof_file) for job in jobs]).set_index("id")
        np.testing.assert_array_equal(loaded.oof[:, j], oof.loc[loaded.ids, TARGETS].to_numpy())
        tests = [pd.read_parquet(job.test_file(run.plan.test_key)) for job in jobs]
        mean = np.mean([table.set_index("id").loc[loaded.test_ids, TARGETS] for table in tests], axis=0)
        np.testing.assert_allclose(loaded.test[:, j], mean, rtol=1e-12)
    weights = blend.blend(run)["candidates"]["convex"]["models"]["height"]["weights"]
    assert weights["good"] > weights["fair"] > weights["poor"]


def test_the_stack_is_the_submission_where_it_is_chosen(made: Path) -> None:
    path = fake_competition(made.parent, submissions={"margin": 0.0, "default": "mean", "postprocess": []})
    run = run_steps(path)
    selection = run.part("choice")
    assert selection["default"] == "mean"
    assert selection["chosen"] != "mean"
    for step in ("stack", "blend"):
        name, file = run.part(step)["chosen"], f"{step}.csv"
        run.keep("choice", {**selection, "chosen": name}, ["cross_fitted.csv"])
        write.write(run)
        assert (run.folder / "submission.csv").read_bytes() == (run.folder / file).read_bytes()


def test_a_stored_run_predicts_without_the_training_table(made: Path) -> None:
    loaded = run_steps(made).columns
    paths = Paths.of(str(made))
    shutil.rmtree(paths.root / "prepared")
    shutil.rmtree(paths.root / "folds")
    run = latest_run(str(made))
    y_pred = predict_run(run, loaded.test, loaded.test_inputs, NO_FEATURES)
    written = read_table(run.folder / "submission.csv", ["id"]).set_index("id").loc[loaded.test_ids, TARGETS].to_numpy()
    np.testing.assert_allclose(y_pred, written, rtol=1e-6)
    stack_file = read_table(run.folder / "stack.csv", ["id"]).set_index("id").loc[loaded.test_ids, TARGETS].to_numpy()
    y_stack = predict_candidate(run, run.part("stack")["chosen"], loaded.test, NO_FEATURES)
    np.testing.assert_allclose(y_stack, stack_file, rtol=1e-6)
    some = predict_run(run, loaded.test[3:5], loaded.test_inputs[3:5], NO_FEATURES[3:5])
    np.testing.assert_allclose(some, y_pred[3:5], rtol=1e-12)
    with pytest.raises(DataError, match="needs the columns fair, good, poor"):
        predict_run(run, loaded.test[:, :2], loaded.test_inputs, NO_FEATURES)


def test_a_notebook_has_ids_folds_labels_and_all_columns_in_one_table(made: Path) -> None:
    columns = run_steps(made).columns
    table = latest_run(str(made)).oof_table()
    assert list(table.columns) == ["id", "fold", *TARGETS, *(f"{s} {t}" for s in columns.names for t in TARGETS)]
    assert list(table["id"]) == columns.ids
    np.testing.assert_array_equal(table["fold"], columns.folds)
    np.testing.assert_array_equal(table[TARGETS], columns.y)
    np.testing.assert_array_equal(table["good depth"], columns.oof[:, 1, 1])
    as_csv = read_table(latest_run(str(made)).folder / "oof.csv", ["id"])
    np.testing.assert_array_equal(as_csv.drop(columns="id"), table.drop(columns="id"))


def test_a_second_run_changes_no_byte_and_fits_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_steps(made)
    before = contents(run.folder)

    def refuse(*args: object) -> None:
        raise AssertionError("fitted again")

    for step in (blend, stack):
        monkeypatch.setattr(step, "cross_fit", refuse)
    monkeypatch.setattr(write, "compare", refuse)
    assert contents(run_steps(made).folder) == before


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_steps(made)
    before = contents(run.folder)
    monkeypatch.setattr(sys, "argv", ["", str(made)])
    for lost in ("run.json", "blend.csv", "cross_fitted/mean.parquet", "stack.csv", "submission.csv"):
        (run.folder / lost).unlink()
        (run.folder / ".blend.csv.1.tmp").write_text("half")
        for step in (blend, stack, write):
            step.main()
        assert contents(run.folder) == before, lost


def test_the_commands_run_by_themselves(made: Path) -> None:
    for step in ("blend", "stack", "write", "report"):
        done = subprocess.run(
            [sys.executable, "-m", f"submissions.{step}", str(made)],
            check=True,
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
    run = open_run(str(made))
    assert done.stdout.splitlines()[-1].endswith(str(run.folder / "submission.csv"))
    assert (run.paths.report / "report.md").read_text() == done.stdout


def test_a_file_that_was_edited_is_made_again(made: Path) -> None:
    run = run_steps(made)
    before = contents(run.folder)
    (run.folder / "blend.csv").write_text("id,height,depth\n")
    run_steps(made)
    assert contents(run.folder) == before


def test_new_predictions_under_the_same_keys_are_noticed(made: Path) -> None:
    before = run_steps(made)
    job = before.plan.jobs[0]
    table = pd.read_parquet(job.oof_file)
    table.assign(height=table["height"] + 0.5).to_parquet(job.oof_file)
    with pytest.raises(DataError, match=r"oof\.parquet is not as its job wrote it; delete"):
        open_run(str(made))
    write_report(job.folder, {"seconds": 1.5})  # trained again
    with pytest.raises(DataError, match=r"submissions\.blend"):
        write.write(open_run(str(made)))
    after = run_steps(made)
    assert after.name == before.name
    assert after.made_from != before.made_from


def test_predictions_so_far_from_the_labels_that_a_blend_has_no_digits_left_are_refused(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path, lambda y: 1e9 * y)
    with pytest.raises(DataError, match=r"must be near the labels; one of fair for height is .* Leave the stage out"):
        blend.blend(open_run(str(path)))


def test_answers_are_read_by_the_report_alone(made: Path) -> None:
    run = run_steps(made)
    before = contents(run.folder)
    page = report.report(run)
    assert "Score on the answers" in page
    (made.parent / "answers.csv").unlink()
    shutil.rmtree(run.folder)
    again = run_steps(made)
    assert again.name == run.name
    assert contents(again.folder) == before
    assert "Score on the answers" not in report.report(again)
    without = fake_competition(made.parent, competition={"answers": None})
    (made.parent / "answers.csv").unlink()
    assert open_run(str(without)).name == run.name


def test_the_name_of_a_run_follows_settings_and_not_places(made: Path, tmp_path: Path) -> None:
    name = open_run(str(made)).name
    reordered = {"poor": 6, "good": 4, "fair": 5}
    stages = {stage: {"kind": "lightgbm", "num_leaves": leaves} for stage, leaves in reordered.items()}
    assert open_run(str(fake_competition(tmp_path, stages=stages))).name == name
    assert open_run(str(fake_competition(tmp_path, submissions={"trials": 41}))).name != name
    moved = fake_competition(tmp_path / "moved")
    assert open_run(str(moved)).name == name


def test_the_order_of_stages_in_the_yaml_changes_no_byte(made: Path, tmp_path: Path) -> None:
    run = run_steps(made)
    before = {name: (run.folder / name).read_bytes() for name in SUBMISSIONS}
    shutil.rmtree(run.folder)
    stages = {s: {"kind": "lightgbm", "num_leaves": leaves} for s, leaves in (("poor", 6), ("good", 4), ("fair", 5))}
    again = run_steps(fake_competition(tmp_path, stages=stages))
    assert {name: (again.folder / name).read_bytes() for name in SUBMISSIONS} == before


def test_unfinished_jobs_and_skipped_steps_are_named(made: Path) -> None:
    run = open_run(str(made))
    with pytest.raises(DataError, match=r"submissions\.blend first"):
        write.write(run)
    blend.blend(run)
    with pytest.raises(DataError, match=r"submissions\.stack first"):
        write.write(run)
    (run.plan.jobs[0].folder / "report.json").unlink()
    with pytest.raises(DataError, match=r"is not finished\. Run \./run\.sh train"):
        open_run(str(made))


def test_dropped_test_rows_get_the_mean_of_the_labels_and_are_counted(tmp_path: Path) -> None:
    texts = {"text": ["x"], "numeric": ["z"], "unparsable": "drop"}
    path = fake_competition(tmp_path, competition=texts)
    test = read_text_table(tmp_path / "test.csv")
    write_table(tmp_path / "test.csv", test.assign(x=test["x"].where(test.index != 4, "")))
    prepare_and_fake_jobs(path)
    run = open_run(str(path))
    blend.blend(run)
    stack.stack(run)
    _, filled = write.write(run)
    assert filled == 1
    row = read_table(run.folder / "submission.csv", ["id"]).iloc[4]
    train = read_table(run.paths.train, ["id", "x", "__input"])
    assert row["id"] == test["id"][4]
    assert row[TARGETS].tolist() == pytest.approx(train[TARGETS].mean().tolist(), rel=1e-6)
    assert "1 test rows dropped" in report.report(run)


def test_columns_stand_in_the_order_of_the_sample(tmp_path: Path) -> None:
    path = fake_competition(tmp_path, competition={"submission_columns": ["H", "D"]})
    sample = read_text_table(tmp_path / "sample_submission.csv").rename(columns={"height": "H", "depth": "D"})
    write_table(tmp_path / "sample_submission.csv", sample[["D", "id", "H"]].iloc[::-1])
    prepare_and_fake_jobs(path)
    run = run_steps(path)
    table = read_table(run.folder / "submission.csv", ["id"])
    assert list(table.columns) == ["D", "id", "H"] == run.stored["sample_columns"]
    assert list(table["id"]) == list(sample["id"])[::-1]
    assert table["H"].mean() > 5 > table["D"].mean()


SAMPLE = pd.DataFrame({"id": ["01", "b,c", " d"], "y": ["0", "0", "0"]})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": ["1", "b,c", " d"], "y": [1, 2, 3]}, r"lacking 1 \('01'\), not in the sample 1 \('1'\)"),
        ({"id": ["b,c", "01", " d"], "y": [1, 2, 3]}, "another order"),
        ({"id": ["01", "b,c"], "y": [1, 2]}, "lacking 1"),
        ({"id": ["01", "b,c", " d", " d"], "y": [1, 2, 3, 3]}, "4 rows for 3 ids"),
        ({"id": ["01", "b,c", " d"], "z": [1, 2, 3]}, "must have the columns id, y"),
        ({"y": [1, 2, 3], "id": ["01", "b,c", " d"]}, "in this order; found y, id"),
        ({"id": ["01", "b,c", " d"], "y": [1, np.nan, 3]}, "id 'b,c'"),
        ({"id": ["01", "b,c", " d"], "y": [1, 2, -np.inf]}, "1 row"),
        ({"id": ["01", "b,c", " d"], "y": [1, 2, "many"]}, "'many'"),
    ],
)
def test_a_file_that_does_not_fit_the_sample_is_refused_and_not_left_behind(
    tmp_path: Path, table: dict, message: str
) -> None:
    with pytest.raises(SubmissionError, match=message):
        write_submission(tmp_path / "blend.csv", pd.DataFrame(table), SAMPLE, "id")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fits_the_sample_is_written_with_seven_digits(tmp_path: Path) -> None:
    y_pred = np.array([[200 / 3], [1.23456789e-300]])
    table, filled = submission_table(SAMPLE, "id", Task(["target"], ["y"]), [" d", "01"], y_pred, [7.0])
    write_submission(tmp_path / "blend.csv", table, SAMPLE, "id")
    assert filled == 1
    assert read_table(tmp_path / "blend.csv", ["id"])["y"].tolist() == [1.234568e-300, 7.0, 66.66667]


def test_rows_with_fold_minus_one_are_in_no_score(made: Path) -> None:
    folds = Paths.of(str(made)).folds
    table = read_text_table(folds)
    never = table["id"].iloc[::10]
    write_table(folds, table.assign(fold=table["fold"].where(~table["id"].isin(never), "-1")))
    prepare_and_fake_jobs(made)
    run = run_steps(made)
    stored = pd.read_parquet(run.folder / "cross_fitted" / "shrunk_ridge.parquet").set_index("id")
    assert stored.loc[never].isna().all(axis=None)
    assert not stored["cross_fitted height"].drop(never).isna().any()
    assert "-" not in next(line for line in report.report(run).splitlines() if line.startswith("| good ")).split("|")[3]


def test_the_report_has_every_number_under_its_name(made: Path) -> None:
    run = run_steps(made)
    page = report.report(run)
    lines = page.splitlines()
    assert max(len(line) for line in lines[:-2]) <= 110  # the last two are paths
    assert lines[-1].endswith(str(run.folder / "submission.csv"))
    loaded = run.columns
    cv_score = METRICS["rmse"](loaded.y, loaded.oof[:, loaded.names.index("good")])
    good = next(line for line in lines if line.startswith("| good "))
    assert f"{cv_score:#.5g}" in good
    assert "4.5" in good  # seconds: three folds of 1.5
    weights = run.part("blend")["candidates"]["shrunk_ridge"]["models"]
    assert f"{weights['height']['weights']['good']:.3f}" in page
    for words in ("in_sample_score", "cross_fitted_score", "whole procedure", "labels missing: depth"):
        assert words in page
    answers = pd.read_csv(made.parent / "answers.csv", dtype={"id": str}).set_index("id")
    predicted = read_table(run.folder / "blend.csv", ["id"]).set_index("id")
    score = METRICS["rmse"](answers.loc[predicted.index, TARGETS].to_numpy(), predicted[TARGETS].to_numpy())
    assert f"{score:#.5g}" in next(line for line in lines if line.startswith("| blend.csv"))


def test_a_metric_of_the_users_own_goes_all_the_way(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import numpy as np\n\n\ndef score(y_true, y_pred):\n    assert y_true.shape[1] == 2\n"
        "    return float(np.nanmean(np.abs(y_true - y_pred) * [1.0, 3.0]))\n"
    )
    path = fake_competition(
        tmp_path, 80, competition={"metric": "own.py:score", "greater_is_better": False}, submissions={"bootstrap": 100}
    )
    prepare_and_fake_jobs(path)
    run = run_steps(path)
    page = report.report(run)
    assert "own.py:score, less is better" in page
    before = run.name
    (tmp_path / "own.py").write_text((tmp_path / "own.py").read_text() + "\n\nVERSION = 2\n")
    assert open_run(str(path)).name != before


def test_marks_of_optimistic_and_foreign_stages_reach_the_report(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(str(made))
    other = [replace(job, other_code=job.stage == "fair") for job in run.plan.jobs]
    marked = replace(run, plan=replace(run.plan, jobs=other))
    blend.blend(marked)
    stack.stack(marked)
    write.write(marked)
    page = report.report(marked)
    assert "other code" in next(line for line in page.splitlines() if line.startswith("| fair"))
    assert "other code: made by other code than today's (--reuse)." in page


def test_a_stage_that_saw_test_inputs_is_marked_and_notes_stand_once_per_stage(tmp_path: Path) -> None:
    saw = {"kind": "bert", "pretrain_epochs": 1, "pretrain_on": "all_inputs"}
    trees = {"kind": "lightgbm"}
    path = fake_competition(tmp_path, stages={"good": trees, "fair": saw, "poor": trees})
    for job in prepare_and_fake_jobs(path).of("fair"):
        write_notes(job.folder, [f"{job.fold + 3} texts are cut."])
    run = run_steps(path)
    marks = {stage["name"]: stage["marks"] for stage in run.stored["stages"]}
    assert marks == {"good": [], "fair": ["saw test inputs"], "poor": []}
    page = report.report(run)
    assert "saw test inputs: trained on the inputs of held-out and test rows, not on labels" in page
    assert [line for line in page.splitlines() if "texts are cut" in line] == ["fair: 3 texts are cut."]


@pytest.mark.parametrize("kind", ["group", "kfold"])
def test_the_bootstrap_draws_what_shares_a_fold(tmp_path: Path, kind: str) -> None:
    path = fake_competition(
        tmp_path, folds={"kind": kind, "n_folds": 4}, competition={"numeric": ["x"], "group": "z", "metric": "mae"}
    )
    train = read_text_table(tmp_path / "train.csv")
    train["z"] = [str(i % 10) for i in range(len(train))]
    train.loc[1, "x"] = train.loc[0, "x"]
    write_table(tmp_path / "train.csv", train)
    prepare_and_fake_jobs(path)
    groups = open_run(str(path)).columns.groups
    assert len(set(groups)) == (9 if kind == "group" else 149)  # the equal input ties two of ten groups together
