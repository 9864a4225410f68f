"""The commands of run.sh: one function per command, with its help as docstring, and its options."""

import argparse
import importlib.util
import inspect
import os
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, get_args

from competition.config import load_competition
from competition.metrics import metric_name
from core import cli
from core.errors import PIP_INSTALL, ConfigError, ServiceError
from core.overrides import Overrides
from core.paths import DEFAULT_COMPETITION, Paths, display_path, holdout_yaml
from core.settings import TRACKER_VARIABLE
from core.types import ProblemType
from folds import make
from folds.compare import compare_tables
from folds.kinds import FOLD_KINDS
from models.jobs import train as training
from models.jobs.cluster import make_executor, require_cluster
from models.jobs.job_files import resume
from models.jobs.plan import describe_retraining, make_plan
from models.jobs.scheduler import exit_status
from pipeline import full as steps
from pipeline.check import check_all, require_visible_gpu
from pipeline.new.new import write
from pipeline.new.stage_choices import read_presets
from pipeline.options import SETTINGS, SHARED, TRAINING, parse_budget, parse_shard
from submissions import compare as comparison_of_runs
from submissions import predict as prediction
from submissions.config import load_config
from submissions.kaggle import client
from submissions.kaggle import submit as sending
from submissions.kaggle.ledger import add_scores, page, read
from submissions.kaggle.pack import build
from submissions.kaggle.push import push
from submissions.kaggle.verify import require_platform, verify_notebook
from submissions.run import latest_run
from submissions.shift import cached_descriptors

Command = Callable[[Namespace], int | None]


def full(options: Namespace) -> int:
    """Do everything from the raw tables to the report.

    Reads: the YAML, the raw tables, the weights that stages start from; the answers only in the report.
    Writes: clean tables, folds, a folder per job, the folder of the run, and the report. The same command
    continues after a crash or Ctrl-C: finished jobs are kept.
    """

    return steps.full(options)


def check(options: Namespace) -> None:
    """Check everything before any work.

    Reads: the whole YAML, the raw tables, the weights that stages start from, the reports of finished jobs.
    Never the answers. Writes: user-defined features and missing weights into the cache, nothing else.
    """

    is_local = options.executor == "local"
    if not is_local:
        require_cluster()
    config = load_config(options.competition, options.overrides)
    text = f"{config.competition.paths.name}: checked\n{check_all(config, is_local, options.reuse)}"
    print(text)
    lines = text.splitlines()
    options.result["warnings"] = [line for line in lines if "WARNING" in line]
    options.result["lines"] = [line for line in lines if "WARNING" not in line]


def folds(options: Namespace) -> None:
    """Compare held-out rows with test rows, and recommend a kind of folds.

    It shows how similar test rows and held-out rows are to the training rows; whether a classifier can
    distinguish training and test rows, and by which features; and the kind of folds that fits, with the
    reason.

    Reads: the raw tables, which are prepared and split first. No label of a test row.
    Writes: prepared/, and folds/ with folds.csv, shift.json and similarity.png; descriptors in the cache.
    """

    config = load_config(options.competition, options.overrides)
    with cli.locked(config.competition.paths):
        print(make.run(config.competition, config.folds))
        compute_descriptors = partial(cached_descriptors, config.competition.paths.cache)
        lines, comparison = compare_tables(config.competition, config.folds, compute_descriptors)
        print(f"\n{lines}")
    options.result |= comparison.model_dump(
        exclude={"adversarial_validation": {"like_test"}, "error_ratio": True}
    )


def train(options: Namespace) -> int:
    """Train every job that is not finished.

    A job is one (stage, seed, fold), or a seed's refit on all rows, which starts when its folds are finished.
    With --shard I/N, this machine trains every N-th job, and other machines the rest; all of them need the
    same --stages, in the same order.

    Reads: the YAML and the raw tables. Writes: clean tables, folds, and a folder per job: weights,
    out-of-fold and test predictions, and report.json last. Finished jobs are skipped. A failed job stops no
    other stage; the next run retries it last. Exit status 3 if a job failed. Mistakes that `check` finds are reported
    before any job.
    """

    config = load_config(options.competition, options.overrides)
    competition = config.competition
    if options.executor == "local":
        require_visible_gpu(config)
    steps.prepare_tables(options, config)
    with cli.training(competition.paths, options.shard):
        if options.resume_from:
            resume(options.resume_from, competition.paths)
        plan = make_plan(competition, dict(config.stages), options.reuse)
        plan = plan.select(options.fold, options.shard or (1, 1))
        for line in describe_retraining(plan):
            print(line, flush=True)
        with closing(make_executor(options.executor, options.workers)) as executor:
            return exit_status(training.train(plan, executor, options.job_timeout))


