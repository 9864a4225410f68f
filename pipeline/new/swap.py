"""Two candidates and a winner, as `./run.sh new` guesses them from the names of columns and labels."""

import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from pipeline.new.detect import DetectedTables
from pipeline.new.pairs import NUMBERED
from pipeline.new.problem_type import ProblemGuess

TIE = re.compile(r"(?<![a-z])(tied?|draw|same|equal|both|neither)(?![a-z])", re.IGNORECASE)
"""Word in the name of a label for no winner."""
WINNER = re.compile(
    r"(?<![a-z])(win|wins|winner|prefer|preferred|preference|better|best|chosen|choice)(?![a-z])",
    re.IGNORECASE,
)
"""Word in the name of a target that says which candidate is better."""


class SwapGuess(NamedTuple):
    """`competition.swap`, and why."""

    setting: dict[str, Any]
    reason: str


def find_swap(tables: DetectedTables, problem: ProblemGuess) -> SwapGuess | None:
    """Return the columns and the labels of two candidates, or None.

    They end in a and b, or 1 and 2; all other labels are ties, and a tie or the name of the target tells that one wins.
    """
    labels = tables.targets if problem.type == "multilabel" else problem.classes
    winners = numbered_pairs(labels)
    columns = [
        pair
        for role in ("smiles", "text", "numeric", "categorical")
        for pair in numbered_pairs(tables.with_roles(role))
    ]
    if len(winners) != 1 or not columns:
        return None
    ties = [name for name in labels if name not in winners[0]]
    is_telling = bool(ties) or WINNER.search(" ".join([*tables.targets, *labels]))
    if not is_telling or not all(map(TIE.search, ties)):
        return None
    reason = (
        f"GUESS: either {' or '.join(winners[0])} wins, in whichever order they come; rows are trained on in both "
        "orders, and predictions are their mean"
    )
    return SwapGuess({"columns": columns, "labels": winners[0]}, reason)


def numbered_pairs(names: Sequence[str]) -> list[list[str]]:
    """Return the names that differ in 1 and 2, or a and b, at their end, two each."""
    pairs = []
    for both in combinations(sorted(names), 2):
        matches = [NUMBERED.fullmatch(name) for name in both]
        if not all(matches):
            continue
        stems, ends = zip(*(match.groups() for match in matches if match), strict=True)
        if stems[0] == stems[1] and "".join(ends).lower() in ("12", "ab"):
            pairs.append([*both])
    return pairs
