"""Divide the training rows into folds, once: `python -m folds.make [COMPETITION]`.

Reads: prepared/train.csv.
Writes: folds/folds.csv and report.json. Both are kept as they are while the settings and the rows stay the same.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from competition import command
from competition.config import CompetitionConfig, find_config, load_competition, load_yaml, validate
from competition.files import digest, read_json, read_table, sha256_of, write_json, write_table
from competition.paths import Paths
from competition.tables import EXTRA, text_columns
from folds.config import FoldsConfig
from folds.splitters import make_folds
from folds.table import read_folds


def load_folds_config(name: str) -> FoldsConfig:
    """The `folds:` section of a YAML.

    Raises:
        ConfigError: with every mistake of the section.
    """
    path = find_config(name)
    return validate(FoldsConfig, load_yaml(path).get("folds") or {}, path, "folds")


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
    table = read_table(paths.train, text_columns(competition))
    made_from = digest(
        {"train": sha256_of(paths.train), "folds": config.model_dump(mode="json"), "seed": competition.seed}
    )
    both = paths.folds.exists() and paths.folds_report.exists()
    if not (both and read_json(paths.folds_report, "made_from", "sha256")["made_from"] == made_from):
        own = ~table[EXTRA].astype(bool).to_numpy() if EXTRA in table else np.ones(len(table), dtype=bool)
        folds = np.full(len(table), -1)  # extra rows train in every fold and are never scored
        folds[own] = make_folds(
            config, table[own].reset_index(drop=True), competition.id, competition.targets, competition.smiles,
            competition.group, competition.seed,
        )  # fmt: skip
        write_table(paths.folds, pd.DataFrame({"id": table[competition.id], "fold": folds}))
        sizes = np.bincount(folds[own]).tolist()
        write_json(paths.folds_report, {"made_from": made_from, "sizes": sizes, "sha256": sha256_of(paths.folds)})
    edited = read_json(paths.folds_report)["sha256"] != sha256_of(paths.folds)
    said = f"{paths.folds} was edited by hand and is used as it is\n" if edited else ""
    return said + fold_table(table, read_folds(paths.folds, list(table[competition.id])), competition.targets)


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    paths = Paths.of(args.competition)
    with command.locked(paths):
        print(run(load_competition(args.competition, args.seed), load_folds_config(args.competition), paths))


if __name__ == "__main__":
    command.run(main)
