"""Detection of the roles of the columns of three tables: id, targets, inputs.

Every role is a guess with a reason, which `./run.sh new` prints and writes into the YAML.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from competition.cells import count_new_values, describe_rows, molecule_cells
from competition.clean import is_empty_text
from competition.dataset import TableColumns
from competition.molecules import canonical_smiles, without_stereo
from competition.task import class_names, match_columns
from competition.units import Unit
from core.errors import DataError, join_first
from core.user_tables import read_text_table
from folds.recommended import MAX_PART, tied_rows
from pipeline.new.column_roles import (
    MAX_SAMPLED,
    MIN_PARSED,
    ROW_NUMBERS,
    SMILES_NAME,
    WEIGHT_NAME,
    Column,
    Role,
    classify,
    describe_new,
    describe_train_only,
    is_numeric,
    label_columns,
    without_names,
)
from pipeline.new.row_ids import find_id
from pipeline.new.yaml_writer import to_yaml

MAX_SEEN = 0.1
"""Share of the test rows whose value a training row may have in a column that only names groups."""


@dataclass(frozen=True)
class DetectedTables:
    """The tables and the detected roles of their columns.

    Attributes:
        sample: sample submission without the id and repeated columns of the test table.
        targets: columns of the training table.
        submission_columns: columns of the sample if they have other names than the targets: one per target,
            or one per class of a single target in the order of `class_names`.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    sample: pd.DataFrame
    id: str
    id_reason: str
    targets: list[str]
    submission_columns: list[str] | None
    targets_reason: str
    columns: list[Column]

    def with_roles(self, *roles: Role) -> list[str]:
        """Return the columns with one of the roles, in the order of the training table."""
        return [column.name for column in self.columns if column.role in roles]

    @property
    def table_columns(self) -> TableColumns:
        """The columns by their role."""
        roles = [self.with_roles(role) for role in ("smiles", "text", "numeric", "categorical")]
        return TableColumns(self.id, self.targets, [], *roles)

    def without_groups(self, units: list[Unit], time: str | None) -> "DetectedTables":
        """Return the tables without categories that only name a group: their values in the test table are new.

        One stays if no input is left without it, or if the other inputs repeat so often that equal ones and the units
        of the folds connect most rows, so that folds could not hold them out.

        Args:
            units: what the folds keep together.
            time: column by which the folds are ordered; None without one.
        """
        tables = self
        makes_folds = [unit.columns[0] for unit in units if unit.kind == "value"]
        for column in self.columns:
            if column.name == time and column.role == "left out":
                tables = tables.with_column(replace(column, reason="makes the folds (time)"))
            if column.role != "categorical" or column.is_given:
                continue
            n_new, n_filled = count_new_values(self.train[column.name], self.test[column.name])
            if n_filled and n_filled - n_new <= MAX_SEEN * n_filled:
                reason = f"{describe_new(n_new, n_filled)}, so that it only names a group"
                if not units:
                    reason += f"; group: {to_yaml(column.name)} keeps its rows together"
            elif column.name in makes_folds:
                reason = "makes the folds (group)"
            else:
                continue
            without = tables.with_column(replace(column, role="left out", reason=reason))
            if not without.inputs:
                continue
            if without._has_small_parts(units):
                tables = without
            else:
                new = describe_new(n_new, n_filled)
                kept = f"{column.reason}; {new}, but without it equal inputs would connect most rows"
                tables = tables.with_column(replace(column, reason=kept))
        return tables

    def with_column(self, column: Column) -> "DetectedTables":
        """Return the tables with a column in the place of the one with its name."""
        columns = [column if each.name == column.name else each for each in self.columns]
        return replace(self, columns=columns)

    def _has_small_parts(self, units: list[Unit]) -> bool:
        """Return whether folds can hold out every part of the training rows that units and equal inputs connect."""
        sizes = np.bincount(tied_rows(units, self.train, self.table_columns))
        return bool(sizes.max() <= MAX_PART * len(self.train))

    @property
    def inputs(self) -> list[str]:
        """All columns except those that are left out."""
        return [column.name for column in self.columns if column.role != "left out"]

    def require_inputs(self) -> None:
        """Raise a DataError if no column is an input."""
        if not self.inputs:
            reasons = "; ".join(
                f"{column.name!r}: {column.reason.removeprefix('WARNING: ')}" for column in self.columns
            )
            raise DataError(
                f"no column is an input to learn from ({reasons or 'there is no other column'}; {self.id!r} is taken "
                "for the id). Give a role to a column, such as --text COL. Are the inputs in another file, to be "
                f"joined on {self.id!r}?"
            )

    @property
    def has_no_molecules(self) -> bool:
        """Whether an empty cell means no molecule: there are others in its row."""
        smiles = self.with_roles("smiles")
        cells = [molecule_cells(table[name]) for table in (self.train, self.test) for name in smiles]
        return len(smiles) > 1 and any((column == "").any() for column in cells)

    @property
    def unreadable(self) -> str:
        """Description of the rows with an unparsable molecule, or with empty texts only; "" if there are none."""
        descriptions = []
        for where, table in (("train", self.train), ("test", self.test)):
            rows = pd.Series(False, table.index)
            texts = self.with_roles("text")
            if texts and self.inputs == texts:
                rows |= table[texts].apply(is_empty_text).all(axis=1)
            for name in self.with_roles("smiles"):
                cells = molecule_cells(table[name])
                is_no_molecule = (cells == "") & self.has_no_molecules
                rows |= cells.map(canonical_smiles).isna() & ~is_no_molecule
            if rows.any():
                descriptions.append(
                    f"{rows.sum()} of {where}: {describe_rows(table, rows.to_numpy(), self.id)}"
                )
        return "; ".join(descriptions)


