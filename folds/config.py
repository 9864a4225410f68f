"""The `folds:` section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from competition.config import StrictModel


class FoldsConfig(StrictModel):
    """How the training rows are divided. Rows with the same whole input always share a fold."""

    kind: Literal["kfold", "stratified", "group", "scaffold"] = "kfold"
    """kfold: at random. stratified: like values of the targets in every fold. group: rows of one
    `competition.group` together. scaffold: molecules of one Murcko scaffold together."""
    n_folds: int = Field(default=5, ge=2)
    """Number of folds; each is held out once."""
    acyclic_alone: bool = True
    """scaffold: molecules without a ring are groups of their own; false puts them all in one group."""
    n_bins: int = Field(default=10, ge=2)
    """stratified: number of bins of the targets."""
