"""Everything from the raw tables to the report: the steps of `./run.sh full`.

A run has a clock, infinite without `--budget`, which counts from the start of the command to the report.
"""

import math
import os
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial

from competition.prepare import prepare
from core import cli
from core.errors import ConfigError
from core.overrides import NO_OVERRIDES
from core.paths import Paths
from core.settings import parse_duration
from core.text import format_duration
from folds import make
from folds.make import make_folds, write_tables
from models.jobs.budget import Budget
from models.jobs.budget_stages import BASELINE_SECONDS, HAS_ENDED, NOT_STARTED, Clock, with_more_seeds
from models.jobs.cluster import make_executor, require_cluster
from models.jobs.job_files import resume
from models.jobs.plan import JobPlan, describe_retraining, make_plan
from models.jobs.scheduler import Executor
from models.registry import BASELINE, make_stage
from models.stage import Stage
from pipeline.check import check, require_visible_gpu
from pipeline.hold_out import hold_out
from pipeline.json_output import describe_run
from pipeline.last_submission import NOT_BUILT, InterimSubmissions, submit_until, submitted_run
from submissions.compare import describe_gain, gain_over
from submissions.config import Config, load_config
from submissions.manifest import EPOCHS, TIME, LeftOut
from submissions.run import (
    Run,
    finished_folds,
    finished_part,
    left_out_of,
    name_of_latest,
    open_run,
)

FEWER_EPOCHS = "trained for {}, since not all of them fit into the budget"

say = partial(print, flush=True)


def full(options: Namespace) -> int:
    """Run all steps with the options of the command line; return the exit status."""
    started = command_start()
    if options.executor == "ray":
        require_cluster()
    # With --holdout, `options.competition` is the YAML without the held-out share of the training rows.
    paths = Paths.for_competition(options.competition)
    with cli.training(paths):  # first: no other command may change the tables of jobs that run
        overrides = options.overrides
        if options.holdout:
            say(hold_out(options.held_out_of, options.holdout, overrides))
            overrides = NO_OVERRIDES  # they are in the YAML that was written
        config = load_config(options.competition, overrides)
        clock = Clock(started, budget_seconds(options.budget, config))
        if clock.has_limit:
            config = with_baseline(config)
        if options.overrides != NO_OVERRIDES:
            say(f"settings of the command line: {options.overrides}")
        if options.executor == "local":
            require_visible_gpu(config, clock.seconds)
        prepare_tables(options, config)
        jobs = plan_jobs(options, config, clock)  # stage, seed, fold -> job
        with closing(make_executor(options.executor, options.workers)) as executor:
            return train_and_submit(options, config, jobs, executor, clock)


def with_baseline(config: Config) -> Config:
    """Return the settings with a stage that comes first under a budget.

    They are unchanged if they have such a stage, or if the tables have no inputs.
    """
    stages = dict(config.stages)
    if not config.competition.inputs or any(stage.comes_first for stage in stages.values()):
        return config
    name = BASELINE
    while name in stages:
        name += "_2"
    say(f"stage {name} is added, which is trained within seconds for the first submission")
    return config.model_copy(update={"stages": {name: make_stage({"kind": BASELINE}), **stages}})


def prepare_tables(options: Namespace, config: Config) -> None:
    """Write the clean tables and the folds, after all errors of settings and tables were reported."""
    competition = config.competition
    paths = competition.paths
    with cli.locked(paths, wait=True):
        tables = prepare(competition, options.workers)  # raw CSV files -> clean tables
        tables = make_folds(competition, config.folds, tables)  # and the fold and group of each row
        lines = check(config, tables, here=options.executor == "local")  # all errors at once
        say(f"{paths.name}: checked\n{lines}")
        write_tables(tables, competition)
        say(make.describe_sizes(tables, competition))  # `check` has the warnings about folds


def plan_jobs(options: Namespace, config: Config, clock: Clock) -> JobPlan:
    """Return the jobs of all stages; with a budget also the seeds that time may be left for."""
    if options.resume_from:
        resume(options.resume_from, config.competition.paths)
    stages = dict(config.stages)
    if clock.has_limit:
        stages = with_more_seeds(stages)
    plan = make_plan(config.competition, stages, options.reuse)
    for line in describe_retraining(plan):
        say(line)
    return plan


