"""What `./run.sh full` trains until when. Without a budget every stage is accepted at once and nothing is probed.

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

from competition.dataset import REFIT_FOLD
from core.files import digest
from core.text import format_duration
from models.jobs.budget_stages import Clock, Decisions, StageState, epoch_shares
from models.jobs.budget_tasks import PlanOfStages, StageTasks
from models.jobs.compute import read_tables
from models.jobs.pace import describe_pace
from models.jobs.plan import Job, JobPlan
from models.jobs.scheduler import Executor, JobResult, Queue, Task, run
from models.jobs.train import FailurePolicy, JobReporter, train

SHARES_OF_TIME_LEFT = {1.0: 0.6, 0.7: 0.8}
"""Share of a stage's epochs -> share of the time left that it may take while others wait; 1 for other shares."""
SHARE_OF_FIRST = 0.5
"""Maximum share of the time left that a stage may take while others wait and none is finished."""
BEFORE_OTHERS = ", before any stage was finished"
MAX_CACHE_SHARE = 0.6
"""Share of the time left that the inputs of a stage may take."""
MIN_SHARE_LEFT = 0.05
"""Share of the budget below which no further stage starts."""
START_SECONDS = 20.0
"""Seconds that a worker takes to import the libraries of its first job. They are not counted for later jobs."""


