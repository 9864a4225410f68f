"""Times as a person writes and reads them: `--budget 90m`, "1.5 h"."""

from __future__ import annotations

import math
import re

from competition.errors import ConfigError

BAR = "{desc} {percentage:3.0f}% |{bar:40}| {elapsed} passed, {remaining} left"
"""How a progress bar of tqdm looks."""
SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0}


def seconds_of(text: str) -> float:
    """Seconds of a time such as `2h`, `90m`, `30s` or `30`; the type of --budget.

    Raises:
        ConfigError: if it is none, or not above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hms]?)", text.strip(), flags=re.ASCII)
    seconds = float(found[1]) * SECONDS[{"": "s", "m": "min"}.get(found[2], found[2])] if found else 0.0
    if not 0 < seconds < math.inf:
        raise ConfigError(
            f"--budget must be a time above 0: hours, minutes or seconds such as 2h, 90m, 30s or 30; found {text!r}."
        )
    return seconds


def in_words(seconds: float) -> str:
    """Three digits in the largest unit that gives at least one of it: 5400 -> "1.5 h"."""
    unit = next((name for name, size in SECONDS.items() if seconds >= size), "s")
    return f"{float(f'{seconds / SECONDS[unit]:.3g}'):g} {unit}"