def compare(options: Namespace) -> None:
    """Compare all runs of a competition.

    Each run is compared with the latest one: settings that differ, and the paired difference of the
    cross-fitted predictions on the training rows of both.

    Reads: the prepared training table, its groups, and run.json and cross_fitted.csv of each run. Writes
    nothing.
    """

    page, options.result = comparison_of_runs.compare(load_config(options.competition))
    print(page)


def predict(options: Namespace) -> None:
    """Predict new rows with the saved weights.

    Reads: the new test table, and the folders of the latest run and of its jobs; neither the YAML nor the
    raw training table. Writes: predictions/<key of the table>/ with test.parquet, submission.csv and spread.csv,
    and --out if given.
    """

    if options.out and (options.out.suffix != ".csv" or options.out.resolve() == options.test.resolve()):
        raise ConfigError(f"--out must be a .csv file other than --test; got {options.out}.")
    written = prediction.predict(options.competition, options.test, options.workers)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(written, options.out)
    print(f"Written: {display_path(options.out or written)}")


def submit(options: Namespace) -> None:
    """Submit to the leaderboard and record the result.

    The file is compared with the sample first. Then the command prints how many submissions are left, asks
    before it uses one, waits for the score, and compares it with the expected one. --kernel submits the
    notebook version that `./run.sh kernel --push` uploaded, for a code competition. For a competition that is
    not on Kaggle it sends nothing, and adds the checked file to the ledger.

    Nothing is sent twice, and nothing that was sent is lost: a submission is in the ledger before it is sent,
    and its message on the platform ends with its id. If its outcome is unknown, after a lost connection or a
    kill, the platform's list is read.

    Reads: the submission of the latest run (or --file), the sample, the run of the file.
    Writes: work/<name>/ledger.csv, and a copy of the file in work/<name>/submitted/.
    """

    sending.submit(options)


def ledger(options: Namespace) -> None:
    """Show all submissions of a competition and their scores.

    The ledger is work/<name>/ledger.csv, with one row per submission, which is written before anything is
    sent, so that it survives if the process dies. New scores are fetched from Kaggle; --public and --private
    add scores of another platform by hand.

    Which two files to select for the private score is simulated: tables as large as the test table are
    resampled from the training rows with their out-of-fold predictions, by group, the same for all files.
    Most of the difference between public and private scores comes from the choice of the rows (Roelofs et
    al., NeurIPS 2019).

    Reads: ledger.csv, and the out-of-fold predictions of the runs. Writes: rows of ledger.csv.
    """

    competition = load_competition(options.competition)
    paths = competition.paths
    scores = {"public": options.public, "private": options.private}
    given = {board: score for board, score in scores.items() if score is not None}
    if options.submission and not given:
        raise ConfigError("--submission needs the score to add, --public or --private.")
    if given:
        with cli.locked(paths, paths.submit_lock):
            row = add_scores(paths.ledger, given, options.submission)
        lines = [f"Added to {row.submission} of {row.time}: {row.message}"]
    else:
        lines = sending.fetch_scores(competition)
    for line in lines:
        print(line)
    print(page(competition))
    options.result["submissions"] = [row.model_dump() for row in read(paths.ledger)]


def kernel(options: Namespace) -> None:
    """Write an offline notebook of the latest run; with --training, one that trains.

    Reads: the folder of the run and of its jobs, or with --training the YAML, its tables and pretrained
    weights; packages from pip's configured index. Writes: work/<name>/kernel/ or kernel_training/.
    """
    name = options.competition
    paths = Paths.for_competition(name)
    config = load_config(name) if options.training else None
    if options.verify:
        require_platform()
    if config and (config.competition.holdout_of or not config.competition.kaggle):
        raise ConfigError(
            f"The notebook trains on the tables of a Kaggle competition, and {name} names none; add "
            "competition.kaggle: SLUG, the last part of the competition's URL, without --holdout."
        )
    if config:
        print(check_all(config, here=False), flush=True)
    else:
        run = latest_run(name)  # or an error that says what is wrong
        if options.push and not run.config.competition.kaggle:
            raise ConfigError(
                f"The latest run of {name} names no Kaggle competition; add competition.kaggle: SLUG, the last part of "
                f"the competition's URL, and run ./run.sh full {name} again, which keeps its jobs."
            )
    try:
        owner = client.username()
    except (ConfigError, ServiceError):
        owner = "your-username"  # without the client or credentials, --push fails
    with cli.locked(paths):
        notebook = build(paths, config, owner)
    for part in sorted(notebook.bundle.root.iterdir()):
        size = sum(file.stat().st_size for file in [part, *part.rglob("*")] if file.is_file())
        print(f"{part.name:24} {size / 1e6:10.2f} MB")
    print(f"Bundle: {notebook.bundle.root}\nNotebook: {notebook.notebook}", flush=True)
    if options.verify:
        verify_notebook(name, options.workers)
    if options.push:
        push(name, options.training)  # which prints the next step
        return
    steps = [
        f"./run.sh kernel {name} {'--training ' if options.training else ''}--push uploads both to Kaggle"
    ]
    if not (options.training or options.verify):
        steps.insert(0, f"./run.sh kernel {name} --verify tries the notebook here without a network")
    print(f"Next: {'; '.join(steps)}")


