"""Files are the contract between steps: written whole or not at all, joined on id, known by digest."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from competition.errors import DataError


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
    """A new folder to fill, which takes the place of `folder` at the end: whole or not at all."""
    for left in folder.parent.glob(f".{folder.name}.*"):  # of a killed process
        shutil.rmtree(left)
    new, old = (folder.with_name(f".{folder.name}.{state}") for state in ("new", "old"))
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON; equal values give equal bytes."""
    write_atomically(path, as_json(value))


def as_json(value: Any) -> str:
    """A value as `write_json` writes it."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def read_json(path: Path, *keys: str) -> Any:
    """Content of a JSON file; where `keys` are named, it must be an object that has them.

    Raises:
        DataError: if the file is absent, no JSON, or lacks a key.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if keys and not (isinstance(value, dict) and all(key in value for key in keys)):
            raise DataError(f"{path} must have {', '.join(keys)}, and has not; delete it and run again.")
        return value
    except FileNotFoundError:
        raise DataError(f"{path} must exist and does not; run the step that writes it.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} must be JSON ({error}); delete it and run again.") from None


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV without its index; floats keep every digit."""
    write_atomically(path, as_csv(table))


def as_csv(table: pd.DataFrame) -> str:
    """A table as `write_table` writes it."""
    content = table.to_csv(index=False, lineterminator="\n")
    if "\r" in content:  # left unquoted by the csv module, and taken for the end of a row by every reader
        content = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return content


def read_text_table(path: Path) -> pd.DataFrame:
    """Read a CSV with every cell as the text that stands in the file; an empty cell is ''.

    Numbers are converted later, where a message can name the row: pandas would turn the text 'NA'
    into a missing value and the id '007' into 7.

    Raises:
        DataError: if the file is absent, empty, not CSV, not UTF-8, or has two columns of one name.
    """
    try:
        # The C parser cannot tell a short row from empty cells.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", header=None, engine="python")
    except FileNotFoundError:
        raise DataError(f"{path} must be a CSV file; there is none. Correct the path.") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} must have a header and rows; it is empty.") from None
    except (pd.errors.ParserError, UnicodeDecodeError, IsADirectoryError, PermissionError) as error:
        _require_commas(path)
        raise DataError(
            f"{path} must be a CSV file in UTF-8 that you may read: {' '.join(str(error).split())}"
        ) from None
    if table.shape[1] == 1:
        _require_commas(path)
    columns = [str(name) for name in table.iloc[0]]
    doubled = sorted({name for name in columns if columns.count(name) > 1})
    if doubled:
        raise DataError(f"{path} must have distinct column names; doubled: {', '.join(doubled)}.")
    table = table.iloc[1:].reset_index(drop=True)
    short = table.isna().any(axis=1)  # an empty cell is an empty text, one that is not there is NaN
    if short.any():
        raise DataError(
            f"{path}: every row must have {len(columns)} cells; row {int(short.to_numpy().argmax()) + 2} has fewer. "
            "Is the file complete? Fetch or export it again."
        )
    table.columns = pd.Index(columns)
    return table


def _require_commas(path: Path) -> None:
    """Raise DataError where the first line of a text file has other separators, but no comma."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline()
    except (OSError, UnicodeDecodeError):
        return
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if separator in first and "," not in first:
            raise DataError(
                f"{path} must have its cells separated by commas; its first line has {name}. "
                "Save it with commas, and numbers with a decimal point."
            )


def read_table(path: Path, text_columns: list[str]) -> pd.DataFrame:
    """Read a table of ours: `text_columns` as text, all others as numbers that round-trip exactly.

    Raises:
        DataError: as `read_text_table`.
    """
    table = read_text_table(path)
    for name in table.columns:
        if name not in text_columns:
            try:
                table[name] = [float(cell or "nan") for cell in table[name]]
            except ValueError as error:
                raise DataError(
                    f"{path}: column {name!r} must hold numbers ({error}); delete it and run again."
                ) from None
    return table


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
