"""What the jobs of a stage will take, from parts of their rows: each is twice the one before, for some seconds."""

import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.errors import UserError
from competition.files import write_json
from competition.tables import Rows
from competition.types import Integers
from folds.table import time_ordered
from models.config import FeatureStage, TreesStage
from models.jobs.job_rows import context_of, read_tables, training_rows
from models.jobs.plan import Plan
from models.registry import build_stage, shared_caches
from models.settings import NeuralStage

FEWEST, FEWEST_ON_FEATURES = 32, 256
"""Rows of the first part; on features fewer take no time, and give a tree too few."""
OF_CLASS = 5
"""Rows of each class among them."""
OF_CACHES = 3.0
"""Seconds of filling caches, which stay, over those of fitting, after which no larger part is begun."""
STEEPEST = 2.0
"""Most power of the rows that seconds grow with."""
FEW_TREES = 30
"""Of the first fit, which has imports and reading in it."""
OF_TREES = 1.1
"""Power of the rows that the seconds of boosted trees, whose number is found, grow with. As planned over as taken then:
LightGBM .5 (two targets of few labels), 1.1, 1.6 and 1.7, CatBoost 1.8 and 2.5, on three sets of molecules."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one worker.

    job: of each job; epoch: of each of its epochs.
    caches: of all that the stage lacks, once; name of a cache's folder -> seconds, 0 where another stage's
        probe had filled the parts.
    """

    job: float = 0.0
    epoch: float = 0.0
    caches: dict[str, float] = field(default_factory=dict)

    def of(self, stage: Any) -> float:
        """Seconds of one job with the epochs of these settings."""
        return self.job + self.epoch * getattr(stage, "epochs", 0)


class Probe:
    """A stage on parts of the rows that a job of the last fold trains on; of blocks in time it has the most.

    quick: its settings with one epoch, or a few trees.
    order: positions of the rows, of which a part has the first; n_first: the least that it has to have.
    filling: seconds that filling caches took.
    """

    def __init__(self, todo: Plan, stage: Any) -> None:
        self.stage, (self.rows, self.test, self.folds) = stage, read_tables(todo)
        last, earlier_alone = todo.n_folds - 1, time_ordered(todo.paths.folds_report)
        trains = np.flatnonzero(training_rows(self.rows, self.folds, last, stage.extra_rows, earlier_alone))
        self.context = replace(context_of(todo, 0, self.rows), predicts_held_out=True, tries_again=False)
        mixed, has_classes = np.random.default_rng(0).permutation(trains), self.context.task.has_probabilities
        self.order, self.n_first = _order(self.rows, mixed, has_classes)
        self.predicted = (np.sum(self.folds == last) + len(self.test)) / len(trains)  # rows, for one that is fitted
        self.filling, self.seconds_of_key, changes = 0.0, dict[str, float](), dict[str, Any]()
        if isinstance(stage, NeuralStage):
            changes = {"epochs": 1, "warmup": min(stage.warmup, 0.5)}
        elif isinstance(stage, TreesStage):
            changes = {"max_trees": min(FEW_TREES, stage.max_trees)}
        self.quick = stage.model_copy(update=changes)

    def seconds(self, stage: Any, n: int) -> tuple[float, float]:
        """To fit n rows by some settings and to predict as many as a job does for them, when caches are filled."""
        train, others = (self.rows.take(self.order[:m]) for m in (n, max(1, round(self.predicted * n))))
        for cache, keys in shared_caches(stage, self.context, [train, others]):
            if missing := cache.missing(keys):
                started = _now()
                cache.compute_shard(missing)
                took = _now() - started
                self.seconds_of_key[cache.folder.name] = took / len(missing)
                self.filling += took
        context = replace(self.context, division=self.folds[self.order[:n]])
        valid, started = others if getattr(stage, "reads_held_out", False) else None, _now()
        with tempfile.TemporaryDirectory() as folder:
            build_stage(stage, context).fit(train, valid, Path(folder))
            fitted = _now()
            build_stage(stage, context).predict(others, Path(folder))
        more = max(1.0, self.predicted * n / len(self.order))  # a test table may have more rows than there are here
        return fitted - started, (_now() - fitted) * more

    def caches(self) -> dict[str, float]:
        """As `Cost` has them."""
        return {
            cache.folder.name: self.seconds_of_key.get(cache.folder.name, 0.0) * len(cache.missing(keys))
            for cache, keys in shared_caches(self.stage, self.context, [self.rows, self.test])
        }


