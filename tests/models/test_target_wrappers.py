"""Transforms of targets, and grades that are exceeded: learned from training rows, whatever the stage."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from competition.dataset import Dataset
from competition.errors import ConfigError, DataError
from competition.task import Task
from models.base_config import StageConfig
from models.feature_config import LightgbmConfig
from models.registry import task_for_stage
from models.stages.target_wrappers import CumulativeModel, TargetTransformModel
from tests.models.made import context, fitted, rows

KINDS = [kind for kind in get_args(StageConfig.model_fields["target_transform"].annotation) if kind != "none"]


class Recorder:
    """Remembers the labels it was given and predicts those of the row of the same id."""

    def fit(self, train: Dataset, valid: Dataset | None, folder: Path) -> None:
        self.train, self.valid = train, valid

    def predict(self, rows: Dataset, folder: Path) -> Any:
        return self.train.y[[self.train.ids.index(i) for i in rows.ids]]  # type: ignore[index]


def labelled(first: float = 1.0) -> Dataset:
    rng = np.random.default_rng(0)
    y = np.column_stack([np.exp(rng.normal(size=30)), 1000 + 50 * rng.normal(size=30)])
    y[0, 0], y[3, 0] = first, np.nan
    return rows(y, x=range(30))


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_through_and_back_is_what_it_was(kind: str, tmp_path: Path) -> None:
    train, inner = labelled(), Recorder()
    TargetTransformModel(inner, kind).fit(train, train.take(np.arange(5)), tmp_path)
    assert np.allclose(inner.valid.y, inner.train.y[:5], equal_nan=True)
    assert not np.allclose(inner.train.y, train.y, equal_nan=True)
    inner.train.y[5] += (
        1e3 if kind in ("power", "quantile") else 0
    )  # beyond the labels there may be no way back
    assert np.isfinite(TargetTransformModel(inner, kind).predict(train.take(np.array([5])), tmp_path)).all()
    inner.train.y[5] = inner.train.y[6]
    fresh = TargetTransformModel(inner, kind)  # what counts is in the folder
    expected = np.vstack([train.y[:5], train.y[[6]], train.y[6:]])
    assert np.allclose(fresh.predict(train, tmp_path), expected, rtol=1e-4, equal_nan=True)


def test_a_standard_transform_is_of_the_training_rows(tmp_path: Path) -> None:
    train, inner = labelled(), Recorder()
    held_out = replace(train, y=train.y * 100)  # is transformed and not learned from
    TargetTransformModel(inner, "standard").fit(train, held_out, tmp_path)
    expected = (train.y - np.nanmean(train.y, axis=0)) / np.nanstd(train.y, axis=0)
    assert np.allclose(inner.train.y, expected, equal_nan=True)
    with pytest.raises(DataError, match="above -1; got -2"):
        TargetTransformModel(Recorder(), "log1p").fit(labelled(-2), None, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_any_label_do_not_change_a_transform(kind: str, tmp_path: Path) -> None:
    train, inner = labelled(), Recorder()
    TargetTransformModel(inner, kind).fit(train, None, tmp_path)
    expected = inner.train.y
    with_others = np.vstack([train.y, np.full((20, 2), np.nan)])
    TargetTransformModel(inner, kind).fit(rows(with_others, x=range(50)), None, tmp_path)
    assert np.array_equal(inner.train.y[:30], expected, equal_nan=True)
    assert np.isnan(inner.train.y[30:]).all()


GRADES = Task(["y"], None, "ordinal", ["1", "2", "3", "4"])


def test_the_mean_grade_is_the_sum_of_the_probabilities_that_each_is_exceeded(tmp_path: Path) -> None:
    """By Frank and Hall's own numbers: grade 2 of 0 to 3 exceeds 0 and 1; P(y > k) of .9, .5, .2 have the
    mean 1.6.
    """
    inner = Recorder()
    stage = CumulativeModel(inner, 3)
    stage.fit(rows([0.0, 2, 3, np.nan, 1.6], x=range(5)), None, tmp_path)
    expected = [
        [0, 0, 0],
        [1, 1, 0],
        [1, 1, 1],
        [np.nan] * 3,
        [1, 1, 0],
    ]  # 1.6, a pseudo-label, is nearer to 2
    assert np.array_equal(inner.train.y, expected, equal_nan=True)
    inner.train = replace(inner.train, y=np.array([[0.9, 0.5, 0.2]] * 5))
    assert np.allclose(stage.predict(rows(x=range(2)), tmp_path), 1.6)


@pytest.mark.parametrize("way", ["regression", "cumulative"])
def test_ordered_grades_are_learned_in_either_way_by_a_stage_that_does_not_know_them(
    way: Any, tmp_path: Path
) -> None:
    x = np.linspace(0, 1, 200)
    config = LightgbmConfig(kind="lightgbm", max_trees=50, learning_rate=0.1, ordinal=way)
    stage = fitted(
        config, context(tmp_path, task=GRADES, numeric=["x"]), rows(np.floor(x * 3.99), x=x), tmp_path
    )
    assert stage.predict(rows(x=[0.1, 0.4, 0.6, 0.9]), tmp_path)[:, 0] == pytest.approx([0, 1, 2, 3], abs=0.4)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (
            GRADES,
            {"ordinal": "cumulative", "target_transform": "power"},
            "target_transform requires regression",
        ),
        (
            GRADES,
            {"class_weights": "balanced"},
            "class_weights requires classification, but this stage learns regression",
        ),
        (
            Task(["y"]),
            {"ordinal": "cumulative"},
            "ordinal requires problem_type ordinal, but it is regression",
        ),
    ],
)
def test_a_setting_that_does_not_go_with_the_targets_is_refused(
    task: Task, settings: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        task_for_stage(LightgbmConfig.model_validate({"kind": "lightgbm", **settings}), task)


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_of_censored_labels_are_transformed_like_labels_and_those_of_auxiliary_targets_are_not(
    kind: str, tmp_path: Path
) -> None:
    train, inner = labelled(), Recorder()
    bounds = np.full((30, 3, 2), np.nan)  # the third is of an auxiliary target
    bounds[3, 0, 0] = bounds[3, 2, 1] = train.y[7, 0]
    train = replace(train, bounds=bounds)
    TargetTransformModel(inner, kind).fit(train, train.take(np.array([3])), tmp_path)
    for rows_given in (inner.train.take(np.array([3])), inner.valid):
        assert rows_given.bounds[0, 0, 0] == pytest.approx(inner.train.y[7, 0])
        assert rows_given.bounds[0, 2, 1] == train.y[7, 0]
        assert np.isnan(rows_given.bounds).sum() == 4


def test_a_bound_without_a_logarithm_is_refused(tmp_path: Path) -> None:
    bounds = np.full((30, 2, 2), np.nan)
    bounds[3, 0, 1] = -1.5
    with pytest.raises(DataError, match="log1p needs targets and pseudo-labels above -1; got -1.5"):
        TargetTransformModel(Recorder(), "log1p").fit(replace(labelled(), bounds=bounds), None, tmp_path)
