"""Kinds of folds. To add one, write a function that splits rows and an entry of `FOLD_KINDS`."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from competition.config import CompetitionConfig
from competition.dataset import INPUT_KEY
from folds.molecule_groups import clusters, parent, scaffolds
from folds.splitters import (
    FoldFunction,
    balanced_groups,
    kfold,
    stratified,
    stratified_group,
    time_blocks,
)

RowKeys = Callable[[pd.DataFrame, CompetitionConfig, float, int], pd.Series]
"""Function of prepared rows, the `competition:` section, `folds.similarity` and n_in_folds. It returns a text per
row; rows with equal texts share a fold. The first n_in_folds rows are in folds; the others (extra or test rows)
only get their texts.
"""


@dataclass(frozen=True)
class FoldKind:
    """A kind of folds.

    Attributes:
        split: returns the fold of each row; None if the user gives the folds.
        row_keys: which rows share a fold, in addition to rows with equal inputs.
        needs: setting of the competition without which the kind is impossible.
        is_random: whether rows are assigned at random.
        is_ordered_in_time: whether each fold trains on earlier folds only.
        is_compared: whether `./run.sh folds` compares the kind with the configured one.
    """

    split: FoldFunction | None
    row_keys: RowKeys | None = None
    needs: str = ""
    is_random: bool = False
    is_ordered_in_time: bool = False
    is_compared: bool = False


def group_keys(
    rows: pd.DataFrame, competition: CompetitionConfig, similarity: float, n_in_folds: int
) -> pd.Series:
    """Return a key per `competition.group`; rows without a group have the key of their inputs."""
    groups = rows[competition.group].fillna("").astype(str)
    return ("group " + groups).where(groups != "", rows[INPUT_KEY])


def scaffold_keys(
    rows: pd.DataFrame, competition: CompetitionConfig, similarity: float, n_in_folds: int
) -> pd.Series:
    """Return a key per Murcko scaffold of the first molecule column."""
    return "scaffold " + scaffolds([parent(smiles) for smiles in rows[competition.smiles[0]]])


def cluster_keys(
    rows: pd.DataFrame, competition: CompetitionConfig, similarity: float, n_in_folds: int
) -> pd.Series:
    """Return a key per cluster of similar molecules of the first molecule column."""
    molecules = [parent(smiles) for smiles in rows[competition.smiles[0]]]
    return "cluster " + pd.Series(clusters(molecules, similarity, n_in_folds))


FOLD_KINDS = {
    # Rows at random.
    "kfold": FoldKind(kfold, is_random=True, is_compared=True),
    # Rows at random, with similar targets in every fold.
    "stratified": FoldKind(stratified, is_random=True),
    # Rows of one competition.group together.
    "group": FoldKind(balanced_groups, group_keys, needs="group"),
    # The same, with similar targets in every fold.
    "stratified_group": FoldKind(stratified_group, group_keys, needs="group"),
    # Molecules of one Murcko scaffold together, and each molecule without a ring by itself.
    "scaffold": FoldKind(balanced_groups, scaffold_keys, needs="smiles", is_compared=True),
    # Similar molecules together.
    "cluster": FoldKind(balanced_groups, cluster_keys, needs="smiles", is_compared=True),
    # Blocks in the order of competition.time; each fold trains on earlier blocks only.
    "time": FoldKind(time_blocks, needs="time", is_ordered_in_time=True),
    # Folds given in competition.fold_column.
    "column": FoldKind(None, needs="fold_column"),
    # Folds given in folds.file.
    "file": FoldKind(None),
}
