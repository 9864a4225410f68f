"""The paired bootstrap: against formulas, and its fast forms against the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from competition.metrics import METRICS
from submissions.blend import bootstrap
from submissions.blend.bootstrap import bootstrap_scores, fast


def made_up(n: int = 300, n_targets: int = 2) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(n, n_targets)) + 50
    y_pred = {"a": y + rng.normal(size=y.shape), "b": np.round(y + rng.normal(size=y.shape))}  # b has many ties
    y[rng.random(y.shape) < 0.1] = np.nan
    return y, y_pred


def test_the_standard_error_of_a_difference_of_means_is_the_textbook_one() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(2000, 1))
    y, y_pred = np.zeros((2000, 1)), {"a": a, "b": a + 0.3 * rng.normal(size=(2000, 1))}
    drawn = bootstrap_scores(METRICS["mse"], y, y_pred, np.arange(2000), 2000, seed=0)
    expected = (y_pred["b"] ** 2 - a**2).std() / np.sqrt(2000)
    assert (drawn["b"] - drawn["a"]).std() == pytest.approx(expected, rel=0.06)
    assert drawn["a"].std() > 2 * expected  # two separate errors would have hidden the difference
    small = bootstrap_scores(METRICS["mse"], y, y_pred, np.arange(2000), 2000, seed=0, size=500)
    assert (small["b"] - small["a"]).std() == pytest.approx(2 * expected, rel=0.06)


@pytest.mark.parametrize("name", list(METRICS))
def test_the_fast_form_equals_the_plain_one_whatever_the_size_of_the_parts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, y_pred = made_up(90)
    scores = bootstrap_scores(METRICS[name], y, y_pred, np.arange(90) // 3, 10, seed=4)
    assert np.isfinite(scores["a"]).all() and scores["a"].std() > 0
    if fast(METRICS[name]):
        monkeypatch.setattr(bootstrap, "SUMS", {})
        monkeypatch.setattr(bootstrap, "CELLS_AT_ONCE", 300)
        plain = bootstrap_scores(METRICS[name], y, y_pred, np.arange(90) // 3, 10, seed=4)
        for column in y_pred:
            np.testing.assert_allclose(scores[column], plain[column], rtol=1e-10)
