"""Raw tables: what is refused, with the row named, and what is cleaned and counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.config import load_competition
from competition.dataset import INPUT_KEY, TIME, read_rows
from competition.molecules import canonical_smiles
from competition.prepare import Prepared, describe, prepare, prepare_test, write_prepared
from core.errors import ConfigError, DataError, SubmissionError
from core.files import read_table
from tests.competition.small import SAMPLE, TEST, TRAIN, write_small


def prepared(folder: Path, *args: Any, **settings: Any) -> Prepared:
    return prepare(load_competition(str(write_small(folder, *args, **settings))))


def with_line(lines: list[str], position: int, line: str) -> list[str]:
    return [*lines[:position], line, *lines[position + 1 :]]


TIMES = ["id,SMILES,y,t", "a,CCO,1,{}", "b,CCC,2,{}", "c,CCN,3,{}"]
GROUPS = ["id,SMILES,g,y", "a,C,1,1", "b,CC, 1 ,2", "c,CCC,01,3"]
TEXTS = {"train": ["id,SMILES,y", "a, ,1", "b,words,2"], "smiles": None, "text": ["SMILES"]}


def timed(role: str, *cells: str) -> dict[str, Any]:
    return {
        "train": [TIMES[0], *(line.format(cell) for line, cell in zip(TIMES[1:], cells, strict=True))],
        role: "t",
    }


@pytest.mark.parametrize(
    ("broken", "error", "words"),
    [
        ({"train": ["id,y", "a,1"]}, DataError, r"train\.csv: missing columns: SMILES; available: id, y"),
        ({"train": TRAIN[:1]}, DataError, r"train\.csv has no row"),
        ({"train": [*TRAIN, "a,CC,1"]}, DataError, r"train\.csv: duplicate ids: 'a'"),
        ({"sample": [*SAMPLE, "t9,0"]}, SubmissionError, r"only in the first: 't9'"),
        ({"sample": ["id,z", "t1,0", "t2,0"]}, SubmissionError, r"must have the columns id, y; got id, z"),
        ({"train": with_line(TRAIN, 3, "c,CCN,high")}, DataError, r"'y' has .*: row 4 \(id 'c'\): 'high'\. Correct"),
        ({"train": with_line(TRAIN, 3, "\n  \nc,CCN,inf")}, DataError, r"row 6 \(id 'c'\): 'inf'"),  # empty rows count
        ({"train": ["id,SMILES,y", "a,bad,1", "b,CC,"], "unparsable": "drop"}, DataError, r"no label at all for y"),
        ({"train": with_line(TRAIN, 4, "d,c1ccccc,4")}, DataError, r"row 5 \(id 'd'\): 'c1ccccc'.*unparsable: drop"),
        ({"train": with_line(TRAIN, 4, "d, ,4")}, DataError, r"row 5 .*drop \(.*\), or empty_smiles: \"\[Ar\]\" where"),
        ({"test": with_line(TEST, 2, "t2,what")}, DataError, r"test\.csv: .*row 3 \(id 't2'\): 'what'"),
        ({"empty_smiles": "none"}, ConfigError, r"empty_smiles, 'none', is not a valid SMILES\. Correct it"),
        (TEXTS, DataError, r"has empty texts: row 2 \(id 'a'\)"),
        ({"train": with_line(GROUPS, 2, "b,CC,,2"), "group": "g"}, DataError, r"'g' has empty cells.* row 3 \(id 'b'"),
        (timed("time", "1", "", "3"), DataError, r"'t' has times that are neither .*: row 3 \(id 'b'\): ''\. "),
        (timed("fold_column", "0", "", "1"), DataError, r"'t' has folds that are neither .*: row 3 \(id 'b'\): ''"),
        (
            {"train": [TRAIN[0], "a,CCO,0", "b,CCC,-1", "c,CCN,-2.5"], "metric": "rmsle"},
            DataError, r"labels at or below -1, where the metric rmsle has no value: row 3 \(id 'b'\): '-1', row 4",
        ),
    ],
)  # fmt: skip
def test_a_broken_table_is_refused_and_the_place_reported(
    tmp_path: Path, broken: Any, error: Any, words: str
) -> None:
    with pytest.raises(error, match=words):
        prepared(tmp_path, **broken)


def test_labels_may_be_missing_ids_keep_their_zeros_and_texts_their_na(tmp_path: Path) -> None:
    labels = ["1.5", "", "NA", "NaN", " null ", "-2e1"]
    result = prepared(tmp_path, ["id,SMILES,y", *(f"{i},{'C' * (i + 1)},{y}" for i, y in enumerate(labels))])
    np.testing.assert_array_equal(result.train["y"], [1.5, np.nan, np.nan, np.nan, np.nan, -20.0])
    assert "missing labels: y 4" in describe(result.report)
    train, test = ["id,SMILES,y", "007,NA,1", "7,none,2", "1e3,a text,3"], ["id,SMILES", "008,null", "8,NaN"]
    result = prepared(tmp_path, train, test, ["id,y", "8,0", "008,0"], smiles=None, text=["SMILES"])
    assert result.train["id"].tolist() == ["007", "7", "1e3"]
    assert result.train["SMILES"].tolist() == ["NA", "none", "a text"]
    assert result.test["SMILES"].tolist() == ["null", "NaN"]


def test_the_same_input_in_other_words_is_a_duplicate_and_counted_across_tables(tmp_path: Path) -> None:
    train = ["id,SMILES,y", "a,OCC,1", "b,CCO,2", "c,C(O)C,3", "d,CCC,4"]
    result = prepared(tmp_path, train, ["id,SMILES", "t1,C(C)O", "a,CN"], ["id,y", "t1,0", "a,0"])
    keys = result.train[INPUT_KEY]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert "2 training rows repeat the input" in describe(result.report)
    assert "1 test rows have an input that is also in the training table" in describe(result.report)
    lines = ["id,SMILES,y", "a,Good  day,1", "b,good day ,2", "c,\uff47ood\u00a0DAY,3", "d,bad day,4"]
    result = prepared(tmp_path, lines, smiles=None, text=["SMILES"])
    assert "2 training rows repeat the input" in describe(result.report)
    assert result.train["SMILES"].tolist()[:2] == ["Good  day", "good day "]  # as written
    train = ["id,SMILES,pH,y", "a,CCO,1,1", "b,OCC,1.0,2", "c,CCO,2,3", "d,CCO,,4", "e,CCO,NA,5"]
    keys = prepared(tmp_path, train, ["id,SMILES,pH", "t1,C,1", "t2,C,2"], numeric=["pH"]).train[INPUT_KEY]
    assert keys[0] == keys[1] != keys[2] != keys[3] == keys[4]


def test_a_sample_may_repeat_columns_of_the_test_table(tmp_path: Path) -> None:
    sample = ["id,SMILES,y", *(f"{line},0" for line in TEST[1:])]
    assert prepared(tmp_path, sample=sample).sample.columns.tolist() == ["id", "SMILES", "y"]


def test_rows_that_cannot_be_read_are_dropped_only_if_configured_and_are_reported(tmp_path: Path) -> None:
    result = prepared(tmp_path, with_line(TRAIN, 4, "d,not,4"), with_line(TEST, 1, "t1,"), unparsable="drop")
    assert (result.train["id"].tolist(), result.sample["id"].tolist()) == (list("abcef"), ["t1", "t2"])
    assert "1 unreadable training rows are left out: 'd'" in describe(result.report)
    note = "1 unreadable test rows get the mean, or the most frequent, training label: 't1'"
    assert note in describe(result.report)
    assert prepared(tmp_path, **TEXTS, unparsable="drop").train["id"].tolist() == ["b"]
    result = prepared(tmp_path, with_line(TRAIN, 4, "d,  ,4"), empty_smiles="[Ar]")
    assert result.train["SMILES"].tolist()[2:4] == ["CCN", "[Ar]"]
    assert "1 empty molecules are read as empty_smiles" in describe(result.report)
    config = load_competition(str(write_small(tmp_path, unparsable="drop")))
    config.train.unlink()  # a new test table is cleaned alike without it
    (tmp_path / "hidden.csv").write_text("id,SMILES\nh1,OCC\nh2,nothing\n")
    table, raw, dropped = prepare_test(config, tmp_path / "hidden.csv")
    assert (table["SMILES"].tolist(), list(raw["id"]), dropped) == (["CCO"], ["h1", "h2"], ["h2"])


def test_a_group_is_kept_and_one_that_is_an_input_keeps_its_clean_form(tmp_path: Path) -> None:
    assert prepared(tmp_path, GROUPS, group="g").train["g"].tolist() == ["1", "1", "01"]
    assert prepared(tmp_path, with_line(TRAIN, 2, "b,OCC,2"), group="SMILES").train["SMILES"][1] == "CCO"


def test_times_are_numbers_or_dates(tmp_path: Path) -> None:
    dates = ("1970-01-01", "1970-01-02T00:00:10", "1969-12-31T23:00:00+00:00")
    for cells, expected in ((("2020", "3.5", "-1"), [2020.0, 3.5, -1.0]), (dates, [0.0, 86410.0, -3600.0])):
        assert prepared(tmp_path, **timed("time", *cells)).train[TIME].tolist() == expected


def test_constant_columns_and_targets_of_0_and_1_are_reported(tmp_path: Path) -> None:
    result = prepared(tmp_path, ["id,SMILES,y", "a,CCO,1", "b,OCC,1"])
    assert "columns with only one value: SMILES, y" in describe(result.report)
    assert "only 0 and 1" not in describe(result.report)
    result = prepared(tmp_path, ["id,SMILES,y", "a,CCO,1", "b,CC,0", "c,C,", "d,CN,1.0"])
    assert "only 0 and 1 in y, which is predicted by regression" in describe(result.report)


def test_a_molecule_has_one_canonical_form_or_none() -> None:
    for smiles, canonical in {
        "OCC": "CCO",
        " OCC ": "CCO",
        "C1=CC=CC=C1": "c1ccccc1",
        "CCO |$;;$|": "CCO",
    }.items():
        assert canonical_smiles(smiles) == canonical
    assert not any(map(canonical_smiles, ("", "CC O", "CCO ethanol", "C1CC", "CC>>CO", "yes")))


def test_what_is_written_reads_back_as_rows(tmp_path: Path) -> None:
    path = write_small(tmp_path, ["id,SMILES,y", "007,OCC,0.1", "x,CC,"])
    config = load_competition(str(path))
    paths = config.paths
    tables = prepare(config)
    write_prepared(tables, config)
    assert describe(tables.report).splitlines() == [
        "2 training rows, 2 test rows",
        "missing labels: y 1",
        "columns with only one value: y",
    ]
    rows = read_rows(paths.train, config, labelled=True)
    assert (rows.ids, rows.inputs["SMILES"].tolist()) == (["007", "x"], ["CCO", "CC"])
    np.testing.assert_array_equal(rows.y, [[0.1], [np.nan]])
    assert rows.take(np.array([False, True])).ids == ["x"]
    assert read_rows(paths.test, config, labelled=False).y is None
    assert read_table(paths.sample)["id"].tolist() == ["t1", "t2"]
