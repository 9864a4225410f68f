"""Labels of another table in other units: each job calibrates them, and never by a held-out label."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.dataset import REFIT_FOLD, Dataset
from core.files import read_json, read_table, write_table
from folds.make import read_folds
from models.jobs.compute import UNUSED_LABELS, rows_of_job
from models.jobs.plan import REPORT, JobPlan
from models.jobs.run_job import run_job
from tests.conftest import SMOKE
from tests.models.jobs.common import planned

SOURCE = {"file": "more.csv", "columns": {"gap": "value"}, "calibrate": "affine"}
TREES = {"kind": "lightgbm", "n_bits": 64, "max_trees": 20, "final_fit": "both"}
SLOPE, INTERCEPT = -20.0, 55.0
WRONG = [5, 45]
"""Positions of wrong labels of the source, one of them of a training molecule."""


def tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Training and test rows, and a source in other units that has 30 training molecules and two wrong labels."""
    molecules = pd.read_csv(SMOKE / "train.csv")
    table = molecules[["SMILES"]].assign(
        id=[f"m{i}" for i in range(len(molecules))], gap=molecules["lumo_eV"]
    )
    train, test, more = table[:60], table[60:70], pd.concat([table[:30], table[70:110]], ignore_index=True)
    noise = np.random.default_rng(0).normal(0, 0.02, len(more))
    more["value"] = INTERCEPT + SLOPE * (more["gap"] + noise)
    more.loc[WRONG, "value"] += 400
    return train, test.drop(columns="gap"), more[["SMILES", "value"]]


def plan_with_source(
    folder: Path, more: pd.DataFrame | None = None, stage: Any = TREES, *others: Any, **roles: Any
) -> JobPlan:
    """A plan with the source, with more tables, and with more settings of the competition."""
    train, test, usual = tables()
    write_table(folder / "more.csv", usual if more is None else more)
    source = {**SOURCE, **roles.pop("source", {})}
    roles = {"targets": ["gap"], "text": [], "numeric": [], "categorical": [], **roles}
    roles["extra_train"] = [source, *others]
    return planned(folder, tables=(train, test), stages={"one": stage}, competition=roles)


def extra_rows(plan: JobPlan, fold: int) -> Dataset:
    """The extra rows that a job trains on."""
    job = next(job for job in plan.jobs if job.fold == fold)
    train = rows_of_job(job, plan).train
    return train.take(train.extra)


def position(extra_id: str) -> int:
    """Position in the source; the first row of labels is row 2 of the file."""
    return int(extra_id.removeprefix("extra0_")) - 2


def test_a_job_trains_on_calibrated_labels(tmp_path: Path) -> None:
    plan = plan_with_source(tmp_path, source={"weight": 0.3})
    _, _, more = tables()
    truth = (more["value"] - INTERCEPT) / SLOPE
    for fold in (0, 1, 2, REFIT_FOLD):
        extra = extra_rows(plan, fold)
        rows = [position(name) for name in extra.ids]
        np.testing.assert_allclose(extra.y[:, 0], truth[rows], atol=0.1)
        assert (extra.weights == 0.3).all()
    assert len(extra) == 70  # of the refit


def test_bounds_of_a_calibrated_table_are_dropped_and_those_of_another_one_stay(tmp_path: Path) -> None:
    """A bound in the units of the source is no label; one of an auxiliary target is."""
    assay = pd.DataFrame({"SMILES": ["CCCCCBr", "CCCCCCBr"], "gap": ["1", ">3"], "logD": ["5", ""]})
    write_table(tmp_path / "assay.csv", assay)
    other = {"file": "assay.csv", "weight": 0.3, "check_units": False}
    censored = pd.DataFrame({"SMILES": ["CCCCCCI", "CCCCCCCI"], "value": ["", ">3"], "logD": ["<1", ""]})
    more = pd.concat([tables()[2].astype({"value": str}), censored], ignore_index=True).fillna("")
    roles = {"auxiliary_targets": ["logD"], "censored": "bound", "source": {"check_units": False}}
    plan = plan_with_source(tmp_path, more, {"kind": "gnn", "final_fit": "both"}, other, **roles)
    extra = extra_rows(plan, REFIT_FOLD)
    position_of = {name: i for i, name in enumerate(extra.ids)}
    assert "extra0_73" not in position_of
    assert extra.bounds[position_of["extra0_72"], 1, 1] == 1
    assert extra.bounds[position_of["extra1_3"], 0, 0] == 3
    assert extra.weights[position_of["extra1_3"]] == 0.3


def test_labels_of_held_out_rows_change_nothing_in_their_fold(tmp_path: Path) -> None:
    """A canary: labels of fold 0 become absurd; only the other folds see it."""
    plan = plan_with_source(tmp_path)
    before = {fold: extra_rows(plan, fold).y for fold in (0, 1)}
    train = read_table(plan.paths.train)
    held_out = read_folds(plan.paths.folds, list(train["id"])) == 0
    write_table(plan.paths.train, train.assign(gap=np.where(held_out, -train["gap"] * 50, train["gap"])))
    np.testing.assert_array_equal(extra_rows(plan, 0).y, before[0])
    assert not np.array_equal(extra_rows(plan, 1).y, before[1])


def test_the_key_of_a_job_has_the_calibration(tmp_path: Path) -> None:
    affine = plan_with_source(tmp_path)
    assert plan_with_source(tmp_path, source={"calibrate": "isotonic"}).keys != affine.keys
    assert plan_with_source(tmp_path).keys == affine.keys


def test_a_job_whose_shared_labels_are_too_few_does_not_use_the_source_and_says_so(tmp_path: Path) -> None:
    """Ten training molecules are shared, so that every fold that holds one of them out has too few."""
    _, _, more = tables()
    few = more.iloc[[*range(10), *range(30, 70)]]
    plan = plan_with_source(tmp_path, few)
    folds = read_folds(plan.paths.folds, list(read_table(plan.paths.train)["id"]))
    for job in plan.jobs:
        n_held_out = (folds[:10] == job.fold).sum()
        message = (
            f"the labels of gap in more.csv are not used: the {10 - n_held_out} that are shared with the training "
            "rows are too few or mostly constant"
        )
        expected = [message] if n_held_out else []
        rows = rows_of_job(job, plan)
        assert rows.unused_labels == expected
        assert rows.train.extra.any() == (not n_held_out)
        result = run_job(job, plan)
        assert all(result.lines[0].endswith(f"; {message}") for message in expected)
        assert read_json(job.folder / REPORT)[UNUSED_LABELS] == expected
    ignoring = plan_with_source(tmp_path, few, {"kind": "lightgbm", "extra_rows": "ignore"})
    assert [rows_of_job(job, ignoring).unused_labels for job in ignoring.jobs] == [[], [], []]
