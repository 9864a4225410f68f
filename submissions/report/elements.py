"""Elements of a report: sentences, tables, figures, and cards of rows."""

import base64
from typing import Any, NamedTuple

import pandas as pd

from core.text import format_number, is_finite


class Table(NamedTuple):
    """A table of texts with a header."""

    header: list[str]
    rows: list[list[str]]


class Figure(NamedTuple):
    """A figure, as SVG or PNG, with its caption."""

    caption: str
    image: str | bytes


class Card(NamedTuple):
    """One training row with its inputs (molecules: SMILES -> drawing) and its errors."""

    title: str
    molecules: dict[str, str]
    texts: dict[str, str]
    values: str
    errors: Table


Element = str | Table | Figure | Card


class Section(NamedTuple):
    """A section of the report.

    Attributes:
        brief: whether report.md has its sentences and tables.
        wide: whether it has the whole width of the page, instead of a column.
    """

    title: str
    elements: list[Element]
    brief: bool = False
    wide: bool = False


class Report(NamedTuple):
    """Everything about a run.

    Attributes:
        summary: what to expect and what was chosen, in a few sentences.
        warnings: why the score may not hold, or is not worth much.
        facts: name -> value and explanation, for the head of the page.
        closing: what was left out, where the submission is, and what to do next.
    """

    title: str
    subtitle: str
    summary: str
    warnings: list[str]
    facts: dict[str, tuple[str, str]]
    closing: list[str]
    sections: list[Section]


def data_url(image: str | bytes) -> str:
    """Return an SVG or a PNG as a data URL, so that the page needs no other file."""
    kind, content = ("svg+xml", image.encode()) if isinstance(image, str) else ("png", image)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def make_table(table: pd.DataFrame, form: str = "") -> Table:
    """Return a table: texts unchanged, numbers with four digits or in a format ({:.3f}), "-" if missing."""

    def text(cell: Any) -> str:
        if isinstance(cell, str):
            return cell
        return form.format(cell) if form and is_finite(cell) else format_number(cell)

    return Table(list(table.columns), table.map(text).to_numpy().tolist())
