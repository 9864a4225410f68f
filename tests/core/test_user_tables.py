"""The same table in many forms is read alike, and what cannot be read for sure is said."""

import gzip
import io
import json
import unicodedata
import zipfile
from datetime import datetime

import openpyxl
import pandas as pd
import pytest

from core.errors import DataError
from core.user_tables import read_text_table
from tests.competition.small import prepared

RECORDS = [{"id": "007", "text": "née, 'x'", "y": 1}, {"id": "8", "text": None, "y": 12345678901234567}]
CELLS = [["007", "née, 'x'", "1"], ["8", "", "12345678901234567"]]
DIGITS = [{**record, "y": str(record["y"])} for record in RECORDS]  # Excel rounds numbers to 15 digits
COMMAS = "id,text,y\n007,\"née, 'x'\",1\n8,,12345678901234567\n"
TABS = "id\ttext\ty\n007\tnée, 'x'\t1\n8\t\t12345678901234567\n"


def zipped(**files):
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def parquet_of(records):
    buffer = io.BytesIO()
    pd.DataFrame(records).to_parquet(buffer, index=False)
    return buffer.getvalue()


def workbook_of(**sheets):
    """An Excel workbook of tables without their index."""
    buffer = io.BytesIO()
    with pd.ExcelWriter(buffer, engine="openpyxl") as writer:
        for name, records in sheets.items():
            pd.DataFrame(records).to_excel(writer, sheet_name=name, index=False)
    return buffer.getvalue()


FORMS = {
    "commas.csv": (COMMAS.encode(), ""),
    "bom.csv": (COMMAS.encode("utf-8-sig"), ""),
    "tabs.tsv": (TABS.encode(), "separated by tabs"),
    "tabs.csv": (TABS.encode("utf-16"), "UTF-16, separated by tabs"),
    "quoted.tsv": (TABS.replace("née, 'x'", "\"née, 'x'\"").encode(), "separated by tabs"),
    "semicolons.csv": (TABS.replace("\t", ";").encode(), "separated by semicolons"),
    "list.json": (json.dumps(RECORDS, indent=2).encode(), "JSON"),
    "lines.jsonl": ("\n".join(map(json.dumps, RECORDS)).encode(), "JSON lines"),
    "table.parquet": (parquet_of(RECORDS), "Parquet"),
    "sheet.xlsx": (workbook_of(a=DIGITS), "Excel workbook"),
    "sheet.xlsx.zip": (zipped(**{"a.xlsx": workbook_of(a=DIGITS)}), "zip, Excel workbook"),
    "table.csv.gz": (gzip.compress(COMMAS.encode(), mtime=0), "gzip"),
    "table.zip": (zipped(**{"a.tsv": TABS, "__MACOSX/a.tsv": ""}), "zip, separated by tabs"),
}


def read(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return read_text_table(path)


def test_every_cell_is_the_text_that_stands_in_the_file(tmp_path):
    path, windows = tmp_path / "a.csv", tmp_path / "windows.csv"
    path.write_text("id,text,y\n007,NA,1.50\n1e3,,None\n ,true,\n", encoding="utf-8-sig")
    table = read_text_table(path)
    assert table.columns.tolist() == ["id", "text", "y"]
    assert table.to_numpy().tolist() == [["007", "NA", "1.50"], ["1e3", "", "None"], [" ", "true", ""]]
    windows.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(read_text_table(windows), table)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no row below a header"),
        (b"a,b,a\n1,2,3\n", "duplicate columns: 'a'"),
        (b"a,b\n1,2\n\n3\n", "row 4 has 1 cells and the header 2"),  # as a spreadsheet counts
        (b'a,b\n1,"open\n2,3\n', "cannot be read as a CSV file"),
        (b"a,b\n\xe9,2\n", "in UTF-8"),
        (b"id;y|z\n1;2|5\n", r"semicolons or the sign \| between its cells. Save it with commas"),
    ],
)
def test_a_file_that_is_no_plain_csv_is_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^[^\n]*bad\.csv[^\n]*{words}[^\n]*$"):
        read_text_table(path)


def test_an_absent_table_is_an_error(tmp_path):
    with pytest.raises(DataError, match="there is no file .*absent"):
        read_text_table(tmp_path / "absent.csv")


