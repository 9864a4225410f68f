"""The interval of a paired difference, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from submissions.study.intervals import corrected_interval


def test_five_differences_by_hand() -> None:
    # mean 3, variance 2.5, (1/5 + 1/4) * 2.5 = 1.125, root 1.060660; t(4) at 97.5 % is 2.776445
    found = corrected_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 1 / 4)
    assert (found.mean, found.pairs) == (3.0, 5)
    assert found.high - 3 == pytest.approx(2.776445 * 1.060660, rel=1e-6)
    assert 3 - found.low == pytest.approx(found.high - 3)


def test_one_pair_has_a_difference_and_no_interval() -> None:
    found = corrected_interval(np.array([0.5]), 1 / 4)
    assert found.mean == 0.5
    assert np.isnan([found.low, found.high]).all()


def test_more_seeds_do_not_shrink_it_to_nothing() -> None:
    widths = []
    for repeats in (1, 100):
        found = corrected_interval(np.tile([1.0, 2.0, 3.0, 4.0, 5.0], repeats), 1 / 4)
        widths.append(found.high - found.low)
    assert widths[1] > 0.35 * widths[0]


def test_it_holds_the_true_difference_where_folds_share_their_training_rows() -> None:
    """Differences of five folds and three seeds, correlated as those of folds that share rows (0.2 between any two)."""
    rng = np.random.default_rng(0)
    shared, of_fold, noise = rng.normal(size=(2000, 1, 1)), rng.normal(size=(2000, 5, 1)), rng.normal(size=(2000, 5, 3))
    differences = (np.sqrt(0.2) * shared + np.sqrt(0.4) * of_fold + np.sqrt(0.4) * noise).reshape(2000, 15)
    holds = {}
    for share in (0.0, 1 / 4):
        found = [corrected_interval(one, share) for one in differences]
        holds[share] = np.mean([each.low <= 0 <= each.high for each in found])
    assert holds[0.0] < 0.75  # the usual t-interval
    assert 0.88 < holds[1 / 4] <= 1


def test_it_is_not_wider_than_it_must_be_for_random_splits() -> None:
    """Its own assumption: the correlation of two differences is the test share, here 0.2 for five folds."""
    rng = np.random.default_rng(1)
    shared, own = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 10))
    found = [corrected_interval(one, 1 / 4) for one in np.sqrt(0.2) * shared + np.sqrt(0.8) * own]
    assert np.mean([each.low <= 0 <= each.high for each in found]) == pytest.approx(0.95, abs=0.015)
