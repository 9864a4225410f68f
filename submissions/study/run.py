"""Evidence for defaults: `./run.sh study [STUDY]`.

A study varies settings of a stage along axes; each cell is a stage of its own in a competition that the study makes of
a base, so its jobs are trained, resumed and skipped as any other. Without a name, the studies and their claims.

Reads: studies/<name>.yaml, the base's YAML and tables.
Writes: work/study_<name>_<data>/ with the jobs; work/study_<name>/ with results.csv (a row per job), curves.csv where
jobs are monitored, averages.csv where there are several seeds, table.md, plots and index.html.
"""

from __future__ import annotations

import argparse
import os
import textwrap
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from competition import command, prepare
from competition.config import load_yaml
from competition.errors import ConfigError, DataError
from competition.files import write_atomically, write_table
from competition.metrics import load_metric
from competition.paths import Paths, shown
from folds import make
from models.jobs.executor import Executor, runner_of
from models.jobs.plan import Plan, plan
from models.jobs.tasks import Runner
from models.jobs.train import train
from submissions.check import check
from submissions.config import Config, load_config
from submissions.study.averages import averages
from submissions.study.cells import Cell, cells_of
from submissions.study.config import STUDIES, Data, Study
from submissions.study.load import Version, find_study, load_study
from submissions.study.page import page
from submissions.study.pictures import draw
from submissions.study.results import Part, curves, equalities, results
from submissions.study.summary import markdown, summaries
from submissions.study.tables import Skipped, base_document, write_competition


def run_study(
    file: Path,
    version: Version = "full",
    folder: Path | None = None,
    n_workers: int | None = None,
    budget: float | None = None,
    runner: Callable[[int | None, int], Runner] = Executor,
) -> str:
    """Train what is not trained yet and write what was found; returns what to print.

    Args:
        folder: with data that may not be embedded.
        budget: seconds from now; what cannot finish in them is left for a later run.
        runner: what places jobs, made from a number of workers and one of tasks.

    Raises:
        ConfigError: with what is wrong with the study, before any work.
        DataError: if none of its data is there, or of the first job that fails.
    """
    deadline = None if budget is None else time.monotonic() + budget
    study = load_study(file, version)
    name = f"study_{file.stem}" + ("" if version == "full" else f"_{version}")
    configs, skipped = _competitions(study, file, name, folder)
    if not configs:
        reasons = " ".join(f"{data}: {reason}" for data, reason in skipped.items())
        raise DataError(f"a study must have the tables of at least one of its data; {reasons}")
    for data, reason in skipped.items():
        print(f"{data} is skipped: {reason}")
    with ExitStack() as stack:
        for path, _, _ in configs.values():
            stack.enter_context(command.locked(Paths.of(path)))
        parts = [_planned(study, data, *config) for data, config in configs.items()]
        for part, (_, config, _) in zip(parts, configs.values(), strict=True):
            print(f"{part.data}: {len(part.cells)} cells, {len(part.todo.jobs)} jobs")
            left = None if deadline is None else max(1.0, deadline - time.monotonic())
            train(part.competition, dict(config.stages), part.paths, part.todo, n_workers, left, runner)
        return _write(study, file, name, parts, skipped, _command(study, file, version))


def _competitions(
    study: Study, file: Path, name: str, folder: Path | None
) -> tuple[dict[str, tuple[str, Config, list[Cell]]], dict[str, str]]:
    """Data -> the YAML that was made of it, what it says, and its cells, all checked; and data -> why it is skipped."""
    configs, skipped = {}, {}
    cells = {data: cells_of(study, data) for data in study.data}
    for data, value in study.data.items():
        source = Data(base=value) if isinstance(value, str) else value
        document = base_document(source, file, folder)
        if isinstance(document, Skipped):
            skipped[data] = document.reason
        elif cells[data]:
            path = write_competition(f"{name}_{data}", source, document, cells[data])
            configs[data] = (str(path), load_config(str(path)), cells[data])
    for _, config, _ in configs.values():
        check(config)
    return configs, skipped


