"""Rows of extra tables that train: which jobs they reach, and that no held-out label does.

Some have only labels of an auxiliary target.
"""

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from competition.dataset import REFIT_FOLD
from competition.molecules import canonical_smiles
from core.files import read_json, read_table, write_table
from folds.make import read_folds
from models.jobs.job import Job
from models.jobs.run_job import run_job
from tests.conftest import mixed_tables
from tests.models.jobs.common import GNN, TREES, planned, rows_of

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
    return read_folds(plan.paths.folds, list(read_table(plan.paths.train)["id"])[: len(TRAIN)]) == fold


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


def test_rows_have_no_weights_if_all_are_1_so_that_estimators_without_weights_can_be_fitted(tmp_path):
    write_table(tmp_path / "more.csv", pd.DataFrame({"SMILES": NEW[:3], "lumo": ["1", "3", "2"]}))
    extra = {"file": "more.csv", "check_units": False}
    plan = planned(tmp_path, stages={"one": GNN}, competition={**ONLY_MOLECULES, "extra_train": [extra]})
    train = rows_of(plan.jobs[0], plan).train
    assert train.extra.sum() == 3 and train.weights is None


def test_extra_rows_are_in_the_groups_and_folds_of_the_training_rows(tmp_path):
    """An extra row is another salt of a training molecule."""
    train, test = mixed_tables()
    train[["note", "pH", "site"]] = ["same", 7.0, "a"]
    write_table(tmp_path / "more.csv", train.loc[[4]].assign(SMILES=train["SMILES"][4] + ".Br"))
    roles = {"extra_train": [{"file": "more.csv", "check_units": False}]}
    plan = planned(tmp_path, tables=(train, test), stages={"trees": TREES}, competition=roles)
    held_out = read_folds(plan.paths.folds, list(train["id"]))[4]
    for job in plan.jobs:
        rows = rows_of(job, plan)
        ids = rows.train.ids
        if job.fold == held_out:
            assert not {train["id"][4], "extra0_2"} & set(ids)
            continue
        places = [ids.index(name) for name in (train["id"][4], "extra0_2")]
        assert len(set(rows.train.groups[places])) == 1
        assert rows.context.fold_ids[places].tolist() == [held_out] * 2
        assert rows.train.extra[places].tolist() == [False, True]


@pytest.mark.parametrize("kind", ["kfold", "time"])
def test_with_folds_in_time_a_job_trains_on_earlier_rows_alone_extra_ones_included(tmp_path, kind):
    train, test = mixed_tables()
    dated = train.assign(day=range(60))
    write_table(tmp_path / "more.csv", dated.iloc[[0, 59]].assign(SMILES=NEW[:2]))
    roles = {"time": "day", "extra_train": [{"file": "more.csv", "check_units": False}]}
    tables = dated, test.assign(day=range(60, 80))
    plan = planned(tmp_path, tables=tables, folds={"kind": kind, "n_folds": 3}, competition=roles)
    for job in plan.jobs:
        rows = rows_of(job, plan)
        extra = {*rows.train.ids} & {"extra0_2", "extra0_3"}
        if kind == "time":
            assert rows.train.times.max() < rows.held_out.times.min()
            assert extra == {"extra0_2"}
        else:
            assert rows.train.times is None and len(extra) == 2


def test_a_refit_gets_the_folders_of_its_folds(tmp_path):
    plan = planned(tmp_path, stages={"trees": {**TREES, "final_fit": "both"}})
    *folds, refit = plan.jobs
    assert rows_of(refit, plan).context.fold_model_dirs == [job.folder for job in folds]
