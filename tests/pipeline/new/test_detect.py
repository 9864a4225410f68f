"""What a column is taken for, and what is not guessed."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.errors import DataError
from core.files import write_table
from pipeline.new.column_roles import Column, classify, counts_rows, is_reaction
from pipeline.new.detect import DetectedTables, detect

ALKANES = ["C" * k for k in range(1, 21)]
RINGS = [f"{'C' * k}c1ccccc1" for k in range(20)]
NOTES = [f"sample {i} looked rather {word} today" for i in range(10) for word in ("clear", "dull")]
NUMBERS = [str(x) for x in np.linspace(0, 1, 20)]
LARGE = [str(i * i + 1000) for i in range(20)]


def column(values: list[str], name: str = "column", test: list[str] | None = None) -> Column:
    return classify(
        name, pd.Series(values, dtype=str), pd.Series(values[:3] if test is None else test, dtype=str)
    )


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        (RINGS, "c", "smiles"),
        (["CCCCCO", "CCCCCN", "CCCCCC", "CCCCCCl"] * 5, "c", "smiles"),
        (ALKANES, "c", "smiles"),
        (ALKANES[:4] * 5, "c", "categorical"),
        (["C", "N", "CO", "O"] * 5, "solvent_SMILES", "smiles"),
        (["C", "N", "CO", "I"] * 5, "c", "categorical"),
        (["", "site A", "site B", "site B"] * 5, "c", "categorical"),
        (["007", "012", "100"] * 7, "c", "categorical"),
        (NOTES, "c", "text"),
        (["你好世界今天天气不错" + chr(0x4E00 + i) for i in range(20)], "c", "text"),
        ([f"{s}>>{s}O" for s in RINGS], "c", "text"),
        (NUMBERS, "c", "numeric"),
        (["1.5", "NA", "", "nan", "-2e3"] * 4, "c", "numeric"),
        (LARGE, "mass", "numeric"),
        (LARGE, "patient_id", "left out"),
        (NUMBERS, "", "left out"),
        ([str(i) for i in range(20)], "c", "left out"),
        (["x"] * 20, "c", "left out"),
        ([f"KX{i}-{i * i}" for i in range(20)], "c", "left out"),
        ([f"{i:04d}" for i in range(20)], "c", "left out"),
        ([f"2024-01-{i:02d} 10:00" for i in range(1, 21)], "measured", "left out"),
    ],
)  # fmt: skip
def test_a_column_is_taken_for_what_it_is(values: list[str], name: str, expected: str) -> None:
    assert column(values, name).role == expected, column(values, name)


@pytest.mark.parametrize(
    ("values", "test", "role", "words"),
    [
        ([*RINGS, "c1cc", "C(("], RINGS[:2], "smiles", "RDKit parses 20 of 22 distinct values"),
        (["1,5", "2,25", "3"], ["1,0"], "left out", "3 of 4 cells are not numbers ('1,5', a decimal comma)"),
        (NUMBERS, ["0.5", "?", "."], "left out", "2 of 23 cells are not numbers"),
    ],
)
def test_damaged_cells_of_either_table_are_shown(
    values: list[str], test: list[str], role: str, words: str
) -> None:
    detected = column(values, test=test)
    assert detected.role == role and words in detected.reason


def test_row_numbers_are_consecutive_whole_numbers_in_any_order_over_both_tables() -> None:
    assert column(["5", "0", "3"], test=["1", "4", "2"]).reason == "counts the rows"
    assert column(["5", "0", "3"], test=["1", "4", "9"]).role == "numeric"
    assert [counts_rows(pd.Series(cells)) for cells in (["0", "1", "1"], ["0.5", "1.5"])] == [False, False]


def test_reactions_are_three_parts_of_molecules() -> None:
    assert is_reaction("CC>>CO") and is_reaction("CC.O>[Pd]>CO")
    assert not any(map(is_reaction, ("CC>CO", "a > b", "x>>y", "C>C>C>C")))


ROWS: dict[str, Any] = {"id": ["a", "b", "c", "d"], "x": [0.5, 0.1, 0.7, 0.2], "y": [1.0, 2.0, np.nan, 4.0]}
NEW: dict[str, Any] = {"id": ["e", "f"], "x": [0.5, 0.6]}
SAMPLE: dict[str, Any] = {"id": ["f", "e"], "y": [0, 0]}
OTHER_NAME = {"id": ["e", "f"], "prediction": [0, 0]}
Z = {"z": [1, 2, 3, 5]}


def find(
    folder: Path, train: dict[str, Any], test: dict[str, Any], sample: dict[str, Any], **given_targets: Any
) -> DetectedTables:
    files = [folder / f"{name}.csv" for name in ("train", "test", "sample")]
    for file, columns in zip(files, (train, test, sample), strict=True):
        write_table(file, pd.DataFrame(columns))
    return detect(files, **given_targets)


def test_id_targets_and_inputs_of_a_plain_competition(tmp_path: Path) -> None:
    detected = find(
        tmp_path, ROWS, {**NEW, "y": ["", ""]}, SAMPLE
    )  # a target is no input even with an empty column
    assert (detected.id, detected.targets, detected.submission_columns) == ("id", ["y"], None)
    assert detected.inputs == detected.with_roles("numeric") == ["x"]
    detected = find(
        tmp_path, ROWS, NEW, {"y": [0, 0], "id": ["e", "f"]}
    )  # the id need not be the first column
    assert (detected.id, detected.id_reason[:5]) == ("id", "GUESS")


def test_what_a_sample_repeats_of_the_test_table_is_no_target(tmp_path: Path) -> None:
    train, test = {"SMILES": ["C", "CC", "CCC", "CCCC"], **ROWS}, {"SMILES": ["CO", "CCO"], **NEW}
    sample = {"": [0, 1], "SMILES": ["CCO", "CO"], **SAMPLE, "x": [0.6, 0.5]}
    detected = find(tmp_path, train, {"": [0, 1], **test}, sample, inputs_needed=False)
    assert (detected.id, detected.targets, detected.with_roles("smiles", "numeric")) == (
        "id",
        ["y"],
        ["SMILES", "x"],
    )


@pytest.mark.parametrize(
    ("more", "sample", "given_targets", "targets"),
    [
        (Z, {"id": ["e", "f"], "z": [0, 0], "y": [0, 0]}, [], ["z", "y"]),  # the order of the sample
        (Z, {"id": ["e", "f"], "z": [0, 0], "y": [0, 0]}, ["y", "z"], ["y", "z"]),
        (Z, OTHER_NAME, ["z"], ["z"]),
        (Z, {"id": ["e", "f"], "first": [0, 0], "second": [0, 0]}, [], ["y", "z"]),
        (
            {"": [0, 1, 2, 3], "n": [4, 3, 2, 1], "cluster": [1, 1, 2, 2], "t": list("pqpq")},
            OTHER_NAME,
            [],
            ["y"],
        ),
        ({"t": list("pqpq"), "u": list("pqrs")}, {"id": ["e", "f"], "prediction": ["p", "p"]}, [], ["t"]),
    ],
)
def test_targets_are_those_of_the_sample_named_or_guessed_by_order(
    tmp_path: Path, more: dict[str, Any], sample: dict[str, Any], given_targets: list[str], targets: list[str]
) -> None:
    detected = find(tmp_path, {**ROWS, **more}, NEW, sample, targets=given_targets)
    assert detected.targets == targets
    assert detected.submission_columns in (None, [name for name in sample if name != "id"])
    assert detected.targets_reason.startswith("GUESS") == (
        not given_targets and not set(sample) <= {*ROWS, *more}
    )


@pytest.mark.parametrize(
    ("tables", "given_targets", "words"),
    [
        (({**ROWS, **Z}, NEW, OTHER_NAME), {}, r"2 of its columns with labels are .* \(y, z\).*--target"),
        (
            ({**ROWS, **Z}, NEW, OTHER_NAME),
            {"targets": ["w"]},
            "--target: 'w' is not in the training table",
        ),
        (
            ({**ROWS, **Z}, NEW, OTHER_NAME),
            {"targets": ["y", "z"]},
            "needs a column per target .* has prediction",
        ),
        ((ROWS, NEW, {"id": ["e", "f"]}), {}, "needs a column per target .* has none"),
        ((NEW, ROWS, SAMPLE), {}, "are --train and --test swapped"),
        (
            ({**ROWS, "id": list("aabc")}, NEW, SAMPLE),
            {},
            r"train\.csv, column 'id' .*: duplicate ids: 'a'",
        ),
        (
            ({"key": [1, 2], "x": [1, 2], "y": [1, 2]}, NEW, SAMPLE),
            {},
            r"'id' is missing in .*train\.csv \(it ",
        ),
        ((ROWS, NEW, SAMPLE), {"id_column": "x"}, "the id column 'x' is missing in "),
        ((ROWS, NEW, SAMPLE), {"group": "absent"}, "--group takes a column of .*'absent'"),
        (
            ({**ROWS, "x": [1, 1, 1, 1]}, NEW, SAMPLE),
            {},
            "input to learn from .*'x': the same in every training row",
        ),
    ],
)
def test_what_cannot_be_detected_is_asked_for(
    tmp_path: Path, tables: Any, given_targets: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        find(tmp_path, *tables, **given_targets)


def test_columns_of_one_table_and_the_group_are_left_out(tmp_path: Path) -> None:
    train = {**ROWS, "cluster": ["p", "p", "q", "q"], "lab": ["r", "r", "s", "s"]}
    detected = find(tmp_path, train, {**NEW, "later": [1, 2], "lab": ["r", "t"]}, SAMPLE, group="lab")
    reasons = {column.name: column.reason for column in detected.columns if column.role == "left out"}
    assert reasons.pop("cluster").startswith(
        "only in train; if rows of one cluster belong together, set group: clus"
    )
    assert reasons == {"lab": "makes the folds (--group)", "later": "only in test"}


def test_a_group_of_molecules_that_the_test_table_has_too_stays_an_input(tmp_path: Path) -> None:
    train = {"id": range(20), "smiles": RINGS, "amount": [k % 7 for k in range(20)], "y": range(20)}
    test = {"id": [20, 21], "smiles": ["CCCc1ccccc1", "CCOc1ccccc1"], "amount": [3, 4]}
    detected = find(tmp_path, train, test, {"id": [20, 21], "y": [0, 0]}, group="smiles")
    assert detected.with_roles("smiles") == ["smiles"]
    assert "also makes the folds" in detected.columns[0].reason


OF_CLASSES: dict[str, Any] = {"id": range(6), "x": range(1, 12, 2), "n": [0.5, 0.25, 4, 3, 2, 1]}


@pytest.mark.parametrize(
    ("labels", "columns", "expected"),
    [
        ("pqpqrr", ["r", "p", "q"], ["p", "q", "r"]),
        (
            "pqpqrr",
            ["prob_q", "prob_p", "prob_r"],
            ["prob_p", "prob_q", "prob_r"],
        ),  # p stands in the prefix, too
        ("pqpqrr", ["label=q", "label=p", "label=r"], ["label=p", "label=q", "label=r"]),
        ("pqpqrr", ["P(q)", "P(p)", "P(r)"], ["P(p)", "P(q)", "P(r)"]),
        (
            "pqpqrr",
            ["r is likely", "q is likely", "p is likely"],
            ["p is likely", "q is likely", "r is likely"],
        ),
        ("010122", ["class_1", "class_0", "class_2"], ["class_0", "class_1", "class_2"]),
        ("ynynyy", ["is_y", "is_n"], ["is_n", "is_y"]),
    ],
)
def test_a_column_for_each_class_is_detected_by_name_with_what_stands_around_all_names(
    tmp_path: Path, labels: str, columns: list[str], expected: list[str]
) -> None:
    train = {**OF_CLASSES, "label": list(labels)}
    test, sample = {"id": [7, 8], "x": [9, 8]}, {"id": [7, 8], **dict.fromkeys(columns, [0.5, 0.5])}
    detected = find(tmp_path, train, test, sample, **({"targets": ["label"]} if labels == "010122" else {}))
    assert (detected.targets, detected.submission_columns) == (["label"], expected)
    more = {
        **sample,
        columns[0].replace("r", "z").replace("q", "z").replace("1", "z").replace("y", "z"): [0, 0],
    }
    with pytest.raises(
        DataError, match="has a column for each class of 'label', and other classes .*z.* has no class"
    ):
        find(tmp_path, train, test, more, targets=["label"])


def test_a_target_by_order_may_have_censored_numbers(tmp_path: Path) -> None:
    train = {**ROWS, "y": [">1.0", "2.0", "", "<4.5"]}
    assert find(tmp_path, train, NEW, OTHER_NAME).targets == ["y"]
