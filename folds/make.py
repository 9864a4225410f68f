"""The folds of the training rows: folds/folds.csv, groups.csv and report.json.

They are kept while the settings and the rows stay the same.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from competition import command
from competition.config import CompetitionConfig, read_yaml, validate
from competition.files import (
    as_csv,
    content_digest,
    digest,
    read_json,
    read_table,
    read_text_table,
    write_json,
    write_table,
)
from competition.paths import Paths
from competition.tables import own_rows
from competition.types import Integers
from folds.config import FoldsConfig
from folds.shares import lacking, shares
from folds.splitters import divide
from folds.table import read_folds, read_groups


def load_folds_config(name: str) -> FoldsConfig:
    """The `folds:` section of a YAML."""
    path, document = read_yaml(name)
    return validate(FoldsConfig, document.get("folds", {}), path, "folds")


@dataclass(frozen=True)
class Folds:
    """Folds and groups of the prepared training table.

    folds: (n_rows,), -1 for rows that train in every fold, as all rows of extra_train do.
    groups: (n_rows,), equal for rows that share a fold by construction; each row of extra_train is a group.
    report: the content of folds/report.json.
    is_written: whether they were read from the three files.
    """

    folds: Integers
    groups: Integers
    report: dict[str, Any]
    is_written: bool = False


def make_folds(
    competition: CompetitionConfig, config: FoldsConfig, table: pd.DataFrame, paths: Paths | None = None
) -> Folds:
    """The folds of a prepared training table: those below `paths` if they were made of the same, else new ones."""
    settings = config.model_dump(mode="json")
    if config.file:
        settings["file"] = as_csv(read_text_table(config.file))
    made_from = digest({"train": content_digest(table), "folds": settings, "seed": competition.seed})
    if paths and all(path.exists() for path in (paths.folds, paths.groups, paths.folds_report)):
        report, ids = read_json(paths.folds_report, "made_from"), list(table[competition.id])
        if report["made_from"] == made_from:
            return Folds(read_folds(paths.folds, ids), read_groups(paths.groups, ids), report, is_written=True)
    folds, groups = divide(config, own_rows(table), competition, competition.seed)
    crossing = int((pd.Series(folds).groupby(groups).nunique() > 1).sum())
    extra = np.arange(len(table) - len(folds))  # the last rows
    report = {"made_from": made_from, "time_ordered": config.kind == "time", "inputs_in_several_folds": crossing}
    return Folds(np.append(folds, np.full_like(extra, -1)), np.append(groups, groups.max() + 1 + extra), report)


def write_folds(folds: Folds, competition: CompetitionConfig, table: pd.DataFrame, paths: Paths) -> None:
    """Write the three files, unless the folds come from them."""
    if folds.is_written:
        return
    command.require_no_training(paths)
    paths.folds_report.unlink(missing_ok=True)  # written last: without it these tables are made again
    write_table(paths.folds, pd.DataFrame({"id": table[competition.id], "fold": folds.folds}))
    write_table(paths.groups, pd.DataFrame({"id": table[competition.id], "group": folds.groups}))
    write_json(paths.folds_report, folds.report)


def describe(folds: Folds, competition: CompetitionConfig, table: pd.DataFrame) -> str:
    """Size and mean labels of each fold, and the classes that it lacks, as text."""
    said = ""
    if folds.report["inputs_in_several_folds"]:
        said += f"{folds.report['inputs_in_several_folds']} inputs stand in several folds, so scores are too good\n"
    y, classes = table[competition.targets], competition.classes
    said += "".join(f"{words}\n" for words in lacking(y, classes, folds.folds, folds.report["time_ordered"]))
    means = shares(y, classes).groupby(folds.folds).mean().add_prefix("share of " if classes else "mean ")
    means = means.rename_axis("fold").reset_index()
    means.insert(1, "rows", y.groupby(folds.folds).size().to_numpy())
    if classes:  # of which there may be many: a line each
        return said + means.astype(object).T.to_string(header=False, float_format="{:.4g}".format)
    return said + means.to_string(index=False, float_format="{:.4g}".format)


def run(competition: CompetitionConfig, config: FoldsConfig, paths: Paths) -> str:
    """Make or keep the folds of the prepared training table; returns what to print."""
    table = read_table(paths.train)
    folds = make_folds(competition, config, table, paths)
    write_folds(folds, competition, table, paths)
    return describe(folds, competition, table)
