"""What the tests of jobs share: planned competitions, stages without libraries, executors and drivers."""

import random
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from competition.config import load_competition
from core.cli import SIGNALS
from core.files import PROJECT, sha256_of
from core.overrides import NO_OVERRIDES, Overrides
from core.paths import Paths
from folds.make import run as make_folds
from models.hardware import Card
from models.jobs.compute import rows_of_job
from models.jobs.local import LocalExecutor, Placement, Slot
from models.jobs.plan import make_plan
from models.jobs.scheduler import JobResult, Task
from submissions.config import load_config
from tests.conftest import mixed_tables, write_competition

STAGES = PROJECT / "tests" / "models" / "jobs" / "user_stages.py"
TREES = {"kind": "lightgbm", "n_bits": 64, "max_trees": 5}
GNN = {"kind": "gnn", "width": 16, "hidden_width": 16}


class InlineExecutor(LocalExecutor):
    """Runs a task at once, in this process, as on a machine of so many cores without cards."""

    def __init__(self, cores=1):
        super().__init__(cores, cards=[])
        self.tasks: list[Task] = []

    def _new_slot(self, card, sees_all=False):
        return Slot(Mock(), card)

    def _call(self, slot, function, *arguments):
        future = Future[Any]()
        future.set_result(function(*arguments))
        return future

    def submit(self, task):
        self.tasks.append(task)
        return super().submit(task)

    def _collect(self): ...

    def announce(self, waiting):
        super()._collect()  # the loop has read no result before


class FakeProcesses(LocalExecutor):
    """Places tasks as `LocalExecutor` does; processes are made up, and each look of the loop ends one of them.

    outcome: task -> its result, or the exception of its pool.
    moments: what ran side by side, with its placement, at each look.
    """

    def __init__(self, cores, cards=(), seed=0, outcome=None):
        super().__init__(cores, [Card(name, 80.0, True) for name in cards])
        self.random = random.Random(seed)
        self.outcome = outcome or (lambda task: JobResult(task.name))
        self.moments: list[dict[Task, Placement]] = []

    def _new_slot(self, card, sees_all=False):
        return Slot(Mock(), card)

    def _call(self, slot, function, *arguments):
        return Future()

    def announce(self, waiting):
        self.moments.append(dict(self.running))
        task = self.random.choice(list(self.running))
        result = self.outcome(task)
        future = self.running[task].future
        future.set_exception(result) if isinstance(result, Exception) else future.set_result(result)


def planned(folder, seed=None, reuse=False, **sections):
    """The jobs of a small competition, by default of one stage of three folds; its tables and folds are made."""
    tables = sections.pop("tables", None) or mixed_tables()
    path = str(write_competition(folder, *tables, **{"stages": {"trees": TREES}, **sections}))
    overrides = NO_OVERRIDES if seed is None else Overrides({"competition.seed": seed})
    competition, config = load_competition(path, overrides), load_config(path)
    make_folds(competition, config.folds)
    return make_plan(competition, config.stages, reuse)


def rows_of(job, plan):
    """The rows and the context of a job."""
    return rows_of_job(job, plan.stages[job.stage], plan.tables)


def upgrade(monkeypatch, library, version):
    """From now on, a library has this version."""
    installed = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version if name == library else installed(name))


def counted(folder, seconds=0.0, seeds=2):
    """A YAML with two stages of three folds, whose jobs take some seconds each and write a line to
    folder/log.

    Those of the second stage wait as long as folder/hold is there.
    """
    settings = {"log": str(folder / "log"), "seconds": seconds}
    stage = {"kind": f"{STAGES}:Counted", "seeds": list(range(seeds))}
    held = {**settings, "hold": str(folder / "hold")}
    stages = {"a": {**stage, **settings}, "b": {**stage, **held}}
    return write_competition(folder, *mixed_tables(), stages=stages)


def _reset_signals():
    """Tests in the background ignore some of them, and a process starts with those of its parent."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def start(path, *options):
    """A driver: `./run.sh train`, in a process group of its own."""
    return subprocess.Popen(
        ["./run.sh", "train", str(path), *options],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=_reset_signals,
    )  # fmt: skip


def processes_in(work):
    """Running processes whose products go to a folder."""
    results = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"WORK_DIR={work}\0".encode() in (folder / "environ").read_bytes():
                results.append(folder.name)
    return results


def wait_until_running(folder, n_jobs, run):
    """Until so many jobs of `counted` were begun by this driver and others."""
    while trained(folder).total() < n_jobs:
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)


def ended(process, status=0):
    """What a process said; it must end with this status."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors
    return output if status == 0 else errors


def trained(folder):
    """How often each job of `counted` was begun."""
    log = folder / "log"
    return Counter(line.split()[0] for line in log.read_text().splitlines()) if log.exists() else Counter()


def products():
    """Digests of all that is published, except for reports, which have seconds."""
    root = Paths("mixed").root / "models"
    paths = sorted(root.rglob("*"))
    assert not [path for path in paths if path.name[0] == "."]
    files = [path for path in paths if path.is_file() and path.name != "report.json"]
    return {str(path.relative_to(root)): sha256_of(path) for path in files}
