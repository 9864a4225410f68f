"""A submission of the stages that are finished while others train: submissions/so_far/submission.csv."""

import time
from collections.abc import Callable

from core.paths import display_path
from models.jobs.budget_stages import Clock
from models.jobs.plan import JobPlan
from models.jobs.scheduler import JobResult, Task
from submissions.build_submission import build_submission
from submissions.config import Config
from submissions.run import SUBMISSION_FILE, finished_part, open_run

SUBMISSIONS = "submissions"
"""Group of the tasks."""
SHARE_OF_TIME = 0.1
"""Maximum share of the time that these submissions take on one core."""
FIRST_SECONDS = 6.0
"""Assumed seconds of the first submission."""


class InterimSubmissions:
    """Makes tasks that write a submission of the finished stages.

    Args:
        current: returns the current configuration and plan.
        clock: with a limit, the first one starts immediately, whatever its share of the time.
    """

    def __init__(self, current: Callable[[], tuple[Config, JobPlan]], clock: Clock) -> None:
        self.current = current
        self.first_at_once = clock.has_limit
        self.n_tasks = 0
        self.n_written = 0
        self.is_pending = False
        self.seconds = FIRST_SECONDS
        self.last_end = time.monotonic()

    def next_task(self) -> Task | None:
        """Return a task; None while one is pending, or if it would take more than its share of the time."""
        waited = time.monotonic() - self.last_end
        is_early = waited < self.seconds / SHARE_OF_TIME and not (self.first_at_once and self.n_tasks == 0)
        if self.is_pending or is_early:
            return None
        self.is_pending = True
        self.n_tasks += 1
        name = f"submission {self.n_tasks}"
        return Task(
            name, submit_finished, self.current(), group=SUBMISSIONS, skips_group=False, on_end=self._on_end
        )

    def _on_end(self, result: JobResult) -> None:
        self.is_pending = False
        self.seconds = max(result.seconds, 1.0)
        self.last_end = time.monotonic()
        if result.status == "ok":
            self.n_written += 1
            print(result.lines[0])
        elif result.status == "failed":
            print(f"no submission of the finished stages yet: {result.error}")


def submit_finished(config: Config, plan: JobPlan) -> JobResult:
    """Build the submission of the finished stages and seeds, in a worker."""
    config, plan = finished_part(config, plan)
    submission = build_submission(open_run(config, plan), interim=True)
    file = display_path(submission.folder / SUBMISSION_FILE)
    line = f"submission of {', '.join(config.stages)}: {file}"
    return JobResult("submission", lines=(line,))
