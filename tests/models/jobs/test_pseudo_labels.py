"""Pseudo-labels: where they come from, that a fold's own labels never reach them, and what they do to a key."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.dataset import REFIT_FOLD
from competition.task import Task
from core.errors import ConfigError, DataError
from core.files import read_table, write_table
from folds.make import read_folds
from models.jobs.compute import pseudo_labels, rows_of_job
from models.jobs.plan import Job, JobPlan, make_plan
from models.jobs.predictions import write_predictions
from models.jobs.run_job import run_job
from models.jobs.train import train
from submissions.config import load_config
from tests.conftest import mixed_tables, write_competition
from tests.models.jobs.common import TREES, InlineExecutor, planned

SOURCE = {**TREES, "max_trees": 20}
LEARNER = {**SOURCE, "parameters": {"num_leaves": 4}, "pseudo_labels": {"stages": ["source"], "weight": 0.3}}


def made(
    folder: Path, source: dict[str, Any] = SOURCE, learner: dict[str, Any] = LEARNER, **more: Any
) -> JobPlan:
    """A learner above its source: the order of the YAML does not matter."""
    return planned(folder, stages={"learner": learner, "source": source}, **more)


@pytest.mark.parametrize(
    ("problem_type", "predictions", "label"),
    [
        ("regression", [[1.0], [3.0], [6.0]], 4.0),  # (2 + 6) / 2
        ("ordinal", [[1.0], [1.0], [1.5]], 1.25),  # a grade stays a number
        (
            "multiclass",
            [[0.8, 0.2, 0.0], [0.4, 0.6, 0.0], [0.0, 0.5, 0.5]],
            1.0,
        ),  # the likeliest of (.3, .45, .25)
    ],
)
def test_labels_are_those_of_the_mean_over_stages_each_over_its_jobs(
    problem_type: Any, predictions: list[list[float]], label: float, tmp_path: Path
) -> None:
    """Two seeds of `a` and one of `b`, and nothing of the learner's own folds."""
    task, needs = Task(["y"], None, problem_type, ["a", "b", "c"]), []
    of_learner = np.full_like(predictions[0], 1000.0)
    for name, values in zip(("a", "a", "b", "learner"), [*predictions, of_learner], strict=True):
        needs.append(Job(name, 0, 0, tmp_path / f"{len(needs)}"))
        table = np.array([values, np.full_like(values, 9.0)])
        write_predictions(needs[-1].test_file("t"), ["p", "q"], task.outputs, table)
    job = Job("learner", 0, REFIT_FOLD, tmp_path, dependencies=tuple(needs))
    assert pseudo_labels(job, "t", ["q", "p"], task)[1].tolist() == [label]


def test_rows_that_only_train_are_in_the_groups_and_folds_of_the_training_rows(tmp_path: Path) -> None:
    """The first test molecule is the hydrochloride of a training molecule, and so is an extra row."""
    train, test = mixed_tables()
    train[["note", "pH", "site"]] = test[["note", "pH", "site"]] = ["same", 7.0, "a"]
    test.loc[0, "SMILES"] = train["SMILES"][4] + ".Cl"
    write_table(tmp_path / "more.csv", train.loc[[4]].assign(SMILES=train["SMILES"][4] + ".Br"))
    roles = {"extra_train": [{"file": "more.csv", "check_units": False}]}
    job_plan = made(tmp_path, tables=(train, test), competition=roles)
    for job in job_plan.jobs_of_stage("source"):
        run_job(job, job_plan)
    held_out = read_folds(job_plan.paths.folds, [*train["id"], "extra0_2"])[4]
    for job in job_plan.jobs_of_stage("learner"):
        rows = rows_of_job(job, job_plan)
        ids = rows.train.ids
        if job.fold == held_out:
            assert not {train["id"][4], "extra0_2"} & set(ids)
            continue
        places = [ids.index(name) for name in (train["id"][4], "extra0_2", test["id"][0])]
        assert len(set(rows.train.groups[places])) == 1
        assert rows.context.fold_ids[places].tolist() == [held_out] * 3
        assert rows.train.weights[places].tolist() == [1, 1, 0.3]
        assert rows.train.extra[places].tolist() == [False, True, False]
        assert rows.context.fold_ids[ids.index(test["id"][1])] == REFIT_FOLD


