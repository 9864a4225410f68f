"""Stage `file`: predictions made elsewhere, `oof.csv` and `test.csv` of a folder, joined on id.

A job trains nothing: it copies both files into its folder and hands out the rows that are asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.clean import check_ids, listed, named_rows, parse_numbers, require_columns
from competition.config import CompetitionConfig
from competition.errors import ConfigError, DataError
from competition.files import read_text_table
from competition.prepare import Prepared
from competition.tables import Rows, own_rows
from models.notes import write_notes
from models.settings import FileStage
from models.stage import Context

OOF, TEST = "oof.csv", "test.csv"
COPY_OF_OOF, COPY_OF_TEST = "their_oof.csv", "their_test.csv"  # a job's own oof.csv has the rows of its fold
FOLD = "fold"
"""Column of oof.csv that names the fold in which a row was held out there."""

WHY = (
    "their models may have seen labels of the fold that is held out here, so the scores of this stage, and the "
    "cross_fitted_score of a blend with it, may be optimistic"
)
OTHER_FOLDS, UNKNOWN_FOLDS = "other folds", "unknown folds"
FOLD_MARKS = {
    OTHER_FOLDS: f"predictions made elsewhere, with other folds than ours: {WHY}",
    UNKNOWN_FOLDS: f"predictions made elsewhere, whose {OOF} does not name their folds: {WHY}",
}

LEAST_ROWS = 20
"""Fewer say too little of a column."""
FAR = 3.0
"""Spreads of the labels; of predictions that are all the mean of the labels, half are nearer to them than 0.7."""
AGAINST = -0.2
"""Correlation with the labels; the means of the other folds have one slightly below 0."""
CROSSED = 0.1
"""By how much the correlations with each other's labels exceed those with the own ones where columns look swapped."""


class File:
    """The stage; see `models.stage.FittedStage`."""

    def __init__(self, config: FileStage, context: Context) -> None:
        self.config, self.context = config, context
        self.columns = context.task.columns_in_sample

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Copy both files and note what looks wrong beside the labels of `train`."""
        for source, name in zip(files_of(self.config), (COPY_OF_OOF, COPY_OF_TEST), strict=True):
            shutil.copyfile(source, folder / name)
        oof, test = self._read(folder / COPY_OF_OOF, []), self._read(folder / COPY_OF_TEST, [])
        assert train.y is not None
        notes = doubts(oof, test, pd.DataFrame(train.y, index=train.ids, columns=self.columns))
        if notes:
            write_notes(folder, notes)

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Their predictions for `rows`, (n_rows, n_targets).

        Raises:
            DataError: if there is none for a row.
        """
        table = self._read(folder / (COPY_OF_OOF if self.context.predicts_held_out else COPY_OF_TEST), rows.ids)
        return table.loc[rows.ids].to_numpy(dtype=np.float64)

    def _read(self, path: Path, wanted: list[str]) -> pd.DataFrame:
        return read_theirs(path, self.context.id, self.columns, wanted)


def files_of(config: FileStage) -> tuple[Path, Path]:
    """oof.csv and test.csv of a stage.

    Raises:
        ConfigError: if one is not there.
    """
    folder = Path(config.folder)
    lacking = [name for name in (OOF, TEST) if not (folder / name).is_file()]
    if lacking:
        found = f"{folder} lacks {' and '.join(lacking)}" if folder.is_dir() else f"there is no folder {folder}"
        raise ConfigError(
            f"folder must be one with {OOF} and {TEST}; {found}. Correct the path, which is relative to the YAML, or "
            "put them there."
        )
    return folder / OOF, folder / TEST


def read_theirs(
    path: Path, id_column: str, columns: list[str], wanted: Sequence[str], known: Collection[str] | None = None
) -> pd.DataFrame:
    """All predictions of a file, ids as the index, one column of floats for each of `columns`; others are not read.

    Args:
        path: oof.csv or test.csv.
        id_column: its column of ids.
        columns: the targets as the sample submission names them.
        wanted: rows that must have predictions; others may lack them or have NaN.
        known: ids that may stand in the file; None allows any.

    Raises:
        DataError: with every mistake of the file, a line each.
    """
    table = read_text_table(path)
    require_columns(table, [id_column, *columns], path)
    ids = check_ids(table[id_column], path)
    values, mistakes = pd.DataFrame(index=pd.Index(ids)), []
    for name in columns:
        try:
            values[name] = parse_numbers(table, name, id_column, path).to_numpy()
        except DataError as error:
            mistakes.append(str(error))
    empty = ids.isin(set(wanted)) & values.isna().any(axis=1).to_numpy()
    if empty.any():
        mistakes.append(
            f"{path} must have a prediction in every column; one is empty in {named_rows(table, empty, id_column)}. "
            "Fill it in, or leave the stage out."
        )
    there = set(ids)
    if lacking := [row_id for row_id in wanted if row_id not in there]:
        mistakes.append(
            f"{path} must have a prediction for every row of the competition; {len(lacking)} are lacking "
            f"({listed(lacking)}). Add them, or leave the stage out."
        )
    if known is not None and (foreign := [row_id for row_id in ids if row_id not in known]):
        mistakes.append(
            f"{path} must have rows of the competition's table alone; {len(foreign)} of its ids are not there "
            f"({listed(foreign)}). Remove them, or use the predictions made with this version of the data."
        )
    if mistakes:
        raise DataError("\n".join(mistakes))
    return values


