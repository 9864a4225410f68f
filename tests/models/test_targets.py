"""Transforms of targets: fitted on training rows, inverted on predictions, whatever the stage."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from competition.errors import DataError
from competition.tables import Rows
from models.settings import Stage
from models.stages.targets import Transformed

KINDS = [kind for kind in get_args(Stage.model_fields["target_transform"].annotation) if kind != "none"]


class Recorder:
    """Remembers the labels it was given and predicts those of the row whose id comes first."""

    spread: NDArray[np.float64] | None = None

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        self.train, self.valid = train, valid

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        assert self.train.y is not None
        return self.train.y[[self.train.ids.index(i) for i in rows.ids]]


def rows(n: int = 30) -> Rows:
    rng = np.random.default_rng(0)
    y = np.column_stack([np.exp(rng.normal(size=n)), 1000 + 50 * rng.normal(size=n)])
    y[3, 0] = np.nan
    return Rows([f"r{i}" for i in range(n)], pd.DataFrame({"x": range(n)}), y)


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_through_and_back_is_what_it_was(kind: str, tmp_path: Path) -> None:
    train, inner = rows(), Recorder()
    stage = Transformed(inner, kind)
    stage.fit(train, train.take(np.arange(5)), tmp_path)
    assert train.y is not None and inner.train.y is not None and inner.valid is not None and inner.valid.y is not None
    assert np.isnan(inner.train.y[3, 0])
    assert np.allclose(inner.valid.y, inner.train.y[:5], equal_nan=True)
    known = np.flatnonzero(~np.isnan(train.y[:, 0]))
    assert not np.allclose(inner.train.y[known], train.y[known])
    fresh = Transformed(inner, kind)  # what counts is in the folder
    assert np.allclose(fresh.predict(train.take(known), tmp_path), train.y[known], rtol=1e-4)


def test_a_standard_transform_is_computed_from_the_training_rows(tmp_path: Path) -> None:
    train, inner = rows(), Recorder()
    Transformed(inner, "standard").fit(train, None, tmp_path)
    assert train.y is not None and inner.train.y is not None
    expected = (train.y - np.nanmean(train.y, axis=0)) / np.nanstd(train.y, axis=0)
    assert np.allclose(inner.train.y, expected, equal_nan=True)


def test_the_spread_is_in_the_targets_units(tmp_path: Path) -> None:
    train, inner = rows(), Recorder()
    stage = Transformed(inner, "standard")
    stage.fit(train, None, tmp_path)
    inner.spread = np.ones((2, 2))
    stage.predict(train.take(np.arange(2)), tmp_path)
    assert train.y is not None
    assert stage.spread is not None
    assert np.allclose(stage.spread, np.nanstd(train.y, axis=0))


def test_log1p_of_a_target_below_minus_one_is_a_data_error(tmp_path: Path) -> None:
    train = rows()
    assert train.y is not None
    train.y[0, 0] = -2
    with pytest.raises(DataError, match="smallest is -2"):
        Transformed(Recorder(), "log1p").fit(train, None, tmp_path)
