"""Download of the files of a competition on Kaggle, and detection of the three tables.

Writes: work/kaggle/SLUG/, when all files are complete.
"""

import re
import shutil
from pathlib import Path

from core import paths
from core.errors import ConfigError, DataError
from core.files import replaced
from submissions.leaderboard import client

NAMES = {"train": "train(ing|set|data)?", "test": "test(set|data)?", "sample": "(sample|example)?sub.*"}
"""Table -> pattern of the letters of its name."""


def slug_of(text: str) -> str:
    """Return the slug of a competition, given the slug or the address of its page."""
    site = r"(?:(?:https?://)?(?:www\.)?kaggle\.com/)?(?:competitions/|c/)?"
    match = re.fullmatch(rf"{site}([a-z0-9][a-z0-9-]*)(?:[/?#].*)?", text)
    if not match:
        raise ConfigError(f"--kaggle takes the end of the address of a competition; got {text!r}.")
    return match[1]


def download(slug: str) -> Path:
    """Download all files of a competition, unless they exist; return their folder.

    Each archive among them becomes a folder with its name.
    """
    folder = paths.kaggle_files(slug)
    if folder.is_dir():
        print(
            f"The files of {slug} are in {paths.display_path(folder)} already; delete it to download them "
            f"again."
        )
        return folder
    print(f"Downloading the files of {slug} ...", flush=True)
    archive = client.fetch(slug, folder.parent)
    with replaced(folder) as fresh:
        shutil.unpack_archive(archive, fresh)
        for inner in sorted(fresh.rglob("*.zip")):
            unpacked = inner.with_suffix(".unpacked")
            try:
                shutil.unpack_archive(inner, unpacked)
                inner.unlink()
                unpacked.rename(inner)
            except (shutil.ReadError, RuntimeError) as error:  # RuntimeError: it needs a password
                print(f"Left packed: {inner.name} ({error})")
    archive.unlink()
    return folder


def find_tables(folder: Path, **given: Path | None) -> dict[str, Path]:
    """Return "train", "test" and "sample" -> file of a download.

    Args:
        folder: folder of `download`.
        given: "train", "test" and "sample" -> file that the user gives, in the download or elsewhere; None to
            detect it by its name.
    """
    csvs = sorted(path for path in folder.rglob("*.csv") if "__MACOSX" not in path.parts)
    # sample_submission and sampleSubmission have the same letters.
    letters = {path: re.sub(r"[^a-z]", "", path.stem.lower()) for path in csvs}
    tables, unclear = {}, []
    for table, file in given.items():
        matches = [path for path in csvs if re.fullmatch(NAMES[table], letters[path])]
        if file is not None:
            matches = [folder / file if (folder / file).is_file() else file]
        if len(matches) == 1:
            tables[table] = matches[0]
        else:
            unclear.append(f"--{table} ({'several fit' if matches else 'none fits'})")
    if unclear:
        names = ", ".join(path.relative_to(folder).as_posix() for path in csvs[:20])
        raise DataError(
            f"The three tables cannot be detected by their names; add {', '.join(unclear)} with one of: "
            f"{names or 'none is a CSV file'}."
        )
    return tables
