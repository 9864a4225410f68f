"""The files of a competition on Kaggle, and which of them are the three tables.

Writes: work/kaggle/SLUG/ and, when all of it is there, work/kaggle/SLUG.json with what it holds.
"""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from competition import paths
from competition.errors import ConfigError, DataError
from competition.files import read_json, write_json
from submissions.leaderboard import client

NAMES = {
    "train": ["train(ing|set|data)?"],
    "test": ["test(set|data)?"],
    "sample": ["(sample|example)sub.*", "submission.*"],
}
"""Letters of the names of tables; the first pattern that any file fits counts."""
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What zipfile says of an archive that is damaged, encrypted or compressed in an unknown way."""


def slug_of(text: str) -> str:
    """The slug in what was given: itself, or the address of the competition's page.

    Raises:
        ConfigError: if there is none.
    """
    site = r"(?:(?:https?://)?(?:www\.)?kaggle\.com/)?(?:competitions/|c/)?"
    found = re.fullmatch(rf"{site}([a-z0-9][a-z0-9-]*)(?:[/?#].*)?", text)
    if found is None:
        raise ConfigError(
            "--kaggle must be the last part of the address of a competition's page: small letters, digits and -; "
            f"found {text!r}."
        )
    return found[1]


def download(slug: str) -> Path:
    """Folder with all files of a competition, archives extracted; what is complete already is not downloaded again.

    Raises:
        ServiceError: as `client.files` and `client.fetch`.
        DataError: if an archive is damaged, or wants to write outside its folder.
    """
    folder, listing = paths.kaggle_files(slug), paths.kaggle_listing(slug)
    listed = client.files(slug)
    if listing.is_file():
        known = read_json(listing, "listed", "files")
        if known["listed"] == listed and _sizes(folder) == known["files"]:
            print(f"The files of {slug} are in {paths.shown(folder)} already; delete it to download them again.")
            return folder
    files = "1 file" if len(listed) == 1 else f"{len(listed)} files"
    print(f"Downloading {files} of {slug}, {size_in_words(sum(listed.values()))} ...", flush=True)
    archive = client.fetch(slug, folder.parent)
    fresh = folder.with_name(f".{slug}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        _extract_whole(archive, fresh)
        for inner in sorted(fresh.rglob("*.zip")):
            _unpack(inner)
        listing.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    write_json(listing, {"listed": listed, "files": _sizes(folder)})
    archive.unlink()
    return folder


def size_in_words(size: int) -> str:
    """Three digits in the largest unit that gives at least one of it: 1520 -> "1.52 kB"."""
    units = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
    unit, bytes_of_it = next((unit for unit in units if size >= unit[1]), ("byte" if size == 1 else "bytes", 1.0))
    return f"{float(f'{size / bytes_of_it:.3g}'):g} {unit}"


def _sizes(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _extract_whole(archive: Path, folder: Path) -> None:
    try:
        extract(archive, folder)
    except UNREADABLE as error:
        archive.unlink()
        raise DataError(
            f"The download {archive.name} must be a whole archive, and is not ({error}); it was deleted. Run the same "
            "command again."
        ) from None


def _unpack(archive: Path) -> None:
    """Replace an archive in the download by its content: beside it if that is one file, else in a folder of its name.

    A file that is there unpacked, too, stays as it is.
    """
    inside = archive.with_name(f".{archive.name}.tmp")
    try:
        extract(archive, inside)
    except UNREADABLE as error:
        print(f"Left packed: {archive.name} ({error})")
        shutil.rmtree(inside, ignore_errors=True)
        return
    content = list(inside.iterdir())
    target = archive.parent if len(content) == 1 else archive.with_suffix("")
    target.mkdir(exist_ok=True)
    for path in content:
        if not (target / path.name).exists():
            path.rename(target / path.name)
    shutil.rmtree(inside)
    archive.unlink()


def extract(archive: Path, folder: Path) -> None:
    """Extract a zip archive inside `folder`.

    Raises:
        DataError: if an entry is a link or leads out of the folder; nothing is written then.
        UNREADABLE: if it is damaged or needs a password.
    """
    with zipfile.ZipFile(archive) as packed:
        entries = [entry for entry in packed.infolist() if not entry.filename.startswith("__MACOSX/")]
        for entry in entries:
            path = PurePosixPath(entry.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or stat.S_ISLNK(entry.external_attr >> 16):
                raise DataError(
                    f"{archive.name} must hold plain files for its own folder, and has {entry.filename!r}; nothing of "
                    "it was extracted. Download and look at it by hand."
                )
        folder.mkdir(parents=True, exist_ok=True)
        packed.extractall(folder, entries)


def find_tables(folder: Path, **given: Path | None) -> dict[str, Path]:
    """The training table, the test table and the sample submission of a download.

    Args:
        folder: of `download`.
        given: for train, test and sample, what the user names: a file of the download, or any other; None: look for
            it by its name.

    Raises:
        DataError: if one has no match, or several.
    """
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: (not _is_csv(path), path))
    tables, unclear = {}, []
    for table, file in given.items():
        fits = ([p for p in files if _is_csv(p) and re.fullmatch(name, _letters(p))] for name in NAMES[table])
        found = next((fit for fit in fits if fit), [])
        if file is not None:
            tables[table] = folder / file if (folder / file).is_file() else file
        elif len(found) == 1:
            tables[table] = found[0]
        else:
            unclear.append(f"--{table} ({'several fit' if found else 'none fits'})")
    if unclear:
        names = [path.relative_to(folder).as_posix() for path in files]
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        raise DataError(
            "The names of the downloaded files must tell the three tables, and do not; add "
            f"{', '.join(unclear)} with one of: {', '.join(names[:20])}{more}."
        )
    return tables


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _letters(path: Path) -> str:
    """Of a name: sample_submission.csv and sampleSubmission.csv are alike."""
    return re.sub(r"[^a-z]", "", path.stem.lower())
