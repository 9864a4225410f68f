"""The folds of the training rows: folds/folds.csv, groups.csv, test_groups.csv and report.json.

They are kept while the settings and the rows stay the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition import cli
from competition.config import CompetitionConfig, read_yaml, validate
from competition.dataset import without_extra_rows
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
from competition.overrides import NO_OVERRIDES, Overrides
from competition.paths import Paths
from competition.types import Integers
from folds.class_shares import class_shares, missing_class_warnings
from folds.config import FoldsConfig
from folds.fold_files import read_folds, read_groups
from folds.groups import groups_outside_folds
from folds.splitters import assign_folds


def load_folds_config(name: str, overrides: Overrides = NO_OVERRIDES) -> FoldsConfig:
    """The `folds:` section of a YAML."""
    path, document = read_yaml(name, overrides)
    return validate(FoldsConfig, document.get("folds", {}), path, "folds")


@dataclass(frozen=True)
class Folds:
    """Folds and groups of the prepared training table, whose last rows are those of extra_train.

    folds: (n_rows,), -1 for rows that train in every fold, as all rows of extra_train do.
    groups: (n_rows without extra_train,), equal for rows that share a fold by construction.
    report: the content of folds/report.json.
    is_written: whether they were read from the files.
    """

    folds: Integers
    groups: Integers
    report: dict[str, Any]
    is_written: bool = False


def make_folds(
    competition: CompetitionConfig,
    config: FoldsConfig,
    train: pd.DataFrame,
    test: pd.DataFrame,
    paths: Paths | None = None,
) -> Folds:
    """Return the folds of prepared tables: those below `paths` if they were made of the same tables, else new
    ones.
    """
    settings = config.model_dump(mode="json")
    if config.file:
        settings["file"] = as_csv(read_text_table(config.file))
    made_from = digest(
        {
            "train": content_digest(train),
            "test": content_digest(test),
            "folds": settings,
            "seed": competition.seed,
        }
    )
    own_train = without_extra_rows(train)
    if paths is not None and all(path.exists() for path in fold_files(paths)):
        report = read_json(paths.folds_report, "made_from")
        if report["made_from"] == made_from:
            ids = list(train[competition.id])
            groups = read_groups(paths.groups, ids)[: len(own_train)]
            return Folds(read_folds(paths.folds, ids), groups, report, is_written=True)
    folds, groups = assign_folds(config, own_train, competition, competition.seed)
    crossing = int((pd.Series(folds).groupby(groups).nunique() > 1).sum())
    n_extra = len(train) - len(folds)  # the last rows
    report = {
        "made_from": made_from,
        "time_ordered": config.kind == "time",
        "inputs_in_several_folds": crossing,
    }
    return Folds(np.append(folds, np.full(n_extra, -1)), groups, report)


def fold_files(paths: Paths) -> list[Path]:
    """Return the files that `write_folds` writes, the last one last."""
    return [paths.folds, paths.groups, paths.test_groups, paths.folds_report]


def write_folds(
    folds: Folds,
    competition: CompetitionConfig,
    config: FoldsConfig,
    train: pd.DataFrame,
    test: pd.DataFrame,
    paths: Paths,
) -> None:
    """Write folds and groups of a prepared training table and the groups of the test rows, unless they are
    written.
    """
    if folds.is_written:
        return
    cli.require_no_training(paths)
    paths.folds_report.unlink(missing_ok=True)  # written last: without it these tables are made again
    own_train = without_extra_rows(train)
    extra = train[len(own_train) :]
    others = pd.concat([extra, test], ignore_index=True)
    other_groups = groups_outside_folds(config, own_train, folds.groups, others, competition)
    groups = np.append(folds.groups, other_groups[: len(extra)])
    write_table(paths.folds, pd.DataFrame({"id": train[competition.id], "fold": folds.folds}))
    write_table(paths.groups, pd.DataFrame({"id": train[competition.id], "group": groups}))
    test_groups = pd.DataFrame({"id": test[competition.id], "group": other_groups[len(extra) :]})
    write_table(paths.test_groups, test_groups)
    write_json(paths.folds_report, folds.report)


def describe(folds: Folds, competition: CompetitionConfig, train: pd.DataFrame) -> str:
    """Size and mean labels of each fold, and the classes that it lacks, as text."""
    said = ""
    if folds.report["inputs_in_several_folds"]:
        said += (
            f"{folds.report['inputs_in_several_folds']} inputs stand in several folds, so scores are "
            f"too good\n"
        )
    y, classes = train[competition.targets], competition.classes
    said += "".join(
        f"{words}\n"
        for words in missing_class_warnings(y, classes, folds.folds, folds.report["time_ordered"])
    )
    means = (
        class_shares(y, classes).groupby(folds.folds).mean().add_prefix("share of " if classes else "mean ")
    )
    means = means.rename_axis("fold").reset_index()
    means.insert(1, "rows", y.groupby(folds.folds).size().to_numpy())
    if classes:  # of which there may be many: a line each
        return said + means.astype(object).T.to_string(header=False, float_format="{:.4g}".format)
    return said + means.to_string(index=False, float_format="{:.4g}".format)


def run(competition: CompetitionConfig, config: FoldsConfig, paths: Paths) -> str:
    """Make or keep the files below `paths`, from the prepared tables there; return what to print."""
    train, test = read_table(paths.train), read_table(paths.test)
    folds = make_folds(competition, config, train, test, paths)
    write_folds(folds, competition, config, train, test, paths)
    return describe(folds, competition, train)
