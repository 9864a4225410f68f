"""Check the raw tables of a competition and write clean ones: `python -m competition.prepare [COMPETITION]`.

Reads: train, test and sample_submission of the YAML. Never the answers.
Writes: prepared/train.csv, test.csv, sample_submission.csv and report.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from competition import command
from competition.config import CompetitionConfig, find_config, load_competition, require_own_products
from competition.errors import DataError, SubmissionError
from competition.files import digest, read_text_table, write_atomically, write_json, write_table
from competition.metrics import load_metric
from competition.molecules import canonical_smiles, normalised_text
from competition.paths import Paths
from competition.tables import INPUT_KEY

LARGEST = 1e100  # larger numbers are as good as infinite: their squares overflow
MISSING = {"", "na", "n/a", "nan", "null", "none"}


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
    load_metric(config.metric, config.greater_is_better)
    train = read_text_table(config.train)
    test = read_text_table(config.test)
    sample = read_text_table(config.sample_submission)
    group = [config.group] if config.group else []
    _require_columns(train, [config.id, *config.inputs, *config.targets, *group], config.train)
    _require_columns(test, [config.id, *config.inputs], config.test)
    _require_rows(train, config.train)
    _require_rows(test, config.test)
    train_ids = check_ids(train[config.id], config.train)
    test_ids = check_ids(test[config.id], config.test)
    check_sample(sample, config, list(test_ids))

    targets = pd.DataFrame({name: parse_numbers(train, name, config.id, config.train) for name in config.targets})
    _require_labels(targets, config)
    clean_train, dropped_train = clean_inputs(train, config, str(config.train))
    clean_test, dropped_test = clean_inputs(test, config, str(config.test))
    for name in group:
        empty = train[name].str.strip() == ""
        if empty.any():
            where = _rows(train, empty, config.id)
            raise DataError(f"{config.train}: the group column {name!r} must not be empty; it is for {where}.")
        if name not in clean_train:
            clean_train[name] = train[name].str.strip()
    clean_train = pd.concat([clean_train, targets], axis=1)[~dropped_train].reset_index(drop=True)
    clean_test = clean_test[~dropped_test].reset_index(drop=True)
    _require_rows(clean_train, f"{config.train} without its unparsable rows")
    _require_rows(clean_test, f"{config.test} without its unparsable rows")
    _require_labels(clean_train[config.targets], config)

    shared = set(clean_train[INPUT_KEY]) & set(clean_test[INPUT_KEY])
    report = {
        "n_train": len(clean_train),
        "n_test": len(clean_test),
        "dropped_train_ids": list(train_ids[dropped_train]),
        "dropped_test_ids": list(test_ids[dropped_test]),
        "missing_labels": {name: int(clean_train[name].isna().sum()) for name in config.targets},
        "duplicates_in_train": int(clean_train[INPUT_KEY].duplicated().sum()),
        "ids_in_train_and_test": len(set(train_ids) & set(test_ids)),
        "test_rows_whose_input_is_in_train": int(clean_test[INPUT_KEY].isin(shared).sum()),
        "constant_columns": [name for name in config.inputs if clean_train[name].nunique(dropna=False) == 1],
        "constant_targets": [name for name in config.targets if clean_train[name].nunique() == 1],
    }
    return Prepared(clean_train, clean_test, sample, report)


def prepare_test(config: CompetitionConfig, path: str) -> tuple[pd.DataFrame, list[str], list[str]]:
    """A new test table without its training table.

    Returns:
        The clean table, all ids in the order of the file, and the ids that were dropped.

    Raises:
        DataError: as `prepare`.
    """
    file = Path(path)
    test = read_text_table(file)
    _require_columns(test, [config.id, *config.inputs], file)
    _require_rows(test, file)
    ids = check_ids(test[config.id], file)
    clean, dropped = clean_inputs(test, config, path)
    _require_rows(clean[~dropped], f"{path} without its unparsable rows")
    return clean[~dropped].reset_index(drop=True), list(ids), list(ids[dropped])


def check_ids(ids: pd.Series, where: object) -> pd.Series:
    """The ids, if each row has one of its own.

    Raises:
        DataError: for an empty or a doubled id.
    """
    empty = (ids.str.strip() == "").to_numpy()
    if empty.any():
        raise DataError(f"{where}: every row must have an id; row {int(empty.argmax()) + 2} has none.")
    doubled = ids[ids.duplicated()].unique()
    if len(doubled):
        raise DataError(f"{where}: ids must be unique; doubled: {_list(doubled)}. Remove the extra rows.")
    return ids


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
                    f"{len(extra)} are in the sample only ({_list(extra)})" if extra else "",
                    f"{len(lacking)} are in the test table only ({_list(lacking)})" if lacking else "",
                )
                if part
            )
            + ". Use the files of one competition."
        )


def parse_numbers(table: pd.DataFrame, name: str, id_column: str, where: object) -> pd.Series:
    """A column as finite floats; an empty cell, NA, NaN, null or None is NaN.

    Raises:
        DataError: for other text or an infinite number; names the row.
    """
    text = table[name].str.strip()
    numbers = pd.to_numeric(text.where(~text.str.lower().isin(MISSING), "nan"), errors="coerce")
    wrong = (numbers.isna() & ~text.str.lower().isin(MISSING)) | (numbers.abs() > LARGEST)
    if wrong.any():
        first = int(wrong.to_numpy().argmax())
        raise DataError(
            f"{where}: column {name!r} must hold finite numbers or nothing; row {first + 2} "
            f"(id {table[id_column][first]!r}) has {table[name][first]!r}"
            + (f", and {int(wrong.sum()) - 1} more rows." if wrong.sum() > 1 else ".")
        )
    return numbers.astype(float)


def clean_inputs(table: pd.DataFrame, config: CompetitionConfig, where: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Id, canonical inputs and the key of the whole input; and which rows have no usable input, (n_rows,) bool.

    Raises:
        DataError: if a molecule does not parse or a text is empty, unless `unparsable: drop` is set.
    """
    clean = pd.DataFrame({config.id: table[config.id]})
    keys = pd.DataFrame(index=table.index)
    dropped = np.zeros(len(table), dtype=bool)
    for name in config.smiles:
        canonical = {smiles: canonical_smiles(smiles) for smiles in table[name].unique()}
        clean[name] = table[name].map(canonical)
        keys[name] = clean[name]
        dropped |= _unusable(table, name, clean[name].isna().to_numpy(), "a SMILES that RDKit can parse", config, where)
        clean[name] = clean[name].fillna("")
    for name in config.text:
        clean[name] = table[name]
        keys[name] = table[name].map(normalised_text)
        dropped |= _unusable(table, name, (keys[name] == "").to_numpy(), "text", config, where)
    for name in config.numeric:
        clean[name] = parse_numbers(table, name, config.id, where)
        keys[name] = clean[name].map(repr)
    for name in config.categorical:
        clean[name] = keys[name] = table[name].str.strip()
    clean[INPUT_KEY] = [digest(list(row)) for row in keys.fillna("").itertuples(index=False)]
    return clean, dropped


