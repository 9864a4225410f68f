"""Check the raw tables of a competition and write clean ones.

Reads: train, test and sample_submission of the YAML. Never the answers.
Writes: prepared/train.parquet, test.parquet, sample_submission.parquet and report.json.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from competition.cells import (
    canonical_cells,
    check_ids,
    describe_rows,
    is_missing_cell,
    parse_folds,
    parse_numbers,
    parse_times,
    raise_if_any,
    read_table_with_ids,
)
from competition.clean import (
    clean_inputs,
    describe_raw_inputs,
    with_user_features,
)
from competition.config import CompetitionConfig
from competition.dataset import FEATURE, FOLD, TIME, WEIGHT
from competition.extra_train import with_extra_rows
from competition.labels import (
    Labels,
    describe_censored,
    parse_labels,
    require_above_lower_bound,
    without_empty_bounds,
)
from competition.metrics import top_k_of
from competition.molecules import canonical_smiles
from competition.pairs import with_pair_features
from competition.summary import describe_clean_tables
from competition.task import class_name, class_numbers
from core import cli
from core.errors import ConfigError, DataError, SubmissionError, join_first
from core.files import as_json, as_parquet, write_atomically
from core.paths import Paths
from core.user_code import opened_files
from core.user_tables import read_text_table


class Prepared(NamedTuple):
    """Clean tables of a competition, and a report on them (the content of prepared/report.json).

    Attributes:
        shared: raw cells of the training rows and of all test rows after them, in the columns that both
            tables have cells in, also those that no setting reads; without ids, molecules and texts.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    sample: pd.DataFrame
    report: dict[str, Any]
    shared: pd.DataFrame


def prepare(config: CompetitionConfig, n_workers: int | None = None) -> Prepared:
    """Read, check and clean the raw tables; rows keep the order of the files.

    Args:
        n_workers: number of processes for features of a user's function; None for one per core.
    """
    raw = _read_train(config)
    if config.empty_smiles and canonical_smiles(config.empty_smiles) is None:
        raise ConfigError(
            f"competition.empty_smiles, {config.empty_smiles!r}, is not a valid SMILES. Correct it."
        )
    test, raw_test, dropped_test = prepare_test(config, config.test, n_workers)
    if not config.has_test_table:
        raw_test = raw_test.drop(columns=config.columns.labels, errors="ignore")
    sample = read_text_table(config.sample_submission)
    check_sample(sample, config, raw_test)

    train, labels, dropped_train = _clean_train(raw, config)
    raw_tables = [(raw, config.train)]
    if config.has_test_table:
        raw_tables.append((raw_test, config.test))
    summary = [
        *describe_clean_tables(train, test, config),
        _describe_files([*raw_tables, (sample, config.sample_submission)]),
        *sample.attrs.get("warnings", []),
        *_describe_form(sample, config),
        *describe_censored(labels, config, config.train.name),
        *chain.from_iterable(describe_raw_inputs(table, config, file.name) for table, file in raw_tables),
        *_describe_labels_of_test(raw_test, config),
        *config.describe_columns(),
        *_describe_codes(sample, config),
        *describe_dropped(dropped_test, dropped_train, len(raw)),
        *_describe_without_group(raw, config),
    ]
    answers: list[str] = []
    kept = raw[~raw[config.id].isin(dropped_train)]
    if config.extra_train:
        train, extra_summary, answers = with_extra_rows(train, test, kept, config)
        summary += [*answers, *extra_summary]
    _require_auxiliary_labels(train, config)
    read_columns = {config.id, *config.inputs, *config.columns.labels, *_other_columns(config)}
    train = with_user_features(without_empty_bounds(train), config, n_workers)
    summary += _describe_features(train, config)
    # "said" is the key of the summary in existing files.
    report = {
        "said": summary,
        "answers": answers,
        "unused_columns": [name for name in raw_test if name in raw and name not in read_columns],
        "dropped_train_ids": dropped_train,
        "dropped_test_ids": dropped_test,
        "n_censored": sum(sum(labels.n_censored.get(name, ())) for name in config.targets),
        "opened": opened_files(config.features),
    }
    shared = _shared_columns(kept, raw_test, config)
    return Prepared(with_pair_features(train, config.pairs), test, sample, report, shared)


