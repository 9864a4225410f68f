"""Labelled rows of other tables, which are trained on and never scored (`competition.extra_train`)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from competition.cells import parse_times, require_columns
from competition.clean import (
    clean_inputs,
    describe_raw_inputs,
    keys_of_inputs,
    keys_of_near_inputs,
    share_keys,
)
from competition.config import CompetitionConfig, ExtraTrain
from competition.dataset import EXTRA, FOLD, INPUT_KEY, LOWER, TIME, UPPER, WEIGHT
from competition.labels import describe_censored, parse_labels, require_above_lower_bound
from core.errors import DataError
from core.user_tables import read_text_table

MIN_SHARED_INPUTS = 5
"""The labels are compared input by input if at least this many inputs are in both tables."""
MIN_AGREEMENT = 0.5
"""Minimum share of the shared inputs with the same class in both tables."""
MIN_CORRELATION = 0.8
"""Standard deviations are compared only if the labels of shared inputs correlate more than this; below its
negative, the sign is reversed.
"""
ANSWERS = {
    "mask": "are not trained on; if the rules allow it, set test_molecules: train in extra_train",
    "train": "are trained on (test_molecules: train): the score on them is better than the expected one",
}
MAX_COMPARED = 500
"""Number of shared inputs that give the scale in the summary."""
MIN_STD_RATIO = 0.5
MAX_STD_RATIO = 2.0
"""The labels are in other units if the ratio of their standard deviations is outside these two limits."""


def with_extra_rows(
    train: pd.DataFrame, test: pd.DataFrame, raw: pd.DataFrame, config: CompetitionConfig
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Return the prepared training table followed by the rows of all extra tables, a summary per table, and
    lines about tables with labels of test rows.

    Rows with an unreadable input or without any label are left out; labels of targets of rows with the input
    of a test row, a salt of it, or a copy of its texts, are missing, unless the table has `test_molecules:
    train`. A row with labels of auxiliary targets only is kept. A row with the input or the group of a
    training row is kept; the job that holds out that training row excludes it (`models.jobs.compute`). Empty
    groups and times are allowed.

    Args:
        raw: rows of the raw training table that are in `train`.
    """
    tables = [train.assign(**{EXTRA: 0, WEIGHT: train.get(WEIGHT, 1.0)})]
    summary: list[str] = []
    answers: list[str] = []
    for i, extra in enumerate(config.extra_train):
        table = _read(extra, config)
        labels = parse_labels(table, config.columns.labels, config, extra.file)
        require_above_lower_bound(table, labels.table, config, extra.file)
        rows, is_unreadable = _clean_rows(table, labels.table, extra, config, train, raw)
        of_targets = [
            name
            for name in map(str, labels.table)
            if name.removeprefix(LOWER).removeprefix(UPPER) in config.targets
        ]
        labelled = rows[~is_unreadable & rows[of_targets].notna().any(axis=1)]
        keys, test_keys = _keys_of_both(labelled, test, train, config)
        is_answer = share_keys(keys, test_keys) & config.has_test_table
        if is_answer.any():
            n_answered = share_keys(test_keys, [key[is_answer] for key in keys]).sum()
            what = f"WARNING: {extra.file.name} has labels of {n_answered} of {len(test)} test rows, which"
            answers.append(f"{what} {ANSWERS[extra.test_molecules]}")
        if extra.test_molecules == "mask":
            rows.loc[labelled.index[is_answer], of_targets] = np.nan
        is_unusable = is_unreadable | rows[labels.table.columns].isna().all(axis=1)
        rows = rows[~is_unusable]
        rows = rows.assign(**{config.id: [f"extra{i}_{number}" for number in rows.index]})
        rows[EXTRA] = i + 1
        shared_lines = _compare_labels(rows, train, extra, config)
        has_auxiliary = rows[config.auxiliary_targets].notna().any(axis=1)
        n_without_target = (rows[config.targets].isna().all(axis=1) & has_auxiliary).sum()
        only_heads = f" ({n_without_target:,} only train the heads of auxiliary_targets)"
        summary.append(
            f"{len(rows):,} extra training rows from "
            f"{extra.file.name}{only_heads if n_without_target else ''}; left out: {is_unusable.sum()} "
            "without a usable input or label"
        )
        summary += shared_lines
        summary += describe_censored(labels, config, extra.file.name)
        summary += describe_raw_inputs(table, config, extra.file.name)
        summary += _missing_group_notes(table, config, extra.file)
        tables.append(rows[tables[0].columns])
    return pd.concat(tables, ignore_index=True), summary, answers


