"""Settings of the `folds:` section."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from core.settings import StrictModel, UserPath
from folds.kinds import FOLD_KINDS, FoldKind


def _require_kind(name: str) -> str:
    if name not in FOLD_KINDS:
        raise ValueError(f"must be one of {', '.join(FOLD_KINDS)}")
    return name


class FoldsConfig(StrictModel):
    """How the training rows are split into folds. Rows with equal inputs always share a fold."""

    kind: Annotated[str, AfterValidator(_require_kind)] = "kfold"
    """Name of a kind of folds in `folds/kinds.py`. For classification, all kinds except kfold, time, column and
    file balance the classes.
    """
    n_folds: int = Field(default=5, ge=2)
    """Number of folds; each is held out once. column and file have their own number."""
    similarity: float = Field(default=0.4, gt=0, lt=1)
    """cluster: minimum Tanimoto similarity of a molecule to the centre of its cluster; higher values make more
    and smaller clusters.
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
