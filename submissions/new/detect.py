"""What the columns of a competition's tables are: id, targets, molecules, text, numbers, categories.

Every answer is a guess and comes with its reason, which `./run.sh new` prints and writes into the YAML.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from competition.classes import MISSING, class_names
from competition.clean import check_ids, describe_rows, join_first
from competition.errors import DataError
from competition.files import read_text_table
from competition.molecules import canonical_smiles, normalised_text
from submissions.new.yaml_writer import to_yaml

Role = Literal["smiles", "text", "numeric", "categorical", "left out"]

SAMPLED = 200  # distinct values that are looked at where looking at all would take long
NEARLY_ALL = 0.95
NAMED_LIKE_SMILES = re.compile(r"smiles|^mol(ecule)?s?$|structure", re.IGNORECASE)
NAMED_LIKE_ID = re.compile(r"(^|[\s_.:-])(id|idx|index|uuid)$|[a-z](ID|Id)$|^(ID|Id)$")
NAMED_LIKE_GROUP = re.compile(r"group|cluster|scaffold|fold|split|series|batch", re.IGNORECASE)
STRUCTURE = re.compile(
    r"[=#()\[\]\d]"
)  # bonds, branches, brackets, rings: what words and codes of letters do not have
WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+"
)  # or one Chinese or Japanese sign


@dataclass(frozen=True)
class Column:
    """An input column, or one that is left out."""

    name: str
    role: Role
    reason: str
    reaction: bool = False  # whether a text column holds reaction SMILES


@dataclass(frozen=True)
class DetectedTables:
    """What stands in the tables: targets of the training table, and the sample's columns where these differ,
    one for each target or, in the order of `class_names`, for each class of a single one.
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

    def named(self, *roles: Role) -> list[str]:
        """Columns of some roles, in the order of the training table."""
        return [column.name for column in self.columns if column.role in roles]

    @property
    def inputs(self) -> list[str]:
        """Columns that are not left out."""
        return [column.name for column in self.columns if column.role != "left out"]

    @property
    def has_no_molecules(self) -> bool:
        """Whether an empty cell means no molecule: there are others in its row."""
        smiles = self.named("smiles")
        return len(smiles) > 1 and any((t[smiles] == "").any(axis=None) for t in (self.train, self.test))

    @property
    def unreadable(self) -> str:
        """The rows whose molecule does not parse or whose text is empty, in words."""
        said = []
        for where, table in (("train", self.train), ("test", self.test)):
            rows = pd.Series(False, table.index)
            for name in self.named("text"):
                rows |= table[name].map(normalised_text) == ""
            for name in self.named("smiles"):
                stands_for_none = (table[name].str.strip() == "") & self.has_no_molecules
                rows |= table[name].map(canonical_smiles).isna() & ~stands_for_none
            if rows.any():
                said.append(f"{rows.sum()} of {where}: {describe_rows(table, rows.to_numpy(), self.id)}")
        return "; ".join(said)


