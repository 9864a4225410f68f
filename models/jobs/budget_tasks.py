"""The tasks of stages in the queue of a budget, and the seconds until they end."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from competition.dataset import Dataset
from models.jobs.budget_stages import StageConfigs, StageState, with_epochs
from models.jobs.job_files import verify_job
from models.jobs.pace import Paces
from models.jobs.plan import Job, JobPlan
from models.jobs.scheduler import Executor, JobResult, Queue, Resources, Task
from models.jobs.train import job_tasks, networks_of, threads_of

SAFETY_FACTOR = 1.1
"""Expected seconds of a job that has not started, as a multiple of the pace of its stage."""
PlanOfStages = Callable[[StageConfigs], JobPlan]


class StageTasks:
    """Stages with their tasks.

    Args:
        plan: the jobs of all stages with all epochs and all seeds that they may get.
        plan_of: returns the plan of some stages; called for a network with fewer epochs.
    """

    def __init__(self, plan: JobPlan, plan_of: PlanOfStages, executor: Executor, queue: Queue) -> None:
        self.plan = plan
        self.plan_of = plan_of
        self.executor = executor
        self.queue = queue
        self.paces = Paces(queue, executor, networks_of(plan.stages))
        self.tables: list[Dataset] = []
        self.plans: dict[tuple[str, float], JobPlan] = {}  # stage, share of its epochs
        self.planned_cache_keys: set[tuple[str, str]] = set()
        self.order: dict[str, tuple[bool, int, int]] = {}  # task -> failed before, number of seed, of stage
        self.to_stop: dict[Task, JobResult] = {}
        self.states: dict[str, StageState] = {}
        for name in plan.stages:
            self.paces.most_rows[name] = plan.largest_fold(name).n_rows
            self.states[name] = StageState(name, self._plan_of_stage(name, 1.0), [1.0])

    def _on_end(self, job: Job, result: JobResult) -> None:
        """Take the result of a job."""
        raise NotImplementedError

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

    def _stop(self, state: StageState) -> None:
        """Take the jobs of a stage out of the queue, and end those that run."""
        for task in self._tasks_of(state):
            if task in self.queue.running:
                self.to_stop[task] = JobResult(task.name, "skipped", "time", state.reason)
            else:
                self.queue.waiting.remove(task)

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
        return Resources(threads, state.settings.gpu)

    def _plan_of_stage(self, name: str, share: float) -> JobPlan:
        """Return the plan of one stage with a share of its epochs."""
        if share == 1:
            keys, stages = {name: self.plan.keys[name]}, {name: self.plan.stages[name]}
            return replace(self.plan, jobs=self.plan.jobs_of_stage(name), keys=keys, stages=stages)
        if (name, share) not in self.plans:
            self.plans[name, share] = self.plan_of({name: with_epochs(self.plan.stages[name], share)})
        return self.plans[name, share]
