"""From finished jobs to the submission: one run, the same bytes however its steps are run."""

import pickle
import shutil
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from competition.dataset import GROUP
from core.errors import DataError
from core.files import read_json, read_table, write_json, write_table
from core.paths import Paths
from core.user_tables import read_text_table
from models.jobs.job_files import write_report
from models.jobs.plan import make_plan
from models.jobs.scheduler import JobResult
from pipeline import commands
from submissions import build as build_step
from submissions.blend import scoring
from submissions.blend.candidates import ALWAYS
from submissions.build import build
from submissions.config import load_config
from submissions.levels import Level
from submissions.manifest import BUDGET_ADVICE, LeftOut, describe_left_out
from submissions.predict import load_candidate, predict
from submissions.run import (
    finished_part,
    latest_run,
    left_out_of,
    open_run,
    stored_run,
)
from submissions.submission_file import check_submission
from tests.submissions.fakes import (
    TARGETS,
    built,
    by_id,
    fake_competition,
    finished,
    opened,
    prepare_and_fake_jobs,
    run_of,
    train_all,
    with_setting,
)

SUBMISSIONS = ["candidates/mean.csv", "candidates/shrunk_ridge.csv", "submission.csv"]
TREES = {"kind": "lightgbm"}


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def marks_of(run):
    return {name: stage.marks for name, stage in run.manifest.stages.items()}


def test_all_columns_and_submissions_are_joined_on_id(done):
    run = run_of(done)
    columns, choice = run.columns, run.choice
    for name in SUBMISSIONS:
        check_submission(run.folder / name, read_table(run.paths.sample), "id", run.task)
    answers = by_id(done.parent / "answers.csv").loc[columns.test_ids]
    assert by_id(run.folder / "submission.csv")["height"].corr(answers["height"]) > 0.9
    assert sorted(columns.names) == ["fair", "good", "poor"]
    for j, stage in enumerate(columns.names):
        jobs = run.plan.jobs_of_stage(stage)
        oof = pd.concat([by_id(job.oof_file) for job in jobs])
        np.testing.assert_array_equal(columns.preds[:, j], oof.loc[columns.ids, TARGETS])
        of_test = [by_id(job.test_file(run.plan.test_key)).loc[columns.test_ids] for job in jobs]
        np.testing.assert_allclose(columns.test[:, j], np.mean(of_test, axis=0), rtol=1e-12)
        alone = by_id(run.folder / "stages" / f"{stage}.csv").loc[columns.test_ids, TARGETS]
        np.testing.assert_allclose(alone, columns.test[:, j], rtol=1e-6)
    np.testing.assert_array_equal(columns.y, by_id(run.paths.train).loc[columns.ids, TARGETS])
    assert np.isnan(columns.y).any()  # a missing label stays missing
    np.testing.assert_array_equal(columns.groups, by_id(run.paths.train).loc[columns.ids, GROUP])
    weights = run.weights["height"]
    assert weights["good"] > weights["fair"] > weights["poor"]
    in_sample = run.metric(columns.y, load_candidate(run, run.chosen).predict(columns.preds))
    assert choice.submitted.in_sample_score == pytest.approx(in_sample)
    in_fold = columns.folds == 1
    of_fold = run.metric(columns.y[in_fold], columns.stage_oof("good")[in_fold])
    assert choice.stages["good"].fold_scores["all"][1] == pytest.approx(of_fold)
    # The interval counts the rows of both tables.
    assert choice.expected.score == choice.submitted.score
    interval = choice.expected.interval
    error = choice.submitted.score_standard_error * np.sqrt(1 + 150 / 30)
    assert interval.upper - interval.lower == pytest.approx(2 * 1.28 * error, rel=0.1)


