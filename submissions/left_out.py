"""What a run leaves out: stages and seeds without all of their jobs, each with the reason."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.paths import display_path
from core.text import format_table
from models.jobs.job_files import recorded_failure
from models.jobs.plan import JobPlan
from models.jobs.scheduler import JobResult

LEFT_OUT_HEADER = ["stage", "seed", "reason", "error"]
TIME, EPOCHS = "time", "epochs"
"""Reasons of a budget: a stage or seed is left out, or a network has fewer epochs than the YAML says."""
BUDGET_ADVICE = "A larger --budget trains more, and --budget none everything in full; finished jobs are kept."
MAX_ERROR = 110
"""Characters of an error in tables."""


@dataclass(frozen=True)
class LeftOut:
    """A stage, or one of its seeds, that is not in a run.

    Attributes:
        seed: None for the whole stage.
        reason: see `models.jobs.scheduler.JobResult`; EPOCHS for a stage that is in the run with fewer epochs.
        error: one line.
        log: file with the traceback.
    """

    stage: str
    seed: int | None
    reason: str
    error: str
    log: Path | None = None

    @property
    def row(self) -> list[str]:
        """Row of a table with the columns LEFT_OUT_HEADER."""
        seed = "all" if self.seed is None else str(self.seed)
        return [self.stage, seed, self.reason, textwrap.shorten(self.error, MAX_ERROR, placeholder=" ...")]


def unfinished_seeds(plan: JobPlan) -> set[tuple[str, int]]:
    """Return stage and seed of each job that is not finished, or has pseudo-labels of such a job."""
    return {
        (job.stage, job.seed)
        for job in plan.jobs
        if not all(each.has_predicted(plan.test_key) for each in (job, *job.dependencies))
    }


def left_out_of(plan: JobPlan, results: dict[str, JobResult]) -> list[LeftOut]:
    """Return the seeds with an unfinished job, each with the reason.

    Args:
        results: title of a job (`gnn/seed_0/fold_3`) -> result, for the jobs of this command; others have a
            record in their folders.
    """
    left_out = []
    for stage, seed in sorted(unfinished_seeds(plan)):
        jobs = [job for job in plan.jobs_of_stage(stage) if job.seed == seed]
        results_of_unfinished = [
            results.get(job.title) or recorded_failure(job)
            for job in jobs
            if not job.has_predicted(plan.test_key)
        ]
        reasons = [result for result in results_of_unfinished if result.status != "ok"]
        reasons.sort(key=lambda result: result.status != "failed")
        if reasons:
            first = reasons[0]
            fold = first.name.rpartition("/fold_")[2]
            error = f"fold {fold}: {first.error}" if first.status == "failed" else first.error
            left_out.append(LeftOut(stage, seed, first.reason, error, first.log))
        else:
            left_out.append(
                LeftOut(stage, seed, "dependency", "it has pseudo-labels of a stage that is left out")
            )
    return left_out


def describe_left_out(left_out: Sequence[LeftOut]) -> str:
    """Return a table of what is left out, and the files of the tracebacks; "" if nothing is."""
    if not left_out:
        return ""
    lines = [
        "Left out:",
        "",
        format_table(LEFT_OUT_HEADER, [each.row for each in left_out]),
        *left_out_notes(left_out),
    ]
    return "\n".join(lines)


def left_out_notes(left_out: Sequence[LeftOut]) -> list[str]:
    """Return what to do about what a budget left out, and a line per traceback."""
    advice = [BUDGET_ADVICE] if any(each.reason in (TIME, EPOCHS) for each in left_out) else []
    logs = [
        f"traceback of {each.stage}: {display_path(each.log)}" for each in left_out if each.log is not None
    ]
    return [*advice, *logs]