def new(options: Namespace) -> None:
    """Write a competition's YAML from its CSV files.

    The YAML has the settings that differ from their defaults. Every guess is explained in a comment; read
    them once. Without --sample it takes --target and an id column, and without --test the training rows are
    predicted. With --kaggle SLUG the files of a competition on Kaggle are downloaded first; --train, --test
    and --sample then say which of them are the tables, if their names do not.

    Reads: the three tables; of --answers only the path is written into the YAML.
    Writes: competition/configs/NAME.yaml (or NAME itself, if it ends in .yaml).
    """

    if options.metric:
        options.metric = metric_name(options.metric)
    # A YAML has to name the column of the other kinds.
    kinds = [name for name, kind in FOLD_KINDS.items() if kind.split and not kind.is_ordered_in_time]
    for option, names in (("preset", [*read_presets().presets]), ("folds", kinds)):
        value = getattr(options, option)
        if value not in (None, *names):
            raise ConfigError(f"--{option} takes one of {', '.join(names)}; got {value!r}.")
    if options.kaggle is None and not (
        options.train and (options.target or (options.test and options.sample))
    ):
        raise ConfigError(
            "new needs --train, --test and --sample; or --train and --target; or --kaggle SLUG."
        )
    has_stages = any(key.startswith("stages.") for key in options.overrides.values)
    if options.preset is None and options.oof is None and not has_stages:
        options.preset = "quick"
    write(options)


INPUTS = {"smiles": "molecules", "text": "texts", "numeric": "numbers", "categorical": "categories"}
"""Option of `new`, and role of a column -> what its cells are."""


