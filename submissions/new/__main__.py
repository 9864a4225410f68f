"""Write a competition's YAML from its CSV files: `./run.sh new NAME --train F --test F --sample F`.

It holds what differs from the defaults. Every guess is explained in a comment beside it; read them once. With
--kaggle SLUG the files of a competition on Kaggle are downloaded first; --train, --test and --sample then say
which of them are the tables, where their names do not.

Reads: the three tables, and with --answers the labels of the test rows.
Writes: competition/configs/NAME.yaml (or NAME itself, if it ends in .yaml).
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from competition import cli, paths
from competition.config import validate
from competition.errors import ConfigError, DataError, UserError
from competition.files import write_atomically
from competition.prepare import describe, prepare
from competition.types import ProblemType
from competition.yaml_files import parse_yaml
from folds.config import FoldsConfig
from folds.kinds import FOLD_KINDS
from models.stages.file import OOF, TEST, common_folds
from submissions.check import check_all
from submissions.config import Config, load_config
from submissions.leaderboard.download import download, find_tables, slug_of
from submissions.new.detect import DetectedTables, Role, detect
from submissions.new.problem_type import choose_problem
from submissions.new.stage_choices import PRESETS, Block, choose_folds, choose_stages, read_preset
from submissions.new.yaml_writer import comments, setting, written_yaml

HINTS = Path(__file__).with_name("hints.yaml")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command."""
    options = argparse.ArgumentParser(
        prog="./run.sh new",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
    add("name", help="name of the competition, or a file that ends in .yaml")
    add("--train", type=Path, help="training table: id, inputs, targets")
    add("--test", type=Path, help="test table: id, inputs")
    add("--sample", type=Path, help="sample submission: id, targets")
    add(
        "--kaggle",
        metavar="SLUG",
        help="download the tables of this competition, as in the address of its page",
    )
    add("--answers", type=Path, help="labels of the test rows, where they are known")
    add("--metric", help="name of a metric, or file.py:function")
    direction = options.add_mutually_exclusive_group()
    own: dict[str, Any] = {"default": None, "dest": "greater", "help": "of a metric of your own"}
    direction.add_argument("--greater-is-better", action="store_true", **own)
    direction.add_argument("--smaller-is-better", action="store_false", **own)
    add(
        "--problem-type", choices=get_args(ProblemType), help="what the targets are, where the guess is wrong"
    )
    add("--id", help="column that names a row (default: the sample's first)")
    add(
        "--target",
        nargs="+",
        default=[],
        help="training columns to predict, in the order of the sample's columns",
    )
    add("--group", help="training column whose equal values must share a fold")
    # A YAML has to name the column of the other kinds.
    kinds = [name for name, kind in FOLD_KINDS.items() if kind.split and not kind.is_ordered_in_time]
    add("--folds", choices=kinds, help="kind of folds")
    preset = (
        "stages for minutes or an hour on a CPU, or for GPUs of 16 GB; yours go to submissions/new/presets"
    )
    presets = sorted(file.stem for file in PRESETS.glob("*.yaml"))
    add("--preset", choices=presets, help=f"{preset} (default: quick; none with --oof)")
    oof = f"folder of predictions made elsewhere: a folder with {OOF} and {TEST} for each stage"
    add("--oof", type=Path, metavar="DIR", help=oof)
    add("--force", action="store_true", help="replace an existing YAML")
    args = options.parse_args(arguments)
    if args.kaggle is None and None in (args.train, args.test, args.sample):
        options.error("--train, --test and --sample are required without --kaggle")
    if args.preset is None and args.oof is None:
        args.preset = "quick"
    return args


def target_file(name: str, force: bool) -> Path:
    """Where the YAML goes."""
    is_file = name.endswith((".yaml", ".yml"))
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name) and name not in (
        "cache",
        "configs",
        "kaggle",
    )
    if not (is_file or plain):
        allowed = "up to 100 letters, digits, _, - and ., and is none of cache, configs and kaggle"
        raise ConfigError(f"NAME takes {allowed}; found {name!r}.")
    path = Path(name).resolve() if is_file else paths.CONFIGS / f"{name}.yaml"
    if path.exists() and not force:
        raise ConfigError(
            f"{path} is there already; remove it, choose another name, or add --force to replace it."
        )
    return path


def file_stages(folder: Path, yaml_file: Path, taken: set[str]) -> list[Block]:
    """A stage for each folder of predictions in `folder`, under a name that is not taken."""
    blocks = []
    for part in sorted({file.parent for name in (OOF, TEST) for file in folder.glob(f"[!.]*/{name}")}):
        name = re.sub(r"^(?=[^A-Za-z])", "stage_", re.sub(r"[^A-Za-z0-9_]", "_", part.name))
        while name in taken:
            name += "_2"
        taken = taken | {name}
        said = f"predictions made elsewhere, the folder {part.name!r}"
        blocks.append(Block(name, {"kind": "file", "folder": written_yaml(part, yaml_file)}, said))
    if not blocks:
        raise DataError(
            f"--oof {folder} has no folder with {OOF} and {TEST}, one for each stage. Correct the path."
        )
    return blocks