def test_labels_of_the_held_out_fold_reach_no_pseudo_label_of_its_job(tmp_path: Path) -> None:
    """Those of another fold's job and of the refit do change, or this test could not fail."""
    plan = made(tmp_path, learner={**LEARNER, "final_fit": "both"})

    def labels() -> dict[int, list[float]]:
        """What each job of the learner is told about the test rows, after all jobs of its source were trained."""
        now = make_plan(plan.competition, plan.stages)
        for job in now.jobs_of_stage("source"):
            run_job(job, now)
        told = {job.fold: rows_of_job(job, now).train for job in now.jobs_of_stage("learner")}
        return {fold: train.y[train.weights == 0.3, 0].tolist() for fold, train in told.items()}

    before = labels()
    prepared = read_table(plan.paths.train)
    held_out = read_folds(plan.paths.folds, list(prepared["id"])) == 0
    write_table(plan.paths.train, prepared.assign(lumo=prepared["lumo"].where(~held_out, -1000.0)))
    after = labels()
    assert {fold: len(told) for fold, told in after.items()} == dict.fromkeys((0, 1, 2, REFIT_FOLD), 20)
    assert {fold for fold in after if after[fold] == before[fold]} == {0}


def test_a_fold_needs_that_fold_of_every_source_and_a_refit_all_of_them(tmp_path: Path) -> None:
    both = {"final_fit": "both"}
    plan = made(tmp_path, {**SOURCE, **both, "seeds": [0, 1]}, {**LEARNER, **both})
    *folds, refit = [{need.title for need in job.dependencies} for job in plan.jobs_of_stage("learner")]
    for fold, needs in enumerate(folds):
        assert needs == {f"source/seed_0/fold_{fold}", f"source/seed_1/fold_{fold}"}
    assert refit == set.union(*folds) | {f"learner/seed_0/fold_{fold}" for fold in range(3)}


def test_the_key_follows_the_source_its_seeds_the_weight_and_the_test_table(tmp_path: Path) -> None:
    def key(source: dict[str, Any] = SOURCE, learner: dict[str, Any] = LEARNER, **more: Any) -> str:
        return made(tmp_path, source, learner, **more).keys["learner"]

    plain, (train, test) = key(), mixed_tables()
    assert key({**SOURCE, "final_fit": "both"}) == plain
    others = [
        key({**SOURCE, "parameters": {"num_leaves": 7}}),
        key({**SOURCE, "seeds": [0, 1]}),
        key(learner={**LEARNER, "pseudo_labels": {"stages": ["source"], "weight": 0.5}}),
        key(learner={**SOURCE, "parameters": {"num_leaves": 4}}),
        key(tables=(train, test.assign(note="other words"))),
    ]
    assert len({plain, *others}) == 6


def test_a_run_trains_the_source_first_and_a_stage_alone_reports_what_is_missing(
    tmp_path: Path, capsys: Any
) -> None:
    job_plan = made(tmp_path)
    message = r"3 jobs need finished jobs of source; run \./run\.sh train with --stages"
    with pytest.raises(DataError, match=message):
        train(job_plan.select(["learner"]), InlineExecutor())
    train(job_plan.select(fold=1), InlineExecutor())
    assert [job.finished for job in job_plan.jobs] == [False, True, False, False, True, False]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["source", "learner"]


@pytest.mark.parametrize("of", ["nobody", "learner", "taught"])
def test_a_stage_that_cannot_label_is_refused_by_name(tmp_path: Path, of: str) -> None:
    learner = {**LEARNER, "pseudo_labels": {"stages": [of]}}
    stages = {"source": SOURCE, "taught": LEARNER, "learner": learner}
    path = write_competition(tmp_path, *mixed_tables(), stages=stages)
    with pytest.raises(ConfigError, match=rf"\(source.*\); got {of} \(of learner\)"):
        load_config(str(path))