def make_parser() -> ArgumentParser:
    """Return the parser of all commands."""
    parser = ArgumentParser(prog="./run.sh", description=__doc__, allow_abbrev=False)
    parser.set_defaults(set=[], stages=(), holdout=None, tracker=None, json=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_competition_commands(commands)
    add_run_commands(commands)
    add_new(commands)
    return parser


def add_command(commands: Any, command: Command, *shared: str) -> ArgumentParser:
    """Add a command about a competition with its shared options; return its parser."""
    parser: ArgumentParser = commands.add_parser(
        command.__name__,
        description=inspect.getdoc(command),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command)
    if command is not new:
        competition_help = "name in competition/configs/, or a YAML file (default: %(default)s)"
        parser.add_argument("competition", nargs="?", default=DEFAULT_COMPETITION, help=competition_help)
    for name in shared:
        parser.add_argument(f"--{name}", **SHARED[name])
    return parser


def add_competition_commands(commands: Any) -> None:
    """Add the commands that read the YAML: full, check, folds, train."""
    budget_help = (
        "Time that the whole command may take, such as 90m or 2h (default: budget of the YAML; none: no "
        "limit). Epochs are reduced, stages left out and seeds added so that what is started is also "
        "finished, and a submission is written whenever a stage is finished."
    )
    add = add_command(commands, full, *TRAINING, "json").add_argument
    add("--budget", type=parse_budget, metavar="TIME", help=budget_help)
    add_command(commands, check, *SETTINGS, "executor", "reuse", "json")
    add_command(commands, folds, "set", "holdout", "json")
    add = add_command(commands, train, *TRAINING).add_argument
    add("--fold", type=int, help="Train this fold only, counted from 0.")
    shard_help = "Do share I of N of the jobs, on one of N machines with the same WORK_DIR."
    add("--shard", type=parse_shard, metavar="I/N", help=shard_help)


def add_run_commands(commands: Any) -> None:
    """Add the commands that read a finished run: compare, predict, submit, ledger, kernel."""
    add_command(commands, compare, "holdout", "json")

    add = add_command(commands, predict, "workers", "holdout").add_argument
    add("--test", required=True, type=Path, help="CSV with the ids and inputs of new rows.")
    add("--out", type=Path, help="File for a copy of the submission.")

    parser = add_command(commands, submit)
    add = parser.add_argument
    add("-m", "--message", help="Message on the platform (default: run, chosen method and score).")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--file", type=Path, help="Send this file instead of the latest run's submission.")
    add("--kernel", action="store_true", help="Submit the notebook version that kernel --push uploaded.")
    add = parser.add_argument
    add("--yes", action="store_true", help="Send without asking.")

    add = add_command(commands, ledger, "json").add_argument
    add("--public", type=float, metavar="SCORE", help="Add a score on the public leaderboard.")
    add("--private", type=float, metavar="SCORE", help="Add a score on the private leaderboard.")
    submission_help = "Submission that gets these scores, or a corrected one (default: the latest without)."
    add("--submission", metavar="ID", help=submission_help)

    parser = add_command(commands, kernel, "workers")
    add = parser.add_mutually_exclusive_group().add_argument  # the verification compares with a finished run
    add("--training", action="store_true", help="A notebook that trains; it needs no finished run.")
    add("--verify", action="store_true", help="Run the notebook offline and compare its predictions.")
    add = parser.add_argument
    add("--push", action="store_true", help="Upload the data set and the notebook.")


def add_new(commands: Any) -> None:
    """Add the command that writes a YAML: new."""
    add = add_command(commands, new, "set").add_argument
    add("name", help="Name of the competition, or a file that ends in .yaml.")
    add("--train", type=Path, help="Training table: id, inputs, targets.")
    add("--test", type=Path, help="Test table: id, inputs.")
    add("--sample", type=Path, help="Sample submission: id, targets.")
    kaggle_help = "Download the tables of this competition; SLUG is the end of its URL."
    add("--kaggle", metavar="SLUG", help=kaggle_help)
    add("--answers", type=Path, help="Labels of the test rows, if there are any.")
    add("--metric", help="Name of a metric, or file.py:function.")
    greater_help = "Direction of a user-defined metric."
    add("--greater-is-better", action=argparse.BooleanOptionalAction, help=greater_help)
    add("--problem-type", choices=get_args(ProblemType), help="Type of the targets, if the guess is wrong.")
    add("--id", help="Column of the ids (default: the sample's first).")
    target_help = "Training columns to predict, in the order of the sample's columns."
    add("--target", nargs="+", action="extend", default=[], help=target_help)
    for role, cells in INPUTS.items():
        add(
            f"--{role}",
            nargs="+",
            action="extend",
            default=[],
            metavar="COL",
            help=f"Input columns with {cells}.",
        )
    add("--group", help="Training column with groups; equal values share a fold.")
    add("--time", help="Training column with times; folds are blocks in time.")
    add("--folds", metavar="KIND", help="Kind of folds, such as scaffold.")
    preset_help = (
        "Stages for minutes (quick) or an hour (cpu) on a CPU, or for GPUs of 16 GB (gpu); add your own to "
        "pipeline/new/presets.yaml (default: quick; none with --oof)."
    )
    add("--preset", metavar="NAME", help=preset_help)
    oof_help = "Folder of external predictions: a folder with oof.csv and test.csv for each stage."
    add("--oof", type=Path, metavar="DIR", help=oof_help)
    add("--force", action="store_true", help="Replace an existing YAML.")


def parse(arguments: Sequence[str] | None = None) -> Namespace:
    """Return the options of a command line.

    `command` is the function of the command, `overrides` has the settings of the command line. With
    --holdout, `competition` is the YAML without the held-out rows and `held_out_of` the competition of the
    command line.
    """
    options = make_parser().parse_args(arguments)
    tracker = options.tracker
    if tracker is not None:
        if importlib.util.find_spec(tracker) is None:
            raise ConfigError(f"--tracker {tracker} needs a package: {PIP_INSTALL} {tracker}")
        os.environ[TRACKER_VARIABLE] = tracker
    options.overrides = Overrides(dict(options.set), options.stages)
    options.result = {}  # what --json prints
    if options.holdout:
        if options.overrides.tables:
            raise ConfigError(
                f"--holdout makes its own tables, so {options.overrides.tables[0]} cannot be set with it. "
                "Change it in the YAML."
            )
        options.held_out_of = options.competition
        options.competition = str(holdout_yaml(options.competition, options.holdout))
    return options


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run the command of a command line; return its exit status, None for 0."""
    options = parse(arguments)
    command: Command = options.command
    if options.holdout and command is not full and not Path(options.competition).exists():
        raise ConfigError(
            f"./run.sh full {options.held_out_of} --holdout {options.holdout:g} keeps the rows out; run it first."
        )
    return cli.run_for_programs(command, options) if options.json else command(options)
