"""What the columns of a competition's tables are: id, targets, molecules, text, numbers, categories.

Every answer is a guess and comes with its reason, which `./run.sh new` prints and writes into the YAML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from competition.clean import MISSING, check_ids, parse_numbers
from competition.errors import DataError, SubmissionError
from competition.files import read_text_table
from competition.molecules import canonical_smiles

Role = Literal["smiles", "text", "numeric", "categorical", "left out"]

SAMPLED = 200  # distinct values that are looked at where looking at all would take long
NEARLY_ALL = 0.95
NAMED_LIKE_SMILES = re.compile(r"smiles|^mol(ecule)?s?$|structure", re.IGNORECASE)
NAMED_LIKE_ID = re.compile(r"(^|[\s_.:-])(id|idx|index|uuid)$|[a-z](ID|Id)$|^(ID|Id)$")
NAMED_LIKE_GROUP = re.compile(r"group|cluster|scaffold|fold|split|series|batch", re.IGNORECASE)
STRUCTURE = re.compile(r"[=#()\[\]\d]")  # bonds, branches, brackets, rings: what words and codes of letters do not have
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")  # or one Chinese or Japanese sign


@dataclass(frozen=True)
class Column:
    """An input column, or one that is left out."""

    name: str
    role: Role
    reason: str
    warning: bool = False
    """Whether the user should look at the data before going on."""
    reaction: bool = False
    """Whether a text column holds reaction SMILES."""
    empty: bool = False
    """Whether a molecule column has empty cells."""


@dataclass(frozen=True)
class Found:
    """What stands in the tables.

    targets: columns of the training table; submission_columns: their names in the sample, where they differ.
    y: (n_rows, n_targets) labels, NaN where there is none.
    groups: columns only in train whose names suggest that their rows belong together.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    id: str
    id_reason: str
    targets: list[str]
    submission_columns: list[str] | None
    targets_reason: str
    y: pd.DataFrame
    columns: list[Column]
    groups: list[str]

    def named(self, role: Role) -> list[str]:
        """Columns of a role, in the order of the training table."""
        return [column.name for column in self.columns if column.role == role]

    @property
    def missing_labels(self) -> dict[str, int]:
        """Number of training rows without a label, of each target that has such rows."""
        return {str(name): int(n) for name, n in self.y.isna().sum().items() if n}

    @property
    def problem(self) -> str:
        """Kind of the competition, in words."""
        molecules, text = bool(self.named("smiles")), bool(self.named("text"))
        table = "a table" if any(column.role != "left out" for column in self.columns) else "no inputs"
        inputs = "molecules and text" if molecules and text else "molecules" if molecules else "text" if text else table
        n, labels = len(self.targets), ", sparse labels" if self.missing_labels else ""
        return f"{inputs}, {'one target' if n == 1 else f'{n} targets'}{labels}"


def detect(
    train_file: Path,
    test_file: Path,
    sample_file: Path,
    id_column: str | None = None,
    targets: Sequence[str] = (),
    group: str | None = None,
    inputs_needed: bool = True,
) -> Found:
    """Read the three tables and guess the role of each column; what is named here is not guessed.

    Raises:
        DataError, SubmissionError: if the id or the targets cannot be told, or no input column is left and one is
            needed.
    """
    train, test, sample = (read_text_table(file) for file in (train_file, test_file, sample_file))
    files = {str(train_file): train, str(test_file): test, str(sample_file): sample}
    id_column, id_reason = find_id(files, id_column)
    if group is not None and (group not in train or group == id_column):
        raise DataError(f"--group must name a column of {train_file} other than the id; found {group!r}.")
    asked = [name for name in sample.columns if name != id_column]
    predicted, renamed, targets_reason = find_targets(train, test, asked, list(targets), group, str(sample_file))
    y = pd.DataFrame({name: parse_numbers(train, name, id_column, train_file) for name in predicted})
    columns = []
    for name in [*train.columns, *(name for name in test.columns if name not in train.columns)]:
        if name in (id_column, *predicted):
            continue
        if name in test and name in train:
            column = classify(name, train[name], test[name])
        else:
            column = Column(name, "left out", f"only in {'train' if name in train else 'test'}")
        if name == group and column.role == "smiles":  # a new molecule still says much; a new label says nothing
            column = replace(column, reason=f"{column.reason}; it makes the folds, too (--group)")
        elif name == group:
            column = Column(name, "left out", "makes the folds (--group)")
        columns.append(column)
    if inputs_needed and all(column.role == "left out" for column in columns):
        reasons = "; ".join(f"{column.name!r}: {column.reason}" for column in columns) or "there is no other column"
        raise DataError(
            f"{train_file} and {test_file} must share an input column; found none to learn from ({reasons})."
        )
    only_train = [name for name in train.columns if name not in test and name not in predicted and name != group]
    groups = [name for name in only_train if NAMED_LIKE_GROUP.search(name) and 1 < train[name].nunique() < len(train)]
    return Found(train, test, id_column, id_reason, predicted, renamed, targets_reason, y, columns, groups)


