"""Settings of one table of `competition.extra_train`."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from competition.strict_model import StrictModel, UserPath


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
    """Map of its labels to the competition's, for regression. Each fold fits it on the inputs that are also in its
    own training rows. affine: a line. isotonic: a monotonic map, constant beyond the shared labels. A source with
    too few such inputs, or with mostly constant labels of them, is not used in that fold.
    """
    weight: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = 1.0
    """Weight of its rows in training. auto, for regression: by the differences that remain on shared inputs."""
    max_residual: PositiveFloat | None = None
    """For regression: number of standard deviations by which a label may differ from the competition's label of
    the same input, or else from the prediction of a LightGBM model of the fold; others are left out. 3 is usual.
    null: none is left out.
    """
    check_units: bool = True
    """Whether to raise an error if its labels seem to be in other units than the competition's. With `calibrate`
    only the labels of `auxiliary_targets` are checked.
    """

    @property
    def needs_shared_inputs(self) -> bool:
        """Whether a setting needs inputs that are also in the training table."""
        return self.calibrate != "none" or self.weight == "auto"

    @property
    def is_judged(self) -> bool:
        """Whether each fold has its own labels or weights for its rows."""
        return self.needs_shared_inputs or self.max_residual is not None
