"""What chance does to scores, by hand-computed numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from competition.metrics import METRICS
from submissions.compare import Labels
from submissions.leaderboard.draws import best_pair, draw, usual_spearman

N = 2000


def labels_of(y: np.ndarray, rows_per_group: int = 1) -> Labels:
    ids = [f"r{i}" for i in range(len(y))]
    groups = pd.Series(np.arange(len(y)) // rows_per_group, index=ids)
    return Labels(pd.DataFrame({"height": y}, index=ids), groups, METRICS["mae"], None, 1000, 0)


def predictions(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"height": values}, index=[f"r{i}" for i in range(len(values))])


@pytest.mark.parametrize("rows_per_group", [1, 4])
def test_parts_of_the_real_sizes_have_the_noise_of_a_mean_over_groups(rows_per_group: int) -> None:
    rng = np.random.default_rng(0)
    errors = np.repeat(rng.exponential(size=N // rows_per_group), rows_per_group)  # their deviation is their mean
    y = np.zeros(N)
    draws = draw({"a": predictions(errors)}, labels_of(y, rows_per_group), (100, 400))
    assert draws is not None and draws.n_rows == N
    for part, n in ((draws.public, 100), (draws.private, 400)):
        assert part["a"].mean() == pytest.approx(errors.mean(), rel=0.03)
        assert part["a"].std() == pytest.approx(errors.std() / np.sqrt(n / rows_per_group), rel=0.1)
    assert abs(draws.public["a"].corr(draws.private["a"])) < 0.1


def test_files_share_their_draws_and_are_held_against_each_other_on_the_rows_of_all() -> None:
    rng = np.random.default_rng(0)
    errors, y = rng.exponential(size=N), np.zeros(N)
    shifted = errors + 0.1
    shifted[0] = np.nan
    draws = draw({"a": predictions(errors), "b": predictions(shifted)}, labels_of(y), (50, 100))
    assert draws is not None and draws.n_rows == N - 1
    assert (draws.public["b"] - draws.public["a"]).to_numpy() == pytest.approx(0.1)
    assert draw({"a": predictions(errors[:1])}, labels_of(y), (50, 100)) is None
    assert draw({}, labels_of(y), (50, 100)) is None


def test_the_pair_whose_better_one_is_best_beats_the_two_best() -> None:
    private = pd.DataFrame({"a": [2.0, 2, 2, 2], "b": [2.0, 2, 2, 2.4], "c": [1.0, 5, 1, 5]})
    assert best_pair(private, greater_is_better=False) == (["a", "c"], 1.5)
    assert best_pair(private, greater_is_better=True) == (["a", "c"], pytest.approx((2 + 5 + 2 + 5) / 4))
    assert best_pair(private[["b"]], greater_is_better=False) == (["b"], pytest.approx(2.1))


def test_the_usual_rank_correlation_is_that_of_the_draws_with_cv() -> None:
    cv = pd.Series({"a": 1.0, "b": 2.0, "c": 3.0})
    part = pd.DataFrame({"c": [9.0] * 10, "a": [1.0] * 10, "b": [2.0] * 10})
    assert usual_spearman(part, cv) == (pytest.approx(1), pytest.approx(1))
    part.loc[:1, "c"] = 0.0  # two of ten draws have the order c, a, b
    low, high = usual_spearman(part, cv)
    assert (low, high) == (pytest.approx(-0.5), pytest.approx(1))
