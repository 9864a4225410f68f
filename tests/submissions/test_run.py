"""From finished jobs to the submission: one run, the same bytes however its steps are run, and no file that does not
fit."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.errors import ConfigError, DataError
from competition.files import read_json, read_table, read_text_table, write_table
from competition.metrics import METRICS
from competition.paths import Paths
from competition.prepare import run as prepare
from folds.make import load_folds_config
from folds.make import run as make_folds
from models.config import load_stages
from models.jobs.attempts import write_report
from models.jobs.plan import plan
from models.jobs.predictions import read_predictions
from models.jobs.train import train
from submissions import stack as stack_step
from submissions import write as write_step
from submissions.blend import __main__ as blend_step
from submissions.blend import stacks
from submissions.blend.__main__ import blend, candidates_of
from submissions.blend.candidates import ALWAYS, CANDIDATES
from submissions.blend.crossfit import cross_fitted
from submissions.config import load_config
from submissions.fitted import candidate_of, matrices_of, submission_of
from submissions.predict import predict
from submissions.run import Run, latest_run, open_run
from submissions.sample import check_submission
from submissions.stack import stack
from submissions.stack_features import features_of
from submissions.write import describe, write
from tests.submissions.fakes import TARGETS, fake_competition, prepare_and_fake_jobs, run_steps

STEPS = (blend_step, stack_step, write_step)
SUBMISSIONS = ["blend.csv", "stack.csv", "submission.csv"]
NO_FEATURES = np.empty((30, 0))
TREES = {"kind": "lightgbm"}
SEVERAL = {
    "good": {**TREES, "seeds": [0, 1]}, "fair": {**TREES, "seeds": [0, 10, 2]}, "poor": {**TREES, "num_leaves": 4},
}  # fmt: skip


def opened(folder: Path, n_train: int = 150, **sections: object) -> Run:
    path = fake_competition(folder, n_train, **sections)
    prepare_and_fake_jobs(path)
    return open_run(str(path))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def submitted(run: Run, file: str = "submission.csv") -> np.ndarray:
    return read_table(run.folder / file, ["id"]).set_index("id").loc[run.columns.test_ids, TARGETS].to_numpy()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A competition with a finished run, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        path = fake_competition(folder)
        prepare_and_fake_jobs(path)
        run_steps(path)
    yield folder


@pytest.fixture
def done(template: Path, tmp_path: Path) -> Path:
    """The YAML of a competition with a finished run."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return tmp_path / "mixed.yaml"


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
    some = submission_of(run)(columns.test[3:5], columns.test_inputs[3:5], NO_FEATURES[3:5])
    np.testing.assert_allclose(some, y_pred[3:5], rtol=1e-12)

    table = run.oof_table()
    assert list(table.columns) == ["id", "fold", *TARGETS, *(f"{s} {t}" for s in columns.names for t in TARGETS)]
    assert list(table["id"]) == columns.ids
    np.testing.assert_array_equal(table["fold"], columns.folds)
    np.testing.assert_array_equal(table[TARGETS], columns.y)
    np.testing.assert_array_equal(table["good depth"], columns.oof[:, 1, 1])
    as_csv = read_table(run.folder / "oof.csv", ["id"])
    np.testing.assert_array_equal(as_csv.drop(columns="id"), table.drop(columns="id"))


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
        (run.folder / ".blend.csv.1.tmp").write_text("half")
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
    again = run_steps(fake_competition(tmp_path, stages=reordered))
    assert again.name == run.name
    assert {name: (again.folder / name).read_bytes() for name in SUBMISSIONS} == before
    assert open_run(str(fake_competition(tmp_path / "moved"))).name == run.name
    assert open_run(str(fake_competition(tmp_path, submissions={"trials": 41}))).name != run.name
    assert open_run(str(fake_competition(tmp_path, submissions={"weights": "shared"}))).name != run.name
    assert open_run(str(fake_competition(tmp_path, competition={"answers": None}))).name == run.name


