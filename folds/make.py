"""Make the folds of the training rows: folds/folds.csv, groups.csv, test_groups.csv and report.json.

They are kept as long as the settings and the rows stay the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig, read_yaml, validate
from competition.dataset import without_extra_rows
from core import cli
from core.files import (
    as_csv,
    content_digest,
    digest,
    read_json,
    read_table,
    read_text_table,
    write_json,
    write_table,
)
from core.paths import Paths
from core.settings import NO_OVERRIDES, Overrides
from core.types import Integers
from folds.assign import assign_folds
from folds.class_shares import labels_or_indicators, missing_class_warnings
from folds.config import FoldsConfig
from folds.fold_files import read_folds, read_groups
from folds.groups import groups_outside_folds


def load_folds_config(name: str, overrides: Overrides = NO_OVERRIDES) -> FoldsConfig:
    """Return the `folds:` section of a YAML."""
    path, document = read_yaml(name, overrides)
    return validate(FoldsConfig, document.get("folds", {}), path, "folds", overrides=overrides)


@dataclass(frozen=True)
class Folds:
    """Folds and groups of the prepared training table; its last rows are those of extra_train.

    Attributes:
        folds: (n_rows,), -1 for rows that train in every fold, such as all rows of extra_train.
        groups: (n_rows without extra_train,), equal for rows that share a fold by construction.
        report: content of folds/report.json.
        is_written: whether the files already have these folds, so that `write_folds` has nothing to do.
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
    """Return the folds of prepared tables.

    Args:
        paths: where existing folds may be; they are read if they were made from the same tables, settings and
            seed.
    """
    settings = config.model_dump(mode="json")
    if config.file:
        settings["file"] = as_csv(read_text_table(config.file))
    digests = {"train": content_digest(train), "test": content_digest(test)}
    made_from = digest({**digests, "folds": settings, "seed": competition.seed})
    train_rows = without_extra_rows(train)
    if paths is not None and all(path.exists() for path in fold_files(paths)):
        report = read_json(paths.folds_report, "made_from")
        if report["made_from"] == made_from:
            ids = list(train[competition.id])
            groups = read_groups(paths.groups, ids)[: len(train_rows)]
            return Folds(read_folds(paths.folds, ids), groups, report, is_written=True)
    folds, groups = assign_folds(config, train_rows, competition, competition.seed)
    # Only user-defined folds split groups, and their groups are rows with equal inputs.
    n_split_inputs = int((pd.Series(folds).groupby(groups).nunique() > 1).sum())
    n_extra = len(train) - len(folds)  # the last rows
    report = {
        "made_from": made_from,
        "time_ordered": config.is_ordered_in_time,
        "inputs_in_several_folds": n_split_inputs,
    }
    return Folds(np.append(folds, np.full(n_extra, -1)), groups, report)


def fold_files(paths: Paths) -> list[Path]:
    """Return the files that `write_folds` writes, in that order."""
    return [paths.folds, paths.groups, paths.test_groups, paths.folds_report]


def write_folds(
    folds: Folds,
    competition: CompetitionConfig,
    config: FoldsConfig,
    train: pd.DataFrame,
    test: pd.DataFrame,
    paths: Paths,
) -> None:
    """Write folds and groups of a prepared training table and the groups of the test rows."""
    if folds.is_written:
        return
    cli.require_no_training(paths)
    paths.folds_report.unlink(missing_ok=True)  # written last: without it the tables are incomplete
    train_rows = without_extra_rows(train)
    extra = train[len(train_rows) :]
    others = pd.concat([extra, test], ignore_index=True)
    other_groups = groups_outside_folds(config, train_rows, folds.groups, others, competition)
    groups = np.append(folds.groups, other_groups[: len(extra)])
    write_table(paths.folds, pd.DataFrame({"id": train[competition.id], "fold": folds.folds}))
    write_table(paths.groups, pd.DataFrame({"id": train[competition.id], "group": groups}))
    test_groups = pd.DataFrame({"id": test[competition.id], "group": other_groups[len(extra) :]})
    write_table(paths.test_groups, test_groups)
    write_json(paths.folds_report, folds.report)


def describe(folds: Folds, competition: CompetitionConfig, train: pd.DataFrame) -> str:
    """Return the size of each fold, its mean labels or class shares, and warnings, as text."""
    lines = []
    n_split_inputs = folds.report["inputs_in_several_folds"]
    if n_split_inputs:
        lines.append(f"{n_split_inputs} inputs are in several folds, so scores are optimistic")
    y = train[competition.targets]
    classes = competition.classes
    lines += missing_class_warnings(y, classes, folds.folds, folds.report["time_ordered"])
    means = labels_or_indicators(y, classes).groupby(folds.folds).mean()
    means = means.add_prefix("share of " if classes else "mean ").rename_axis("fold").reset_index()
    means.insert(1, "rows", y.groupby(folds.folds).size().to_numpy())
    if classes:  # one line per class, since there may be many
        lines.append(means.astype(object).T.to_string(header=False, float_format="{:.4g}".format))
    else:
        lines.append(means.to_string(index=False, float_format="{:.4g}".format))
    return "\n".join(lines)


def run(competition: CompetitionConfig, config: FoldsConfig, paths: Paths) -> str:
    """Make the folds of the prepared tables in `paths`, or keep existing ones; return lines to print."""
    train = read_table(paths.train)
    test = read_table(paths.test)
    folds = make_folds(competition, config, train, test, paths)
    write_folds(folds, competition, config, train, test, paths)
    return describe(folds, competition, train)
