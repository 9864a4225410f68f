"""Extra training rows, features of the user's own, weights and auxiliary targets, from CSV to rows."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from competition.config import load_competition
from competition.dataset import REFIT_FOLD, TIME, Dataset, read_rows, without_extra_rows
from competition.prepare import Prepared, describe, prepare
from core.errors import ConfigError, DataError, UserError
from core.files import write_table
from core.paths import Paths
from folds.kinds import FoldsConfig
from folds.make import make_folds
from models.jobs.compute import training_rows, usable_rows
from models.registry import make_stage
from tests.conftest import mixed_tables, write_competition

INPUTS = ["SMILES", "note", "pH", "site"]
TRAIN, TEST = mixed_tables()


def made(folder: Path, train: pd.DataFrame = TRAIN, **competition: Any) -> Prepared:
    return prepare(load_competition(str(write_competition(folder, train, TEST, competition=competition))))


def more_rows() -> pd.DataFrame:
    """A new molecule, one of the training table, one of the test table, one that does not parse, one without
    label.
    """
    rows = [TRAIN.iloc[0], TRAIN.iloc[1], TEST.iloc[0], TRAIN.iloc[2], TRAIN.iloc[3]]
    table = pd.DataFrame(rows)[INPUTS].reset_index(drop=True)
    table["SMILES"] = ["CCCCCCCCO", TRAIN["SMILES"][1], TEST["SMILES"][0], "C(C", "CCCCCCCCN"]
    return table.assign(lumo=[1.0, 2.0, 1.5, 1.2, np.nan])


def test_extra_rows_train_in_every_fold_and_are_in_none(tmp_path: Path) -> None:
    write_table(tmp_path / "more.csv", more_rows())
    extra = {"extra_train": [{"file": "more.csv", "weight": 0.25}]}
    config = load_competition(str(write_competition(tmp_path, TRAIN, TEST, competition=extra)))
    prepared, paths = prepare(config), Paths("mixed")
    description = (
        "2 extra training rows from more.csv; left out: 1 with the input of a test row, 2 without a usable"
    )
    assert description in describe(prepared.report)
    assert len(TRAIN) == len(without_extra_rows(prepared.train))
    write_table(paths.train, make_folds(config, FoldsConfig(n_folds=3), prepared).train)
    rows = read_rows(paths.train, config, True)
    folds = rows.folds
    assert folds[rows.extra].tolist() == [-1, -1]
    assert folds[~rows.extra].min() == 0
    assert rows.weights.tolist() == [1.0] * len(TRAIN) + [0.25] * 2


def test_an_extra_row_stays_out_of_the_job_that_holds_its_input_out() -> None:
    extra = np.array([0, 0, 0, 1, 1], dtype=bool)
    inputs = pd.DataFrame({"__input": list("abcad")})
    folds = np.array([0, 1, 1, -1, -1])
    rows = Dataset(list("vwxyz"), inputs, np.zeros((5, 1)), extra=extra, folds=folds)
    assert training_rows(rows, 0, False).tolist() == [False, True, True, False, True]
    assert training_rows(rows, 1, False).tolist() == [True, False, False, True, True]


def test_an_extra_row_stays_out_of_the_job_that_holds_its_group_out_or_earlier_rows() -> None:
    extra, folds = np.array([0, 0, 0, 1, 1, 1], dtype=bool), np.array([-1, 0, 1, -1, -1, -1])
    times = np.array([1.0, 2.0, 3.0, 1.5, 0.5, np.nan])
    inputs = pd.DataFrame({"__input": list("abcdef")})
    rows = Dataset(
        list("uvwxyz"),
        inputs,
        np.zeros((6, 1)),
        extra=extra,
        folds=folds,
        groups=np.array([0, 1, 2, 3, 1, 4]),
        times=times,
    )
    assert training_rows(rows, 0, True).tolist() == [True, False, False, False, False, True]
    assert training_rows(rows, 1, True).tolist() == [True, True, False, True, True, True]
    assert training_rows(rows, 1, False).tolist() == [True, True, False, True, True, True]
    assert training_rows(rows, REFIT_FOLD, True).all()


def test_extra_rows_bring_groups_and_times_or_are_reported_without_them(tmp_path: Path) -> None:
    """The first two rows get through; of those, one has the group and the time of the third training row."""
    train = TRAIN.assign(batch=[f"b{i // 3}" for i in range(len(TRAIN))], day=range(len(TRAIN)))
    more = more_rows().assign(plate=["b0", "", "b1", "b1", "b1"], day=["2.5", "", "1", "1", "1"])
    write_table(tmp_path / "more.csv", more)
    roles = {
        "group": "batch",
        "time": "day",
        "extra_train": [{"file": "more.csv", "columns": {"batch": "plate"}}],
    }
    prepared = made(tmp_path, train, **roles)
    assert prepared.train["batch"].tail(2).tolist() == ["b0", ""]
    assert np.array_equal(prepared.train[TIME].tail(2), [2.5, np.nan], equal_nan=True)
    assert "cannot be told" not in describe(prepared.report)
    write_table(tmp_path / "more.csv", more.drop(columns=["plate", "day"]))
    description = describe(made(tmp_path, train, **{**roles, "extra_train": [{"file": "more.csv"}]}).report)
    assert (
        "more.csv has no 'batch', so it is unknown whether its rows share a group with held-out rows"
        in description
    )
    assert (
        "more.csv has no 'day', so it is unknown whether its rows are later than held-out rows" in description
    )


CENTRED = TRAIN.assign(lumo=TRAIN["lumo"] - TRAIN["lumo"].mean())
SHARED = TRAIN.iloc[:6][INPUTS].assign(lumo=[1000.0, 2000, 1500, 1700, 1800, 1900])


@pytest.mark.parametrize(
    ("train", "more", "message"),
    [
        (TRAIN, SHARED, "on 6 shared inputs the median difference is"),
        (TRAIN, SHARED.assign(SMILES=["C" * n + "F" for n in range(9, 15)]), r"their median is 1\.75e.03"),
        (CENTRED, CENTRED[:20].assign(lumo=lambda t: t["lumo"] / 27.2), r"deviation is 0\.0368 times that"),
    ],
)
def test_labels_in_other_units_are_refused(
    tmp_path: Path, train: pd.DataFrame, more: pd.DataFrame, message: str
) -> None:
    write_table(tmp_path / "more.csv", more[[*INPUTS, "lumo"]])
    with pytest.raises(DataError, match=f"labels of 'lumo' seem to be in other units.*{message}"):
        made(tmp_path, train, extra_train=[{"file": "more.csv"}])
    made(tmp_path, train, extra_train=[{"file": "more.csv", "check_units": False}])


def test_auxiliary_labels_in_other_units_are_refused_with_calibrated_targets_too(tmp_path: Path) -> None:
    train = CENTRED.assign(heat=CENTRED["lumo"])
    write_table(tmp_path / "more.csv", train[[*INPUTS, "lumo", "heat"]].assign(heat=train["heat"] * 4.184))
    extra = {"file": "more.csv", "calibrate": "affine"}
    auxiliary = {"auxiliary_targets": ["heat"]}
    with pytest.raises(DataError, match="of 'heat' seem .* the column, or set check_units: false"):
        made(tmp_path, train, **auxiliary, extra_train=[extra])
    made(tmp_path, train, **auxiliary, extra_train=[{**extra, "check_units": False}])


def test_censored_labels_of_a_calibrated_source_are_said_to_be_unused(tmp_path: Path) -> None:
    more = source(2).astype({"lumo": str})
    more.loc[29, "lumo"] = ">3"
    write_table(tmp_path / "more.csv", more)
    extra = {"file": "more.csv", "calibrate": "affine"}
    description = describe(made(tmp_path, censored="bound", extra_train=[extra]).report)
    assert "lumo 1 with >, 0 with < (those of targets are not used, since calibrate needs" in description
    assert "only train the heads" not in description


def source(scale: float, n_shared: int = 30) -> pd.DataFrame:
    """Rows with training molecules, whose labels are those of the training table times `scale`."""
    return TRAIN[:n_shared][INPUTS].assign(lumo=scale * TRAIN["lumo"][:n_shared])


def test_the_summary_says_how_many_inputs_are_shared_and_on_which_scale(tmp_path: Path) -> None:
    write_table(tmp_path / "more.csv", source(-20).assign(lumo=lambda table: table["lumo"] + 4))
    prepared = made(tmp_path, extra_train=[{"file": "more.csv", "calibrate": "affine"}])
    assert (
        "more.csv: 30 inputs with 'lumo' are also in the training table, where it is about -0.05 x more.csv +0.2 "
        "(rank correlation -1.00)"
    ) in describe(prepared.report)


@pytest.mark.parametrize(
    ("more", "settings", "message"),
    [
        (source(-1), {}, r"'lumo' seem to be in other units.*their correlation is -1\.00.*set calibrate: affine"),
        (source(2, 9), {"calibrate": "affine"}, "needs at least 10 inputs with labels in both tables, and there are 9"),
        (
            source(1).assign(lumo=np.tile([1.0, 2.0], 15)), {"calibrate": "isotonic"},
            "'lumo' cannot be calibrated: on 30 shared inputs their rank correlation with the training labels is",
        ),
        (source(1).assign(lumo=5.0), {"calibrate": "affine"}, "cannot be calibrated.*is 0.00"),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_calibrated_is_refused(
    tmp_path: Path, more: pd.DataFrame, settings: dict[str, Any], message: str
) -> None:
    write_table(tmp_path / "more.csv", more)
    with pytest.raises(DataError, match=f"extra_train .*more.csv.*{message}"):
        made(tmp_path, extra_train=[{"file": "more.csv", **settings}])


def test_only_numbers_are_calibrated(tmp_path: Path) -> None:
    classes = {"problem_type": "binary", "targets": ["lumo"], "classes": ["a", "b"], "metric": "log_loss"}
    with pytest.raises(
        ConfigError, match="more.csv: calibrate is for regression, and problem_type is binary"
    ):
        made(tmp_path, **classes, extra_train=[{"file": "more.csv", "calibrate": "affine"}])


def test_extra_rows_of_classes_have_the_competitions_classes_and_mostly_its_labels(tmp_path: Path) -> None:
    classes = {
        "problem_type": "multiclass",
        "targets": ["lumo"],
        "classes": ["low", "mid", "high"],
        "metric": "mcc",
    }
    labels = np.array(["low", "mid", "high"])[np.arange(len(TRAIN)) % 3]
    train, extra = TRAIN.assign(lumo=labels), {**classes, "extra_train": [{"file": "more.csv"}]}
    more = train[[*INPUTS, "lumo"]].iloc[:9]
    write_table(tmp_path / "more.csv", more)
    assert made(tmp_path, train, **extra).train["lumo"].tail(9).tolist() == [0.0, 1.0, 2.0] * 3
    moved = more.assign(lumo=["mid", *labels[1:4], "low", *labels[:4]])  # 3 of 9 are as ours
    for wrong, message in (
        (moved, "'lumo' seem to .*mean something else.* only 33% of 9 shared inputs have the same class"),
        (
            more.assign(lumo=["tiny", *labels[1:9]]),
            r"labels that are none of the classes \('low', .*row 2.*'tiny'",
        ),
    ):
        write_table(tmp_path / "more.csv", wrong)
        with pytest.raises(DataError, match=message):
            made(tmp_path, train, **extra)
    write_table(tmp_path / "more.csv", moved)
    made(tmp_path, train, **{**extra, "extra_train": [{"file": "more.csv", "check_units": False}]})


def test_extra_rows_of_several_tables_without_the_column_are_of_no_group(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write_table(tmp_path / name, more_rows())
    train, extra = TRAIN.assign(batch="one"), [{"file": "a.csv"}, {"file": "b.csv"}]
    prepared = made(tmp_path, train, extra_train=extra, group="batch")
    assert prepared.train["batch"].tolist() == ["one"] * len(TRAIN) + [""] * 4


def test_columns_of_an_extra_table_go_by_their_names_or_are_reported_as_missing(tmp_path: Path) -> None:
    names = {"SMILES": "structure", "lumo": "LUMO (eV)"}
    write_table(tmp_path / "more.csv", more_rows().rename(columns=names))
    prepared = made(tmp_path, extra_train=[{"file": "more.csv", "columns": names}])
    assert prepared.train["lumo"].tail(2).tolist() == [1.0, 2.0]
    assert prepared.train["mu"].tail(2).isna().all()
    for columns, words in (
        ({}, r"extra_train .*more\.csv: missing columns: SMILES"),
        ({"SMILES": "structure"}, r"has none of the targets lumo, mu.*columns: \{lumo: THEIR NAME\}"),
        ({"Lumo": "lumo"}, "'Lumo' is neither"),
    ):
        with pytest.raises(UserError, match=words):
            made(tmp_path, extra_train=[{"file": "more.csv", "columns": columns}])


def test_weights_and_auxiliary_targets_reach_the_rows(tmp_path: Path) -> None:
    train = TRAIN.assign(trust=np.linspace(0.1, 1, len(TRAIN)), logP=[np.nan, *range(1, len(TRAIN))])
    roles = {"weight": "trust", "auxiliary_targets": ["logP"]}
    config = load_competition(str(write_competition(tmp_path, train, TEST, competition=roles)))
    write_table(tmp_path / "clean.parquet", prepare(config).train)
    rows = read_rows(tmp_path / "clean.parquet", config, True)
    assert "logP" not in rows.inputs
    part = rows.take(np.array([3, 1, 0]))
    np.testing.assert_array_equal(part.auxiliary, [[3.0], [1.0], [np.nan]])
    np.testing.assert_allclose(part.weights, train["trust"][[3, 1, 0]])
    train.loc[4, "trust"] = 0
    with pytest.raises(DataError, match="'trust' has weights that are not above 0: row 6"):
        made(tmp_path, train, weight="trust")


def test_rows_with_auxiliary_labels_only_are_kept_and_counted_even_if_train_csv_lacks_the_column(
    tmp_path: Path,
) -> None:
    """A new molecule and one of the training table stay; that of a test row, and a row without label, do not."""
    more = more_rows().drop(columns="lumo").assign(logD=["0.5", "1.5", "2.5", "3.5", ""])
    write_table(tmp_path / "more.csv", more)
    roles = {"auxiliary_targets": ["logD"], "extra_train": [{"file": "more.csv"}]}
    prepared = made(tmp_path, **roles)
    assert prepared.train["logD"].tail(2).tolist() == [0.5, 1.5]
    assert prepared.train["logD"].head(len(TRAIN)).isna().all()
    assert prepared.train[["lumo", "mu"]].tail(2).isna().all(axis=None)
    counts = (
        r"2 extra training rows from more\.csv \(2 only train the heads of auxiliary_targets\); left out: 1 with the "
        r"input of a test row, 2 without a usable input or label"
    )
    assert re.search(counts, describe(prepared.report))
    write_table(tmp_path / "more.csv", more.assign(lumo=[1.0, np.nan, np.nan, np.nan, np.nan]))
    assert "2 extra training rows from more.csv (1 only train the" in describe(made(tmp_path, **roles).report)


def test_an_auxiliary_target_that_no_table_has_is_reported_with_the_tables(tmp_path: Path) -> None:
    write_table(
        tmp_path / "more.csv", more_rows().assign(logD=["", "", "2.5", "", ""])
    )  # that of a test molecule
    roles = {"auxiliary_targets": ["logD", "logP"], "extra_train": [{"file": "more.csv"}]}
    message = r"no usable row of .*train\.csv, .*more\.csv has a label for logD, logP\. Remove"
    with pytest.raises(DataError, match=message):
        made(tmp_path, **roles)
    with pytest.raises(DataError, match=r"train\.csv: missing columns: logD"):
        made(tmp_path, auxiliary_targets=["logD"])
    with pytest.raises(DataError, match=r"no usable row of \S*train\.csv has a label for logD"):
        made(tmp_path, TRAIN.assign(logD=""), auxiliary_targets=["logD"])
    write_table(tmp_path / "more.csv", more_rows().drop(columns="lumo"))
    with pytest.raises(
        DataError, match=r"more\.csv has none of the targets lumo, mu, logD, logP; it has SMILES"
    ):
        made(tmp_path, **roles)


def test_unlabelled_extra_rows_are_for_stages_that_learn_auxiliary_targets() -> None:
    y = np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, np.nan], [np.nan, np.nan]])
    extra = np.array([False, False, True, True])
    auxiliary = np.array([[np.nan], [np.nan], [np.nan], [1.0]])
    rows = Dataset(list("abcd"), pd.DataFrame(index=range(4)), y, extra=extra, auxiliary=auxiliary)
    expected = {
        "{kind: gnn}": [True, True, True, True],
        "{kind: bert, extra_rows: pretrain}": [True, True, True, True],
        "{kind: unimol, auxiliary_weight: 0}": [True, True, True, False],
        "{kind: unimol2, extra_rows: ignore}": [True, True, False, False],
        "{kind: lightgbm}": [True, True, True, False],
        "{kind: catboost}": [True, True, True, False],
        "{kind: sklearn, extra_rows: ignore}": [True, True, False, False],
        "{kind: gp}": [True, True, True, False],
    }
    usable = {text: usable_rows(rows, make_stage(yaml.safe_load(text))).tolist() for text in expected}
    assert usable == expected
    assert usable_rows(rows.take(np.arange(2)), make_stage({"kind": "gp"})).all()


FEATURES = """
import pandas as pd

def lengths(inputs):
    return pd.DataFrame({"atoms": inputs["SMILES"].str.len(), "pH2": inputs["pH"] ** 2})

def ranks(inputs):
    return inputs["SMILES"].str.len().rank().to_frame()

def broken(inputs):
    return inputs["absent"]

def nothing(inputs):
    return pd.DataFrame(index=inputs.index)

"""


def test_user_defined_features_join_both_tables_or_the_function_that_cannot_be_trusted_is_reported(
    tmp_path: Path,
) -> None:
    (tmp_path / "own.py").write_text(FEATURES)
    prepared = made(tmp_path, features="own.py:lengths")
    assert prepared.train["feature atoms"].tolist() == [float(len(s)) for s in prepared.train["SMILES"]]
    assert prepared.test["feature pH2"].isna().tolist() == prepared.test["pH"].isna().tolist()
    for function, words in {
        "ranks": "other numbers when other rows are missing",
        "broken": "must return a table of numbers .*KeyError",
        "nothing": "returned only missing values",
        "missing": "must define",
    }.items():
        with pytest.raises(ConfigError, match=words):
            made(tmp_path, features=f"own.py:{function}")
