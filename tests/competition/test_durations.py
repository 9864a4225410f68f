"""Times as a person writes them."""

from __future__ import annotations

import pytest

from competition.durations import in_words, seconds_of
from competition.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("30s", 30), ("45", 45), ("1.5h", 5400), (" 0.5 ", 0.5)]
)
def test_hours_minutes_and_seconds_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2d", "-1", "0", "0h", "two hours", "1e3", "nan", "2h30", "9" * 400, "²h"])
def test_anything_else_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 2h, 90m, 30s or 30; found") as error:
        seconds_of(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (7200, "2 h"),
        (5400, "1.5 h"),
        (3599, "60 min"),
        (90, "1.5 min"),
        (59.96, "60 s"),
        (0.5, "0.5 s"),
        (4e6, "1110 h"),
    ],
)
def test_seconds_are_said_in_their_largest_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