class Budget(StageTasks):
    """Decides what is trained until a deadline.

    Args:
        plan: the jobs of all stages with all epochs and all seeds that they may get.
        plan_of: returns the plan of some stages; called for a network with fewer epochs.
        clock: time of the whole command.
    """

    def __init__(self, plan: JobPlan, plan_of: PlanOfStages, executor: Executor, clock: Clock) -> None:
        queue = Queue(more=self._more, watch=self._watch)
        super().__init__(plan, plan_of, executor, queue)
        self.clock = clock
        self.submission_seconds = 0.0
        self.policy = FailurePolicy()
        self.on_seed: Callable[[], Task | None] = lambda: None
        self.reporter = JobReporter(plan, executor)
        self.failed_stages: set[str] = set()
        self.decisions = Decisions(plan.paths.budget(clock.seconds), digest([plan.keys, plan.test_key]))
        if not clock.has_limit:
            for state in self.states.values():
                state.status = "accepted"
                state.seeds = list(state.settings.seeds)
            return
        rows, test = read_tables(plan)
        self.tables = [rows, test]
        n_rows = int(rows.is_labelled.sum()) * (1 - 1 / plan.n_folds)  # not those of auxiliary targets only
        self.decisions.read(self.states)
        for state in self.states.values():
            state.shares = epoch_shares(state.settings, n_rows)
            state.plan = self._plan_of_stage(state.name, state.share)

    @property
    def training_deadline(self) -> float:
        """time.monotonic() at which training ends, so that the last submission ends before `end`."""
        return self.clock.end - self.clock.reserve(self.submission_seconds)

    @property
    def current_plan(self) -> JobPlan:
        """The jobs of the stages and seeds that have started and are not given up."""
        if not self.clock.has_limit:
            return self.plan
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
            budgets[state.name] = self.clock.larger(max(1.0, missing))
        return budgets

    def train(self, policy: FailurePolicy, on_seed: Callable[[], Task | None]) -> dict[str, JobResult]:
        """Train what fits; return title -> result of the jobs of `current_plan` that were not finished before.

        Args:
            on_seed: called when all jobs of a seed of a stage are finished; its task is the next to start.
        """
        self.policy = policy
        self.on_seed = on_seed
        if not self.clock.has_limit:
            return train(self.plan, self.executor, policy, on_seed, self.queue)
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
        if self.decisions.has_ended or not self.clock.has_limit:
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
            if job.seed in state.seeds and not state.unfinished(job.seed) and (task := self.on_seed()):
                self.queue.waiting.insert(0, task)

    # Steps of `_more`: each returns the tasks that it starts.

    def _probe_next_stage(self) -> list[Task]:
        for state in self.states.values():
            needed = MIN_SHARE_LEFT * self.clock.seconds if self.has_finished_stage else 0.0
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
        """Start a stage that was given up, if it fits by now, the fastest first."""
        for state, pace in self._given_up_by_time():
            share = self._fitting_share(state, pace)
            if share is not None:
                return self._accept(state, pace, share)
        return []

    def _given_up_by_time(self) -> list[tuple[StageState, float]]:
        """Return the stages that were given up with a measured pace, and that pace, the fastest first."""
        given_up = [state for state in self.states.values() if state.status == "given up"]
        measured = [(state, state.pace) for state in given_up if state.pace is not None]

        def seconds(item: tuple[StageState, float]) -> float:
            state, pace = item
            return self._seconds_until_end_with(state, pace, state.shares[-1])

        return sorted(measured, key=seconds)

    def _train_cheapest(self) -> list[Task]:
        """Start the stage with the smallest measured time if all were given up: its finished folds are submitted."""
        if any(state.status != "given up" for state in self.states.values() if not self._has_failed(state)):
            return []
        fastest = self._given_up_by_time()
        if not fastest:
            return []
        cheapest, pace = fastest[0]
        print(f"stage {cheapest.name}  no stage fits, and this one takes the least time", flush=True)
        return self._accept(cheapest, pace, cheapest.shares[-1])

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
        if caches > MAX_CACHE_SHARE * max(1.0, left):
            inputs = f"its inputs take about {format_duration(caches)}, before its {n_jobs} jobs"
            self._give_up(state, f"{inputs}, with {self._time_left()}")
        elif (
            rounds and elapsed > START_SECONDS + left / rounds
        ):  # even if it ended now, later rounds would not fit
            first = f"its first job of {n_jobs} was not finished after {format_duration(elapsed)}"
            self._give_up(state, f"{first}, with {self._time_left()}")

    def _has_alternative(self, state: StageState) -> bool:
        """Return whether another stage may be finished in time if this one is given up."""
        others = [
            other for other in self.states.values() if other is not state and not self._has_failed(other)
        ]
        if any(other.status != "given up" for other in others):
            return True
        measured = [(other, other.pace) for other in others if other.pace is not None]
        return any(self._fitting_share(other, pace, is_last=True) is not None for other, pace in measured)

    def _has_failed(self, state: StageState) -> bool:
        return state.name in self.failed_stages

    def _decide(self, state: StageState, pace: float) -> list[Task]:
        """Continue a stage with a measured pace (0 if another command has trained its jobs), or give it up."""
        share = self._fitting_share(state, pace)
        if share is not None:
            return self._accept(state, pace, share)
        smallest = pace * state.shares[-1] / state.share
        n_jobs = len(self._unfinished(state, state.shares[-1]))
        if self._fitting_share(state, pace, is_last=True) is not None:
            reason = f"its {n_jobs} jobs of about {format_duration(smallest)} take more than half of the {{}}"
            self._give_up(state, reason.format(self._time_left()) + BEFORE_OTHERS, pace)
            return []
        missing = self._seconds_until_end_with(state, pace, state.shares[-1]) - self._seconds_left()
        others = " and the other stages" if self._tasks(without=state.name) else ""
        jobs = f"its {n_jobs} jobs of about {format_duration(smallest)}{others}"
        more = format_duration(float(f"{max(1.0, missing):.2g}"))
        self._give_up(state, f"{jobs} need about {more} more than the {self._time_left()}", pace)
        return []

    def _fitting_share(self, state: StageState, pace: float, is_last: bool = False) -> float | None:
        """Return the largest share of its epochs that a stage has time for; None if it has time for none.

        Args:
            is_last: whether it may take all of the time, whatever other stages wait.
        """
        left = self._seconds_left()
        seconds_of_others = self.paces.seconds_until_end(self._tasks(without=state.name))
        is_last = is_last or self._is_last(state)
        for share in state.shares:
            if share > state.share:
                continue
            allowed = left
            if not is_last:
                part = SHARES_OF_TIME_LEFT.get(share, 1.0) if share != state.shares[-1] else 1.0
                if not self.has_finished_stage:
                    part = min(part, SHARE_OF_FIRST)
                allowed = seconds_of_others + part * (left - seconds_of_others)
            if self._seconds_until_end_with(state, pace, share) <= allowed:
                return share
        return None

    def _is_last(self, state: StageState) -> bool:
        """Return whether no other stage is undecided, so that this one may take all of the time that is left."""
        others = [other for other in self.states.values() if other is not state]
        return all(other.status not in ("waiting", "probing") for other in others)

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

    def _seconds_left(self) -> float:
        return self.training_deadline - time.monotonic()

    def _time_left(self) -> str:
        return f"{format_duration(max(1.0, self._seconds_left()))} left of the budget"