def _planned(study: Study, data: str, path: str, config: Config, cells: list[Cell]) -> Part:
    """Clean tables, folds, and the jobs that the study measures."""
    paths, competition = Paths.of(path), config.competition
    prepare.run(competition, paths, Path(path))
    make.run(competition, config.folds, paths)
    todo = plan(competition, dict(config.stages), paths)
    wanted = list(range(todo.n_folds)) if study.folds is None else study.folds
    if not set(wanted) <= set(range(todo.n_folds)):
        raise ConfigError(f"folds: must be from 0 to {todo.n_folds - 1} on {data}; found {wanted}.")
    jobs = [job for job in todo.jobs if job.fold in wanted]
    metric = load_metric(competition.metric, competition.greater_is_better)
    return Part(data, competition, metric, paths, Plan(jobs, todo.keys, todo.n_folds, todo.test_key), cells)


def _write(study: Study, file: Path, name: str, parts: list[Part], skipped: dict[str, str], words: str) -> str:
    folder = Paths(name).root
    found, by_epoch, by_seeds = results(parts, study), curves(parts, study), averages(parts, study)
    if not len(found):
        return "No job is finished within the budget; run again with more time."
    made, equal = summaries(parts, found, study), equalities(parts, study)
    write_table(folder / "results.csv", found)
    for file_name, table in (("curves.csv", by_epoch), ("averages.csv", by_seeds)):
        if len(table):
            write_table(folder / file_name, table)
    text = markdown(made, equal, skipped, study)
    write_atomically(folder / "table.md", text + "\n")
    pictures = draw(made, by_epoch, by_seeds, folder)
    write_atomically(folder / "index.html", page(name, words, study, made, equal, skipped, pictures))
    kept = STUDIES / "results" / f"{name.removeprefix('study_')}.csv"
    lines = [text, f"Page: {shown(folder / 'index.html')}\nTable of jobs: {shown(folder / 'results.csv')}"]
    if not name.endswith("_quick") and file.parent == STUDIES:
        lines[-1] += f"\nTo keep it with the project: cp {shown(folder / 'results.csv')} {shown(kept)}"
    return "\n\n".join(lines)


def _command(study: Study, file: Path, version: Version) -> str:
    named = file.stem if file.parent == STUDIES else str(shown(file))
    words = ["./run.sh study", named, *([] if version == "full" else [f"--{version}"])]
    if any(isinstance(data, Data) and data.folder for data in study.data.values()):
        words.append("--data FOLDER")
    return " ".join(words)


def claims() -> str:
    """The studies of the project with what they are about."""
    parts = []
    for file in sorted(STUDIES.glob("*.yaml")):
        claim = " ".join(str(load_yaml(file).get("claim", "")).split())
        parts.append(textwrap.fill(f"{file.stem}: {claim}", 110, subsequent_indent="    "))
    return "\n".join(parts)


def main() -> None:
    """Command line."""
    options = argparse.ArgumentParser(
        prog="./run.sh study",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("study", nargs="?", help="name in studies/, or a YAML file; without one, the list of them")
    sizes = options.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_const", const="quick", dest="version", help="minutes on 2 cores")
    sizes.add_argument("--short", action="store_const", const="short", dest="version", help="about an hour on 2 cores")
    for name in ("workers", "budget", "executor", "ray-address"):
        options.add_argument(f"--{name}", **command.SHARED[name])
    options.add_argument(
        "--data", type=Path, metavar="FOLDER", help="folder with data that may not be embedded (default: $STUDY_DATA)"
    )
    args = options.parse_args()
    if args.study is None:
        print(claims())
        return
    named = os.environ.get("STUDY_DATA")
    folder = args.data or (Path(named) if named else None)
    runner = runner_of(args.executor, args.ray_address)
    print(run_study(find_study(args.study), args.version or "full", folder, args.workers, args.budget, runner))


if __name__ == "__main__":
    command.run(main)
