"""Tables of users: every cell as text, from the forms in which tables are published (CSV, JSON, Parquet, Excel)."""

import csv
import gzip
import io
import json
import re
import unicodedata
import zipfile
import zlib
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from core.errors import DataError, join_first

csv.field_size_limit(2**31 - 1)  # the default rejects long texts

NOT_TABLES = {
    rb"\xd0\xcf\x11\xe0": "an Excel workbook of before 2007, or with a password. Save its sheet as CSV",
    rb"(?i)\s*<(!doctype|html|\?xml)": "a web page. Download the file itself, after a login if there is one",
    rb"version https://git-lfs": "a pointer of Git LFS. Fetch the file: git lfs pull",
}
"""First bytes of files that are no table -> what they are, and what to do."""
ZIP = b"PK\x03\x04"
"""First bytes of a zip archive, and of an Excel workbook, which is one."""
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "the sign |"}
"""What may stand between two cells, by its name in a message."""
JSON = re.compile(r'\s*(\{\s*"|\[\s*\{)')
"""Start of a record, or of a list of records."""
LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Surrogate without its partner, such as of an emoji that was cut: JSON may contain it, and UTF-8 may not."""

Rows = dict[int, list[str]]
"""Number of a row -> its cells."""


class Cells(NamedTuple):
    """A table as text.

    Attributes:
        rows: by their number in a spreadsheet, where the header is row 1; records are counted from 1.
        form: what the file is, if it differs from a plain CSV; "" otherwise.
        warning: why cells may have been read wrongly; "" if they may not.
    """

    header: list[str]
    rows: Rows
    form: str
    warning: str = ""


def read_text_table(path: Path) -> pd.DataFrame:
    """Read a table of the user with every cell as text in Unicode's composed form (NFC); an empty cell is ''.

    The index is the number of a row in a spreadsheet: the header is row 1, and empty rows count but are left
    out. Numbers are converted later, where a message can name the row: pandas would turn the text 'NA' into
    a missing value and the id '007' into 7, and would accept a truncated row.

    The attributes (`DataFrame.attrs`) `form` and `warnings` say how a file other than a plain CSV was read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        what = (
            f"there is no file {path}"
            if isinstance(error, FileNotFoundError)
            else f"{path}: {error.strerror}"
        )
        raise DataError(f"{what}; correct the path.") from None
    cells = _read_cells(path, content)
    header = [unicodedata.normalize("NFC", name) for name in cells.header]
    if not cells.rows:
        raise DataError(f"{path} has no row below a header; it needs both.")
    unnamed = [str(number) for number, name in enumerate(header, start=1) if not name.strip()]
    if len(unnamed) > 1:
        raise DataError(f"{path}: the columns {', '.join(unnamed)} have no name. Name or remove them.")
    duplicates = sorted({name for name in header if header.count(name) > 1})
    if duplicates:
        raise DataError(
            f"{path} has duplicate columns: {', '.join(map(repr, duplicates))}. Rename or remove them."
        )
    raw = pd.DataFrame(list(cells.rows.values()), index=list(cells.rows), columns=header, dtype=str)
    table = raw.map(partial(unicodedata.normalize, "NFC")).astype(str)
    n_composed = (table != raw).sum().sum() + len({*header} - {*cells.header})
    warnings = [f"WARNING: {cells.warning}"] if cells.warning else []
    if n_composed:
        warnings.append(
            f"WARNING: {n_composed} cells and names of {path.name} have decomposed letters, "
            "as in files of a Mac; they are read, and ids and labels submitted, "
            "in the composed form (Unicode NFC)"
        )
    if cells.form:
        table.attrs["form"] = cells.form
    if warnings:
        table.attrs["warnings"] = warnings
    return table


def _read_cells(path: Path, content: bytes) -> Cells:
    """Return the cells of a table in any form that is read.

    Raises:
        DataError: if the content has another form, is damaged, or can be read in two ways.
    """
    content, packed = _unpacked(path, content)
    for start, form in NOT_TABLES.items():
        if re.match(start, content):
            raise DataError(f"{path} is {form}.")
    if content.startswith(b"PAR1"):
        cells = _read_parquet(path, content)
    elif content.startswith(ZIP):
        cells = _read_workbook(path, content)
    else:
        text, encoding = _decoded(path, content)
        cells = _read_json(path, text) if JSON.match(text) else _read_separated(path, text)
        packed = [*packed, *encoding]
    return cells._replace(form=", ".join(filter(None, [*packed, cells.form])))