def _describe_features(train: pd.DataFrame, config: CompetitionConfig) -> Iterator[str]:
    """Yield lines about columns of the user and about `swap`; a ConfigError if these columns are empty."""
    features = [name for name in map(str, train) if name.startswith(FEATURE)]
    if features and config.unparsable == "error" and train[features].isna().all(axis=None):
        raise ConfigError(f"competition.features {config.features} returned only missing values.")
    if features:
        names = [name.removeprefix(FEATURE) for name in features]
        yield f"columns of competition.features: {join_first(names, str)}"
    if config.swap is not None and config.swap.labels is None and config.classes:
        yield "swap has no labels: a row keeps its class in each order of its columns"


def _shared_columns(raw: pd.DataFrame, raw_test: pd.DataFrame, config: CompetitionConfig) -> pd.DataFrame:
    """Return `Prepared.shared` of the raw tables."""
    others = {config.id, *config.smiles, *config.text}
    names = [name for name in raw_test if name in raw and name not in others]
    filled = [name for name in names if (raw_test[name].str.strip() != "").any()]
    return pd.concat([raw[filled], raw_test[filled]], ignore_index=True)


def _other_columns(config: CompetitionConfig) -> list[str]:
    """Return the columns that only the training table needs, without labels."""
    return [*config.group_columns, *filter(None, (config.weight, config.time, config.fold_column))]


def _read_train(config: CompetitionConfig) -> pd.DataFrame:
    """Return the raw training table; auxiliary targets that only extra tables have are empty."""
    required = config.targets if config.extra_train else config.columns.labels
    columns = [config.id, *config.inputs, *required, *_other_columns(config)]
    raw = read_table_with_ids(config.train, columns)
    only_in_extra = [name for name in config.auxiliary_targets if name not in raw]
    return raw.assign(**dict.fromkeys(only_in_extra, ""))


def _clean_train(raw: pd.DataFrame, config: CompetitionConfig) -> tuple[pd.DataFrame, Labels, list[str]]:
    """Return the clean training rows with their labels, the labels, and the ids of rows that cannot be read."""
    train, dropped = clean_inputs(raw, config, config.train, in_train=True)
    kept = raw[~dropped]
    labels = parse_labels(kept, config.columns.labels, config, config.train)
    train = _with_group_columns(train[~dropped], kept, config)
    train = pd.concat([train, labels.table, _training_columns(kept, labels.table, config)], axis=1)
    train = train.reset_index(drop=True)
    _require_labels(train, config)
    return train, labels, list(raw[config.id][dropped])


def _with_group_columns(clean: pd.DataFrame, raw: pd.DataFrame, config: CompetitionConfig) -> pd.DataFrame:
    """Return a clean table with those columns of `competition.group` that its raw table has."""
    names = [name for name in config.group_columns if name in raw and name not in clean]
    return clean.assign(**{name: raw[name].str.strip() for name in names})


def describe_dropped(
    dropped_test: Sequence[str], dropped_train: Sequence[str] = (), n_train: int = 0
) -> Iterator[str]:
    """Yield warnings about rows that cannot be read, given by their ids."""
    if dropped_train:
        yield (
            f"WARNING: {len(dropped_train)} of {n_train} training rows cannot be read and are left out "
            f"(competition.unparsable): {join_first(dropped_train)}"
        )
    if dropped_test:
        yield (
            f"WARNING: {len(dropped_test)} test rows cannot be read and get the mean, or the most frequent, "
            f"label: {join_first(dropped_test)}"
        )


def _describe_without_group(raw: pd.DataFrame, config: CompetitionConfig) -> Iterator[str]:
    """Yield warnings about training rows with an empty cell, or one such as NA, in a column that defines groups."""
    for name in config.group_columns:
        is_empty = canonical_cells(raw[name]) == ""
        words = raw[name].str.strip()[~is_empty]
        words = words[is_missing_cell(words)]
        if len(words):
            yield (
                f"WARNING: {len(words)} of {len(raw)} training rows have {join_first(words.unique())} in {name!r}, "
                "which is read as a group; empty these cells if they are missing"
            )
        if is_empty.any():
            yield (
                f"WARNING: {is_empty.sum()} of {len(raw)} training rows have no {name!r}, which defines "
                f"groups; only equal inputs share a fold with them: {describe_rows(raw, is_empty, config.id)}"
            )


def _describe_labels_of_test(raw_test: pd.DataFrame, config: CompetitionConfig) -> Iterator[str]:
    """Yield a warning if the raw test table has labels; one repeated value only fills it."""
    for name in [name for name in config.columns.labels if name in raw_test]:
        cells = raw_test[name].str.strip()
        cells = cells[~is_missing_cell(cells)]
        if cells.nunique() > 1:
            yield (
                f"WARNING: {config.test.name} has labels of {name!r} in {len(cells)} of {len(raw_test)} "
                "rows, which are used neither for training nor for the submission"
            )


