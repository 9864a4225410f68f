"""Time and money for 5 stages x 5 seeds x 10 folds on 1 to 1,000 machines: the tables of docs/scale.md.

`python -m benchmarks.scale [--speedup X] [--price P]` computes them from seconds per job; with --check N the
real executor runs all 250 jobs as stand-ins that sleep, N times shorter, and that is held against what was
computed. With --jobs N, N stand-ins of --seconds S: what an executor costs; with --seconds 0, what it takes
to place a job. With --products FOLDER (a WORK_DIR with a finished run) it prints megabytes per folder of a
job.
"""

import argparse
import heapq
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path

from models.jobs.cluster import make_executor
from models.jobs.scheduler import Queue, Task
from models.jobs.scheduler import run as run_queue

SECONDS = {"unimol": 336.9 / 5, "rxnfp": 322.0 / 5, "gnn": 111.4 / 5, "lightgbm": 16.2 / 5, "svr": 8.9 / 5}
"""Per job on one CPU core: the ESOL run of the README, 5 folds each. The longest first, as in the YAML."""
NEURAL = ("unimol", "rxnfp", "gnn")
N_OF_EACH = 5 * 10
MACHINES = (1, 8, 64, 1000)
PLACEMENT = 0.007
"""Seconds of the driver per job, one after another: `--jobs 1000 --seconds 0 --executor ray`."""
START = 10.0
"""Seconds until a worker has imported what its first job needs."""


def jobs(speedup: float) -> list[float]:
    """Seconds of each job, in the order in which they start."""
    each = {name: seconds / (speedup if name in NEURAL else 1.0) for name, seconds in SECONDS.items()}
    return [seconds for seconds in each.values() for _ in range(N_OF_EACH)]


def makespan(seconds: list[float], n_workers: int, start: float, placement: float) -> float:
    """Seconds until all jobs are done: each goes to the next free worker, and the driver places one after
    another.
    """
    free = [start] * n_workers
    heapq.heapify(free)
    placed = ends = 0.0
    for job in seconds:
        placed = max(placed, free[0]) + placement
        heapq.heapreplace(free, placed + job)
        ends = max(ends, placed + job)
    return ends


def table(speedup: float, price: float) -> str:
    """Rows of the page: machines, minutes, share of them that works, money."""
    seconds = jobs(speedup)
    lines = ["| machines | minutes | busy | money |", "|---:|---:|---:|---:|"]
    for n in MACHINES:
        took = makespan(seconds, n, START, PLACEMENT)
        busy, money = sum(seconds) / (n * took), n * took / 3600 * price
        lines.append(f"| {n:,} | {took / 60:.1f} | {busy:.0%} | {money:.2f} |")
    return "\n".join(lines)


def stand_in(folder: Path, seconds: float) -> None:
    """A job: it takes its time and writes its folder under another name first."""
    time.sleep(seconds)
    made = folder.with_name(f".{folder.name}")
    made.mkdir(parents=True)
    (made / "report.json").write_text("{}")
    made.rename(folder)


def run(executor: str, seconds: list[float], n_workers: int, warm: bool) -> str:
    """Run stand-ins and compare with what was computed; the start of workers counts unless they are `warm`."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WORK_DIR"] = folder
        root = Path(folder) / "jobs"
        tasks = [Task(f"{i}", stand_in, (root / f"{i}", job)) for i, job in enumerate(seconds)]
        before = time.monotonic()
        with closing(make_executor(executor, None, n_workers)) as workers:
            if warm:
                first = [Task(f"warm-{i}", stand_in, (root / f"warm-{i}", 1.0)) for i in range(n_workers)]
                run_queue(Queue(first), workers, "workers")
                before = time.monotonic()
            started = time.monotonic()
            run_queue(Queue(tasks), workers, "jobs")
            ended = time.monotonic()
    computed, took = makespan(seconds, n_workers, 0.0, 0.0), ended - before
    return (
        f"{executor}, {n_workers} workers, {len(seconds)} jobs: {took:.1f} s, {started - before:.1f} s of "
        f"it to start, "
        f"computed {computed:.1f} s without placement; "
        f"{(took - computed) * n_workers / len(tasks) * 1000:.0f} ms more "
        f"per job, placed every {(ended - started) / len(tasks) * 1000:.1f} ms"
    )


def sizes(products: Path) -> str:
    """Megabytes per folder of a job, by stage."""
    of_stage: dict[str, list[int]] = {}
    for report in sorted(products.glob("*/models/*/*/seed_*/fold_*/report.json")):
        size = sum(file.stat().st_size for file in report.parent.rglob("*") if file.is_file())
        of_stage.setdefault(report.parent.parts[-4], []).append(size)
    return "\n".join(
        f"{stage}: {sum(sizes_of_jobs) / len(sizes_of_jobs) / 1e6:.2f} MB per job"
        for stage, sizes_of_jobs in of_stage.items()
    )


def main() -> None:
    """Parse the command line and run the benchmark."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--speedup", type=float, default=10.0, help="of a neural job on a GPU over one CPU core"
    )
    options.add_argument("--price", type=float, default=0.5, help="of a GPU for an hour")
    options.add_argument("--price-of-core", type=float, default=0.05, help="of a CPU core for an hour")
    options.add_argument("--check", type=float, metavar="SHORTER", help="run the jobs, so many times shorter")
    options.add_argument("--jobs", type=int, help="run so many stand-ins")
    options.add_argument("--seconds", type=float, default=0.2)
    options.add_argument("--workers", type=int, default=8)
    options.add_argument("--executor", default="local")
    options.add_argument("--products", type=Path)
    args = options.parse_args()
    if args.products:
        print(sizes(args.products))
    elif args.check:
        print(run(args.executor, [job / args.check for job in jobs(1.0)], args.workers, warm=True))
    elif args.jobs:
        print(run(args.executor, [args.seconds] * args.jobs, args.workers, warm=False))
    else:
        print(f"CPU cores, {args.price_of_core} per core and hour\n{table(1.0, args.price_of_core)}")
        print(f"GPUs, neural jobs {args.speedup:g} times faster, {args.price} per GPU and hour")
        print(table(args.speedup, args.price))


if __name__ == "__main__":
    main()