def fold_mark(
    oof_file: Path, id_column: str, columns: list[str], ids: list[str], folds: NDArray[np.int64]
) -> str | None:
    """`other folds` or `unknown folds`; None where theirs are ours, whatever their numbers.

    Args:
        oof_file: with all `ids` whose fold is not -1.
        id_column: its column of ids.
        columns: its predictions, of which one may be called fold.
        ids, folds: training rows and our folds.
    """
    table = read_text_table(oof_file)
    if FOLD not in table or FOLD in columns:
        return UNKNOWN_FOLDS
    scored = folds >= 0
    theirs = table.set_index(id_column)[FOLD].str.strip().loc[np.array(ids, dtype=object)[scored]]
    if (theirs == "").any():
        return UNKNOWN_FOLDS
    same = np.array_equal(pd.factorize(theirs)[0], pd.factorize(folds[scored])[0])
    return None if same else OTHER_FOLDS


def common_folds(files: Sequence[Path]) -> Path | None:
    """The first of some oof.csv, if `folds.kind: file` can read its folds and all others have the same partition."""
    tables = [read_text_table(file) for file in files if file.is_file()]
    if len(tables) < len(files) or not all({"id", FOLD} <= set(table) for table in tables):
        return None
    first, *others = (table.set_index("id")[FOLD].str.strip() for table in tables)
    partition = pd.factorize(first)[0]
    same = (
        set(other.index) == set(first.index) and np.array_equal(partition, pd.factorize(other.loc[first.index])[0])
        for other in others
    )
    return files[0] if set(first) == set(map(str, range(first.nunique()))) and all(same) else None


def doubts(oof: pd.DataFrame, test: pd.DataFrame, labels: pd.DataFrame) -> list[str]:
    """What looks as if columns were swapped or in other units, in words.

    Args:
        oof, test: predictions by id, as of `read_theirs`.
        labels: by id, under the same names; NaN where there is none. Rows without a prediction do not count.
    """
    said, names, shared = [], [str(name) for name in oof], labels.index.intersection(oof.index)
    labels, oof = labels.loc[shared], oof.loc[shared]
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant column correlates with nothing
        alike = np.array([oof.corrwith(labels[name]) for name in names])  # rows labels, columns predictions
    for i, name in enumerate(names):
        spread, gaps = labels[name].std(), (oof[name] - labels[name]).abs().dropna()
        if len(gaps) < LEAST_ROWS or not spread > 0:
            continue
        if gaps.median() > FAR * spread:
            said.append(
                f"{name} of {OOF} is {gaps.median():.3g} from the labels (median), whose spread is {spread:.3g}: "
                "other units?"
            )
        if alike[i, i] < AGAINST:
            said.append(f"{name} of {OOF} runs against the labels (correlation {alike[i, i]:.2f}): its sign?")
        away = abs(test[name].median() - oof[name].median())
        if test[name].count() >= LEAST_ROWS and (away > spread or test[name].std() > FAR * spread):
            said.append(
                f"{name} of {TEST} is not like that of {OOF} (median {test[name].median():.3g} +- "
                f"{test[name].std():.3g}, there {oof[name].median():.3g} +- {oof[name].std():.3g}): other units?"
            )
    for i, j in combinations(range(len(names)), 2):
        crossed, own = min(alike[i, j], alike[j, i]), max(alike[i, i], alike[j, j])
        if len(oof) >= LEAST_ROWS and crossed > own + CROSSED:
            said.append(f"{names[i]} and {names[j]} of {OOF} are each more like the labels of the other: swapped?")
    return said


def check_predictions(
    stage: FileStage, competition: CompetitionConfig, prepared: Prepared, folds: NDArray[np.int64]
) -> tuple[str | None, list[str]]:
    """Check both files of a stage; returns the mark of its folds, as `fold_mark`, and what looks wrong, in words.

    Args:
        folds: of the competition's own training rows, (n_rows,).

    Raises:
        ConfigError: if a file is not there.
        DataError: with every mistake of both files, a line each.
    """
    train, columns, id_column = own_rows(prepared.train), competition.columns_in_sample, competition.id
    ids: list[str] = list(train[id_column])
    dropped: list[str] = prepared.report["dropped_train_ids"]
    wanted = [
        ([row_id for row_id, fold in zip(ids, folds, strict=True) if fold >= 0], {*ids, *dropped}),
        (list(prepared.test[id_column]), set(prepared.sample[id_column])),
    ]
    tables, mistakes, files = [], [], files_of(stage)
    for path, (must, may) in zip(files, wanted, strict=True):
        try:
            tables.append(read_theirs(path, id_column, columns, must, may))
        except DataError as error:
            mistakes.append(str(error))
    if mistakes:
        raise DataError("\n".join(mistakes))
    labels = train.set_index(id_column)[competition.targets].set_axis(columns, axis=1)
    return fold_mark(files[0], id_column, columns, ids, folds), doubts(tables[0], tables[1], labels)
