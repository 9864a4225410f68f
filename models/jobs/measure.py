"""What the jobs of a stage will take, from parts of their rows: each is twice the one before, for some seconds."""

import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np

from competition.errors import UserError
from competition.files import write_json
from competition.tables import Rows
from competition.types import Integers
from folds.table import time_ordered
from models.config import TreesStage
from models.jobs.plan import Plan
from models.jobs.work import context_of, read_tables, training_rows
from models.registry import build_stage, shared_caches
from models.settings import NeuralStage
from models.training.machine import usable_gpus

FEWEST, FEWEST_OF_TREES = 32, 256
"""Rows of the first part; trees of fewer are too few."""
OF_CLASS = 5
"""Rows of each class among them."""
OF_CACHES = 3.0
"""Seconds of filling caches, which stay, over those of fitting, after which no larger part is begun."""
STEEPEST = 2.0
"""Most power of the rows that seconds grow with."""
FEW_TREES = 30
"""By which it is seen how much longer a tree of more rows takes: with many features hardly longer."""
MORE_TREES = 2.0
"""How many times as many trees all rows have as a part: 1 to 3 in LightGBM and CatBoost on four sets of molecules."""


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


def measure(todo: Plan, name: str, file: Path, longest: float) -> None:
    """In a worker: fit parts of the last fold's training rows, predict as many others as a job does; writes the cost.

    Networks are measured by one epoch, whose time grows with the rows; the rest is the job's. Of other stages the two
    largest parts give a line, or the power that their time grows with; of boosted trees, whose number changes from part
    to part, a few trees of the largest part and of four times as many rows give that power.

    Args:
        longest: seconds of fitting and predicting after which no larger part is begun.
    """
    stage, (rows, test, folds) = todo.stages[name], read_tables(todo)
    last = todo.n_folds - 1  # of blocks in time that with most training rows
    trains = np.flatnonzero(training_rows(rows, folds, last, stage.extra_rows, time_ordered(todo.paths.folds_report)))
    context = replace(context_of(todo, 0, rows), predicts_held_out=True, tries_again=False)
    order, n_first = _order(rows, np.random.default_rng(0).permutation(trains), context.task.has_probabilities)
    share = (np.sum(folds == last) + len(test)) / len(trains)
    by_epochs, has_trees = isinstance(stage, NeuralStage), isinstance(stage, TreesStage)
    one_epoch = stage.model_copy(update={"epochs": 1, "warmup": min(stage.warmup, 0.5)}) if by_epochs else stage
    few_trees = stage.model_copy(update={"max_trees": min(FEW_TREES, stage.max_trees)}) if has_trees else one_epoch
    seconds_of_key, spent, filled, found = dict[str, float](), 0.0, 0.0, list[tuple[int, float, float]]()
    fewest = min(max(FEWEST_OF_TREES if has_trees else FEWEST, n_first), len(trains))
    sizes = [min(fewest * 2**i, len(trains)) for i in range(ceil(log2(max(2, len(trains) / fewest))) + 1)]

    def parts(n: int) -> list[Rows]:
        """To fit and to predict."""
        return [rows.take(order[:n]), rows.take(order[: max(1, round(share * n))])]

    def seconds_of(settings: Any, n: int) -> tuple[float, float]:
        fit, predict = _seconds(settings, replace(context, division=folds[order[:n]]), *parts(n))
        return fit, predict * max(1.0, share * n / len(order))  # a test table may have more rows than there are here

    for n in (sizes[0], *sizes, len(trains), len(trains)):
        for cache, keys in shared_caches(one_epoch, context, parts(n)):
            if missing := cache.missing(keys):
                before = _now()
                cache.compute_shard(missing)
                took = _now() - before
                seconds_of_key[cache.folder.name] = took / len(missing)
                filled += took
        try:
            found.append((n, *seconds_of(one_epoch if found else few_trees, n)))
        except UserError:  # a part may lack a class, or all labels of a target
            if n == len(trains):
                raise
            continue
        if len(found) == 1:  # with imports in it
            continue
        spent += sum(found[-1][1:])
        is_long = spent + 2 * sum(found[-1][1:]) > longest or 2 * filled > OF_CACHES * longest
        if len(found) > (1 if has_trees else 2) and (n == len(trains) or is_long):
            break
    caches = {
        cache.folder.name: seconds_of_key.get(cache.folder.name, 0.0) * len(cache.missing(keys))
        for cache, keys in shared_caches(stage, context, [rows, test])
    }
    cost = _cost(found[-2:], len(trains), caches, by_epochs)
    if has_trees:
        n, *seconds = found[-1]
        growth = 1.0
        if n < len(trains):
            more = min(4 * n, len(trains))
            _, few, many = (sum(seconds_of(few_trees, size)) for size in (more, n, more))  # the first reads features
            growth = MORE_TREES * (len(trains) / n) ** min(1.0, max(0.0, log2(many / few) / log2(more / n)))
        cost = replace(cost, job=sum(seconds) * growth)
    write_json(file, asdict(cost))


def _order(rows: Rows, order: Integers, has_classes: bool) -> tuple[Integers, int]:
    """Positions of training rows, and how many of the first are a few of each class of each target.

    Where a small part lacks classes it has fewer models to fit, and time would seem to grow faster than it does.
    """
    of_classes = [
        order[rows.y[order, t] == label][:OF_CLASS]
        for t in range(rows.y.shape[1] if has_classes else 0)
        for label in np.unique(rows.y[:, t][~np.isnan(rows.y[:, t])])
    ]
    first = np.unique(np.concatenate([order[:0], *of_classes]))
    return np.concatenate([first, order[~np.isin(order, first)]]), len(first)


def _seconds(stage: Any, context: Any, train: Rows, others: Rows) -> tuple[float, float]:
    """To fit and to predict."""
    valid, started = others if getattr(stage, "reads_held_out", False) else None, _now()
    with tempfile.TemporaryDirectory() as folder:
        build_stage(stage, context).fit(train, valid, Path(folder))
        fitted = _now()
        build_stage(stage, context).predict(others, Path(folder))
    return fitted - started, _now() - fitted


def _now() -> float:
    """Seconds of computing, of a process that works on one thread: another program that is busy for a moment makes no
    stage look slow. With a GPU seconds that have passed."""
    return time.monotonic() if usable_gpus() else time.process_time()


def _cost(found: list[tuple[int, float, float]], n_rows: int, caches: dict[str, float], by_epochs: bool) -> Cost:
    """From rows, seconds of fitting and of predicting of two parts."""
    (few, few_fit, few_predict), (many, many_fit, many_predict) = found
    # Where twice the rows took no longer, what was seen is noise, and all of the time counts for the rows.
    row = (many_fit - few_fit) / (many - few) if many_fit > 1.1 * few_fit and many > few else many_fit / many
    if by_epochs:
        return Cost(max(0.0, many_fit - row * many) + many_predict * n_rows / many, row * n_rows, caches)
    of_few, of_many = few_fit + few_predict, many_fit + many_predict
    if of_many < 1.1 * of_few:  # noise, or the same for any number of rows: between no growth and growth like theirs
        return Cost(of_many * (n_rows / many) ** 0.5, 0.0, caches)
    if many == few or of_many / of_few <= many / few:  # a part of it is the same for any number of rows
        row = (of_many - of_few) / max(1, many - few)
        return Cost(of_many + row * (n_rows - many), 0.0, caches)
    power = min(STEEPEST, log2(of_many / of_few) / log2(many / few))
    return Cost(of_many * (n_rows / many) ** power, 0.0, caches)
