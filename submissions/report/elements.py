"""What a report is made of: sections of sentences, tables of texts, figures, cards of rows and folded texts."""

import base64
from collections.abc import Iterable
from typing import Any, NamedTuple

from submissions.formatting import format_number, is_finite


class Table(NamedTuple):
    """A table of texts."""

    header: list[str]
    rows: list[list[str]]


class Figure(NamedTuple):
    """What a figure shows, and the figure as an SVG or a PNG."""

    words: str
    image: str | bytes


class Card(NamedTuple):
    """One row of the training table: its inputs (molecules: SMILES -> drawing) and its errors."""

    title: str
    molecules: dict[str, str]
    texts: dict[str, str]
    values: str
    errors: Table


class Collapsible(NamedTuple):
    """A long text that is shown on request."""

    title: str
    text: str


Element = str | Table | Figure | Card | Collapsible


class Section(NamedTuple):
    """A part of the report; `brief`: whether report.md has it, too."""

    title: str
    parts: list[Element]
    brief: bool = False


class Report(NamedTuple):
    """All that is said about a run; facts: name -> value and what it is, for the head of the page."""

    title: str
    about: str
    facts: dict[str, tuple[str, str]]
    reason: str
    to_submit: str
    sections: list[Section]


def data_url(image: str | bytes) -> str:
    """An SVG or a PNG as an address that has all of it, so that the page needs no other file."""
    kind, content = ("svg+xml", image.encode()) if isinstance(image, str) else ("png", image)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def make_table(header: list[str], rows: Iterable[Iterable[Any]], form: str = "") -> Table:
    """Texts as they are, numbers with five digits or in a form such as {:.3f}, "-" where there is none."""

    def text(cell: Any) -> str:
        return (
            cell
            if isinstance(cell, str)
            else form.format(cell)
            if form and is_finite(cell)
            else format_number(cell)
        )

    return Table(header, [[text(cell) for cell in row] for row in rows])