@pytest.mark.parametrize("name", FORMS)
def test_a_table_has_the_same_cells_in_every_form_which_is_named(tmp_path, name):
    content, form = FORMS[name]
    table = read(tmp_path, name, content)
    assert table.columns.tolist() == ["id", "text", "y"]
    assert table.to_numpy().tolist() == CELLS
    assert table.attrs == ({"form": form} if form else {})


def test_missing_keys_and_lists_of_records_are_cells(tmp_path):
    lines = b'{"id": 1, "y": 2}\n\n{"id": 2.5, "more": [1, "b"], "y": NaN}\n'
    table = read(tmp_path, "a.jsonl", lines)
    assert table.to_numpy().tolist() == [["1", "2", ""], ["2.5", "", '[1, "b"]']]
    assert table.index.tolist() == [1, 2]


def test_half_of_a_surrogate_pair_is_replaced_in_names_and_cells_with_a_warning(tmp_path):
    lines = (
        rb'{"id": "\udc00", "t\ud83d": ["cut \ud83d"]}' + b"\n" + rb'{"id": "2", "t\ud83d": "\ud83d\ude00"}'
    )
    table = read(tmp_path, "a.jsonl", lines)
    assert table.columns.tolist() == ["id", "t\ufffd"]
    assert table.to_numpy().tolist() == [["\ufffd", '["cut \ufffd"]'], ["2", "😀"]]
    (warning,) = table.attrs["warnings"]
    assert warning.startswith("WARNING: 3 cells and names of a.jsonl have a lone surrogate")


def test_of_a_workbook_the_first_sheet_is_read_with_its_rows_as_numbered_there(tmp_path):
    records = [
        {"id": 1.0, "day": datetime(2026, 1, 2, 3), "y": 0.5},
        {"id": None, "day": None, "y": None},
        {"id": 3.0, "day": datetime(2026, 1, 4), "y": -1e-7},
    ]
    table = read(
        tmp_path, "a.xlsx", workbook_of(Sheet1=[], train=records, notes=records, Sheet2=[], old=records)
    )
    assert table.to_numpy().tolist() == [
        ["1", "2026-01-02 03:00:00", "0.5"],
        ["3", "2026-01-04 00:00:00", "-1e-07"],
    ]
    assert table.index.tolist() == [2, 4]
    assert table.attrs["warnings"] == [
        "WARNING: only the sheet 'train' of a.xlsx is read, not 'notes', 'old'"
    ]


