"""Labels of another table in other units: each job calibrates them, and never by a held-out label."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem

from competition.config import load_competition
from competition.dataset import REFIT_FOLD, Dataset
from core.files import read_json, read_table, write_table
from core.paths import Paths
from folds.kinds import FoldsConfig
from folds.make import read_folds
from folds.make import run as make_folds
from models.jobs.compute import UNUSED_LABELS, rows_of_job
from models.jobs.plan import REPORT, JobPlan, make_plan
from models.jobs.run_job import run_job
from submissions.config import load_config
from tests.conftest import SMOKE, write_competition

SOURCE = {"file": "more.csv", "columns": {"gap": "value"}, "calibrate": "affine"}
SLOPE, INTERCEPT = -20.0, 55.0
WRONG = [5, 45]
"""Positions of wrong labels of the source, one of them of a training molecule."""


def tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Training and test rows, and a source in other units that has 30 training molecules and two wrong labels."""
    molecules = pd.read_csv(SMOKE / "train.csv")
    table = pd.DataFrame(
        {
            "id": [f"m{i}" for i in range(len(molecules))],
            "SMILES": molecules["SMILES"],
            "gap": molecules["lumo_eV"],
        }
    )
    train, test, more = table[:60], table[60:70], pd.concat([table[:30], table[70:110]], ignore_index=True)
    noise = np.random.default_rng(0).normal(0, 0.02, len(more))
    more["value"] = INTERCEPT + SLOPE * (more["gap"] + noise)
    more.loc[WRONG, "value"] += 400
    return train, test.drop(columns="gap"), more[["SMILES", "value"]]


