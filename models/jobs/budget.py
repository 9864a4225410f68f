"""What to train in a given time: which stages, how many epochs, how many seeds, so that what starts also finishes.

Most epochs of all stages come before all epochs of a few, and these before more seeds: a blend gains most from another
kind of model, then from a better one, then from the same again. The order of worth is the YAML's.
"""

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from competition.durations import in_words
from competition.files import digest, read_json
from models.config import TreesStage
from models.jobs.job_rows import read_tables
from models.jobs.measure import Cost, measure
from models.jobs.plan import REPORT, Job, Plan
from models.jobs.scheduler import Executor, JobResult, Queue, Resources, Task, run
from models.jobs.train import JobReporter, job_tasks, threads_of
from models.settings import NeuralStage

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
"""Of the YAML's epochs, that a version of a network may have."""
SMALLEST, ENOUGH_ROWS = 0.5, 40_000
"""The least share that is worth its time, and how many rows, each counted in every epoch, make a smaller one do."""
MOST = 0.7
"""The share up to which each stage comes, where it fits, before the next one begins."""
MOST_SEEDS = 5
SLOWER, ENOUGH = 1.15, 2.0
"""What jobs take over their costs, and how many seconds of finished jobs count as much as that."""

PROBED, SHORTEST, LONGEST = 0.1, 2.0, 20.0
"""Share of a budget for which all stages are measured, one after the other, and least and most seconds of a stage."""
MOST_PROBED = 0.3
"""Share of a budget after which no further stage is measured: the machine is busy, or the time short."""
PROBE = "probe of"
"""How the groups of the items that measure a stage begin."""

Stages = dict[str, Any]


def version(stage: Any, share: float) -> Any:
    """One seed of a stage with a share of its epochs, where it has some."""
    epochs = {"epochs": max(1, round(share * stage.epochs))} if isinstance(stage, NeuralStage) else {}
    return stage.model_copy(update={"seeds": stage.seeds[:1], **epochs})


def with_all_seeds(stages: Stages) -> Stages:
    """Stages with the seeds that a budget may train: of those that know chance MOST_SEEDS, the YAML's first.

    Without those that learn from test rows: their labels change with each seed of others.
    """

    def seeds(stage: Any) -> list[int]:
        more = set(range(MOST_SEEDS)) - set(stage.seeds) if isinstance(stage, NeuralStage | TreesStage) else []
        return [*stage.seeds, *sorted(more)][: max(MOST_SEEDS, len(stage.seeds))]

    kept = {name: stage for name, stage in stages.items() if stage.pseudo_labels is None}
    return {name: stage.model_copy(update={"seeds": seeds(stage)}) for name, stage in kept.items()}


def most_seeds(stages: Stages) -> int:
    """Of any stage; a YAML may name more than MOST_SEEDS."""
    return max(len(stage.seeds) for stage in stages.values())


