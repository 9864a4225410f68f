"""Go on from an earlier run's products: `./run.sh full NAME --from FOLDER`, or `train`.

For a machine that starts empty, such as a notebook whose earlier output is attached: FOLDER is that output,
read-only or not, and need not be named exactly; the folder of the earlier WORK_DIR is looked for below it.
Jobs, finished or with a checkpoint, decisions of a budget and caches that are not here yet are copied below
WORK_DIR; what is here stays.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from competition.errors import ConfigError
from competition.files import write_atomically
from competition.paths import Bundle, Paths
from models.jobs.job_files import CHECKPOINTS
from models.jobs.plan import REPORT


def resume(earlier: Path, paths: Paths) -> tuple[int, int]:
    """Copy jobs and caches of an earlier run; says and returns how many finished jobs and how many begun ones
    came.
    """
    root = _work_root(earlier, paths.name)
    jobs = root.glob(f"{paths.name}/models/*/*/seed_*/*fold_*")
    came = {True: 0, False: 0}
    for job in tqdm(jobs, "jobs of the earlier run", disable=not sys.stderr.isatty(), leave=False):
        here = paths.root / job.relative_to(root / paths.name)
        finished, begun = (job / REPORT).exists(), any(job.glob(CHECKPOINTS)) and not here.exists()
        if (finished or begun) and not (here.with_name(here.name.lstrip(".")) / REPORT).exists():
            _copy_files(job, here)
            came[finished] += 1
    _copy_files(root / "cache", paths.cache)
    for decisions in root.glob(f"{paths.name}/budget_*.json"):
        if not (paths.root / decisions.name).exists():
            write_atomically(paths.root / decisions.name, decisions.read_bytes())
    print(
        f"from {earlier}: {came[True]} finished jobs and {came[False]} with a checkpoint that were not here"
    )
    return came[True], came[False]


def _work_root(earlier: Path, name: str) -> Path:
    """The earlier WORK_DIR, which is `earlier` or below it; that of a notebook's bundle, also one inside, is
    none.
    """
    roots = {folder.parent.parent for folder in earlier.rglob(f"{name}/models") if folder.is_dir()}
    roots -= {root for root in roots if Bundle(root.parent).manifest.exists()}
    found = sorted(root for root in roots if roots.isdisjoint(root.parents))
    if len(found) != 1:
        raise ConfigError(
            f"--from names a folder with the products of one earlier run of {name} (its WORK_DIR, with "
            f"{name}/models "
            f"in it); found below {earlier}: {', '.join(map(str, found)) or 'none'}. Name that folder."
        )
    return found[0]


def _copy_files(source: Path, target: Path) -> None:
    """Copy what is not there yet, a job's report last; files alone, since an attached output has read-only
    folders.
    """
    for file in sorted(source.rglob("*"), key=lambda file: file.name == REPORT):
        copy = target / file.relative_to(source)
        if file.is_file() and not copy.exists():
            write_atomically(copy, file.read_bytes())
