"""The time of a command, and the state of each stage: its possible seeds and epochs, and the decisions."""

import math
import shutil
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Literal

from competition.dataset import REFIT_FOLD
from core.errors import DataError
from core.files import read_json, remove_damaged, write_json
from core.text import format_duration
from models.jobs.job import Job
from models.jobs.job_files import report_of
from models.jobs.plan import JobPlan
from models.jobs.scheduler import Executor, Resources, Task
from models.jobs.tasks import is_computed, resources_of
from models.stage import Stage

SHARE_OF_NETWORK = 0.6
"""Share of the time left that a network with all of its epochs may take while other stages wait."""
SHARE_OF_SHORTENED = 0.8
"""Share of the time left that a network with fewer epochs may take while other stages wait."""
SHARE_OF_LAST = 0.9
"""Share of the time left that a network with fewer epochs, but more than the fewest, may take if no other stage
waits."""
MAX_INPUT_SHARE = 0.8
"""Share of the time left that the inputs of a stage may take."""
MAX_EXCESS = 0.25
"""Share of the time left by which a network with its fewest epochs may exceed it and still be trained."""
MIN_EPOCH_SHARE = 0.5
"""Smallest share of a network's epochs, unless it still sees MIN_ROWS_SEEN rows."""
MIN_ROWS_SEEN = 40_000
"""Number of training rows times epochs that suffices."""
MAX_SEEDS = 5
"""Number of seeds of a stage, if the YAML does not have more."""
SPACE_OF_SEED = 3
"""Multiple of the size of a seed's finished jobs that must be free for another one, which also writes checkpoints."""
MIN_SPACE = 1e9
"""Bytes that must stay free on the disk, such as for the submission."""
EARLY_SHARE = 0.01
"""Share of the budget by which the command ends early, in case the machine becomes slow."""
MIN_EARLY = 2.0
"""Minimum of these seconds."""
MAX_EARLY = 5.0
"""Maximum of these seconds."""
RESERVE_SECONDS = 10.0
"""Seconds that are reserved for the last submission and the report, plus RESERVE_SHARE."""
RESERVE_SHARE = 0.04
"""Share of the budget that is reserved for them."""
RESERVE_SUBMISSIONS = 3.0
"""Multiple of the seconds of the last interim submission that is reserved at least."""
BASELINE_SECONDS = 10.0
"""Minimum seconds in which only the baseline is trained."""
BASELINE_SHARE = 0.1
"""Share of the budget in which only the baseline is trained, if it is more than BASELINE_SECONDS."""
MIN_RESERVE = 5.0
"""Seconds that are reserved for the last submission while the baseline, which it needs, is not finished."""
SECONDS_TO_END = 2.0
"""Seconds after its forecast at which a job that is nearly finished is ended."""
HAS_ENDED = (
    "An earlier run with this budget has ended: only failed jobs are retrained. A larger budget trains more."
)
MIN_FORECAST = 30.0
"""The end of a stage is printed only if it is at least this many seconds away."""
NOT_STARTED = "time ran out before it started"


def with_more_seeds(stages: dict[str, Stage]) -> dict[str, Stage]:
    """Return the stages with at least MAX_SEEDS seeds, which are trained if there is time.

    A stage that comes first, or does not depend on its seed, keeps the seeds of the YAML.
    """
    result = {}
    for name, stage in stages.items():
        seeds = list(stage.seeds)
        if stage.depends_on_seed and not stage.comes_first:
            seeds += [seed for seed in range(MAX_SEEDS) if seed not in seeds]
        result[name] = stage.model_copy(update={"seeds": seeds[: max(MAX_SEEDS, len(stage.seeds))]})
    return result


def min_epochs(stage: Stage, n_rows: float) -> int:
    """Return the smallest number of epochs of a stage while others wait; 1 for a stage without epochs.

    Args:
        n_rows: number of training rows of a fold.
    """
    if not stage.reports_progress:
        return 1
    return math.ceil(min(MIN_EPOCH_SHARE * stage.n_epochs, MIN_ROWS_SEEN / max(1.0, n_rows)))


@dataclass(frozen=True)
class Clock:
    """The time of a command.

    Attributes:
        started: time.monotonic() when it started.
        seconds: time that it may take; infinite without a budget.
    """

    started: float = 0.0
    seconds: float = math.inf

    @property
    def has_limit(self) -> bool:
        """Whether the command has a budget."""
        return self.seconds < math.inf

    @property
    def end(self) -> float:
        """time.monotonic() at which the command has to end."""
        return self.started + self.seconds - min(MAX_EARLY, max(MIN_EARLY, EARLY_SHARE * self.seconds))

    def reserve(self, submission_seconds: float) -> float:
        """Return the seconds that are kept for the last submission and the report.

        Args:
            submission_seconds: seconds of the last interim submission; 0 before the first one.
        """
        if not self.has_limit:
            return 0.0
        return max(RESERVE_SECONDS + RESERVE_SHARE * self.seconds, RESERVE_SUBMISSIONS * submission_seconds)

    def training_deadline(self, submission_seconds: float, is_first: bool, end_of_jobs: float) -> float:
        """Return time.monotonic() at which training ends, so that the last submission ends before `end`.

        The baseline, and jobs that are nearly finished, may use time that is reserved for that submission.

        Args:
            submission_seconds: of `reserve`.
            is_first: whether the baseline is not finished; a submission needs it.
            end_of_jobs: time.monotonic() at which all jobs will have ended; 0 if some have not started.
        """
        usual = self.end - self.reserve(submission_seconds)
        if is_first:
            return max(usual, self.end - MIN_RESERVE)
        latest = self.end - max(MIN_RESERVE, RESERVE_SUBMISSIONS * submission_seconds)
        late = end_of_jobs + SECONDS_TO_END
        return late if submission_seconds and usual < late <= latest else usual

    def larger(self, missing: float) -> float:
        """Return the seconds of a budget that has so many more seconds for training."""
        return self.seconds + missing / (1 - RESERVE_SHARE - EARLY_SHARE)


