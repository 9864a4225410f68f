"""The time of a command, and the state of each stage: the seeds and epochs that it may get, and what was decided."""

import math
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Literal

from competition.dataset import REFIT_FOLD
from core.errors import DataError
from core.files import read_json, remove_damaged, write_json
from models.jobs.job import Job
from models.jobs.job_files import read_failure, report_of
from models.jobs.plan import JobPlan
from models.jobs.scheduler import Executor, Resources
from models.jobs.tasks import resources_of
from models.stage import Stage

EPOCH_SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.06, 0.04, 0.02)
"""Allowed shares of the epochs of a network."""
MIN_EPOCH_SHARE = 0.5
"""Smallest share, unless the network still sees MIN_ROWS_SEEN rows."""
MIN_ROWS_SEEN = 40_000
"""Number of training rows times epochs that suffices."""
MAX_SEEDS = 5
"""Number of seeds of a stage, if the YAML does not have more."""
EARLY_SHARE = 0.01
"""Share of the budget by which the command ends early, in case the machine becomes slow."""
MIN_EARLY = 2.0
MAX_EARLY = 5.0
"""Minimum and maximum of these seconds."""
RESERVE_SECONDS = 10.0
RESERVE_SHARE = 0.04
"""Seconds and share of the budget that are reserved for the last submission and the report."""
RESERVE_SUBMISSIONS = 3.0
"""Multiple of the seconds of the last interim submission that is reserved at least."""
HAS_ENDED = (
    "An earlier run with this budget has ended: only failed jobs are retrained. A larger budget trains more."
)
NOT_STARTED = "time ran out before it started"


def with_more_seeds(stages: dict[str, Stage]) -> dict[str, Stage]:
    """Return the stages with at least MAX_SEEDS seeds, which are trained if there is time.

    A stage that does not depend on its seed keeps the seeds of the YAML. Stages with pseudo-labels are left
    out, since their labels change with each new seed of another stage.
    """
    result = {}
    for name, stage in stages.items():
        if stage.pseudo_labels is not None:
            continue
        seeds = list(stage.seeds)
        if stage.depends_on_seed:
            seeds += [seed for seed in range(MAX_SEEDS) if seed not in seeds]
        result[name] = stage.model_copy(update={"seeds": seeds[: max(MAX_SEEDS, len(stage.seeds))]})
    return result


def epoch_shares(stage: Stage, n_rows: float) -> list[float]:
    """Return the allowed shares of the epochs of a stage, largest first; 1 for a stage without epochs.

    Args:
        n_rows: number of training rows of a fold.
    """
    if not stage.reports_progress:
        return [1.0]
    smallest = min(MIN_EPOCH_SHARE, MIN_ROWS_SEEN / max(1.0, n_rows * stage.n_epochs))
    return [share for share in EPOCH_SHARES if share >= smallest]


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

    def larger(self, missing: float) -> float:
        """Return the seconds of a budget that has so many more seconds for training."""
        return self.seconds + missing / (1 - RESERVE_SHARE - EARLY_SHARE)


