"""Training under a time budget: `./run.sh full --budget 2h`.

Stages start in the YAML's order as cores become free. The first fold of a stage is its probe. As soon as its
pace (seconds of a job, see pace.py) is measured, the stage

- continues, if all of its folds fit into 60 % of the time that is left;
- restarts with 70 % or 50 % of its epochs, if it is a network and they fit into 80 % or all of it;
- is given up otherwise.

When every stage is decided, more seeds follow, each if it fits. The decisions are stored in
budget_<seconds>.json, so that the same command continues with the same epochs and seeds after a kill.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from core.files import digest
from core.text import format_duration
from models.jobs.budget_stages import (
    EARLY_SHARE,
    RESERVE_SHARE,
    Decisions,
    StageConfigs,
    StageState,
    epoch_shares,
    reserve,
    with_epochs,
)
from models.jobs.job_files import verify_job
from models.jobs.job_rows import read_tables
from models.jobs.pace import Paces, describe_pace
from models.jobs.plan import REFIT_FOLD, Job, JobPlan
from models.jobs.scheduler import Executor, JobResult, Queue, Resources, Task, run
from models.jobs.train import FailurePolicy, JobReporter, job_tasks, networks_of, threads_of

SHARES_OF_TIME_LEFT = {1.0: 0.6, 0.7: 0.8}
"""Share of a stage's epochs -> share of the time left that it may take while others wait; 1 for other shares."""
MAX_CACHE_SHARE = 0.6
"""Share of the time left that the inputs of a stage may take."""
MIN_SHARE_LEFT = 0.05
"""Share of the budget below which no further stage starts."""
SAFETY_FACTOR = 1.1
"""Expected seconds of a job that has not started, as a multiple of the pace of its stage."""
START_SECONDS = 10.0
"""Seconds that a worker takes to import the libraries of its first job. They are not counted for later jobs."""
PlanOfStages = Callable[[StageConfigs], JobPlan]


