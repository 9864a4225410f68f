"""What a report is made of: sections of sentences, tables of texts, figures, cards of rows and folded texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Figure:
    """An SVG and what it shows, or the path of a PNG."""

    words: str
    svg: str = ""
    file: Path | None = None


@dataclass(frozen=True)
class Card:
    """One row of the training table: its inputs and its errors."""

    title: str
    molecules: dict[str, str]
    texts: dict[str, str]
    values: str
    errors: Table


@dataclass(frozen=True)
class Folded:
    """A long text that is shown on request."""

    title: str
    text: str


Part = str | Table | Figure | Card | Folded


@dataclass(frozen=True)
class Section:
    """A part of the report; `brief`: whether report.md has it, too."""

    title: str
    parts: list[Part]
    brief: bool = False
