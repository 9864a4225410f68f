"""HTML and SVG from Python, where text cannot become markup by accident: what is no `Html` is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

EMPTY = {"img", "line", "circle", "rect", "polyline"}
"""Elements without content."""
NUMBER = re.compile(r"[-+]?\d[\d.,e+-]*( \+- [\d.e+-]+)?|-")


class Html(str):
    """Text that is markup already."""


def element(name: str, *children: str, **attributes: str | float | None) -> Html:
    """An element; children that are no `Html` and all attributes are escaped.

    Args:
        attributes: `class_` is class, other underscores are hyphens; None leaves an attribute out.
    """
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    written = "".join(f' {key}="{html.escape(str(value))}"' for key, value in pairs)
    if name in EMPTY:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{together(children)}</{name}>")


def together(parts: Iterable[str]) -> Html:
    """Parts one after the other; what is no `Html` is escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def table(caption: str, header: list[str], rows: list[list[str]], kinds: list[str] | None = None) -> Html:
    """A table that scrolls on its own where the screen is narrow; columns of numbers are aligned to the right.

    Args:
        caption: what it is, for those who do not see it.
        kinds: class of each row.
    """
    cells = [[cell for row in rows if (cell := row[i]) and not isinstance(cell, Html)] for i in range(len(header))]
    classes = ["number" if column and all(NUMBER.fullmatch(cell) for cell in column) else None for column in cells]
    head = [element("th", text, scope="col", class_=name) for text, name in zip(header, classes, strict=True)]
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(
                element("td", cell if name is None else plus_minus(cell), class_=name)
                for cell, name in zip(row[1:], classes[1:], strict=True)
            ),
            class_=of_row or None,
        )
        for row, of_row in zip(rows, kinds or [""] * len(rows), strict=True)
    ]
    inside = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    return scrolling(inside, caption)


def plus_minus(number: str) -> str:
    """A number as the page writes it: with the sign for which a terminal has +-."""
    return number.replace("+-", "±")


def paragraphs(*lines: str) -> Html:
    """A paragraph for each line."""
    return together(element("p", line) for line in lines)


def scrolling(inside: Html, caption: str) -> Html:
    """Something wide that scrolls on its own, with the keyboard too."""
    return element("div", inside, class_="scroll", role="region", aria_label=caption, tabindex="0")


def tags(words: list[str], kind: str = "tag") -> Html:
    """Words in boxes."""
    return together(element("span", word, class_=kind) for word in words)