def detect(
    files: Sequence[Path],
    id_column: str | None = None,
    targets: Sequence[str] = (),
    group: str | None = None,
    inputs_needed: bool = True,
) -> DetectedTables:
    """Read train, test and sample and guess the role of each column; what is named here is not guessed."""
    tables = {str(file): read_text_table(file) for file in files}
    if len(tables) < len(files):
        raise DataError(
            f"--train, --test and --sample must be three files; found {', '.join(map(str, files))}."
        )
    (train_file, train), (_, test), (sample_file, sample) = tables.items()
    id_column, id_reason = find_id(tables, id_column)
    if group is not None and (group not in train or group == id_column):
        raise DataError(f"--group names a column of {train_file} other than the id; found {group!r}.")
    repeated = [
        n for n in sample if n in test and sample[n].nunique() > 1 and sorted(sample[n]) == sorted(test[n])
    ]
    asked = sample.drop(columns=[id_column, *(name for name in repeated if name not in targets)])
    spare = [
        name for name in train.columns if name.strip() and name not in (*test.columns, *asked.columns, group)
    ]
    predicted, renamed, targets_reason = find_targets(train, spare, asked, list(targets), sample_file)
    columns = []
    for name in dict.fromkeys([*train.columns, *test.columns]):
        if name in (id_column, *predicted):
            continue
        if name in test and name in train:
            column = classify(name, train[name], test[name])
        else:
            reason = f"only in {'train' if name in train else 'test'}"
            if name in train and NAMED_LIKE_GROUP.search(name) and 1 < train[name].nunique() < len(train):
                reason += (
                    f"; if rows of one {name} belong together, set group: {to_yaml(name)} and "
                    f"folds.kind group"
                )
            column = Column(name, "left out", reason)
        if (
            name == group and column.role == "smiles"
        ):  # a new molecule still says much; a new label says nothing
            column = replace(column, reason=f"{column.reason}; it makes the folds, too (--group)")
        elif name == group:
            column = Column(name, "left out", "makes the folds (--group)")
        columns.append(column)
    found = DetectedTables(
        train, test, asked, id_column, id_reason, predicted, renamed, targets_reason, columns
    )
    if inputs_needed and not found.inputs:
        reasons = (
            "; ".join(f"{column.name!r}: {column.reason}" for column in columns) or "there is no other column"
        )
        raise DataError(
            f"no column of {' and '.join(list(tables)[:2])} is an input to learn from ({reasons})."
        )
    return found


def find_id(tables: dict[str, pd.DataFrame], named: str | None) -> tuple[str, str]:
    """The column that names a row in all three tables, the sample last, and the reason."""
    *_, sample = tables.values()
    common = [
        name for name in sample.columns if name.strip() and all(name in table for table in tables.values())
    ]
    common.sort(
        key=lambda name: bool(NAMED_LIKE_SMILES.search(name))
    )  # a sample may repeat them before the id
    candidates = [name for name in common if named in (None, name)]
    for name in candidates:
        if all(table[name].is_unique and (table[name].str.strip() != "").all() for table in tables.values()):
            if named is not None:
                return name, "named with --id"
            is_first = name == sample.columns[0]
            return name, "the sample's first column" if is_first else "GUESS: the first with distinct values"
    for file, table in tables.items():
        for name in candidates[:1]:
            check_ids(table[name], f"{file}, column {name!r} (taken for the id; another: --id)")
    expected = named or next(filter(str.strip, sample.columns), "")
    lacking = [
        f"{file} (it has {', '.join(table.columns)})"
        for file, table in tables.items()
        if expected not in table
    ]
    raise DataError(
        f"the id column {expected!r} is missing in {' and in '.join(lacking)}. All three tables need it: "
        f"add the "
        "column, or choose another one with --id."
    )


