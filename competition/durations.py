"""Durations as text: `--budget 90m`, "1.5 h"."""

import re

from competition.errors import ConfigError

BAR = "{desc} {percentage:3.0f}% |{bar:40}| {elapsed} passed, {remaining} left"
"""Format of the progress bars of tqdm."""
SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0}
"""Unit -> seconds, the largest first."""


def parse_duration(text: str) -> float:
    """Return the seconds of a time above 0 such as `2h`, `90m`, `30s` or `30`."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([hms]?)", text.strip())
    seconds = float(match[1]) * {"h": 3600, "m": 60}.get(match[2], 1) if match else 0.0
    if seconds <= 0:
        raise ConfigError(f"a time is a number above 0 such as 2h, 90m, 30s or 30; got {text!r}.")
    return seconds


def format_duration(seconds: float) -> str:
    """Return three digits in the largest unit that is at most the duration: 5400 -> "1.5 h"."""
    unit = next((name for name, size in SECONDS.items() if seconds >= size), "s")
    return f"{float(f'{seconds / SECONDS[unit]:.3g}'):g} {unit}"