def detect(
    files: Sequence[Path],
    id_column: str | None = None,
    targets: Sequence[str] = (),
    group: str | None = None,
    time: str | None = None,
    roles: dict[str, Role] | None = None,
) -> DetectedTables:
    """Read the tables and detect the role of each column.

    Args:
        files: training table, test table (the training table again, if there is none) and sample submission.
        id_column: column of the ids, if the user gives it.
        targets: columns to predict, if the user gives them.
        group: column of the groups, if the user gives it.
        time: column of the times, if the user gives it.
        roles: name of a column -> its role, if the user gives it.
    """
    train_file, test_file, sample_file = map(str, files)
    train, test, sample = map(read_text_table, files)
    if test_file == train_file:
        test_file = "the test table"
        test = test.drop(columns=targets, errors="ignore")
    tables = {train_file: train, test_file: test, sample_file: sample}
    _require_equal_names(train, test, train_file)
    id_column, id_reason = find_id(tables, id_column)
    if group is not None and (group not in train or group == id_column):
        raise DataError(f"--group takes a column of {train_file} other than the id; got {group!r}.")
    sample = _columns_to_predict(sample, train, test, id_column, targets)
    other_columns = {*test.columns, *sample.columns, group}
    only_in_train = [
        name for name in train.columns if not ROW_NUMBERS.fullmatch(name) and name not in other_columns
    ]
    inputs = {name for name in map(str, test) if (test[name].str.strip() != "").any()}
    predicted, submission_columns, targets_reason = find_targets(
        train, only_in_train, inputs, sample, list(targets), sample_file
    )
    known = [name for name in predicted if name in inputs]
    if known:
        targets_reason += f"; WARNING: the test table has labels in {', '.join(known)}, which are not used"
    if time is not None and time not in train:
        raise DataError(f"--time takes a column of {train_file}; got {time!r}.")
    roles = roles or {}
    for name, role in roles.items():
        if name in (id_column, *predicted):
            raise DataError(f"--{role}: {name!r} is the id or a target, not an input.")
        _require_role(name, role, train, test, train_file)
    names = [name for name in dict.fromkeys([*train, *test]) if name not in (id_column, *predicted)]
    columns = [
        Column(name, roles[name], f"set with --{roles[name]}", is_given=True)
        if name in roles
        else _detect_column(name, train, test, group, time)
        for name in names
    ]
    return DetectedTables(
        train=train,
        test=test,
        sample=sample,
        id=id_column,
        id_reason=id_reason,
        targets=predicted,
        submission_columns=submission_columns,
        targets_reason=targets_reason,
        columns=_with_warnings_of_notations(without_names(_without_notations(columns, train))),
    )


