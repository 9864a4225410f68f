"""What the tests of jobs share: planned competitions, stages without libraries, workers without processes, drivers."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from competition.config import load_competition
from competition.files import read_json, sha256_of
from competition.paths import PROJECT, Paths
from competition.prepare import run as prepare
from competition.tables import Rows
from folds.make import load_folds_config
from folds.make import run as make_folds
from models.config import load_stages
from models.jobs.plan import Plan, plan
from models.jobs.workers import Item, Workers
from tests.conftest import mixed_tables, write_competition

STAGE = PROJECT / "tests" / "models" / "jobs" / "counted_stage.py"
TREES = {"kind": "lightgbm", "n_bits": 64, "max_trees": 5}
GNN = {"kind": "gnn", "width": 16, "hidden_width": 16}


class Echo:
    """Predicts the number in a row's id, so what comes out of place is seen at once; keeps what it is told."""

    context: Any
    train: Rows

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        self.train = train

    def predict(self, rows: Rows, folder: Path) -> np.ndarray:
        return np.array([[float(i[1:]), -float(i[1:])] for i in rows.ids])


class HereWorkers(Workers):
    """They run an item at once, in this process, on a machine of so many cores and GPUs."""

    def __init__(self, n_workers: int | None = None, gpus: int = 0) -> None:
        super().__init__(n_workers or 1)
        self.gpus = [str(gpu) for gpu in range(gpus)]

    def start(self, item: Item, index: int) -> Future[float]:
        done: Future[float] = Future()
        item.function(*item.arguments)
        done.set_result(1.0)
        return done


class Listing(HereWorkers):
    """They do nothing; `items` are what they were given."""

    items: list[Item] = []

    def run(self, items: list[Item], noun: str, more: Callable[[], list[Item]] = list) -> list[Item]:
        self.items = items
        return []

    def given(self, function: Any) -> list[Item]:
        """Items of one function."""
        return [item for item in self.items if item.function == function]


def plan_of(path: Path, seed: int | None = None, reuse: bool = False) -> Plan:
    """The jobs of a YAML, after its tables and folds are made."""
    config, paths = load_competition(str(path), seed), Paths("mixed")
    prepare(config, paths, path)
    make_folds(config, load_folds_config(str(path)), paths)
    return plan(config, load_stages(str(path)), paths, reuse)


def planned(folder: Path, seed: int | None = None, reuse: bool = False, **sections: Any) -> Plan:
    """The jobs of a small competition, by default of one stage of three folds."""
    tables = sections.pop("tables", None) or mixed_tables()
    return plan_of(write_competition(folder, *tables, **{"stages": {"trees": TREES}, **sections}), seed, reuse)


def counted(folder: Path, seconds: float = 0.0, seeds: int = 2) -> Path:
    """A YAML with two stages of three folds, whose jobs take some seconds each and write a line to folder/log.

    Those of the second stage wait as long as folder/hold is there.
    """
    settings = {"log": str(folder / "log"), "seconds": seconds}
    stage = {"kind": "custom", "code": f"{STAGE}:Counted", "seeds": list(range(seeds))}
    held = {**settings, "hold": str(folder / "hold")}
    stages = {"a": {**stage, "settings": settings}, "b": {**stage, "settings": held}}
    return write_competition(folder, *mixed_tables(), stages=stages)


def start(path: Path, *options: str) -> subprocess.Popen[str]:
    """A driver: `./run.sh train`, in a process group of its own."""
    command = [sys.executable, "-m", "models.jobs.train", str(path), "--prepare", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=PROJECT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def wait_until_begun(folder: Path, n_jobs: int, run: subprocess.Popen[str]) -> None:
    """Until so many jobs of `counted` were begun by this driver and others."""
    while trained(folder).total() < n_jobs:
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)


def ended(process: subprocess.Popen[str], status: int = 0) -> str:
    """What a process said; it must end with this status."""
    said, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors
    return said if status == 0 else errors


def trained(folder: Path) -> Counter[str]:
    """How often each job of `counted` was begun."""
    log = folder / "log"
    return Counter(line.split()[0] for line in log.read_text().splitlines()) if log.exists() else Counter()


def products() -> dict[str, str]:
    """Digests of all that is published; of a report, what it lists."""
    root = Paths("mixed").root / "models"
    assert not [path for path in root.rglob("*") if path.name[0] == "."]
    return {
        str(path.relative_to(root)): sha256_of(path) if path.name != "report.json" else str(read_json(path)["files"])
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