def test_unfinished_jobs_and_skipped_steps_are_named(done: Path) -> None:
    run = open_run(str(done))
    shutil.rmtree(run.folder)
    with pytest.raises(DataError, match=r"run\.json"):
        write(run)
    blend(run)
    with pytest.raises(DataError, match="the step stack has not run"):
        write(run)
    (run.plan.jobs[0].folder / "report.json").unlink()
    with pytest.raises(DataError, match=r"is not finished\. Run \./run\.sh train"):
        open_run(str(done))


def test_a_folder_of_an_earlier_version_is_recognised(done: Path) -> None:
    run = open_run(str(done))
    (run.folder / "run.json").write_text('{"run": "x", "config": {}, "stages": []}')
    with pytest.raises(DataError, match="was made by an earlier version of this code"):
        latest_run(str(done))


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


def test_rows_with_fold_minus_one_are_in_no_score(tmp_path: Path) -> None:
    path = fake_competition(tmp_path, submissions={"stack": False})
    prepare_and_fake_jobs(path)
    folds = Paths.of(str(path)).folds
    table = read_text_table(folds)
    never = table["id"].iloc[::10]
    write_table(folds, table.assign(fold=table["fold"].where(~table["id"].isin(never), "-1")))
    prepare_and_fake_jobs(path)
    run = open_run(str(path))
    blend(run)
    stored = pd.read_parquet(run.folder / "cross_fitted" / "shrunk_ridge.parquet").set_index("id")
    assert stored.loc[never].isna().all(axis=None)
    assert not stored["cross_fitted height"].drop(never).isna().any()


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


# Candidates


@pytest.mark.parametrize(
    ("metric", "settings", "more"),
    [
        ("r2", {"default": "convex"}, set()),
        ("r2", {"candidates": ["hill_climb", "greedy"]}, {"greedy", "hill_climb"}),
        ("spearman", {}, {"optuna"}),
    ],
)
def test_cheap_candidates_always_run_and_others_where_they_are_asked_for_or_needed(
    done: Path, metric: str, settings: dict, more: set[str]
) -> None:
    run = open_run(str(fake_competition(done.parent, competition={"metric": metric}, submissions=settings)))
    found = candidates_of(run, matrices_of(run, run.columns.oof))
    assert found == [name for name in CANDIDATES if name in {*ALWAYS, *more}]


OWN = """
from __future__ import annotations
from dataclasses import dataclass
import numpy as np

@dataclass
class Trimmed:
    part: float
    def predict(self, P):
        return np.clip(np.median(P, axis=1), P.mean(axis=1) - self.part, P.mean(axis=1) + self.part)

@dataclass
class Up:
    by: float
    def predict(self, y_pred, inputs):
        return y_pred + self.by

def trimmed(P, y, metric, folds, weights):
    return Trimmed(0.1)

def up(y_pred, y):
    return Up(1.5)

def score(y_true, y_pred):
    assert y_true.shape[1] == 2
    return float(np.nanmean(np.abs(y_true - y_pred) * [1.0, 3.0]))
"""


