"""More than the tables hold: rows of other tables to train on (`extra_train`), and `features` of the user's
own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.clean import clean_inputs, parse_labels, parse_times, require_columns
from competition.config import CompetitionConfig, ExtraTrain
from competition.dataset import EXTRA, FEATURE, FOLD, INPUT_KEY, TIME, WEIGHT
from competition.errors import ConfigError, DataError
from competition.files import read_text_table
from competition.user_code import load_user_code, user_code_errors

SHARED_ROWS = 5
"""Inputs that both tables must have before their labels are compared one by one."""
AGREE = 0.5
"""Share of shared inputs whose classes have to be the same."""
LIKE, RATIOS = 0.8, (0.5, 2.0)
"""Where the labels of shared inputs correlate so much, a ratio of their deviations outside these is of other
units.
"""


def with_extra_rows(
    train: pd.DataFrame, test: pd.DataFrame, config: CompetitionConfig
) -> tuple[pd.DataFrame, list[str]]:
    """The prepared training table with the rows of all extra tables below it, and what was found in each, in
    words.

    Left out are rows with the input of a test row, with an input that cannot be read, and without any label.
    A row
    with the input or the group of a training row stays: the job that holds that row out leaves it out
    (`models.jobs.job_rows`). An empty group or time is no error.
    """
    tables, said = [train.assign(**{EXTRA: 0, WEIGHT: train.get(WEIGHT, 1.0)})], []
    lenient = config.model_copy(update={"unparsable": "drop"})
    label_names = [*config.targets, *config.auxiliary_targets]
    for i, extra in enumerate(config.extra_train):
        table = _read(extra, config, label_names)
        labels = {name: parse_labels(table, name, config, extra.file) for name in label_names}
        clean, unreadable = clean_inputs(table, lenient, extra.file, in_train=True)
        clean = pd.concat([clean, pd.DataFrame(labels)], axis=1).assign(**{EXTRA: 1, WEIGHT: extra.weight})
        if config.group and config.group not in clean:
            clean[config.group] = table[config.group].str.strip()
        clean[[name for name in (TIME, FOLD) if name in train]] = np.nan
        if config.time:
            dated = table[table[config.time].str.strip() != ""]
            clean[TIME] = parse_times(dated, config.time, config.id, extra.file).reindex(table.index)
        unusable = unreadable | clean[config.targets].isna().all(axis=1)
        in_test = clean[INPUT_KEY].isin(test[INPUT_KEY]) & ~unusable
        kept = clean[~unusable & ~in_test].assign(
            **{config.id: lambda t, i=i: [f"extra{i}_{n}" for n in t.index]}
        )
        for name in config.targets if extra.check_units else []:
            of_numbers = config.problem_type in ("regression", "ordinal")
            _require_alike(kept.dropna(subset=name), train.dropna(subset=name), name, extra.file, of_numbers)
        said.append(
            f"{len(kept)} extra training rows from {extra.file.name}; left out: {in_test.sum()} with the "
            f"input of a "
            f"test row, {unusable.sum()} without a usable input or label"
        )
        said += _unclear_ties(table, config, extra.file)
        tables.append(kept[tables[0].columns])
    return pd.concat(tables, ignore_index=True), said


def _unclear_ties(table: pd.DataFrame, config: CompetitionConfig, file: Path) -> Iterator[str]:
    """Say what cannot be told about the rows of an extra table that has no groups or no times."""
    doubts = {config.group: "share a group with", config.time: "are later than"}
    for name, doubt in doubts.items():
        if name and (table[name].str.strip() == "").all():
            yield f"{file.name} has no {name!r}, so it cannot be told whether its rows {doubt} held-out rows"


def _read(extra: ExtraTrain, config: CompetitionConfig, label_names: list[str]) -> pd.DataFrame:
    """The table under our names of columns; a label that it does not have is empty."""
    raw = read_text_table(extra.file)
    names = [*config.inputs, *label_names, *filter(None, (config.group, config.time))]
    theirs = {name: extra.columns.get(name, name) for name in names}
    needed = [column for name, column in theirs.items() if name in config.inputs or name in extra.columns]
    require_columns(raw, needed, f"extra_train {extra.file}")
    if not any(theirs[name] in raw for name in config.targets):
        raise DataError(
            f"extra_train {extra.file} has none of the targets {', '.join(config.targets)}, but "
            f"{', '.join(raw.columns)}. Set columns: {{{config.targets[0]}: THEIR NAME}}."
        )
    table = pd.DataFrame({name: raw.get(column, "") for name, column in theirs.items()}, index=raw.index)
    return table.assign(**{config.id: [f"row {number}" for number in raw.index]})


def _require_alike(theirs: pd.DataFrame, ours: pd.DataFrame, name: str, file: Path, of_numbers: bool) -> None:
    """Check that shared inputs have mostly the same classes, or like numbers; where they are few, that the
    extra numbers lie among ours.
    """
    medians = [table.groupby(INPUT_KEY)[name].median() for table in (theirs, ours)]
    shared = pd.concat(medians, axis=1, join="inner", keys=["theirs", "ours"])
    n, deviation = len(shared), ours[name].std() if ours[name].nunique() > 1 else 1.0
    if not of_numbers:
        same = (shared["theirs"] == shared["ours"]).mean()
        wrong, found = n >= SHARED_ROWS and same < AGREE, f"of {n} shared inputs {same:.0%} have the same one"
    elif n >= SHARED_ROWS:
        gap, ratio = (
            (shared["theirs"] - shared["ours"]).abs().median(),
            shared["theirs"].std() / shared["ours"].std(),
        )
        scaled = shared["theirs"].corr(shared["ours"]) > LIKE and not RATIOS[0] < ratio < RATIOS[1]
        wrong = scaled or gap > deviation
        found = f"on {n} shared inputs they differ by {gap:.3g}, and deviate {ratio:.3g} times as much"
    else:
        middle, low, high = theirs[name].median(), ours[name].min(), ours[name].max()
        wrong = middle < low - deviation or middle > high + deviation
        found = f"their median is {middle:.3g}, and ours are from {low:.3g} to {high:.3g}"
    if wrong:
        raise DataError(
            f"extra_train {file}: the labels of {name!r} seem to be in other units, or mean something "
            f"else, than the "
            f"competition's: {found}. Convert the column, or set check_units: false."
        )


def with_user_features(table: pd.DataFrame, config: CompetitionConfig) -> pd.DataFrame:
    """A prepared table with the columns of the user's function of features, if one is configured."""
    if config.features is None:
        return table
    function = load_user_code("competition.features", config.features, "a function of a table of inputs")
    features = _call(function, table[config.inputs], config.features)
    if not features.notna().to_numpy().any():
        raise ConfigError(f"competition.features {config.features} returned no number at all.")
    some = np.flatnonzero(~table[INPUT_KEY].duplicated())[
        ::-2
    ]  # counts, means and ranks change with the rows
    for rows in (some, some[:1]):
        again = _call(function, table[config.inputs].iloc[rows].reset_index(drop=True), config.features)
        if list(again) != list(features) or not np.allclose(again, features.iloc[rows], equal_nan=True):
            raise ConfigError(
                f"competition.features {config.features} gives a row other numbers when other rows are "
                f"missing. They "
                "have to depend on that row alone: fit and count nothing on the table inside the function."
            )
    return pd.concat([table, features.add_prefix(FEATURE)], axis=1)


def _call(function: Any, inputs: pd.DataFrame, named: str) -> pd.DataFrame:
    with user_code_errors(named, "return a table of numbers for one of inputs"):
        features = (
            pd.DataFrame(function(inputs.copy())).reset_index(drop=True).astype(float).rename(columns=str)
        )
    if len(features) != len(inputs) or np.isinf(features.to_numpy()).any() or not features.columns.is_unique:
        raise ConfigError(
            f"competition.features {named} has to return a row of finite numbers (NaN: missing) for each "
            f"row, in "
            f"columns of different names; it returned {features.shape} for {len(inputs)} rows."
        )
    return features