def find_id(tables: dict[str, pd.DataFrame], named: str | None) -> tuple[str, str]:
    """The column that names a row in all three tables, the sample last, and the reason.

    Raises:
        DataError: if there is none; names what stands in the way.
    """
    *_, sample = tables.values()
    common = [name for name in sample.columns if name.strip() and all(name in table for table in tables.values())]
    candidates = [name for name in common if named in (None, name)]
    if not candidates:
        have = "; ".join(f"{file} has {', '.join(table.columns)}" for file, table in tables.items())
        what = "the id must be a column" if named is None else f"--id {named!r} must name a column"
        raise DataError(f"{what} of all three tables; {have}. Rename or add it there, or name another with --id.")
    for name in candidates:
        if all(table[name].is_unique and (table[name].str.strip() != "").all() for table in tables.values()):
            if named is not None:
                return name, "named with --id"
            first = name == sample.columns[0]
            return name, "the sample's first column" if first else "GUESS: first column with its own value in every row"
    for file, table in tables.items():
        check_ids(table[candidates[0]], f"{file}, column {candidates[0]!r} (taken for the id; another: --id)")
    raise DataError(f"the id must be unique in all three tables, and no column is; tried {', '.join(candidates)}.")


def find_targets(
    train: pd.DataFrame, test: pd.DataFrame, asked: list[str], named: list[str], group: str | None, sample_file: str
) -> tuple[list[str], list[str] | None, str]:
    """Training columns to predict, their names in the sample where they differ, and the reason.

    Args:
        train: training table.
        test: test table.
        asked: the sample's columns without the id.
        named: what the user names as targets, or nothing.
        group: a column that is no target.
        sample_file: for messages.

    Raises:
        DataError, SubmissionError: if the sample's columns and the training table's do not fit together.
    """
    if not asked:
        raise SubmissionError(f"{sample_file} must have a column per target beside the id; it has none.")
    if foreign := [name for name in named if name not in train]:
        raise DataError(f"--target must name columns of the training table; it has no {', '.join(map(repr, foreign))}.")
    if named and set(named) == set(asked):
        return named, None, "named with --target"
    if named:
        if len(named) != len(asked):
            raise DataError(
                f"--target must name one column for each of {', '.join(asked)} in {sample_file}, in that order."
            )
        return named, asked, "named with --target; the sample calls them " + ", ".join(asked)
    if not any(name in train for name in asked) and all(name in test for name in asked):
        raise DataError(
            f"the targets must be columns of the training table; {', '.join(asked)} are columns of the test table, and "
            "of that alone. Are --train and --test swapped?"
        )
    inputs = [name for name in asked if name in test and (name not in train or not is_numeric(train[name]))]
    if inputs:
        raise SubmissionError(
            f"{sample_file} must have the id and the targets alone; {', '.join(inputs)} stands in the test table too "
            "and holds no numbers. Remove it there, or name the id with --id."
        )
    lacking = [name for name in asked if name not in train]
    if not lacking:
        return asked, None, "the sample's other columns"
    spare = [
        name
        for name in train.columns
        if name not in test and name not in asked and name != group and not NAMED_LIKE_GROUP.search(name)
        and name.strip() and is_numeric(train[name]) and not counts_rows(train[name])
    ]  # fmt: skip
    if len(spare) != len(lacking):
        raise DataError(
            f"{sample_file} asks for {', '.join(lacking)}, which the training table must have or have under other "
            f"names; {len(spare)} of its numeric columns are not in the test table ({', '.join(spare) or 'none'}). "
            "Name the targets with --target, in the order of the sample's columns."
        )
    of = dict(zip(lacking, spare, strict=True))
    pairs = ", ".join(f"{new} is {old}" for new, old in of.items())
    return [of.get(name, name) for name in asked], asked, f"GUESS, by order: in the sample {pairs}"


def is_numeric(cells: pd.Series) -> bool:
    """Whether every cell is a finite number or missing, and some are numbers."""
    known = _known(cells)
    return len(known) > 0 and bool(np.isfinite(pd.to_numeric(known, errors="coerce")).all())


def counts_rows(cells: pd.Series) -> bool:
    """Whether the cells are consecutive whole numbers, one per row, in any order."""
    if cells.nunique() < len(cells) or len(cells) < 2:
        return False
    numbers = pd.to_numeric(cells, errors="coerce")
    return bool(((numbers % 1) == 0).all() and numbers.max() - numbers.min() + 1 == len(numbers))


