"""The state of each stage under a budget: the seeds and epochs that it may get, and the decisions about it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.files import read_json, write_json
from models.jobs.job_files import read_failure
from models.jobs.plan import Job, JobPlan

EPOCH_SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1)
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
NOT_STARTED = "the time was over before it started"
HAS_ENDED = (
    "An earlier run with this budget has ended: only failed jobs are trained again. A larger one trains more."
)

StageConfigs = dict[str, Any]


def with_more_seeds(stages: StageConfigs) -> StageConfigs:
    """Return the stages with at least MAX_SEEDS seeds, which are trained if there is time.

    A stage that does not depend on its seed keeps the seeds of the YAML. Stages with pseudo-labels are left out,
    since their labels change with each new seed of another stage.
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


def epoch_shares(stage: Any, n_rows: float) -> list[float]:
    """Return the allowed shares of the epochs of a stage, largest first; 1 for a stage without epochs.

    Args:
        n_rows: number of training rows of a fold.
    """
    if not stage.reports_progress:
        return [1.0]
    smallest = min(MIN_EPOCH_SHARE, MIN_ROWS_SEEN / max(1.0, n_rows * stage.epochs))
    return [share for share in EPOCH_SHARES if share >= smallest]


def with_epochs(stage: Any, share: float) -> Any:
    """Return a network with a share of its epochs."""
    return stage.model_copy(update={"epochs": max(1, round(share * stage.epochs))})


@dataclass(frozen=True)
class Clock:
    """The time of a command.

    Attributes:
        started: time.monotonic() when it started.
        seconds: time that it may take; infinite without a budget.
    """

    started: float
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


StageStatus = Literal["waiting", "probing", "accepted", "given up"]


@dataclass
class StageState:
    """State of one stage.

    Attributes:
        plan: jobs of the stage, with its current epochs and all seeds that it may get.
        shares: allowed shares of its epochs, largest first.
        share: share of its epochs in `plan`.
        seeds: seeds that have started.
        pace: seconds of a job when the stage was given up; None if it was not measured.
        reason: why it is left out.
        all_epochs: epochs of a network in the YAML.
    """

    name: str
    plan: JobPlan
    shares: list[float]
    share: float = 1.0
    seeds: list[int] = field(default_factory=list)
    status: StageStatus = "waiting"
    pace: float | None = None
    reason: str = NOT_STARTED
    all_epochs: int | None = None

    def __post_init__(self) -> None:
        if self.settings.reports_progress:
            self.all_epochs = self.settings.epochs

    @property
    def epochs(self) -> str:
        """The epochs of a network, such as `15 of 30 epochs`; "" for other stages."""
        return f"{self.settings.epochs} of {self.all_epochs} epochs" if self.all_epochs else ""

    @property
    def settings(self) -> Any:
        """The settings of the stage, with all seeds that it may get."""
        return self.plan.stages[self.name]

    def jobs_of(self, seed: int) -> list[Job]:
        """Return the jobs of a seed."""
        return [job for job in self.plan.jobs if job.seed == seed]

    def unfinished(self, seed: int) -> list[Job]:
        """Return the jobs of a seed that are not finished."""
        return [job for job in self.jobs_of(seed) if not job.has_predicted(self.plan.test_key)]

    def start(self, status: StageStatus) -> None:
        """Set the status and the first seed of a stage that starts."""
        self.status = status
        self.seeds = self.settings.seeds[:1]

    def give_up(self, reason: str, pace: float | None) -> None:
        """Leave the stage out, with the pace that it had."""
        self.status = "given up"
        self.seeds = []
        self.pace = pace
        self.reason = reason

    @property
    def has_failed(self) -> bool:
        """Whether a job of the stage failed and is not finished."""
        return any(read_failure(job.folder) for job in self.plan.jobs)


@dataclass
class Decisions:
    """The file budget_<seconds>.json, from which the same command continues after a kill.

    Attributes:
        jobs: digest of all jobs of the budget; decisions about other jobs are ignored.
        cut_seeds: stage, seed and reason of each seed that was not finished in time.
        has_ended: whether the time was used up, so that nothing new starts.
    """

    file: Path
    jobs: str
    cut_seeds: list[tuple[str, int, str]] = field(default_factory=list)
    has_ended: bool = False

    def write(self, states: dict[str, StageState]) -> None:
        """Write the epochs and seeds of the accepted stages, except those of which no seed was finished in time."""
        accepted = [state for state in states.values() if state.status == "accepted" and state.seeds]
        content = {
            "jobs": self.jobs,
            "stages": {state.name: {"share": state.share, "seeds": state.seeds} for state in accepted},
            "reasons": {state.name: state.reason for state in states.values()},
            "cut_seeds": self.cut_seeds,
            "ended": self.has_ended,
        }
        write_json(self.file, content)

    def left_out(self, states: dict[str, StageState]) -> list[tuple[str, int | None, str]]:
        """Return stage, seed and reason of everything that the time left out; no seed for a whole stage."""
        cut_stages = {name for name, _, _ in self.cut_seeds}
        stages = [state for state in states.values() if not state.seeds and state.name not in cut_stages]
        return [*((state.name, None, state.reason) for state in stages), *self.cut_seeds]

    def describe_finished(self, states: dict[str, StageState]) -> Iterator[str]:
        """Yield a line per stage with finished jobs of earlier runs, and one if these used up the budget."""
        for state in states.values():
            n_finished = sum(
                len(state.jobs_of(seed)) - len(state.unfinished(seed)) for seed in state.settings.seeds
            )
            if n_finished:
                yield f"stage {state.name}  finished jobs of earlier runs: {n_finished}"
        if self.has_ended:
            yield HAS_ENDED

    def end(self, states: dict[str, StageState], failed_stages: set[str]) -> None:
        """Record that the time was used, so that the same command only retries failed jobs."""
        for state in states.values():
            for seed in list(state.seeds):
                n_jobs = len(state.jobs_of(seed))
                n_unfinished = len(state.unfinished(seed))
                if n_unfinished and state.name not in failed_stages:
                    state.seeds.remove(seed)
                    done = f"{n_jobs - n_unfinished} of {n_jobs} jobs were finished when the time was over"
                    self.cut_seeds.append((state.name, seed, done))
        self.has_ended = any(state.seeds for state in states.values())
        self.write(states)

    def read(self, states: dict[str, StageState]) -> None:
        """Restore the decisions of an earlier command, except the plans that follow from them."""
        if not self.file.exists():
            return
        content = read_json(self.file, "jobs", "stages", "reasons", "cut_seeds", "ended")
        if content["jobs"] != self.jobs:
            return
        for name, saved in content["stages"].items():
            states[name].share = saved["share"]
            states[name].seeds = saved["seeds"]
            states[name].status = "accepted"
        self.has_ended = content["ended"]
        if self.has_ended:
            self.cut_seeds = [(name, seed, reason) for name, seed, reason in content["cut_seeds"]]
            for state in states.values():
                state.reason = content["reasons"][state.name]
