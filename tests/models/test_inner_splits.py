"""Splits inside the training rows of a job: groups stay together, the latest rows are held out, else as at
random.
"""

from dataclasses import replace

import numpy as np
import pytest

from models.stages.inner_split import inner_split
from models.stages.lightgbm import Lightgbm
from models.stages.tabular import TargetData
from tests.models.made import context, fitted, rows


def sample(n, n_classes=0, **arrays):
    y = np.arange(n) % n_classes if n_classes else np.linspace(-1, 1, n)
    return TargetData(np.zeros((n, 1)), y.astype(float), None, n_classes, **arrays)


@pytest.mark.parametrize("n_classes", [0, 2])
def test_rows_of_a_group_are_on_one_side_and_the_sides_have_their_shares(n_classes):
    """Also with a group of a third of the rows, which is not held out for the number of trees."""
    groups = np.random.default_rng(0).permutation(np.r_[np.repeat(np.arange(100), 4), np.full(200, 100)])
    train, held_out = inner_split(sample(600, n_classes, groups=groups), seed=0)
    assert sorted([*train, *held_out]) == list(range(600))
    assert not set(groups[train]) & set(groups[held_out])
    assert len(held_out) == pytest.approx(100, abs=20)


def test_one_group_is_divided_and_each_side_has_rows_of_a_rare_class():
    assert len(inner_split(sample(10, groups=np.zeros(10)), seed=0)[1]) == 2
    rare = replace(sample(300, 2), y=(np.arange(300) % 50 == 0).astype(float))
    assert rare.y[inner_split(rare, seed=0)[1]].sum() == 1


def test_the_latest_rows_are_held_out_with_folds_in_time():
    """A group has its latest time, equal times stay together, and a row without a time always trains."""
    times = np.array([5.0, 1, 3, 2, 4, np.nan, 5, 0, 1])
    groups = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0])
    data = sample(9, times=times, groups=groups)
    assert inner_split(data, seed=0)[1].tolist() == [0, 6, 8]
    part = data.take(np.array([4, 0]))  # rows of a target with missing labels
    assert (part.times.tolist(), part.groups.tolist()) == ([4, 5], [4, 0])
    late = replace(data, groups=np.where(np.arange(9) == 5, 6, groups))
    assert inner_split(late, seed=0)[1].tolist() == [0, 5, 6, 8]  # a row without a time goes with its group
    one_time = replace(data, times=np.ones(9))
    assert len(inner_split(one_time, seed=0)[1]) == 2  # by groups


def test_groups_reach_the_split_and_unique_ones_change_no_byte(tmp_path):
    x = np.random.default_rng(1).normal(size=300)
    train = rows(np.sin(3 * x) + np.random.default_rng(2).normal(size=300), x=x)
    config, stage_context = Lightgbm(kind="lightgbm", max_trees=40), context(tmp_path, numeric=["x"])
    predicted = []
    for groups in (None, np.arange(300), np.argsort(np.argsort(x)) // 10):
        stage = fitted(config, stage_context, replace(train, groups=groups), tmp_path)
        predicted.append(stage.predict(train.without_labels(), tmp_path).tobytes())
    assert predicted[0] == predicted[1] != predicted[2]


def test_groups_and_times_reach_the_split(tmp_path, monkeypatch):
    seen = []
    split = "models.stages.lightgbm.inner_split"
    monkeypatch.setattr(split, lambda data, seed: seen.append(data) or inner_split(data, seed))
    numbers = np.arange(60.0)
    train = replace(rows(numbers, x=numbers), groups=np.arange(60) // 2, times=numbers)
    fitted(Lightgbm(kind="lightgbm", max_trees=5), context(tmp_path, numeric=["x"]), train, tmp_path)
    assert seen[0].groups.tolist() == train.groups.tolist()
    assert seen[0].times.tolist() == train.times.tolist()