def _unpacked(path: Path, content: bytes) -> tuple[bytes, list[str]]:
    """Return the content of a compressed file, and its form."""
    try:
        if content.startswith(b"\x1f\x8b"):
            return gzip.decompress(content), ["gzip"]
        if not content.startswith(ZIP):
            return content, []
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = [name for name in archive.namelist() if not name.endswith("/")]
            files = [name for name in files if not name.startswith("__MACOSX/")]
            if "xl/workbook.xml" in files:
                return content, []
            if len(files) != 1:
                raise DataError(
                    f"{path} is a zip archive of {len(files)} files. Unpack it, and name one of them."
                )
            return archive.read(files[0]), ["zip"]
    # A password and an unknown method raise the last two.
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}. Download it again, or unpack it.") from None


def _decoded(path: Path, content: bytes) -> tuple[str, list[str]]:
    """Return the text of a file in UTF-8, or in UTF-16 with its mark, and its form."""
    is_utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if is_utf_16 else "utf-8-sig"), ["UTF-16"] if is_utf_16 else []
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: row {row} is not in {error.encoding.upper()}. Save the file in UTF-8."
        ) from None


def _read_parquet(path: Path, content: bytes) -> Cells:
    try:
        table = parquet.read_table(io.BytesIO(content))
        columns = [map(_as_text, column.to_pylist()) for column in table.columns]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a Parquet file: {error}. Download it again.") from None
    rows = map(list, zip(*columns, strict=True))
    return Cells(table.column_names, dict(enumerate(rows, start=1)), "Parquet")


def _read_workbook(path: Path, content: bytes) -> Cells:
    """Return the cells of the first sheet of an Excel workbook that has cells; dates are in ISO's form.

    Cells that are merged in a column have their value.
    """
    from openpyxl import load_workbook  # type: ignore[import-untyped]

    try:
        sheets = pd.read_excel(
            io.BytesIO(content), sheet_name=None, header=None, dtype=object, na_filter=False
        )
        workbook = load_workbook(io.BytesIO(content))
    except Exception as error:  # whatever the parsers of openpyxl raise
        raise DataError(
            f"{path} cannot be read as an Excel workbook: {error}. Save its sheet as CSV."
        ) from None
    filled = {name: sheet for name, sheet in sheets.items() if len(sheet)}
    if not filled:
        return Cells([], {}, "Excel workbook")
    used, *others = filled
    values = filled[used].to_numpy(copy=True)
    sheet = workbook[used]
    formulas = [cell for cell in chain.from_iterable(sheet.iter_rows()) if cell.data_type == "f"]
    results = [values[cell.row - 1 : cell.row, cell.column - 1 : cell.column] for cell in formulas]
    if formulas and all((result == "").all() for result in results):  # a program would have computed some
        names = join_first([cell.coordinate for cell in formulas], str)
        raise DataError(
            f"{path}: the formulas of the sheet {used!r} have no value ({names}). Open it in a spreadsheet program, "
            "and save the sheet as CSV."
        )
    # Of several columns, it is a title or a note.
    filled_down = [merged for merged in sheet.merged_cells.ranges if merged.min_col == merged.max_col]
    for merged in filled_down:
        cells = values[merged.min_row - 1 : merged.max_row, merged.min_col - 1]
        cells[:] = cells[:1]
    numbered = enumerate(values.tolist(), start=1)
    texts = {number: [*map(_as_text, row)] for number, row in numbered}
    rows = {number: row for number, row in texts.items() if any(row)}
    header = rows.pop(next(iter(rows), 0), [])
    unread = ", ".join(map(repr, others))
    warning = f"only the sheet {used!r} of {path.name} is read, not {unread}" if others else ""
    form = "Excel workbook, merged cells filled" if filled_down else "Excel workbook"
    return Cells(header, rows, form, warning)


