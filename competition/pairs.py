"""Pairs of text columns that are compared (`competition.pairs`), and what their texts have in common as numbers."""

import re
from collections.abc import Iterator, Set
from functools import lru_cache
from math import nan
from typing import Annotated

import pandas as pd
from pydantic import Field

from competition.dataset import FEATURE
from core.settings import UniqueList
from core.words import MARKS

Pair = Annotated[list[str], Field(min_length=2, max_length=2), UniqueList]
"""Two columns."""
CHINESE_OR_JAPANESE = r"\u3040-\u30ff\u3400-\u9fff"
WORD = re.compile(rf"[{CHINESE_OR_JAPANESE}]|(?:(?![{CHINESE_OR_JAPANESE}])[\w{MARKS}])+")
"""A word without punctuation, or one Chinese or Japanese character."""
NUMBER = re.compile(r"\d+(?:\.\d+)?")
NAMES = (
    "common words", "common words of the shorter", "common trigrams", "common trigrams of the shorter",
    "common numbers", "difference in words", "ratio of lengths", "equal",
)  # fmt: skip
"""Names of the numbers of `compare_texts`."""


def pair_errors(pairs: list[list[str]], texts: list[str]) -> Iterator[str]:
    """Yield an error for each pair with a column that is not a text column of the competition."""
    for pair in pairs:
        if not {*pair} <= {*texts}:
            yield f"pairs: {pair} are not two columns of text; correct their names, or add them to text"


def with_pair_features(table: pd.DataFrame, pairs: list[list[str]]) -> pd.DataFrame:
    """Return a prepared table with columns of what the texts of each pair have in common, which all stages read."""
    blocks = [table]
    for first, second in pairs:
        numbers = [compare_texts(*texts) for texts in zip(table[first], table[second], strict=True)]
        blocks.append(
            pd.DataFrame(numbers, columns=feature_names(first, second), index=table.index, dtype=float)
        )
    return pd.concat(blocks, axis=1)


def feature_names(first: str, second: str) -> list[str]:
    """Return the columns of a prepared table with what the texts of a pair have in common."""
    return [f"{FEATURE}{first} and {second}: {name}" for name in NAMES]


def compare_texts(first: str, second: str) -> tuple[float, ...]:
    """Return the numbers of `NAMES` for two texts; the other order changes the sign of the difference in words only.

    The case of letters and repeated spaces are ignored. A share is NaN if it is one of nothing: of all words if neither
    text has one, of the shorter text if it has none.
    """
    first, second = " ".join(first.lower().split()), " ".join(second.lower().split())
    words, other_words = WORD.findall(first), WORD.findall(second)
    shorter, longer = sorted((len(first), len(second)))
    return (
        *common_shares({*words}, {*other_words}),
        *common_shares(_trigrams(first), _trigrams(second)),
        common_shares({*NUMBER.findall(first)}, {*NUMBER.findall(second)})[0],
        len(words) - len(other_words),
        (shorter + 1) / (longer + 1),
        first == second,
    )


def common_shares(first: Set[str], second: Set[str]) -> tuple[float, float]:
    """Return the number of common elements as a share of all elements (Jaccard index), and of the smaller set."""
    n_common = len(first & second)
    n_all = len(first | second)
    n_smaller = min(len(first), len(second))
    return n_common / n_all if n_all else nan, n_common / n_smaller if n_smaller else nan


@lru_cache(maxsize=1000)  # several rows may have the same context or question
def _trigrams(text: str) -> frozenset[str]:
    """Return all three characters in a row of a text, with its first and its last ones, which follow a space."""
    padded = f" {text} "
    return frozenset(padded[start : start + 3] for start in range(len(padded) - 2))