def made(
    folder: Path,
    more: pd.DataFrame | None = None,
    others: tuple[dict[str, Any], ...] = (),
    competition: dict[str, Any] | None = None,
    stage: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[JobPlan, Paths]:
    """A plan with the source.

    Args:
        others: more tables.
        competition: more settings of the competition.
        stage: settings of the stage.
        changes: of the settings of the source.
    """
    train, test, usual = tables()
    write_table(folder / "more.csv", usual if more is None else more)
    roles = {
        "targets": ["gap"], "text": [], "numeric": [], "categorical": [],
        "extra_train": [{**SOURCE, **changes}, *others], **(competition or {}),
    }  # fmt: skip
    trees = {"kind": "lightgbm", "n_bits": 64, "max_trees": 20, "final_fit": "both"}
    path = write_competition(folder, train, test, competition=roles, stages={"one": stage or trees})
    config = load_competition(str(path))
    make_folds(config, FoldsConfig(n_folds=3))
    return make_plan(config, load_config(str(path)).stages), config.paths


def extra_rows(plan: JobPlan, fold: int) -> Dataset:
    """The extra rows that a job trains on."""
    train = rows_of_job({job.fold: job for job in plan.jobs}[fold], plan).train
    assert train.extra is not None
    return train.take(train.extra)


def position(extra_id: str) -> int:
    """Position in the source; the first row of labels is row 2 of the file."""
    return int(extra_id.removeprefix("extra0_")) - 2


def test_a_job_trains_on_calibrated_labels(tmp_path: Path) -> None:
    plan, _ = made(tmp_path, weight=0.3)
    _, _, more = tables()
    truth = (more["value"] - INTERCEPT) / SLOPE
    for fold in (0, 1, 2, REFIT_FOLD):
        extra = extra_rows(plan, fold)
        rows = [position(name) for name in extra.ids]
        np.testing.assert_allclose(extra.y[:, 0], truth[rows], atol=0.1)
        assert extra.weights is not None and (extra.weights == 0.3).all()
    assert len(extra) == 70  # of the refit


def test_another_table_keeps_its_weight_and_its_censored_labels(tmp_path: Path) -> None:
    new = [f"{'C' * n}Br" for n in range(5, 11)]
    assay = pd.DataFrame(
        {"SMILES": new, "gap": ["1", "2", ">3", ">3", "", ""], "logD": ["", "", "", "", "5", "<1"]}
    )
    write_table(tmp_path / "assay.csv", assay)
    _, _, more = tables()
    of_auxiliary = assay.tail(2).rename(columns={"gap": "value"})
    censored = pd.DataFrame({"SMILES": ["CCCCCCI"], "value": [">3"]})
    more = pd.concat([more.astype({"value": str}), of_auxiliary, censored], ignore_index=True).fillna("")
    roles = {"auxiliary_targets": ["logD"], "censored": "bound"}
    other = {"file": "assay.csv", "weight": 0.3, "check_units": False}
    network = {"kind": "gnn", "final_fit": "both"}
    plan, _ = made(tmp_path, more, (other,), roles, network, weight=0.4, check_units=False)
    extra = extra_rows(plan, REFIT_FOLD)
    assert extra.weights is not None and extra.bounds is not None
    names = np.array(extra.ids)
    of_assay = np.array([name.startswith("extra1") for name in names])
    assert extra.weights[of_assay].tolist() == [0.3] * 6 and set(extra.weights[~of_assay]) == {0.4}
    assert extra.bounds[of_assay][2:4, 0, 0].tolist() == [3, 3]
    assert extra.bounds[names == "extra0_73", 1, 1].tolist() == [1]
    assert "extra0_72" in names and "extra0_74" not in names  # a bound in the units of the source is no label


def test_labels_of_held_out_rows_change_nothing_in_their_fold(tmp_path: Path) -> None:
    """A canary: labels of fold 0 become absurd; only the other folds see it."""
    plan, paths = made(tmp_path)
    before = {fold: extra_rows(plan, fold).y for fold in (0, 1)}
    train = read_table(paths.train)
    held_out = read_folds(paths.folds, list(train["id"])) == 0
    write_table(paths.train, train.assign(gap=np.where(held_out, -train["gap"] * 50, train["gap"])))
    np.testing.assert_array_equal(extra_rows(plan, 0).y, before[0])
    assert not np.array_equal(extra_rows(plan, 1).y, before[1])


def test_a_held_out_molecule_of_the_source_trains_in_no_job_of_its_fold_whatever_its_spelling(
    tmp_path: Path,
) -> None:
    _, _, more = tables()
    molecules = [Chem.MolFromSmiles(text) for text in more["SMILES"]]
    more["SMILES"] = [
        Chem.MolToSmiles(each, canonical=False, kekuleSmiles=False, rootedAtAtom=each.GetNumAtoms() - 1)
        for each in molecules
    ]
    plan, paths = made(tmp_path, more)
    train = read_table(paths.train)
    folds = read_folds(paths.folds, list(train["id"]))
    for fold in range(3):
        keys = extra_rows(plan, fold).inputs["__input"]
        assert len(keys) < 70
        assert not {*keys} & {*train["__input"][folds == fold]}
    assert len(extra_rows(plan, REFIT_FOLD)) == 70


def test_the_key_of_a_job_has_the_calibration(tmp_path: Path) -> None:
    affine, _ = made(tmp_path)
    isotonic, _ = made(tmp_path, calibrate="isotonic")
    assert affine.keys["one"] != isotonic.keys["one"]
    assert made(tmp_path)[0].keys == affine.keys


def test_a_job_whose_shared_labels_are_too_few_does_not_use_the_source_and_says_so(tmp_path: Path) -> None:
    """Ten training molecules are shared, so that every fold that holds one of them out has too few."""
    _, _, more = tables()
    plan, paths = made(tmp_path, more.iloc[[*range(10), *range(30, 70)]])
    train = read_table(paths.train)
    of_shared = read_folds(paths.folds, list(train["id"]))[:10]
    for job in plan.jobs:
        n_held_out = (of_shared == job.fold).sum()
        expected = []
        if n_held_out:
            expected = [
                f"the labels of gap in more.csv are not used: the {10 - n_held_out} that are shared with the training "
                "rows are too few or mostly constant"
            ]
        rows = rows_of_job(job, plan)
        assert rows.unused_labels == expected
        assert bool(n_held_out) != rows.train.extra.any()  # type: ignore[union-attr]
        result = run_job(job, plan)
        assert all(result.lines[0].endswith(f"; {message}") for message in expected)
        assert read_json(job.folder / REPORT)[UNUSED_LABELS] == expected


def test_a_stage_that_ignores_extra_rows_has_nothing_to_say_about_them(tmp_path: Path) -> None:
    _, _, more = tables()
    stage = {"kind": "lightgbm", "extra_rows": "ignore"}
    plan, _ = made(tmp_path, more.iloc[[*range(10), *range(30, 70)]], stage=stage)
    assert [rows_of_job(job, plan).unused_labels for job in plan.jobs] == [[], [], []]


def test_a_source_of_test_molecules_only_gives_no_rows(tmp_path: Path) -> None:
    _, test, _ = tables()
    plan, _ = made(tmp_path, test[["SMILES"]].assign(value=1.0), calibrate="none")
    assert not len(extra_rows(plan, 0))
