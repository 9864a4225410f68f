"""Transforms of targets and ordered grades: learned from training rows, whatever the stage."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import skops.io

from competition.task import Task
from core.errors import ConfigError, DataError
from models.stage import Stage, TargetTransform
from models.stages.baseline import Baseline
from models.stages.lightgbm import Lightgbm
from models.targets import FILE
from tests.models.made import Bound, context, fitted, rows

KINDS = [kind for kind in get_args(TargetTransform) if kind != "none"]


class Recorder(Stage):
    """Remembers the labels it was given and predicts those of the row of the same id."""

    kind: str = "recorder"
    seen: dict[str, Any] = {}

    def fit(self, train, folder, context):
        self.seen["train"] = train

    def predict(self, rows, folder, context):
        train = self.seen["train"]
        return train.y[[train.ids.index(i) for i in rows.ids]]


def fit(kind, train, folder):
    """Return a stage with transformed targets, and what it was given."""
    stage = Bound(Recorder(target_transform=kind, seen={}), context(folder, task=Task(["y", "z"])))
    stage.fit(train, folder)
    return stage, stage.stage.seen["train"]


def labelled(first=1.0):
    rng = np.random.default_rng(0)
    y = np.column_stack([np.exp(rng.normal(size=30)), 1000 + 50 * rng.normal(size=30)])
    y[0, 0], y[3, 0] = first, np.nan
    return rows(y, x=range(30))


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_through_and_back_is_what_it_was(kind, tmp_path):
    """Bounds of censored labels go through, too; those of an auxiliary target, the third, do not."""
    train = labelled()
    bounds = np.full((30, 3, 2), np.nan)
    bounds[3, 0, 0] = bounds[3, 2, 1] = train.y[7, 0]
    stage, seen = fit(kind, replace(train, bounds=bounds), tmp_path)
    assert not np.allclose(seen.y, train.y, equal_nan=True)
    others = np.delete(np.arange(30), 3)  # the row without a label
    assert np.allclose(stage.predict(train.take(others), tmp_path), train.y[others], rtol=1e-4)
    assert seen.bounds[3, 0, 0] == pytest.approx(seen.y[7, 0])
    assert seen.bounds[3, 2, 1] == train.y[7, 0]
    assert np.isnan(seen.bounds).sum() == 178


@pytest.mark.parametrize("kind", ["power", "quantile"])
def test_a_prediction_far_beyond_the_labels_is_finite(kind, tmp_path):
    stage, seen = fit(kind, labelled(), tmp_path)
    seen.y[5] += 1e3
    assert np.isfinite(stage.predict(seen.take(np.array([5])), tmp_path)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_any_label_do_not_change_a_transform(kind, tmp_path):
    train = labelled()
    expected = fit(kind, train, tmp_path)[1].y
    with_others = rows(np.vstack([train.y, np.full((20, 2), np.nan)]), x=range(50))
    assert np.array_equal(fit(kind, with_others, tmp_path)[1].y[:30], expected, equal_nan=True)


def test_a_label_or_a_bound_without_a_logarithm_is_refused(tmp_path):
    with pytest.raises(DataError, match="above -1; got -2"):
        fit("log1p", labelled(-2), tmp_path)
    bounds = np.full((30, 2, 2), np.nan)
    bounds[3, 0, 1] = -1.5
    with pytest.raises(DataError, match="log1p needs targets above -1; got -1.5"):
        fit("log1p", replace(labelled(), bounds=bounds), tmp_path)


GRADES = Task(["y"], None, "ordinal", ["1", "2", "3", "4"])


def test_ordered_grades_are_learned_by_a_stage_that_does_not_know_them(tmp_path):
    x = np.linspace(0, 1, 200)
    stage_context = context(tmp_path, task=GRADES, numeric=["x"])
    config = Lightgbm(kind="lightgbm", max_trees=50, learning_rate=0.1)
    stage = fitted(config, stage_context, rows(np.floor(x * 3.99), x=x), tmp_path)
    assert stage.predict(rows(x=[0.1, 0.4, 0.6, 0.9]), tmp_path)[:, 0] == pytest.approx([0, 1, 2, 3], abs=0.4)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (Task(["y"], None, "binary", ["a", "b"]), {"target_transform": "power"}, "requires regression"),
    ],
)
def test_a_setting_that_does_not_go_with_the_targets_is_refused(task, settings, message):
    with pytest.raises(ConfigError, match=message):
        Lightgbm.model_validate({"kind": "lightgbm", **settings}).task_for(task)


@pytest.mark.parametrize(
    ("settings", "transform"),
    [
        ({}, "log1p"),
        ({"target_transform": "none"}, "none"),
        ({"target_transform": "quantile"}, "quantile"),
        ({"parameters": {"objective": "poisson"}}, "none"),  # of counts, not of their logarithms
    ],
)
def test_a_stage_without_a_transform_has_that_of_the_metric_unless_its_objective_needs_the_labels(
    settings, transform
):
    stage = Lightgbm.model_validate({"kind": "lightgbm", **settings})
    assert stage.transform_for(Task(["y"], target_transform="log1p")) == transform


def test_by_the_transform_of_rmsle_no_prediction_is_below_minus_1(tmp_path):
    x = np.linspace(0, 1, 60)
    task = Task(["y"], target_transform="log1p")
    train = rows(np.exp(8 * x), x=x)
    for learned, is_above in ((task, True), (Task(["y"]), False)):
        stage = fitted(
            Baseline(kind="baseline"), context(tmp_path, task=learned, numeric=["x"]), train, tmp_path
        )
        assert (stage.predict(rows(x=np.linspace(-1, 1, 30)), tmp_path) > -1).all() == is_above


@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e6])
def test_power_does_not_depend_on_what_is_added_to_labels_that_are_not_all_above_0_or_are_close_together(
    shift, tmp_path
):
    y = labelled().y[:, :1] * [0.1, -0.1]
    expected = fit("power", rows(y, x=range(30)), tmp_path)[1].y
    seen = fit("power", rows(y + shift, x=range(30)), tmp_path)[1].y
    assert seen == pytest.approx(expected, nan_ok=True, abs=1e-3)


@pytest.mark.parametrize("floor", [0.0, 100.0])
def test_power_gives_labels_back_of_which_nearly_all_are_equal_also_beside_a_target_of_others(
    floor, tmp_path
):
    y = np.full((100, 2), floor)
    y[:3, 0] = [250, 260, 300]
    y[:, 1] = np.arange(1.0, 101)
    seen = fit("power", rows(y, x=range(100)), tmp_path)[1].y
    assert len(np.unique(seen[:, 0])) == 4
    inverse = skops.io.load(tmp_path / FILE).inverse_transform(seen)
    np.testing.assert_allclose(inverse, y, atol=0.1)


def test_power_has_no_unit_if_labels_are_above_0(tmp_path):
    train = labelled()
    expected = fit("power", train, tmp_path)[1].y
    in_other_units = replace(train, y=1e-6 * train.y)
    assert fit("power", in_other_units, tmp_path)[1].y == pytest.approx(expected, nan_ok=True, abs=1e-3)
