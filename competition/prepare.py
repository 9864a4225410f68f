"""Check the raw tables of a competition and write clean ones.

Reads: train, test and sample_submission of the YAML. Never the answers.
Writes: prepared/train.parquet, test.parquet, sample_submission.parquet and report.json.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from competition import clean, cli
from competition.classes import class_numbers
from competition.clean import check_ids, join_first, parse_labels, parse_numbers, raise_if_any
from competition.config import CompetitionConfig, require_owned_outputs
from competition.dataset import FOLD, INPUT_KEY, TIME, WEIGHT
from competition.errors import ConfigError, DataError, SubmissionError
from competition.extra import with_extra_rows, with_user_features
from competition.files import as_json, as_parquet, read_text_table, write_atomically
from competition.metrics import top_k_of
from competition.molecules import canonical_smiles
from competition.paths import Paths
from competition.task import build_metric


class Prepared(NamedTuple):
    """Clean tables of a competition and what was found on the way."""

    train: pd.DataFrame
    test: pd.DataFrame
    sample: pd.DataFrame
    report: dict[str, Any]


def prepare(config: CompetitionConfig) -> Prepared:
    """Read, check and clean the raw tables. The order of rows is that of the files."""
    labels = [*config.targets, *config.auxiliary_targets]
    named = filter(None, (config.group, config.weight, config.time, config.fold_column))
    raw = clean.read_table_with_ids(config.train, [config.id, *config.inputs, *labels, *named])
    if config.empty_smiles and canonical_smiles(config.empty_smiles) is None:
        raise ConfigError(
            f"competition.empty_smiles, {config.empty_smiles!r}, is no valid SMILES. Correct it."
        )
    test, test_ids, dropped_test = prepare_test(config, config.test)
    sample = read_text_table(config.sample_submission)
    check_sample(sample, config, test_ids)

    train, dropped = clean.clean_inputs(raw, config, config.train, in_train=True)
    if config.group and config.group not in train:
        train[config.group] = raw[config.group].str.strip()
    train = pd.concat([train, _of_training_rows(raw, config)], axis=1)[~dropped].reset_index(drop=True)
    if unlabelled := [name for name in labels if train[name].isna().all()]:
        raise DataError(
            f"{config.train} has no label at all for {', '.join(unlabelled)}; take it out of the YAML."
        )
    y = train[config.targets]
    unseen = [label for number, label in enumerate(config.classes) if not (y == number).any(axis=None)]
    if unseen and not config.holdout_of:  # whose only row of a class may be kept out
        raise DataError(
            f"{config.train} has no row of {join_first(unseen)}, which is in competition.classes. Remove "
            f"it there, "
            "or correct the labels."
        )
    said, dropped_ids = [*_found_in(train, test, config)], list(raw[config.id][dropped])
    if dropped_ids:
        said.append(
            f"{len(dropped_ids)} training rows are left out, as they cannot be read: "
            f"{join_first(dropped_ids)}"
        )
    if dropped_test:
        instead = "get the mean of the training labels, or the commonest"
        said.append(f"{len(dropped_test)} test rows cannot be read and {instead}: {join_first(dropped_test)}")
    if config.extra_train:
        train, of_extra = with_extra_rows(train, test, config)
        said += of_extra
    report = {"said": said, "dropped_train_ids": dropped_ids, "dropped_test_ids": dropped_test}
    return Prepared(with_user_features(train, config), test, sample, report)


def prepare_test(config: CompetitionConfig, file: Path) -> tuple[pd.DataFrame, list[str], list[str]]:
    """A clean test table without its training table, all ids in the order of the file, and those that were
    dropped.
    """
    raw = clean.read_table_with_ids(file, [config.id, *config.inputs])
    test, dropped = clean.clean_inputs(raw, config, file, in_train=False)
    test, ids = test[~dropped].reset_index(drop=True), raw[config.id]
    return with_user_features(test, config), list(ids), list(ids[dropped])


def _of_training_rows(train: pd.DataFrame, config: CompetitionConfig) -> pd.DataFrame:
    """What training rows alone have, as numbers: targets, auxiliary targets, weight, time, fold."""
    where, metric = config.train, build_metric(config)
    if config.group:
        empty = train[config.group].str.strip() == ""
        raise_if_any(
            train, empty, config.group, config.id, where, "empty cells, and makes the groups", "Fill them."
        )
    labels = [*config.targets, *config.auxiliary_targets]
    numbers = {name: parse_labels(train, name, config, where) for name in labels}
    for name in config.targets:
        what = f"labels at or below {metric.lower_bound:g}, where the metric {metric.name} has no value"
        raise_if_any(train, numbers[name] <= metric.lower_bound, name, config.id, where, what)
    if config.weight:
        numbers[WEIGHT] = parse_numbers(train, config.weight, config.id, where)
        raise_if_any(
            train, ~(numbers[WEIGHT] > 0), config.weight, config.id, where, "weights that are not above 0"
        )
    if config.time:
        numbers[TIME] = clean.parse_times(train, config.time, config.id, where)
    if config.fold_column:
        numbers[FOLD] = clean.parse_folds(train, config.fold_column, config.id, where)
    return pd.DataFrame(numbers, index=train.index)


def check_sample(sample: pd.DataFrame, config: CompetitionConfig, test_ids: list[str]) -> None:
    """Check that the sample asks for exactly the test rows and the targets; it may repeat columns of the test
    table.
    """
    where, expected = config.sample_submission, [config.id, *config.columns_in_sample]
    lacking, others = {*expected} - {*sample}, {*sample} - {*expected}
    if lacking or (others and not others <= {*read_text_table(config.test)}):
        raise SubmissionError(
            f"{where} has the columns {', '.join(sample.columns)}, where {', '.join(expected)} are "
            f"expected. Correct "
            "competition.targets, or set competition.submission_columns where the names differ."
        )
    if config.classes and len(config.columns_in_sample) == len(config.targets):
        cells = pd.Series(sample[config.columns_in_sample].to_numpy().ravel())
        named = (cells.str.split().explode() if top_k_of(config.metric) else cells).drop_duplicates()
        foreign = class_numbers(named, config.classes)[1] & pd.to_numeric(named, errors="coerce").isna()
        if foreign.any():  # a number may fill a sample whatever the labels are
            raise SubmissionError(
                f"{where} names the classes {join_first(named[foreign])}, and those of the training table "
                f"are "
                f"{join_first(config.classes)}. Use the files of one competition, or set competition.classes."
            )
    check_ids(sample[config.id], where)
    asked, given = set(sample[config.id]), set(test_ids)
    if asked != given:
        raise SubmissionError(
            f"{where} names other ids than {config.test}; in the first only are "
            f"{join_first(sorted(asked - given))}, in the second only {join_first(sorted(given - asked))}. "
            "Use the files of one competition."
        )


def _found_in(train: pd.DataFrame, test: pd.DataFrame, config: CompetitionConfig) -> Iterator[str]:
    """What is worth knowing of the clean tables, in words."""
    yield f"{len(train)} training rows, {len(test)} test rows"
    targets, both = config.targets, pd.concat([train, test])
    for name in targets if config.classes else []:
        counts = [f"{label} {(train[name] == number).sum()}" for number, label in enumerate(config.classes)]
        yield f"{name}: {join_first(counts, str)}"
    if config.problem_type in ("binary", "multilabel"):
        yield f"problem_type {config.problem_type}, where {config.classes[1]!r} is the positive class"
    elif config.classes:
        yield f"problem_type {config.problem_type}"
    none = config.empty_smiles and canonical_smiles(config.empty_smiles)
    counted = {
        "training rows repeat the input of an earlier one (they share its fold)": train[INPUT_KEY]
        .duplicated()
        .sum(),
        "test rows have an input that is in the training table, too": test[INPUT_KEY]
        .isin(train[INPUT_KEY])
        .sum(),
        "empty molecules are read as empty_smiles": sum((both[name] == none).sum() for name in config.smiles),
    }
    yield from (f"{n} {what}" for what, n in counted.items() if n)
    named = {
        "labels missing: {}": [f"{name} {n}" for name in targets if (n := train[name].isna().sum())],
        "columns of one value: {}": [
            name for name in [*config.inputs, *targets] if train[name].nunique() <= 1
        ],
        "only 0 and 1 under {}, predicted as numbers; for probabilities set problem_type: binary or "
        "multilabel, and a "
        "metric of classes": [
            name for name in targets if not config.classes and set(train[name].dropna()) == {0, 1}
        ],
    }
    yield from (words.format(join_first(names, str)) for words, names in named.items() if names)


def describe(report: dict[str, Any]) -> str:
    """What was found, in words, for the terminal and the report."""
    return "\n".join(report["said"])


def write_prepared(prepared: Prepared, paths: Paths, yaml_file: Path) -> None:
    """Write the clean tables of the competition of a YAML, unless they are the same."""
    require_owned_outputs(paths, yaml_file)
    tables = dict(zip((paths.train, paths.test, paths.sample), prepared[:3], strict=True))
    contents = {path: as_parquet(table) for path, table in tables.items()}
    contents |= {
        paths.owner: f"{yaml_file.resolve()}\n".encode(),
        paths.prepare_report: as_json(prepared.report).encode(),
    }
    changed = [
        path for path, content in contents.items() if not path.exists() or path.read_bytes() != content
    ]
    if changed:
        cli.require_no_training(paths)
    for path in changed:
        write_atomically(path, contents[path])


def run(config: CompetitionConfig, paths: Paths, yaml_file: Path) -> str:
    """Prepare and write the tables of a competition; returns what was noticed, as text."""
    prepared = prepare(config)
    write_prepared(prepared, paths, yaml_file)
    return describe(prepared.report)