class Budget:
    """Decides what is trained until a deadline.

    Args:
        plan: the jobs of all stages with all epochs and all seeds that they may get.
        plan_of: returns the plan of some stages; called for a network with fewer epochs.
        seconds: time of the whole command.
        end: time.monotonic() at which the command has to end.
        file: file of the decisions.
    """

    def __init__(
        self, plan: JobPlan, plan_of: PlanOfStages, executor: Executor, seconds: float, end: float, file: Path
    ) -> None:
        self.plan = plan
        self.plan_of = plan_of
        self.executor = executor
        self.seconds = seconds
        self.end = end
        self.submission_seconds = 0.0
        self.policy = FailurePolicy()
        self.on_seed: Callable[[], Task | None] = lambda: None
        self.queue = Queue(more=self._more, watch=self._watch)
        self.paces = Paces(self.queue, executor, networks_of(plan.stages))
        self.reporter = JobReporter(plan, executor)
        rows, test, _ = read_tables(plan)
        self.tables = [rows, test]
        self.plans: dict[tuple[str, float], JobPlan] = {}  # stage, share of its epochs
        self.planned_cache_keys: set[tuple[str, str]] = set()
        self.order: dict[str, tuple[bool, int, int]] = {}  # task -> failed before, number of seed, of stage
        self.failed_stages: set[str] = set()
        self.to_stop: dict[Task, JobResult] = {}
        for name in plan.stages:
            self.paces.most_rows[name] = plan.largest_fold(name).n_rows
        n_rows = int(rows.is_labelled.sum()) * (1 - 1 / plan.n_folds)  # not those of auxiliary targets only
        self.states = {
            name: StageState(name, self._plan_of_stage(name, 1.0), epoch_shares(stage, n_rows))
            for name, stage in plan.stages.items()
        }
        self.decisions = Decisions(file, digest([plan.keys, plan.test_key]))
        self.decisions.read(self.states)
        for state in self.states.values():
            state.plan = self._plan_of_stage(state.name, state.share)

    @property
    def training_deadline(self) -> float:
        """time.monotonic() at which training ends, so that the last submission ends before `end`."""
        return self.end - reserve(self.seconds, self.submission_seconds)

    @property
    def current_plan(self) -> JobPlan:
        """The jobs of the stages and seeds that have started and are not given up."""
        states = [state for state in self.states.values() if state.seeds]
        return replace(
            self.plan,
            jobs=[job for state in states for seed in state.seeds for job in state.jobs_of(seed)],
            keys={state.name: state.plan.keys[state.name] for state in states},
            stages={state.name: state.settings.model_copy(update={"seeds": state.seeds}) for state in states},
        )

    @property
    def left_out(self) -> list[tuple[str, int | None, str]]:
        """Stage, seed and reason of all that is left out for lack of time; the seed of a whole stage is None."""
        return self.decisions.left_out(self.states)

    @property
    def has_finished_stage(self) -> bool:
        """Whether all jobs of a seed of a stage are finished."""
        return any(not state.unfinished(seed) for state in self.states.values() for seed in state.seeds)

    def larger_budgets(self) -> dict[str, float]:
        """Return stage -> seconds of a budget that trains it, for stages with a pace that were not finished.

        It is called after the training; finished jobs are kept, so the same command with it trains the others only.
        """
        budgets = {}
        for state in self.states.values():
            pace = self.paces.pace(state.name) or state.pace
            if state.seeds or self._has_failed(state) or pace is None:
                continue
            seconds = self._seconds_until_end_with(state, pace, state.shares[-1])
            missing = seconds - max(0.0, self._seconds_left())
            budgets[state.name] = self.seconds + max(1.0, missing) / (1 - RESERVE_SHARE - EARLY_SHARE)
        return budgets

    def train(self, policy: FailurePolicy, on_seed: Callable[[], Task | None]) -> dict[str, JobResult]:
        """Train what fits; return title -> result of the jobs of `current_plan` that were not finished before.

        Args:
            on_seed: called when all jobs of a seed of a stage are finished; its task is the next to start.
        """
        self.policy = policy
        self.on_seed = on_seed
        self.queue.job_timeout = policy.job_timeout
        self.queue.deadline = self.training_deadline
        for line in self.decisions.describe_finished(self.states):
            print(line, flush=True)
        for state in self.states.values():
            if policy.skip_failed and state.has_failed:
                state.seeds = state.seeds or state.settings.seeds[:1]
                state.status = "accepted"  # decided; `failed_stages` stops further seeds
                self.failed_stages.add(state.name)
                continue
            for seed in state.seeds:
                self._enqueue(self._make_tasks(state, seed, state.unfinished(seed)))
        results = run(self.queue, self.executor, "jobs")
        titles = {job.title for job in self.current_plan.jobs}
        if not (policy.fail_fast and self.failed_stages):
            self.decisions.end(self.states, self.failed_stages)
        return {title: result for title, result in results.items() if title in titles}

    # What the queue calls.

    def _more(self) -> list[Task]:
        """Return the next tasks, since a core has nothing to do."""
        if self.decisions.has_ended:
            return []
        return (
            self._probe_next_stage()
            or self._add_fold_to_probe()
            or self._readmit()
            or self._train_cheapest()
            or self._next_seed()
        )

    def _watch(self) -> dict[Task, JobResult]:
        """Decide about stages with a measured pace; return the tasks to end now, each with its result."""
        self.queue.deadline = min(self.queue.deadline, self.training_deadline)  # never later than before
        for state in self.states.values():
            if state.status == "probing":
                self._decide_while_running(state)
        ended = {task: result for task, result in self.to_stop.items() if task in self.queue.running}
        self.to_stop.clear()
        return ended

    def _on_end(self, job: Job, result: JobResult) -> None:
        """Report a job that ended, and decide about its stage if it was the probe."""
        self.reporter.on_end(job, result)
        state = self.states[job.stage]
        if result.status == "failed":
            self.failed_stages.add(job.stage)
            state.status = "accepted"  # decided; `failed_stages` stops further seeds
            if self.policy.fail_fast:
                self.queue.stop("stopped by --fail-fast")
        if result.status == "ok":
            if result.lines:  # it was trained, not only asked for predictions
                self.paces.add(job.stage, result, job.n_rows)
            is_largest = job.fold == self.plan.largest_fold(job.stage).fold
            if state.status == "probing" and is_largest:  # smaller folds do not decide
                self._enqueue(self._decide(state, self.paces.pace(job.stage) or 0.0))
            if self.current_plan.has_finished_seed(job.stage, job.seed) and (task := self.on_seed()):
                self.queue.waiting.insert(0, task)

    # Steps of `_more`: each returns the tasks that it starts.

    def _probe_next_stage(self) -> list[Task]:
        for state in self.states.values():
            needed = MIN_SHARE_LEFT * self.seconds if self.has_finished_stage else 0.0
            has_time = self._seconds_left() > needed
            if state.status == "waiting" and has_time and self.executor.fits(self._resources(state)):
                state.start("probing")
                largest = self.plan.largest_fold(state.name).fold
                probes = [job for job in state.unfinished(state.seeds[0]) if job.fold == largest]
                tasks = self._make_tasks(state, state.seeds[0], probes)
                if not probes:  # the fold is finished already
                    tasks = self._decide(state, self.paces.pace(state.name) or 0.0)
                if tasks:
                    return tasks
        return []

    def _add_fold_to_probe(self) -> list[Task]:
        """Start another fold of a stage that is not a network: its pace is unknown until a job ends."""
        for state in self.states.values():
            is_running = any(task.group == state.name for task in self.queue.running)
            if state.status == "probing" and is_running and state.name not in self.paces.networks:
                jobs = [job for job in self._not_queued(state) if job.fold != REFIT_FOLD]
                if jobs:
                    return self._make_tasks(state, state.seeds[0], jobs[:1])
        return []

    def _readmit(self) -> list[Task]:
        """Start a stage that was given up, if it fits by now."""
        for state in self.states.values():
            if state.status == "given up" and state.pace is not None:
                share = self._fitting_share(state, state.pace)
                if share is not None:
                    return self._accept(state, state.pace, share)
        return []

    def _train_cheapest(self) -> list[Task]:
        """Start the stage with the smallest measured time if all were given up: its finished folds are submitted."""
        if any(state.status != "given up" for state in self.states.values() if not self._has_failed(state)):
            return []
        measured = {
            state.name: self._seconds_until_end_with(state, state.pace, state.shares[-1])
            for state in self.states.values()
            if state.status == "given up" and state.pace is not None
        }
        if not measured:
            return []
        cheapest = self.states[min(measured, key=lambda name: measured[name])]
        print(f"stage {cheapest.name}  no stage fits, and this one takes the least time", flush=True)
        return self._accept(cheapest, cheapest.pace or 0.0, cheapest.shares[-1])

    def _next_seed(self) -> list[Task]:
        """Start one more seed of a stage, if it fits: the second of each, then the third."""
        if any(state.status == "probing" for state in self.states.values()):
            return []
        n_seeds = max(len(state.settings.seeds) for state in self.states.values())
        for number in range(1, n_seeds):
            for state in self.states.values():
                pace = self.paces.pace(state.name)
                is_next = len(state.seeds) == number < len(state.settings.seeds)
                may_start = state.status == "accepted" and state.name not in self.failed_stages
                if not is_next or not may_start or pace is None:
                    continue
                seed = state.settings.seeds[number]
                unfinished = state.unfinished(seed)
                jobs = [(seconds, self._resources(state)) for seconds in self._expected(unfinished, pace)]
                if self.paces.seconds_until_end(self._tasks(), jobs) <= self._seconds_left():
                    state.seeds = [*state.seeds, seed]
                    self.decisions.write(self.states)
                    tasks = self._make_tasks(state, seed, unfinished)
                    if tasks:  # none if another command has finished them
                        return tasks
        return []

    # Decisions about one stage.

    def _decide_while_running(self, state: StageState) -> None:
        """Decide about a stage with a measured pace; give it up if its caches or its probe take too long."""
        left = self._seconds_left()
        pace = self.paces.pace(state.name)
        if pace is not None:
            fits = self._fitting_share(state, pace) == state.share
            # Decide now if it fits, if its pace is final, or if it would not even fit at half the pace.
            if fits or self.paces.is_final(state.name) or self._fitting_share(state, pace / 2) is None:
                self._enqueue(self._decide(state, pace))
            return
        running = [task for task in self.queue.running if task.group == state.name]
        n_jobs = len(state.unfinished(state.seeds[0]))
        rounds = math.ceil((n_jobs - len(running)) / max(1, self.executor.capacity().cpus))
        if any(other.status == "waiting" for other in self.states.values()):
            rounds = max(1, rounds)
        elapsed = max(map(self.paces.elapsed, running), default=0.0)
        caches = self.paces.seconds_until_end(self._cache_tasks_of(state))
        if not self._has_alternative(state):
            return
        if caches > MAX_CACHE_SHARE * left:
            inputs = f"its inputs take about {format_duration(caches)}, before its {n_jobs} jobs"
            self._give_up(state, f"{inputs}, with {self._time_left()}")
        elif (
            rounds and elapsed > START_SECONDS + left / rounds
        ):  # even if it ended now, later rounds would not fit
            first = f"its first job of {n_jobs} was not finished after {format_duration(elapsed)}"
            self._give_up(state, f"{first}, with {self._time_left()}")

    def _has_alternative(self, state: StageState) -> bool:
        """Return whether another stage can be submitted if this one is given up."""
        others = [
            other for other in self.states.values() if other is not state and not self._has_failed(other)
        ]
        return any(other.status != "given up" or other.pace is not None for other in others)

    def _has_failed(self, state: StageState) -> bool:
        return state.name in self.failed_stages

    def _decide(self, state: StageState, pace: float) -> list[Task]:
        """Continue a stage with a measured pace (0 if another command has trained its jobs), or give it up."""
        share = self._fitting_share(state, pace)
        if share is not None:
            return self._accept(state, pace, share)
        smallest = pace * state.shares[-1] / state.share
        n_jobs = len(self._unfinished(state, state.shares[-1]))
        missing = self._seconds_until_end_with(state, pace, state.shares[-1]) - self._seconds_left()
        others = " and the other stages" if self._tasks(without=state.name) else ""
        jobs = f"its {n_jobs} jobs of about {format_duration(smallest)}{others}"
        more = format_duration(float(f"{max(1.0, missing):.2g}"))
        self._give_up(state, f"{jobs} need about {more} more than the {self._time_left()}", pace)
        return []

    def _fitting_share(self, state: StageState, pace: float) -> float | None:
        """Return the largest share of its epochs that a stage has time for; None if it has time for none."""
        left = self._seconds_left()
        seconds_of_others = self.paces.seconds_until_end(self._tasks(without=state.name))
        is_last = self._is_last(state)
        for share in state.shares:
            if share > state.share:
                continue
            allowed = left
            if not is_last and share != state.shares[-1]:
                allowed = seconds_of_others + SHARES_OF_TIME_LEFT.get(share, 1.0) * (left - seconds_of_others)
            if self._seconds_until_end_with(state, pace, share) <= allowed:
                return share
        return None

    def _is_last(self, state: StageState) -> bool:
        """Return whether no other stage is undecided, so that this one may take all of the time that is left."""
        others = [other for other in self.states.values() if other is not state]
        return all(other.status not in ("waiting", "probing") for other in others)

    def _seconds_until_end_with(self, state: StageState, pace: float, share: float) -> float:
        """Return the seconds until other stages and the first seed of this, with a share of its epochs, end."""
        pace_with_share = pace * share / state.share
        unfinished = self._unfinished(state, share)
        if share == state.share:
            running = {task.name: task for task in self.queue.running if task.group == state.name}
            unfinished = [job for job in unfinished if job.title not in running]
            seconds = [self.paces.seconds_left(task, pace) for task in running.values()]
        else:
            seconds = []
        seconds += self._expected(unfinished, pace_with_share)
        resources = self._resources(state)
        others = self._tasks(without=state.name)
        return self.paces.seconds_until_end(others, [(each, resources) for each in seconds])

    def _expected(self, jobs: list[Job], pace: float) -> list[float]:
        """Return the seconds that jobs of a stage will take, with a margin."""
        return [SAFETY_FACTOR * pace * self.paces.share_of_rows(job.stage, job.n_rows) for job in jobs]

    def _unfinished(self, state: StageState, share: float) -> list[Job]:
        """Return the jobs of the first seed that are left with a share of the epochs."""
        seed = state.settings.seeds[0]
        jobs = [job for job in self._plan_of_stage(state.name, share).jobs if job.seed == seed]
        return [job for job in jobs if not job.has_predicted(self.plan.test_key)]

    def _accept(self, state: StageState, pace: float, share: float) -> list[Task]:
        """Queue all jobs of the first seed of a stage, with a share of its epochs."""
        if share != state.share:
            self._stop(state)
            pace *= share / state.share
            self.paces.ended[state.name].clear()
            state.plan = self._plan_of_stage(state.name, share)
            state.share = share
        self.paces.expected[state.name] = pace
        state.start("accepted")
        self.decisions.write(self.states)
        tasks = self._make_tasks(state, state.seeds[0], self._not_queued(state))
        epochs = f"{state.epochs}, " if state.epochs else ""
        if state.unfinished(state.seeds[0]):
            seconds = self.paces.seconds_until_end([*self._tasks(), *tasks])
            which = "its jobs and all earlier ones end"
            print(describe_pace(state.name, pace, seconds, which, epochs), flush=True)
        elif share < 1:
            print(f"stage {state.name}  {epochs}all jobs are finished", flush=True)
        return tasks

    def _give_up(self, state: StageState, reason: str, pace: float | None = None) -> None:
        """Leave out a stage; its checkpoints stay."""
        caches = self._cache_tasks_of(state)
        self._stop(state)
        needed = set().union(*(task.wait_for_groups for task in self.queue.waiting))
        for task in caches:
            if task.group not in needed and task in self.queue.waiting:
                self.queue.waiting.remove(task)
                cache, keys = task.arguments
                self.planned_cache_keys -= {(cache.folder.name, key) for key in keys}
        state.give_up(reason, pace)
        print(f"stage {state.name}  left out: {state.reason}", flush=True)

    def _stop(self, state: StageState) -> None:
        """Take the jobs of a stage out of the queue, and end those that run."""
        for task in self._tasks_of(state):
            if task in self.queue.running:
                self.to_stop[task] = JobResult(task.name, "skipped", "time", state.reason)
            else:
                self.queue.waiting.remove(task)

    # Tasks and their seconds.

    def _make_tasks(self, state: StageState, seed: int, jobs: list[Job]) -> list[Task]:
        """Return the tasks of some jobs; record their order, and the seconds of the stage's finished jobs."""
        if not self.paces.ended[state.name]:
            for job in state.plan.jobs:
                if job.finished:
                    result = JobResult(job.title, seconds=verify_job(job)["seconds"])
                    self.paces.add(job.stage, result, job.n_rows)
        tasks = job_tasks(state.plan, jobs, self.tables, self.executor, self._on_end, self.planned_cache_keys)
        number = state.settings.seeds.index(seed)
        position = list(self.states).index(state.name)
        for task in tasks:
            self.order[task.name] = (state.has_failed, number, position)
        # The pace of the parts of a cache is measured like that of jobs.
        return [replace(task, on_end=task.on_end or partial(self.paces.add, task.group)) for task in tasks]

    def _enqueue(self, tasks: list[Task]) -> None:
        """Queue tasks: caches, first seeds in the order of the YAML, further seeds, jobs that failed before."""
        self.queue.waiting += tasks
        self.queue.waiting.sort(key=lambda task: self.order.get(task.name, (False, -1, -1)))

    def _tasks_of(self, state: StageState) -> list[Task]:
        return [task for task in self._tasks() if task.group == state.name]

    def _cache_tasks_of(self, state: StageState) -> list[Task]:
        """Return the parts of caches that the jobs of a stage wait for."""
        waiting = [task for task in self.queue.waiting if task.group == state.name]
        groups = set().union(*(task.wait_for_groups for task in waiting))
        return [task for task in self._tasks() if task.group in groups]

    def _not_queued(self, state: StageState) -> list[Job]:
        """Return the jobs of the first seed of a stage that are neither finished nor in the queue."""
        queued = {task.name for task in self._tasks_of(state)}
        return [job for job in state.unfinished(state.settings.seeds[0]) if job.title not in queued]

    def _tasks(self, without: str = "") -> list[Task]:
        """Return running and waiting tasks, except those of one stage and those to end now."""
        tasks = [*self.queue.running, *self.queue.waiting]
        return [task for task in tasks if task.group != without and task not in self.to_stop]

    def _resources(self, state: StageState) -> Resources:
        threads = threads_of(state.settings, self.plan.n_folds, self.executor)
        return Resources(threads, state.settings.gpu_share)

    def _seconds_left(self) -> float:
        return self.training_deadline - time.monotonic()

    def _time_left(self) -> str:
        return f"{format_duration(max(1.0, self._seconds_left()))} left of the budget"

    def _plan_of_stage(self, name: str, share: float) -> JobPlan:
        """Return the plan of one stage with a share of its epochs."""
        if share == 1:
            keys, stages = {name: self.plan.keys[name]}, {name: self.plan.stages[name]}
            return replace(self.plan, jobs=self.plan.jobs_of_stage(name), keys=keys, stages=stages)
        if (name, share) not in self.plans:
            self.plans[name, share] = self.plan_of({name: with_epochs(self.plan.stages[name], share)})
        return self.plans[name, share]
