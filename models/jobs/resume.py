"""Continue from an earlier run: `./run.sh full NAME --from FOLDER`, or `train`.

This is for a machine that starts empty, such as a notebook with an attached output: FOLDER is that output,
read-only or not; the WORK_DIR of the earlier run is searched below it. Jobs, finished or with a checkpoint,
decisions of a budget and caches that are missing here are copied to WORK_DIR; existing files stay.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from core.errors import ConfigError
from core.files import write_atomically
from core.paths import Bundle, Paths
from models.jobs.job_files import CHECKPOINTS
from models.jobs.plan import REPORT


def resume(source: Path, paths: Paths) -> tuple[int, int]:
    """Copy jobs and caches of an earlier run; print and return the numbers of finished and of started jobs."""
    root = _work_root(source, paths.name)
    jobs = root.glob(f"{paths.name}/models/*/*/seed_*/*fold_*")
    n_copied = {True: 0, False: 0}
    for job in tqdm(jobs, "jobs of the earlier run", disable=not sys.stderr.isatty(), leave=False):
        here = paths.root / job.relative_to(root / paths.name)
        finished = (job / REPORT).exists()
        started = any(job.glob(CHECKPOINTS)) and not here.exists()
        if (finished or started) and not (here.with_name(here.name.lstrip(".")) / REPORT).exists():
            _copy_files(job, here)
            n_copied[finished] += 1
    _copy_files(root / "cache", paths.cache)
    for decisions in root.glob(f"{paths.name}/budget_*.json"):
        if not (paths.root / decisions.name).exists():
            write_atomically(paths.root / decisions.name, decisions.read_bytes())
    print(
        f"from {source}: {n_copied[True]} finished jobs and {n_copied[False]} with a checkpoint were copied"
    )
    return n_copied[True], n_copied[False]


def _work_root(source: Path, name: str) -> Path:
    """Return the WORK_DIR of the earlier run, which is `source` or below it, but not in a notebook's bundle."""
    roots = {folder.parent.parent for folder in source.rglob(f"{name}/models") if folder.is_dir()}
    roots -= {root for root in roots if Bundle(root.parent).manifest.exists()}
    candidates = sorted(root for root in roots if roots.isdisjoint(root.parents))
    if len(candidates) != 1:
        raise ConfigError(
            f"--from takes a folder with the outputs of one run of {name} (its WORK_DIR, with {name}/models); "
            f"got {source} with: {', '.join(map(str, candidates)) or 'none'}. Choose one of them."
        )
    return candidates[0]


def _copy_files(source: Path, target: Path) -> None:
    """Copy missing files, the reports of jobs last. Modes of folders are not copied, since they may be read-only."""
    for file in sorted(source.rglob("*"), key=lambda file: file.name == REPORT):
        copy = target / file.relative_to(source)
        if file.is_file() and not copy.exists():
            write_atomically(copy, file.read_bytes())
