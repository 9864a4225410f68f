"""The `folds:` section of a YAML, and the kinds of folds.

To add a kind, write a function from `SplitData` to the fold of each row here, and an entry of `FOLD_KINDS`. Those of
the project are in folds/splitters.py.
"""

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from core.settings import StrictModel, UserPath
from folds.groups import RowKeys, cluster_keys, scaffold_keys
from folds.splitters import (
    FoldFunction,
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
        row_keys: which rows are a group, in addition to rows with equal inputs. A group is in one fold and is not
            divided by splits inside the training rows; extra rows of a held-out group are not trained on.
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
    # The same, with similar targets in every fold.
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


def _require_kind(name: str) -> str:
    if name not in FOLD_KINDS:
        raise ValueError(f"must be one of {', '.join(FOLD_KINDS)}")
    return name


class FoldsConfig(StrictModel):
    """How the training rows are split into folds. Rows with equal inputs always share a fold."""

    kind: Annotated[str, AfterValidator(_require_kind)] = "kfold"
    """Name of a kind of folds in `folds/kinds.py`. For classification, all kinds of the project except kfold,
    time, column and file balance the classes.
    """
    n_folds: int = Field(default=5, ge=2)
    """Number of folds; each is held out once. column and file have their own number."""
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
        """The kind of folds in the registry."""
        return FOLD_KINDS[self.kind]

    @property
    def is_ordered_in_time(self) -> bool:
        """Whether each fold trains on earlier folds only."""
        return self.definition.is_ordered_in_time

    @property
    def is_user_defined(self) -> bool:
        """Whether the user gives the fold of each row."""
        return self.definition.split is None
