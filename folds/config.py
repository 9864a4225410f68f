"""The `folds:` section."""

from typing import Literal, Self

from pydantic import Field, model_validator

from competition.config import StrictModel, UserPath

Kind = Literal[
    "kfold", "stratified", "group", "stratified_group", "scaffold", "cluster", "time", "column", "file"
]


class FoldsConfig(StrictModel):
    """How the training rows are divided. Rows with the same whole input always share a fold."""

    kind: Kind = "kfold"
    """kfold: at random. stratified: like values of the targets in every fold. group: rows of one
    `competition.group` together; stratified_group: and like values of the targets in every fold. scaffold:
    molecules of one Murcko scaffold
    together, each without a ring by itself. cluster: similar molecules together. time: blocks in the order of
    `competition.time`; the first trains in every fold, and each fold trains on earlier blocks alone. column:
    `competition.fold_column`. file: `file`. Of classes, all but kfold, time, column and file have like shares
    in every fold.
    """
    n_folds: int = Field(default=5, ge=2)
    """Number of folds; each is held out once. column and file bring their own number."""
    similarity: float = Field(default=0.4, gt=0, lt=1)
    """cluster: least Tanimoto similarity of a molecule to its cluster's centre; higher makes more and smaller
    ones.
    """
    file: UserPath | None = None
    """file: CSV with `id,fold` of every training row: 0 to n-1, or -1 for a row that trains in every fold."""
    equal_inputs_may_cross: bool = False
    """column, file: whether rows with the same whole input may be in different folds; they are counted then,
    and else an error.
    """

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "file") != (self.file is not None):
            raise ValueError("kind: file and the setting file must be given together")
        return self