def find_targets(
    train: pd.DataFrame, spare: list[str], sample: pd.DataFrame, named: list[str], sample_file: str
) -> tuple[list[str], list[str] | None, str]:
    """Training columns to predict, the sample's columns where they differ, and the reason.

    `spare` are the columns that neither the test table nor the sample has, `sample` is without its id,
    `named` are the targets that the user names.
    """
    asked = list(sample.columns)
    lacking = [name for name in asked if name not in train]
    if foreign := [name for name in named if name not in train]:
        raise DataError(
            f"--target names {', '.join(map(repr, foreign))}, which the training table does not have."
        )
    if named and len(named) == len(asked):
        return (
            named,
            None if set(named) == set(asked) else asked,
            "named with --target, in the sample's order",
        )
    if asked and not named and not lacking:
        return asked, None, "the sample's other columns"
    spare = [name for name in spare if not NAMED_LIKE_GROUP.search(name)]
    numeric = [name for name in spare if is_numeric(train[name]) and not counts_rows(train[name])]
    texts = [name for name in spare if name not in numeric and repeats(train[name])]
    by_order = numeric if numeric and any(is_numeric(sample[name]) for name in lacking) else texts
    fits = len(by_order) == len(lacking)
    for name in named or (texts if fits else texts + numeric):
        if len(named) < 2 and (
            columns := columns_of_classes(class_names(train[[name]]), asked, name, sample_file)
        ):
            return [name], columns, "GUESS: the sample has a column for each of its classes"
    if named or not asked:
        found = ", ".join(asked) or "none"
        raise DataError(
            f"{sample_file} needs a column for each target beside the id, in their order; it has {found}."
        )
    if not fits:
        raise DataError(
            f"{sample_file} asks for {', '.join(lacking)}, which the training table does not have; "
            f"{len(by_order)} of "
            f"its columns with labels are not in the test table ({', '.join(by_order) or 'none'}). Name "
            f"the targets "
            "with --target, in the order of the sample's columns. Or are --train and --test swapped?"
        )
    of = dict(zip(lacking, by_order, strict=True))
    pairs = ", ".join(f"{new} is {old}" for new, old in of.items())
    return [of.get(name, name) for name in asked], asked, f"GUESS, by order: in the sample {pairs}"


def columns_of_classes(classes: list[str], asked: list[str], target: str, sample_file: str) -> list[str]:
    """The sample's column of each class: its name, with what all columns have before and after it; none where
    the sample has no such columns.
    """
    places = [(column, name) for column in asked for name in classes if name in column]
    affixes = Counter(
        affix for c, name in places for affix in {c.partition(name)[::2], c.rpartition(name)[::2]}
    )
    [((before, after), _)] = affixes.most_common(1) or [(("", ""), 0)]
    columns = [f"{before}{name}{after}" for name in classes]
    shared = {*columns} & {*asked}
    if len(shared) < 2 or 2 * len(shared) < max(len(columns), len(asked)):
        return []
    if len(shared) < max(len(columns), len(asked)):
        found = {"has no class": {*asked} - shared, "is not there": {*columns} - shared}
        raise DataError(
            f"{sample_file} has a column for each class of {target!r}, and other classes than the "
            f"training table: "
            f"{', '.join(f'{join_first(sorted(names))} {words}' for words, names in found.items() if names)}. "
            "Use the files of one competition."
        )
    return columns


def is_not_numeric(cells: pd.Series) -> tuple[pd.Series, int]:
    """The cells that are neither missing nor a finite number, and how many are not missing."""
    cells = cells.str.strip()
    known = cells[~cells.str.lower().isin(MISSING)]
    return known[~np.isfinite(pd.to_numeric(known, errors="coerce"))], len(known)


def repeats(cells: pd.Series) -> bool:
    """Whether values stand in several rows, as names of classes do."""
    known = cells[cells.str.strip() != ""]
    return 1 < known.nunique() <= 0.5 * len(known)


def describe_damage(cells: pd.Series) -> str:
    """What is wrong with a column of numbers of which few are none, or have a decimal comma; empty for any
    other.
    """
    wrong, n_known = is_not_numeric(cells)
    commas = bool(wrong.str.fullmatch(r"[+-]?\d*,\d+").all())
    if wrong.empty or not (commas or len(wrong) <= 0.2 * n_known):
        return ""
    return f"{len(wrong)} of {n_known} cells are no numbers ({wrong.iloc[0]!r}{', a decimal comma' * commas})"


def is_numeric(cells: pd.Series) -> bool:
    """Whether every cell is a finite number or missing, and some are numbers."""
    wrong, n_known = is_not_numeric(cells)
    return wrong.empty and n_known > 0


def counts_rows(cells: pd.Series) -> bool:
    """Whether the cells are consecutive whole numbers, one per row, in any order."""
    numbers = pd.to_numeric(cells, errors="coerce").sort_values()
    return len(cells) > 1 and bool((numbers.diff()[1:] == 1).all() and numbers.iloc[0] % 1 == 0)


