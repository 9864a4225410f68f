"""Extra rows with labels of auxiliary targets only: which jobs they reach, and that no held-out label does."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from competition.dataset import REFIT_FOLD
from competition.molecules import canonical_smiles
from core.files import read_json, read_table, write_table
from folds.make import read_folds
from models.jobs.budget import Budget
from models.jobs.budget_stages import Clock
from models.jobs.compute import read_tables, rows_of_job
from models.jobs.plan import Job, JobPlan
from models.jobs.run_job import run_job
from models.jobs.tasks import cache_tasks
from tests.conftest import mixed_tables
from tests.models.jobs.common import GNN, TREES, InlineExecutor, planned
from tests.models.published import small_unimol2

TRAIN, TEST = (table.assign(SMILES=table["SMILES"].map(canonical_smiles)) for table in mixed_tables())
NEW = ["C" * n + "Br" for n in range(5, 15)]
ONLY_MOLECULES = {"targets": ["lumo"], "text": [], "numeric": [], "categorical": []}
STAGES = {
    "heads": {**GNN, "epochs": 1},
    "headless": {**GNN, "auxiliary_weight": 0},
    "ignoring": {**GNN, "extra_rows": "ignore"},
    "trees": {**TREES, "features": ["maccs"]},
    "process": {"kind": "gp"},
    "linear": {"kind": "sklearn", "estimator": "sklearn.linear_model.Ridge", "features": ["maccs"]},
}


def respelled(smiles: str) -> str:
    """The same molecule by another string: hydrogens are written, and the atoms are in the reverse order."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    order = list(range(molecule.GetNumAtoms()))[::-1]
    text = Chem.MolToSmiles(Chem.RenumberAtoms(molecule, order), canonical=False)
    assert text != smiles
    return str(text)


def plan_with_assay(folder: Path, assay: Any, stages: dict[str, Any] = STAGES) -> JobPlan:
    """Jobs of a competition with an extra table that has only an auxiliary target, `logD`.

    Args:
        assay: its labels: of all training molecules, of all test molecules, of the hydrochlorides of the training
            molecules, of `NEW`.
    """
    known = [*TRAIN["SMILES"], *TEST["SMILES"]]
    salts = [f"{smiles}.Cl" for smiles in TRAIN["SMILES"]]
    molecules = [*map(respelled, known), *salts, *NEW]
    write_table(folder / "assay.csv", pd.DataFrame({"structure": molecules, "logD": assay}))
    extra = {"file": "assay.csv", "columns": {"SMILES": "structure"}}
    roles = {**ONLY_MOLECULES, "auxiliary_targets": ["logD"], "extra_train": [extra]}
    return planned(folder, stages=stages, competition=roles)


N = 2 * len(TRAIN) + len(TEST) + len(NEW)
LABELS = np.arange(N) % 7 + 0.5


def held_out_molecules(plan: JobPlan, fold: int) -> set[str]:
    folds = read_folds(plan.paths.folds, list(read_table(plan.paths.train)["id"]))[: len(TRAIN)]
    return set(TRAIN["SMILES"][folds == fold])


def test_rows_of_held_out_and_test_molecules_leave_and_the_others_reach_only_stages_with_heads(
    tmp_path: Path,
) -> None:
    plan = plan_with_assay(tmp_path, LABELS)
    n_labelled = []
    for stage in STAGES:
        for job in plan.jobs_of_stage(stage):
            train = rows_of_job(job, plan).train
            n_own = len(TRAIN) - len(held_out_molecules(plan, job.fold))
            assert train.is_labelled.sum() == n_own  # no extra row has a label of the target
            assert train.auxiliary is not None
            smiles = set(train.inputs["SMILES"])
            held_out = held_out_molecules(plan, job.fold)
            assert not smiles & {*held_out, *(f"{text}.Cl" for text in held_out), *TEST["SMILES"]}
            # Each training molecule is there a second time, as a salt a third time, and the new ones once.
            n_heads = 2 * n_own + len(NEW) if stage == "heads" else 0
            assert len(train) == n_own + n_heads
            n_labelled.append(np.isfinite(train.auxiliary).sum() == n_heads)
    assert all(n_labelled)


