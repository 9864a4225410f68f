"""How training and test rows differ: the content of folds/shift.json."""

from typing import Any

from pydantic import ValidationError

from core.errors import DataError
from core.files import digest, read_json, table_digest, write_json
from core.paths import Paths
from core.settings import StrictModel
from core.user_code import Opened

MIN_SHIFT_AUC = 0.6
"""AUC from which train and test are reported as different."""
SIGMAS = 1.96
"""Standard errors of an interval of 95 %."""


class Shift(StrictModel):
    """How a classifier distinguishes training and test rows.

    Attributes:
        auc: of all rows, each predicted by a model that has not seen its input.
        standard_error: of the AUC. Source: Hanley and McNeil, Radiology 1982.
        features: those that it uses most, with their share of the `gain` and their mean in each table.
        like_test: ids of `rows_like_test`; none if the shift is not clear, or not all training rows were
            used.
    """

    auc: float
    standard_error: float
    features: list[dict[str, Any]]
    like_test: list[str] = []

    @property
    def is_clear(self) -> bool:
        """Whether the tables differ: the lower end of the AUC's interval is above MIN_SHIFT_AUC."""
        return self.auc - SIGMAS * self.standard_error > MIN_SHIFT_AUC

    @property
    def strength(self) -> float:
        """How well the classifier distinguishes the tables: 0 not at all, 1 without an error."""
        return max(0.0, 2 * self.auc - 1)

    def first_features(self, n: int) -> str:
        """Return the names of the features that the classifier uses most."""
        return ", ".join(feature["feature"] for feature in self.features[:n])


class ErrorRatio(StrictModel):
    """The error of a stage on the rows of `Shift.like_test`, over its error in ordinary folds.

    These rows are held out together.

    Attributes:
        stage: "" if no stage was fast enough.
        ratio: None without a stage, or if one of the errors is not a positive number.
        standard_error: of the ratio; None if it is unknown.
        seconds: without a stage, the limit that the folds of every stage exceeded.
        made_from: digest of the metric of both errors and of the jobs of the stage.
        opened: what a user's metric opened.
    """

    stage: str = ""
    ratio: float | None = None
    standard_error: float | None  # required: files of older versions do not have it, and are measured again
    seconds: float = 0.0
    made_from: str = ""
    opened: Opened = {}

    @property
    def factor(self) -> float | None:
        """The ratio, but 1 where it is below 1 by no more than its standard error, which may be chance."""
        if self.ratio is None or self.ratio >= 1:
            return self.ratio
        is_clear = self.standard_error is not None and self.ratio + self.standard_error < 1
        return self.ratio if is_clear else 1.0


class Comparison(StrictModel):
    """What folds/shift.json has about the tables of a competition.

    Attributes:
        made_from: digests of the tables and folds.
        wasserstein_distances: of the test rows to the held-out rows of each kind of folds, by measure of
            similarity.
        adversarial_validation: None if the tables have too few rows, or no features.
        recommended: `kind` of folds and `reason`; None if no other kinds were compared.
        error_ratio: None if it was not measured.
    """

    made_from: dict[str, str]
    wasserstein_distances: list[dict[str, Any]]
    adversarial_validation: Shift | None
    recommended: dict[str, str] | None
    error_ratio: ErrorRatio | None

    @property
    def digest_of_shift(self) -> str | None:
        """Digest of what the expected score of a submission depends on; None if the tables could not be compared."""
        if self.adversarial_validation is None:
            return None
        return digest(self.model_dump(include={"adversarial_validation", "error_ratio"}))


def read_comparison(paths: Paths) -> Comparison | None:
    """Return the comparison of the present tables and folds.

    None without one, or if another version of the project wrote it.
    """
    try:
        comparison = Comparison.model_validate(read_json(paths.shift))
    except (DataError, ValidationError):
        return None
    return comparison if comparison.made_from == made_from(paths) else None


def write_comparison(paths: Paths, comparison: Comparison) -> None:
    """Write a comparison to folds/shift.json."""
    write_json(paths.shift, comparison.model_dump())


def made_from(paths: Paths) -> dict[str, str]:
    """Return the digests of the tables and folds that are compared."""
    return {path.name: table_digest(path) for path in (paths.train, paths.test, paths.folds)}
