"""Make the folds of the training rows: columns of the prepared tables, and folds/folds.csv to look at.

Folds are kept as long as the settings and the rows stay the same.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig, read_yaml, validate
from competition.dataset import FOLD, GROUP, without_extra_rows
from competition.prepare import Prepared, prepare, write_prepared
from competition.prepare import describe as describe_tables
from core.files import as_csv, content_digest, digest, read_json, read_table, read_text_table, write_table
from core.settings import NO_OVERRIDES, Overrides
from folds.assign import assign_folds
from folds.class_shares import labels_or_indicators, missing_class_warnings
from folds.config import FoldsConfig
from folds.groups import groups_outside_folds


def load_folds_config(name: str, overrides: Overrides = NO_OVERRIDES) -> FoldsConfig:
    """Return the `folds:` section of a YAML."""
    path, document = read_yaml(name, overrides)
    return validate(FoldsConfig, document.get("folds", {}), path, "folds", overrides=overrides)


def make_folds(competition: CompetitionConfig, config: FoldsConfig, tables: Prepared) -> Prepared:
    """Return prepared tables with the columns FOLD and GROUP, and `folds` in their report.

    The folds of an earlier command are kept if they were made from the same rows, settings and seed.
    """
    paths = competition.paths
    settings = config.model_dump(mode="json")
    if config.file:
        settings["file"] = as_csv(read_text_table(config.file))
    digests = {"train": content_digest(tables.train), "test": content_digest(tables.test)}
    made_from = digest({**digests, "folds": settings, "seed": competition.seed})
    report: dict[str, Any] = {"made_from": made_from, "time_ordered": config.is_ordered_in_time}
    if paths.prepare_report.exists():
        stored = read_json(paths.prepare_report).get("folds", {})
        if stored.get("made_from") == made_from:
            train, test = read_table(paths.train), read_table(paths.test)
            return tables._replace(train=train, test=test, report={**tables.report, "folds": stored})
    train_rows = without_extra_rows(tables.train)
    folds, groups = assign_folds(config, train_rows, competition, competition.seed)
    # Only user-defined folds split groups, and their groups are rows with equal inputs.
    report["inputs_in_several_folds"] = int((pd.Series(folds).groupby(groups).nunique() > 1).sum())
    extra = tables.train[len(train_rows) :]
    others = pd.concat([extra, tables.test], ignore_index=True)
    other_groups = groups_outside_folds(config, train_rows, groups, others, competition)
    extra_groups, test_groups = other_groups[: len(extra)], other_groups[len(extra) :]
    all_folds = np.append(folds, np.full(len(extra), -1))
    train = tables.train.assign(**{FOLD: all_folds, GROUP: np.append(groups, extra_groups)})
    test = tables.test.assign(**{GROUP: test_groups})
    return tables._replace(train=train, test=test, report={**tables.report, "folds": report})


def describe(tables: Prepared, competition: CompetitionConfig) -> str:
    """Return the size of each fold, its mean labels or class shares, and warnings, as text."""
    lines = []
    report = tables.report["folds"]
    n_split_inputs = report["inputs_in_several_folds"]
    if n_split_inputs:
        lines.append(f"{n_split_inputs} inputs are in several folds, so scores are optimistic")
    y = tables.train[competition.targets]
    folds = tables.train[FOLD].to_numpy()
    classes = competition.classes
    lines += missing_class_warnings(y, classes, folds, report["time_ordered"])
    means = labels_or_indicators(y, classes).groupby(folds).mean()
    means = means.add_prefix("share of " if classes else "mean ").rename_axis("fold").reset_index()
    means.insert(1, "rows", y.groupby(folds).size().to_numpy())
    if classes:  # one line per class, since there may be many
        lines.append(means.astype(object).T.to_string(header=False, float_format="{:.4g}".format))
    else:
        lines.append(means.to_string(index=False, float_format="{:.4g}".format))
    return "\n".join(lines)


def write_tables(tables: Prepared, competition: CompetitionConfig, yaml_file: Path) -> None:
    """Write prepared tables with folds, and folds.csv; a file that already has the same content is not touched."""
    paths = competition.paths
    write_prepared(tables, paths, yaml_file)
    folds = tables.train[[competition.id, FOLD]].set_axis(["id", "fold"], axis=1)
    content = as_csv(folds)
    if not paths.folds.exists() or paths.folds.read_text(encoding="utf-8") != content:
        write_table(paths.folds, folds)


def run(competition: CompetitionConfig, config: FoldsConfig, yaml_file: Path) -> str:
    """Prepare and write the tables of a competition with their folds; return lines about both."""
    tables = make_folds(competition, config, prepare(competition))
    write_tables(tables, competition, yaml_file)
    return f"{describe_tables(tables.report)}\n{describe(tables, competition)}"
