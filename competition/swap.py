"""Columns that may change places (`competition.swap`): two candidates and their labels, or two of one role."""

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
    """What may change places, such as two candidates, `{columns: [[response_a, response_b]], labels: [a, b]}`, or two
    drugs, `{columns: [[drug_a, drug_b], [dose_a, dose_b]]}`.
    """

    columns: list[Pair] = Field(min_length=1)
    """Pairs of input columns, that of the first one and that of the second one."""
    labels: Annotated[list[ClassName], Field(min_length=2, max_length=2), UniqueList] | None = None
    """The class of each candidate, or its target of several ones; others, such as ties, stay the same. Unset: the
    labels do not depend on the order.
    """

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
        for pair in self.columns:
            if not any({*pair} <= {*columns} for columns in roles):
                yield f"swap.columns: {pair} are not two input columns of one role; correct their names"
        names = [*chain(*self.columns)]
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                yield f"swap.columns: {name!r} is in several pairs; leave it in one"
        if self.labels is None:
            return
        if has_auxiliary:
            yield "swap.labels: auxiliary_targets are not known in the other order; remove them, or swap"
        if not task.has_probabilities:
            yield f"swap.labels requires classes, and problem_type is {task.problem_type}; remove it"
        elif not {*self.labels} <= {*labels_of(task)}:
            yield f"swap.labels: {self.labels} must be two of {', '.join(labels_of(task))}"

    def in_place_of(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Return the columns that take the place of some columns, which those without another one do themselves."""
        others = {name: other for pair in self.columns for name, other in (pair, pair[::-1])}
        return tuple(others.get(name, name) for name in columns)

    def inputs(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table in which the columns of each pair are in each other's place."""
        return table[[*self.in_place_of(map(str, table))]].set_axis(table.columns, axis=1)

    def y(self, y: Array, task: Task) -> Array:
        """Return labels (n_rows, n_targets) with the labels of the candidates in each other's place."""
        if self.labels is None:
            return y
        order = _order(task, self.labels)
        if task.problem_type == "multilabel":
            return y[:, order]
        is_missing = np.isnan(y)
        return np.where(is_missing, np.nan, order[np.where(is_missing, 0, y).astype(np.int64)])

    def y_pred(self, y_pred: Array, task: Task) -> Array:
        """Return predictions (n_rows, n_outputs) with the probabilities of the candidates in each other's place."""
        if self.labels is None:
            return y_pred
        return 1 - y_pred if task.problem_type == "binary" else y_pred[:, _order(task, self.labels)]


def in_both_orders(columns: tuple[str, ...], swap: Swap | None) -> list[tuple[str, ...]]:
    """Return some columns, and those that take their place (`competition.swap`)."""
    return [columns] if swap is None else list(dict.fromkeys([columns, swap.in_place_of(columns)]))


def labels_of(task: Task) -> list[str]:
    """Return the classes of the only target, or several targets."""
    return task.targets if task.problem_type == "multilabel" else task.classes


def _order(task: Task, labels: list[str]) -> Integers:
    """Return the positions of classes, or of several targets, after two labels have changed places."""
    names = labels_of(task)
    others = dict(zip(labels, labels[::-1], strict=True))
    return np.array([names.index(others.get(name, name)) for name in names])