def _describe_files(tables: list[tuple[pd.DataFrame, Path]]) -> str:
    """Return the number of rows of raw tables, and the form of those that are no plain CSV."""
    files = []
    for table, file in tables:
        form = table.attrs.get("form", "")
        files.append(f"{file.name} ({len(table)} rows{form and ', '}{form})")
    return f"read: {', '.join(files)}"


def _require_labels(train: pd.DataFrame, config: CompetitionConfig) -> None:
    """Raise a DataError if a target has no label, or a class no row."""
    unlabelled = [name for name in config.targets if train[name].isna().all()]
    if unlabelled:
        note = " (a censored one does not count)" if config.problem_type == "regression" else ""
        raise DataError(
            f"{config.train} has no label at all for {', '.join(unlabelled)}{note}; remove it from the YAML."
        )
    y = train[config.targets]
    absent_classes = [label for index, label in enumerate(config.classes) if not (y == index).any(axis=None)]
    if absent_classes and not config.holdout_of:  # the only row of a class may be in the holdout
        raise DataError(
            f"{config.train} has no row of {join_first(absent_classes)}, which is in competition.classes. "
            "Remove it there, or correct the labels."
        )


def _require_auxiliary_labels(train: pd.DataFrame, config: CompetitionConfig) -> None:
    """Raise a DataError if neither the training table nor an extra table has a label of an auxiliary target.

    Args:
        train: prepared training rows, followed by the rows of the extra tables.
    """
    unlabelled = [name for name in config.auxiliary_targets if train[name].isna().all()]
    if unlabelled:
        files = [config.train, *(extra.file for extra in config.extra_train)]
        raise DataError(
            f"no usable row of {', '.join(map(str, files))} has a label for {', '.join(unlabelled)}. Remove "
            "it from competition.auxiliary_targets, or name its column in extra_train under columns."
        )


