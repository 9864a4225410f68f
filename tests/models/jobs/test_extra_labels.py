"""Rows of another table in each fold: calibrated, weighted, filtered, and never by a held-out label."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from competition.config import load_competition
from competition.errors import DataError
from competition.files import read_table, write_table
from competition.molecules import canonical_smiles
from competition.paths import Paths
from competition.prepare import run as prepare
from folds.config import FoldsConfig
from folds.fold_files import read_folds
from folds.make import run as make_folds
from models.config import load_stages
from models.jobs.extra_labels import FoldModel, held_back_error, make_extra_labels
from models.jobs.job_rows import context_of, read_tables, rows_of_job, with_extra_labels
from models.jobs.plan import REFIT_FOLD, JobPlan, make_plan
from tests.conftest import SMOKE, write_competition

JUDGED = {"file": "more.csv", "columns": {"gap": "value"}, "calibrate": "affine", "weight": "auto"}
SLOPE, INTERCEPT = -20.0, 55.0
WRONG = ["extra0_7", "extra0_47"]
"""Ids with the row in the file: the first row of labels is row 2."""


def position(extra_id: str) -> int:
    return int(extra_id.removeprefix("extra0_")) - 2


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
    more.loc[[position(row) for row in WRONG], "value"] += 400
    return train, test.drop(columns="gap"), more[["SMILES", "value"]]


def made(
    folder: Path,
    more: pd.DataFrame | None = None,
    others: tuple[dict[str, Any], ...] = (),
    competition: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[JobPlan, Paths]:
    """A plan with the labels of the source for each fold.

    Args:
        others: more tables.
        competition: more settings of the competition.
        changes: of the settings of the source.
    """
    train, test, usual = tables()
    write_table(folder / "more.csv", usual if more is None else more)
    roles = {
        "targets": ["gap"], "text": [], "numeric": [], "categorical": [],
        "extra_train": [{**JUDGED, "max_residual": 4, **changes}, *others], **(competition or {}),
    }  # fmt: skip
    stages = {"trees": {"kind": "lightgbm", "n_bits": 64, "max_trees": 20, "final_fit": "both"}}
    path = write_competition(folder, train, test, competition=roles, stages=stages)
    config, paths = load_competition(str(path)), Paths.for_competition(str(path))
    prepare(config, paths, path)
    make_folds(config, FoldsConfig(n_folds=3), paths)
    make_extra_labels(config, paths)
    return make_plan(config, load_stages(str(path)), paths), paths


def labels_of(paths: Paths, fold: int) -> pd.DataFrame:
    table = read_table(paths.extra_labels)
    return table[table["fold"] == fold].set_index("id")


def test_a_job_trains_on_calibrated_labels_without_the_wrong_ones(tmp_path: Path) -> None:
    plan, _ = made(tmp_path)
    _, _, more = tables()
    truth = (more["value"] - INTERCEPT) / SLOPE
    jobs = {job.fold: job for job in plan.jobs}
    for fold in (0, 1, 2, REFIT_FOLD):
        train = rows_of_job(jobs[fold], plan).train
        extra = train.take(train.extra)
        rows = [position(name) for name in extra.ids]
        assert not {*WRONG} & {*extra.ids}
        np.testing.assert_allclose(extra.y[:, 0], truth[rows], atol=0.1)
        assert ((extra.weights > 0.9) & (extra.weights < 1)).all()
        assert (train.weights[~train.extra] == 1).all()
    assert (
        len(extra) >= 60
    )  # of the refit: 70 without the wrong ones and a few that the model does not explain


def test_the_labels_that_are_left_out_are_listed_with_their_row_in_the_file(tmp_path: Path) -> None:
    _, paths = made(tmp_path)
    _, _, more = tables()
    left_out = pd.read_csv(paths.extra_left_out).set_index("row")
    assert {*WRONG} <= {f"extra0_{row}" for row in left_out.index}
    for row, found in left_out.iterrows():
        original = more.iloc[position(f"extra0_{row}")]
        assert (found["table"], found["target"]) == ("more.csv", "gap")
        assert found["SMILES"] == canonical_smiles(original["SMILES"])
        assert found["label"] == original["value"]
    assert left_out.loc[47, "n_folds"] == 4  # no training molecule, so all folds and the refit see it


def test_a_table_that_is_not_judged_keeps_its_weight_and_its_censored_labels(tmp_path: Path) -> None:
    new = [f"{'C' * n}Br" for n in range(5, 11)]
    assay = pd.DataFrame(
        {"SMILES": new, "gap": ["1", "2", ">3", ">3", "", ""], "logD": ["", "", "", "", "5", "<1"]}
    )
    write_table(tmp_path / "assay.csv", assay)
    _, _, more = tables()
    more = pd.concat(
        [more.assign(logD=""), assay.tail(2).rename(columns={"gap": "value"})], ignore_index=True
    )
    roles = {"auxiliary_targets": ["logD"], "censored": "bound"}
    other = {"file": "assay.csv", "weight": 0.3, "check_units": False}
    plan, paths = made(tmp_path, more, (other,), roles, calibrate="none", weight=0.4, check_units=False)
    rows, is_left_out = with_extra_labels(read_tables(plan)[0], plan, REFIT_FOLD)
    assert "47" in {*pd.read_csv(paths.extra_left_out, dtype=str)["row"]}  # a whole number
    assert rows.weights is not None and rows.bounds is not None
    names = np.array(rows.ids)
    of_assay = np.array([name.startswith("extra1") for name in names])
    of_auxiliary = np.isin(names, ["extra0_72", "extra0_73"])
    assert (rows.weights[of_assay] == 0.3).all() and (rows.weights[of_auxiliary] == np.float32(0.4)).all()
    assert rows.bounds[of_assay][2:4, 0, 0].tolist() == [3, 3]
    assert rows.bounds[names == "extra0_73", 1, 1].tolist() == [1]
    assert not is_left_out[of_assay | of_auxiliary].any()


def test_without_a_fold_to_hold_back_a_model_is_thought_as_good_as_the_median(tmp_path: Path) -> None:
    plan, _ = made(tmp_path)
    rows = read_tables(plan)[0].take(np.arange(12))
    context = context_of(plan, 0, rows)
    fold_ids = np.repeat([0, 1], 6)
    rows = replace(rows, y=np.r_[np.arange(6.0), np.full(6, np.nan)][:, None])
    assert held_back_error(context, rows, fold_ids) == pytest.approx([1.4826 * 1.5])


def test_a_model_of_a_fold_that_cannot_be_fitted_is_one_sentence(tmp_path: Path) -> None:
    plan, _ = made(tmp_path)
    rows = read_tables(plan)[0].take(np.arange(12))
    rows = replace(rows, y=np.full((12, 1), np.nan))
    with pytest.raises(
        DataError, match="the model that judges the tables of extra_train cannot be fitted: .*gap"
    ):
        FoldModel(context_of(plan, 0, rows), rows)


def test_labels_of_held_out_rows_change_nothing_in_their_fold(tmp_path: Path) -> None:
    """A canary: labels of fold 0 become absurd; only the other folds see it."""
    plan, paths = made(tmp_path)
    before = {fold: labels_of(paths, fold) for fold in (0, 1)}
    train = read_table(paths.train)
    held_out = read_folds(paths.folds, list(train["id"])) == 0
    write_table(paths.train, train.assign(gap=np.where(held_out, -train["gap"] * 50, train["gap"])))
    make_extra_labels(plan.competition, paths)
    pd.testing.assert_frame_equal(labels_of(paths, 0), before[0])
    assert not labels_of(paths, 1).equals(before[1])


def test_a_held_out_molecule_of_the_source_is_in_no_table_of_its_fold_whatever_its_spelling(
    tmp_path: Path,
) -> None:
    _, _, more = tables()
    molecules = [Chem.MolFromSmiles(text) for text in more["SMILES"]]
    more["SMILES"] = [
        Chem.MolToSmiles(each, canonical=False, kekuleSmiles=False, rootedAtAtom=each.GetNumAtoms() - 1)
        for each in molecules
    ]
    _, paths = made(tmp_path, more)
    train = read_table(paths.train)
    folds = read_folds(paths.folds, list(train["id"]))
    keys = train["__input"].to_numpy()
    for fold in range(3):
        in_fold = train["id"].isin(labels_of(paths, fold).index).to_numpy()
        assert in_fold.sum() < 70
        assert not {*keys[in_fold]} & {*keys[folds == fold]}
    assert len(labels_of(paths, REFIT_FOLD)) == 70


def test_the_labels_are_kept_until_a_setting_or_a_table_changes(tmp_path: Path) -> None:
    plan, paths = made(tmp_path)
    written = paths.extra_report.stat().st_mtime_ns
    make_extra_labels(plan.competition, paths)
    assert paths.extra_report.stat().st_mtime_ns == written
    made(tmp_path, competition={"metric": "mae"})  # the model of a fold has another objective
    assert paths.extra_report.stat().st_mtime_ns > written
    other, _ = made(tmp_path, max_residual=None)
    assert other.keys["trees"] != plan.keys["trees"]
    assert {*WRONG} <= {*labels_of(paths, REFIT_FOLD)["gap"].dropna().index}


def test_a_source_with_too_few_shared_inputs_in_a_fold_is_not_used_there(tmp_path: Path) -> None:
    """Ten training molecules are shared, so that every fold that holds one of them out has too few."""
    _, _, more = tables()
    plan, paths = made(tmp_path, more.iloc[[*range(10), *range(30, 70)]])
    train = read_table(paths.train)
    of_shared = read_folds(paths.folds, list(train["id"]))[:10]
    for fold in range(3):
        assert labels_of(paths, fold)["gap"].isna().all() == (fold in of_shared)
    assert labels_of(paths, REFIT_FOLD)["gap"].notna().any()
    line = make_extra_labels(plan.competition, paths)
    assert (
        f"not used in {len(set(of_shared))} of 4 folds, where shared labels are too few or constant" in line
    )


def test_a_source_of_test_molecules_only_gives_no_rows(tmp_path: Path) -> None:
    _, test, _ = tables()
    more = test[["SMILES"]].assign(value=1.0)
    plan, paths = made(tmp_path, more, calibrate="none", weight=1.0)
    assert read_table(paths.extra_labels).empty
    assert "more.csv, gap: 0 labels a fold, 0 left out" in make_extra_labels(plan.competition, paths)
    assert not rows_of_job(plan.jobs[0], plan).train.extra.any()


def test_without_a_setting_that_judges_them_extra_rows_get_no_tables(tmp_path: Path) -> None:
    _, _, more = tables()
    same_units = more.assign(value=(more["value"] - INTERCEPT) / SLOPE)
    plan, paths = made(tmp_path, same_units, calibrate="none", weight=0.5, max_residual=None)
    assert not paths.extra_report.exists()
    train = rows_of_job(plan.jobs[0], plan).train
    assert set(train.weights[train.extra]) == {0.5}
