"""What a column is taken for, and what is not guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.detect import Found, classify, counts_rows, detect, is_reaction
from competition.errors import DataError, SubmissionError
from competition.files import write_table

ALKANES = ["C" * k for k in range(1, 21)]
RINGS = [f"{'C' * k}c1ccccc1" for k in range(20)]
NOTES = [f"sample {i} looked rather {word} today" for i in range(10) for word in ("clear", "dull")]


def role(values: list[str], name: str = "column", test: list[str] | None = None) -> tuple[str, str]:
    column = classify(name, pd.Series(values, dtype=str), pd.Series(values[:3] if test is None else test, dtype=str))
    return column.role, column.reason


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RINGS, "smiles"),
        (RINGS[:3] * 7, "smiles"),
        ([f"[Na+].{smiles}" for smiles in RINGS], "smiles"),
        (["CCCCCO", "CCCCCN", "CCCCCC", "CCCCCCl"] * 5, "smiles"),
        (["C", "N", "CO", "I"] * 5, "categorical"),
        (["NO", "IN", "CO"] * 7, "categorical"),
        (["yes", "no"] * 10, "categorical"),
        (["", "site A", "site B", "site B"] * 5, "categorical"),
        (["NA", "EU"] * 10, "categorical"),
        (["007", "012", "100"] * 7, "categorical"),
        (NOTES, "text"),
        (["你好世界今天天气不错" + chr(0x4E00 + i) for i in range(20)], "text"),
        ([f"{s}>>{s}O" for s in RINGS], "text"),
        ([str(x) for x in np.linspace(0, 1, 20)], "numeric"),
        (["1.5", "NA", "", "nan", "-2e3"] * 4, "numeric"),
        (["0", "1"] * 10, "numeric"),
        ([str(i) for i in range(20)], "left out"),
        ([str(i) for i in reversed(range(1, 21))], "left out"),
        (["x"] * 20, "left out"),
        (["3.5"] * 20, "left out"),
        ([""] * 20, "left out"),
        ([f"KX{i}-{i * i}" for i in range(20)], "left out"),
        ([f"{i:04d}" for i in range(20)], "left out"),
        (["1,5", "2,25", "3,0", "4"] * 5, "left out"),
        ([*map(str, np.linspace(0, 1, 19)), "<0.1"], "left out"),
    ],
)  # fmt: skip
def test_a_column_is_taken_for_what_it_is(values: list[str], expected: str) -> None:
    assert role(values)[0] == expected, role(values)


def test_a_name_speaks_for_molecules_where_the_values_could_be_words() -> None:
    values = ["C", "N", "CO", "O"] * 5
    assert role(values)[0] == "categorical"
    assert "move it to smiles" in role(values)[1]
    assert role(values, "solvent_SMILES")[0] == "smiles"


def test_molecules_among_which_some_do_not_parse_stay_molecules_with_a_warning() -> None:
    column = classify("m", pd.Series([*RINGS, "c1cc", "C(("]), pd.Series(RINGS[:2]))
    assert (column.role, column.warning) == ("smiles", True)
    assert column.reason == "RDKit parses 20 of 22 distinct values"
    assert not classify("m", pd.Series(RINGS), pd.Series(RINGS[:2])).warning


def test_what_stands_only_in_the_test_table_counts_too() -> None:
    numbers = [str(x) for x in np.linspace(0, 1, 20)]
    assert role(numbers, test=["0.5", "unknown"])[0] == "left out"
    assert role(["1", "1", "2"] * 7, test=["3", ""])[1].startswith("numbers, 1 cells empty, 2 distinct whole ones")


def test_row_numbers_of_a_table_that_was_divided_at_random_are_left_out() -> None:
    assert role(["5", "0", "3"], test=["1", "4", "2"]) == ("left out", "counts the rows")
    assert role(["5", "0", "3"], test=["1", "4", "9"])[0] == "numeric"


def test_damaged_numbers_are_left_out_with_a_warning_that_shows_one() -> None:
    column = classify("price", pd.Series(["1,5", "2,25", "3"]), pd.Series(["1,0"]))
    assert (column.role, column.warning) == ("left out", True)
    assert "decimal comma ('1,5')" in column.reason
    below_limit = classify("c", pd.Series(["1", "2", "3", "4", "5", "<0.1"]), pd.Series(["1"]))
    assert below_limit.warning
    assert "1 of 7 cells are no numbers ('<0.1')" in below_limit.reason


def test_large_unique_numbers_are_an_input_unless_named_like_an_id() -> None:
    values = [str(i * i + 1000) for i in range(20)]
    assert role(values, "mass")[0] == "numeric"
    for name in ("patient_id", "CompoundID", "id", "Unnamed index"):
        assert role(values, name)[0] == "left out", name
    for name in ("acid", "humid", "liquid"):
        assert role(values, name)[0] == "numeric", name


def test_a_column_without_a_name_is_left_out() -> None:
    assert role([str(x) for x in np.linspace(0, 1, 20)], "")[0] == "left out"


def test_row_counters_are_consecutive_whole_numbers_in_any_order() -> None:
    assert counts_rows(pd.Series(["3", "1", "2"]))
    assert counts_rows(pd.Series(["0.0", "1.0"]))
    assert not counts_rows(pd.Series(["0", "1", "3"]))
    assert not counts_rows(pd.Series(["0", "1", "1"]))
    assert not counts_rows(pd.Series(["0.5", "1.5"]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [("CC>>CO", True), ("CC.O>[Pd]>CO", True), ("CC>CO", False), ("a > b", False), ("x>>y", False), ("C>C>C>C", False)],
)
def test_reactions_are_three_parts_of_molecules(value: str, expected: bool) -> None:
    assert is_reaction(value) is expected


def find(
    folder: Path, train: dict[str, list], test: dict[str, list], sample: dict[str, list], **named: object
) -> Found:
    for name, columns in (("train", train), ("test", test), ("sample", sample)):
        write_table(folder / f"{name}.csv", pd.DataFrame(columns))
    return detect(folder / "train.csv", folder / "test.csv", folder / "sample.csv", **named)  # type: ignore[arg-type]


ROWS = {"id": ["a", "b", "c", "d"], "x": [0.5, 0.1, 0.7, 0.2], "y": [1.0, 2.0, np.nan, 4.0]}
NEW = {"id": ["e", "f"], "x": [0.5, 0.6]}
ASKED = {"id": ["f", "e"], "y": [0, 0]}


def test_id_targets_and_inputs_of_a_plain_competition(tmp_path: Path) -> None:
    found = find(tmp_path, ROWS, NEW, ASKED)
    assert (found.id, found.targets, found.submission_columns) == ("id", ["y"], None)
    assert found.named("numeric") == ["x"]
    assert found.missing_labels == {"y": 1}
    assert found.problem == "a table, one target, sparse labels"


def test_targets_under_another_name_are_a_guess_by_order(tmp_path: Path) -> None:
    train = {**ROWS, "y2": [1, 2, 3, 5], "note": ["p", "q", "p", "q"]}
    found = find(tmp_path, train, NEW, {"id": ["e", "f"], "first": [0, 0], "second": [0, 0]})
    assert found.targets == ["y", "y2"]
    assert found.submission_columns == ["first", "second"]
    assert found.targets_reason == "GUESS, by order: in the sample first is y, second is y2"


def test_row_counters_and_columns_named_like_groups_are_no_targets(tmp_path: Path) -> None:
    train = {"": [0, 1, 2, 3], "n": [4, 3, 2, 1], "cluster": [1, 1, 2, 2], **ROWS}
    found = find(tmp_path, train, NEW, {"id": ["e", "f"], "prediction": [0, 0]})
    assert found.targets == ["y"]
    assert found.groups == ["cluster"]


def test_targets_that_cannot_be_told_are_asked_for(tmp_path: Path) -> None:
    train = {**ROWS, "z": [1, 2, 3, 5]}
    sample = {"id": ["e", "f"], "prediction": [0, 0]}
    with pytest.raises(DataError, match=r"2 of its numeric columns are not in the test table \(y, z\).*--target"):
        find(tmp_path, train, NEW, sample)
    found = find(tmp_path, train, NEW, sample, targets=["z"])
    assert (found.targets, found.submission_columns) == (["z"], ["prediction"])
    with pytest.raises(DataError, match="has no 'w'"):
        find(tmp_path, train, NEW, sample, targets=["w"])
    with pytest.raises(DataError, match="--target must name one column for each of prediction"):
        find(tmp_path, train, NEW, sample, targets=["y", "z"])


def test_the_order_of_the_sample_is_that_of_the_targets(tmp_path: Path) -> None:
    train = {**ROWS, "z": [1, 2, 3, 5]}
    sample = {"id": ["e", "f"], "z": [0, 0], "y": [0, 0]}
    assert find(tmp_path, train, NEW, sample).targets == ["z", "y"]
    assert find(tmp_path, train, NEW, sample, targets=["y", "z"]).targets == ["y", "z"]


def test_a_target_is_no_input_even_if_the_test_table_has_an_empty_column_for_it(tmp_path: Path) -> None:
    found = find(tmp_path, ROWS, {**NEW, "y": ["", ""]}, ASKED)
    assert found.targets == ["y"]
    assert [column.name for column in found.columns] == ["x"]


def test_an_input_in_the_sample_is_refused(tmp_path: Path) -> None:
    train = {**ROWS, "name": ["p", "q", "r", "s"]}
    with pytest.raises(SubmissionError, match="name stands in the test table too"):
        find(tmp_path, train, {**NEW, "name": ["t", "u"]}, {**ASKED, "name": ["t", "u"]})


def test_the_id_need_not_be_the_first_column_but_must_be_unique_in_all_tables(tmp_path: Path) -> None:
    found = find(tmp_path, ROWS, NEW, {"y": [0, 0], "id": ["e", "f"]})
    assert found.id == "id"
    assert found.id_reason.startswith("GUESS")
    with pytest.raises(DataError, match=r"train\.csv, column 'id' .*doubled: 'a'"):
        find(tmp_path, {**ROWS, "id": ["a", "a", "b", "c"]}, NEW, ASKED)
    with pytest.raises(DataError, match=r"must be a column of all three tables; .*train\.csv has key, x, y"):
        find(tmp_path, {"key": ROWS["id"], "x": ROWS["x"], "y": ROWS["y"]}, NEW, ASKED)
    with pytest.raises(DataError, match="--id 'x' must name a column of all three tables"):
        find(tmp_path, ROWS, NEW, ASKED, id_column="x")


def test_swapped_tables_are_suspected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Are --train and --test swapped"):
        find(tmp_path, NEW, ROWS, ASKED)


def test_a_target_with_text_is_refused_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'y' must hold finite numbers or nothing; row 3 \(id 'b'\) has '2,5'"):
        find(tmp_path, {**ROWS, "y": ["1", "2,5", "", "4"]}, NEW, ASKED)


def test_columns_of_one_table_and_the_group_are_left_out(tmp_path: Path) -> None:
    train = {**ROWS, "cluster": ["p", "p", "q", "q"], "lab": ["r", "r", "s", "s"]}
    test = {**NEW, "later": [1, 2], "lab": ["r", "t"]}
    found = find(tmp_path, train, test, ASKED, group="lab")
    reasons = {column.name: column.reason for column in found.columns if column.role == "left out"}
    assert reasons == {"cluster": "only in train", "lab": "makes the folds (--group)", "later": "only in test"}
    assert found.groups == ["cluster"]
    with pytest.raises(DataError, match="--group must name a column of .*'absent'"):
        find(tmp_path, train, test, ASKED, group="absent")


def test_a_competition_without_inputs_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found none to learn from .*'x': the same in every training row"):
        find(tmp_path, {**ROWS, "x": [1, 1, 1, 1]}, NEW, ASKED)


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"s": RINGS}, "molecules, one target"),
        ({"t": NOTES}, "text, one target"),
        ({"s": RINGS, "t": NOTES}, "molecules and text, one target"),
        ({"s": RINGS, "n": [x / 7 for x in range(20)]}, "molecules, one target"),
    ],
)
def test_the_kind_of_the_problem_is_named(tmp_path: Path, inputs: dict[str, list], problem: str) -> None:
    ids = [f"i{k}" for k in range(20)]
    found = find(tmp_path, {"id": ids, **inputs, "y": range(20)}, {"id": ids, **inputs}, {"id": ids, "y": [0] * 20})
    assert found.problem == problem


def test_acyclic_molecules_of_one_letter_are_told_by_their_length(tmp_path: Path) -> None:
    assert role(ALKANES)[0] == "smiles"
    assert role(ALKANES[:4] * 5)[0] == "categorical"


def test_a_group_of_molecules_that_the_test_table_has_too_stays_an_input(tmp_path: Path) -> None:
    train = {"id": range(20), "smiles": RINGS, "amount": [k % 7 for k in range(20)], "y": range(20)}
    test = {"id": [20, 21], "smiles": ["CCCc1ccccc1", "CCOc1ccccc1"], "amount": [3, 4]}
    sample = {"id": [20, 21], "y": [0, 0]}
    found = find(tmp_path, train, test, sample, group="smiles")
    assert found.named("smiles") == ["smiles"]
    assert "makes the folds, too" in found.columns[0].reason
    assert find(tmp_path, train, test, sample, group="amount").named("numeric") == []
