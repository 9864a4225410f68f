"""How the columns of a row become one text: joined, or by the template of the settings. Without torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from string import Formatter

import pandas as pd

from competition.errors import ConfigError

SEPARATOR = "[SEP]"
"""Stands in a template for the encoder's own separator."""


@dataclass(frozen=True)
class Template:
    """What stands before each column, and behind the last.

    pieces: (literal, column) in order.
    end: literal behind the last column.
    smiles: those of the columns that hold SMILES.
    """

    pieces: list[tuple[str, str]]
    end: str
    smiles: frozenset[str]

    @property
    def columns(self) -> list[str]:
        """The columns in their order."""
        return [column for _, column in self.pieces]

    @property
    def is_reaction(self) -> bool:
        """Whether the template makes a reaction's SMILES of molecule columns, each of its sides a set of molecules."""
        literals = self.end + "".join(literal for literal, _ in self.pieces)
        return set(self.columns) <= self.smiles and 1 <= literals.count(">") <= 2 and not literals.strip(".>")

    def texts(
        self, inputs: pd.DataFrame, separator: str, spell: Callable[[str, str], str] = lambda smiles, row: smiles
    ) -> list[str]:
        """One text per row.

        Args:
            separator: the encoder's.
            spell: another spelling of a SMILES: of a reaction as a whole, else of each column by itself, since the
                order of columns may tell what a molecule is there for (a solute, its solvent). It also gets all values
                of the row: a molecule that many rows have is to be spelled in as many ways.
        """
        whole = self.is_reaction
        spelled = set() if whole else self.smiles
        literals = [_with_separator(literal, separator) for literal, _ in self.pieces]
        end = _with_separator(self.end, separator)
        texts = []
        for values in inputs[self.columns].astype(str).itertuples(index=False, name=None):
            text, row = "", "\n".join(values)
            for literal, column, value in zip(literals, self.columns, values, strict=True):
                # An empty cell is no molecule: a lone dot would be a token that means nothing.
                is_gap = literal == "." and (not value or not text or text.endswith((">", separator)))
                text += ("" if is_gap else literal) + (spell(value, row) if column in spelled else value)
            texts.append(spell(text + end, row) if whole else text + end)
        return texts


def _with_separator(literal: str, separator: str) -> str:
    return re.sub(rf"\s*{re.escape(SEPARATOR)}\s*", lambda found: separator, literal)


def read_template(
    template: str | None,
    columns: list[str],
    smiles: list[str],
    text: list[str],
    categorical: list[str],
    reads_atoms: bool = False,
) -> Template:
    """The named template; without one, "." between neighbouring molecule columns and [SEP] between all others.

    Args:
        columns: of a text without template; empty for all of `text`, else all of `smiles`.
        smiles, text, categorical: columns of the competition by role.
        reads_atoms: whether all columns hold SMILES, whatever their role: a reaction is no molecule.

    Raises:
        ConfigError: if a column is not an input, or there is none to read.
    """
    pieces, end = parse(template) if template else ([], "")
    columns = [column for _, column in pieces] or columns or text or smiles
    known = [*smiles, *text, *categorical]
    foreign = [column for column in columns if column not in known]
    if foreign or not columns:
        raise ConfigError(
            "columns of a stage that reads text must be inputs with molecules, text or categories "
            f"({', '.join(known) or 'there are none'}); found {', '.join(foreign) or 'no text or molecule column'}. "
            "Name the column under competition.text or competition.smiles."
        )
    if not pieces:
        neighbours = zip(columns, columns[1:], strict=False)
        between = ["." if a in smiles and b in smiles else SEPARATOR for a, b in neighbours]
        pieces = list(zip(["", *between], columns, strict=True))
    molecules = frozenset(columns if reads_atoms else {*columns} & {*smiles})
    if molecules >= set(columns):  # blanks around an arrow are for the reader
        pieces = [(_close_up(literal), column) for literal, column in pieces]
        end = _close_up(end)
    return Template(pieces, end, molecules)


def _close_up(literal: str) -> str:
    return re.sub(r"\s*([.>]+)\s*", r"\1", literal)


def require_molecules(template: Template, order_only: bool) -> None:
    """Check that there is a SMILES to spell in another way, or molecules to put in another order.

    Raises:
        ConfigError: if there is none.
    """
    columns = ", ".join(template.columns)
    if not template.smiles:
        raise ConfigError(
            f"enumerate_smiles needs a column of molecules; this stage reads {columns}. "
            "Name one, or set tokens: smiles where a text column holds SMILES."
        )
    if order_only and len(template.columns) > 1 and not template.is_reaction:
        raise ConfigError(
            f"enumerate_smiles: order needs columns that are a side of a reaction; this stage reads {columns} in their "
            'order. Set a template with an arrow, such as template: "{' + "}.{".join(template.columns) + '}>>".'
        )


def parse(template: str) -> tuple[list[tuple[str, str]], str]:
    """(literal, column) pairs of a format string such as "{a}.{b}>>{c}", and what stands behind the last column.

    Raises:
        ValueError: if it is no format string, or names no column.
    """
    pieces, end = [], ""
    try:
        fields = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"template must be text with columns in braces, as in {{a}} [SEP] {{b}}: {error}") from None
    for literal, column, spec, conversion in fields:
        if column is None:
            end = literal
        else:  # a colon or an exclamation mark is a part of the column's name here
            name = column + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            pieces.append((literal, name))
    if not all(column for _, column in pieces) or not pieces:
        raise ValueError("a template must name columns in braces, as in {a} [SEP] {b}")
    return pieces, end
