"""Divide the training rows into folds, once: `python -m folds.make [COMPETITION]`.

Reads: prepared/train.parquet and test.parquet, and with kind file the user's own table.
Writes: folds/folds.csv, groups.csv, test_groups.csv and report.json, which are kept while the settings and the rows
stay the same.
"""

import numpy as np
import pandas as pd

from competition import command
from competition.config import CompetitionConfig, load_competition, read_yaml, validate
from competition.files import (
    as_csv,
    digest,
    read_json,
    read_table,
    read_text_table,
    table_digest,
    write_json,
    write_table,
)
from competition.paths import Paths
from competition.tables import own_rows
from folds.config import FoldsConfig
from folds.groups import groups_outside_folds
from folds.shares import lacking, shares
from folds.splitters import divide
from folds.table import read_folds


def load_folds_config(name: str) -> FoldsConfig:
    """The `folds:` section of a YAML."""
    path, document = read_yaml(name)
    return validate(FoldsConfig, document.get("folds", {}), path, "folds")


def run(competition: CompetitionConfig, config: FoldsConfig, paths: Paths) -> str:
    """Make or keep folds.csv; returns what to print: size and mean labels of each fold, and what classes it lacks."""
    table, settings = read_table(paths.train), config.model_dump(mode="json")
    ids = table[competition.id]
    if config.file:
        settings["file"] = as_csv(read_text_table(config.file))
    tables = {"train": table_digest(paths.train), "test": table_digest(paths.test)}
    made_from = digest({**tables, "folds": settings, "seed": competition.seed})
    whole = all(path.exists() for path in (paths.folds, paths.groups, paths.test_groups, paths.folds_report))
    if not whole or read_json(paths.folds_report, "made_from")["made_from"] != made_from:
        command.require_no_training(paths)
        in_folds, test = own_rows(table), read_table(paths.test)
        folds, groups = divide(config, in_folds, competition, competition.seed)
        crossing = int((pd.Series(folds).groupby(groups).nunique() > 1).sum())
        extra = table[len(in_folds) :]  # these rows train in every fold
        others = pd.concat([extra, test], ignore_index=True)
        other_groups = groups_outside_folds(config, in_folds, groups, others, competition)
        folds = np.append(folds, np.full(len(extra), -1))
        groups = np.append(groups, other_groups[: len(extra)])
        paths.folds_report.unlink(missing_ok=True)  # written last: without it these tables are made again
        write_table(paths.folds, pd.DataFrame({"id": ids, "fold": folds}))
        write_table(paths.groups, pd.DataFrame({"id": ids, "group": groups}))
        test_groups = pd.DataFrame({"id": test[competition.id], "group": other_groups[len(extra) :]})
        write_table(paths.test_groups, test_groups)
        report = {"made_from": made_from, "time_ordered": config.kind == "time", "inputs_in_several_folds": crossing}
        write_json(paths.folds_report, report)
    report, said = read_json(paths.folds_report), ""
    if report["inputs_in_several_folds"]:
        said += f"{report['inputs_in_several_folds']} inputs stand in several folds, so scores are too good\n"
    folds, y, classes = read_folds(paths.folds, list(ids)), table[competition.targets], competition.classes
    said += "".join(f"{words}\n" for words in lacking(y, classes, folds, report["time_ordered"]))
    means = shares(y, classes).groupby(folds).mean().add_prefix("share of " if classes else "mean ")
    means = means.rename_axis("fold").reset_index()
    means.insert(1, "rows", y.groupby(folds).size().to_numpy())
    if classes:  # of which there may be many: a line each
        return said + means.astype(object).T.to_string(header=False, float_format="{:.4g}".format)
    return said + means.to_string(index=False, float_format="{:.4g}".format)


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    paths = Paths.of(args.competition)
    with command.locked(paths, wait=True):
        print(run(load_competition(args.competition, args.seed), load_folds_config(args.competition), paths))


if __name__ == "__main__":
    command.run(main)
