"""Columns that may change places, as `./run.sh new` guesses them: two candidates, or two molecules of one role."""

import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from folds.units import MIN_COMMON
from pipeline.new.column_roles import Role
from pipeline.new.detect import DetectedTables
from pipeline.new.problem_type import ProblemGuess

TIE = re.compile(r"(?<![a-z])(tied?|draw|same|equal|both|neither)(?![a-z])", re.IGNORECASE)
"""Word in the name of a label for no winner."""
WINNER = re.compile(
    r"(?<![a-z])(win|wins|winner|prefer|preferred|preference|better|best|chosen|choice)(?![a-z])",
    re.IGNORECASE,
)
"""Word in the name of a target that says which candidate is better."""
MIN_MOLECULES = 5
"""Number of molecules that two columns must have in common."""
N_ERRORS = 2.0
"""Standard errors by which the labels of a molecule in one column must be like those of it in the other one."""
ROLES: tuple[Role, ...] = ("smiles", "text", "numeric", "categorical")


class SwapGuess(NamedTuple):
    """`competition.swap`, and why."""

    setting: dict[str, Any]
    reason: str


def find_swap(tables: DetectedTables, problem: ProblemGuess) -> SwapGuess | None:
    """Return what may change places, or None. Columns are named alike, but for a and b, or 1 and 2."""
    columns = [pair for role in ROLES for pair in numbered_pairs(tables.with_roles(role))]
    if not columns:
        return None
    winners = _winners(tables, problem)
    if winners:
        reason = (
            f"GUESS: either {' or '.join(winners)} wins, in whichever order they come; rows are trained on in both "
            "orders, and predictions are their mean"
        )
        return SwapGuess({"columns": columns, "labels": winners}, reason)
    molecules = [pair for pair in columns if {*pair} <= {*tables.with_roles("smiles")}]
    if not molecules or not all(_are_of_one_role(tables, problem, pair) for pair in molecules):
        return None
    reason = (
        "GUESS: both columns have the same molecules, with like labels in either; rows are trained on in both orders, "
        "and predictions are their mean"
    )
    return SwapGuess({"columns": columns}, reason)


def _winners(tables: DetectedTables, problem: ProblemGuess) -> list[str]:
    """Return the labels of two candidates of which one wins; an empty list without them.

    They end in a and b, or 1 and 2; all other labels are ties, and a tie or the name of the target tells that one wins.
    """
    labels = tables.targets if problem.type == "multilabel" else problem.classes
    winners = numbered_pairs(labels)
    if len(winners) != 1:
        return []
    ties = [name for name in labels if name not in winners[0]]
    is_telling = bool(ties) or WINNER.search(" ".join([*tables.targets, *labels]))
    return winners[0] if is_telling and all(map(TIE.search, ties)) else []


def _are_of_one_role(tables: DetectedTables, problem: ProblemGuess, pair: list[str]) -> bool:
    """Return whether two columns have molecules in common, and a molecule's labels do not depend on its column.

    In a difference of two molecules its mean label in one column is the opposite of that in the other one. In a column
    of solvents a molecule says nothing about its labels as a solute.
    """
    labels = tables.train[tables.targets]
    if problem.type == "regression":
        numbers = labels.apply(pd.to_numeric, errors="coerce")
    else:
        numbers = pd.get_dummies(labels, dtype=float)
    numbers = numbers - numbers.mean()
    numbers = numbers / numbers.std()
    first, second = (numbers.groupby(tables.train[name]).mean() for name in pair)
    common = first.index.intersection(second.index)
    if len(common) < max(MIN_MOLECULES, MIN_COMMON * min(len(first), len(second))):
        return False
    products = (first.loc[common] * second.loc[common]).mean(axis=1).dropna()
    return bool(products.mean() > N_ERRORS * products.std() / np.sqrt(len(products)))


def numbered_pairs(names: Sequence[str]) -> list[list[str]]:
    """Return the names that differ in 1 and 2, or a and b, at the end of a word, two each."""
    pairs = []
    for first, second in combinations(sorted(names), 2):
        differing = [
            place for place, letters in enumerate(zip(first, second, strict=False)) if len({*letters}) > 1
        ]
        if len(first) != len(second) or len(differing) != 1:
            continue
        (place,) = differing
        marks = first[place] + second[place]
        is_last_of_word = not first[place + 1 : place + 2].isalnum()
        if marks.lower() in ("12", "ab") and is_last_of_word:
            pairs.append([first, second])
    return pairs