def measure(todo: Plan, name: str, file: Path, longest: float, until: float) -> None:
    """In a worker: fit parts of the last fold's training rows, predict as many others as a job does; writes the cost.

    Networks are measured by one epoch, and the largest part by two, which tells what an epoch takes and what inputs and
    predictions. Of other stages the two largest parts give a line, or the power that their time grows with; of boosted
    trees, whose number changes from part to part, the largest one counts.

    Args:
        longest: seconds of fitting and predicting after which no larger part is begun.
        until: time.time() after which nothing is measured any more, and nothing is written.
    """
    if time.time() > until:
        return
    stage = todo.stages[name]
    probe, has_trees = Probe(todo, stage), isinstance(stage, TreesStage)
    n_rows, found, spent = len(probe.order), list[tuple[int, float, float]](), 0.0
    fewest = min(max(FEWEST_ON_FEATURES if isinstance(stage, FeatureStage) else FEWEST, probe.n_first), n_rows)
    # The first part twice, since its first time has imports in it; all rows again where a part did not do.
    for n in (fewest, *(min(fewest * 2**i, n_rows) for i in range(n_rows.bit_length() + 1))):
        try:
            seconds = probe.seconds(stage if has_trees and found else probe.quick, n)
        except UserError:  # a part may lack a class, or all labels of a target
            if n == n_rows:
                raise
            continue
        found.append((n, *seconds))
        if len(found) > 1:
            spent += sum(seconds)
            is_long = spent + 2 * sum(seconds) > longest or 2 * probe.filling > OF_CACHES * longest
            if n == n_rows or (is_long and (has_trees or n > found[0][0])):
                break
    if has_trees:
        cost = Cost(sum(seconds) * (n_rows / n) ** OF_TREES)
    elif isinstance(stage, NeuralStage):
        twice, _ = probe.seconds(probe.quick.model_copy(update={"epochs": 2}), n)
        cost = _cost_of_epochs(found[-2:], twice, n_rows)
    else:
        cost = _cost(found[-2:], n_rows)
    write_json(file, asdict(replace(cost, caches=probe.caches())))


def _now() -> float:
    """Seconds of computing, of a process that works on one thread, and of programs that it has run: another one that is
    busy for a moment makes no stage look slow. With a GPU seconds that have passed."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return time.monotonic()
    return time.process_time() + sum(os.times()[2:4])


def _order(rows: Rows, order: Integers, has_classes: bool) -> tuple[Integers, int]:
    """Positions of training rows, and how many of the first are a few of each class of each target.

    Where a small part lacks classes it has fewer models to fit, and time would seem to grow faster than it does.
    """
    first = np.zeros(len(order), dtype=bool)
    for labels in rows.y[order].T if has_classes else ():
        before = pd.Series(labels).groupby(labels, dropna=False).cumcount().to_numpy()  # rows of the same class
        first |= (before < OF_CLASS) & ~np.isnan(labels)
    return order[np.argsort(~first, kind="stable")], int(first.sum())


def _cost_of_epochs(found: list[tuple[int, float, float]], twice: float, n_rows: int) -> Cost:
    """From rows, seconds of fitting and of predicting of two parts, and the seconds of two epochs of the second."""
    (few, few_fit, _), (many, many_fit, predict) = found
    epoch = min(many_fit, twice - many_fit if twice > 1.1 * many_fit else many_fit)  # less is noise
    by_row = (many_fit - few_fit) / (many - few) if many_fit > 1.1 * few_fit and many > few else many_fit / many
    once = max(0.0, many_fit - by_row * many)  # whatever the number of rows
    inputs = max(0.0, many_fit - epoch - once)
    return Cost(once + (inputs + predict) * n_rows / many, epoch * n_rows / many)


def _cost(found: list[tuple[int, float, float]], n_rows: int) -> Cost:
    """The same of other stages, from two parts."""
    (few, of_few), (many, of_many) = ((n, fit + predict) for n, fit, predict in found)
    if of_many < 1.1 * of_few:  # noise, or the same for any number of rows: between no growth and growth like theirs
        return Cost(of_many * (n_rows / many) ** 0.5)
    if many == few or of_many / of_few <= many / few:  # a part of it is the same for any number of rows
        row = (of_many - of_few) / max(1, many - few)
        return Cost(of_many + row * (n_rows - many))
    power = min(STEEPEST, log2(of_many / of_few) / log2(many / few))
    return Cost(of_many * (n_rows / many) ** power)
