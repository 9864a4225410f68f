"""The part of a budget that is kept for the last submission."""

from types import SimpleNamespace
from typing import Any

import pytest

from models.jobs.budget_stages import SECONDS_PER_TUNING, count_tunings, reserve


def plan(n_targets: int, n_folds: int) -> Any:
    return SimpleNamespace(n_folds=n_folds, competition=SimpleNamespace(targets=["y"] * n_targets))


def test_tunings_are_counted_by_targets_excluded_folds_and_stages() -> None:
    # All rows, 3 folds excluded one by one and 3 pairs, for a submission without a stack; the same and 1 triple with
    # one; the ablation of a stage: all rows and 3 folds.
    assert count_tunings(n_targets=1, n_folds=3, n_stages=0) == (1 + 3 + 3) + (1 + 3 + 3 + 1)
    assert count_tunings(n_targets=1, n_folds=3, n_stages=2) == 15 + 2 * 4
    assert count_tunings(n_targets=4, n_folds=3, n_stages=2) == 4 * 23


def test_the_reserve_grows_with_an_expensive_submission_up_to_a_share_of_the_budget() -> None:
    small, large = plan(1, 3), plan(4, 10)
    assert reserve(1000, 0, small, n_stages=2) == pytest.approx(10 + 0.04 * 1000)
    assert reserve(1000, 30, small, n_stages=2) == pytest.approx(3 * 30)
    assert reserve(1000, 0, large, n_stages=5) == pytest.approx(10 + SECONDS_PER_TUNING * 4 * (56 + 176 + 55))
    assert reserve(200, 0, large, n_stages=5) == pytest.approx(10 + 0.4 * 200)
