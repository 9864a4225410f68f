"""Files are the contract between steps: written whole or not at all, joined on id, known by digest."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from competition.errors import DataError

DIGEST = b"sha256"
"""Key of the metadata of a Parquet table under which `table_digest` finds its digest."""


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` under a temporary name and rename it, so `path` is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")  # machines that share a folder share pids
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` at the end, and is taken away where that fails."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)  # of a killed process
    new.mkdir(parents=True)
    try:
        yield new
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def as_json(value: Any) -> str:
    """A value as `write_json` writes it."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON; equal values give equal bytes."""
    write_atomically(path, as_json(value))


def read_json(path: Path, *keys: str) -> Any:
    """Content of a JSON file; a DataError where it is absent or broken, or lacks one of the `keys`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is not there; run the step that writes it.") from None
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); delete it and run again.") from None
    if lacking := [key for key in keys if key not in value]:
        raise DataError(f"{path} lacks {', '.join(lacking)}; delete it and run again.")
    return value


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index: typed, as Parquet, where the name says so, else as CSV with every digit."""
    write_atomically(path, as_parquet(table) if path.suffix == ".parquet" else as_csv(table))


def as_csv(table: pd.DataFrame) -> str:
    """A table as text."""
    content = table.to_csv(index=False, lineterminator="\n")
    if "\r" in content:  # left unquoted by the csv module, and taken for the end of a row by every reader
        content = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return content


def as_parquet(table: pd.DataFrame) -> bytes:
    """A table with its types and, for `table_digest`, the digest of what it says."""
    typed = pa.Table.from_pandas(table, preserve_index=False)
    known = {**typed.schema.metadata, DIGEST: hashlib.sha256(as_csv(table).encode()).hexdigest()}
    parquet.write_table(typed.replace_schema_metadata(known), buffer := io.BytesIO())
    return buffer.getvalue()


def table_digest(path: Path) -> str:
    """Digest of a table of ours: of what a Parquet table says, whichever version of pyarrow wrote it, or of a CSV."""
    if not path.exists():
        raise DataError(f"{path} is not there yet; run ./run.sh full, or the steps before this one.")
    return parquet.read_schema(path).metadata[DIGEST].decode() if path.suffix == ".parquet" else sha256_of(path)


def read_table(path: Path, text_columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table of ours, Parquet or CSV; of a CSV, `text_columns` are text and all others are exact numbers."""
    try:
        if path.suffix == ".parquet":
            return parquet.read_table(path).to_pandas()
        with path.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file), [])
        types = {name: pa.string() if name in text_columns else pa.float64() for name in header}
        options = arrow_csv.ParseOptions(newlines_in_values=True), arrow_csv.ConvertOptions(column_types=types)
        return arrow_csv.read_csv(path, parse_options=options[0], convert_options=options[1]).to_pandas()
    except FileNotFoundError:
        raise DataError(f"{path} is not there; run the step that writes it.") from None
    except (ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} is broken ({' '.join(str(error).split())}); delete it and run again.") from None


def read_text_table(path: Path) -> pd.DataFrame:
    """Read a CSV of the user's with every cell as the text that stands in the file; an empty cell is ''.

    Numbers are converted later, where a message can name the row: pandas would turn the text 'NA' into a missing value
    and the id '007' into 7, and take a row that is cut off for one with empty cells. A DataError names what is wrong.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if len(row) > 1 or "".join(row).strip()]
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; correct the path.") from None
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as a CSV file in UTF-8: {error}.") from None
    if not rows:
        raise DataError(f"{path} is empty; it needs a header and rows.")
    header, *rows = rows
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and sign in header[0]:
            raise DataError(f"{path} has {name} between its cells. Save it with commas and decimal points.")
    if doubled := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{path} has several columns of the name {', '.join(doubled)}; rename or remove them.")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(
                f"{path}: row {line} has {len(row)} cells and the header {len(header)}. Is the file complete, and are "
                "texts with commas in quotes? Fetch or export it again."
            )
    return pd.DataFrame(rows, columns=header, dtype=str)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any, length: int = 16) -> str:
    """First `length` hexadecimal digits of the SHA-256 of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def derive_seed(*parts: Any) -> int:
    """One 32-bit seed from the top-level seed and the names of what it is for, by SHA-256."""
    return int(digest([str(part) for part in parts], 8), 16)
