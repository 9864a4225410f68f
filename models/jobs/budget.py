"""What is trained until when. Without a budget every stage is accepted at once, and nothing is probed.

The baseline (`models/stages/baseline.py`) is trained first, and nothing else starts meanwhile. Then stages
start in the YAML's order as cores become free. The first fold of a stage is its probe. As soon as its pace
(seconds of a job, see pace.py) is measured, the stage

- continues, if all of its folds fit into the time that is left, or a network's into 60 % of it;
- restarts with fewer epochs, if it is a network and these are not too few;
- is given up otherwise, or if its inputs take most of the time, and tried again when it fits.

When every stage is decided, more seeds follow, each if it fits, and then the stage that lacks the least time.
The decisions are stored in budget_<seconds>.json, so that the same command continues with the same epochs and
seeds after a kill.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property, partial

from competition.dataset import REFIT_FOLD, Dataset
from core.files import digest
from core.text import format_duration
from models.jobs.budget_stages import (
    BASELINE_SECONDS,
    BASELINE_SHARE,
    HAS_ENDED,
    MAX_EXCESS,
    MAX_INPUT_SHARE,
    MIN_FORECAST,
    SHARE_OF_LAST,
    SHARE_OF_NETWORK,
    SHARE_OF_SHORTENED,
    Clock,
    Decisions,
    StageState,
    min_epochs,
    plan_of,
    states_of,
)
from models.jobs.job import Job
from models.jobs.job_files import read_failure
from models.jobs.pace import Paces, TimedResources, makespan
from models.jobs.plan import JobPlan
from models.jobs.scheduler import Executor, JobResult, Queue, Task, run
from models.jobs.tasks import groups_needed_by, is_cache, job_tasks, lines_about, warn_about_part


class Budget:
    """Decides what is trained until the time of a command is over, and trains it.

    Args:
        plan: the jobs of all stages with all epochs and all seeds that they may get.
        clock: time of the whole command; infinite without a budget.

    Attributes:
        states: stage -> its state, for the stages with jobs in the plan.
        first: those that are trained before all others under a budget.
        submission_seconds: seconds of the last interim submission; 0 before the first one.
    """

    def __init__(self, plan: JobPlan, executor: Executor, clock: Clock) -> None:
        self.plan = plan
        self.executor = executor
        self.clock = clock
        self.queue = Queue()
        self.queue.more = self._more
        self.queue.watch = self._watch
        self.submission_seconds = 0.0
        seeds = {name: stage.seeds for name, stage in plan.stages.items()}
        jobs_digest = digest([plan.keys, seeds])
        self.decisions = Decisions(plan.paths.budget(clock.seconds), jobs_digest)
        self.states = states_of(plan)
        networks = {name for name, state in self.states.items() if state.settings.reports_progress}
        max_rows = {name: state.largest_fold.n_rows for name, state in self.states.items()}
        self.paces = Paces(self.queue.running, networks, max_rows)
        self.first = [state for state in self.states.values() if state.settings.comes_first]
        if clock.has_limit:
            rows = self.tables[0]  # rows with auxiliary targets only do not count
            n_rows = int(rows.is_labelled.sum()) * (1 - 1 / plan.n_folds)
            for state in self.states.values():
                state.min_epochs = min_epochs(state.settings, n_rows)
            self.decisions.read(self.states)
        if not self.decisions.has_ended:
            for state in self.first if clock.has_limit else self.states.values():
                state.start("accepted", len(state.settings.seeds))

    @cached_property
    def tables(self) -> list[Dataset]:
        """The training table and the test table."""
        return list(self.plan.tables.read())

    @property
    def training_deadline(self) -> float:
        """time.monotonic() at which training ends, so that the last submission ends before `end`."""
        is_first = any(map(self._tasks_of, self.first))
        is_last = self.queue.running and not self.queue.waiting
        end = time.monotonic() + self._seconds_until_end(self.queue.running) if is_last else 0.0
        return self.clock.training_deadline(self.submission_seconds, is_first, end)

    @property
    def current_plan(self) -> JobPlan:
        """The jobs of the stages and seeds that have started and are not given up."""
        if not self.clock.has_limit:
            return self.plan
        return plan_of(self.plan, [state for state in self.states.values() if state.seeds])

    @property
    def tried_plans(self) -> list[JobPlan]:
        """The jobs of each stage with each number of epochs that was considered."""
        return [plan for state in self.states.values() for plan in state.plans.values()]

    def larger_budgets(self) -> dict[str, float]:
        """Return stage -> seconds of a budget that also trains it, for unfinished stages with a pace."""
        budgets = {}
        for state in self.states.values():
            if not state.seeds and state.status in ("accepted", "given up"):
                budgets[state.name] = self.clock.larger(self._missing_seconds(state))
        return budgets

    def train(
        self, on_seed: Callable[[], Task | None], job_timeout: float = math.inf
    ) -> dict[str, JobResult]:
        """Train what fits; return title -> result for the jobs of `current_plan`.

        Jobs that were finished before have no result.

        Args:
            on_seed: called when all jobs of a seed of a stage are finished; its task is the next to start.
            job_timeout: seconds after which a running job fails.

        Raises:
            DiskFull: if a worker cannot write.
        """
        self.on_seed = on_seed
        self.queue.job_timeout = job_timeout
        self.alone_until = time.monotonic() + max(BASELINE_SECONDS, BASELINE_SHARE * self.clock.seconds)
        for state in self.states.values():
            self._verify_finished(state)
            self._enqueue(state, [job for seed in state.seeds for job in state.unfinished(seed)])
        if self.decisions.has_ended:
            print(HAS_ENDED, flush=True)
        self.queue.deadline = self.training_deadline
        results = run(self.queue, self.executor)
        if self.clock.has_limit:
            self.decisions.end(self.states)
        titles = {job.title for job in self.current_plan.jobs}
        return {title: result for title, result in results.items() if title in titles}

    def _verify_finished(self, state: StageState) -> None:
        """Check the files of the finished jobs of a stage, and add their seconds to its pace.

        A stage with a finished seed is accepted.
        """
        if not self.decisions.has_ended:
            state.accept_if_finished()
        for job, seconds in state.verify_finished():
            self.paces.add(job.stage, JobResult(job.title, seconds=seconds), job.n_rows)

    def _more(self) -> bool:
        """Queue the next tasks, since a core has nothing to do; return whether there are some."""
        is_alone = any(map(self._tasks_of, self.first)) and time.monotonic() < self.alone_until
        steps = (
            self._probe_next_stage, self._add_fold_to_probe, self._readmit, self._next_seed,
            self._use_time_left,
        )  # fmt: skip
        return not self.decisions.has_ended and not is_alone and any(step() for step in steps)

    def _watch(self) -> None:
        """Decide about stages with a measured pace, and print when the accepted ones end."""
        self.queue.deadline = self.training_deadline
        for state in self._with_status("probing"):
            self._decide_while_running(state)
        self._forecast()

    def _on_end(self, job: Job, result: JobResult) -> None:
        """Report a job that ended, and decide about its stage if it was the probe."""
        state = self.states[job.stage]
        lines = lines_about(job, result, state.settings, self.executor.cards)
        for line in lines[:1] if state.is_noted else lines:  # notes are printed for the first job only
            print(line, flush=True)
        if result.status == "failed":
            state.status = "failed"
        if result.status != "ok":
            return
        if result.lines:  # it was trained, not only asked for predictions
            state.is_noted = True
            self.paces.add(job.stage, result, job.n_rows)
        if state.status == "probing" and job.fold == state.largest_fold.fold:  # smaller folds do not decide
            self._decide(state)
        is_last = not self.clock.has_limit and not self.queue.waiting
        if job.seed in state.seeds and not state.unfinished(job.seed) and not is_last:
            task = self.on_seed()
            self.queue.waiting[:0] = [task] if task else []

    def _on_part_end(self, group: str, result: JobResult) -> None:
        """Report a part of a cache that failed, and measure the pace of the others as for jobs."""
        warn_about_part(result)
        self.paces.add(group, result)

    def _forecast(self) -> None:
        """Print a line for each accepted stage with a measured pace, in their order."""
        accepted = self._with_status("accepted")
        later = [state.name for state in accepted]
        for state in accepted:
            later.remove(state.name)
            if state.is_forecast or not self._tasks_of(state):
                continue
            pace = self.paces.pace(state.name)
            if pace is None:
                return
            seconds = self._seconds_until_end([task for task in self._tasks() if task.group not in later])
            if seconds >= MIN_FORECAST:
                at = time.strftime("%H:%M", time.localtime(time.time() + seconds))
                print(f"stage {state.name}  {state.describe_end(pace, seconds)}, at {at}", flush=True)
            state.is_forecast = True

    # Steps of `_more`: each returns whether it queued tasks.

    def _probe_next_stage(self) -> bool:
        for state in self._with_status("waiting"):
            has_room = self.executor.fits(state.resources(self.executor))
            if has_room and self._probe(state):
                return True
        return False

    def _probe(self, state: StageState) -> bool:
        """Queue the largest fold of a stage, or decide if it is finished; return whether there are tasks."""
        state.start("probing")
        probes = [job for job in state.unfinished() if job.fold == state.largest_fold.fold]
        return self._enqueue(state, probes) or self._decide(state)

    def _add_fold_to_probe(self) -> bool:
        """Start another fold of a stage that is not a network: its pace is unknown until a job ends."""
        for state in self._with_status("probing"):
            jobs = [job for job in self._not_queued(state) if job.fold != REFIT_FOLD]
            if jobs and not state.settings.reports_progress:
                return self._enqueue(state, jobs[:1])
        return False

    def _readmit(self) -> bool:
        """Start a stage that was given up and fits now, or probe it again if its inputs fit now."""
        for state in self._with_status("given up"):
            epochs = self._fitting_epochs(state)
            if epochs is not None:
                return self._accept(state, epochs)
        for state in self._with_status("not measured"):
            seconds = self._seconds_until_end([*self._tasks(), *state.missing_inputs])
            if state.inputs and seconds <= MAX_INPUT_SHARE * self._seconds_left():
                return self._probe(state)
        return False

    def _next_seed(self) -> bool:
        """Start one more seed of a stage, if it fits: the second of each, then the third."""
        if self._with_status("probing"):
            return False
        for state in sorted(self._with_status("accepted"), key=lambda state: len(state.seeds)):
            pace = self.paces.pace(state.name)
            if pace is None or not (state.has_more_seeds and state.has_room()):
                continue
            seed = state.settings.seeds[len(state.seeds)]
            unfinished = state.unfinished(seed)
            seconds = self.paces.seconds_of_jobs(unfinished, pace)
            jobs = [(each, state.resources(self.executor)) for each in seconds]
            if self._seconds_until_end(self._tasks(), jobs) <= self._seconds_left():
                state.seeds = [*state.seeds, seed]
                self.decisions.write(self.states)
                # None are queued if another command has finished them.
                return self._enqueue(state, unfinished) or self._next_seed()
        return False

    def _use_time_left(self) -> bool:
        """Train the stage that needs the least additional time if nothing else fits."""
        given_up = self._with_status("given up")
        if self._tasks() or not given_up:
            return False
        state = min(given_up, key=self._missing_seconds)
        epochs = self._fitting_epochs(state, smallest=1)
        if epochs is None:  # it may be faster than expected, and the next command uses its finished jobs
            is_near = self._missing_seconds(state) <= MAX_EXCESS * self._seconds_left()
            epochs = state.smallest_epochs if is_near else state.epochs
            print(f"stage {state.name}  trained although it may not fit, since nothing else does", flush=True)
        return self._accept(state, epochs)

    # Decisions about one stage.

    def _decide_while_running(self, state: StageState) -> None:
        """Decide about a stage with a measured pace; give it up if its inputs or its probe take too long."""
        left = max(1.0, self._seconds_left())
        if self.paces.pace(state.name) is not None:
            # Decide now if it fits, if its pace is final, or if it would not even fit into twice the time.
            fits = self._fitting_epochs(state) == state.epochs
            if fits or self.paces.is_final(state.name) or self._fitting_epochs(state, 2.0) is None:
                self._decide(state)
            return
        others = self._with_status("waiting", "probing", "accepted", "given up", without=state)
        others = [each for each in others if each not in self.first]
        if not any(
            each.status != "accepted" or each.has_more_seeds or self._tasks_of(each) for each in others
        ):
            return  # no other stage can use the time
        running = [task for task in self.queue.running if task.group == state.name]
        n_jobs = len(state.unfinished(state.seeds[0]))
        rounds = math.ceil((n_jobs - len(running)) / max(1, self.executor.capacity().cpus))
        if self._with_status("waiting"):
            rounds = max(1, rounds)
        elapsed = max(map(self.paces.elapsed, running), default=0.0)
        groups = groups_needed_by(self._tasks_of(state))
        inputs = self._seconds_until_end([task for task in self._tasks() if task.group in groups])
        if inputs > MAX_INPUT_SHARE * left:
            self._give_up(state, f"its inputs take about {format_duration(inputs)}, before its {n_jobs} jobs")
        elif rounds and elapsed > left / rounds:
            # Even if it ended now, later rounds would not fit.
            took = format_duration(elapsed)
            self._give_up(state, f"its first job took more than {took}, too long for {n_jobs} such jobs")

    def _decide(self, state: StageState) -> bool:
        """Continue a stage with a pace or with finished jobs, or give it up; return whether it has tasks."""
        epochs = self._fitting_epochs(state)
        if epochs is not None:
            return self._accept(state, epochs)
        pace = format_duration(self.paces.scaled(state.name, state.smallest_epochs / state.epochs))
        late = format_duration(self._missing_seconds(state))
        jobs = f"{len(state.unfinished(epochs=state.smallest_epochs))} jobs of about {pace}"
        self.paces.expected[state.name] = self.paces.scaled(state.name)
        self._give_up(state, f"its {jobs} would end about {late} too late")
        return False

    def _fitting_epochs(
        self, state: StageState, factor: float = 1.0, smallest: int | None = None
    ) -> int | None:
        """Return the largest number of epochs that fit into `factor` times the time of a stage, or None.

        A part of the time is reserved, such as for stages that are not decided yet, unless the network has the
        `smallest` number of epochs: its fewest ones while other stages use the time, else one.
        """
        left = self._seconds_left()
        seconds_of_others = self._seconds_until_end(self._tasks(without=state.name))
        others_wait = self._with_status("waiting", "probing", without=state)
        others = [other for other in self._with_status("accepted", without=state) if other not in self.first]
        smallest = smallest or (state.min_epochs if others_wait or others else 1)
        for epochs in range(state.epochs, min(smallest, state.epochs) - 1, -1):
            share = 1.0
            if epochs > smallest and others_wait:
                share = SHARE_OF_NETWORK if epochs == state.all_epochs else SHARE_OF_SHORTENED
            elif smallest < epochs < state.epochs:
                share = SHARE_OF_LAST
            allowed = seconds_of_others + factor * share * (left - seconds_of_others)
            if self._seconds_until_end_with(state, epochs) <= allowed:
                return epochs
        return None

    def _accept(self, state: StageState, epochs: int) -> bool:
        """Queue all jobs of the first seed of a stage with so many epochs; return whether there are some."""
        self.paces.expected[state.name] = self.paces.scaled(state.name, epochs / state.epochs)
        if epochs != state.epochs:
            self._stop(state)
            self.paces.ended[state.name].clear()
            state.epochs = epochs
            self._verify_finished(state)
        state.start("accepted")
        self.decisions.write(self.states)
        return self._enqueue(state, self._not_queued(state))

    def _give_up(self, state: StageState, reason: str) -> None:
        """Leave out a stage, and what only its jobs wait for; its checkpoints stay."""
        inputs = groups_needed_by(self._tasks_of(state))
        self._stop(state)
        unneeded = inputs - groups_needed_by(self.queue.waiting)
        state.inputs = [task for task in self.queue.waiting if task.group in inputs]
        self.queue.waiting = [task for task in self.queue.waiting if task.group not in unneeded]
        left = format_duration(max(1.0, self._seconds_left()))
        state.status = "not measured" if self.paces.pace(state.name) is None else "given up"
        state.seeds = []
        state.reason = f"{reason}, with {left} left of the budget"
        print(f"stage {state.name}  left out: {state.reason}", flush=True)

    # Tasks of stages, and the seconds until they end.

    def _with_status(self, *statuses: str, without: StageState | None = None) -> list[StageState]:
        return [state for state in self.states.values() if state.status in statuses and state is not without]

    def _enqueue(self, state: StageState, jobs: list[Job]) -> bool:
        """Queue jobs of a stage; return whether there are some.

        The order is: caches, first seeds in the order of the YAML, further seeds, and last the stages that
        failed before. Without a budget the seeds of a stage follow each other.
        """
        if not jobs:
            return False
        tasks = job_tasks(state.plan, jobs, self.tables, self.executor, self._on_end, self._tasks())
        has_failed = any(read_failure(job.folder) for job in state.plan.jobs)
        position = list(self.states).index(state.name)
        for task in tasks:
            if is_cache(task):
                self.queue.waiting.append(replace(task, on_end=partial(self._on_part_end, task.group)))
                continue
            job = task.arguments[0]
            number = state.settings.seeds.index(job.seed) if self.clock.has_limit else 0
            priority = (has_failed, number, position)
            self.queue.waiting.append(replace(task, priority=priority))
        self.queue.waiting.sort(key=lambda task: task.priority)
        return True

    def _stop(self, state: StageState) -> None:
        """Take the jobs of a stage out of the queue, and end those that run."""
        for task in self._tasks_of(state):
            if task in self.queue.running:
                self.queue.ending[task] = JobResult(task.name, "skipped", "time", state.reason)
            else:
                self.queue.waiting.remove(task)

    def _tasks(self, without: str = "") -> list[Task]:
        """Return running and waiting tasks that are not to end now, except the tasks of one stage."""
        tasks = [*self.queue.running, *self.queue.waiting]
        return [task for task in tasks if task.group != without and task not in self.queue.ending]

    def _tasks_of(self, state: StageState) -> list[Task]:
        return [task for task in self._tasks() if task.group == state.name]

    def _not_queued(self, state: StageState) -> list[Job]:
        """Return the jobs of the first seed of a stage that are neither finished nor in the queue."""
        queued = {task.name for task in self._tasks_of(state)}
        return [job for job in state.unfinished() if job.title not in queued]

    def _seconds_until_end(self, tasks: Iterable[Task], jobs: TimedResources = ()) -> float:
        """Return the seconds until the last of some tasks of the queue, and of further jobs, ends."""
        return makespan([*self.paces.remaining(tasks), *jobs], self.executor.capacity())

    def _missing_seconds(self, state: StageState) -> float:
        """Return the additional seconds, at least 1, that a stage needs for one seed with fewest epochs."""
        return max(1.0, self._seconds_until_end_with(state, state.smallest_epochs) - self._seconds_left())

    def _seconds_until_end_with(self, state: StageState, epochs: int) -> float:
        """Return the seconds until the other tasks, and the inputs and first seed of a stage, have ended."""
        pace = self.paces.scaled(state.name)
        unfinished = state.unfinished(epochs=epochs)
        seconds = []
        if epochs == state.epochs:
            running = {task.name: task for task in self.queue.running if task.group == state.name}
            unfinished = [job for job in unfinished if job.title not in running]
            seconds = [self.paces.seconds_left(task, pace) for task in running.values()]
        scaled = self.paces.scaled(state.name, epochs / state.epochs)
        seconds += self.paces.seconds_of_jobs(unfinished, scaled)
        jobs = [(each, state.resources(self.executor)) for each in seconds]
        return self._seconds_until_end([*self._tasks(without=state.name), *state.missing_inputs], jobs)

    def _seconds_left(self) -> float:
        return self.training_deadline - time.monotonic()
