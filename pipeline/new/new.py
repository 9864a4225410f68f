"""A competition's YAML from its CSV files: `./run.sh new`.

The YAML has the settings that differ from their defaults, and each guess is explained in a comment.
"""

import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from competition.cells import require_columns
from competition.config import validate
from competition.metrics import get_metric, top_k_of
from competition.prepare import describe, prepare
from competition.task import class_names
from core import paths
from core.errors import ConfigError, DataError, UserError
from core.files import write_atomically, write_table
from core.user_tables import read_text_table
from core.yaml_files import dump_yaml, parse_yaml
from folds.kinds import FoldsConfig
from models.registry import stage_class
from models.stages.file import OOF, TEST, common_folds
from pipeline.check import check_all
from pipeline.new.column_roles import Role, without_censored
from pipeline.new.detect import DetectedTables, detect
from pipeline.new.pairs import PairGuess, find_pairs, with_compared_texts
from pipeline.new.problem_type import ProblemGuess, choose_problem
from pipeline.new.stage_choices import Block, FoldChoice, choose_folds, choose_stages, read_presets
from pipeline.new.swap import SwapGuess, find_swap
from pipeline.new.yaml_writer import comments, path_in_yaml, setting
from submissions.config import Config, load_config
from submissions.kaggle.client import download, find_tables, slug_of

HINTS = Path(__file__).with_name("hints.yaml")


def target_file(name: str, force: bool) -> Path:
    """Return the file of the YAML."""
    is_file = name.endswith((".yaml", ".yml"))
    reserved = ("cache", "configs", "kaggle")
    is_name = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name) and name not in reserved
    if not is_file and not is_name:
        raise ConfigError(
            f"NAME takes up to 100 letters, digits, _, - and ., except {', '.join(reserved)}; got {name!r}."
        )
    path = Path(name).resolve() if is_file else paths.CONFIGS / f"{name}.yaml"
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; remove it, choose another name, or add --force to replace it.")
    return path


def file_stages(folder: Path, yaml_file: Path, used_names: set[str]) -> list[Block]:
    """Return a stage for each folder of external predictions in `folder`, with unused names."""
    blocks = []
    files = [*folder.glob(f"[!.]*/{OOF}"), *folder.glob(f"[!.]*/{TEST}")]
    for stage_folder in sorted({file.parent for file in files}):
        name = re.sub(r"^(?=[^A-Za-z])", "stage_", re.sub(r"[^A-Za-z0-9_]", "_", stage_folder.name))
        while name in used_names:
            name += "_2"
        used_names = used_names | {name}
        reason = f"external predictions, the folder {stage_folder.name!r}"
        blocks.append(Block(name, {"kind": "file", "folder": path_in_yaml(stage_folder, yaml_file)}, reason))
    if not blocks:
        raise DataError(
            f"--oof {folder} has no folder with {OOF} and {TEST}, one for each stage. Correct the path."
        )
    return blocks


class Guesses(NamedTuple):
    """What `new` chooses for the columns of some tables."""

    problem: ProblemGuess
    folds: FoldChoice
    pairs: list[PairGuess]
    swap: SwapGuess | None
    stages: list[Block]