@dataclass
class Planner:
    """How long stages take on a machine, and which of them fit into a time.

    costs: of each stage.
    n_folds: jobs of each seed; n_rows: training rows of all folds.
    cores, gpus: of the machine.
    filled: names of the caches that are filled, or being filled.
    took: of each stage the seconds of jobs, and as they were expected.
    """

    costs: dict[str, Cost]
    n_folds: int
    n_rows: int
    cores: int
    gpus: int
    filled: set[str] = field(default_factory=set)
    took: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def learn(self, name: str, stage: Any, seconds: float) -> None:
        """What a job of a stage took."""
        self.took.setdefault(name, []).append((seconds, self.costs[name].of(stage)))

    def of_job(self, name: str, stage: Any) -> float:
        """Seconds of a job, by its cost and what jobs of its stage took; others at most show that all are slower."""
        known = self.took.get(name) or [pair for of_stage in self.took.values() for pair in of_stage]
        took, expected = map(sum, zip((ENOUGH * SLOWER, ENOUGH), *known, strict=True))
        ratio = took / expected
        return self.costs[name].of(stage) * (ratio if name in self.took else max(SLOWER, ratio))

    def seconds(self, stages: Stages, before: Iterable[tuple[Any, float]] = ()) -> float:
        """Until the last job ends, each taken by the worker that is free first.

        Args:
            before: stage and remaining seconds of each job that is not finished yet.
        """
        caches = {name: seconds for stage in stages for name, seconds in self.costs[stage].caches.items()}
        filling = sum(seconds for name, seconds in caches.items() if name not in self.filled) / self.cores
        pools = {False: [0.0] * max(1, self.cores - self.gpus), True: [0.0] * self.gpus}  # a GPU's job has a core
        jobs = [*before]
        for name, stage in stages.items():
            n_jobs = (self.n_folds + (stage.final_fit != "folds")) * len(stage.seeds)
            jobs += [(stage, self.of_job(name, stage))] * n_jobs
        for stage, seconds in jobs:
            pool = pools[self.gpus > 0 and stage.gpu_share > 0]
            heapq.heapreplace(pool, pool[0] + seconds)
        refits = (self.of_job(name, stage) for name, stage in stages.items() if stage.final_fit != "folds")
        behind = max(refits, default=0.0)  # that wait for all folds
        return SLOWER * filling + max(max(pool, default=0.0) for pool in pools.values()) + behind

    def shares(self, stage: Any) -> list[float]:
        """Of its epochs, that versions of a stage have; where there are many rows, fewer epochs teach as much."""
        seen = self.n_rows * (1 - 1 / self.n_folds) * getattr(stage, "epochs", 1)
        return [share for share in SHARES if share >= min(SMALLEST, ENOUGH_ROWS / seen)]

    def decide(self, stages: Stages, seconds: float, before: Iterable[tuple[Any, float]] = ()) -> Stages:
        """The stages that fit, with their epochs and seeds, in the order of the YAML; `stages` have all of both."""
        found, before = dict[str, Any](), [*before]

        def take(name: str, stage: Any) -> None:
            if self.seconds({**found, name: stage}, before) <= seconds:
                found[name] = stage

        for lowest, highest in ((0.0, MOST), (MOST, 1.0)):
            for name, stage in stages.items():
                for share in self.shares(stage):
                    if lowest < share <= highest:
                        take(name, version(stage, share))
        for n_seeds in range(2, most_seeds(stages) + 1):
            for name, stage in found.items():
                if len(stages[name].seeds) >= n_seeds:
                    take(name, stage.model_copy(update={"seeds": stages[name].seeds[:n_seeds]}))
        return found

    def described(self, chosen: Stages, stages: Stages) -> Iterator[str]:
        """A plan, a line for each stage of the YAML."""
        for name, stage in stages.items():
            if self.costs[name].job == inf:
                yield f"  {name}: left out, there was no time to measure it"
                continue
            own = chosen.get(name, version(stage, self.shares(stage)[0]))
            epochs = f"{own.epochs} of {stage.epochs} epochs, " if isinstance(stage, NeuralStage) else ""
            seeds = f"{len(own.seeds)} seed{'s' * (len(own.seeds) > 1)}"
            said = f"{epochs}{seeds}, about {in_words(max(1.0, self.seconds({name: own})))}"
            yield f"  {name}: {said}" if name in chosen else f"  {name}: left out, does not fit with {said}"


def measured(todo: Plan, executor: Executor, folder: Path, budget: float) -> dict[str, Cost]:
    """What each stage costs: as `folder` keeps it, or measured now, for about a seventh of a budget of minutes."""
    longest = min(max(budget * PROBED / max(1, len(todo.stages)), SHORTEST), LONGEST)
    own = [name for name, stage in todo.stages.items() if stage.kind != "file"]
    files = {name: folder / f"{name}-{digest([todo.keys[name], todo.test_key], 12)}.json" for name in own}
    told = replace(todo, jobs=[])
    lacking = [name for name, file in files.items() if not file.exists()]
    items, first, until = [], dict[str, str](), time.time() + MOST_PROBED * budget
    for name in lacking:
        features, group = str(getattr(todo.stages[name], "features", name)), f"{PROBE} {name}"
        after = frozenset({first[features]} if features in first else ())  # which leaves them in the cache
        arguments = told, name, files[name], longest, until
        resources = Resources(gpus=todo.stages[name].gpu_share)
        items.append(Task(group, measure, arguments, resources, group, wait_for_groups=after))
        first.setdefault(features, group)
    run(Queue(items), executor, "probes")
    costs = dict.fromkeys(todo.stages, Cost())
    costs |= {name: Cost(**read_json(file)) if file.exists() else Cost(inf) for name, file in files.items()}
    most = dict[str, float]()  # that who came first has measured
    for cache, seconds in (item for cost in costs.values() for item in cost.caches.items()):
        most[cache] = max(seconds, most.get(cache, 0.0))
    return {name: replace(cost, caches={cache: most[cache] for cache in cost.caches}) for name, cost in costs.items()}


