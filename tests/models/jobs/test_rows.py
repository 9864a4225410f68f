"""Rows of extra and test tables that train: which jobs they reach, and that no held-out label does.

Some have only labels of an auxiliary target, and rows of the test table have pseudo-labels.
"""

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from competition.dataset import REFIT_FOLD
from competition.molecules import canonical_smiles
from competition.task import Task
from core.errors import ConfigError, DataError
from core.files import read_json, read_table, write_table
from folds.make import read_folds
from models.jobs.compute import pseudo_labels
from models.jobs.job import Job, write_predictions
from models.jobs.plan import make_plan
from models.jobs.run_job import run_job
from models.jobs.train import train
from submissions.config import load_config
from tests.conftest import mixed_tables, write_competition
from tests.models.jobs.common import GNN, TREES, InlineExecutor, planned, rows_of

TRAIN, TEST = (table.assign(SMILES=table["SMILES"].map(canonical_smiles)) for table in mixed_tables())
NEW = ["C" * n + "Br" for n in range(5, 15)]
ONLY_MOLECULES = {"targets": ["lumo"], "text": [], "numeric": [], "categorical": []}
HEADS = {**GNN, "epochs": 1}
FEATURES = {**TREES, "features": ["maccs"]}


def respelled(smiles):
    """The same molecule by another string: hydrogens are written, and the atoms are in the reverse order."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    order = list(range(molecule.GetNumAtoms()))[::-1]
    return str(Chem.MolToSmiles(Chem.RenumberAtoms(molecule, order), canonical=False))


def plan_with_assay(folder, assay, **stages):
    """Jobs of a competition with an extra table that has only an auxiliary target, `logD`.

    Args:
        assay: its labels: of all training molecules, of all test molecules, of the hydrochlorides of the training
            molecules, of `NEW`.
    """
    salts = [f"{smiles}.Cl" for smiles in TRAIN["SMILES"]]
    molecules = [*map(respelled, [*TRAIN["SMILES"], *TEST["SMILES"]]), *salts, *NEW]
    write_table(folder / "assay.csv", pd.DataFrame({"structure": molecules, "logD": assay}))
    extra = {"file": "assay.csv", "columns": {"SMILES": "structure"}}
    roles = {**ONLY_MOLECULES, "auxiliary_targets": ["logD"], "extra_train": [extra]}
    return planned(folder, stages=stages, competition=roles)


LABELS = np.arange(2 * len(TRAIN) + len(TEST) + len(NEW)) % 7 + 0.5


def is_held_out(plan, fold):
    folds = read_folds(plan.paths.folds, list(read_table(plan.paths.train)["id"]))
    return folds[: len(TRAIN)] == fold


def test_rows_of_held_out_molecules_leave_and_other_assays_reach_only_stages_with_heads(
    tmp_path,
):
    stages = {"heads": HEADS, "headless": {**GNN, "auxiliary_weight": 0}, "trees": FEATURES}
    plan = plan_with_assay(tmp_path, LABELS, **stages, ignoring={**GNN, "extra_rows": "ignore"})
    for job in plan.jobs:
        train = rows_of(job, plan).train
        held_out = set(TRAIN["SMILES"][is_held_out(plan, job.fold)])
        salts = {f"{text}.Cl" for text in held_out}
        assert not {*train.inputs["SMILES"]} & {*held_out, *salts}
        n_own = len(TRAIN) - len(held_out)
        assert train.is_labelled.sum() == n_own  # no extra row has a label of the target
        # Each training molecule is there a second time, as a salt a third time, and test and new ones once.
        n_heads = 2 * n_own + len(TEST) + len(NEW) if job.stage == "heads" else 0
        assert (len(train), np.isfinite(train.auxiliary).sum()) == (n_own + n_heads, n_heads)
    refit = Job("heads", 0, REFIT_FOLD, tmp_path)
    assert len(rows_of(refit, plan).train) == 3 * len(TRAIN) + len(TEST) + len(NEW)


def test_the_label_of_a_held_out_molecule_changes_no_prediction_of_its_fold(tmp_path):
    """Another fold does see these labels, or this test could not fail."""

    def predictions(assay):
        plan = plan_with_assay(tmp_path, assay, heads=HEADS)
        for job in plan.jobs[:2]:
            assert run_job(job, plan).status == "ok"
        first, second, _ = plan.jobs
        mean = read_json(first.folder / "training.json")["mean"]
        assert mean[1] == pytest.approx(np.nanmean(rows_of(first, plan).train.auxiliary))
        files = first.oof_file, first.test_file(plan.test_key), second.oof_file
        return [read_table(file) for file in files]

    before = predictions(LABELS)
    of_fold = is_held_out(plan_with_assay(tmp_path, LABELS, heads=HEADS), 0)
    is_secret = np.concatenate([of_fold, np.zeros(len(TEST), bool), of_fold, np.zeros(len(NEW), bool)])
    after = predictions(np.where(is_secret, -1000.0, LABELS))
    assert list(before[0]) == ["id", "lumo"]
    assert [first.equals(second) for first, second in zip(before, after, strict=True)] == [True, True, False]


def test_bounds_and_weights_of_an_extra_table_reach_the_rows(tmp_path):
    more = pd.DataFrame({"SMILES": NEW[:3], "lumo": ["1", ">3", ""], "logD": ["<5", "", "4"]})
    write_table(tmp_path / "more.csv", more)
    extra = {"file": "more.csv", "weight": 0.3, "check_units": False}
    roles = {**ONLY_MOLECULES, "auxiliary_targets": ["logD"], "censored": "bound", "extra_train": [extra]}
    plan = planned(tmp_path, stages={"one": GNN}, competition=roles)
    rows = rows_of(plan.jobs[0], plan).train
    first, second = (rows.ids.index(f"extra0_{number}") for number in (2, 3))
    assert (rows.y[first, 0], rows.bounds[second, 0, 0], rows.bounds[first, 1, 1]) == (1, 3, 5)
    assert rows.weights[[first, second]].tolist() == [0.3, 0.3]


SOURCE = {**TREES, "max_trees": 20}
LEARNER = {**SOURCE, "parameters": {"num_leaves": 4}, "pseudo_labels": {"stages": ["source"], "weight": 0.3}}


def made(folder, source=SOURCE, learner=LEARNER, **more):
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
    problem_type, predictions, label, tmp_path
):
    """Two seeds of `a` and one of `b`, and nothing of the learner's own folds."""
    task, needs = Task(["y"], None, problem_type, ["a", "b", "c"]), []
    of_learner = np.full_like(predictions[0], 1000.0)
    for name, values in zip(("a", "a", "b", "learner"), [*predictions, of_learner], strict=True):
        needs.append(Job(name, 0, 0, tmp_path / f"{len(needs)}"))
        table = np.array([values, np.full_like(values, 9.0)])
        write_predictions(needs[-1].test_file("t"), ["p", "q"], task.outputs, table)
    job = Job("learner", 0, REFIT_FOLD, tmp_path, dependencies=tuple(needs))
    assert pseudo_labels(job, "t", ["q", "p"], task)[1].tolist() == [label]