def classify(name: str, train: pd.Series, test: pd.Series) -> Column:
    """Role of a column that both tables have."""
    cells = pd.concat([train, test], ignore_index=True).str.strip()
    if not name.strip():
        return Column(name, "left out", "has no name, like the row numbers that pandas writes")
    if train.str.strip().nunique() == 1:
        return Column(name, "left out", "the same in every training row")
    known = _known(cells)
    filled = cells[cells != ""]
    codes = known.str.fullmatch(r"0\d+").any()  # 007 is a name, and would lose its zeros
    if is_numeric(cells) and not codes:
        return _number_column(name, train, cells)
    if not codes and (damaged := _damaged_numbers(name, known)):
        return damaged
    distinct = list(filled.unique())
    sample = distinct[:: max(1, len(distinct) // SAMPLED)][:SAMPLED]
    if looks_like_smiles(name, sample):
        n_empty = len(cells) - len(filled)
        parsed = f"RDKit parses {_parsed(sample)} of {len(sample)} distinct values"
        parsed += f"; {n_empty} cells are empty" if n_empty else ""
        return Column(name, "smiles", parsed, warning=_parsed(sample) < len(sample) or n_empty > 0, empty=n_empty > 0)
    if np.mean([is_reaction(value) for value in sample]) >= NEARLY_ALL:
        return Column(name, "text", "reaction SMILES (with >), which only language models read", reaction=True)
    return _text_or_category(name, len(filled), distinct, sample)


def _known(cells: pd.Series) -> pd.Series:
    cells = cells.str.strip()
    return cells[~cells.str.lower().isin(MISSING)]


def _number_column(name: str, train: pd.Series, cells: pd.Series) -> Column:
    if counts_rows(train) or counts_rows(cells):
        return Column(name, "left out", "counts the rows")
    if train.is_unique and NAMED_LIKE_ID.search(name):
        return Column(name, "left out", "has a value of its own in every row and a name like an id")
    n_empty = len(cells) - len(_known(cells))
    n_distinct = train.nunique()
    reason = "numbers" + (f", {n_empty} cells empty" if n_empty else "")
    if n_distinct <= 10 and (pd.to_numeric(_known(cells)) % 1 == 0).all():
        reason += f", {n_distinct} distinct whole ones: move it to categorical if they are codes"
    return Column(name, "numeric", reason)


def _damaged_numbers(name: str, known: pd.Series) -> Column | None:
    """A column of numbers that do not parse; None where it is something else."""
    wrong = known[pd.to_numeric(known, errors="coerce").isna()]
    comma = known.str.fullmatch(r"[+-]?\d*,\d+")
    if comma.any() and is_numeric(known.where(~comma, known.str.replace(",", "."))):
        advice = f"numbers with a decimal comma ({wrong.iloc[0]!r}); write them with a point to use them"
        return Column(name, "left out", advice, warning=True)
    if len(wrong) <= 0.2 * len(known):
        advice = (
            f"{len(wrong)} of {len(known)} cells are no numbers ({wrong.iloc[0]!r}); correct or empty them to use it"
        )
        return Column(name, "left out", advice, warning=True)
    return None


def looks_like_smiles(name: str, values: list[str]) -> bool:
    """Whether distinct values are molecules, and not words, codes or categories such as C, N, CO or NO.

    Half of them must parse where the column's name or their signs speak for SMILES, else nearly all: words of
    C, N, O, S, P and I alone are rare among words of five letters.
    """
    parsed = _parsed(values) / max(1, len(values))
    with_structure = np.mean([bool(STRUCTURE.search(value)) for value in values])
    if NAMED_LIKE_SMILES.search(name) or with_structure >= 0.5:
        return parsed >= 0.5
    return parsed >= NEARLY_ALL and bool(np.mean([len(value) for value in values]) >= 5)


def _parsed(values: list[str]) -> int:
    return sum(canonical_smiles(value) is not None for value in values)


def is_reaction(value: str) -> bool:
    """Whether a value is reaction SMILES: reactants > agents > products, each may be empty."""
    parts = value.split(">")
    return len(parts) == 3 and all(part == "" or canonical_smiles(part) is not None for part in parts)


def _text_or_category(name: str, n_cells: int, distinct: list[str], sample: list[str]) -> Column:
    n = len(distinct)
    words = float(np.mean([len(WORD.findall(value)) for value in sample]))
    also = (
        "; all parse as SMILES too: move it to smiles if they are molecules" if _parsed(sample) == len(sample) else ""
    )
    if (words >= 3 and n > max(10, 0.2 * n_cells)) or (words >= 2 and n > 0.5 * n_cells):
        return Column(name, "text", f"{n} distinct values in {n_cells} cells, {words:.1f} words on average")
    if n <= 0.5 * n_cells:
        return Column(name, "categorical", f"{n} distinct values in {n_cells} cells{also}")
    reason = f"{n} distinct values of one word in {n_cells} cells, like ids; name it under text if they say something"
    return Column(name, "left out", reason)