@dataclass
class Within:
    """Trains what fits until a deadline, one seed of a stage after the other; each is decided when a worker is free.

    stages: with all their epochs and seeds.
    earlier: those that an earlier process has begun, whose epochs and seeds stay.
    plan_of: makes the jobs of some stages.
    deadline: time.monotonic() at which training ends.
    begins: called with all stages that have begun each time another has.
    ends: called with all that is finished each time a seed of a stage is.
    """

    stages: Stages
    earlier: Stages
    plan_of: Callable[[Stages], Plan]
    planner: Planner
    executor: Executor
    deadline: float
    begins: Callable[[Stages], object]
    ends: Callable[[Stages], object]

    def __post_init__(self) -> None:
        self.begun: Stages = {}
        self.jobs: dict[tuple[str, int], list[Job]] = {}
        self.planned: set[tuple[str, str]] = set()
        self.again = [(name, stage, seed) for name, stage in self.earlier.items() for seed in stage.seeds]
        self.todo = self.plan_of(self.stages)
        rows, test, _ = read_tables(self.todo)
        self.rows = [rows, test]
        self.reporter = JobReporter(self.todo, self.executor)
        self.queue = Queue([], self._more)

    def train(self) -> None:
        """Until nothing more fits, or the deadline."""
        self.queue.deadline = self.deadline
        run(self.queue, self.executor, "jobs")
        while self.again:  # there was no worker free for what an earlier process may have finished
            self._begin(*self.again.pop(0))

    def end_at(self, deadline: float) -> None:
        """End earlier, where more time is needed behind the training."""
        self.deadline = self.queue.deadline = min(self.deadline, deadline)

    @property
    def finished(self) -> Stages:
        """The stages with the seeds of which all jobs are finished."""
        seeds = {name: [n for n in stage.seeds if not self._unfinished(name, n)] for name, stage in self.begun.items()}
        return {name: self.begun[name].model_copy(update={"seeds": own}) for name, own in seeds.items() if own}

    def left_out(self) -> Iterator[str]:
        """What was not trained, or not to its end, a line each."""
        for (name, seed), jobs in self.jobs.items():
            if left := len(self._unfinished(name, seed)):
                done = f"{len(jobs) - left} of {len(jobs)} jobs finished in the time"
                yield f"stage {name}  seed {seed}  left out: {done}"
        for name in self.stages:
            if name not in self.begun:
                yield f"stage {name}  left out: it did not fit any more"

    def _unfinished(self, name: str, seed: int) -> list[Job]:
        return [job for job in self.jobs[name, seed] if not job.has_predicted(self.todo.test_key)]

    def _more(self) -> list[Task]:
        """The jobs of the next seed of a stage; none when nothing fits."""
        while following := self._next():
            if items := self._begin(*following):
                return items
        return []

    def _next(self) -> tuple[str, Any, int] | None:
        """Which stage in which version, and which seed of it."""
        if self.again:
            return self.again.pop(0)
        seconds, before = self.deadline - time.monotonic(), self._before()
        if new := {name: stage for name, stage in self.stages.items() if name not in self.begun}:
            for name, stage in self.planner.decide(new, seconds, before).items():
                # What jobs beside it take, which may be less than was measured, decides the epochs of a network.
                is_cut = getattr(stage, "epochs", None) != getattr(self.stages[name], "epochs", None)
                waits = is_cut and not self.planner.gpus
                if waits and any(len(self._unfinished(*key)) == len(jobs) for key, jobs in self.jobs.items()):
                    return None
                return name, stage, stage.seeds[0]
        for n in range(most_seeds(self.stages)):
            for name, stage in self.begun.items():
                for seed in self.stages[name].seeds[n : n + 1]:
                    one = {name: stage.model_copy(update={"seeds": [seed]})}
                    if (name, seed) not in self.jobs and self.planner.seconds(one, before) <= seconds:
                        return name, stage, seed
        return None

    def _before(self) -> list[tuple[Any, float]]:
        """Stage and remaining seconds of the jobs that have begun and are not finished."""
        found, now = [], time.monotonic()
        since = {task.arguments[0].folder: at for task, at in self.queue.running.items()}  # of a job, or a cache
        for job in (job for jobs in self.jobs.values() for job in jobs if not job.finished):
            stage, took = self.begun[job.stage], now - since.get(job.folder, now)
            found.append((stage, max(0.0, self.planner.of_job(job.stage, stage) - took)))
        return found

    def _begin(self, name: str, stage: Any, seed: int) -> list[Task]:
        """Its items; none where all of its jobs are finished already."""
        earlier = self.begun[name].seeds if name in self.begun else []
        self.begun[name] = stage.model_copy(update={"seeds": [*earlier, seed]})
        if isinstance(stage, NeuralStage) and not earlier:
            print(f"stage {name}  begins, with {stage.epochs} of {self.stages[name].epochs} epochs", flush=True)
        if not self.again:
            self.begins(self.begun)
        self.planner.filled.update(self.planner.costs[name].caches)
        todo = self.plan_of({name: self.begun[name].model_copy(update={"seeds": [seed]})})
        self.jobs[name, seed] = todo.jobs
        unfinished = self._unfinished(name, seed)
        if not unfinished and not self.again:
            self.ends(self.finished)
        return job_tasks(todo, unfinished, self.rows, self.executor, partial(self._ended, name, seed), self.planned)

    def _ended(self, name: str, seed: int, job: Job, result: JobResult) -> None:
        """Tell what a job gave, and what jobs take; where it was the last of its seed, that is finished."""
        self.reporter.on_end(job, result)
        if result.status != "ok":
            return
        stage, seconds = self.begun[job.stage], read_json(job.folder / REPORT, "seconds")["seconds"]
        threads = threads_of(stage, len(self.jobs[name, seed]), self.executor)
        self.planner.learn(job.stage, stage, seconds * threads)  # each is planned as that of one core
        if not self._unfinished(name, seed):
            self.ends(self.finished)
