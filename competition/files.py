"""Files are the contract between steps: written whole or not at all, joined on id, known by digest."""

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
from pyarrow import parquet

from competition.errors import DataError

csv.field_size_limit(2**31 - 1)  # the default refuses long texts
DIGEST = b"sha256"  # where the metadata of a Parquet table hold what `table_digest` returns


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` under a temporary name and rename it, so `path` is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(
        f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"
    )  # machines that share a folder share pids
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


@contextmanager
def _of_ours(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} is not there; run the step that writes it, or ./run.sh full.") from None
    except (ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path} is broken ({' '.join(str(error).split())}); delete it and run again."
        ) from None


def read_json(path: Path, *keys: str) -> Any:
    """Content of a JSON file of ours; a DataError where it is absent or broken, or lacks one of the `keys`."""
    with _of_ours(path):
        value = json.loads(path.read_text(encoding="utf-8"))
        if lacking := [key for key in keys if key not in value]:
            raise ValueError(f"it lacks {', '.join(lacking)}")
    return value


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index: typed, as Parquet, where the name says so, else as CSV with every
    digit.
    """
    write_atomically(path, as_parquet(table) if path.suffix == ".parquet" else as_csv(table))


def as_csv(table: pd.DataFrame) -> str:
    """A table as text."""
    content = table.to_csv(index=False, lineterminator="\n")
    # The csv module leaves this character unquoted, and every reader takes it for the end of a row.
    return (
        table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        if "\r" in content
        else content
    )


def as_parquet(table: pd.DataFrame) -> bytes:
    """A table with its types and, for `table_digest`, the digest of what it says."""
    typed = pa.Table.from_pandas(table, preserve_index=False)
    known = {**typed.schema.metadata, DIGEST: content_digest(table)}
    parquet.write_table(typed.replace_schema_metadata(known), buffer := io.BytesIO())
    return buffer.getvalue()


def content_digest(table: pd.DataFrame) -> str:
    """Digest of a table: of its content as CSV."""
    return hashlib.sha256(as_csv(table).encode()).hexdigest()


def table_digest(path: Path) -> str:
    """Digest of a table of ours: of what a Parquet table says, whichever version of pyarrow wrote it, or of a
    CSV.
    """
    with _of_ours(path):
        return (
            parquet.read_schema(path).metadata[DIGEST].decode()
            if path.suffix == ".parquet"
            else sha256_of(path)
        )


def read_table(path: Path, text_columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table of ours, Parquet or CSV; of a CSV, `text_columns` are text and all others are exact
    numbers.
    """
    with _of_ours(path):
        if path.suffix == ".parquet":
            return parquet.read_table(path).to_pandas()
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        numbers = table.drop(columns=list(text_columns), errors="ignore").replace("", "nan").astype(float)
        return table.assign(**numbers)


def read_text_table(path: Path) -> pd.DataFrame:
    """Read a CSV of the user's with every cell as the text that stands in the file; an empty cell is ''.

    The index is the number of a row in a spreadsheet: the header's is 1, and empty rows, which are left out,
    count.
    Numbers are converted later, where a message can name the row: pandas would turn the text 'NA' into a
    missing value and the id '007' into 7, and take a row that is cut off for one with empty cells.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            numbered = enumerate(csv.reader(file, strict=True), start=1)
            rows = {number: row for number, row in numbered if len(row) > 1 or "".join(row).strip()}
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; correct the path.") from None
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as a CSV file in UTF-8: {error}.") from None
    if len(rows) < 2:
        raise DataError(f"{path} has no row below a header; it needs both.")
    header = rows.pop(next(iter(rows)))
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and sign in header[0]:
            raise DataError(f"{path} has {name} between its cells. Save it with commas and decimal points.")
    if doubled := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(
            f"{path} has several columns of the name {', '.join(map(repr, doubled))}; rename or remove them."
        )
    for number, row in rows.items():
        if len(row) != len(header):
            raise DataError(
                f"{path}: row {number} has {len(row)} cells and the header {len(header)}. Is the file "
                f"complete, and are"
                " texts with commas in quotes? Fetch or export it again."
            )
    return pd.DataFrame(list(rows.values()), index=list(rows), columns=header, dtype=str)


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