def test_a_stored_run_predicts_without_any_table_and_a_notebook_reads_its_columns(done):
    columns = run_of(done).columns
    for folder in ("prepared", "folds"):
        shutil.rmtree(Paths.for_competition(str(done)).root / folder)
    run = latest_run(str(done))
    assert list(run.candidates) == [*ALWAYS, "shrunk_ridge"]  # from simple to complex
    table = run.oof()
    stage_columns = [f"{stage} {target}" for stage in [*columns.names, "submission"] for target in TARGETS]
    assert list(table.columns) == ["id", "fold", *TARGETS, *stage_columns]
    assert list(table["id"]) == columns.ids
    np.testing.assert_array_equal(table["fold"], columns.folds)
    np.testing.assert_array_equal(table[TARGETS], columns.y)
    np.testing.assert_array_equal(table["good Depth"], columns.stage_oof("good")[:, 1])
    cross_fitted = by_id(run.folder / "cross_fitted.csv").loc[columns.ids]
    np.testing.assert_array_equal(table["submission Depth"], cross_fitted["Depth"])


def test_a_run_is_reused_while_nothing_changes_and_rebuilt_with_the_same_bytes_where_a_file_has(
    done, monkeypatch
):
    """Also without the answers, which nothing but the report may read."""
    shutil.rmtree(run_of(done).folder)
    run = built(done)
    before = contents(run.folder)
    with monkeypatch.context() as patch:
        patch.delattr(build_step, "select_candidate")
        assert contents(built(done).folder) == before
    (done.parent / "answers.csv").unlink()
    for lost in ("run.json", "candidates/mean.json", "submission.csv"):
        (run.folder / "spread.csv").write_text("id,height,Depth\n")  # edited
        (run.folder / lost).unlink()
        assert contents(built(done).folder) == before, lost


def test_a_full_submission_stays_when_another_budget_leaves_out_something_else(done, monkeypatch):
    """As a shorter budget does, whose first level is the mean; only run.json says what was left out."""
    run = built(done)
    before = contents(run.folder)
    left_out = [LeftOut("network", None, "time", "its 3 jobs need about 2 min more")]
    shorter = replace(run_of(done), left_out=left_out)
    monkeypatch.delattr(build_step, "select_candidate")
    for level in (Level.MEAN, Level.BLEND, Level.FULL):
        build(shorter, level)
    after = contents(run.folder)
    assert {name for name in before if after[name] != before[name]} == {"run.json"}
    manifest = run_of(done).manifest
    assert (manifest.left_out, manifest.level) == (left_out, Level.FULL)
    build(run_of(done), Level.FULL)
    assert contents(run.folder) == before


def test_a_submission_that_is_kept_has_the_budget_and_the_paths_of_the_last_command(done, tmp_path):
    run = replace(run_of(done), budget=60.0, left_out=[LeftOut("fair", None, "epochs", "trained for 5 of 9")])
    build(run)
    assert (run.manifest.budget, marks_of(run)["fair"]) == (60.0, ["fewer epochs"])
    (tmp_path / "answers.csv").rename(tmp_path / "labels.csv")
    kept = built(with_setting(done, "competition", answers="labels.csv"))
    assert (kept.manifest.budget, marks_of(kept)["fair"]) == (None, [])
    assert "labels.csv" in (kept.folder / "mixed.yaml").read_text()


def test_a_warning_says_that_nothing_but_the_baseline_was_finished(done):
    manifest = built(done).manifest
    left_out = [LeftOut("network", None, "time", "time ran out before it started")]
    baseline = manifest.config | {"stages": {"first": {"kind": "baseline"}}}
    alone = manifest.model_copy(update={"config": baseline, "left_out": left_out})
    (warning,) = {*alone.remarks} - {*manifest.remarks}
    assert warning.startswith("WARNING") and "baseline" in warning
    for other in ({"left_out": []}, {"config": manifest.config}):
        assert alone.model_copy(update=other).remarks == manifest.remarks


