"""What an executor costs: 1,000 stand-in jobs of 0.2 s, which sleep, on 4 workers, so 50 s at best.

`python -m benchmarks.overhead [local|ray] [--jobs N] [--seconds S] [--workers N]`. The time that
workers take to start is counted. With --seconds 0, what it takes to place a job.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from models.jobs.ray_workers import workers_of
from models.jobs.workers import Item


def stand_in(folder: Path, seconds: float) -> None:
    """A job: it takes its time and writes its folder under another name first."""
    time.sleep(seconds)
    made = folder.with_name(f".{folder.name}")
    made.mkdir(parents=True)
    (made / "report.json").write_text("{}")
    made.rename(folder)


def overhead(executor: str, n_jobs: int, seconds: float, n_workers: int, root: Path) -> None:
    """Run the jobs and print what they took beyond the best possible."""
    items = [Item(stand_in, (root / f"{i}", seconds)) for i in range(n_jobs)]
    before = time.monotonic()
    with workers_of(executor, None, n_workers)() as workers:
        started = time.monotonic()
        workers.run(items, "jobs")
        ended = time.monotonic()
    assert len(list(root.glob("*/report.json"))) == n_jobs
    best = seconds * n_jobs / n_workers
    took = ended - before
    print(f"{executor}: {n_jobs} jobs of {seconds} s on {n_workers} workers, at best {best:.1f} s")
    print(f"took {took:.1f} s, of which {started - before:.1f} s to start", end="; ")
    print(f"overhead {took / best - 1:.1%}" if best else f"{(ended - started) / n_jobs * 1000:.1f} ms per job")


def main() -> None:
    """Command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("executor", choices=["local", "ray"], nargs="?", default="local")
    options.add_argument("--jobs", type=int, default=1000)
    options.add_argument("--seconds", type=float, default=0.2)
    options.add_argument("--workers", type=int, default=4)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WORK_DIR"] = folder
        overhead(args.executor, args.jobs, args.seconds, args.workers, Path(folder) / "jobs")


if __name__ == "__main__":
    main()
