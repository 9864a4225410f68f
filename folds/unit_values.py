"""Values of units in the rows of a table, and keys of rows that share a fold by `competition.group`."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import reduce

import pandas as pd

from competition.cells import canonical_cells
from competition.clean import empty_molecule
from competition.config import CompetitionConfig
from competition.dataset import INPUT_KEY
from competition.molecules import canonical_smiles, parent, plain_text
from competition.swap import in_all_orders
from competition.units import Unit
from core.types import Integers
from core.user_tables import read_text_table
from folds.groups import scaffold, stereo_scaffold

SEPARATOR = re.compile(r"[\s_./:|-]+")


def values_of(unit: Unit, cells: pd.DataFrame, counted: pd.DataFrame) -> list[pd.Series]:
    """Return the values of a unit, (n_rows,) text each, "" for none; a row of a pool of columns has several.

    Args:
        cells: canonical cells of its columns.
        counted: those of the rows in which the components of mixtures are counted.
    """
    columns = [cells[name] for name in unit.columns]
    if unit.kind == "cell":
        are_complete = (cells[[*unit.columns]] != "").all(axis=1)
        joined = reduce(lambda first, second: first + " | " + second, columns)
        return [joined.where(are_complete, "")]
    if unit.kind.startswith("component"):
        return [_component(columns[0], int(unit.kind[-1]), counted[unit.columns[0]])]
    change = CHANGES.get(unit.kind)
    return [_mapped(column, change) for column in columns] if change else columns


def codes_of(values: list[pd.Series]) -> Integers:
    """Return the numbers of values, (n_values_per_row, n_rows), -1 for none; a value of a row counts once."""
    texts = pd.concat(values, ignore_index=True)
    codes = pd.factorize(texts.where(texts != ""))[0].reshape(len(values), -1)
    if len(codes) > 1:
        codes[1:][codes[1:] == codes[0]] = -1
    return codes


def canonical_table(table: pd.DataFrame, names: Iterable[str], smiles: Collection[str]) -> pd.DataFrame:
    """Return the canonical cells of columns of a raw or prepared table.

    Args:
        smiles: columns with molecules.
    """
    return pd.DataFrame({name: _canonical(table[name], name in smiles) for name in names}, table.index)


def _canonical(cells: pd.Series, are_molecules: bool) -> pd.Series:
    """Return cells in one form: molecules, numbers, or normalised text; "" if empty."""
    if not are_molecules:
        return canonical_cells(cells)
    return _mapped(cells.fillna("").astype(str).str.strip(), lambda cell: canonical_smiles(cell) or "")


def _mapped(cells: pd.Series, change: Callable[[str], str]) -> pd.Series:
    """Return the results of a function of text, which is called once per distinct cell; "" stays."""
    return cells.map({cell: change(cell) if cell else "" for cell in cells.unique()})


def _prefix(text: str) -> str:
    """Return what is before the first separator; "" without one."""
    separator = SEPARATOR.search(text)
    return text[: separator.start()] if separator else ""


def _long_prefix(text: str) -> str:
    """Return what is before the last of several separators; "" without them."""
    separators = list(SEPARATOR.finditer(text))
    return text[: separators[-1].start()] if len(separators) > 1 else ""


CHANGES: dict[str, Callable[[str], str]] = {
    "scaffold": scaffold,
    "stereo_scaffold": stereo_scaffold,
    "prefix": _prefix,
    "long_prefix": _long_prefix,
    "plain_text": plain_text,
}
"""Kind of unit -> function from a canonical cell to its value."""


def _component(cells: pd.Series, rank: int, counted: pd.Series) -> pd.Series:
    """Return the component of each mixture or reaction that is in the fewest rows; with rank 2 the next; "" if none.

    Their order cannot tell them apart, since canonical SMILES sort them.
    """
    parts_of = {
        cell: {part for part in re.split("[.>]", cell) if part}
        for cell in pd.concat([cells, counted]).unique()
    }
    n_rows = Counter(part for cell in counted for part in parts_of[cell])
    by_rarity = {
        cell: sorted(parts, key=lambda part: (n_rows[part], part)) if len(parts) > 1 else []
        for cell, parts in parts_of.items()
    }
    chosen = {cell: parts[rank - 1] if len(parts) >= rank else "" for cell, parts in by_rarity.items()}
    return cells.map(chosen)


def group_keys(
    rows: pd.DataFrame, competition: CompetitionConfig, similarity: float, n_in_folds: int
) -> list[pd.Series]:
    """Return a key per value of each unit of `competition.group`; rows without one have the key of their inputs.

    A unit of a column has the keys of those that it may change places with (`competition.swap`), too.
    Components are counted as in the table of units, in the rows of folds and the raw test table. They are not desalted,
    since a solvent such as water would be lost.
    """
    swap, smiles = competition.swap, competition.smiles
    units = [
        (number, Unit(unit.kind, columns))
        for number, unit in enumerate(competition.units)
        for columns in in_all_orders(unit.columns, swap)
    ]
    names = list(dict.fromkeys(name for _, unit in units for name in unit.columns))
    has_molecule = rows[smiles] != empty_molecule(competition)
    rows = rows.assign(**rows[smiles].where(has_molecule, ""))
    desalted_rows = canonical_table(rows.assign(**rows[smiles].map(parent)), names, smiles)
    keys = []
    for number, unit in units:
        cells = counted = desalted_rows
        if unit.kind.startswith("component"):
            cells = canonical_table(rows, unit.columns, smiles)
            test = canonical_table(read_text_table(competition.test), unit.columns, smiles)
            counted = pd.concat([cells[:n_in_folds], test])
        for values in values_of(unit, cells, counted):
            keys.append((f"group {number} " + values).where(values != "", rows[INPUT_KEY]))
    return keys
