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

from competition.clean import listed, parse_numbers, read_named_rows
from competition.config import CompetitionConfig
from competition.errors import ConfigError, DataError
from competition.files import read_text_table
from competition.prepare import Prepared
from competition.tables import Rows, own_rows
from models.config import FileStage
from models.notes import write_notes
from models.stage import Context

OOF, TEST, FOLD = "oof.csv", "test.csv", "fold"  # the column fold of oof.csv says where a row was held out there
COPY_OF_OOF, COPY_OF_TEST = "their_oof.csv", "their_test.csv"  # beside the job's own predictions

WHY = (
    "their models may have seen labels of the fold that is held out here, so the scores of this stage, and the "
    "cross_fitted_score of a blend with it, may be optimistic"
)
OTHER_FOLDS, UNKNOWN_FOLDS = "other folds", "unknown folds"
FOLD_MARKS = {
    OTHER_FOLDS: f"predictions made elsewhere, with other folds than ours: {WHY}",
    UNKNOWN_FOLDS: f"predictions made elsewhere, whose {OOF} does not name their folds: {WHY}",
}

LEAST_ROWS = 20  # fewer say too little of a column
FAR = 3.0  # standard deviations of the labels, as the root mean squared error; that of their mean is 1
AGAINST = -0.2  # correlation with the labels; the means of the other folds have one slightly below 0
CROSSED = 0.1  # by how much swapped columns are more like each other's labels than like their own


class File:
    """The stage; see `models.stage.FittedStage`."""

    def __init__(self, config: FileStage, context: Context) -> None:
        self.config, self.context = config, context
        self.columns = context.task.columns_in_sample

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Copy both files and note what looks wrong beside the labels of `train`."""
        for source, name in zip(files_of(self.config), (COPY_OF_OOF, COPY_OF_TEST), strict=True):
            shutil.copyfile(source, folder / name)
        oof, test = (read_theirs(file, self.context.id, self.columns) for file in files_of(self.config))
        if notes := doubts(oof, test, pd.DataFrame(train.y, index=train.ids, columns=self.columns)):
            write_notes(folder, notes)

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Their predictions for `rows`, (n_rows, n_outputs).

        Raises:
            DataError: if there is none for a row.
        """
        file = folder / (COPY_OF_OOF if self.context.predicts_held_out else COPY_OF_TEST)
        return read_theirs(file, self.context.id, self.columns, rows.ids).loc[rows.ids].to_numpy(dtype=np.float64)


def files_of(config: FileStage) -> tuple[Path, Path]:
    """oof.csv and test.csv of a stage.

    Raises:
        ConfigError: if one is not there.
    """
    files = Path(config.folder) / OOF, Path(config.folder) / TEST
    if lacking := [str(file) for file in files if not file.is_file()]:
        raise ConfigError(
            f"the folder of the stage needs {OOF} and {TEST}; there is no {' and no '.join(lacking)}. Correct the "
            "path, which is relative to the YAML, or put them there."
        )
    return files


def read_theirs(
    path: Path, id_column: str, columns: list[str], wanted: Sequence[str] = (), known: Collection[str] | None = None
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
    table = read_named_rows(path, [id_column, *columns])
    index = pd.Index(table[id_column])
    values, mistakes = pd.DataFrame(0.0, index=index, columns=columns), []
    for name in columns:
        try:
            values[name] = parse_numbers(table, name, id_column, path).to_numpy()
        except DataError as error:
            mistakes.append(str(error))
    lacking = values.reindex(list(wanted)).isna().any(axis=1)
    if lacking.any():
        rows = f"{lacking.sum()} rows of the competition ({listed(lacking.index[lacking])})"
        mistakes.append(f"{path} lacks predictions for {rows}. Add them, or leave the stage out.")
    if known is not None and (foreign := [row_id for row_id in index if row_id not in known]):
        rows = f"{len(foreign)} rows that the competition does not have ({listed(foreign)})"
        mistakes.append(f"{path} has {rows}. Remove them, or use predictions for this version of the data.")
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
    ids, folds = list(tables[0]["id"]), tables[0][FOLD].str.strip()
    if {*folds} != {*map(str, range(folds.nunique()))} or any({*table["id"]} != {*ids} for table in tables):
        return None
    marks = [fold_mark(file, "id", [], ids, folds.to_numpy(dtype=np.int64)) for file in files]
    return None if any(marks) else files[0]


def doubts(oof: pd.DataFrame, test: pd.DataFrame, labels: pd.DataFrame) -> list[str]:
    """What looks as if columns were swapped or in other units, in words.

    Args:
        oof, test: predictions by id, as of `read_theirs`.
        labels: by id, under the same names; NaN where there is none. Rows without a prediction do not count.
    """
    labels, oof = labels.align(oof, join="inner", axis=0)
    said, names = list[str](), [str(name) for name in oof]
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant column correlates with nothing
        alike = np.array([oof.corrwith(labels[name]) for name in names])  # rows labels, columns predictions
    for i, name in enumerate(names):
        errors, theirs, scale = oof[name] - labels[name], test[name], labels[name].std()
        if errors.count() < LEAST_ROWS or not scale > 0:
            continue
        far = (errors**2).mean() ** 0.5 / scale
        if far > FAR or alike[i, i] < AGAINST:
            wrong = f"{far:.2g} standard deviations from the labels, correlation {alike[i, i]:.2f}"
            said.append(f"{name} of {OOF} does not fit its labels ({wrong}): other units, or another sign?")
        moved = abs(theirs.median() - oof[name].median())
        if theirs.count() >= LEAST_ROWS and max(moved, theirs.std() / FAR) > scale:
            here, there = (f"{each.median():.3g} +- {each.std():.3g}" for each in (theirs, oof[name]))
            said.append(f"{name} of {TEST} is not like that of {OOF} (median {here}, there {there}): other units?")
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
    scored = [row_id for row_id, fold in zip(ids, folds, strict=True) if fold >= 0]
    wanted = [(scored, {*ids, *dropped}), (list(prepared.test[id_column]), set(prepared.sample[id_column]))]
    tables, mistakes, files = list[pd.DataFrame](), list[str](), files_of(stage)
    for path, (must, may) in zip(files, wanted, strict=True):
        try:
            tables.append(read_theirs(path, id_column, columns, must, may))
        except DataError as error:
            mistakes.append(str(error))
    if mistakes:
        raise DataError("\n".join(mistakes))
    labels = train.set_index(id_column)[competition.targets].set_axis(columns, axis=1)
    return fold_mark(files[0], id_column, columns, ids, folds), doubts(tables[0], tables[1], labels)