def _read_json(path: Path, text: str) -> Cells:
    """Return the cells of JSON lines or of a list of records.

    pandas is not used, since it turns the integers of a column with a null into floats.
    """
    is_list = text.lstrip().startswith("[")
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        records = json.loads(text if is_list else "[" + ",\n".join(lines) + "]")
        if len(records) == 1 and all(isinstance(cell, dict) for cell in records[0].values()):
            raise TypeError(
                "it has an object for each column, as to_json of pandas writes without orient='records'"
            )
        header = list(dict.fromkeys(name for record in records for name in record))
        table = [header, *([_as_text(record.get(name)) for name in header] for record in records)]
    except (ValueError, RecursionError, TypeError, AttributeError) as error:  # the last two: no record
        raise DataError(f"{path} cannot be read as JSON records: {error}. Write one per line.") from None
    n_changed = sum(bool(LONE_SURROGATE.search(cell)) for row in table for cell in row)
    warning = (
        f"{n_changed} cells and names of {path.name} have a lone surrogate, as of an emoji that was cut; it is read "
        "as U+FFFD"
    )
    if n_changed:
        table = [[LONE_SURROGATE.sub("\ufffd", cell) for cell in row] for row in table]
    header, *rows = table
    form = "JSON" if is_list else "JSON lines"
    return Cells(header, dict(enumerate(rows, start=1)), form, warning if n_changed else "")


def _as_text(value: Any) -> str:
    """Return the cell of a value of JSON, Parquet or Excel; one that is missing is empty."""
    if value is None or value != value:  # NaN
        return ""
    return (
        json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else str(value)
    )


def _read_separated(path: Path, text: str) -> Cells:
    """Return the cells of a CSV, or of a table with tabs, semicolons or | between its cells."""
    first_line = text.partition("\n")[0]
    usual = "\t" if path.suffix == ".tsv" else ","
    signs = [sign for sign in SEPARATORS if sign in first_line] or [usual]
    readings = {sign: _read_with(path, text, sign) for sign in signs}
    tables = {sign: cells for sign, cells in readings.items() if isinstance(cells, Cells)}
    if usual in tables:
        return tables[usual]
    if len(tables) > 1:
        names = " or ".join(SEPARATORS[sign] for sign in tables)
        raise DataError(f"{path} has {names} between its cells. Save it with commas.")
    cells = readings[next(iter(tables), max(signs, key=first_line.count))]
    if isinstance(cells, DataError):
        raise cells
    return cells


def _read_with(path: Path, text: str, sign: str) -> Cells | DataError:
    """Return the cells between separators.

    Quotes enclose cells; if that fails, they are characters of the cells.

    A quote at the start of a cell without an end fails, or swallows all up to the next quote, line breaks
    included. With commas, that is only a warning, or an error.
    """
    form = "" if sign == "," else f"separated by {SEPARATORS[sign]}"
    cells = _split(path, text, sign, csv.QUOTE_MINIMAL, form)
    if '"' not in text:
        return cells
    unquoted = _split(path, text, sign, csv.QUOTE_NONE, f"{form}, quotes are part of the cells")
    if isinstance(unquoted, DataError) or '"' in text.partition("\n")[0]:
        return cells
    if sign != ",":
        is_equal = isinstance(cells, Cells) and len(cells.rows) == len(unquoted.rows)
        return cells if is_equal else unquoted
    if isinstance(cells, DataError) or len(cells.rows) == len(unquoted.rows):
        return cells
    warning = (
        f"quotes enclose line breaks, so that {path.name} has {len(cells.rows)} rows; "
        f"without them every one of {len(unquoted.rows)} lines is a row. If rows are missing, "
        "double the quotes inside cells"
    )
    return cells._replace(warning=warning)


def _split(path: Path, text: str, sign: str, quoting: Literal[0, 3], form: str) -> Cells | DataError:
    """Return the cells between separators; empty rows count but are left out.

    The error is that a row has another number of cells than the header, or that quotes do not match.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, quoting=quoting, strict=True)
    try:
        numbered = enumerate(reader, start=1)
        rows = {number: row for number, row in numbered if len(row) > 1 or "".join(row).strip()}
    except csv.Error as error:
        return DataError(f"{path} cannot be read as a CSV file: {error}.")
    header = rows.pop(next(iter(rows), 0), [])
    for number, row in rows.items():
        if len(row) != len(header):
            return DataError(
                f"{path}: row {number} has {len(row)} cells and the header {len(header)}. "
                "Is its first line the header, is the file complete, and are texts with commas in quotes? "
                "Download or export it again."
            )
    return Cells(header, rows, form)
