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
from models.jobs.compute import rows_of_job
from models.jobs.plan import Job, JobPlan
from models.jobs.run_job import run_job
from tests.conftest import mixed_tables
from tests.models.jobs.common import GNN, TREES, InlineExecutor, planned

TRAIN, TEST = (table.assign(SMILES=table["SMILES"].map(canonical_smiles)) for table in mixed_tables())
NEW = ["C" * n + "Br" for n in range(5, 15)]
ONLY_MOLECULES = {"targets": ["lumo"], "text": [], "numeric": [], "categorical": []}
HEADS = {**GNN, "epochs": 1}
FEATURES = {**TREES, "features": ["maccs"]}


def respelled(smiles: str) -> str:
    """The same molecule by another string: hydrogens are written, and the atoms are in the reverse order."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    order = list(range(molecule.GetNumAtoms()))[::-1]
    return str(Chem.MolToSmiles(Chem.RenumberAtoms(molecule, order), canonical=False))


def plan_with_assay(folder: Path, assay: Any, **stages: Any) -> JobPlan:
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


def is_held_out(plan: JobPlan, fold: int) -> Any:
    folds = read_folds(plan.paths.folds, list(read_table(plan.paths.train)["id"]))
    return folds[: len(TRAIN)] == fold


def test_rows_of_held_out_and_test_molecules_leave_and_the_others_reach_only_stages_with_heads(
    tmp_path: Path,
) -> None:
    stages = {"heads": HEADS, "headless": {**GNN, "auxiliary_weight": 0}, "trees": FEATURES}
    plan = plan_with_assay(tmp_path, LABELS, **stages, ignoring={**GNN, "extra_rows": "ignore"})
    for job in plan.jobs:
        train = rows_of_job(job, plan).train
        held_out = set(TRAIN["SMILES"][is_held_out(plan, job.fold)])
        salts = {f"{text}.Cl" for text in held_out}
        assert not {*train.inputs["SMILES"]} & {*held_out, *salts, *TEST["SMILES"]}
        n_own = len(TRAIN) - len(held_out)
        assert train.is_labelled.sum() == n_own  # no extra row has a label of the target
        # Each training molecule is there a second time, as a salt a third time, and the new ones once.
        n_heads = 2 * n_own + len(NEW) if job.stage == "heads" else 0
        assert (len(train), np.isfinite(train.auxiliary).sum()) == (n_own + n_heads, n_heads)
    refit = Job("heads", 0, REFIT_FOLD, tmp_path)
    assert len(rows_of_job(refit, plan).train) == 3 * len(TRAIN) + len(NEW)


def test_the_label_of_a_held_out_or_test_molecule_changes_no_prediction_of_its_fold(tmp_path: Path) -> None:
    """Another fold does see these labels, or this test could not fail."""

    def predictions(assay: Any) -> list[pd.DataFrame]:
        plan = plan_with_assay(tmp_path, assay, heads=HEADS)
        for job in plan.jobs[:2]:
            assert run_job(job, plan).status == "ok"
        first, second, _ = plan.jobs
        mean = read_json(first.folder / "training.json")["mean"]
        assert mean[1] == pytest.approx(np.nanmean(rows_of_job(first, plan).train.auxiliary))
        files = first.oof_file, first.test_file(plan.test_key), second.oof_file
        return [read_table(file) for file in files]

    before = predictions(LABELS)
    of_fold = is_held_out(plan_with_assay(tmp_path, LABELS, heads=HEADS), 0)
    is_secret = np.concatenate([of_fold, np.ones(len(TEST), bool), of_fold, np.zeros(len(NEW), bool)])
    after = predictions(np.where(is_secret, -1000.0, LABELS))
    assert list(before[0]) == ["id", "lumo"]
    assert [first.equals(second) for first, second in zip(before, after, strict=True)] == [True, True, False]


def test_rows_that_only_train_heads_allow_a_budget_no_fewer_epochs(tmp_path: Path) -> None:
    """40,000 rows suffice a network, but the 40 training rows of a fold have been seen often enough only after 1,000
    epochs. With all 127 rows that the fold trains on, a quarter of 1,500 epochs would do.
    """
    plan = plan_with_assay(tmp_path, LABELS, heads={**GNN, "epochs": 1500})
    budget = Budget(plan, InlineExecutor(), Clock(time.monotonic(), 60.0))
    assert budget.states["heads"].shares == [1.0, 0.7, 0.5]