def test_a_build_that_is_interrupted_leaves_no_file_and_the_run_before_as_it_was(done, monkeypatch):
    run = run_of(done)
    before = contents(run.paths.latest_run.parent)
    path = fake_competition(done.parent, submissions={"trials": 3})
    monkeypatch.setattr(build_step, "write_manifest", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        built(path)
    assert contents(run.paths.latest_run.parent) == before
    assert latest_run(str(path)).name == run.name


def test_an_interim_submission_of_the_finished_stages_has_no_stack_and_is_no_run(done, capsys):
    run = run_of(done)
    latest, path = run.paths.latest_run.read_text(), fake_competition(done.parent, submissions={"trials": 3})
    config = load_config(str(path))
    plan = make_plan(config.competition, dict(config.stages))
    report = plan.jobs_of_stage("poor")[1].folder / "report.json"
    content = report.read_bytes()
    report.unlink()
    part = open_run(config, finished_part(plan))
    assert list(part.config.stages) == ["good", "fair"]
    part = replace(part, folder=part.paths.run("so_far"))
    build(pickle.loads(pickle.dumps(part)), Level.BLEND)  # as a worker gets it
    so_far = run.paths.run("so_far")
    assert not (so_far / "candidates" / "lightgbm_stack.csv").exists()
    check_submission(so_far / "submission.csv", read_table(run.paths.sample), "id", run.task)
    assert run.paths.latest_run.read_text() == latest
    assert run.paths.submission.read_bytes() == (run.folder / "submission.csv").read_bytes()
    commands.main(["compare", str(path)])
    assert "so_far" not in capsys.readouterr().out
    report.write_bytes(content)
    new = built(path)
    assert not so_far.exists()
    assert run.paths.latest_run.read_text() == f"{new.name}\n" != latest
    assert run.paths.submission.read_bytes() == (new.folder / "submission.csv").read_bytes()


def test_new_predictions_and_unfinished_jobs_are_noticed(done):
    before = run_of(done)
    job = before.plan.jobs[0]
    table = pd.read_parquet(job.oof_file)
    table.assign(height=table["height"] + 0.5).to_parquet(job.oof_file)
    with pytest.raises(DataError, match=r"oof\.parquet is missing or has changed; delete"):
        run_of(done)
    write_report(job.folder, {"seconds": 1.5})  # trained again, under the same key
    after = run_of(done)
    assert after.name == before.name
    assert before.built and not after.built
    build(after)
    assert after.built and not before.built
    (job.folder / "report.json").unlink()
    with pytest.raises(DataError, match=r"is not finished, .* Run \./run\.sh train"):
        run_of(done)


def test_the_name_of_a_run_follows_settings_and_not_places_or_the_order_of_stages(done, tmp_path):
    run = run_of(done)
    before = {name: (run.folder / name).read_bytes() for name in SUBMISSIONS}
    leaves = {"poor": 6, "good": 4, "fair": 5}
    reordered = {stage: {**TREES, "parameters": {"num_leaves": n}} for stage, n in leaves.items()}
    shutil.rmtree(run.folder)
    second = built(fake_competition(tmp_path / "moved", stages=reordered))
    assert {name: (second.folder / name).read_bytes() for name in SUBMISSIONS} == before
    assert run_of(fake_competition(tmp_path, competition={"answers": None})).name == run.name
    assert run_of(fake_competition(tmp_path, submissions={"trials": 41})).name != run.name


def test_a_run_gets_the_competitions_name_on_the_platform_when_it_is_built_again(tmp_path):
    first = finished(fake_competition(tmp_path))
    assert first.manifest.config["competition"]["kaggle"] is None
    second = built(with_setting(tmp_path / "mixed.yaml", "competition", kaggle="heights"))
    assert second.name == first.name
    assert stored_run(second.paths, second.name).config.competition.kaggle == "heights"


def test_dropped_rows_get_the_mean_of_the_labels_and_columns_stand_in_the_order_of_the_sample(
    tmp_path,
):
    texts = {"text": ["x"], "numeric": [], "unparsable": "drop", "submission_columns": ["H", "D"]}
    path = fake_competition(tmp_path, competition=texts, submissions={"stack": False})
    test, sample = (read_text_table(tmp_path / f"{name}.csv") for name in ("test", "sample_submission"))
    write_table(tmp_path / "test.csv", test.assign(x=test["x"].where(test.index != 4, "")))
    sample = sample.rename(columns={"height": "H", "Depth": "D"})[["D", "id", "H"]].iloc[::-1]
    write_table(tmp_path / "sample_submission.csv", sample)
    run = finished(path)
    table = read_table(run.folder / "submission.csv")
    assert list(table.columns) == ["D", "id", "H"] == run.manifest.sample_columns
    assert list(table["id"]) == list(sample["id"])
    assert table["H"].mean() > 5 > table["D"].mean()
    means = read_table(run.paths.train)[TARGETS].mean().tolist()
    assert table.set_index("id").loc[test["id"][4], ["H", "D"]].tolist() == pytest.approx(means, rel=1e-6)
    assert {*test["id"]} - {*by_id(run.folder / "spread.csv").index} == {test["id"][4]}


# What stages did, and what is left out


def test_what_failed_is_left_out_as_if_it_were_not_in_the_yaml(tmp_path):
    stages = {
        "good": {**TREES, "seeds": [0, 1], "final_fit": "both"},
        "fair": TREES,
    }
    plan = prepare_and_fake_jobs(fake_competition(tmp_path, stages=stages))
    results = {}
    for job in plan.jobs:
        if job.title in ("good/seed_1/fold_all", "fair/seed_0/fold_2"):
            (job.folder / "report.json").unlink()
            results[job.title] = JobResult(job.title, "failed", "error", "ValueError: no")
    left_out = left_out_of(plan, results)
    assert [(each.stage, each.seed, each.reason, each.error) for each in left_out] == [
        ("fair", 0, "error", "fold 2: ValueError: no"),
        ("good", 1, "error", "fold all: ValueError: no"),
    ]
    run = open_run(load_config(str(tmp_path / "mixed.yaml")), finished_part(plan), left_out)
    build(run)
    assert run.exit_status == 3
    submission = run.paths.submission.read_bytes()
    alone = built(fake_competition(tmp_path, stages={"good": {**TREES, "final_fit": "both"}}))
    assert (alone.paths.submission.read_bytes(), alone.exit_status) == (submission, 0)


def test_a_job_that_was_skipped_gives_the_reason_for_its_seed(tmp_path):
    plan = prepare_and_fake_jobs(fake_competition(tmp_path, stages={"good": TREES}))
    job = plan.jobs[0]
    (job.folder / "report.json").unlink()
    results = {job.title: JobResult(job.title, "skipped", "time", "no time was left")}
    left_out = [(each.stage, each.reason, each.error) for each in left_out_of(plan, results)]
    assert left_out == [("good", "time", "no time was left")]


def test_what_a_reader_has_to_know_of_a_stage_is_marked_and_what_a_budget_left_out_is_no_failure(
    tmp_path,
):
    run = opened(
        tmp_path, stages={"good": TREES, "fair": {"kind": "bert"}, "poor": {**TREES, "final_fit": "refit"}}
    )
    plan = replace(run.plan, reuse=True, made_by={**run.plan.made_by, "good": {}})
    left_out = [LeftOut("fair", None, "epochs", "15 of 30 epochs"), LeftOut("unimol", 1, "time", "")]
    run = replace(run, plan=plan, left_out=left_out)
    build(run)
    assert marks_of(run) == {
        "good": ["other code"], "fair": ["fewer epochs"], "poor": ["refit"]
    }  # fmt: skip
    assert run.exit_status == 0
    table = describe_left_out(left_out)
    assert "| fair   | all  | epochs | 15 of 30 epochs |" in table
    assert table.endswith(BUDGET_ADVICE)
    assert BUDGET_ADVICE not in describe_left_out([LeftOut("unimol", 1, "error", "ValueError")])


def test_refitted_stages_predict_new_rows_as_they_predicted_the_test_table(tmp_path, capsys):
    """By saved weights alone: the folds of a stage that was refitted are gone, and so are labels."""
    small = {**TREES, "max_trees": 15}
    stages = {
        "b": {**small, "parameters": {"num_leaves": 4}, "final_fit": "both"},
        "a": {**small, "final_fit": "refit"},
    }
    submissions = {"stack": False, "default": "mean", "margin": 1e6}
    path = fake_competition(tmp_path, stages=stages, submissions=submissions)
    train_all(path)
    run = built(path)
    assert marks_of(run) == {"a": ["refit"], "b": ["refit"]}

    for job in run.plan.jobs_of_stage("a")[:-1]:
        shutil.rmtree(job.folder)
    for table in (run.paths.train, run.paths.folds, tmp_path / "train.csv"):
        table.unlink()
    rows = read_text_table(tmp_path / "test.csv").iloc[:7:2]
    write_table(tmp_path / "new.csv", rows)
    written = predict(str(path), tmp_path / "new.csv", 1)
    new = by_id(written)
    assert list(new.index) == list(rows["id"])
    np.testing.assert_allclose(new, by_id(run.folder / "submission.csv").loc[new.index], rtol=1e-6)
    assert (by_id(written.with_name("spread.csv")).loc[new.index] > 0).all(axis=None)  # over the folds of b
    said = capsys.readouterr().out
    assert f"run {run.name}: {run.chosen} of a, b\n" in said and "trained with other code" not in said
    report = run.plan.jobs_of_stage("b")[0].folder / "report.json"
    of_job = read_json(report)
    write_json(report, of_job | {"made_by": of_job["made_by"] | {"models/features.py": "edited"}})
    predict(str(path), tmp_path / "new.csv", 1)
    warning = (
        "WARNING: the models of stage b were trained with other code or libraries (changes of models/features"
    )
    assert warning in capsys.readouterr().out


def test_only_stages_with_weight_predict_new_rows(tmp_path, capsys):
    """Of two targets, each has one best stage of three; the models of the others are gone."""
    stages = {name: {**TREES, "max_trees": n} for name, n in {"a": 3, "b": 9, "c": 15}.items()}
    submissions = {"stack": False, "default": "best_single", "margin": 1e6}
    path = fake_competition(tmp_path, stages=stages, submissions=submissions)
    train_all(path)
    run = built(path)
    used = [name for name in stages if any(weights[name] for weights in run.weights.values())]
    assert 1 <= len(used) <= 2
    for job in run.plan.jobs:
        if job.stage not in used:
            for file in job.folder.glob("target_*"):
                file.unlink()
    capsys.readouterr()
    write_table(tmp_path / "new.csv", read_text_table(tmp_path / "test.csv").iloc[:7:2])
    new = by_id(predict(str(path), tmp_path / "new.csv", 1))
    np.testing.assert_allclose(new, by_id(run.folder / "submission.csv").loc[new.index], rtol=1e-6)
    assert f"run {run.name}: best_single of {', '.join(used)}\n" in capsys.readouterr().out


def test_a_slow_metric_is_said_and_a_later_level_has_as_many_resamples(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def mae(y, y_pred):\n    return float(abs(y - y_pred).mean())\n")
    competition = {"targets": ["height"], "metric": "mine.py:mae", "greater_is_better": False}
    path = fake_competition(tmp_path, competition=competition)
    prepare_and_fake_jobs(path)
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "SLOW_CALL", 0.0)
        said = build(run_of(path), Level.MEAN)
    few = "so there are 20 bootstrap resamples instead of up to 200."
    assert sum(few in line for line in said) == 1
    assert any(few in line for line in build(run_of(path), Level.FULL))
    choice = run_of(path).choice
    compared = [*choice.candidates.values(), *choice.stages.values(), *choice.ablation.values()]
    assert "shrunk_ridge" in choice.candidates and {each.n_resamples for each in compared} == {20}