def test_a_refit_has_all_rows_except_those_of_test_molecules(tmp_path: Path) -> None:
    plan = plan_with_assay(tmp_path, LABELS)
    refit = Job("heads", 0, REFIT_FOLD, tmp_path)
    assert len(rows_of_job(refit, plan).train) == 3 * len(TRAIN) + len(NEW)


def predictions(plan: JobPlan, fold: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    job = plan.jobs_of_stage("heads")[fold]
    assert run_job(job, plan).status == "ok"
    return read_table(job.oof_file), read_table(job.test_file(plan.test_key))


def test_the_label_of_a_held_out_or_test_molecule_changes_no_prediction_of_its_fold(tmp_path: Path) -> None:
    """Another fold does see these labels, or this test could not fail."""
    stages = {"heads": STAGES["heads"]}
    plan = plan_with_assay(tmp_path, LABELS, stages)
    of_fold = TRAIN["SMILES"].isin(held_out_molecules(plan, 0)).to_numpy()
    before = [predictions(plan, fold) for fold in (0, 1)]
    is_secret = np.concatenate([of_fold, np.ones(len(TEST), bool), of_fold, np.zeros(len(NEW), bool)])
    changed = plan_with_assay(tmp_path, np.where(is_secret, -1000.0, LABELS), stages)
    assert plan.keys != changed.keys
    after = [predictions(changed, fold) for fold in (0, 1)]
    assert before[0][0].equals(after[0][0])
    assert before[0][1].equals(after[0][1])
    assert not before[1][0].equals(after[1][0])


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "gnn", "width": 16, "hidden_width": 16},
        {"kind": "unimol", "layers": 1, "width": 16, "heads": 2},
        {"kind": "unimol2"},
        {"kind": "bert", "layers": 1, "width": 16, "heads": 2},
    ],
    ids=lambda settings: settings["kind"],
)
@small_unimol2()
def test_every_neural_kind_trains_a_head_on_the_labels_of_other_molecules(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    plan = plan_with_assay(tmp_path, LABELS, {"net": {**settings, "epochs": 1}})
    job = plan.jobs[0]
    auxiliary = rows_of_job(job, plan).train.auxiliary
    assert auxiliary is not None
    assert run_job(job, plan).status == "ok"
    mean = read_json(job.folder / "training.json")["mean"]
    assert mean[1] == pytest.approx(np.nanmean(auxiliary))
    assert list(read_table(job.oof_file)) == ["id", "lumo"]


def test_caches_of_stages_without_heads_have_no_molecule_that_only_trains_heads(tmp_path: Path) -> None:
    stages = {"trees": STAGES["trees"], "heads": {**STAGES["heads"], "molecule_features": ["maccs"]}}
    plan = plan_with_assay(tmp_path, LABELS, stages)
    rows, test = read_tables(plan)

    def molecules(stage: str) -> set[str]:
        return {
            text for task in cache_tasks(plan, stage, [rows, test], set())[0] for text in task.arguments[1]
        }

    assert molecules("trees") == {*TRAIN["SMILES"], *TEST["SMILES"]}
    assert molecules("heads") > {*TRAIN["SMILES"], *TEST["SMILES"], *NEW}


def test_rows_that_only_train_heads_allow_a_budget_no_fewer_epochs(tmp_path: Path) -> None:
    """40,000 rows suffice a network, but the 40 training rows of a fold have been seen often enough only after 1,000
    epochs. With all 127 rows that the fold trains on, a quarter of 1,500 epochs would do.
    """
    plan = plan_with_assay(tmp_path, LABELS, {"heads": {**GNN, "epochs": 1500}})

    budget = Budget(plan, InlineExecutor(), Clock(time.monotonic(), 60.0))
    assert budget.states["heads"].shares == [1.0, 0.7, 0.5]