def sheet_of(*rows, merged=(), **xml):
    """An Excel workbook of some rows and merged ranges; in the XML of its sheet, texts are replaced by others."""
    workbook = openpyxl.Workbook()
    for row in rows:
        workbook.active.append(row)
    for cells in merged:
        workbook.active.merge_cells(cells)
    buffer, edited = io.BytesIO(), io.BytesIO()
    workbook.save(buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(edited, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            for before, after in xml.items() if name.endswith("sheet1.xml") else ():
                assert f"<v>{before}</v>".encode() in content
                content = content.replace(f"<v>{before}</v>".encode(), after.encode())
            new.writestr(name, content)
    return edited.getvalue()


def test_formulas_that_no_program_has_computed_are_an_error_that_names_their_cells(tmp_path):
    rows = [["id", "a", "y"], [1, 5, "=B2*2"], [2, "=B2+1", 3], [None, None, "=B4"]]
    with pytest.raises(
        DataError, match=r"a\.xlsx: the formulas of the sheet 'Sheet' have no value \(C2, B3, C4\)"
    ):
        read(tmp_path, "a.xlsx", sheet_of(*rows))
    computed = {"77": "<f>B2*7</f><v>0</v>", "88": '<f>IF(B2=0,"",B2)</f><v></v>'}
    table = read(tmp_path, "b.xlsx", sheet_of(["id", "y", "z"], [1, 77, 88], [2, 3, 4], **computed))
    assert table.to_numpy().tolist() == [["1", "0", ""], ["2", "3", "4"]]


def test_all_cells_of_a_range_that_is_merged_in_a_column_have_its_value_which_is_named(tmp_path):
    rows = [["id", "site", "a", "b"], [1, "x", 4, None], [2, None, 5, 6], [3, "y", 7, 8]]
    table = read(tmp_path, "a.xlsx", sheet_of(*rows, merged=["B2:B3", "C2:D2", "F9:G10"]))
    assert table.to_numpy().tolist() == [["1", "x", "4", ""], ["2", "x", "5", "6"], ["3", "y", "7", "8"]]
    assert table.attrs["form"] == "Excel workbook, merged cells filled"


UNQUOTED = {
    "fails": ('id\ttext\ty\n1\t"so" he said\t1\n2\tb\t2\n', '"so" he said', "quotes are part"),
    "swallows": (
        'id\ttext\ty\n1\t"so\t1\n2\tb\t2\n3\tend"\t3\n4\td\t4\n',
        '"so',
        "separated by tabs, quotes are part",
    ),
    "never ends": ('id\ttext\ty\n1\t"so\t1\n2\tb\t2\n', '"so', "quotes are part of the cells"),
}


@pytest.mark.parametrize("name", UNQUOTED)
def test_a_quote_in_a_cell_of_a_table_with_tabs_loses_no_row_and_is_named(tmp_path, name):
    content, cell, words = UNQUOTED[name]
    table = read(tmp_path, "a.tsv", content.encode())
    assert len(table) == content.count("\n") - 1 and table["text"].iloc[0] == cell
    assert pd.Series([table.attrs["form"]]).str.contains(words).all()


def test_quotes_around_line_breaks_stay_quotes(tmp_path):
    table = read(tmp_path, "a.tsv", b'id\ttext\ty\n1\t"two\nlines"\t1\n2\t"say ""x"""\t2\n')
    assert table["text"].tolist() == ["two\nlines", 'say "x"']
    assert table.attrs == {"form": "separated by tabs"}


def test_a_quote_that_may_swallow_rows_of_a_csv_is_a_warning(tmp_path):
    table = read(tmp_path, "a.csv", b'id,text,y\n1,"so,1\n2,b,2\n3,end",3\n')
    assert len(table) == 1
    assert "a.csv has 1 rows; without them every one of 3 lines is a row" in table.attrs["warnings"][0]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.zip", zipped(a="id,y\n1,2\n", b="id\n1\n"), "is a zip archive of 2 files. Unpack it"),
        ("a.xlsx", zipped(**{"xl/workbook.xml": "", "b": ""}), "cannot be read as an Excel workbook"),
        (
            "a.xls",
            b"\xd0\xcf\x11\xe0\xa1\xb1",
            "is an Excel workbook of before 2007, or with a password. Save its",
        ),
        ("a.gz", gzip.compress(b"id,y\n1,2\n", mtime=0)[:-9], "cannot be unpacked"),
        ("a.parquet", b"PAR1 and no more", "cannot be read as a Parquet file"),
        ("a.jsonl", b'{"id": 1}\n{"id": \n', "cannot be read as JSON records: .*line 2"),
        ("a.json", b'[{"id": 1}, 2]', "cannot be read as JSON records"),
        ("a.json", b'{"id": {"0": 1, "1": 2}, "y": {"0": 3, "1": 4}}', "an object for each column"),
        ("a.tsv", b"id\ty\n1\t2\n3\n", "row 3 has 1 cells and the header 2"),
        ("a.csv", "id,y\né,2\n".encode("utf-16")[:-1], "is not in UTF-16"),
    ],
)
def test_a_file_that_cannot_be_read_for_sure_is_refused_with_its_name(tmp_path, name, content, words):
    with pytest.raises(DataError, match=rf"{name}.*{words}"):
        read(tmp_path, name, content)


@pytest.mark.parametrize("word", ["친구", "Straße für Café", "Việt"])
def test_decomposed_letters_are_composed_in_names_and_cells_with_a_warning(tmp_path, word):
    train, test = (
        [f"id,{word},y", f"{word}1,{word} a,1", "b,x y,2"],
        [f"id,{word}", f"{word}2,{word} a", "c,x z"],
    )
    test = [unicodedata.normalize("NFD", line) for line in test]
    settings = {"smiles": None, "text": [word]}
    sample = ["id,y", f"{word}2,0", "c,0"]
    tables = prepared(tmp_path, train, test, sample, **settings)
    assert tables.test["id"][0] == f"{word}2" and tables.test[word][0] == tables.train[word][0]
    (warning,) = [line for line in tables.report["said"] if "decomposed" in line]
    assert warning.startswith("WARNING: 3 cells and names of test.csv have decomposed letters")
    assert "read: train.csv (2 rows), test.csv (2 rows), sample.csv (2 rows)" in tables.report["said"]