def train_and_submit(
    options: Namespace, config: Config, all_jobs: JobPlan, executor: Executor, clock: Clock
) -> int:
    """Train what the clock allows, and build its submission and report; return the exit status."""
    budget = Budget(all_jobs, executor, clock)
    interim = InterimSubmissions(config, budget)
    require_time(budget)
    has_ended = budget.decisions.has_ended
    results = budget.train(interim.next_task, options.job_timeout)
    jobs = budget.current_plan
    finished = finished_part(jobs)
    previous = name_of_latest(all_jobs.paths)
    left_out = [*left_out_by_budget(budget, finished, config.stages), *left_out_of(jobs, results)]
    advice = describe_larger_budget(budget)
    options.result |= {
        "advice": [HAS_ENDED, *advice] if has_ended else advice,
        "left_out": list(map(asdict, left_out)),
    }
    with cli.locked(all_jobs.paths, wait=True):
        if not finished.stages and clock.has_limit:
            finished = finished_folds(budget.tried_plans) or finished
        run = open_run(config, finished, left_out)
        run = replace(run, budget=clock.seconds if clock.has_limit else None)
        lines, status = submit_until(clock, run, executor, interim.has_written)
    submitted = replace(submitted_run(run), budget=run.budget)
    compared = gain_over(previous, submitted, config)
    say("\n".join([*lines, *describe_gain(compared), *advice]))
    if options.json:
        options.result["left_out"] += [asdict(each) for each in without_submission(run, submitted)]
        options.result |= describe_run(submitted, compared)
        options.result["warnings"] += [line for line in lines if line.startswith(NOT_BUILT)]
    return status


def require_time(budget: Budget) -> None:
    """Raise a ConfigError if the time left is too short for the baseline, and no job is finished.

    It names a budget that is long enough for it on this machine.
    """
    missing = BASELINE_SECONDS - (budget.training_deadline - time.monotonic())
    if missing <= 0 or any(job.finished for job in budget.plan.jobs):
        return
    clock = budget.clock
    raise ConfigError(
        f"a budget of {format_duration(clock.seconds)} is too short for a first submission: preparation took "
        f"{format_duration(time.monotonic() - clock.started)}, the first stage may take "
        f"{format_duration(BASELINE_SECONDS)}, and the submission {format_duration(clock.reserve(0.0))}. "
        f"The smallest budget here is --budget {budget_option(clock.larger(missing))}; "
        "prepared files are kept."
    )


def budget_option(seconds: float) -> str:
    """Return a value of --budget that is at least so long, in whole minutes, or hours from ten on."""
    minutes = math.ceil(seconds / 60)
    return f"{minutes}m" if minutes < 600 else f"{math.ceil(minutes / 60)}h"


def describe_larger_budget(budget: Budget) -> list[str]:
    """Return a line about the budget that trains one more stage; none if everything was trained."""
    budgets = budget.larger_budgets()
    if not budgets:
        return []
    stage = min(budgets, key=budgets.__getitem__)
    clock = budget.clock
    spent = format_duration(time.monotonic() - clock.started)
    return [
        f"The training ended after {spent} of {format_duration(clock.seconds)}; "
        f"--budget {budget_option(budgets[stage])} would train {stage}."
    ]


def left_out_by_budget(budget: Budget, finished: JobPlan, stages: Mapping[str, Stage]) -> list[LeftOut]:
    """Return a row per stage or seed that a budget does not train, and per network with fewer epochs.

    Args:
        stages: with the seeds of the YAML, after which a budget may train others.
    """
    rows = [LeftOut(stage, seed, TIME, reason) for stage, seed, reason in budget.decisions.left_out]
    states = [state for state in budget.states.values() if state.name in finished.stages]
    listed = {(row.stage, row.seed) for row in rows}
    for state in states:
        missing = [seed for seed in stages[state.name].seeds if seed not in state.seeds]
        seeds = [seed for seed in missing if (state.name, seed) not in listed]
        rows += [LeftOut(state.name, seed, TIME, NOT_STARTED) for seed in seeds]
    shortened = [state for state in states if state.is_shortened]
    rows += [
        LeftOut(state.name, None, EPOCHS, FEWER_EPOCHS.format(state.epochs_of_all)) for state in shortened
    ]
    return rows


def without_submission(finished: Run, submitted: Run) -> list[LeftOut]:
    """Return a row per finished stage that is not in the submission, since none with it was built."""
    reason = "no submission with it was built before the command ended; the same command builds it"
    return [
        LeftOut(name, None, TIME, reason)
        for name in finished.config.stages
        if name not in submitted.config.stages
    ]


def command_start() -> float:
    """Return time.monotonic() when the command started, before run.sh installed anything."""
    return time.monotonic() - (time.time() - float(os.environ.get("RUN_STARTED") or time.time()))


def budget_seconds(option: float | None, config: Config) -> float:
    """Return the seconds of `--budget`, or else of the YAML; infinite without a budget.

    Args:
        option: seconds of `--budget`, infinite for `none`; None if it is not given.
    """
    if option is None and config.budget is not None:
        say(f"budget: {config.budget}; --budget none trains everything in full")
        return parse_duration(config.budget)
    return math.inf if option is None else option