@dataclass
class StageState:
    """State of one stage.

    Attributes:
        plans: number of epochs -> its jobs, with all seeds that it may get. It begins with all epochs.
        epochs: current number of epochs; 1 for a stage without.
        min_epochs: smallest number of epochs while other stages wait.
        seeds: those that have started.
        status: "not measured" if it was given up without a pace.
        inputs: parts of its caches that were not computed when it was given up.
        reason: why it is left out.
        is_noted: whether the notes of its first job were printed.
        is_forecast: whether its end was printed.
        is_full: whether the disk had no room for another seed.
    """

    name: str
    plans: dict[int, JobPlan]
    epochs: int
    min_epochs: int = 1
    seeds: list[int] = field(default_factory=list)
    status: Literal["waiting", "probing", "accepted", "given up", "not measured", "failed"] = "waiting"
    inputs: list[Task] = field(default_factory=list)
    reason: str = NOT_STARTED
    is_noted: bool = False
    is_forecast: bool = False
    is_full: bool = False

    @property
    def all_epochs(self) -> int:
        """The epochs of the YAML."""
        return next(iter(self.plans))

    @property
    def plan(self) -> JobPlan:
        """Its jobs with its current epochs."""
        return self.plan_with(self.epochs)

    def plan_with(self, epochs: int) -> JobPlan:
        """Return its jobs with a number of epochs."""
        if epochs not in self.plans:
            full = self.plans[self.all_epochs]
            stage = full.stages[self.name].with_share_of_epochs(epochs / self.all_epochs)
            self.plans[epochs] = full.with_settings(self.name, stage)
        return self.plans[epochs]

    @property
    def settings(self) -> Stage:
        """Its settings, with its current epochs and all seeds that it may get."""
        return self.plan.stages[self.name]

    @property
    def has_more_seeds(self) -> bool:
        """Whether it may get another seed."""
        return len(self.seeds) < len(self.settings.seeds)

    def has_room(self) -> bool:
        """Return whether the disk has room for another seed like the first, with the checkpoints of its jobs."""
        folders = [job.folder for job in self.jobs_of(self.seeds[0]) if job.finished]
        size = sum(file.stat().st_size for folder in folders for file in folder.rglob("*"))
        has_room = shutil.disk_usage(self.plan.paths.root).free > SPACE_OF_SEED * size + MIN_SPACE
        if not has_room and not self.is_full:
            print(f"stage {self.name}  gets no more seeds, since the disk is nearly full", flush=True)
        self.is_full = not has_room
        return has_room

    @property
    def smallest_epochs(self) -> int:
        """The smallest number of epochs that it may have now."""
        return min(self.min_epochs, self.epochs)

    @property
    def is_shortened(self) -> bool:
        """Whether it is a network that is trained with fewer epochs than the YAML says."""
        return self.epochs < self.all_epochs

    @property
    def epochs_of_all(self) -> str:
        """The epochs of a network, such as `15 of 30 epochs`."""
        return f"{self.epochs} of {self.all_epochs} epochs"

    def describe_end(self, pace: float, seconds: float) -> str:
        """Return how long a job takes and when all jobs end, as text."""
        epochs = f"{self.epochs_of_all}, " if self.is_shortened else ""
        return (
            f"{epochs}about {format_duration(pace)} a job; its jobs and all earlier ones end in about "
            f"{format_duration(seconds)}"
        )

    @property
    def largest_fold(self) -> Job:
        """The first of its jobs with the most training rows, refits excepted."""
        return max(self.plan.jobs, key=lambda job: (job.fold != REFIT_FOLD, job.n_rows))

    @property
    def missing_inputs(self) -> list[Task]:
        """Parts of its inputs that were not computed when it was given up, and still are not."""
        return [task for task in self.inputs if not is_computed(task)]

    def jobs_of(self, seed: int) -> list[Job]:
        """Return the jobs of a seed."""
        return [job for job in self.plan.jobs if job.seed == seed]

    def unfinished(self, seed: int | None = None, epochs: int | None = None) -> list[Job]:
        """Return the jobs of a seed, by default the first one, that are not finished with a number of epochs.

        Another budget, or another stage in the YAML, may have finished them.

        Args:
            epochs: None for the current number.
        """
        plan = self.plan_with(self.epochs if epochs is None else epochs)
        seed = self.settings.seeds[0] if seed is None else seed
        jobs = [job for job in plan.jobs if job.seed == seed]
        if jobs and not jobs[0].folder.parents[1].exists():  # nothing was trained with so many epochs
            return jobs
        return [job for job in jobs if not job.has_predicted(plan.test_key)]

    def resources(self, executor: Executor) -> Resources:
        """Return what each of its jobs takes."""
        return resources_of(self.settings, self.plan.n_folds, executor)

    def verify_finished(self) -> list[tuple[Job, float]]:
        """Check the files of its finished jobs, and print their number; return these with their seconds.

        Jobs with a damaged file are deleted.
        """
        reports = [(job, report_of(job, self.plan.test_key)) for job in self.plan.jobs if job.finished]
        finished = [(job, report["seconds"]) for job, report in reports if report is not None]
        if finished:
            print(
                f"stage {self.name}  {len(finished)} of {len(self.plan.jobs)} jobs are finished", flush=True
            )
        return finished

    def accept_if_finished(self) -> None:
        """Accept a waiting stage with its first seeds, as far as other commands have finished them."""
        seeds = list(takewhile(lambda seed: not self.unfinished(seed), self.settings.seeds))
        if self.status == "waiting" and seeds:
            self.start("accepted", len(seeds))

    def start(self, status: Literal["probing", "accepted"], n_seeds: int = 1) -> None:
        """Set the status and the first seeds of a stage that starts."""
        self.status = status
        self.seeds = self.settings.seeds[:n_seeds]
        self.inputs = []  # they are in the queue again


