"""Repeat the experiment behind a default: `./run.sh study [STUDY]`.

A study varies settings of a stage along axes. Each cell is a stage in a competition that is made from a base, so
its jobs are trained, resumed and skipped like others. Without a name, the studies and their claims are listed.
Options of `./run.sh train`, such as --workers=2 and --executor=ray, are passed on.

Reads: studies/<name>.yaml, the base's YAML and tables. Writes: work/study_<name>_<data>/ with the jobs;
work/study_<name>/ with results.csv (a row per job) and table.md.
"""

import argparse
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition.clean import read_table_with_ids
from competition.config import CompetitionConfig, read_yaml, validate
from core import cli
from core.errors import DataError
from core.files import write_atomically, write_table
from core.paths import Paths, display_path, generated_yaml
from core.yaml_files import dump_yaml
from folds.config import FoldsConfig
from models.jobs.plan import JobPlan, make_plan
from studies.config import CLASS, STUDIES, Cell, Study, StudyData, StudySize, cells_of, find_study, load_study
from studies.results import gains, markdown, tidy
from submissions.check import check_all
from submissions.config import load_config

TEST_ROWS = 20
"""Number of test rows: a study scores held-out folds only, but every job predicts test rows."""


def run_study(
    file: Path, version: StudySize = "full", folder: Path | None = None, options: Sequence[str] = ()
) -> str:
    """Train the missing jobs and write the results; return lines to print.

    Args:
        folder: folder with data that may not be embedded.
        options: options of `./run.sh train`, such as --workers and --executor.
    """
    study = load_study(file, version)
    name = file.stem + ("" if version == "full" else f"_{version}")
    made: dict[str, Path] = {}
    for data, settings in study.data.items():
        where = (folder or Path()) / settings.folder if settings.folder else None
        if where and not (where / "train.csv").is_file():
            print(f"{data} is left out: its tables may not be embedded; name what holds {where} with --data.")
            continue
        made[data], beside = generated_yaml(f"study_{name}_{data}"), file.parent / settings.base
        base = str(beside) if beside.is_file() else settings.base
        write_competition(made[data], base, where, settings, cells_of(study, data))
        check_all(load_config(str(made[data])))
    if not made:
        raise DataError(
            f"The study {file.stem} needs the tables of at least one of its data; name them with --data."
        )
    plans = {data: _trained(study, path, options) for data, path in made.items()}
    jobs = tidy(plans, study)
    results, text = Paths(f"study_{name}").root / "results.csv", markdown(gains(plans, jobs, study), study)
    write_table(results, jobs)
    write_atomically(results.with_name("table.md"), text + "\n")
    lines = f"{text}\n\nTable of jobs: {display_path(results)}"
    if version != "quick" and file.parent == STUDIES:
        copy = STUDIES / "results" / f"{name}.csv"
        lines += f"\nTo keep it with the project: cp {display_path(results)} {display_path(copy)}"
    return lines


def _trained(study: Study, path: Path, options: Sequence[str]) -> JobPlan:
    """Train the folds of the study with `./run.sh train`; return the plan of the jobs."""
    folds: Sequence[int | None] = study.folds or [None]
    for fold in folds:
        call = [sys.executable, "-m", "models.jobs.train", "--prepare", str(path), *options]
        call += [] if fold is None else ["--fold", str(fold)]
        status = subprocess.run(call, check=False).returncode
        if status:
            sys.exit(status)
    config = load_config(str(path))
    return make_plan(config.competition, dict(config.stages))


def write_competition(path: Path, base: str, folder: Path | None, data: StudyData, cells: list[Cell]) -> None:
    """Write the competition with the cells as stages: that of the base, with fewer rows and no answers.

    Args:
        base: name or YAML.
        folder: folder of its tables, if they are not at the paths of the YAML.
    """
    base_yaml, document = read_yaml(base)
    base_yaml = folder.resolve() / base_yaml.name if folder else base_yaml
    config = validate(CompetitionConfig, document.get("competition", {}), base_yaml, "competition")
    folds = validate(FoldsConfig, document.get("folds", {}), base_yaml, "folds")
    files = config.train, config.test, config.sample_submission
    train, test, sample = (read_table_with_ids(file, [config.id]) for file in files)
    if data.rows and data.rows < len(train):
        train = train.iloc[np.sort(np.random.default_rng(0).choice(len(train), data.rows, replace=False))]
    test = test[:TEST_ROWS]
    sample = sample[sample[config.id].isin(test[config.id])]
    competition = config.model_dump(mode="json", exclude_unset=True, exclude={"answers"})
    if data.bin_edges:
        if len(config.targets) > 1:
            raise DataError(
                f"bin_edges need a base with a single target; {base} has {', '.join(config.targets)}."
            )
        target = config.targets[0] + CLASS
        classes = [f"class_{number}" for number in range(len(data.bin_edges) + 1)]
        numbers = train[config.targets[0]].astype(float)
        train[target] = np.array(classes)[np.digitize(numbers, data.bin_edges)]
        sample = pd.DataFrame({config.id: sample[config.id], target: classes[0]})
        competition |= {
            "targets": [target],
            "problem_type": "multiclass",
            "classes": classes,
            "metric": data.metric,
        }
    for key, table in (("train", train), ("test", test), ("sample_submission", sample)):
        competition[key] = str(Paths(path.stem).raw / f"{key}.csv")
        write_table(Path(competition[key]), table)
    content = {
        "competition": competition,
        "folds": folds.model_dump(mode="json", exclude_unset=True) | data.folds,
        "stages": {cell.name: cell.block for cell in cells},
    }
    write_atomically(path, dump_yaml(content))


def claims() -> str:
    """Return the studies of the project with their claims."""
    lines = [f"{file.stem}: {load_study(file, 'full').claim}" for file in sorted(STUDIES.glob("*.yaml"))]
    return "\n".join(textwrap.fill(claim, 110, subsequent_indent="    ") for claim in lines)


def main() -> None:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(
        prog="./run.sh study", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "study", nargs="?", help="name in studies/, or a YAML file; without one, the list of them"
    )
    parser.set_defaults(version="full")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--quick", action="store_const", const="quick", dest="version", help="minutes on 2 cores"
    )
    sizes.add_argument(
        "--short", action="store_const", const="short", dest="version", help="about an hour on 2 cores"
    )
    where = "folder with data that may not be embedded (default: $STUDY_DATA)"
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help=where, default=os.environ.get("STUDY_DATA") or None
    )
    args, of_train = parser.parse_known_args()
    print(run_study(find_study(args.study), args.version, args.data, of_train) if args.study else claims())


if __name__ == "__main__":
    cli.run(main)
