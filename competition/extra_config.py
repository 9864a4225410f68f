"""Settings of one table of `competition.extra_train`."""

from typing import Literal

from pydantic import Field

from core.settings import StrictModel, UserPath


class ExtraTrain(StrictModel):
    """A table of more training rows."""

    file: UserPath
    """CSV with the competition's input columns and some or all of its targets or `auxiliary_targets`; ids are not
    needed. The columns of `group` and `time`, if it has them, keep related and later rows out of a fold's training
    rows.
    """
    columns: dict[str, str] = {}
    """Column of the competition -> its name in this file, if they differ."""
    calibrate: Literal["none", "affine", "isotonic"] = "none"
    """Map of its labels to the competition's, for regression. Each job fits it on the inputs that are also in its
    own training rows. affine: a line. isotonic: a monotonic map, constant beyond the shared labels. A job with too
    few such inputs, or with mostly constant labels of them, does not use the table.
    """
    weight: float = Field(default=1.0, gt=0, le=1)
    """Weight of its rows in training."""
    check_units: bool = True
    """Whether to raise an error if its labels seem to be in other units than the competition's. With `calibrate`
    only the labels of `auxiliary_targets` are checked.
    """
