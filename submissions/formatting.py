"""Numbers and tables as people read them, in a terminal and in Markdown."""

from collections.abc import Sequence

import numpy as np

LONGEST_NAME = 24


def format_number(value: float | None) -> str:
    """Five significant digits, "-" where there is no number."""
    return f"{value:#.5g}".rstrip(".") if is_finite(value) else "-"


def format_with_error(value: float | None, standard_error: float | None) -> str:
    """A number and its standard error; the number alone where there is none."""
    return (
        f"{format_number(value)} +- {standard_error:#.2g}".rstrip(".")
        if is_finite(standard_error)
        else format_number(value)
    )


def shortened(name: str) -> str:
    """A name that fits beside a plot and into a card."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def mean_and_std(values: list[float]) -> str:
    """Mean and standard deviation of the values that are defined."""
    defined = [value for value in values if is_finite(value)]
    return f"{np.mean(defined):#.4g} +- {np.std(defined, ddof=1):#.2g}" if len(defined) > 1 else "-"


def is_finite(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and bool(np.isfinite(value))


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Aligned text that is a Markdown table as well; a column of numbers is aligned to the right, but the
    first.
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    left = [i == 0 or not _are_numbers(column[1:]) for i, column in enumerate(columns)]

    def line(cells: list[str]) -> str:
        padded = [
            c.ljust(w) if is_left else c.rjust(w) for c, w, is_left in zip(cells, widths, left, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(
        "-" * (w + 1) + ("-" if is_left else ":") for w, is_left in zip(widths, left, strict=True)
    )
    return "\n".join([line(header), f"|{rule}|", *(line(row) for row in rows)])


def _are_numbers(cells: Sequence[str]) -> bool:
    """Whether there are numbers, such as `-0.5` or `0.71 +- 0.03`, and no other text."""
    texts = [cell for cell in cells if cell not in ("", "-")]
    return bool(texts) and all(text[0] in "-+.0123456789" for text in texts)