@dataclass
class StageState:
    """State of one stage.

    Attributes:
        plans: share of its epochs -> its jobs, with all seeds that it may get. It begins with all epochs.
        shares: allowed shares of its epochs, largest first.
        share: current share of its epochs.
        seeds: seeds that have started.
        pace: seconds of a job when the stage was given up; infinite if it was not measured.
        reason: why it is left out.
        is_noted: whether the notes of its first job were printed.
        is_forecast: whether its end was printed.
    """

    name: str
    plans: dict[float, JobPlan]
    shares: list[float] = field(default_factory=lambda: [1.0])
    share: float = 1.0
    seeds: list[int] = field(default_factory=list)
    status: Literal["waiting", "probing", "accepted", "given up", "failed"] = "waiting"
    pace: float = math.inf
    reason: str = NOT_STARTED
    is_noted: bool = False
    is_forecast: bool = False

    def plan_with(self, share: float) -> JobPlan:
        """Return its jobs with a share of its epochs."""
        if share not in self.plans:
            full = self.plans[1.0]
            stage = full.stages[self.name].with_share_of_epochs(share)
            self.plans[share] = full.with_settings(self.name, stage)
        return self.plans[share]

    @property
    def plan(self) -> JobPlan:
        """Its jobs with its current epochs."""
        return self.plan_with(self.share)

    @property
    def settings(self) -> Stage:
        """Its settings, with its current epochs and all seeds that it may get."""
        return self.plan.stages[self.name]

    @property
    def epochs(self) -> str:
        """The epochs of a network, such as `15 of 30 epochs`; "" for other stages."""
        if not self.settings.reports_progress:
            return ""
        return f"{self.settings.n_epochs} of {self.plans[1.0].stages[self.name].n_epochs} epochs"

    def scale(self, share: float) -> float:
        """Return the number of epochs with a share of them, relative to that with its current share."""
        full = self.plans[1.0].stages[self.name]
        return full.with_share_of_epochs(share).n_epochs / self.settings.n_epochs

    @property
    def all_shares(self) -> list[float]:
        """Shares of its epochs down to one epoch, largest first, for a stage that is the only one."""
        stage = self.plans[1.0].stages[self.name]
        if not stage.reports_progress:
            return [1.0]
        return [*(share for share in EPOCH_SHARES if share * stage.n_epochs > 1), 1 / stage.n_epochs]

    @property
    def largest_fold(self) -> Job:
        """The first of its jobs with the most training rows, refits excepted."""
        return max(self.plan.jobs, key=lambda job: (job.fold != REFIT_FOLD, job.n_rows))

    @property
    def has_failed_before(self) -> bool:
        """Whether a job failed and is not finished."""
        return any(read_failure(job.folder) for job in self.plan.jobs)

    def jobs_of(self, seed: int) -> list[Job]:
        """Return the jobs of a seed."""
        return [job for job in self.plan.jobs if job.seed == seed]

    def unfinished(self, seed: int) -> list[Job]:
        """Return the jobs of a seed that are not finished."""
        return [job for job in self.jobs_of(seed) if not job.has_predicted(self.plan.test_key)]

    def left(self, share: float) -> list[Job]:
        """Return the jobs of the first seed that are not finished, with a share of the epochs."""
        return replace(self, share=share).unfinished(self.settings.seeds[0])

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
            mark = "; by other code, accepted with --reuse" if self.plan.is_from_other_code(self.name) else ""
            n_finished = f"{len(finished)} of {len(self.plan.jobs)}"
            print(f"stage {self.name}  {n_finished} jobs are finished{mark}", flush=True)
        return finished

    def accept_if_finished(self) -> None:
        """Accept a waiting stage with the first of its seeds that other commands have finished, if there are some."""
        seeds = list(takewhile(lambda seed: not self.unfinished(seed), self.settings.seeds))
        if self.status == "waiting" and seeds:
            self.start("accepted", len(seeds))

    def start(self, status: Literal["probing", "accepted", "failed"], n_seeds: int = 1) -> None:
        """Set the status and the first seeds of a stage that starts."""
        self.status = status
        self.seeds = self.settings.seeds[:n_seeds]


def states_of(plan: JobPlan) -> dict[str, StageState]:
    """Return the states of the stages that have jobs in a plan, in the order of these."""
    states = {}
    for name, key in plan.keys.items():
        jobs = plan.jobs_of_stage(name)
        if jobs:
            of_stage = replace(plan, jobs=jobs, keys={name: key}, stages={name: plan.stages[name]})
            states[name] = StageState(name, {1.0: of_stage})
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
        """Write the epochs and seeds of the accepted stages, except those of which no seed was finished in time."""
        accepted = [
            state for state in states.values() if state.status in ("accepted", "failed") and state.seeds
        ]
        content = {
            "jobs": self.jobs,
            "stages": {state.name: {"share": state.share, "seeds": state.seeds} for state in accepted},
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
                    done = f"{n_jobs - n_unfinished} of {n_jobs} jobs were finished when time ran out"
                    self.left_out.append((state.name, seed, done))
            if not state.seeds and state.name not in {name for name, _, _ in self.left_out}:
                self.left_out.append((state.name, None, state.reason))
        self.has_ended = any(state.seeds for state in states.values())
        self.write(states)

    def read(self, states: dict[str, StageState]) -> None:
        """Restore the decisions of an earlier command."""
        if not self.file.exists():
            return
        try:
            content = read_json(self.file, "jobs", "stages", "left_out", "ended")
        except DataError:
            remove_damaged(self.file, "what to train is decided again")
            return
        if content["jobs"] != self.jobs:
            return
        for name, saved in content["stages"].items():
            states[name].share = saved["share"]
            states[name].seeds = saved["seeds"]
            states[name].status = "accepted"
        self.has_ended = content["ended"]
        if self.has_ended:
            self.left_out = [(name, seed, reason) for name, seed, reason in content["left_out"]]