def test_all_candidates_and_what_is_the_users_own_go_all_the_way(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    settings = {"candidates": [*CANDIDATES, "mine.py:trimmed"], "weight_trials": 3, "postprocess": ["mine.py:up"]}
    own = {"metric": "mine.py:score", "greater_is_better": False}
    run = opened(tmp_path, 90, competition=own, submissions=settings, folds={"n_folds": 4})
    run_steps(tmp_path / "mixed.yaml")
    names = [*CANDIDATES, "mine.py:trimmed"]
    assert list(run.part("blend")["candidates"]) == sorted(names)
    assert set(run.part("choice")["candidates"]) == {*names, "lightgbm_stack", "ridge_stack"}
    for name in names:
        assert np.isfinite(candidate_of(run, name)(run.columns.test, NO_FEATURES)).all()
    (tried,) = run.part("choice")["postprocessing"]["height"]
    assert (tried["step"], tried["kept"]) == ("mine.py:up", False)
    run.keep("choice", {**run.part("choice"), "chosen": "mine.py:trimmed"}, ["cross_fitted.csv"])
    stored = latest_run(str(tmp_path / "mixed.yaml"))
    trimmed = np.median(run.columns.test, axis=1)
    assert np.abs(submission_of(stored)(run.columns.test, run.columns.test_inputs, NO_FEATURES) - trimmed).max() < 1
    assert run.metric.name == "mine.py:score"
    (tmp_path / "mine.py").write_text(OWN + "\n\nVERSION = 2\n")
    assert open_run(str(tmp_path / "mixed.yaml")).name != run.name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": ["greedy", "averaging"]}, r"submissions\.candidates\.1.*hill_climb.*averaging"),
        ({"default": "mine.txt:fit"}, "file.py:name"),
        ({"postprocess": ["klip"]}, "'klip'"),
        ({"postprocess": ["clip", "clip"]}, "must name each once; clip stands there again"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(str(fake_competition(tmp_path, submissions=settings)))


def test_what_a_stage_is_worth_is_the_default_refitted_without_it(done: Path, tmp_path: Path) -> None:
    run = open_run(str(done))
    part, columns = run.part("blend"), run.columns
    found, default = part["drop_one"], part["candidates"]["shrunk_ridge"]
    assert sorted(found) == ["fair", "good", "poor"]
    y_pred = cross_fitted(CANDIDATES["shrunk_ridge"], matrices_of(run, columns.oof[:, ~columns.of("good")]), 3)
    assert found["good"]["cross_fitted_score"] == pytest.approx(METRICS["rmse"](columns.y, y_pred))
    for each in found.values():
        assert each["difference"] == pytest.approx(each["cross_fitted_score"] - default["cross_fitted_score"])
    assert found["good"]["difference"] > 3 * found["good"]["standard_error"]  # the best stage is missed, clearly
    assert found["good"]["difference"] > found["fair"]["difference"] > found["poor"]["difference"]
    assert "shrunk_ridge without a stage: fair" in blend_step.describe(part)
    alone = blend(open_run(str(fake_competition(done.parent, stages={"good": {**TREES, "num_leaves": 4}}))))
    assert alone["drop_one"] == {} and "without a stage" not in blend_step.describe(alone)


def test_seeds_are_one_column_or_several_and_are_dropped_together(tmp_path: Path) -> None:
    averaged = opened(tmp_path, stages=SEVERAL)
    settings = {"seeds": "separate", "margin": 100, "stack": False}
    separate = open_run(str(fake_competition(tmp_path, stages=SEVERAL, submissions=settings)))
    one, several = averaged.columns, separate.columns
    assert one.names == ["fair", "good", "poor"]
    assert several.names == ["fair:0", "fair:10", "fair:2", "good:0", "good:1", "poor"]
    assert several.of("fair").tolist() == [True] * 3 + [False] * 3
    for stage in one.names:
        np.testing.assert_allclose(several.oof_of(stage), one.oof_of(stage), rtol=1e-12)
        np.testing.assert_allclose(several.test_of(stage), one.test_of(stage), rtol=1e-12)
    oof = pd.concat([pd.read_parquet(job.oof_file) for job in separate.plan.of("fair") if job.seed == 10])
    assert several.oof[:, 1, 1].tolist() == oof.set_index("id").loc[several.ids, "depth"].tolist()
    part = blend(separate)
    write(separate)
    assert set(part["candidates"]["convex"]["weights"]["height"]) == set(several.names)
    assert sorted(part["drop_one"]) == ["fair", "good", "poor"]
    y_pred = submission_of(separate)(several.test, several.test_inputs, NO_FEATURES)
    np.testing.assert_allclose(y_pred, submitted(separate), rtol=1e-6)


def test_shared_weights_are_the_same_for_all_targets_and_three_folds_have_no_stand_in(done: Path) -> None:
    run = open_run(str(fake_competition(done.parent, submissions={"weights": "shared", "stack": False})))
    for name, candidate in blend(run)["candidates"].items():
        height, depth = (candidate["weights"][target] for target in TARGETS)
        assert height == depth, name
    write(run)
    assert not {"best_single", "mean"} & set(run.part("choice")["procedure"]["chosen_without_fold"])


def test_a_metric_of_the_users_own_is_tuned_on_where_there_is_one_target(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import numpy as np\n\n\ndef score(y_true, y_pred):\n    assert y_true.shape[1] == 1\n"
        "    return float(np.nanmean(np.abs(y_true - y_pred) ** 0.5))\n"
    )
    own = {"metric": "own.py:score", "greater_is_better": False, "targets": ["height"]}
    run = opened(tmp_path, 60, competition=own, submissions={"weight_trials": 3})
    found = blend(run)["candidates"]
    assert found["optuna"]["in_sample_score"] <= found["convex"]["in_sample_score"] + 1e-12


# Stacks


def test_the_stack_is_the_submission_where_it_is_chosen(done: Path) -> None:
    settings = {"margin": 0.0, "default": "mean", "postprocess": []}
    run = run_steps(fake_competition(done.parent, submissions=settings))
    choice = run.part("choice")
    assert choice["default"] == "mean" != choice["chosen"]
    for step in ("stack", "blend"):
        run.keep("choice", {**choice, "chosen": run.part(step)["chosen"]}, ["cross_fitted.csv"])
        write(run)
        assert (run.folder / "submission.csv").read_bytes() == (run.folder / f"{step}.csv").read_bytes()


@pytest.mark.parametrize("name", stacks.STACKS)
def test_a_stored_stack_predicts_what_was_written(done: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(stacks, "simplest", lambda losses: len(losses) - 1)  # every correction is used
    monkeypatch.setattr(stack_step, "_best", lambda *_: name)
    own = {"name": "DecisionTreeRegressor", "parameters": {"max_depth": 2}}
    run = open_run(str(fake_competition(done.parent, submissions={"stack_features": True, "stack_regressor": own})))
    blend(run)
    stack(run)
    P, features = run.columns.test, features_of(run.config, run.paths.test, run.paths.cache)
    assert features.shape == (30, 2)
    found = candidate_of(run, name)(P, features)
    np.testing.assert_allclose(found, submitted(run, "stack.csv"), rtol=1e-6)
    assert (found != candidate_of(run, "shrunk_ridge")(P, NO_FEATURES)).any(axis=0).all()
    assert (found != candidate_of(run, name)(P, features[::-1])).any()
    (run.folder / "fitted" / "sklearn_stack.json").write_text("{}")
    with pytest.raises(DataError, match=r"changed or gone: fitted/sklearn_stack\.json"):
        candidate_of(run, name)


@pytest.mark.parametrize("only", ["all rows", "without a fold"])
def test_a_stack_without_a_scored_correction_is_the_default_and_is_not_chosen(
    done: Path, monkeypatch: pytest.MonkeyPatch, only: str
) -> None:
    """Corrections are found on all rows alone, where no held-out row tries them, or without each fold alone."""
    wanted = {3} if only == "all rows" else {1, 2}
    monkeypatch.setattr(stacks, "simplest", lambda losses: 3 if len(losses[0]) in wanted else 0)
    run = run_steps(fake_competition(done.parent, submissions={"margin": 0.0}))
    part, choice = run.part("stack"), run.part("choice")
    assert part["same_as_default"] == choice["same_as_default"] == ["lightgbm_stack", "ridge_stack"]
    assert choice["chosen"] not in part["same_as_default"]
    for name, candidate in part["candidates"].items():
        assert [correction for _, correction in read_json(run.folder / "fitted" / f"{name}.json")["parts"]] == [
            None,
            None,
        ]
        assert (candidate["difference"] != 0) == (only == "without a fold")
    default = candidate_of(run, "shrunk_ridge")(run.columns.test, NO_FEATURES)
    np.testing.assert_allclose(submitted(run, "stack.csv"), default, rtol=1e-6)
    assert "lightgbm_stack: no correction: the default blend" in stack_step.describe(part)


# Choice and post-processing


def test_what_is_submitted_is_post_processed_and_a_stored_run_repeats_it(tmp_path: Path) -> None:
    path = fake_competition(tmp_path, folds={"n_folds": 5}, submissions={"stack": False})
    prepare_and_fake_jobs(path, lambda y: np.exp(y / 3))
    run = open_run(str(path))
    blend(run)
    choice, _ = write(run)
    assert "isotonic" in [tried["step"] for tried in choice["postprocessing"]["height"] if tried["kept"]]
    chosen = choice["candidates"][choice["chosen"]]["cross_fitted_score"]
    assert max(choice["cross_fitted_score"], choice["procedure"]["cross_fitted_score"]) < chosen
    assert (run.folder / "submission.csv").read_bytes() != (run.folder / "blend.csv").read_bytes()
    labels = read_table(run.paths.train)["height"]
    assert read_table(run.folder / "submission.csv", ["id"])["height"].between(labels.min(), labels.max()).all()
    found = submission_of(latest_run(str(path)))(run.columns.test, run.columns.test_inputs, NO_FEATURES)
    np.testing.assert_allclose(found, submitted(run), rtol=1e-6)


def test_with_three_folds_no_step_is_tried_and_that_is_said(done: Path) -> None:
    run = open_run(str(done))
    choice = run.part("choice")
    assert choice["postprocessing"] == {"height": [], "depth": []}
    assert "post-processing: none; its honest score needs 4 folds or more" in describe(run, choice)


def test_known_labels_are_used_where_they_are_asked_for_and_nowhere_else(tmp_path: Path) -> None:
    files = {}
    for settings in ({}, {"postprocess": ["known_labels"]}):
        path = fake_competition(tmp_path, submissions={"stack": False, **settings})
        table, test = read_text_table(tmp_path / "train.csv"), read_text_table(tmp_path / "test.csv")
        table.loc[[0, 1], ["x", "z", "height"]] = [["7", "8", "10"], ["7", "8", "13"]]
        table.loc[[0, 1], "depth"] = ""
        test.loc[4, ["x", "z"]] = ["7", "8"]
        write_table(tmp_path / "train.csv", table)
        write_table(tmp_path / "test.csv", test)
        if not files:
            prepare_and_fake_jobs(path)
        run = open_run(str(path))
        blend(run)
        choice, _ = write(run)
        files[bool(settings)] = read_table(run.folder / "submission.csv", ["id"])
    assert files[True].loc[4, "height"] == 11.5 != files[False].loc[4, "height"]
    assert files[True].loc[4, "depth"] == files[False].loc[4, "depth"]  # its label is missing
    assert files[True].drop(4).equals(files[False].drop(4))
    said = "\n".join(describe(run, choice))
    assert "known_labels: 1 test rows have the mean label of their input; no score here knows of it" in said


def test_the_submission_is_held_against_the_best_single_stage_and_the_run_before(done: Path) -> None:
    first = open_run(str(done))
    before = first.part("choice")
    single, score = before["against"]["best_single"], before["procedure"]["cross_fitted_score"]
    assert before["against"]["previous_run"] is None
    assert single["name"] == "good"
    assert single["cv_score"] == pytest.approx(METRICS["rmse"](first.columns.y, first.columns.oof_of("good")))
    assert single["difference"] == pytest.approx(score - single["cv_score"])
    assert single["standard_error"] > 0
    for margin in (9.0, 8.0):
        settings = {"default": "mean", "margin": margin, "stack": False}
        run = open_run(str(fake_competition(done.parent, submissions=settings)))
        blend(run)
        choice, _ = write(run)
        previous = choice["against"]["previous_run"]
        if margin == 9.0:
            assert previous["name"] == first.name
            assert previous["difference"] == pytest.approx(choice["procedure"]["cross_fitted_score"] - score)
            worse = f"against the run before, {first.name}: {previous['difference']:#.5g} worse"
            assert worse in "\n".join(describe(run, choice))
            file = run.folder / "cross_fitted.csv"
            write_table(file, read_table(file, ["id"]).iloc[1:])
    assert previous is None  # it has other ids
    assert "against the run before: there is none with the same" in "\n".join(describe(run, choice))


def test_the_spread_is_the_standard_deviation_over_submissions_of_one_model_per_stage(tmp_path: Path) -> None:
    """`good` has two seeds and `fair` one, three folds: six members, `fair` twice in each of its folds."""
    stages = {"good": {**TREES, "num_leaves": 4, "seeds": [0, 1], "final_fit": "both"}, "fair": {**TREES}}
    run = opened(tmp_path, stages=stages, submissions={"stack": False, "default": "mean", "margin": 1e6})
    blend(run)
    write(run)
    ids = run.columns.test_ids
    of = {
        (job.stage, job.seed, job.fold): read_predictions(job.test_file(run.plan.test_key), ids, TARGETS)
        for job in run.plan.jobs
    }
    members = [(of["good", seed, fold] + of["fair", 0, fold]) / 2 for seed in (0, 1) for fold in range(3)]
    table = read_table(run.folder / "spread.csv", ["id"])
    assert list(table["id"]) == ids
    np.testing.assert_allclose(table[TARGETS], np.std(members, axis=0, ddof=1), rtol=1e-9)


# What stages did, and what is left out


def test_what_a_reader_has_to_know_of_a_stage_is_marked(done: Path) -> None:
    saw = {"kind": "bert", "pretrain_epochs": 1, "pretrain_on": "all_inputs"}
    shutil.rmtree(done.parent / "work")
    run = opened(done.parent, stages={"good": TREES, "fair": saw, "poor": {**TREES, "final_fit": "refit"}})
    other = [replace(job, other_code=job.stage == "good") for job in run.plan.jobs]
    blend(replace(run, plan=replace(run.plan, jobs=other)))
    marks = {stage["name"]: stage["marks"] for stage in run.stored["stages"]}
    assert marks == {"good": ["other code"], "fair": ["saw test inputs"], "poor": ["refit"]}


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
    config, paths = load_competition(str(path)), Paths.of(str(path))
    prepare(config, paths, path)
    make_folds(config, load_folds_config(str(path)), paths)
    train(config, paths, plan(config, load_stages(str(path)), paths), 1)
    run = open_run(str(path))
    blend(run)
    write(run)
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


def lose(run: Run, stage: str, job: int) -> None:
    (run.plan.of(stage)[job].folder / "report.json").unlink()


def test_a_stage_that_a_budget_cut_is_in_no_column_and_the_run_is_that_of_a_yaml_without_it(done: Path) -> None:
    whole = open_run(str(done))
    lose(whole, "poor", 1)
    with pytest.raises(DataError, match="every job must be finished"):
        open_run(str(done))
    run = open_run(str(done), budget=7200)
    assert run.columns.names == ["fair", "good"]
    assert run.left_out == ("poor: 2 of 3 jobs finished within the budget of 2 h; left out",)
    blend(run)
    assert sorted(run.stored["config"]["stages"]) == ["fair", "good"]
    stages = {name: {**TREES, "num_leaves": leaves} for name, leaves in (("good", 4), ("fair", 5))}
    without = open_run(str(fake_competition(done.parent, stages=stages)))
    assert (run.name, run.made_from) == (without.name, without.made_from)
    assert whole.name != run.name


def test_a_stage_without_test_predictions_or_its_refit_is_cut_and_a_seed_alone_where_others_are_whole(
    tmp_path: Path,
) -> None:
    stages = {"fair": {**TREES, "seeds": [3, 1, 2]}, "good": {**TREES, "final_fit": "refit"}, "poor": TREES}
    run = opened(tmp_path, 60, stages=stages)
    lose(run, "fair", 4)
    lose(run, "good", -1)
    run.plan.of("poor")[0].test_file(run.plan.test_key).unlink()
    cut, within = open_run(str(tmp_path / "mixed.yaml"), budget=1), "finished within the budget of 1 s; left out"
    assert list(cut.config.stages) == cut.columns.names == ["fair"]
    assert cut.left_out == (
        f"fair, seed 2: 2 of 3 jobs {within}", f"good: 3 of 4 jobs {within}", f"poor: 2 of 3 jobs {within}",
    )  # fmt: skip
    of_two_seeds = open_run(str(fake_competition(tmp_path, 60, stages={"fair": {**TREES, "seeds": [3, 1]}})))
    assert (cut.name, cut.made_from) == (of_two_seeds.name, of_two_seeds.made_from)
    for job in run.plan.jobs:
        (job.folder / "report.json").unlink(missing_ok=True)
    fake_competition(tmp_path, 60, stages=stages)
    with pytest.raises(DataError, match=r"all jobs of a seed within the budget of 1 s, and none did \(fair: 0 of 9"):
        open_run(str(tmp_path / "mixed.yaml"), budget=1)