def to_yaml(args: argparse.Namespace, path: Path, found: DetectedTables) -> str:
    """The YAML with a comment for each reason."""
    problem = choose_problem(found, args.metric, args.problem_type)
    metric = problem.metric
    if ":" in metric:
        file, function = metric.rsplit(":", 1)
        metric = f"{written_yaml(Path(file), path)}:{function}"
    kind, n_folds, folds_reason = choose_folds(found, problem, args.group, args.folds)
    folds: dict[str, Any] = {"kind": kind} | (
        {} if n_folds == FoldsConfig().n_folds else {"n_folds": n_folds}
    )
    stages = choose_stages(read_preset(args.preset), found, problem) if args.preset else []
    if args.oof is not None:
        theirs = file_stages(args.oof, path, {stage.name for stage in stages})
        stages = [*theirs, *stages]
        shared = common_folds([path.parent / block.settings["folder"] / OOF for block in theirs])
        if shared is not None and args.folds is None and args.group is None:
            folds, folds_reason = (
                {"kind": "file", "file": written_yaml(shared, path)},
                f"theirs, the same in every {OOF}",
            )
            if found.inputs:
                folds["equal_inputs_may_cross"] = True  # what they did is done; folds.make counts such inputs

    lines = [*comments(f"{path.stem}, written by ./run.sh new; look at each GUESS.", ""), "competition:"]
    files = {
        "train": args.train,
        "test": args.test,
        "sample_submission": args.sample,
        "answers": args.answers,
    }
    for key, file in files.items():
        lines += setting(key, file and written_yaml(file, path))
    lines += setting("kaggle", args.kaggle, "where submit and kernel go to")
    lines += setting("id", found.id, found.id_reason)
    lines += setting("targets", found.targets, found.targets_reason)
    lines += setting("problem_type", problem.type, problem.reasons["type"])
    lines += setting("classes", problem.classes or None, *filter(None, [problem.reasons["classes"]]))
    lines += setting("submission_columns", problem.submission_columns, "their names in the sample")
    for role in get_args(Role):
        columns = [column for column in found.columns if column.role == role]
        reasons = [f"{column.name.strip() or '(no name)'}: {column.reason}" for column in columns]
        if role == "left out":
            lines += [line for reason in reasons for line in comments(f"left out: {reason}")]
        else:
            lines += setting(role, [column.name for column in columns] or None, *reasons)
    if found.has_no_molecules:
        lines += setting("empty_smiles", "[Ar]", "GUESS: an empty cell is no molecule; argon stands for it")
    if unreadable := found.unreadable:
        lines += setting("unparsable", "drop", f"GUESS: rows that cannot be read are left out, {unreadable}")
    lines += setting("group", args.group)
    lines += setting("metric", metric, problem.reasons["metric"])
    lines += setting("greater_is_better", args.greater)
    lines += setting("needs", problem.needs, "GUESS: what the metric takes, probabilities or classes")
    lines += ["", *setting("folds", folds, folds_reason, indent=""), ""]
    if args.preset:
        budget_reason = "time of ./run.sh full; --budget none trains all stages in full"
        lines += [*setting("budget", read_preset(args.preset).budget, budget_reason, indent=""), ""]
    lines.append("stages:")
    for stage in stages:
        lines += [*comments(stage.comment), *setting(stage.name, stage.settings)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    args = parse_arguments(arguments)
    path = target_file(args.name, args.force)
    if args.kaggle is not None:
        args.kaggle = slug_of(args.kaggle)
        vars(args).update(
            find_tables(download(args.kaggle), train=args.train, test=args.test, sample=args.sample)
        )
    if args.answers is not None and not args.answers.is_file():
        raise DataError(f"--answers: there is no file {args.answers}.")
    files = args.train, args.test, args.sample
    found = detect(files, args.id, args.target, args.group, inputs_needed=args.preset is not None)
    text = to_yaml(args, path, found)
    validate(Config, parse_yaml(text, path), path)
    write_atomically(path, text + HINTS.read_text(encoding="utf-8"))
    print(text)
    config = load_config(args.name)
    preset = read_preset(args.preset) if args.preset else None
    print(
        f"Written: {paths.display_path(path)}\n"
        f"Next: look at the guesses in it, then ./run.sh full {args.name}\n"
    )
    if preset and preset.warning:
        print(f"Warning: {preset.warning}.\n")
    try:
        print(check_all(config) if args.oof else describe(prepare(config.competition).report))
    except UserError as error:
        raise type(error)(f"Mend the data before ./run.sh full: {error}") from None


if __name__ == "__main__":
    cli.run(main)
