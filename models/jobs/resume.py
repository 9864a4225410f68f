"""Go on from an earlier run's products: `./run.sh full NAME --from FOLDER`, or `train`.

For a machine that starts empty, such as a notebook whose earlier output is attached: FOLDER is that output, read-only
or not, and need not be named exactly; the folder of the earlier WORK_DIR is looked for below it.

Reads: FOLDER/.../NAME/models and FOLDER/.../cache.
Writes: the same below WORK_DIR: jobs, finished or with a checkpoint, that are not here yet, and caches. What fits the
settings, tables and code as they are now is used (`models/jobs/plan.py`); nothing that is here is replaced.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tqdm import tqdm

from competition.durations import BAR
from competition.errors import ConfigError, DataError
from competition.files import read_json, write_atomically
from competition.paths import Bundle, Paths
from models.jobs.attempts import CHECKPOINTS, unfinished
from models.jobs.plan import REPORT


def resume(earlier: Path, paths: Paths) -> tuple[int, int]:
    """Copy jobs and caches of an earlier run; returns how many finished jobs and how many begun ones came.

    Finished jobs that were cut when they were copied there are left out, and said.

    Raises:
        ConfigError: if there are no products of this competition below `earlier`, or those of several runs.
    """
    root = _work_root(earlier, paths.name)
    models = root / paths.name / "models"
    reported = sorted(file.parent for file in models.rglob(REPORT) if file.parent.name[0] != ".")
    finished = {job for job in reported if _is_whole(job)}
    if cut := [job for job in reported if job not in finished]:
        print(f"from {earlier}: {len(cut)} jobs lack files and are left out, the first is {cut[0]}")
    begun = {file.parent for file in models.rglob(CHECKPOINTS)} - set(reported)
    here = {job: paths.root / job.relative_to(root / paths.name) for job in sorted(finished | begun)}
    waiting = [job for job in here if not _is_further(here[job], job in finished)]
    for job in tqdm(waiting, "jobs of the earlier run", disable=not sys.stderr.isatty(), bar_format=BAR, leave=False):
        half = here[job].with_name(here[job].name.lstrip(".") + ".copied")
        shutil.rmtree(half, ignore_errors=True)
        _copy_files(job, half)
        shutil.rmtree(here[job], ignore_errors=True)  # of a run that was killed, or begun anew
        half.rename(here[job])
    _copy_files(root / "cache", paths.cache)
    return len(finished.intersection(waiting)), len(begun.intersection(waiting))


def _work_root(earlier: Path, name: str) -> Path:
    """The earlier WORK_DIR, which is `earlier` or below it; that of a notebook's bundle, also one inside, is none."""
    roots = {folder.parent.parent for folder in earlier.rglob(f"{name}/models") if folder.is_dir()}
    roots -= {root for root in roots if Bundle(root.parent).manifest.exists()}
    found = sorted(root for root in roots if roots.isdisjoint(root.parents))
    if len(found) != 1:
        which = ", ".join(map(str, found)) or "none"
        raise ConfigError(
            f"--from names a folder with the products of one earlier run of {name} (its WORK_DIR, with {name}/models "
            f"in it); found below {earlier}: {which}. Name that folder."
        )
    return found[0]


def _is_whole(job: Path) -> bool:
    """Whether a finished job has every file that its report lists, in its size."""
    try:
        files = read_json(job / REPORT, "files")["files"]
    except DataError:
        return False
    return all((job / name).is_file() and (job / name).stat().st_size == files[name]["size"] for name in files)


def _is_further(folder: Path, finished: bool) -> bool:
    """Whether a job is here as far as there: finished, or, where it is only begun there, begun."""
    job = folder.with_name(folder.name.strip(".").partition(".")[0])
    return (job / REPORT).exists() or (not finished and bool(unfinished(job)))


def _copy_files(source: Path, target: Path) -> None:
    """Copy what is not there yet; files alone, since an attached output has read-only folders."""
    for file in sorted(source.rglob("*")):
        copy = target / file.relative_to(source)
        if file.is_file() and not copy.exists():
            write_atomically(copy, file.read_bytes())