def _without_notations(columns: list[Column], train: pd.DataFrame) -> list[Column]:
    """Return the columns, of which another notation of the same molecules (InChI, no stereochemistry) is left out.

    What is named SMILES and has more stereochemistry stays.
    """
    molecules = {}
    for column in columns:
        if column.role == "smiles" and not column.is_given:
            cells = molecule_cells(train[column.name])[:: max(1, len(train) // MAX_SAMPLED)]
            molecules[column.name] = cells.map(lambda cell: canonical_smiles(cell) or "")

    def rank(name: str) -> tuple[bool, int]:
        return bool(SMILES_NAME.search(name)), int(molecules[name].str.count("[@/]").sum())

    reasons = {}
    for first, second in combinations(sorted(molecules, key=rank, reverse=True), 2):
        both = (molecules[first] != "") & (molecules[second] != "")
        are_same = molecules[first] == molecules[second]
        are_same |= molecules[first].map(without_stereo) == molecules[second]
        if first not in reasons and both.any() and are_same[both].mean() >= MIN_PARSED:
            reasons[second] = f"the same molecules as {first!r}"
    return [
        replace(column, role="left out", reason=reasons[column.name]) if column.name in reasons else column
        for column in columns
    ]


def _columns_to_predict(
    sample: pd.DataFrame, train: pd.DataFrame, test: pd.DataFrame, id_column: str, targets: Sequence[str]
) -> pd.DataFrame:
    """Return the sample without the id, unnamed columns, and columns that it repeats from the test table.

    Args:
        targets: columns to predict, if the user gives them; they stay.
    """
    copies = [name for name in sample if name in test and sorted(sample[name]) == sorted(test[name])]
    copies = [name for name in copies if name not in targets and sample[name].nunique() > 1]
    if {*sample} <= {*test}:
        # A column of numbers that the training table has, too, is a label rather than a repeated input.
        copies = [name for name in copies if name not in train or not is_numeric(train[name])]
    if set(sample) <= {id_column, *copies}:
        copies = []
    unnamed = [name for name in sample.columns if ROW_NUMBERS.fullmatch(name)]
    return sample.drop(columns=list({id_column, *copies, *unnamed}))


def _with_warnings_of_notations(columns: list[Column]) -> list[Column]:
    """Return the columns with a WARNING at molecules in another notation, if none of them has SMILES."""
    if any(column.role == "smiles" for column in columns):
        return columns
    return [
        replace(column, reason=f"WARNING: {column.reason}; add a column of SMILES")
        if column.notation
        else column
        for column in columns
    ]


def _require_equal_names(train: pd.DataFrame, test: pd.DataFrame, train_file: str) -> None:
    """Raise a DataError if names of columns of the two tables differ only in case or blanks."""
    of_test = {name.strip().lower(): name for name in test.columns.difference(train.columns)}
    for name in train.columns.difference(test.columns):
        other = of_test.get(name.strip().lower())
        if other is not None:
            raise DataError(f"{train_file} has {name!r} and the test table {other!r}. Use one name in both.")


def _require_role(name: str, role: Role, train: pd.DataFrame, test: pd.DataFrame, train_file: str) -> None:
    """Raise a DataError if a column cannot have the role that the user gives it."""
    if name not in train or name not in test:
        raise DataError(f"--{role}: {name!r} is not in both {train_file} and the test table.")
    if role == "smiles" and not train[name].map(canonical_smiles).any():
        raise DataError(f"--smiles: no cell of {name!r} in {train_file} is a molecule.")


def _detect_column(
    name: str, train: pd.DataFrame, test: pd.DataFrame, group: str | None, time: str | None
) -> Column:
    if name == time:
        return Column(name, "left out", "makes the folds (--time)")
    if name in test and name in train:
        column = classify(name, train[name], test[name])
    else:
        reason = describe_train_only(train[name]) if name in train else "only in test"
        column = Column(name, "left out", reason)
    if name == group and column.role == "smiles":  # a new molecule is still informative, a new label is not
        return replace(column, reason=f"{column.reason}; it also makes the folds (--group)")
    if name == group:
        return Column(name, "left out", "makes the folds (--group)")
    return column


def find_targets(
    train: pd.DataFrame,
    only_in_train: list[str],
    inputs: set[str],
    sample: pd.DataFrame,
    targets: list[str],
    sample_file: str,
) -> tuple[list[str], list[str] | None, str]:
    """Return the training columns to predict, the sample's columns if they differ, and the reason.

    Args:
        only_in_train: columns that neither the test table nor the sample has.
        inputs: columns of the test table with cells.
        sample: sample submission without the id.
        targets: the columns to predict, if the user gives them.
    """
    expected = list(sample.columns)
    missing = [name for name in expected if name not in train]
    unknown = [name for name in targets if name not in train]
    if unknown:
        raise DataError(f"--target: {', '.join(map(repr, unknown))} is not in the training table.")
    if targets and len(targets) == len(expected):
        renamed = None if set(targets) == set(expected) else expected
        return targets, renamed, "set with --target, in the sample's order"
    if {*expected} <= inputs and not targets:  # such as the options A to E of a question
        for name in only_in_train:
            classes = class_names(train[[name]])
            if {*classes} == {*expected}:
                return [name], classes, "GUESS: the sample has a column for each of its classes"
    if expected and not targets and not missing:
        return expected, None, "the sample's other columns"
    numeric, texts = label_columns(train, only_in_train)
    may_be_numeric = any(is_numeric(sample[name]) or is_empty_text(sample[name]).all() for name in missing)
    by_order = numeric if numeric and may_be_numeric else texts
    fits = len(by_order) == len(missing)
    if len(targets) < 2:
        for name in targets or (texts if fits else texts + numeric):
            columns = columns_of_classes(class_names(train[[name]]), expected, name, sample_file)
            if columns:
                return [name], columns, "GUESS: the sample has a column for each of its classes"
    if targets or not expected:
        raise DataError(
            f"{sample_file} needs a column per target after the id, in their order; it has "
            f"{', '.join(expected) or 'none'}."
        )
    by_name = match_columns(tuple(missing), tuple(only_in_train))
    is_by_name = len(missing) > 1 and len({*by_name.values()}) == len(missing)
    if not (is_by_name or fits):
        raise DataError(_describe_missing(train[only_in_train], missing, by_order, sample_file))
    training_column = by_name if is_by_name else dict(zip(missing, by_order, strict=True))
    pairs = ", ".join(f"{new} is {old}" for new, old in training_column.items())
    predicted = [training_column.get(name, name) for name in expected]
    reason = f"GUESS, by {'name' if is_by_name else 'order'}: in the sample {pairs}"
    may_be_weight = not is_by_name and by_order is numeric and any(map(WEIGHT_NAME.search, numeric))
    if texts and may_be_weight:
        reason += f"; WARNING: {join_first(texts)} may be the label instead: --target {to_yaml(texts[0])}"
    return predicted, expected, reason


def _describe_missing(
    only_in_train: pd.DataFrame, missing: list[str], by_order: list[str], sample_file: str
) -> str:
    """Return what to do about columns of the sample that no column of the training table stands for.

    Args:
        by_order: columns of the training table that may be labels.
    """
    for column in missing:
        parts = column.split(":")
        if len(parts) > 1 and {*parts} <= {*only_in_train}:
            both = f"the cells of {join_first(parts)}"
            return f"{sample_file} expects {column!r}: join {both} with ':' in a new column of the training table."
    for name, cells in only_in_train.items():
        is_there = [cells.str.contains(label, regex=False).any() for label in missing]
        if len(missing) > 1 and all(is_there):
            return (
                f"{sample_file} has a column for each label in the cells of {name!r}. Make a column of 0 and 1 of "
                f"each in the training table: {join_first(missing, str)}."
            )
    return (
        f"{sample_file} expects {', '.join(missing)}, which the training table lacks; {len(by_order)} label "
        f"columns are only in the training table ({', '.join(by_order) or 'none'}). Set the targets with --target, "
        "in the order of the sample's columns. Or are --train and --test swapped, or the labels in another file, to "
        "be joined on the id?"
    )


def columns_of_classes(classes: list[str], expected: list[str], target: str, sample_file: str) -> list[str]:
    """Return the sample's column of each class, or [] if its columns are not named after them.

    Args:
        expected: columns of the sample.
    """
    if len(classes) > 2 * len(expected):  # such as numbers
        return []
    class_of_column = match_columns(tuple(expected), tuple(classes))
    column_of_class = {name: column for column, name in class_of_column.items()}
    n_columns = max(len(classes), len(expected))
    is_ambiguous = len(column_of_class) < len(class_of_column)
    if is_ambiguous or len(column_of_class) < 2 or 2 * len(column_of_class) < n_columns:
        return []
    unmatched = [column for column in expected if column not in class_of_column]
    absent = [name for name in classes if name not in column_of_class]
    if absent and not unmatched:
        asked = [name for name in classes if name in column_of_class]
        raise DataError(
            f"{sample_file} asks for {len(asked)} of the {len(classes)} classes of {target!r}. Add a column of 0 and 1 "
            f"to the training table for each of them, and name these: --target {' '.join(asked)}."
        )
    if unmatched or absent:
        differences = [f"{join_first(unmatched)} has no class"] if unmatched else []
        differences += [f"{join_first(absent)} has no column"] if absent else []
        raise DataError(
            f"{sample_file} has a column for each class of {target!r}, but they differ from those of the training "
            f"table: {', '.join(differences)}. Use the files of one competition."
        )
    return [column_of_class[name] for name in classes]
