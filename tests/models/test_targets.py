"""Transforms of targets: fitted on training rows, inverted on predictions, whatever the stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from competition.errors import DataError
from competition.tables import Rows
from models.settings import Stage
from models.stages.targets import Transformed
from tests.models.made import rows

KINDS = [kind for kind in get_args(Stage.model_fields["target_transform"].annotation) if kind != "none"]


class Recorder:
    """Remembers the labels it was given and predicts those of the row of the same id."""

    spread: Any = None

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        self.train, self.valid = train, valid

    def predict(self, rows: Rows, folder: Path) -> Any:
        return self.train.y[[self.train.ids.index(i) for i in rows.ids]]  # type: ignore[index]


def labelled(first: float = 1.0) -> Rows:
    rng = np.random.default_rng(0)
    y = np.column_stack([np.exp(rng.normal(size=30)), 1000 + 50 * rng.normal(size=30)])
    y[0, 0], y[3, 0] = first, np.nan
    return rows(y, x=range(30))


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_through_and_back_is_what_it_was(kind: str, tmp_path: Path) -> None:
    train, inner = labelled(), Recorder()
    Transformed(inner, kind).fit(train, train.take(np.arange(5)), tmp_path)
    assert np.allclose(inner.valid.y, inner.train.y[:5], equal_nan=True)
    assert not np.allclose(inner.train.y, train.y, equal_nan=True)
    fresh = Transformed(inner, kind)  # what counts is in the folder
    assert np.allclose(fresh.predict(train, tmp_path), train.y, rtol=1e-4, equal_nan=True)


def test_a_standard_transform_is_that_of_the_training_rows_and_the_spread_is_in_the_targets_units(
    tmp_path: Path,
) -> None:
    train, inner = labelled(), Recorder()
    stage = Transformed(inner, "standard")
    stage.fit(train, replace(train, y=train.y * 100), tmp_path)  # held-out labels are transformed and not learned from
    expected = (train.y - np.nanmean(train.y, axis=0)) / np.nanstd(train.y, axis=0)
    assert np.allclose(inner.train.y, expected, equal_nan=True)
    inner.spread = np.ones((2, 2))
    stage.predict(train.take(np.arange(2)), tmp_path)
    assert np.allclose(stage.spread, np.nanstd(train.y, axis=0))
    with pytest.raises(DataError, match="smallest is -2"):
        Transformed(Recorder(), "log1p").fit(labelled(-2), None, tmp_path)
