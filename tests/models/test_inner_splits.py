"""Splits inside the training rows of a job: groups stay together, the latest rows are held out, else as at
random.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold, train_test_split

from core.files import read_json
from models.stages.lightgbm import Lightgbm
from models.stages.tabular import TargetData
from models.stages.trees import inner_folds, inner_split
from tests.models.made import context, fitted, rows


def sample(n: int, n_classes: int = 0, **arrays: Any) -> TargetData:
    y = np.arange(n) % n_classes if n_classes else np.linspace(-1, 1, n)
    return TargetData(np.zeros((n, 1)), y.astype(float), None, n_classes, **arrays)


@pytest.mark.parametrize("n_classes", [0, 2])
def test_rows_of_a_group_are_on_one_side_and_the_sides_have_their_shares(n_classes: int) -> None:
    """Also with a group of a third of the rows, which is not held out for the number of trees."""
    groups = np.random.default_rng(0).permutation(np.r_[np.repeat(np.arange(100), 4), np.full(200, 100)])
    data = sample(600, n_classes, groups=groups)
    train, held_out = inner_split(data, seed=0)
    assert not set(groups[train]) & set(groups[held_out])
    assert len(train) + len(held_out) == 600
    assert len(held_out) == pytest.approx(100, abs=20)
    folds = inner_folds(data, seed=0)
    assert [sorted([*a, *b]) for a, b in folds] == [list(range(600))] * 3
    assert all(not set(groups[a]) & set(groups[b]) for a, b in folds)
    assert sorted(np.concatenate([b for _, b in folds])) == list(range(600))


def test_rows_that_are_groups_by_themselves_are_split_as_without_groups() -> None:
    for groups in (None, np.arange(50)[::-1]):
        data = sample(50, groups=groups)
        expected = train_test_split(np.arange(50), test_size=0.2, random_state=5)
        assert all(map(np.array_equal, inner_split(data, seed=5), expected))
        for split, other in zip(
            inner_folds(data, 5), KFold(3, shuffle=True, random_state=5).split(data.y), strict=True
        ):
            assert all(map(np.array_equal, split, other))
    assert (
        len(inner_split(sample(10, groups=np.zeros(10)), seed=0)[1]) == 2
    )  # one group cannot be kept together


def test_the_latest_rows_are_held_out_with_folds_in_time() -> None:
    """A group has its latest time, equal times stay together, and a row without a time always trains."""
    times = np.array([5.0, 1, 3, 2, 4, np.nan, 5, 0, 1])
    groups = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0])
    data = sample(9, times=times, groups=groups)
    assert inner_split(data, seed=0)[1].tolist() == [0, 6, 8]
    held_out_rows = [
        (sorted({*range(9)} - {*train}), held_out.tolist()) for train, held_out in inner_folds(data, 0)
    ]
    assert held_out_rows == [([0, 2, 3, 4, 6, 8], [2, 3]), ([0, 4, 6, 8], [4]), ([0, 6, 8], [0, 6, 8])]
    assert (
        len(inner_split(replace(data, times=np.ones(9)), seed=0)[1]) == 2
    )  # by groups, as there is one time


def test_noise_that_groups_share_gives_few_trees_and_a_smaller_error_on_new_groups(tmp_path: Path) -> None:
    """Rows of a group are near each other, so a split at random asks for trees that know groups by heart."""
    rng = np.random.default_rng(0)
    n_trees: dict[str, list[int]] = {"rows": [], "groups": []}
    errors: dict[str, list[float]] = {"rows": [], "groups": []}
    config = Lightgbm(kind="lightgbm", learning_rate=0.1, max_trees=300)
    for draw in range(3):
        groups = np.repeat(np.arange(360), 10)
        x = rng.normal(size=(360, 4))[groups] + 0.05 * rng.normal(size=(3600, 4))
        y = 0.3 * x[:, 0] + rng.normal(size=360)[groups] + 0.3 * rng.normal(size=3600)
        table = rows(y, **dict(zip("abcd", x.T, strict=True)))
        train, new = table.take(groups < 60), table.take(groups >= 60)
        for name, ids in (("rows", None), ("groups", groups[groups < 60])):
            folder = tmp_path / f"{name}{draw}"
            stage = fitted(
                config, context(tmp_path, numeric=list("abcd")), replace(train, groups=ids), folder
            )
            n_trees[name].append(read_json(folder / "training.json")["models"][0]["n_trees"])
            errors[name].append(np.std(stage.predict(new.without_labels(), folder) - new.y))
    assert np.mean(n_trees["groups"]) < 0.5 * np.mean(n_trees["rows"])
    assert np.mean(errors["groups"]) < np.mean(errors["rows"])


def test_equal_inputs_and_unique_rows_reach_the_bytes_of_a_model(tmp_path: Path) -> None:
    """Unique groups change no byte of the predictions, and groups do."""
    x = np.random.default_rng(1).normal(size=300)
    train = rows(np.sin(3 * x) + np.random.default_rng(2).normal(size=300), x=x)
    predicted = []
    for groups in (None, np.arange(300), np.argsort(np.argsort(x)) // 10):
        stage_context = context(tmp_path, numeric=["x"])
        folder = tmp_path / f"{len(predicted)}"
        config = Lightgbm(kind="lightgbm", search_trials=2, max_trees=40)
        stage = fitted(config, stage_context, replace(train, groups=groups), folder)
        predicted.append(stage.predict(replace(train, y=None), folder).tobytes())
    assert predicted[0] == predicted[1] != predicted[2]


def test_labels_of_a_target_keep_the_groups_of_their_rows(tmp_path: Path) -> None:
    data = sample(6, groups=np.array([0, 0, 1, 1, 2, 2]), times=np.arange(6.0)).take(np.array([5, 1]))
    assert (data.groups.tolist(), data.times.tolist()) == ([2, 0], [5.0, 1.0])  # type: ignore[union-attr]
    assert pd.isna(sample(2).weights)
