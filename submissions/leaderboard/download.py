"""The files of a competition on Kaggle, and which of them are the three tables.

Writes: work/kaggle/SLUG/, when all of it is there.
"""

import re
import shutil
from pathlib import Path

from competition import paths
from competition.errors import ConfigError, DataError
from competition.files import replaced
from submissions.leaderboard import client

NAMES = {"train": "train(ing|set|data)?", "test": "test(set|data)?", "sample": "(sample|example)?sub.*"}
"""Letters of the names of tables."""


def slug_of(text: str) -> str:
    """The slug in what was given: itself, or the address of the competition's page."""
    site = r"(?:(?:https?://)?(?:www\.)?kaggle\.com/)?(?:competitions/|c/)?"
    if not (found := re.fullmatch(rf"{site}([a-z0-9][a-z0-9-]*)(?:[/?#].*)?", text)):
        raise ConfigError(
            f"--kaggle takes the last part of the address of a competition's page; found {text!r}."
        )
    return found[1]


def download(slug: str) -> Path:
    """Folder with all files of a competition; each archive among them becomes a folder of its name.

    What is there already is not downloaded again.
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
    """The training table, the test table and the sample submission of a download.

    Args:
        folder: of `download`.
        given: for train, test and sample, what the user names: a file of the download, or any other; None:
            look for it by its name.
    """
    csvs = sorted(path for path in folder.rglob("*.csv") if "__MACOSX" not in path.parts)
    letters = {
        path: re.sub(r"[^a-z]", "", path.stem.lower()) for path in csvs
    }  # sample_submission, sampleSubmission
    tables, unclear = {}, []
    for table, file in given.items():
        found = [path for path in csvs if re.fullmatch(NAMES[table], letters[path])]
        if file is not None:
            found = [folder / file if (folder / file).is_file() else file]
        if len(found) == 1:
            tables[table] = found[0]
        else:
            unclear.append(f"--{table} ({'several fit' if found else 'none fits'})")
    if unclear:
        names = ", ".join(path.relative_to(folder).as_posix() for path in csvs[:20])
        raise DataError(
            f"The names of the downloaded files do not tell the three tables; add {', '.join(unclear)} "
            f"with one of: "
            f"{names or 'none is a CSV file'}."
        )
    return tables
