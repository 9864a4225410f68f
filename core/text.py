"""Numbers, durations, lists and tables as text, for a terminal and for Markdown."""

import math
from collections.abc import Sequence

import numpy as np

SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0}
"""Unit -> seconds, the largest first."""


def format_duration(seconds: float) -> str:
    """Return three digits in the largest unit that is at most the duration: 5400 -> "1.5 h"."""
    unit = next((name for name, size in SECONDS.items() if seconds >= size), "s")
    return f"{float(f'{seconds / SECONDS[unit]:.3g}'):g} {unit}"


MAX_NAME_LENGTH = 24


def format_number(value: float | None) -> str:
    """Return four significant digits, or "-" for a missing number."""
    return f"{value:#.4g}".rstrip(".") if is_finite(value) else "-"


def format_within(value: float | None, error: float | None) -> str:
    """Return a number with no digits beyond the second of its error: 0.63719 and 0.0254 -> "0.637"."""
    number = format_number(value)
    if value is None or error is None or not (is_finite(value) and is_finite(error)) or error <= 0:
        return number
    return min(number, f"{value:.{_decimals(error)}f}", key=len)


def _decimals(error: float) -> int:
    """Return the decimals of the first two digits of an error above 0."""
    return max(0, 1 - math.floor(math.log10(float(f"{error:.2g}"))))


def format_with_error(value: float | None, standard_error: float | None) -> str:
    """Return a number and its standard error, or only the number without one.

    The error has two digits, and the number has no digits beyond these: 0.63719 and 0.0254 -> "0.637 +-
    0.025".
    """
    number = format_within(value, standard_error)
    if value is None or standard_error is None or not is_finite(standard_error):
        return number
    error = f"{standard_error:#.2g}".rstrip(".")
    if standard_error > 0:
        n_decimals = _decimals(standard_error)
        # 0.000094, and not 9.4e-05, beside -0.000420.
        if number == f"{value:.{n_decimals}f}":
            error = f"{standard_error:.{n_decimals}f}"
    return f"{number} +- {error}"


def shortened(name: str) -> str:
    """Return a name that is short enough for plots and cards."""
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…"


def is_finite(value: float | None) -> bool:
    """Return whether there is a finite number."""
    return value is not None and bool(np.isfinite(value))


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Return an aligned Markdown table; columns of numbers except the first are aligned to the right."""
    rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    columns = []
    for i, cells in enumerate(zip(header, *rows, strict=True)):
        width = max(map(len, cells))
        is_left = i == 0 or not _are_numbers(cells[1:])
        name, *texts = [f" {cell.ljust(width) if is_left else cell.rjust(width)} " for cell in cells]
        columns.append([name, "-" * (width + 1) + ("-" if is_left else ":"), *texts])
    return "\n".join(f"|{'|'.join(line)}|" for line in zip(*columns, strict=True))


def _are_numbers(cells: Sequence[str]) -> bool:
    """Return whether all cells are numbers, such as `-0.5` or `0.71 +- 0.03`."""
    texts = [cell for cell in cells if cell not in ("", "-")]
    return bool(texts) and all(text[0] in "-+.0123456789" for text in texts)
