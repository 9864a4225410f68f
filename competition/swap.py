"""Columns that may change places (`competition.swap`): candidates and their labels, or several of one role."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from competition.task import ClassName, Task
from core.settings import StrictModel, UniqueList
from core.types import Array, Integers


class Swap(StrictModel):
    """What may change places, such as two candidates, `{columns: [[response_a, response_b]], labels: [a, b]}`, the
    options of a question, `{columns: [[option_1, option_2, option_3]], labels: ["1", "2", "3"]}`, or two drugs,
    `{columns: [[drug_a, drug_b], [dose_a, dose_b]]}`.
    """

    columns: list[Annotated[list[str], Field(min_length=2), UniqueList]] = Field(min_length=1)
    """Lists of input columns, that of the first one, of the second one and so on, all of equal length."""
    labels: Annotated[list[ClassName], UniqueList] | None = None
    """The class of each candidate, or its target of several ones; others, such as ties, stay the same. Unset: the
    labels do not depend on the order.
    """

    @property
    def n_orders(self) -> int:
        """Number of orders in which rows are read: each is the one before with all columns a place further."""
        return len(self.columns[0])

    def errors(
        self, roles: Sequence[list[str]], task: Task, has_features: bool, has_auxiliary: bool
    ) -> Iterator[str]:
        """Yield an error for columns that cannot change places, and for labels that do not exist.

        Args:
            roles: input columns of each role.
            has_features: whether stages read features of the user.
            has_auxiliary: whether there are auxiliary targets.
        """
        if has_features:
            yield "swap: features are not known in the other order; remove them, or swap"
        for series in self.columns:
            if not any({*series} <= {*columns} for columns in roles):
                yield f"swap.columns: {series} are not input columns of one role; correct their names"
            if len(series) != self.n_orders:
                yield f"swap.columns: {series} must be {self.n_orders} columns, like {self.columns[0]}"
        names = [*chain(*self.columns)]
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                yield f"swap.columns: {name!r} is in several lists; leave it in one"
        if self.labels is None:
            return
        if has_auxiliary:
            yield "swap.labels: auxiliary_targets are not known in the other order; remove them, or swap"
        if not task.has_probabilities:
            yield f"swap.labels requires classes, and problem_type is {task.problem_type}; remove it"
        elif len(self.labels) != self.n_orders or not {*self.labels} <= {*labels_of(task)}:
            yield f"swap.labels: {self.labels} must be {self.n_orders} of {', '.join(labels_of(task))}"

    def in_place_of(self, columns: Iterable[str], turn: int) -> tuple[str, ...]:
        """Return the columns that take the place of some columns, which those without others do themselves.

        Args:
            turn: number of places by which columns move to the front; the first ones follow the last one.
        """
        others = _others(self.columns, turn)
        return tuple(others.get(name, name) for name in columns)

    def inputs(self, table: pd.DataFrame, turn: int) -> pd.DataFrame:
        """Return a table in which columns have moved by a turn."""
        return table[[*self.in_place_of(map(str, table), turn)]].set_axis(table.columns, axis=1)

    def y(self, y: Array, task: Task, turn: int) -> Array:
        """Return labels (n_rows, n_targets) of rows after a turn."""
        if self.labels is None:
            return y
        if task.problem_type == "multilabel":
            return y[:, _order(task, self.labels, turn)]
        order = _order(task, self.labels, -turn)  # the second class is the first one after a turn by 1
        is_missing = np.isnan(y)
        return np.where(is_missing, np.nan, order[np.where(is_missing, 0, y).astype(np.int64)])

    def y_pred(self, y_pred: Array, task: Task, turn: int) -> Array:
        """Return predictions (n_rows, n_outputs) for rows after a turn, turned back to the order of the table."""
        if self.labels is None or turn == 0:
            return y_pred
        return 1 - y_pred if task.problem_type == "binary" else y_pred[:, _order(task, self.labels, -turn)]

    def sorted_cells(self, row: dict[Hashable, str]) -> list[str]:
        """Return the cells of a row, last the candidates in a sorted order, which have no order of their own."""
        cells = dict(row)
        candidates = sorted([cells.pop(name) for name in names] for names in zip(*self.columns, strict=True))
        return [*cells.values(), *chain(*candidates)]


def in_all_orders(columns: tuple[str, ...], swap: Swap | None) -> list[tuple[str, ...]]:
    """Return some columns, and those that take their place (`competition.swap`)."""
    if swap is None:
        return [columns]
    return list(dict.fromkeys(swap.in_place_of(columns, turn) for turn in range(swap.n_orders)))


def labels_of(task: Task) -> list[str]:
    """Return the classes of the only target, or several targets."""
    return task.targets if task.problem_type == "multilabel" else task.classes


def _others(lists: list[list[str]], turn: int) -> dict[str, str]:
    """Return which name takes the place of each one of some lists after a turn."""
    return {name: names[(place + turn) % len(names)] for names in lists for place, name in enumerate(names)}


def _order(task: Task, labels: list[str], turn: int) -> Integers:
    """Return the positions of classes, or of several targets, after the labels have moved by a turn."""
    names = labels_of(task)
    others = _others([labels], turn)
    return np.array([names.index(others.get(name, name)) for name in names])
