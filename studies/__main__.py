"""Evidence for defaults: `./run.sh study [STUDY]`.

A study varies settings of a stage along axes. Each cell is a stage of its own in a competition that the study makes of
a base, so its jobs are trained, resumed and skipped as any other. Without a name, the studies and their claims.

Reads: studies/<name>.yaml, the base's YAML and tables.
Writes: work/study_<name>_<data>/ with the jobs; work/study_<name>/ with results.csv (a row per job), table.md and
gains.png.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from competition import command
from competition.config import CompetitionConfig, read_yaml, validate
from competition.errors import DataError
from competition.files import read_text_table, write_atomically, write_table
from competition.paths import Paths, made_yaml, shown
from folds.config import FoldsConfig
from models.jobs.plan import plan
from studies.config import STUDIES, Cell, Data, Study, Version, cells_of, find_study, load_study
from studies.results import Part, draw, gains, markdown, tidy
from submissions.check import check
from submissions.config import load_config

TEST_ROWS = 20
"""A study scores held-out folds; that a job also predicts test rows is the price of an ordinary job."""


def run_study(
    file: Path, version: Version = "full", folder: Path | None = None, options: Sequence[str] = (),
    budget: float = math.inf,
) -> str:  # fmt: skip
    """Train what is not trained yet and write what was found; returns what to print.

    Args:
        folder: with data that may not be embedded.
        options: of `./run.sh train`, such as --workers and --executor.
        budget: seconds from now; what cannot finish in them is left for a later run.
    """
    deadline = time.monotonic() + budget
    study = load_study(file, version)
    name = file.stem + ("" if version == "full" else f"_{version}")
    made: dict[str, Path] = {}
    for data, settings in study.data.items():
        if (document := base_document(settings, file, folder)) is not None:
            made[data] = write_competition(f"study_{name}_{data}", settings, document, cells_of(study, data))
            continue
        print(f"{data} is left out: its tables may not be embedded; name the folder that holds "
              f"{settings.folder}/train.csv with --data.")  # fmt: skip
    if not made:
        raise DataError(f"The study {file.stem} needs the tables of at least one of its data; name them with --data.")
    for path in made.values():
        check(load_config(str(path)))
    parts = [_trained(study, data, path, options, deadline) for data, path in made.items()]
    found = tidy(parts, study)
    if not len(found):
        raise DataError("No job of the study is finished within the budget; run it again with more time.")
    table, products = gains(parts, found, study), Paths(f"study_{name}").root
    write_table(products / "results.csv", found)
    text = markdown(table, study)
    write_atomically(products / "table.md", text + "\n")
    draw(table, products / "gains.png")
    said = f"{text}\n\nFigure: {shown(products / 'gains.png')}\nTable of jobs: {shown(products / 'results.csv')}"
    if version != "quick" and file.parent == STUDIES:
        kept = STUDIES / "results" / f"{name}.csv"
        said += f"\nTo keep it with the project: cp {shown(products / 'results.csv')} {shown(kept)}"
    return said


def _trained(study: Study, data: str, path: Path, options: Sequence[str], deadline: float) -> Part:
    """Train the folds that the study measures, by `./run.sh train`, and tell where the jobs lie."""
    folds: Sequence[int | None] = study.folds or [None]
    for fold in folds:
        call = [sys.executable, "-m", "models.jobs.train", "--prepare", str(path), *options]
        call += [] if fold is None else ["--fold", str(fold)]
        if deadline < math.inf:
            call += ["--budget", f"{max(1, int(deadline - time.monotonic()))}s"]
        if status := subprocess.run(call, check=False).returncode:
            sys.exit(status)
    config, paths = load_config(str(path)), Paths.of(str(path))
    jobs = plan(config.competition, dict(config.stages), paths)
    return Part(data, config.competition, paths, jobs, cells_of(study, data))


def base_document(data: Data, study_file: Path, folder: Path | None) -> dict[str, Any] | None:
    """The sections about the data in the base's YAML, with absolute paths; None where its tables are not at hand."""
    beside = study_file.parent / data.base
    path, document = read_yaml(str(beside) if beside.is_file() else data.base)
    if data.folder is not None:
        if folder is None or not (folder / data.folder / "train.csv").is_file():
            return None
        path = folder.resolve() / data.folder / path.name
    sections = (("competition", CompetitionConfig), ("folds", FoldsConfig))
    return {
        name: validate(model, document.get(name, {}), path, name).model_dump(mode="json", exclude_unset=True)
        for name, model in sections
    }


def write_competition(name: str, data: Data, document: dict[str, Any], cells: list[Cell]) -> Path:
    """Write the competition whose stages are the cells, with fewer rows and no answers; returns its YAML."""
    competition = {key: value for key, value in document["competition"].items() if key != "answers"}
    keys = ("train", "test", "sample_submission")
    train, test, sample = (read_text_table(Path(competition[key])) for key in keys)
    if data.rows and data.rows < len(train):
        train = train.iloc[np.sort(np.random.default_rng(0).choice(len(train), data.rows, replace=False))]
    test, row_id = test[:TEST_ROWS], competition.get("id")
    if row_id in test and row_id in sample:  # else the check of the competition says what is wrong
        sample = sample[sample[row_id].isin(test[row_id])]
    for key, table in zip(keys, (train, test, sample), strict=True):
        competition[key] = str(Paths(name).raw / f"{key}.csv")
        write_table(Path(competition[key]), table)
    stages = {cell.name: cell.block for cell in cells}
    content = {"competition": competition, "folds": {**document["folds"], **data.folds}, "stages": stages}
    path = made_yaml(name)
    write_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return path


def claims() -> str:
    """The studies of the project with what they are about."""
    said = {
        file.stem: " ".join(str(read_yaml(str(file))[1]["claim"]).split()) for file in sorted(STUDIES.glob("*.yaml"))
    }
    return "\n".join(textwrap.fill(f"{name}: {claim}", 110, subsequent_indent="    ") for name, claim in said.items())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="./run.sh study", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("study", nargs="?", help="name in studies/, or a YAML file; without one, the list of them")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_const", const="quick", dest="version", help="minutes on 2 cores")
    sizes.add_argument("--short", action="store_const", const="short", dest="version", help="about an hour on 2 cores")
    for name in ("workers", "budget", "executor", "ray-address", "retrain"):
        parser.add_argument(f"--{name}", **command.SHARED[name])
    where = "folder with data that may not be embedded (default: $STUDY_DATA)"
    parser.add_argument("--data", type=Path, metavar="FOLDER", help=where, default=os.environ.get("STUDY_DATA") or None)
    args = parser.parse_args()
    if args.study is None:
        print(claims())
        return
    options = {"--workers": args.workers, "--executor": args.executor, "--ray-address": args.ray_address}
    given = [text for name, value in options.items() if value is not None for text in (name, str(value))]
    given += ["--retrain"] if args.retrain else []
    print(run_study(find_study(args.study), args.version or "full", args.data, given, args.budget or math.inf))


if __name__ == "__main__":
    command.run(main)
