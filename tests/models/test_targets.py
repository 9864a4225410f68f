"""Transforms of targets and ordered grades: learned from training rows, whatever the stage."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from competition.dataset import Dataset
from competition.task import Task
from core.errors import ConfigError, DataError
from models.context import Context
from models.stage import Stage
from models.stages.lightgbm import Lightgbm
from tests.models.made import Bound, context, fitted, rows

KINDS = [kind for kind in get_args(Stage.model_fields["target_transform"].annotation) if kind != "none"]


class Recorder(Stage):
    """Remembers the labels it was given and predicts those of the row of the same id."""

    kind: str = "recorder"
    seen: dict[str, Any] = {}

    @property
    def train(self) -> Any:
        return self.seen["train"]

    def fit(self, train: Dataset, folder: Path, context: Context) -> None:
        self.seen["train"] = train

    def predict(self, rows: Dataset, folder: Path, context: Context) -> Any:
        return self.train.y[[self.train.ids.index(i) for i in rows.ids]]


def wrapped(stage: Recorder, kind: str) -> Bound:
    changed = stage.model_copy(update={"target_transform": kind})
    return Bound(changed, context(Path("unused"), task=Task(["y", "z"])))


def labelled(first: float = 1.0) -> Dataset:
    rng = np.random.default_rng(0)
    y = np.column_stack([np.exp(rng.normal(size=30)), 1000 + 50 * rng.normal(size=30)])
    y[0, 0], y[3, 0] = first, np.nan
    return rows(y, x=range(30))


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_through_and_back_is_what_it_was(kind: str, tmp_path: Path) -> None:
    train, inner = labelled(), Recorder()
    wrapped(inner, kind).fit(train, tmp_path)
    assert not np.allclose(inner.train.y, train.y, equal_nan=True)
    inner.train.y[5] += (
        1e3 if kind in ("power", "quantile") else 0
    )  # beyond the labels there may be no way back
    assert np.isfinite(wrapped(inner, kind).predict(train.take(np.array([5])), tmp_path)).all()
    inner.train.y[5] = inner.train.y[6]
    fresh = wrapped(inner, kind)  # what counts is in the folder
    others = np.delete(np.arange(30), 3)  # the row without a label
    expected = np.vstack([train.y[:5], train.y[[6]], train.y[6:]])[others]
    assert np.allclose(fresh.predict(train.take(others), tmp_path), expected, rtol=1e-4)


def test_a_standard_transform_is_of_the_training_rows(tmp_path: Path) -> None:
    train, inner = labelled(), Recorder()
    wrapped(inner, "standard").fit(train, tmp_path)
    expected = (train.y - np.nanmean(train.y, axis=0)) / np.nanstd(train.y, axis=0)
    assert np.allclose(inner.train.y, expected, equal_nan=True)
    with pytest.raises(DataError, match="above -1; got -2"):
        wrapped(Recorder(), "log1p").fit(labelled(-2), tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_any_label_do_not_change_a_transform(kind: str, tmp_path: Path) -> None:
    train, inner = labelled(), Recorder()
    wrapped(inner, kind).fit(train, tmp_path)
    expected = inner.train.y
    with_others = np.vstack([train.y, np.full((20, 2), np.nan)])
    wrapped(inner, kind).fit(rows(with_others, x=range(50)), tmp_path)
    assert np.array_equal(inner.train.y[:30], expected, equal_nan=True)
    assert np.isnan(inner.train.y[30:]).all()


GRADES = Task(["y"], None, "ordinal", ["1", "2", "3", "4"])


def test_ordered_grades_are_learned_by_a_stage_that_does_not_know_them(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 200)
    config = Lightgbm(kind="lightgbm", max_trees=50, learning_rate=0.1)
    stage = fitted(
        config, context(tmp_path, task=GRADES, numeric=["x"]), rows(np.floor(x * 3.99), x=x), tmp_path
    )
    assert stage.predict(rows(x=[0.1, 0.4, 0.6, 0.9]), tmp_path)[:, 0] == pytest.approx([0, 1, 2, 3], abs=0.4)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (
            Task(["y"], None, "binary", ["a", "b"]),
            {"target_transform": "power"},
            "target_transform requires regression",
        ),
        (
            GRADES,
            {"class_weights": "balanced"},
            "class_weights requires classification, but this stage learns regression",
        ),
    ],
)
def test_a_setting_that_does_not_go_with_the_targets_is_refused(
    task: Task, settings: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Lightgbm.model_validate({"kind": "lightgbm", **settings}).task_for(task)


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_of_censored_labels_are_transformed_like_labels_and_those_of_auxiliary_targets_are_not(
    kind: str, tmp_path: Path
) -> None:
    train, inner = labelled(), Recorder()
    bounds = np.full((30, 3, 2), np.nan)  # the third is of an auxiliary target
    bounds[3, 0, 0] = bounds[3, 2, 1] = train.y[7, 0]
    train = replace(train, bounds=bounds)
    wrapped(inner, kind).fit(train, tmp_path)
    bounds = inner.train.bounds[3]
    assert bounds[0, 0] == pytest.approx(inner.train.y[7, 0])
    assert bounds[2, 1] == train.y[7, 0]
    assert np.isnan(bounds).sum() == 4


def test_a_bound_without_a_logarithm_is_refused(tmp_path: Path) -> None:
    bounds = np.full((30, 2, 2), np.nan)
    bounds[3, 0, 1] = -1.5
    with pytest.raises(DataError, match="log1p needs targets and pseudo-labels above -1; got -1.5"):
        wrapped(Recorder(), "log1p").fit(replace(labelled(), bounds=bounds), tmp_path)
