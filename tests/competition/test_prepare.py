"""Raw tables: what is refused, with the row named, and what is cleaned and counted."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition import command
from competition.config import load_competition
from competition.errors import DataError, SubmissionError, UserError
from competition.files import read_json, read_table
from competition.molecules import canonical_smiles, normalised_text
from competition.paths import PROJECT, Paths
from competition.prepare import Prepared, describe, prepare, prepare_test
from competition.tables import INPUT_KEY, TIME, read_rows
from tests.competition.small import SAMPLE, TEST, TRAIN, write_small


def prepared(folder: Path, *args: Any, **settings: Any) -> Prepared:
    return prepare(load_competition(str(write_small(folder, *args, **settings))))


def with_line(lines: list[str], position: int, line: str) -> list[str]:
    return [*lines[:position], line, *lines[position + 1 :]]


def test_a_clean_competition_passes_with_its_rows_in_their_order(tmp_path: Path) -> None:
    found = prepared(tmp_path)
    assert found.train["id"].tolist() == list("abcdef")
    assert found.train["y"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert found.report["missing_labels"] == {"y": 0}
    assert found.report["duplicates_in_train"] == 0


@pytest.mark.parametrize(
    ("tables", "error", "words"),
    [
        ({"train": ["id,y", "a,1"]}, DataError, r"train\.csv must have .*; lacking: SMILES \(it has id, y\)"),
        ({"train": ["id,SMILES", "a,C"]}, DataError, r"train\.csv .*lacking: y"),
        ({"test": ["id,y", "t1,1", "t2,1"]}, DataError, r"test\.csv .*lacking: SMILES"),
        ({"train": TRAIN[:1]}, DataError, r"train\.csv must have at least one row"),
        ({"test": TEST[:1], "sample": SAMPLE[:1]}, DataError, r"test\.csv must have at least one row"),
        ({"train": [*TRAIN, "a,CC,1"]}, DataError, r"train\.csv: ids must be unique; doubled: 'a'"),
        ({"test": [*TEST, "t1,CC"]}, DataError, r"test\.csv: ids must be unique; doubled: 't1'"),
        ({"train": with_line(TRAIN, 2, " ,CC,1")}, DataError, r"every row must have an id; row 3 has none"),
        ({"sample": [*SAMPLE, "t9,0"]}, SubmissionError, r"1 are in the sample only \('t9'\)"),
        ({"sample": SAMPLE[:2]}, SubmissionError, r"1 are in the test table only \('t2'\)"),
        ({"sample": [*SAMPLE, "t1,0"]}, SubmissionError, r"sample\.csv: ids must be unique; doubled: 't1'"),
        ({"sample": ["id,z", "t1,0", "t2,0"]}, SubmissionError, r"must have the columns id, y; found id, z"),
        ({"train": with_line(TRAIN, 3, "c,CCN,high")}, DataError, r"'y' must hold .*row 4 \(id 'c'\) has 'high'"),
        ({"train": with_line(TRAIN, 3, "c,CCN,inf")}, DataError, r"'y' must hold finite .*row 4 \(id 'c'\) has 'inf'"),
        ({"train": with_line(TRAIN, 3, "c,CCN,1e999")}, DataError, r"row 4 \(id 'c'\) has '1e999'"),
        ({"train": with_line(TRAIN, 3, 'c,CCN,"1,5"')}, DataError, r"row 4 \(id 'c'\) has '1,5'"),
        ({"train": ["id,SMILES,y", "a,C,", "b,CC,NA"]}, DataError, r"every target must have labels; y has none"),
        ({"train": with_line(TRAIN, 4, "d,c1ccccc,4")}, DataError, r"row 5 \(id 'd'\).*'c1ccccc'.*unparsable: drop"),
        ({"train": with_line(TRAIN, 4, "d,,4")}, DataError, r"row 5 \(id 'd'\)"),
        ({"train": with_line(TRAIN, 4, "d,CC O,4")}, DataError, r"row 5 \(id 'd'\).*'CC O'"),
        ({"test": with_line(TEST, 2, "t2,what")}, DataError, r"test\.csv: .*row 3 \(id 't2'\).*'what'"),
    ],
)  # fmt: skip
def test_a_broken_table_is_refused_and_the_place_named(
    tmp_path: Path, tables: dict[str, list[str]], error: type[UserError], words: str
) -> None:
    with pytest.raises(error, match=words):
        prepared(tmp_path, **tables)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = write_small(tmp_path)
    (tmp_path / "test.csv").unlink()
    with pytest.raises(DataError, match=r"there is no file .*test\.csv"):
        prepare(load_competition(str(path)))


def test_a_sample_of_many_rows_is_compared_quickly(tmp_path: Path) -> None:
    """60,000 ids: a comparison that looks through all of them for each one would take minutes."""
    n = 60_000
    found = prepared(
        tmp_path,
        test=["id,x", *(f"t{i},{i}" for i in range(n))],
        sample=["id,y", *(f"t{i},0" for i in reversed(range(n)))],
        train=["id,x,y", "a,1,1", "b,2,2"],
        smiles=None,
        numeric=["x"],
    )
    assert found.report["n_test"] == n


def test_missing_labels_are_empty_or_na_and_are_counted(tmp_path: Path) -> None:
    labels = ["1.5", "", "NA", "NaN", " null ", "-2e1"]
    found = prepared(tmp_path, ["id,SMILES,y", *(f"{i},{'C' * (i + 1)},{y}" for i, y in enumerate(labels))])
    np.testing.assert_array_equal(found.train["y"], [1.5, np.nan, np.nan, np.nan, np.nan, -20.0])
    assert found.report["missing_labels"] == {"y": 4}
    assert "labels missing: y 4" in describe(found.report)


def test_ids_keep_their_zeros_and_text_inputs_their_na(tmp_path: Path) -> None:
    found = prepared(
        tmp_path,
        ["id,SMILES,y", "007,NA,1", "7,none,2", "1e3,a text,3"],
        ["id,SMILES", "008,null", "8,NaN"],
        ["id,y", "8,0", "008,0"],
        smiles=None,
        text=["SMILES"],
    )
    assert found.train["id"].tolist() == ["007", "7", "1e3"]
    assert found.train["SMILES"].tolist() == ["NA", "none", "a text"]
    assert found.test["SMILES"].tolist() == ["null", "NaN"]
    assert found.report["duplicates_in_train"] == 0


def test_the_same_molecule_in_other_words_is_a_duplicate_and_counted_across_tables(tmp_path: Path) -> None:
    train = ["id,SMILES,y", "a,OCC,1", "b,CCO,2", "c,C(O)C,3", "d,CCC,4"]
    found = prepared(tmp_path, train, ["id,SMILES", "t1,C(C)O", "a,CN"], ["id,y", "t1,0", "a,0"])
    keys = found.train[INPUT_KEY]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert found.report["duplicates_in_train"] == 2
    assert found.report["test_rows_whose_input_is_in_train"] == 1
    assert found.report["ids_in_train_and_test"] == 1
    assert "2 training rows repeat the input" in describe(found.report)


def test_the_same_text_in_other_case_and_blanks_is_a_duplicate_but_stays_as_written(tmp_path: Path) -> None:
    lines = ["id,SMILES,y", "a,Good  day,1", "b,good day ,2", "c,good\u00a0DAY,3", "d,bad day,4"]
    found = prepared(tmp_path, lines, smiles=None, text=["SMILES"])
    assert found.report["duplicates_in_train"] == 2
    assert found.train["SMILES"].tolist()[:2] == ["Good  day", "good day "]


def test_rows_are_duplicates_only_where_all_inputs_agree(tmp_path: Path) -> None:
    train = ["id,SMILES,pH,y", "a,CCO,1,1", "b,OCC,1.0,2", "c,CCO,2,3", "d,CCO,,4", "e,CCO,NA,5"]
    test = ["id,SMILES,pH", "t1,C,1", "t2,C,2"]
    keys = prepared(tmp_path, train, test, numeric=["pH"]).train[INPUT_KEY]
    assert keys[0] == keys[1]
    assert keys[3] == keys[4]
    assert keys.nunique() == 3


def test_unparsable_rows_are_dropped_only_if_configured_and_named_in_the_report(tmp_path: Path) -> None:
    train = with_line(TRAIN, 4, "d,not a molecule,4")
    test = with_line(TEST, 1, "t1,")
    found = prepared(tmp_path, train, test, unparsable="drop")
    assert found.train["id"].tolist() == list("abcef")
    assert found.report["dropped_train_ids"] == ["d"]
    assert found.report["dropped_test_ids"] == ["t1"]
    assert found.sample["id"].tolist() == ["t1", "t2"]


def test_an_empty_molecule_is_refused_or_what_the_yaml_says(tmp_path: Path) -> None:
    train = with_line(TRAIN, 4, "d,  ,4")
    with pytest.raises(DataError, match=r"row 5 \(id 'd'\).*unparsable: drop, or empty_smiles: \"\[Ar\]\" where empty"):
        prepared(tmp_path, train)
    found = prepared(tmp_path, train, empty_smiles="[Ar]")
    assert found.train["SMILES"].tolist()[3] == "[Ar]"
    assert "empty molecules, read as empty_smiles: SMILES 1" in describe(found.report)
    assert "empty molecules" not in describe(prepared(tmp_path).report)
    assert found.train["SMILES"].tolist()[:3] == prepared(tmp_path).train["SMILES"].tolist()[:3]
    with pytest.raises(DataError, match="does not in row 5"):
        prepared(tmp_path, train, empty_smiles="none")


def test_an_auxiliary_target_without_labels_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must have labels; z has none at all"):
        prepared(tmp_path, ["id,SMILES,y,z", "a,C,1,", "b,CC,2,"], auxiliary_targets=["z"])


def test_empty_text_is_refused_or_dropped(tmp_path: Path) -> None:
    lines = ["id,SMILES,y", "a, ,1", "b,words,2"]
    with pytest.raises(DataError, match=r"must hold text in every row; it does not in row 2 \(id 'a'\) \("):
        prepared(tmp_path, lines, smiles=None, text=["SMILES"])
    assert prepared(tmp_path, lines, smiles=None, text=["SMILES"], unparsable="drop").train["id"].tolist() == ["b"]


def test_the_last_label_may_not_be_dropped_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every target must have labels"):
        prepared(tmp_path, ["id,SMILES,y", "a,bad,1", "b,CC,"], unparsable="drop")


def test_a_group_column_is_kept_and_may_not_be_empty(tmp_path: Path) -> None:
    lines = ["id,SMILES,g,y", "a,C,1,1", "b,CC, 1 ,2", "c,CCC,01,3"]
    assert prepared(tmp_path, lines, group="g").train["g"].tolist() == ["1", "1", "01"]
    with pytest.raises(DataError, match=r"group column 'g' must not be empty; it is for row 3 \(id 'b'\)"):
        prepared(tmp_path, with_line(lines, 2, "b,CC,,2"), group="g")


def test_a_group_column_that_is_an_input_keeps_its_clean_form(tmp_path: Path) -> None:
    found = prepared(tmp_path, with_line(TRAIN, 2, "b,OCC,2"), group="SMILES")
    assert found.train["SMILES"].tolist()[:2] == ["CCO", "CCO"]


TIMES = ["id,SMILES,y,t", "a,CCO,1.0,{}", "b,CCC,2.0,{}", "c,CCN,3.0,{}"]


def with_cells(*cells: str) -> list[str]:
    return [TIMES[0], *(line.format(cell) for line, cell in zip(TIMES[1:], cells, strict=True))]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("2020", "3.5", "-1"), [2020.0, 3.5, -1.0]),
        (("1970-01-01", "1970-01-02T00:00:10", "1969-12-31T23:00:00+00:00"), [0.0, 86410.0, -3600.0]),
    ],
)
def test_times_are_numbers_or_dates(tmp_path: Path, cells: tuple[str, ...], expected: list[float]) -> None:
    assert prepared(tmp_path, with_cells(*cells), time="t").train[TIME].tolist() == expected


@pytest.mark.parametrize(
    ("cells", "role", "words"),
    [
        (("1", "", "3"), "time", r"time column 't' must hold .*; it does not in row 3 \(id 'b'\)\. "),
        (("2020-01-01", "7", "2020-01-03"), "time", r"row 3 \(id 'b'\)"),
        (("soon", "later", "last"), "time", "row 2 .*, row 3 .*, row 4"),
        (
            ("0", "", "1"),
            "fold_column",
            r"fold column 't' must hold .* row 3 \(id 'b'\) \(the first has ''",
        ),
        (("0", "1.5", "1"), "fold_column", "'1.5'"),
        (("0", "-2", "1"), "fold_column", "'-2'"),
    ],
)
def test_a_time_or_fold_that_is_none_is_refused(tmp_path: Path, cells: tuple[str, ...], role: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        prepared(tmp_path, with_cells(*cells), **{role: "t"})


def test_labels_outside_the_domain_of_the_metric_are_counted_and_the_first_named(tmp_path: Path) -> None:
    train = ["id,SMILES,y", "a,CCO,0", "b,CCC,-1", "c,CCN,-2.5"]
    with pytest.raises(
        DataError, match=r"above -1 for the metric rmsle; 2 of 3 are not, row 3 \(id 'b'\), .*first is -1\)"
    ):
        prepared(tmp_path, train, metric="rmsle")
    assert prepared(tmp_path, [*train[:2], "b,CCC,-0.9"], metric="rmsle").report["n_train"] == 2


def test_a_constant_column_and_target_are_reported(tmp_path: Path) -> None:
    found = prepared(tmp_path, ["id,SMILES,y", "a,CCO,1", "b,OCC,1"])
    assert found.report["constant_columns"] == ["SMILES"]
    assert found.report["constant_targets"] == ["y"]


def test_a_new_test_table_is_cleaned_alike_without_the_training_table(tmp_path: Path) -> None:
    config = load_competition(str(write_small(tmp_path, unparsable="drop")))
    config.train.unlink()
    (tmp_path / "hidden.csv").write_text("id,SMILES\nh1,OCC\nh2,nothing\n")
    table, ids, dropped = prepare_test(config, str(tmp_path / "hidden.csv"))
    assert table["SMILES"].tolist() == ["CCO"]
    assert (ids, dropped) == (["h1", "h2"], ["h2"])


@pytest.mark.parametrize(
    ("smiles", "canonical"),
    [
        ("OCC", "CCO"), (" OCC ", "CCO"), ("C1=CC=CC=C1", "c1ccccc1"), ("CCO |$;;$|", "CCO"), ("", None),
        ("CC O", None), ("CCO ethanol", None), ("C1CC", None), ("CC>>CO", None), ("yes", None),
    ],
)  # fmt: skip
def test_a_molecule_has_one_canonical_form_or_none(smiles: str, canonical: str | None) -> None:
    assert canonical_smiles(smiles) == canonical


def test_texts_that_look_alike_are_normalised_alike() -> None:
    assert normalised_text(" ＡB\u00a0 ﬁne\n") == "ab fine"


def run_prepare(path: Path, work: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WORK_DIR": str(work), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "competition.prepare", str(path)],
        cwd=PROJECT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_ends_with_2_and_one_sentence_and_leaves_earlier_products_alone(tmp_path: Path) -> None:
    work = tmp_path / "products"
    first = run_prepare(write_small(tmp_path), work)
    assert first.returncode == 0, first.stderr
    assert "6 training rows, 2 test rows" in first.stdout
    products = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    assert {path.name for path in products} >= {
        "train.parquet",
        "test.parquet",
        "sample_submission.parquet",
        "report.json",
    }

    broken = run_prepare(write_small(tmp_path, with_line(TRAIN, 3, "c,CCN,high")), work)
    assert broken.returncode == 2
    assert broken.stdout == ""
    assert broken.stderr.startswith("DataError: ")
    assert len(broken.stderr.splitlines()) == 1
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == products

    unknown = run_prepare(tmp_path / "absent.yaml", work)
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("ConfigError: ")
    assert "Traceback" not in unknown.stderr


def test_what_is_written_reads_back_as_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from competition import prepare as module

    lines = ["id,SMILES,y", "007,OCC,0.1", "x,CC,"]
    path = write_small(tmp_path, lines)
    monkeypatch.setattr(sys, "argv", ["prepare", str(path)])
    module.main()
    paths = Paths.of(str(path))
    rows = read_rows(paths.train, load_competition(str(path)), labelled=True)
    assert rows.ids == ["007", "x"]
    assert rows.inputs["SMILES"].tolist() == ["CCO", "CC"]
    np.testing.assert_array_equal(rows.y, [[0.1], [np.nan]])
    assert rows.take(np.array([False, True])).ids == ["x"]
    assert read_rows(paths.test, load_competition(str(path)), labelled=False).y is None
    assert read_json(paths.prepare_report)["missing_labels"] == {"y": 1}
    assert read_table(paths.sample)["id"].tolist() == ["t1", "t2"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DataError("x"), 2),
        (OSError(errno.ENOSPC, "No space"), 2),
        (OSError(errno.EROFS, "ro"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_a_command_ends_with_the_status_of_its_error(error: BaseException, status: int) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        command.run(main)
    assert end.value.code == status


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(errno.EIO, "disk")])
def test_any_other_error_keeps_its_traceback(error: Exception) -> None:
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        command.run(main)


def test_products_are_used_by_one_command_at_a_time() -> None:
    paths = Paths.of("one")
    with command.locked(paths), pytest.raises(DataError, match="in use by another command"), command.locked(paths):
        raise AssertionError("both hold the lock")
    with command.locked(paths):
        pass


def test_a_command_that_waits_for_another_says_for_whom_and_goes_on_after_it(tmp_path: Path) -> None:
    paths = Paths.of("one")
    code = (
        "from competition import command\nfrom competition.paths import Paths\n"
        "with command.locked(Paths.of('one'), wait=True):\n    print('mine')\n"
    )
    with command.locked(paths):
        waiting = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        assert waiting.stdout is not None
        assert waiting.stdout.readline().startswith("waiting for ")
        assert waiting.poll() is None
    assert waiting.communicate()[0] == "mine\n"


def test_tables_change_only_while_no_one_trains_on_them(tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert run_prepare(write_small(tmp_path), work).returncode == 0
    written = {path: path.stat().st_mtime_ns for path in work.rglob("*.parquet")}
    with command.tables_in_use(Paths.of("small")), command.tables_in_use(Paths.of("small")):
        same = run_prepare(write_small(tmp_path), work)
        assert same.returncode == 0, same.stderr
        assert {path: path.stat().st_mtime_ns for path in work.rglob("*.parquet")} == written
        other = run_prepare(write_small(tmp_path, with_line(TRAIN, 3, "c,CCN,7.5")), work)
        assert other.returncode == 2
        assert "small is in use by another command, which trains on other tables" in other.stderr
        assert {path: path.stat().st_mtime_ns for path in work.rglob("*.parquet")} == written
    assert run_prepare(write_small(tmp_path, with_line(TRAIN, 3, "c,CCN,7.5")), work).returncode == 0
