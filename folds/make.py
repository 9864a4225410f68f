"""Divide the training rows into folds, once: `python -m folds.make [COMPETITION]`.

Reads: prepared/train.parquet, and with kind file the user's own table.
Writes: folds/folds.csv, groups.csv and report.json, which are kept while the settings and the rows stay the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from competition import command
from competition.config import CompetitionConfig, load_competition, read_yaml, validate
from competition.errors import DataError
from competition.files import digest, read_json, read_table, sha256_of, table_digest, write_json, write_table
from competition.paths import Paths
from competition.tables import EXTRA
from folds.config import FoldsConfig
from folds.splitters import divide
from folds.table import read_folds


def load_folds_config(name: str) -> FoldsConfig:
    """The `folds:` section of a YAML.

    Raises:
        ConfigError: with every mistake of the section.
    """
    path, document = read_yaml(name)
    return validate(FoldsConfig, document.get("folds", {}), path, "folds")


def fold_table(table: pd.DataFrame, folds: np.ndarray, targets: list[str]) -> str:
    """Size of each fold and mean of each target in it, as text."""
    lines = ["fold     rows  " + "  ".join(f"mean {name}" for name in targets)]
    for fold in sorted(set(folds)):
        rows = table[folds == fold]
        means = "  ".join(f"{rows[name].mean():{len(name) + 5}.4g}" for name in targets)
        lines.append(f"{fold:4d}  {len(rows):7d}  {means}")
    return "\n".join(lines)


def run(competition: CompetitionConfig, config: FoldsConfig, paths: Paths) -> str:
    """Make or keep folds.csv; returns what to print."""
    table = read_table(paths.train)
    file = {"file": sha256_of_own(config.file)} if config.file else {}
    made_from = digest(
        {"train": table_digest(paths.train), "folds": config.model_dump(mode="json") | file, "seed": competition.seed}
    )
    whole = all(path.exists() for path in (paths.folds, paths.groups, paths.folds_report))
    if not (whole and read_json(paths.folds_report, "made_from", "sha256")["made_from"] == made_from):
        own = ~table[EXTRA].astype(bool).to_numpy() if EXTRA in table else np.ones(len(table), dtype=bool)
        made = divide(
            config, table[own].reset_index(drop=True), competition.id, competition.targets, competition.smiles,
            competition.group, competition.seed,
        )  # fmt: skip
        folds = np.full(len(table), -1)  # extra rows train in every fold and are never scored
        groups = made.groups.max() + 1 + np.arange(len(table))  # and are groups of their own
        folds[own], groups[own] = made.folds, made.groups
        command.require_no_training(paths)
        write_table(paths.folds, pd.DataFrame({"id": table[competition.id], "fold": folds}))
        write_table(paths.groups, pd.DataFrame({"id": table[competition.id], "group": groups}))
        report = {
            "made_from": made_from,
            "sha256": sha256_of(paths.folds),
            "sizes": np.bincount(made.folds[made.folds >= 0]).tolist(),
            "time_ordered": config.kind == "time",
            "inputs_in_several_folds": made.crossing,
        }
        write_json(paths.folds_report, report)
    report = read_json(paths.folds_report)
    said = ""
    if report["sha256"] != sha256_of(paths.folds):
        said += f"{paths.folds} was edited by hand and is used as it is\n"
    if report["inputs_in_several_folds"]:
        said += f"{report['inputs_in_several_folds']} inputs stand in several folds, so scores are too good\n"
    return said + fold_table(table, read_folds(paths.folds, list(table[competition.id])), competition.targets)


def sha256_of_own(file: Path) -> str:
    """Digest of the user's table of folds.

    Raises:
        DataError: if it is not there.
    """
    if not file.is_file():
        raise DataError(f"folds.file must be a CSV file with id,fold; there is no {file}. Correct the path.")
    return sha256_of(file)


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    paths = Paths.of(args.competition)
    with command.locked(paths, wait=True):
        print(run(load_competition(args.competition, args.seed), load_folds_config(args.competition), paths))


if __name__ == "__main__":
    command.run(main)
