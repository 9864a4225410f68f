"""Everything from the raw tables to the report: `./run.sh full [COMPETITION]`.

Reads: the YAML, the raw tables, the weights that stages start from; the answers only in the report.
Writes: clean tables, folds, a folder per job, the folder of the run, and the report. Finished jobs are kept.
"""

import time
from argparse import Namespace
from contextlib import closing
from dataclasses import replace
from functools import partial

from competition.config import find_config
from competition.prepare import prepare, write_prepared
from core import cli
from core.errors import ConfigError
from core.paths import Paths
from core.settings import NO_OVERRIDES, parse_duration
from folds import make
from folds.make import make_folds, write_folds
from models.jobs.budget_stages import with_more_seeds
from models.jobs.cluster import make_executor, require_cluster
from models.jobs.plan import JobPlan, describe_retraining, make_plan
from models.jobs.resume import resume
from models.jobs.scheduler import Queue
from models.jobs.train import exit_status, failure_policy, train
from submissions.budget_run import command_start, compare_tables, full_in_time
from submissions.build_submission import build_submission
from submissions.check import check, require_visible_gpu
from submissions.config import Config, load_config
from submissions.hold_out import hold_out
from submissions.interim import InterimSubmissions
from submissions.left_out import left_out_of
from submissions.report.__main__ import report
from submissions.run import ALL_SECONDS, finished_part, open_run

say = partial(print, flush=True)


def full(options: Namespace) -> int:
    """Run all steps with the options of the command line; return the exit status."""
    started = command_start()
    require_possible(options)
    # With --holdout, `options.competition` is the YAML without the held-out share of the training rows.
    paths = Paths.for_competition(options.competition)
    with cli.training(paths):  # first: no other command may change the tables of jobs that run
        if options.holdout:
            say(hold_out(options.held_out_of, options.holdout, options.overrides))
        config = load_config(options.competition, options.overrides)
        options.budget = budget_seconds(options.budget, config)
        if options.overrides != NO_OVERRIDES:
            say(f"settings of the command line: {options.overrides}")
        if options.executor == "local":
            require_visible_gpu(config, options.budget)
        prepare_tables(options, config, paths)
        plan = plan_jobs(options, config, paths)  # stage, seed, fold -> job
        with closing(make_executor(options.executor, options.ray_address, options.workers)) as executor:
            if options.budget is not None:
                return full_in_time(options, config, paths, plan, executor, started)
            queue = Queue()
            interim = InterimSubmissions(lambda: (config, plan))
            results = train(plan, executor, failure_policy(options), interim.next_task, queue)
            core_seconds = executor.capacity().cpus * (time.monotonic() - started)
        if options.fail_fast and exit_status(results):
            say("stopped at the first failure (--fail-fast); finished jobs are kept")
            return 1
        left_out = left_out_of(plan, results)
        finished_config, finished_plan = finished_part(config, plan)
        with cli.locked(paths, wait=True):
            run = open_run(finished_config, finished_plan, left_out)
            run = replace(run, worker_seconds={**queue.seconds, ALL_SECONDS: core_seconds})
            submission = build_submission(
                run
            )  # out-of-fold columns -> candidates -> choice -> submission.csv
            say("\n".join(submission.lines))
            compare_tables(config, paths)
            say(report(run))
    return run.exit_status


def prepare_tables(options: Namespace, config: Config, paths: Paths) -> None:
    """Write the clean tables and the folds, after all mistakes of the settings and the tables were reported."""
    competition = config.competition
    with cli.locked(paths, wait=True):
        tables = prepare(competition)  # raw CSV files -> clean tables
        folds = make_folds(competition, config.folds, tables.train, tables.test, paths)
        lines = check(config, tables, folds, here=options.executor == "local")  # all mistakes at once
        say(f"{paths.name}: checked\n{lines}")
        write_prepared(tables, paths, find_config(options.competition))
        write_folds(folds, competition, config.folds, tables.train, tables.test, paths)
        say(make.describe(folds, competition, tables.train))


def plan_jobs(options: Namespace, config: Config, paths: Paths) -> JobPlan:
    """Return the jobs of all stages; with a budget also the seeds that time may be left for."""
    if options.earlier_run:
        resume(options.earlier_run, paths)
    stages = dict(config.stages)
    if options.budget is not None:
        stages = with_more_seeds(stages)
    plan = make_plan(config.competition, stages, paths, options.reuse)
    for line in describe_retraining(plan):
        say(line)
    return plan


def budget_seconds(option: float | None, config: Config) -> float | None:
    """Return the seconds of `--budget`, or else of the YAML; None if everything is trained in full.

    Args:
        option: seconds of `--budget`; `cli.NO_BUDGET` for `none`, and None if it is not given.
    """
    if option is None and config.budget is not None:
        say(f"budget: {config.budget}; --budget none trains everything in full")
        return parse_duration(config.budget)
    return None if option == cli.NO_BUDGET else option


def require_possible(options: Namespace) -> None:
    """Raise a ConfigError for options that `full` does not support."""
    if options.shard:
        raise ConfigError(
            "full does not support --shard: run ./run.sh train --shard I/N on each machine, then ./run.sh full on "
            "one of them."
        )
    if options.executor == "ray":
        require_cluster(options.ray_address)


def main() -> int:
    """Parse the command line and run the command."""
    return full(cli.parser(__doc__, "full").parse_args())


if __name__ == "__main__":
    cli.run(main)
