"""Check the raw tables of a competition and write clean ones: `python -m competition.prepare [COMPETITION]`.

Reads: train, test and sample_submission of the YAML. Never the answers.
Writes: prepared/train.parquet, test.parquet, sample_submission.parquet and report.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from competition import command
from competition.clean import (
    check_ids,
    clean_inputs,
    listed,
    named_rows,
    parse_folds,
    parse_numbers,
    parse_times,
    require_columns,
    require_rows,
)
from competition.config import CompetitionConfig, find_config, load_competition, require_own_products
from competition.errors import DataError, SubmissionError
from competition.extra import with_extra_rows, with_features
from competition.files import as_json, as_parquet, read_text_table, write_atomically
from competition.metrics import Metric, load_metric
from competition.paths import Paths
from competition.tables import FOLD, INPUT_KEY, TIME, WEIGHT


@dataclass
class Prepared:
    """Clean tables of a competition and what was found on the way."""

    train: pd.DataFrame
    test: pd.DataFrame
    sample: pd.DataFrame
    report: dict[str, object] = field(default_factory=dict)


def prepare(config: CompetitionConfig) -> Prepared:
    """Read, check and clean the raw tables. The order of rows is that of the files.

    Raises:
        ConfigError: if the metric is not known.
        DataError, SubmissionError: for the first thing wrong in a table; names column, row and id.
    """
    metric = load_metric(config.metric, config.greater_is_better)
    train = read_text_table(config.train)
    test = read_text_table(config.test)
    sample = read_text_table(config.sample_submission)
    named = [name for name in (config.group, config.weight, config.time, config.fold_column) if name]
    own = [*config.targets, *config.auxiliary_targets, *named]
    require_columns(train, [config.id, *config.inputs, *own], config.train)
    require_columns(test, [config.id, *config.inputs], config.test)
    require_rows(train, config.train)
    require_rows(test, config.test)
    train_ids = check_ids(train[config.id], config.train)
    test_ids = check_ids(test[config.id], config.test)
    check_sample(sample, config, list(test_ids))

    targets = pd.DataFrame({name: parse_numbers(train, name, config.id, config.train) for name in config.targets})
    _require_labels(targets, config)
    _require_domain(targets, train, config, metric)
    clean_train, dropped_train = clean_inputs(train, config, str(config.train), in_train=True)
    clean_test, dropped_test = clean_inputs(test, config, str(config.test), in_train=False)
    if config.group and config.group not in clean_train:
        clean_train[config.group] = train[config.group].str.strip()
    clean_train = pd.concat([clean_train, targets, _of_training_rows(train, config)], axis=1)
    clean_train = clean_train[~dropped_train].reset_index(drop=True)
    clean_test = clean_test[~dropped_test].reset_index(drop=True)
    require_rows(clean_train, f"{config.train} without its unparsable rows")
    require_rows(clean_test, f"{config.test} without its unparsable rows")
    _require_labels(clean_train[[*config.targets, *config.auxiliary_targets]], config)

    shared = set(clean_train[INPUT_KEY]) & set(clean_test[INPUT_KEY])
    report = {
        "n_train": len(clean_train),
        "n_test": len(clean_test),
        "dropped_train_ids": list(train_ids[dropped_train]),
        "dropped_test_ids": list(test_ids[dropped_test]),
        "missing_labels": {name: int(clean_train[name].isna().sum()) for name in config.targets},
        "empty_molecules": _empty_molecules(config, train, test),
        "duplicates_in_train": int(clean_train[INPUT_KEY].duplicated().sum()),
        "ids_in_train_and_test": len(set(train_ids) & set(test_ids)),
        "test_rows_whose_input_is_in_train": int(clean_test[INPUT_KEY].isin(shared).sum()),
        "constant_columns": [name for name in config.inputs if clean_train[name].nunique(dropna=False) == 1],
        "constant_targets": [name for name in config.targets if clean_train[name].nunique() == 1],
    }
    if config.extra_train:
        clean_train, report["extra_train"] = with_extra_rows(clean_train, clean_test, config)
    return Prepared(with_features(clean_train, config), with_features(clean_test, config), sample, report)


def prepare_test(config: CompetitionConfig, path: str) -> tuple[pd.DataFrame, list[str], list[str]]:
    """A new test table without its training table.

    Returns:
        The clean table, all ids in the order of the file, and the ids that were dropped.

    Raises:
        DataError: as `prepare`.
    """
    file = Path(path)
    test = read_text_table(file)
    require_columns(test, [config.id, *config.inputs], file)
    require_rows(test, file)
    ids = check_ids(test[config.id], file)
    clean, dropped = clean_inputs(test, config, path, in_train=False)
    require_rows(clean[~dropped], f"{path} without its unparsable rows")
    return with_features(clean[~dropped].reset_index(drop=True), config), list(ids), list(ids[dropped])


def _of_training_rows(train: pd.DataFrame, config: CompetitionConfig) -> pd.DataFrame:
    """What training rows alone have, as numbers: auxiliary targets, weight, time, fold. The group is only checked."""
    if config.group:
        empty = train[config.group].str.strip() == ""
        if empty.any():
            where = named_rows(train, empty, config.id)
            raise DataError(f"{config.train}: the group column {config.group!r} must not be empty; it is for {where}.")
    numbers = {name: parse_numbers(train, name, config.id, config.train) for name in config.auxiliary_targets}
    if config.weight:
        numbers[WEIGHT] = _weights(train, config)
    if config.time:
        numbers[TIME] = parse_times(train, config.time, config.id, config.train)
    if config.fold_column:
        numbers[FOLD] = parse_folds(train, config.fold_column, config.id, config.train)
    return pd.DataFrame(numbers, index=train.index)


def _weights(train: pd.DataFrame, config: CompetitionConfig) -> pd.Series:
    """The weight column: numbers above 0, none missing."""
    assert config.weight is not None
    weights = parse_numbers(train, config.weight, config.id, config.train)
    wrong = ~(weights > 0)
    if wrong.any():
        where = named_rows(train, wrong, config.id)
        raise DataError(f"{config.train}: the weight column {config.weight!r} must be above 0; it is not for {where}.")
    return weights


def check_sample(sample: pd.DataFrame, config: CompetitionConfig, test_ids: list[str]) -> None:
    """Check that the sample asks for exactly the test rows and the targets.

    Raises:
        SubmissionError: if it does not; names the columns or ids.
    """
    where = config.sample_submission
    expected = [config.id, *config.columns_in_sample]
    if sorted(sample.columns) != sorted(expected):
        raise SubmissionError(
            f"{where} must have the columns {', '.join(expected)}; found {', '.join(sample.columns)}. "
            "Correct competition.targets, or set competition.submission_columns where the names differ."
        )
    try:
        check_ids(sample[config.id], where)
    except DataError as error:
        raise SubmissionError(str(error)) from None
    asked, given = set(sample[config.id]), set(test_ids)
    extra = [i for i in sample[config.id] if i not in given]
    lacking = [i for i in test_ids if i not in asked]
    if extra or lacking:
        raise SubmissionError(
            f"{where} must name the ids of {config.test}: "
            + "; ".join(
                part
                for part in (
                    f"{len(extra)} are in the sample only ({listed(extra)})" if extra else "",
                    f"{len(lacking)} are in the test table only ({listed(lacking)})" if lacking else "",
                )
                if part
            )
            + ". Use the files of one competition."
        )


def _require_labels(targets: pd.DataFrame, config: CompetitionConfig) -> None:
    empty = [str(name) for name in targets if targets[name].isna().all()]
    if empty:
        raise DataError(f"{config.train}: every target must have labels; {', '.join(empty)} has none at all.")


def _require_domain(targets: pd.DataFrame, train: pd.DataFrame, config: CompetitionConfig, metric: Metric) -> None:
    for name in config.targets:
        wrong = targets[name] <= metric.above
        if wrong.any():
            raise DataError(
                f"{config.train}: labels of {name!r} must be above {metric.above:g} for the metric {metric.name}; "
                f"{int(wrong.sum())} of {len(wrong)} are not, {named_rows(train, wrong, config.id)} (the first is "
                f"{targets[name][wrong].iloc[0]:g}). Correct them, or choose another competition.metric."
            )


def _empty_molecules(config: CompetitionConfig, train: pd.DataFrame, test: pd.DataFrame) -> dict[str, int]:
    """Cells that `empty_smiles` stands for, of each molecule column that has some."""
    counts = {name: sum(int((t[name].str.strip() == "").sum()) for t in (train, test)) for name in config.smiles}
    return {name: n for name, n in counts.items() if n and config.empty_smiles}


def describe(report: dict[str, object]) -> str:
    """What was found, in words, for the terminal."""
    lines = [f"{report['n_train']} training rows, {report['n_test']} test rows"]
    said = {
        "duplicates_in_train": "training rows repeat the input of an earlier one (they share its fold)",
        "test_rows_whose_input_is_in_train": "test rows have an input that stands in the training table too",
        "ids_in_train_and_test": "ids stand in both tables",
    }
    lines += [f"{report[key]} {words}" for key, words in said.items() if report[key]]
    missing = {name: n for name, n in report["missing_labels"].items() if n}  # type: ignore[attr-defined]
    if missing:
        lines.append("labels missing: " + ", ".join(f"{name} {n}" for name, n in missing.items()))
    if report.get("empty_molecules"):
        empty = ", ".join(f"{name} {n}" for name, n in report["empty_molecules"].items())  # type: ignore[attr-defined]
        lines.append(f"empty molecules, read as empty_smiles: {empty}")
    for file, found in report.get("extra_train", {}).items():  # type: ignore[attr-defined]
        lines.append(
            f"{found['used']} extra training rows from {file}; left out: {found['in_test']} with the input of a test "
            f"row, {found['unusable']} without a usable input or label"
        )
    for key in ("constant_columns", "constant_targets"):
        if report[key]:
            lines.append(f"{key.replace('_', ' ')}: {', '.join(report[key])}")  # type: ignore[arg-type]
    for key, words in (("dropped_train_ids", "training"), ("dropped_test_ids", "test")):
        if report[key]:
            lines.append(f"{len(report[key])} {words} rows dropped as unparsable")  # type: ignore[arg-type]
    return "\n".join(lines)


def run(config: CompetitionConfig, paths: Paths, yaml_file: Path) -> str:
    """Write the clean tables of the competition of a YAML, or keep them; returns what was found, in words.

    Raises:
        ConfigError: if the products of this name belong to another YAML.
        DataError, SubmissionError: as `prepare`, or if they would change while another command trains on them.
    """
    require_own_products(paths, yaml_file)
    prepared = prepare(config)
    contents = {
        paths.owner: f"{yaml_file.resolve()}\n".encode(),
        paths.train: as_parquet(prepared.train),
        paths.test: as_parquet(prepared.test),
        paths.sample: as_parquet(prepared.sample),
        paths.prepare_report: as_json(prepared.report).encode(),
    }
    changed = [path for path, content in contents.items() if not path.exists() or path.read_bytes() != content]
    if changed:
        with command.tables_to_change(paths):
            for path in changed:
                write_atomically(path, contents[path])
    return describe(prepared.report)


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    config = load_competition(args.competition, args.seed)
    paths = Paths.of(args.competition)
    with command.locked(paths, wait=True):
        print(run(config, paths, find_config(args.competition)))


if __name__ == "__main__":
    command.run(main)