def _unusable(
    table: pd.DataFrame, name: str, wrong: np.ndarray, what: str, config: CompetitionConfig, where: str
) -> np.ndarray:
    if wrong.any() and config.unparsable == "error":
        first = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{where}: column {name!r} must hold {what}; {_rows(table, pd.Series(wrong), config.id)} "
            f"do not (the first is {table[name][first]!r}). Correct them, or set competition.unparsable: drop."
        )
    return wrong


def _require_columns(table: pd.DataFrame, names: list[str], where: object) -> None:
    lacking = [name for name in names if name not in table.columns]
    if lacking:
        raise DataError(
            f"{where} must have the columns {', '.join(names)}; lacking: {', '.join(lacking)} "
            f"(it has {', '.join(table.columns)})."
        )


def _require_rows(table: pd.DataFrame, where: object) -> None:
    if table.empty:
        raise DataError(f"{where} must have at least one row below its header; it has none.")


def _require_labels(targets: pd.DataFrame, config: CompetitionConfig) -> None:
    empty = [name for name in config.targets if targets[name].isna().all()]
    if empty:
        raise DataError(f"{config.train}: every target must have labels; {', '.join(empty)} has none at all.")


def _list(values: object, most: int = 5) -> str:
    items = [repr(value) for value in values]  # type: ignore[attr-defined]
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _rows(table: pd.DataFrame, wrong: pd.Series, id_column: str) -> str:
    positions = np.flatnonzero(wrong.to_numpy())
    named = ", ".join(f"row {i + 2} (id {table[id_column].iloc[i]!r})" for i in positions[:5])
    return named + (f" and {len(positions) - 5} more" if len(positions) > 5 else "")


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
    for key in ("constant_columns", "constant_targets"):
        if report[key]:
            lines.append(f"{key.replace('_', ' ')}: {', '.join(report[key])}")  # type: ignore[arg-type]
    for key, words in (("dropped_train_ids", "training"), ("dropped_test_ids", "test")):
        if report[key]:
            lines.append(f"{len(report[key])} {words} rows dropped as unparsable")  # type: ignore[arg-type]
    return "\n".join(lines)


def run(config: CompetitionConfig, paths: Paths, yaml_file: Path) -> str:
    """Write the clean tables of the competition of a YAML; returns what was found, in words.

    Raises:
        ConfigError: if the products of this name belong to another YAML.
        DataError, SubmissionError: as `prepare`.
    """
    require_own_products(paths, yaml_file)
    prepared = prepare(config)
    write_atomically(paths.owner, f"{yaml_file.resolve()}\n")
    write_table(paths.train, prepared.train)
    write_table(paths.test, prepared.test)
    write_table(paths.sample, prepared.sample)
    write_json(paths.prepare_report, prepared.report)
    return describe(prepared.report)


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    config = load_competition(args.competition, args.seed)
    paths = Paths.of(args.competition)
    with command.locked(paths):
        print(run(config, paths, find_config(args.competition)))


if __name__ == "__main__":
    command.run(main)
