"""List all competitions with their last scores: `./run.sh list`.

Reads: the YAMLs in competition/configs and in the work folder, and the latest run of each competition.
Writes nothing.
"""

import argparse
from datetime import datetime
from pathlib import Path

from competition import cli
from competition.config import load_competition
from competition.errors import UserError
from competition.paths import Paths, config_folders, work_root
from submissions.formatting import format_table, format_with_error
from submissions.run import CHOICE, MANIFEST, name_of_latest, read_manifest

HEADER = ["competition", "problem type", "metric", "cross_fitted_score", "chosen", "written"]


def competitions() -> dict[str, str]:
    """Return name of each competition -> name or path of its YAML, sorted by name.

    YAMLs outside of these folders are listed if the work folder has outputs of them.
    """
    files = [file for folder in config_folders() for file in folder.glob("*.yaml")]
    names = {file.stem: file.stem for file in files}
    for owner in work_root().glob("*/yaml"):
        yaml_file = Path(owner.read_text(encoding="utf-8").strip())
        if yaml_file.is_file():
            names.setdefault(owner.parent.name, str(yaml_file))
    return dict(sorted(names.items()))


def describe(name: str, yaml_file: str) -> list[str]:
    """Return the row of a competition below HEADER; dashes if it has no finished run."""
    try:
        competition = load_competition(yaml_file)
    except UserError:
        return [name, "(its YAML has mistakes; see ./run.sh check)", *["-"] * 4]
    row = [name, competition.problem_type, Path(competition.metric).name]
    paths = Paths.for_competition(yaml_file)
    run = name_of_latest(paths)
    if not run:
        return [*row, "-", "-", "-"]
    folder = paths.run(run)
    try:
        choice = read_manifest(folder, CHOICE)[CHOICE]
    except UserError:
        return [*row, "(its latest run is incomplete)", "-", "-"]
    score = format_with_error(
        choice["procedure"]["cross_fitted_score"], choice["procedure"]["standard_error"]
    )
    written = datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime)
    return [*row, score, choice["chosen"], f"{written:%Y-%m-%d %H:%M}"]


def main() -> None:
    """Parse the command line and run the command."""
    argparse.ArgumentParser(
        prog="./run.sh list", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    rows = [describe(name, yaml_file) for name, yaml_file in competitions().items()]
    print(format_table(HEADER, rows))
    print("cross_fitted_score: of the latest submission, +- its standard error.")


if __name__ == "__main__":
    cli.run(main)
