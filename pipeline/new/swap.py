"""Columns that may change places, as `./run.sh new` guesses them: candidates, or molecules of one role."""

import re
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from core.errors import join_first
from folds.units import MIN_COMMON
from pipeline.new.column_roles import Role
from pipeline.new.detect import DetectedTables
from pipeline.new.problem_type import ProblemGuess
from pipeline.new.series import numbered_series, options_of

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
    """Return what may change places, or None. Columns are named alike, but for a, b, ..., or 1, 2, ..."""
    columns = [series for role in ROLES for series in numbered_series(tables.with_roles(role))]
    winners = _winners(tables, problem)
    are_columns = bool(winners) and {*winners} <= {*tables.with_roles("smiles", "text")}
    if are_columns and winners not in columns:
        columns.append([*winners])  # YAML would write an alias of one list
    molecules = numbered_series(tables.with_roles("smiles"))
    pairs = [pair for series in molecules for pair in combinations(series, 2)]
    if len(winners) in map(len, columns):
        n_orders, labels = len(winners), {"labels": winners}
        reason = f"either {' or '.join(winners)} wins, in whichever order they come"
    elif pairs and all(_are_of_one_role(tables, problem, pair) for pair in pairs):
        n_orders, labels = len(molecules[0]), {}
        numbers = tables.with_roles("numeric")
        fixed = [series for series in numbered_series(numbers) if _differ_in_effect(tables, problem, series)]
        columns = [series for series in columns if series not in fixed]
        others = [name for name in numbers if not any(name in series for series in columns)]
        if any(_depends_on_order(tables, problem, pair, name) for pair in pairs for name in others):
            return None
        reason = "the columns have the same molecules, with similar labels in each"
        if fixed:
            reason += (
                f"; {join_first(sum(fixed, []))} stay in place, since the labels depend on which is which"
            )
    else:
        return None
    setting = {"columns": [series for series in columns if len(series) == n_orders], **labels}
    reason = f"GUESS: {reason}; rows are trained on in {n_orders} orders, and predictions are their mean"
    return SwapGuess(setting, reason)


def _winners(tables: DetectedTables, problem: ProblemGuess) -> list[str]:
    """Return the labels of candidates of which one wins; an empty list without them.

    They are names of columns, or end in a, b, ..., or 0 or 1, 2, ...; all other labels are ties. A tie, the name of the
    target or columns of options tell that one wins.
    """
    labels = tables.targets if problem.type == "multilabel" else problem.classes
    named = [name for name in labels if name in tables.with_roles("smiles", "text")]
    series = [sorted(named)] if len(named) > 1 else numbered_series(labels)
    if problem.type == "ordinal" or len(series) != 1:
        return []
    (winners,) = series
    ties = [name for name in labels if name not in winners]
    names = " ".join([*tables.targets, *labels])
    is_telling = ties or WINNER.search(names) or options_of(winners, tables)
    return winners if is_telling and all(map(TIE.search, ties)) else []


def _standardised_labels(tables: DetectedTables, problem: ProblemGuess) -> pd.DataFrame:
    """Return the labels, or an indicator of each class, with the mean 0 and the standard deviation 1."""
    labels = tables.train[tables.targets]
    if problem.type == "regression":
        numbers = labels.apply(pd.to_numeric, errors="coerce")
    else:
        numbers = pd.get_dummies(labels, dtype=float)
    numbers = numbers - numbers.mean()
    return numbers / numbers.std()


def _depends_on_order(
    tables: DetectedTables, problem: ProblemGuess, pair: tuple[str, str], name: str
) -> bool:
    """Return whether a number belongs to one of two molecules, such as its share in a mixture.

    Then the labels are like those of the first molecule where the number is large.
    """
    labels = _standardised_labels(tables, problem)
    numbers = pd.to_numeric(tables.train[name], errors="coerce")
    first, second = (labels.groupby(tables.train[column]).transform("mean") for column in pair)
    products = (first - second).mul(numbers - numbers.mean(), axis=0) * labels
    of_rows = products.mean(axis=1).dropna()
    return bool(of_rows.mean() > N_ERRORS * of_rows.std() / np.sqrt(len(of_rows)))


def _differ_in_effect(tables: DetectedTables, problem: ProblemGuess, series: list[str]) -> bool:
    """Return whether columns of numbers are not the same thing several times, such as principal components.

    Then the labels depend on the difference of two of them, beside what follows from their sum.
    """
    labels = _standardised_labels(tables, problem)
    numbers = tables.train[series].apply(pd.to_numeric, errors="coerce")
    numbers = (numbers - numbers.mean()).fillna(0)
    for first, second in combinations(series, 2):
        total, difference = numbers[first] + numbers[second], numbers[first] - numbers[second]
        (slope,) = np.linalg.lstsq(total.to_numpy()[:, None], difference)[0]
        products = labels.mul(difference - slope * total, axis=0)
        errors = products.std() / np.sqrt(products.count())
        if ((products.mean() / errors) ** 2).mean() > N_ERRORS**2:
            return True
    return False


def _are_of_one_role(tables: DetectedTables, problem: ProblemGuess, pair: tuple[str, str]) -> bool:
    """Return whether two columns have molecules in common, and a molecule's labels do not depend on its column.

    In a difference of two molecules its mean label in one column is the opposite of that in the other one. In a column
    of solvents a molecule says nothing about its labels as a solute.
    """
    numbers = _standardised_labels(tables, problem)
    first, second = (numbers.groupby(tables.train[name]).mean() for name in pair)
    common = first.index.intersection(second.index)
    if len(common) < max(MIN_MOLECULES, MIN_COMMON * min(len(first), len(second))):
        return False
    products = (first.loc[common] * second.loc[common]).mean(axis=1).dropna()
    return bool(products.mean() > N_ERRORS * products.std() / np.sqrt(len(products)))