def yaml_text(args: Namespace, path: Path, tables: DetectedTables) -> str:
    """Return the YAML with a comment for each reason."""
    tables = with_compared_texts(tables)
    problem = choose_problem(tables, args.metric, args.problem_type)
    compared = tables if args.test != args.train else replace(tables, test=tables.test.head(0))
    choice = choose_folds(compared, problem, args.group, args.folds, args.time)
    if args.oof is None:
        tables = tables.without_groups(choice.units, choice.time)
    folds: dict[str, Any] = {"kind": choice.kind}
    folds_reason = choice.reason
    if choice.n_folds != FoldsConfig().n_folds:
        folds["n_folds"] = choice.n_folds
    swap = find_swap(tables, problem)
    pairs = find_pairs(tables, swap.setting["columns"] if swap and "labels" in swap.setting else [])
    stages: list[Block] = []
    if args.preset:
        in_time = choice.kind == "time"
        if in_time:
            folds_reason += (
                "; by final_fit: refit the models of the test table train on the latest block, too"
            )
        n_orders = len(swap.setting["columns"][0]) if swap else 1
        paired = [name for pair in pairs for name in pair.columns]
        stages = choose_stages(
            args.preset, tables, problem, compared=paired, n_orders=n_orders, in_time=in_time
        )
    if args.oof is not None:
        external = file_stages(args.oof, path, {stage.name for stage in stages})
        stages = [*external, *stages]
        shared = common_folds([path.parent / block.settings["folder"] / OOF for block in external], tables.id)
        if shared is not None and args.folds is None and args.group is None:
            folds = {"kind": "file", "file": path_in_yaml(shared, path)}
            folds_reason = f"the same folds in every {OOF}"
            choice = choice._replace(units=[], time=args.time)
            if tables.inputs:
                folds["allow_split_duplicates"] = True  # folds.make counts such inputs
    title = f"{path.stem}, written by ./run.sh new; check each GUESS."
    lines = [
        *comments(title, ""),
        *_competition_lines(args, path, tables, Guesses(problem, choice, pairs, swap, stages)),
    ]
    lines += ["", *setting("folds", folds, folds_reason, indent=""), ""]
    if args.preset:
        budget_reason = "time of ./run.sh full; --budget none trains all stages in full"
        lines += [
            *setting("budget", read_presets().presets[args.preset].budget, budget_reason, indent=""),
            "",
        ]
    lines.append("stages:")
    for stage in stages:
        lines += [*comments(stage.comment), *setting(stage.name, stage.settings)]
    return "\n".join(lines) + "\n"


def _censored_lines(tables: DetectedTables) -> list[str]:
    """Return the line of `censored`, if targets have censored numbers."""
    labels = tables.train[tables.targets]
    n_bounds = int((labels != labels.apply(without_censored)).to_numpy().sum())
    reason = f"GUESS: {n_bounds} censored labels such as >100; networks have a one-sided error for them"
    return setting("censored", "bound" if n_bounds else None, reason)


def _competition_lines(args: Namespace, path: Path, tables: DetectedTables, guesses: Guesses) -> list[str]:
    """Return the lines of the section `competition:`."""
    problem, choice, pairs, swap, stages = guesses
    metric = problem.metric
    if ":" in metric:
        file, function = metric.rsplit(":", 1)
        metric = f"{path_in_yaml(Path(file), path)}:{function}"
    files = {
        "train": args.train,
        "test": args.test,
        "sample_submission": args.sample,
        "answers": args.answers,
    }
    lines = ["competition:"]
    for key, table in files.items():
        lines += setting(key, table and path_in_yaml(table, path))
    lines += setting("kaggle", args.kaggle, "slug on Kaggle")
    lines += setting("id", tables.id, tables.id_reason)
    lines += setting("targets", tables.targets, tables.targets_reason)
    lines += setting("problem_type", problem.type, problem.reasons["type"])
    lines += setting("classes", problem.classes or None, *filter(None, [problem.reasons["classes"]]))
    has_networks = any(stage_class(stage.settings["kind"]).reports_progress for stage in stages)
    if problem.type == "regression" and has_networks:
        lines += _censored_lines(tables)
    lines += setting("submission_columns", problem.submission_columns, "their names in the sample")
    for role in get_args(Role):
        columns = [column for column in tables.columns if column.role == role]
        reasons = [f"{column.name.strip() or '(no name)'}: {column.reason}" for column in columns]
        if role != "left out":
            lines += setting(role, [column.name for column in columns] or None, *reasons)
            continue
        for reason in reasons:
            lines += comments(f"left out: {reason}")
    reasons = [f"{' and '.join(pair.columns)}: {pair.reason}" for pair in pairs]
    lines += setting("pairs", [pair.columns for pair in pairs] or None, *reasons)
    if swap is not None:
        lines += setting("swap", swap.setting, swap.reason)
    if tables.has_no_molecules:
        lines += setting("empty_smiles", "[Ar]", "GUESS: an empty cell means no molecule; argon replaces it")
    if tables.unreadable:
        unparsable_reason = f"GUESS: unreadable rows are left out, {tables.unreadable}"
        lines += setting("unparsable", "drop", unparsable_reason)
    group = [unit.setting for unit in choice.units]
    lines += setting("group", (group[0] if len(group) == 1 else group) or None)
    lines += setting("time", choice.time)
    lines += setting("metric", metric, problem.reasons["metric"])
    lines += setting("greater_is_better", args.greater_is_better)
    lines += setting("metric_needs", problem.needs, "GUESS: what the metric takes, probabilities or classes")
    return lines