def _keys_of_both(
    labelled: pd.DataFrame, test: pd.DataFrame, train: pd.DataFrame, config: CompetitionConfig
) -> tuple[list[pd.Series], list[pd.Series]]:
    """Return the keys of the inputs of labelled rows and of test rows, with keys of copies of texts last."""
    keys = keys_of_inputs(labelled, config)
    test_keys = keys_of_inputs(test, config)
    if config.text:
        rows = pd.concat([labelled, test, train])  # texts that many rows have in common are templates
        near = keys_of_near_inputs(rows.reset_index(drop=True), config, len(rows)).to_numpy()
        keys.append(pd.Series(near[: len(labelled)], labelled.index))
        test_keys.append(pd.Series(near[len(labelled) :][: len(test)], test.index))
    return keys, test_keys


def _clean_rows(
    table: pd.DataFrame,
    labels: pd.DataFrame,
    extra: ExtraTrain,
    config: CompetitionConfig,
    train: pd.DataFrame,
    raw: pd.DataFrame,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the clean rows of an extra table, with all columns of `train`, and a mask of unreadable rows."""
    lenient = config.model_copy(update={"unparsable": "drop"})
    inputs, is_unreadable = clean_inputs(table, lenient, extra.file, in_train=True)
    rows = pd.concat([inputs, labels], axis=1).assign(**{WEIGHT: extra.weight})
    for name in config.group_columns:
        if name not in rows:
            rows[name] = table[name].str.strip()
    rows[[name for name in (TIME, FOLD) if name in train]] = np.nan
    if config.time and config.time != config.id:
        dated = table[table[config.time].str.strip() != ""]
        names = [config.id, config.time]
        of_training = raw[names].set_axis(-1 - raw.index)
        with_training = pd.concat([dated[names], of_training])  # they must have one kind of times
        times = parse_times(with_training, config.time, config.id, f"{extra.file}, with {config.train.name}")
        rows[TIME] = times.reindex(table.index)
    return rows, is_unreadable


def _missing_group_notes(table: pd.DataFrame, config: CompetitionConfig, file: Path) -> Iterator[str]:
    """Yield a note if an extra table has no groups or no times, so that leaks cannot be excluded."""
    relations = dict.fromkeys(config.group_columns, "share a group with")
    if config.time:
        relations[config.time] = "are later than"
    for name, relation in relations.items():
        if name == config.id:
            yield (
                f"{file.name}: its ids are not read, so it is unknown whether its rows {relation} held-out rows"
            )
        elif (table[name].str.strip() == "").all():
            yield f"{file.name} has no {name!r}, so it is unknown whether its rows {relation} held-out rows"


def _read(extra: ExtraTrain, config: CompetitionConfig) -> pd.DataFrame:
    """Return an extra table with the competition's column names; labels that it does not have are empty."""
    raw = read_text_table(extra.file)
    names = [*config.inputs, *config.columns.labels]
    names += [*config.group_columns, *filter(None, [config.time])]
    columns = {name: extra.columns.get(name, name) for name in names}
    required = [columns[name] for name in columns if name in config.inputs or name in extra.columns]
    require_columns(raw, required, f"extra_train {extra.file}")
    if not any(columns[name] in raw for name in config.columns.labels):
        raise DataError(
            f"extra_train {extra.file} has none of the targets {', '.join(config.columns.labels)}; it has "
            f"{', '.join(raw.columns)}. Set columns: {{{config.targets[0]}: THEIR NAME}}."
        )
    table = pd.DataFrame({name: raw.get(column, "") for name, column in columns.items()}, index=raw.index)
    table.attrs = raw.attrs
    if config.weight in raw and "weight" not in extra.model_fields_set:
        what = f"WARNING: {config.weight} of {extra.file.name} is not read; set weight of the table in extra_train"
        table.attrs["warnings"] = [*raw.attrs.get("warnings", []), what]
    return table.assign(**{config.id: [f"row {number}" for number in raw.index]})


def _compare_labels(
    rows: pd.DataFrame, train: pd.DataFrame, extra: ExtraTrain, config: CompetitionConfig
) -> list[str]:
    """Compare the labels of inputs that both tables contain, and return lines about them.

    Raises:
        DataError: the labels seem to be in other units.
    """
    lines = []
    for name in config.columns.labels:
        shared = _shared_labels(rows[[INPUT_KEY, name]], train[[INPUT_KEY, name]], name)
        described = []
        are_numbers = config.problem_type == "regression" or name not in config.targets
        if are_numbers and len(shared) >= MIN_SHARED_INPUTS:
            described = [_describe_shared(shared, name, extra.file)]
        if extra.check_units:
            _check_units(rows[name].dropna(), train[name].dropna(), shared, extra.file, config, described)
        lines += described
    return lines


def _shared_labels(extra: pd.DataFrame, train: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the median labels of the inputs of both tables: columns `extra` and `train`."""
    medians = [table.groupby(INPUT_KEY)[name].median().dropna() for table in (extra, train)]
    return pd.concat(medians, axis=1, join="inner", keys=["extra", "train"])


def _describe_shared(shared: pd.DataFrame, name: str, file: Path) -> str:
    """Return a line about the scale of the labels of shared inputs."""
    from scipy.stats import spearmanr, theilslopes

    pairs = shared[:MAX_COMPARED]
    line = f"{file.name}: {len(shared)} inputs with {name!r} are also in the training table"
    if pairs["train"].nunique() < 2 or pairs["extra"].nunique() < 2:
        return line
    correlation = spearmanr(shared["extra"], shared["train"]).statistic
    # Regressed on the training labels and inverted, since noise of the source would flatten the other line.
    slope, intercept = theilslopes(pairs["extra"], pairs["train"])[:2]
    if slope == 0:
        return line
    return (
        f"{line}; training labels are about {1 / slope:.3g} x {file.name} {-intercept / slope:+.3g} (rank "
        f"correlation {correlation:.2f})"
    )


def _check_units(
    extra: pd.Series,
    train: pd.Series,
    shared: pd.DataFrame,
    file: Path,
    config: CompetitionConfig,
    described: list[str],
) -> None:
    """Raise a DataError if the labels of an extra table mean something else than the competition's.

    Inputs that are in both tables must have mostly the same classes, or similar numbers. If there are few
    such inputs, the median of the extra numbers must be near the range of the training labels.

    Args:
        extra: labels of the extra table.
        train: labels of the training table.
        shared: result of `_shared_labels`.
        described: lines about the scale of the labels, for the message.
    """
    name = str(train.name)
    n_shared = len(shared)
    std = train.std() if train.nunique() > 1 else 1.0
    if config.problem_type not in ("regression", "ordinal") and name in config.targets:
        agreement = (shared["extra"] == shared["train"]).mean()
        is_different = n_shared >= MIN_SHARED_INPUTS and agreement < MIN_AGREEMENT
        evidence = f"only {agreement:.0%} of {n_shared} shared inputs have the same class in both tables"
    elif n_shared >= MIN_SHARED_INPUTS:
        difference = (shared["extra"] - shared["train"]).abs().median()
        std_ratio = shared["extra"].std() / shared["train"].std()
        correlation = shared["extra"].corr(shared["train"])
        is_scaled = correlation > MIN_CORRELATION and not MIN_STD_RATIO < std_ratio < MAX_STD_RATIO
        is_reversed = correlation < -MIN_CORRELATION
        is_different = is_scaled or is_reversed or difference > std
        evidence = (
            f"on {n_shared} shared inputs the median difference is {difference:.3g}, and their standard "
            f"deviation is {std_ratio:.3g} times that of the training labels; their correlation is "
            f"{correlation:.2f}"
        )
    else:
        median = extra.median()
        low = train.min()
        high = train.max()
        is_different = median < low - std or median > high + std
        evidence = f"their median is {median:.3g}, and the training labels are from {low:.3g} to {high:.3g}"
    if is_different:
        raise DataError(
            f"extra_train {file}: the labels of {name!r} seem to be in other units than the competition's, "
            f"or to mean something else: {'; '.join([evidence, *described])}. Convert the column, or set "
            "check_units: false."
        )