def prepare_test(
    config: CompetitionConfig, file: Path, n_workers: int | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Return a clean test table, the raw table with all rows, and the ids of dropped rows."""
    raw = read_table_with_ids(file, [config.id, *config.inputs])
    test, dropped = clean_inputs(raw, config, file, in_train=False)
    test = _with_group_columns(test, raw, config)[~dropped].reset_index(drop=True)
    test = with_pair_features(with_user_features(test, config, n_workers), config.pairs)
    return test, raw, list(raw[config.id][dropped])


def _training_columns(train: pd.DataFrame, labels: pd.DataFrame, config: CompetitionConfig) -> pd.DataFrame:
    """Check labels, and return the other training-only columns as numbers: weight, time, fold."""
    where = config.train
    require_above_lower_bound(train, labels, config, where)
    numbers: dict[str, pd.Series] = {}
    if config.weight:
        numbers[WEIGHT] = parse_numbers(train, config.weight, config.id, where)
        is_invalid = ~(numbers[WEIGHT] > 0)
        raise_if_any(train, is_invalid, config.weight, config.id, where, "weights that are not above 0")
        numbers[WEIGHT] /= numbers[WEIGHT].mean()  # regularization depends on their scale
    if config.time:
        numbers[TIME] = parse_times(train, config.time, config.id, where)
    if config.fold_column:
        numbers[FOLD] = parse_folds(train, config.fold_column, config.id, where)
    return pd.DataFrame(numbers, index=train.index)


def check_sample(sample: pd.DataFrame, config: CompetitionConfig, test: pd.DataFrame) -> None:
    """Check that the sample has exactly the test rows and the targets, or also columns of the test table.

    Args:
        test: raw test table.
    """
    where = config.sample_submission
    expected = [config.id, *config.columns_in_sample]
    missing = {*expected} - {*sample}
    others = {name for name in sample.columns if name.strip()} - {*expected}
    if missing or (others and not others <= {*test}):
        raise SubmissionError(
            f"{where} must have the columns {', '.join(expected)}; got {', '.join(sample.columns)}. Correct "
            "competition.targets, or set competition.submission_columns if the names differ."
        )
    if config.classes and len(config.columns_in_sample) == len(config.targets):
        _check_classes_in_sample(sample, config)
    check_ids(sample[config.id], where)
    sample_ids = set(sample[config.id])
    test_ids = set(test[config.id])
    if sample_ids != test_ids:
        only_in_sample = sorted(sample_ids - test_ids)
        is_extra = ~test[config.id].isin(sample_ids)
        few = len(sample_ids ^ test_ids) < 0.1 * len(sample_ids)
        advice = (
            "Give the row the id of the sample, or remove it from both."
            if few
            else "Use the files of one competition."
        )
        if not only_in_sample:
            advice = (
                "Remove these rows from the test table if they need no prediction. If the sample only shows the form "
                "of a submission, leave it out: ./run.sh new NAME --force --train TRAIN --test TEST --target COLUMNS."
            )
        raise SubmissionError(
            f"{where} has other ids than {config.test}; only in the first: {join_first(only_in_sample)}; "
            f"only in the second: {describe_rows(test, is_extra, config.id)}. {advice}"
        )


def _describe_form(sample: pd.DataFrame, config: CompetitionConfig) -> list[str]:
    """Return a WARNING if the submission has another form than the sample."""
    form = sample.attrs.get("form", "")
    if form in ("", "gzip", "zip"):
        return []
    return [
        f"WARNING: {config.sample_submission.name} is {form}, and the submission a CSV with commas; convert it if the "
        "platform needs the form of the sample"
    ]


def _check_classes_in_sample(sample: pd.DataFrame, config: CompetitionConfig) -> None:
    cells = pd.Series(sample[config.columns_in_sample].to_numpy().ravel())
    labels = (cells.str.split().explode() if top_k_of(config.metric) else cells).drop_duplicates()
    is_number = pd.to_numeric(labels, errors="coerce").notna()  # such as 0, which fills many samples
    is_unknown = class_numbers(labels, config.labels_in_sample or config.classes)[1] & ~is_number
    if is_unknown.any():
        raise SubmissionError(
            f"{config.sample_submission} has the classes {join_first(labels[is_unknown])}, the training "
            f"table has {join_first(config.classes)}. Use the files of one competition, or set "
            "competition.classes."
        )


def _describe_codes(sample: pd.DataFrame, config: CompetitionConfig) -> Iterator[str]:
    """Yield a warning if the sample has several whole numbers where the training table has words.

    One number that is repeated only fills the sample.
    """
    if not config.classes or len(config.columns_in_sample) > len(config.targets):
        return
    cells = pd.Series(sample[config.columns_in_sample].to_numpy().ravel()).drop_duplicates()
    codes = cells[pd.to_numeric(cells, errors="coerce") % 1 == 0].map(class_name)
    has_words = pd.to_numeric(pd.Series(config.classes), errors="coerce").isna().all()
    if has_words and not config.labels_in_sample and codes.nunique() > 1:
        names = f"{join_first(sorted({*codes}), str)} in {config.columns_in_sample[0]}"
        written = "the words are submitted" if config.scores_labels else "probabilities are submitted"
        by_label = "" if config.scores_labels else "a metric of labels (--metric f1 or accuracy) and "
        yield (
            f"WARNING: {config.sample_submission.name} has {names}, and the training table "
            f"{join_first(config.classes, str)}; {written}. If numbers are expected, set {by_label}the "
            f"number of each class, such as classes: {{{config.classes[0]}: 0, {config.classes[1]}: 1}}."
        )


def describe(report: dict[str, Any]) -> str:
    """Return the lines about the tables, for the terminal and the report."""
    return "\n".join(report["said"])


def write_prepared(prepared: Prepared, config: CompetitionConfig) -> None:
    """Write the clean tables of a competition; a file that already has the same content is not touched."""
    paths = config.paths
    require_owned_outputs(paths, config.yaml_file)
    contents = {
        paths.train: as_parquet(prepared.train),
        paths.test: as_parquet(prepared.test),
        paths.sample: as_parquet(prepared.sample),
        paths.owner: f"{config.yaml_file.resolve()}\n".encode(),
        paths.prepare_report: as_json(prepared.report).encode(),
    }
    changed = {
        path: content
        for path, content in contents.items()
        if not path.exists() or path.read_bytes() != content
    }
    if changed:
        cli.require_no_training(paths)
    for path, content in changed.items():
        write_atomically(path, content)


def require_owned_outputs(paths: Paths, yaml_file: Path) -> None:
    """Raise a ConfigError if the output folder belongs to another YAML, as two YAMLs of one name share it.

    A YAML inside that folder, such as the copy that each run writes, is always accepted.
    """
    if paths.owner.exists():
        owner = Path(paths.owner.read_text(encoding="utf-8", errors="replace").strip())
        others = [file for file in (owner, yaml_file.resolve()) if paths.root.resolve() not in file.parents]
        if len(set(others)) == 2 and owner.is_file():
            raise ConfigError(
                f"{paths.root} was made from {owner}, and this is {yaml_file.resolve()}. Rename one of the "
                "two, or set WORK_DIR."
            )