def complete_tables(args: Namespace, path: Path) -> None:
    """Set the tables that are not given: the training table for the test table, and a new sample submission.

    The sample is written to the folder `raw` of the competition. It has zeros in a column for each target, or for each
    class of a single target if the metric scores probabilities of several classes.
    """
    files = [str(file) for file in (args.train, args.test, args.sample) if file]
    if len({*files}) < len(files):
        raise DataError(f"--train, --test and --sample must be different files; got {', '.join(files)}.")
    args.test = args.test or args.train
    if args.sample is not None:
        return
    id_column = args.id or "id"
    train, test = read_text_table(args.train), read_text_table(args.test)
    for file, table in ((args.train, train), (args.test, test)):
        if id_column not in table:
            raise DataError(
                f"{file} has no column {id_column!r}. Add it with the numbers of the rows, or name the id column with "
                "--id: every table needs it, and it is not used as an input."
            )
    require_columns(train, args.target, args.train)
    columns = args.target
    metric = get_metric(args.metric or "")
    has_probabilities = metric and "multiclass" in metric.types and metric.kind != "labels"
    classes = class_names(train[columns])
    if has_probabilities and not top_k_of(args.metric) and len(classes) > 2:
        columns = classes
    args.sample = paths.Paths(path.stem).raw / "sample_submission.csv"
    write_table(args.sample, test[[id_column]].assign(**dict.fromkeys(columns, "0")))


def _with_settings(tables: DetectedTables, given: Mapping[str, Any]) -> DetectedTables:
    """Return the tables with the roles that settings of the user give their columns.

    Args:
        given: dotted path in the YAML -> value. A list of a role has all of its columns.
    """
    others: dict[str, str] = {}
    for key in ("weight", "fold_column", "auxiliary_targets"):
        names = given.get(f"competition.{key}") or []
        others |= dict.fromkeys([names] if isinstance(names, str) else names, key)
    listed = {role: given.get(f"competition.{role}") for role in get_args(Role)}
    for column in tables.columns:
        role = next((role for role, names in listed.items() if column.name in (names or [])), None)
        if role:
            column = replace(column, role=role, reason=f"set as competition.{role}", is_given=True)
        elif column.name in others:
            column = replace(column, role="left out", reason=f"set as competition.{others[column.name]}")
        elif listed[column.role] is not None:
            column = replace(
                column, role="left out", reason=f"not in competition.{column.role}, which is set"
            )
        tables = tables.with_column(column)
    return tables


def write(args: Namespace) -> None:
    """Write the YAML with the options of the command line, and print it and what its tables are like."""
    path = target_file(args.name, args.force)
    if args.kaggle is not None:
        args.kaggle = slug_of(args.kaggle)
        vars(args).update(
            find_tables(download(args.kaggle), train=args.train, test=args.test, sample=args.sample)
        )
    if args.answers is not None and not args.answers.is_file():
        raise DataError(f"--answers: file {args.answers} does not exist.")
    complete_tables(args, path)
    files = args.train, args.test, args.sample
    roles: dict[str, Role] = {}
    for role in get_args(Role)[:-1]:  # not "left out"
        for name in getattr(args, role):
            if name in roles:
                raise DataError(f"--{roles[name]} and --{role} both name {name!r}; leave one out.")
            roles[name] = role
    tables = detect(files, args.id, args.target, args.group, args.time, roles)
    tables = _with_settings(tables, args.overrides.values)
    text = guesses = yaml_text(args, path, tables)
    if args.overrides.values:
        document = parse_yaml(text, path)
        args.overrides.apply(document, path)
        text = dump_yaml(document)
        print(f"settings instead of guesses: {args.overrides}")
    if tables.inputs:  # without them, the YAML is written to be completed
        validate(Config, parse_yaml(text, path), path)
    write_atomically(path, text + HINTS.read_text(encoding="utf-8"))
    print(f"{guesses}\nWritten: {paths.display_path(path)}")
    if args.preset:
        tables.require_inputs()
    config = load_config(args.name)
    print(f"Next: check the guesses in it, then run ./run.sh full {args.name}\n")
    warning = read_presets().presets[args.preset].warning if args.preset else None
    if warning:
        print(f"Warning: {warning}.\n")
    try:
        print(check_all(config) if args.oof else describe(prepare(config.competition).report))
    except UserError as error:
        raise type(error)(f"Correct the data before ./run.sh full: {error}") from None
