"""Two candidates of which one wins (`competition.swap`): their columns and labels in each other's place."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from competition.task import ClassName, Task
from core.settings import StrictModel, UniqueList
from core.types import Array, Integers

Pair = Annotated[list[str], Field(min_length=2, max_length=2), UniqueList]
"""Two columns."""


class Swap(StrictModel):
    """What changes places if two candidates do, such as `{columns: [[response_a, response_b]], labels: [a, b]}`."""

    columns: list[Pair] = Field(min_length=1)
    """Pairs of input columns, that of the first candidate and that of the second one."""
    labels: Annotated[list[ClassName], Field(min_length=2, max_length=2), UniqueList]
    """The class of each candidate, or its target of several ones; others, such as ties, stay the same."""

    def errors(self, roles: Sequence[list[str]], task: Task, has_others: bool) -> Iterator[str]:
        """Yield an error for columns that cannot change places, and for labels that do not exist.

        Args:
            roles: input columns of each role.
            has_others: whether stages read features of the user, or auxiliary targets.
        """
        if has_others:
            yield "swap: features and auxiliary_targets are not known in the other order; remove them, or swap"
        for pair in self.columns:
            if not any({*pair} <= {*columns} for columns in roles):
                yield f"swap.columns: {pair} are not two input columns of one role; correct their names"
        names = [*chain(*self.columns)]
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                yield f"swap.columns: {name!r} is in several pairs; leave it in one"
        if not task.has_probabilities:
            yield f"swap requires classes, and problem_type is {task.problem_type}; remove it"
        elif not {*self.labels} <= {*labels_of(task)}:
            yield f"swap.labels: {self.labels} must be two of {', '.join(labels_of(task))}"

    def in_place_of(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Return the columns that take the place of some columns, which others than the candidates' do themselves."""
        others = {name: other for pair in self.columns for name, other in (pair, pair[::-1])}
        return tuple(others.get(name, name) for name in columns)

    def inputs(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table in which the columns of each pair are in each other's place."""
        return table[[*self.in_place_of(map(str, table))]].set_axis(table.columns, axis=1)

    def y(self, y: Array, task: Task) -> Array:
        """Return labels (n_rows, n_targets) with the labels of the candidates in each other's place."""
        order = self._order(task)
        if task.problem_type == "multilabel":
            return y[:, order]
        is_missing = np.isnan(y)
        return np.where(is_missing, np.nan, order[np.where(is_missing, 0, y).astype(np.int64)])

    def y_pred(self, y_pred: Array, task: Task) -> Array:
        """Return probabilities (n_rows, n_outputs) with those of the candidates in each other's place."""
        return 1 - y_pred if task.problem_type == "binary" else y_pred[:, self._order(task)]

    def _order(self, task: Task) -> Integers:
        """Return the positions of classes, or of several targets, after the labels have changed places."""
        names = labels_of(task)
        others = dict(zip(self.labels, self.labels[::-1], strict=True))
        return np.array([names.index(others.get(name, name)) for name in names])


def in_both_orders(columns: tuple[str, ...], swap: Swap | None) -> list[tuple[str, ...]]:
    """Return some columns, and those that take their place if the candidates do."""
    return [columns] if swap is None else list(dict.fromkeys([columns, swap.in_place_of(columns)]))


def labels_of(task: Task) -> list[str]:
    """Return the classes of the only target, or several targets."""
    return task.targets if task.problem_type == "multilabel" else task.classes