def test_rows_that_only_train_are_in_the_groups_and_folds_of_the_training_rows(tmp_path):
    """The first test molecule is the hydrochloride of a training molecule, and so is an extra row."""
    train, test = mixed_tables()
    train[["note", "pH", "site"]] = test[["note", "pH", "site"]] = ["same", 7.0, "a"]
    test.loc[0, "SMILES"] = train["SMILES"][4] + ".Cl"
    write_table(tmp_path / "more.csv", train.loc[[4]].assign(SMILES=train["SMILES"][4] + ".Br"))
    extra = {"file": "more.csv", "check_units": False, "test_molecules": "train"}
    roles = {"extra_train": [extra]}
    job_plan = made(tmp_path, tables=(train, test), competition=roles)
    for job in job_plan.jobs_of_stage("source"):
        run_job(job, job_plan)
    held_out = read_folds(job_plan.paths.folds, [*train["id"], "extra0_2"])[4]
    for job in job_plan.jobs_of_stage("learner"):
        rows = rows_of(job, job_plan)
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


def test_labels_of_the_held_out_fold_reach_no_pseudo_label_of_its_job(tmp_path):
    """Those of another fold's job and of the refit do change, or this test could not fail."""
    plan = made(tmp_path, learner={**LEARNER, "final_fit": "both"})

    def labels():
        """What each job of the learner is told about the test rows, after all jobs of its source were trained."""
        now = make_plan(plan.competition, plan.stages)
        for job in now.jobs_of_stage("source"):
            run_job(job, now)
        told = {job.fold: rows_of(job, now).train for job in now.jobs_of_stage("learner")}
        return {fold: train.y[train.weights == 0.3, 0].tolist() for fold, train in told.items()}

    before = labels()
    prepared = read_table(plan.paths.train)
    held_out = read_folds(plan.paths.folds, list(prepared["id"])) == 0
    write_table(plan.paths.train, prepared.assign(lumo=prepared["lumo"].where(~held_out, -1000.0)))
    after = labels()
    assert {fold: len(told) for fold, told in after.items()} == dict.fromkeys((0, 1, 2, REFIT_FOLD), 20)
    assert {fold for fold in after if after[fold] == before[fold]} == {0}


def test_a_fold_needs_that_fold_of_every_source_and_a_refit_all_of_them(tmp_path):
    both = {"final_fit": "both"}
    plan = made(tmp_path, {**SOURCE, **both, "seeds": [0, 1]}, {**LEARNER, **both})
    *folds, refit = [{need.title for need in job.dependencies} for job in plan.jobs_of_stage("learner")]
    for fold, needs in enumerate(folds):
        assert needs == {f"source/seed_0/fold_{fold}", f"source/seed_1/fold_{fold}"}
    assert refit == set.union(*folds) | {f"learner/seed_0/fold_{fold}" for fold in range(3)}


def test_a_refit_gets_the_folders_of_its_folds(tmp_path):
    plan = planned(tmp_path, stages={"trees": {**TREES, "final_fit": "both"}})
    *folds, refit = plan.jobs
    assert rows_of(refit, plan).context.fold_model_dirs == [job.folder for job in folds]


def test_the_key_follows_the_source_its_seeds_the_weight_and_the_test_table(tmp_path):
    def key(source=SOURCE, learner=LEARNER, **more):
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


def test_a_run_trains_the_source_first_and_a_stage_alone_reports_what_is_missing(tmp_path, capsys):
    job_plan = made(tmp_path)
    message = r"3 jobs need finished jobs of source; run \./run\.sh train with --stages"
    with pytest.raises(DataError, match=message):
        train(job_plan.select(["learner"]), InlineExecutor())
    train(job_plan.select(fold=1), InlineExecutor())
    assert [job.finished for job in job_plan.jobs] == [False, True, False, False, True, False]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["source", "learner"]


@pytest.mark.parametrize("of", ["nobody", "learner", "taught"])
def test_a_stage_that_cannot_label_is_refused_by_name(tmp_path, of):
    learner = {**LEARNER, "pseudo_labels": {"stages": [of]}}
    stages = {"source": SOURCE, "taught": LEARNER, "learner": learner}
    path = write_competition(tmp_path, *mixed_tables(), stages=stages)
    with pytest.raises(ConfigError, match=rf"\(source.*\); got {of} \(of learner\)"):
        load_config(str(path))
