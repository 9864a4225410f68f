"""The `folds:` section of a YAML, and the kinds of folds.

To add a kind, write a function from `SplitData` to the fold of each row here, and an entry of `FOLD_KINDS`.
The functions of the project are in folds/splitters.py. A user-defined function is in a file next to the
YAML, `kind: mine.py:function`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from core.errors import ConfigError, join_first
from core.settings import StrictModel, UserPath, name_or_code_ref
from core.types import Integers
from core.user_code import MAX_SECONDS, in_order_of, load_user_code, short_ref, time_limit, user_code_errors
from folds.groups import RowKeys, cluster_keys, scaffold_keys
from folds.splitters import (
    FoldFunction,
    SplitData,
    balanced_groups,
    kfold,
    stratified,
    stratified_group,
    time_blocks,
)
from folds.unit_values import group_keys


@dataclass(frozen=True)
class FoldKind:
    """A kind of folds.

    Attributes:
        split: returns the fold of each row; None if the user gives the folds.
        row_keys: which rows are a group, in addition to rows with equal inputs. A group is in one fold and is
            not divided by splits inside the training rows; extra rows of a held-out group are not trained on.
        needs: setting of the competition without which the kind is impossible.
        is_ordered_in_time: whether each fold trains on earlier folds only.
    """

    split: FoldFunction | None
    row_keys: RowKeys | None = None
    needs: str = ""
    is_ordered_in_time: bool = False


FOLD_KINDS = {
    # Rows at random.
    "kfold": FoldKind(kfold),
    # Rows at random, with similar targets in every fold.
    "stratified": FoldKind(stratified),
    # Rows of one competition.group together.
    "group": FoldKind(balanced_groups, group_keys, needs="group"),
    # Rows of one competition.group together, with similar targets in every fold.
    "stratified_group": FoldKind(stratified_group, group_keys, needs="group"),
    # Molecules of one Murcko scaffold together, and each molecule without a ring by itself.
    "scaffold": FoldKind(balanced_groups, scaffold_keys, needs="smiles"),
    # Similar molecules together.
    "cluster": FoldKind(balanced_groups, cluster_keys, needs="smiles"),
    # Blocks in the order of competition.time; each fold trains on earlier blocks only.
    "time": FoldKind(time_blocks, needs="time", is_ordered_in_time=True),
    # Folds given in competition.fold_column.
    "column": FoldKind(None, needs="fold_column"),
    # Folds given in folds.file.
    "file": FoldKind(None),
}


def fold_kind(name: str) -> FoldKind:
    """Return a kind of the registry, or the kind of a user-defined function, `file.py:name`."""
    return FOLD_KINDS[name] if name in FOLD_KINDS else FoldKind(partial(_folds_of_user, name))


def _folds_of_user(code_ref: str, data: SplitData) -> Integers:
    """Return the folds of a user-defined function, (n_rows,): each of 0 to n_folds - 1, and -1."""
    function = load_user_code("folds.kind", code_ref, "split(data)")
    n_rows = len(data.rows)
    with user_code_errors(code_ref, "return the fold of each row"), time_limit(MAX_SECONDS):
        folds = np.asarray(in_order_of(function(data), data.rows.index), dtype=np.float64)
    numbers = np.unique(folds).tolist()
    needed = set(range(data.n_folds))
    if folds.shape != (n_rows,) or not needed <= {*numbers} <= needed | {-1}:
        raise ConfigError(
            f"folds.kind {short_ref(code_ref)} must return one fold for each of {n_rows} rows: "
            f"0 to {data.n_folds - 1} (folds.n_folds), each at least once, "
            "or -1 for a row that trains in every fold; "
            f"got {join_first(numbers, '{:g}'.format)} in shape {folds.shape}."
        )
    return folds.astype(np.int64)


class FoldsConfig(StrictModel):
    """How the training rows are split into folds. Rows with equal inputs always share a fold."""

    kind: Annotated[str, name_or_code_ref(FOLD_KINDS)] = "kfold"
    """kfold, stratified, group, stratified_group, scaffold, cluster, time, column or file (docs/folds.md). For
    classification, all of them except kfold, time, column and file balance the classes. `file.py:name`: a
    user-defined function from `SplitData` (`folds/splitters.py`) to the fold of each row; rows with equal inputs
    (`data.groups`) must share a fold.
    """
    n_folds: int = Field(default=5, ge=2)
    """Number of folds; each is held out once. The kinds column and file ignore it."""
    similarity: float = Field(default=0.4, gt=0, lt=1)
    """cluster: minimum Tanimoto similarity of a molecule to the centre of its cluster; higher values make
    more and smaller clusters.
    """
    file: UserPath | None = None
    """file: CSV with `id,fold` of every training row: 0 to n-1, or -1 for a row that trains in every fold."""
    allow_split_duplicates: bool = False
    """column, file: whether rows with equal inputs may be in different folds; they are counted then, and
    otherwise an error.
    """

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if (self.kind == "file") != (self.file is not None):
            raise ValueError("kind: file and the setting file must be given together")
        return self

    @property
    def definition(self) -> FoldKind:
        """What the setting `kind` names."""
        return fold_kind(self.kind)

    @property
    def title(self) -> str:
        """The setting `kind` for messages, without the folder of a file."""
        return short_ref(self.kind)

    @property
    def is_ordered_in_time(self) -> bool:
        """Whether each fold trains on earlier folds only."""
        return self.definition.is_ordered_in_time

    @property
    def takes_folds(self) -> bool:
        """Whether the user gives the fold of each row, or a function that returns it."""
        return self.is_user_defined or self.kind not in FOLD_KINDS

    @property
    def is_user_defined(self) -> bool:
        """Whether the user gives the fold of each row."""
        return self.definition.split is None
