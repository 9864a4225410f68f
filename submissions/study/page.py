"""A study as one HTML file that opens without a network, in the frame of the report's page."""

from __future__ import annotations

import base64
from pathlib import Path
from string import Template

from submissions.markup import Html, element, paragraphs, plus_minus, table, together
from submissions.study.config import Study
from submissions.study.results import Equality
from submissions.study.summary import SAID, Summary, by_stage, header_of, row_of, said_of

FRAME = Path(__file__).parents[1]


def page(
    name: str,
    command: str,
    study: Study,
    made: list[Summary],
    equal: list[Equality],
    skipped: dict[str, str],
    pictures: dict[str, str],
) -> str:
    """The page of a study.

    Args:
        command: that makes it.
        skipped: data that were not measured, and why.
        pictures: words -> SVG.
    """
    sections = {
        "Published": _published(study),
        "Measured": _measured(made, equal, skipped),
        "Plots": together(_figure(words, svg) for words, svg in pictures.items()),
    }
    body = [
        element(
            "header",
            element("h1", name),
            element("p", study.claim),
            element("p", element("code", command), class_="quiet"),
        ),
        element("main", *(_section(title, inside) for title, inside in sections.items() if inside), id="content"),
        element("footer", f"Made by {command}. A row for each job is in results.csv, beside this file."),
    ]
    return Template((FRAME / "page.html").read_text(encoding="utf-8")).substitute(
        title=together([name]),
        style=(FRAME / "page.css").read_text(encoding="utf-8"),
        body=together(body),
        points="null",
        script="",
    )


def _section(title: str, inside: Html) -> Html:
    return element("section", element("h2", title), inside)


def _published(study: Study) -> Html:
    rows = [[part.what, plus_minus(part.value), part.source] for part in study.published]
    return table("Numbers that others report", ["what", "value", "source"], rows) if rows else Html("")


def _measured(made: list[Summary], equal: list[Equality], skipped: dict[str, str]) -> Html:
    parts = []
    for (data, stage), cells in by_stage(made).items():
        header = header_of(cells)
        kinds = ["strong" if cell.cell.is_baseline else "" for cell in cells]
        rows = [row_of(cell, header) for cell in cells]
        parts += [element("h3", f"{data}, {stage}"), table(f"Cells of {stage} on {data}", header, rows, kinds)]
    said = [SAID, *map(said_of, equal), *(f"{data} is skipped: {reason}" for data, reason in skipped.items())]
    return together([*parts, paragraphs(*map(plus_minus, said))])


def _figure(words: str, svg: str) -> Html:
    content = base64.b64encode(svg.encode()).decode()
    picture = element("img", src=f"data:image/svg+xml;base64,{content}", alt=words)
    return element("figure", element("figcaption", words), picture)