def states_of(plan: JobPlan) -> dict[str, StageState]:
    """Return the states of the stages that have jobs in a plan, in the order of these."""
    states = {}
    for name, key in plan.keys.items():
        jobs = plan.jobs_of_stage(name)
        if jobs:
            of_stage = replace(plan, jobs=jobs, keys={name: key}, stages={name: plan.stages[name]})
            epochs = plan.stages[name].n_epochs
            states[name] = StageState(name, {epochs: of_stage}, epochs)
    return states


def plan_of(plan: JobPlan, states: list[StageState]) -> JobPlan:
    """Return the jobs of some stages, with the seeds that have started."""
    return replace(
        plan,
        jobs=[job for state in states for seed in state.seeds for job in state.jobs_of(seed)],
        keys={state.name: state.plan.keys[state.name] for state in states},
        stages={state.name: state.settings.model_copy(update={"seeds": state.seeds}) for state in states},
    )


@dataclass
class Decisions:
    """The file budget_<seconds>.json, from which the same command continues after a kill.

    Attributes:
        jobs: digest of all jobs of the budget; decisions about other jobs are ignored.
        left_out: stage, seed and reason of all that there was no time for; the seed of a whole stage is None.
        has_ended: whether the time was used up, so that nothing new starts.
    """

    file: Path
    jobs: str
    left_out: list[tuple[str, int | None, str]] = field(default_factory=list)
    has_ended: bool = False

    def write(self, states: dict[str, StageState]) -> None:
        """Write the epochs and seeds of the accepted stages, unless no seed was finished in time."""
        accepted = [
            state for state in states.values() if state.status in ("accepted", "failed") and state.seeds
        ]
        content = {
            "jobs": self.jobs,
            "trained": {state.name: {"epochs": state.epochs, "seeds": state.seeds} for state in accepted},
            "left_out": self.left_out,
            "ended": self.has_ended,
        }
        write_json(self.file, content)

    def end(self, states: dict[str, StageState]) -> None:
        """Record that the time was used, so that the same command only retries failed jobs."""
        for state in states.values():
            for seed in list(state.seeds):
                n_jobs = len(state.jobs_of(seed))
                n_unfinished = len(state.unfinished(seed))
                if n_unfinished and state.status != "failed":
                    state.seeds.remove(seed)
                    epochs = f" of {state.epochs_of_all}" if state.is_shortened else ""
                    done = f"{n_jobs - n_unfinished} of {n_jobs} jobs{epochs} were finished when time ran out"
                    reason = f"{done}; {state.reason}" if state.reason != NOT_STARTED else done
                    self.left_out.append((state.name, seed, reason))
            if not state.seeds and state.name not in {name for name, _, _ in self.left_out}:
                self.left_out.append((state.name, None, state.reason))
        self.has_ended = any(state.seeds for state in states.values())
        self.write(states)

    def read(self, states: dict[str, StageState]) -> None:
        """Restore the decisions of an earlier command."""
        if not self.file.exists():
            return
        try:
            content = read_json(self.file, "jobs", "trained", "left_out", "ended")
        except DataError:
            remove_damaged(self.file, "what to train is decided again")
            return
        if content["jobs"] != self.jobs:
            return
        for name, saved in content["trained"].items():
            states[name].epochs = saved["epochs"]
            states[name].seeds = saved["seeds"]
            states[name].status = "accepted"
        self.has_ended = content["ended"]
        if self.has_ended:
            self.left_out = [(name, seed, reason) for name, seed, reason in content["left_out"]]
