"""Reading and writing of files: written whole or not at all, tables joined on id, identified by digest."""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from core.errors import DataError

DIGEST = b"sha256"
"""Key of the metadata of a Parquet table with what `table_digest` returns."""

PROBE_BYTES = 2**16
"""Size of the file that tests whether a disk is full."""

PROJECT = Path(__file__).resolve().parents[1]


def work_root() -> Path:
    """Return the folder of all outputs: the environment variable WORK_DIR, or `work/` next to the code."""
    return Path(os.environ.get("WORK_DIR") or PROJECT / "work")


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` under a temporary name and rename it, so `path` is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Machines that share a folder may share process ids.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def require_room(folder: Path) -> None:
    """Raise the OSError of a full disk, for which libraries raise other errors."""
    probe = folder / ".probe"
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
    finally:
        probe.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file is on the disk.

    A power cut after a rename without this call can leave the name without content.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())


def is_of_system(error: Exception) -> bool:
    """Return whether reading failed by the system or for lack of memory, and not by the content of the file.

    An OSError that a library raises for the content has no number, or the number of a seek to an invalid
    position.
    """
    of_content = (None, errno.EINVAL)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in of_content)


def remove_damaged(path: Path, remedy: str) -> None:
    """Delete a file or folder of an earlier process that cannot be read, and print it.

    Args:
        remedy: what is done instead, such as `its molecules are computed again`.
    """
    print(f"WARNING: {path} is damaged; it is deleted, and {remedy}.", flush=True)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)  # another process may have done so


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yield a new folder to fill; it replaces `folder` at the end, and is deleted after an error."""
    new, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("new", "old"))
    for leftover in (new, old):  # of a killed process
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            folder.rename(old)  # at once: a kill while its files are deleted would leave no folder
        new.rename(folder)
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)


def as_json(value: Any) -> str:
    """Return the text that `write_json` writes."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def plain(value: Any) -> Any:
    """Return a value as JSON has it: a path as text, and None for a number that is not finite."""
    return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON; equal values give equal bytes."""
    write_atomically(path, as_json(value))


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Turn errors of reading a file that the project wrote into a DataError."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} is not there; run the step that writes it, or ./run.sh full NAME.") from None
    except Exception as error:  # a wrong byte in the names of types raises KeyError, TypeError and others
        if is_of_system(error):
            raise
        raise DataError(
            f"{path} is broken ({' '.join(str(error).split())}); delete it and run again."
        ) from None


def read_json(path: Path, *keys: str) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: if the file is missing or broken, or lacks one of the keys.
    """
    with _read_errors(path):
        value = json.loads(path.read_text(encoding="utf-8"))
        if keys and not isinstance(value, dict):
            raise ValueError("it is not an object")
        missing = [key for key in keys if key not in value]
        if missing:
            raise ValueError(f"missing keys: {', '.join(missing)}")
    return value


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index: Parquet if the name ends in .parquet, else CSV with all digits."""
    write_atomically(path, as_parquet(table) if path.suffix == ".parquet" else as_csv(table))


def as_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV."""
    content = table.to_csv(index=False, lineterminator="\n")
    if "\r" not in content:
        return content
    # The csv module leaves a carriage return unquoted, and readers take it for the end of a row.
    return table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)


def as_parquet(table: pd.DataFrame, **metadata: str) -> bytes:
    """Return a table as Parquet, with checksums that readers compare.

    Its metadata have the digest of its content, and those that are given.
    """
    typed = pa.Table.from_pandas(table, preserve_index=False)
    all_metadata = {**typed.schema.metadata, DIGEST: content_digest(table), **metadata}
    buffer = io.BytesIO()
    parquet.write_table(typed.replace_schema_metadata(all_metadata), buffer, write_page_checksum=True)
    return buffer.getvalue()


def content_digest(table: pd.DataFrame) -> str:
    """Return the SHA-256 of a table as CSV."""
    return hashlib.sha256(as_csv(table).encode()).hexdigest()


def table_digest(path: Path) -> str:
    """Return the digest of the content of a table file; it does not depend on the version of pyarrow."""
    with _read_errors(path):
        if path.suffix == ".parquet":
            return parquet.read_schema(path).metadata[DIGEST].decode()
        return sha256_of(path)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that the project wrote, Parquet, or CSV with a text column `id` and columns of numbers."""
    if path.suffix == ".parquet":
        return read_with_metadata(path)[0]
    with _read_errors(path):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        numbers = table.drop(columns="id", errors="ignore").replace("", "nan").astype(float)
        return table.assign(**numbers)


def read_with_metadata(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read a Parquet table that the project wrote, and its metadata."""
    with _read_errors(path):
        typed = parquet.read_table(path, page_checksum_verification=True)
        metadata = {key.decode(): value.decode() for key, value in typed.schema.metadata.items()}
        return typed.to_pandas(), metadata


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of the content of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any, length: int = 16) -> str:
    """Return the first hexadecimal digits of the SHA-256 of a JSON value with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def derive_seed(*parts: Any) -> int:
    """Return the 32-bit seed that SHA-256 derives from the competition's seed and the names of a purpose."""
    return int(digest([str(part) for part in parts], 8), 16)
