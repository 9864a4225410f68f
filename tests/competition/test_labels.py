"""Censored labels such as >100: read, counted, and masked or kept as bounds; classes are left alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.config import CompetitionConfig, load_competition
from competition.dataset import LOWER, UPPER, Dataset, read_rows
from competition.prepare import Prepared, describe, prepare
from core.errors import ConfigError, DataError
from core.files import write_table
from core.paths import Paths
from tests.competition.small import write_small

TRAIN = [
    "id,SMILES,y,z",
    "a,CCO,1.5,1",
    "b,CCC,>100,2",
    "c,CCN,<= 0.1,3",
    "d,CCF, >=-2e1 ,4",
    "e,CCCl,,<5",
    "f,CCBr,2,6",
]
BOUND = {"auxiliary_targets": ["z"], "censored": "bound"}
NAN = float("nan")


def prepared(folder: Path, train: Any = TRAIN, **settings: Any) -> tuple[CompetitionConfig, Prepared]:
    config = load_competition(str(write_small(folder, train, **settings)))
    return config, prepare(config)


def rows_of(config: CompetitionConfig, table: Prepared) -> Dataset:
    paths = Paths("small")
    write_table(paths.train, table.train)
    return read_rows(paths.train, config, labelled=True)


def test_censored_labels_are_missing_by_default_and_counted(tmp_path: Path) -> None:
    config, result = prepared(tmp_path, auxiliary_targets=["z"])
    np.testing.assert_array_equal(result.train["y"], [1.5, NAN, NAN, NAN, NAN, 2.0])
    assert not [name for name in result.train if str(name).startswith((LOWER, UPPER))]
    assert rows_of(config, result).bounds is None
    line = (
        "censored labels of train.csv: y 2 with >, 1 with <, z 0 with >, 1 with < (read as missing labels; "
        "networks can learn them with competition.censored: bound)"
    )
    assert line in describe(result.report).splitlines()
    assert result.report["n_censored"] == 3  # of the targets


def test_with_bound_they_are_bounds_of_the_rows_and_still_have_no_label(tmp_path: Path) -> None:
    config, result = prepared(tmp_path, **BOUND)
    rows = rows_of(config, result)
    np.testing.assert_array_equal(rows.y[:, 0], [1.5, NAN, NAN, NAN, NAN, 2.0])
    of_y = [[NAN, NAN], [100, NAN], [NAN, 0.1], [-20, NAN], [NAN, NAN], [NAN, NAN]]
    np.testing.assert_array_equal(rows.bounds[:, 0], of_y)  # type: ignore[index]
    np.testing.assert_array_equal(rows.bounds[:, 1, 1], [NAN, NAN, NAN, NAN, 5, NAN])  # type: ignore[index]
    np.testing.assert_array_equal(rows.take(np.array([2, 1])).bounds[:, 0], [[NAN, 0.1], [100, NAN]])  # type: ignore[index]
    assert "networks learn them as bounds; other stages and all scores" in describe(result.report)


def test_without_censored_labels_the_setting_changes_no_table(tmp_path: Path) -> None:
    plain = [line.replace(">", "").replace("<= ", "").replace("=", "") for line in TRAIN]
    one, other = (prepared(tmp_path, plain, censored=value)[1] for value in ("mask", "bound"))
    assert one.train.equals(other.train) and "censored" not in describe(other.report)


def test_an_extra_row_with_only_a_bound_trains_if_bounds_are_learned(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("SMILES,y\nCCCCO,>3\nCCCCN,2\n")
    extra = {"extra_train": [{"file": "more.csv", "check_units": False}]}
    table = ["id,SMILES,y", "a,CCO,1.5", "b,CCC,2"]
    _, masked = prepared(tmp_path, table, **extra)
    assert len(masked.train) == 3
    assert "1 extra training rows from more.csv; left out: 0 with" in describe(masked.report)
    assert "censored labels of more.csv: y 1 with >, 0 with <" in describe(masked.report)
    _, bound = prepared(tmp_path, table, censored="bound", **extra)
    np.testing.assert_array_equal(bound.train[f"{LOWER}y"], [NAN, NAN, 3, NAN])
    assert f"{UPPER}y" not in bound.train


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (">", r"train\.csv: column 'y' has censored cells without a number: row 3 \(id 'b'\): '>'\. Write a number"),
        ("< ", r"censored cells without a number: row 3 \(id 'b'\): '< '"),
        (">NA", r"censored cells without a number: row 3 \(id 'b'\): '>NA'"),
        (">>5", r"censored cells without a number: row 3 \(id 'b'\): '>>5'"),
        (">inf", r"cells that are not finite numbers: row 3 \(id 'b'\)"),
        ("5>", r"cells that are not finite numbers: row 3 \(id 'b'\): '5>'"),
        ("~5", r"cells that are not finite numbers: row 3 \(id 'b'\): '~5'"),
    ],
)  # fmt: skip
def test_a_sign_without_a_number_is_refused_with_its_row(tmp_path: Path, cell: str, words: str) -> None:
    table = ["id,SMILES,y", "a,CCO,1.5", f"b,CCC,{cell}", "c,CCN,2"]
    for censored in ("mask", "bound"):
        with pytest.raises(DataError, match=words):
            prepared(tmp_path, table, censored=censored)


def test_a_target_with_only_censored_labels_and_a_censored_input_are_refused(tmp_path: Path) -> None:
    table = ["id,SMILES,x,y", "a,CCO,1,>1", "b,CCC,2,<2"]
    with pytest.raises(DataError, match=r"no label at all for y \(a censored one does not count\)"):
        prepared(tmp_path, table, censored="bound")
    table = ["id,SMILES,x,y", "a,CCO,>1,1", "b,CCC,2,2"]
    with pytest.raises(DataError, match=r"'x' has cells that are not finite numbers: row 2 \(id 'a'\): '>1'"):
        prepared(tmp_path, table, test=["id,SMILES,x", "t1,CCCC,1", "t2,CCBr,2"], numeric=["x"])


def test_classes_may_begin_with_a_sign_and_have_no_bounds(tmp_path: Path) -> None:
    table = ["id,SMILES,y", "a,CCO,>30", "b,CCC,<30", "c,CCN,>30"]
    settings: dict[str, Any] = {"problem_type": "binary", "metric": "roc_auc"}
    config, result = prepared(tmp_path, table, **settings)
    assert (config.classes, result.train["y"].tolist()) == (["<30", ">30"], [1.0, 0.0, 1.0])
    assert "censored" not in describe(result.report)
    with pytest.raises(ConfigError, match="censored: bound is for regression, and problem_type is binary"):
        prepared(tmp_path, table, censored="bound", **settings)