def classify(name: str, train: pd.Series, test: pd.Series) -> Column:
    """Role of a column that both tables have."""
    column, cells = partial(Column, name), pd.concat([train, test], ignore_index=True).str.strip()
    if not name.strip():
        return column("left out", "has no name, like the row numbers that pandas writes")
    if train.str.strip().nunique() == 1:
        return column("left out", "the same in every training row")
    wrong, n_known = is_not_numeric(cells)
    is_code = cells.str.fullmatch(r"0\d+").any()  # 007 is a name, and would lose its zeros
    if wrong.empty and n_known and not is_code:
        if counts_rows(train) or counts_rows(cells):
            return column("left out", "counts the rows")
        if train.is_unique and NAMED_LIKE_ID.search(name):
            return column("left out", "has a value of its own in every row and a name like an id")
        reason = "numbers" + (f", {len(cells) - n_known} cells empty" if n_known < len(cells) else "")
        if train.nunique() <= 10 and (pd.to_numeric(cells, errors="coerce").dropna() % 1 == 0).all():
            reason += f", {train.nunique()} distinct whole ones: move it to categorical if they are codes"
        return column("numeric", reason)
    if (why := describe_damage(cells)) and not is_code:
        return column("left out", f"WARNING: {why}; correct or empty them to use it")
    filled = cells[cells != ""]
    if len(filled) and pd.to_datetime(filled, format="ISO8601", utc=True, errors="coerce").notna().all():
        return column(
            "left out", f"dates; if test rows are later, set time: {to_yaml(name)} and folds.kind time"
        )
    distinct, n_cells = list(filled.unique()), len(filled)
    n, sample = len(distinct), distinct[:: max(1, len(distinct) // SAMPLED)][:SAMPLED]
    n_parsed, n_empty = sum(canonical_smiles(value) is not None for value in sample), len(cells) - n_cells
    if looks_like_smiles(name, sample, n_parsed / max(1, len(sample))):
        reason = f"RDKit parses {n_parsed} of {len(sample)} distinct values"
        return column("smiles", reason + (f"; {n_empty} cells are empty" if n_empty else ""))
    if np.mean([is_reaction(value) for value in sample]) >= NEARLY_ALL:
        return column("text", "reaction SMILES (with >), which only language models read", reaction=True)
    words, reason = (
        np.mean([len(WORD.findall(value)) for value in sample]),
        f"{n} distinct values in {n_cells} cells",
    )
    if (words >= 3 and n > max(10, 0.2 * n_cells)) or (words >= 2 and n > 0.5 * n_cells):
        return column("text", f"{reason}, {words:.1f} words on average")
    if n <= 0.5 * n_cells:
        also = "; all parse as SMILES too: move it to smiles if they are molecules" * (
            n_parsed == len(sample)
        )
        return column("categorical", reason + also)
    return column("left out", f"{reason}, of one word, like ids; name it under text if they say something")


def looks_like_smiles(name: str, values: list[str], parsed: float) -> bool:
    """Whether distinct values, of which a share parses, are molecules, and not words or codes such as C, CO
    or NO.

    Half of them must parse where the column's name or their signs speak for SMILES, else nearly all: words of
    C, N, O, S, P and I alone are rare among words of five letters.
    """
    if NAMED_LIKE_SMILES.search(name) or np.mean([bool(STRUCTURE.search(value)) for value in values]) >= 0.5:
        return parsed >= 0.5
    return parsed >= NEARLY_ALL and bool(np.mean([len(value) for value in values]) >= 5)


def is_reaction(value: str) -> bool:
    """Whether a value is reaction SMILES: reactants > agents > products, each may be empty."""
    parts = value.split(">")
    return len(parts) == 3 and all(part == "" or canonical_smiles(part) is not None for part in parts)
