"""Stage `file`: predictions made elsewhere, `oof.csv` and `test.csv` of a folder, joined on id.

A job trains nothing: it copies both files into its folder and hands out the rows that are asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
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
LEAST_ROWS, FAR = 20, 3.0
"""Rows below which a column says too little; standard deviations of the labels that no column should have."""


class File:
    """The stage; see `models.stage.FittedStage`."""

    def __init__(self, config: FileStage, context: Context) -> None:
        self.config, self.context = config, context
        self.columns = context.task.columns_in_sample

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Copy both files and note what looks wrong beside the labels of `train`."""
        assert train.y is not None
        copies = [shutil.copyfile(source, folder / f"their_{source.name}") for source in files_of(self.config)]
        oof, test = (read_theirs(file, self.context.id, self.columns) for file in copies)
        if notes := doubts(oof, test, np.nanstd(train.y, axis=0)):
            write_notes(folder, notes)

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Their predictions for `rows`, (n_rows, n_outputs)."""
        file = folder / (COPY_OF_OOF if self.context.predicts_held_out else COPY_OF_TEST)
        return read_theirs(file, self.context.id, self.columns, rows.ids).loc[rows.ids].to_numpy(dtype=np.float64)


def files_of(config: FileStage) -> tuple[Path, Path]:
    """oof.csv and test.csv of a stage."""
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
        columns: the targets as the sample submission names them.
        wanted: rows that must have predictions; others may lack them or have NaN.
        known: ids that may stand in the file; None allows any.
    """
    table = read_named_rows(path, [id_column, *columns])
    index = pd.Index(table[id_column])
    values = pd.concat([parse_numbers(table, name, id_column, path) for name in columns], axis=1).set_axis(index)
    lacking = [row_id for row_id, lacks in values.reindex(list(wanted)).isna().any(axis=1).items() if lacks]
    foreign = [] if known is None else [row_id for row_id in index if row_id not in known]
    found = [f"lacks predictions for {len(lacking)} rows of the competition ({listed(lacking)})"] if lacking else []
    found += [f"has {len(foreign)} rows that the competition does not have ({listed(foreign)})"] if foreign else []
    if found:
        raise DataError(
            f"{path} {' and '.join(found)}. Use predictions for this version of the data, or leave the stage out."
        )
    return values


def fold_mark(
    oof_file: Path, id_column: str, columns: list[str], ids: list[str], folds: NDArray[np.int64]
) -> str | None:
    """`other folds` or `unknown folds`; None where theirs are ours, whatever their numbers.

    Args:
        oof_file: with all `ids` whose fold is not -1; one of its predictions, `columns`, may be called fold.
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


def doubts(oof: pd.DataFrame, test: pd.DataFrame, scale: NDArray[np.float64]) -> list[str]:
    """Which test columns look as if they were in other units than the OOF columns, in words; no score shows that.

    `scale` is the standard deviation of the labels of each column.
    """
    said = []
    for name, of_labels in zip(oof, scale, strict=True):
        moved = abs(test[name].median() - oof[name].median())
        if min(oof[name].count(), test[name].count()) >= LEAST_ROWS and max(moved, test[name].std() / FAR) > of_labels:
            here, there = (f"{each.median():.3g} +- {each.std():.3g}" for each in (test[name], oof[name]))
            said.append(f"{name} of {TEST} is not like that of {OOF} (median {here}, there {there}): other units?")
    return said


def check_predictions(
    stage: FileStage, competition: CompetitionConfig, prepared: Prepared, folds: NDArray[np.int64]
) -> tuple[str | None, list[str]]:
    """Check both files of a stage; returns the mark of its folds, as `fold_mark`, and what looks wrong, in words."""
    train, columns, id_column = own_rows(prepared.train), competition.columns_in_sample, competition.id
    ids, (oof, test) = list(train[id_column]), files_of(stage)
    scored = list(train[id_column][folds >= 0])
    theirs = read_theirs(oof, id_column, columns, scored, {*ids, *prepared.report["dropped_train_ids"]})
    asked = list(prepared.test[id_column]), set(prepared.sample[id_column])
    scale = train[competition.targets].std(ddof=0).to_numpy()
    said = doubts(theirs, read_theirs(test, id_column, columns, *asked), scale)
    return fold_mark(oof, id_column, columns, ids, folds), said
