"""Write a competition's YAML from its CSV files: `./run.sh new NAME --train F --test F --sample F`.

It holds what differs from the defaults. Every guess is explained in a comment beside it; read them once. With
--kaggle SLUG the files of a competition on Kaggle are downloaded first; --train, --test and --sample then say which
of them are the tables, where their names do not.

Reads: the three tables, and with --answers the labels of the test rows.
Writes: competition/configs/NAME.yaml (or NAME itself, if it ends in .yaml; or $WORK_DIR/configs/NAME.yaml where the
folder of the code is read-only).
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import yaml

from competition import command, paths
from competition.config import validate
from competition.detect import Column, Found, Role, detect
from competition.errors import ConfigError, DataError, UserError
from competition.files import write_atomically
from competition.metrics import load_metric
from competition.prepare import describe, prepare
from folds.config import FoldsConfig
from models.stages.file import OOF, TEST, common_folds
from submissions.check import check
from submissions.config import Config, load_config
from submissions.leaderboard.download import download, find_tables, slug_of
from submissions.presets import CORES, Block, Preset, choose_folds, choose_metric, choose_stages, measure

WIDTH = 110
KINDS = ("kfold", "stratified", "group", "stratified_group", "scaffold", "cluster")  # the others name a column or file
ROLES: tuple[Role, ...] = ("smiles", "text", "numeric", "categorical")

HINTS = """\
# More that is often worth setting (models/config.py, folds/config.py and submissions/config.py have all of it):
#   in any stage           seeds: [0, 1, 2]        the mean over seeds; more seeds, better and slower
#   in gnn, bert, unimol   epochs, learning_rate, batch_size, schedule: linear | cosine | one_cycle | ...
#   in gnn, bert, unimol   head: {kind: multi_sample, samples: 5, dropout: 0.2}
#   in bert on reactions   template: "{a}.{b}>>{c}" of your columns, enumerate_smiles: order, epochs: 15
#   in submissions         default: convex         plain weights, where folds are groups that are few and unlike
#   in folds               kind: kfold | stratified | group | stratified_group | scaffold | cluster | time | column |
#                          file, and n_folds; ./run.sh folds NAME shows which one looks like the test table
#   in competition         unparsable: drop        leave out rows whose molecule does not parse or whose text is empty
"""


@dataclass(frozen=True)
class Plan:
    """All that is written into the YAML, with the reasons."""

    found: Found
    files: dict[str, str]
    kaggle: str | None
    metric: str
    metric_reason: str
    greater_is_better: bool | None
    group: str | None
    folds: dict[str, Any]
    folds_reason: str
    stages: list[Block]

    @property
    def minutes(self) -> int:
        """Estimated time of all enabled stages."""
        return math.ceil(sum(stage.seconds for stage in self.stages if stage.enabled) / 60)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command."""
    options = argparse.ArgumentParser(
        prog="./run.sh new",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("name", help="name of the competition, or a file that ends in .yaml")
    options.add_argument("--train", type=Path, help="training table: id, inputs, targets")
    options.add_argument("--test", type=Path, help="test table: id, inputs")
    options.add_argument("--sample", type=Path, help="sample submission: id, targets")
    options.add_argument(
        "--kaggle", metavar="SLUG", help="download the tables of this competition, as in the address of its page"
    )
    options.add_argument("--answers", type=Path, help="labels of the test rows, where they are known")
    options.add_argument("--metric", help="name of a metric, or file.py:function")
    direction = options.add_mutually_exclusive_group()
    direction.add_argument(
        "--greater-is-better", action="store_true", default=None, dest="greater", help="of file.py:function"
    )
    direction.add_argument("--smaller-is-better", action="store_false", dest="greater", help="of file.py:function")
    options.add_argument("--id", help="column that names a row (default: the sample's first)")
    options.add_argument(
        "--target", nargs="+", default=[], help="training columns to predict, in the order of the sample's columns"
    )
    options.add_argument("--group", help="training column whose equal values must share a fold")
    options.add_argument("--folds", choices=KINDS, help="kind of folds")
    options.add_argument(
        "--preset",
        choices=["quick", "cpu", "gpu"],
        help="stages for minutes on a CPU, for hours on a CPU, or for a 16 GB GPU (default: quick; none with --oof)",
    )
    options.add_argument(
        "--oof",
        type=Path,
        metavar="DIR",
        help=f"folder of predictions made elsewhere: a folder with {OOF} and {TEST} for each stage",
    )
    options.add_argument("--force", action="store_true", help="replace an existing YAML")
    args = options.parse_args(arguments)
    if args.kaggle is None and None in (args.train, args.test, args.sample):
        options.error("--train, --test and --sample are required without --kaggle")
    if args.preset is None and args.oof is None:
        args.preset = "quick"
    return args


def target_file(name: str, force: bool) -> Path:
    """Where the YAML goes.

    Raises:
        ConfigError: if the name is not usable, or taken and not `force`.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name).resolve()
    else:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or name in ("cache", "configs", "kaggle"):
            raise ConfigError(
                f"NAME must be letters, digits, _, - and . (and not cache, configs or kaggle); found {name!r}."
            )
        beside_code, among_products = paths.config_folders()
        path = (beside_code if os.access(beside_code, os.W_OK) else among_products) / f"{name}.yaml"
        if path.parent == among_products and (beside_code / path.name).exists():
            raise ConfigError(f"NAME must be new; {beside_code / path.name} exists and is read-only. Choose another.")
        path = path.resolve()
    if path.exists() and not force:
        raise ConfigError(f"{path} must not exist yet; remove it, choose another name, or add --force to replace it.")
    return path


def make_plan(args: argparse.Namespace, path: Path) -> Plan:
    """Detect and choose everything.

    Raises:
        ConfigError, DataError, SubmissionError: as `detect`, `choose_folds`, `load_metric` and `file_stages`.
    """
    if args.metric is not None:
        if ":" in args.metric and args.greater is None:
            raise ConfigError(f"--metric {args.metric} must come with --greater-is-better or --smaller-is-better.")
        load_metric(args.metric, args.greater)
    if args.answers is not None and not args.answers.is_file():
        raise DataError(f"--answers must be a CSV file; there is no {args.answers}.")
    preset: Preset | None = args.preset
    found = detect(
        args.train, args.test, args.sample, args.id, args.target, args.group, inputs_needed=preset is not None
    )
    metric, metric_reason = choose_metric(found) if args.metric is None else (args.metric, "named with --metric")
    if ":" in metric:
        file, function = metric.rsplit(":", 1)
        metric = f"{_as_written(Path(file), path)}:{function}"
    kind, n_folds, folds_reason = choose_folds(found, args.group, args.folds)
    folds = {"kind": kind} | ({} if n_folds == FoldsConfig().n_folds else {"n_folds": n_folds})
    stages = choose_stages(preset, found, measure(found, n_folds)) if preset else []
    if args.oof is not None:
        theirs = file_stages(args.oof, path, {stage.name for stage in stages})
        stages = [*theirs, *stages]
        file = common_folds([path.parent / block.settings["folder"] / OOF for block in theirs if block.enabled])
        if file is not None and args.folds is None and args.group is None:
            folds = {"kind": "file", "file": _as_written(file, path)}
            # What they did is done; folds.make counts such inputs.
            folds |= {"equal_inputs_may_cross": True} if any(c.role != "left out" for c in found.columns) else {}
            folds_reason = "theirs, the same in every oof.csv"
    given = {"train": args.train, "test": args.test, "sample_submission": args.sample, "answers": args.answers}
    return Plan(
        found=found,
        files={key: _as_written(file, path) for key, file in given.items() if file is not None},
        kaggle=args.kaggle,
        metric=metric,
        metric_reason=metric_reason,
        greater_is_better=args.greater,
        group=args.group,
        folds=folds,
        folds_reason=folds_reason,
        stages=stages,
    )


def file_stages(folder: Path, yaml_file: Path, taken: set[str]) -> list[Block]:
    """A stage for each folder of predictions in `folder`, sorted; a folder without any is written as a comment.

    Args:
        folder: of --oof.
        yaml_file: that the stages are written for.
        taken: names of other stages.

    Raises:
        DataError: if there is none.
    """
    folders = sorted(f for f in folder.iterdir() if f.is_dir() and f.name[0] != ".") if folder.is_dir() else []
    usable = [part for part in folders if (part / OOF).exists() or (part / TEST).exists()]
    if not usable:
        found = f"{folder} has none" if folder.is_dir() else f"there is no folder {folder}"
        raise DataError(
            f"--oof must be a folder with a folder for each stage, in it {OOF} and {TEST}; {found}. Correct the path."
        )
    blocks, names = [], set(taken)
    for part in folders:
        legal = re.sub(r"^(?=[^A-Za-z])", "stage_", re.sub(r"[^A-Za-z0-9_]", "_", part.name))
        name = next(name for name in chain([legal], (f"{legal}_{i}" for i in count(2))) if name not in names)
        names.add(name)
        said = f"predictions made elsewhere{'' if name == part.name else f', the folder {part.name!r}'}"
        said += "" if part in usable else f"; left out, since it has neither {OOF} nor {TEST}"
        settings = {"kind": "file", "folder": _as_written(part, yaml_file)}
        blocks.append(Block(name, settings, said, seconds=0, enabled=part in usable))
    return blocks


def _as_written(file: Path, yaml_file: Path) -> str:
    """Path relative to the YAML where both move together, else absolute."""
    file, folder = file.resolve(), yaml_file.parent
    together = file.is_relative_to(folder) or (
        file.is_relative_to(paths.PROJECT) and folder.is_relative_to(paths.PROJECT)
    )
    return Path(os.path.relpath(file, folder)).as_posix() if together else str(file)


def to_yaml(name: str, plan: Plan) -> str:
    """The YAML with its comments."""
    found = plan.found
    lines = _comments(f"{name}: {found.problem}. Written by ./run.sh new; look at each GUESS.", "")
    lines.append("competition:")
    for key, file in plan.files.items():
        lines += _setting(key, file, "read by the final scoring alone" if key == "answers" else "")
    if plan.kaggle is not None:
        lines += _setting("kaggle", plan.kaggle, "where submit and kernel go to")
    lines += _setting("id", found.id, found.id_reason)
    missing = ", ".join(f"{target} {n}" for target, n in found.missing_labels.items())
    lines += _setting("targets", found.targets, found.targets_reason, f"labels missing: {missing}" if missing else "")
    if found.submission_columns:
        lines += _setting("submission_columns", found.submission_columns, "the targets' names in the sample")
    for role in ROLES:
        columns = [column for column in found.columns if column.role == role]
        if columns:
            reasons = [f"{_name(column)}: {column.reason}" for column in columns]
            lines += _setting(role, [column.name for column in columns], *reasons)
    molecules = [column for column in found.columns if column.role == "smiles"]
    if len(molecules) > 1 and any(column.empty for column in molecules):
        lines += _setting("empty_smiles", "[Ar]", "GUESS: an empty cell is no molecule; argon stands for it")
    if plan.group is not None:
        lines += _setting("group", plan.group)
    for column in found.columns:
        if column.role == "left out":
            lines += _comments(f"left out: {_name(column)}: {column.reason}")
    for group in found.groups:
        lines += _comments(f"with folds.kind group, if rows of one {group} belong together: group: {_value(group)}")
    lines += _setting("metric", plan.metric, plan.metric_reason)
    if plan.greater_is_better is not None:
        lines += _setting("greater_is_better", plan.greater_is_better)
    lines += ["", *_setting("folds", plan.folds, plan.folds_reason, indent=""), "", "stages:"]
    for stage in plan.stages:
        lines += _comments(stage.comment)
        lines.append(f"  {'' if stage.enabled else '# '}{stage.name}: {_value(stage.settings)}")
    return "\n".join(lines) + "\n\n" + HINTS


def _setting(key: str, value: Any, *reasons: str, indent: str = "  ") -> list[str]:
    """Lines of one setting, its reason beside it where there is room, else above."""
    reasons = tuple(reason for reason in reasons if reason)
    line = f"{indent}{key}: {_value(value)}"
    if len(reasons) == 1 and len(line) + len(reasons[0]) + 4 <= WIDTH:
        return [f"{line}  # {_words(reasons[0])}"]
    return [*(comment for reason in reasons for comment in _comments(reason, indent)), line]


def _comments(text: str, indent: str = "  ") -> list[str]:
    """Text as lines of comment."""
    return textwrap.wrap(_words(text), WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   ")


def _value(value: Any) -> str:
    """A value on one line of YAML, quoted wherever plain text would be read as something else."""
    several_lines = isinstance(value, str) and len(value.splitlines()) > 1
    style = '"' if several_lines or (isinstance(value, list) and any(len(v.splitlines()) > 1 for v in value)) else None
    dumped = yaml.safe_dump(
        [value], default_flow_style=True, default_style=style, width=math.inf, allow_unicode=True, sort_keys=False
    )
    return dumped.strip()[1:-1]


def _name(column: Column) -> str:
    return column.name if column.name.strip() else "(no name)"


def _words(text: str) -> str:
    """Text on one line; column names may hold line ends."""
    return " ".join(text.split())


def summary(name: str, plan: Plan, preset: Preset | None) -> str:
    """What was found, guessed and left out, for the terminal."""
    found = plan.found
    rows = [
        ("found", f"{found.problem}; {len(found.train)} training rows, {len(found.test)} test rows"),
        ("id", f"{found.id}: {found.id_reason}"),
    ]
    for target in found.targets:
        y = found.y[target]
        missing = found.missing_labels.get(target)
        rows.append(
            ("target", f"{target}: {y.min():.4g} to {y.max():.4g}" + (f", {missing} labels missing" if missing else ""))
        )
    rows.append(("", found.targets_reason))
    rows += [
        (c.role, f"{_name(c)}: {c.reason}") for role in (*ROLES, "left out") for c in found.columns if c.role == role
    ]
    rows.append(("metric", f"{plan.metric}: {plan.metric_reason}"))
    rows.append(("folds", f"{plan.folds['kind']}: {plan.folds_reason}"))
    rows += [("stage", f"{s.name}: {s.comment}") for s in plan.stages if s.enabled]
    rows += [("left out", f"stage {s.name}: {s.comment}") for s in plan.stages if not s.enabled]
    time = {"gpu": "not estimated for a GPU", None: "seconds: nothing is trained"}
    rows.append(("time", time.get(preset, f"about {plan.minutes} min on {CORES} cores, all folds")))
    rows += [("WARNING", f"column {c.name}: {c.reason}") for c in found.columns if c.warning]
    rows += [
        ("consider", f"column {group} is only in train; if its rows belong together: --group {_words(group)!r}")
        for group in found.groups
    ]
    return "\n".join(
        line
        for label, text in rows
        for line in textwrap.wrap(_words(text), WIDTH, initial_indent=f"{label:12}", subsequent_indent=" " * 12)
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    args = parse_arguments(arguments)
    path = target_file(args.name, args.force)
    if args.kaggle is not None:
        args.kaggle = slug_of(args.kaggle)
        tables = find_tables(download(args.kaggle), train=args.train, test=args.test, sample=args.sample)
        args.train, args.test, args.sample = tables["train"], tables["test"], tables["sample"]
    plan = make_plan(args, path)
    text = to_yaml(path.stem, plan)
    validate(Config, yaml.safe_load(text), path)
    write_atomically(path, text)
    print(summary(path.stem, plan, args.preset))
    named = args.name if args.name.endswith((".yaml", ".yml")) else path.stem
    config = load_config(named)
    try:
        print("\n" + (check(config) if args.oof else describe(prepare(config.competition).report)))
    except UserError as error:
        print(
            f"\nBefore ./run.sh full can go on, the data must be mended:\n{type(error).__name__}: {error}",
            file=sys.stderr,
        )
    print(f"\nWritten: {paths.shown(path)}\nNext: look at the guesses in it, then ./run.sh full {named}")


if __name__ == "__main__":
    command.run(main)
