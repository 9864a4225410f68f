"""The paired bootstrap: against formulas, and its fast forms against the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from competition.metrics import METRICS
from submissions.bootstrap import _counts, _one_by_one, bootstrap_scores, fast


def made_up(n: int = 300, n_targets: int = 2) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(n, n_targets)) + 50
    y_pred = {"a": y + rng.normal(size=y.shape), "b": np.round(y + rng.normal(size=y.shape))}  # b has many ties
    y[rng.random(y.shape) < 0.1] = np.nan
    return y, y_pred


def test_the_standard_error_of_a_difference_of_means_is_the_textbook_one() -> None:
    y, y_pred = np.zeros((2000, 1)), {}
    rng = np.random.default_rng(1)
    y_pred["a"] = rng.normal(size=(2000, 1))
    y_pred["b"] = y_pred["a"] + 0.3 * rng.normal(size=(2000, 1))
    drawn = bootstrap_scores(METRICS["mse"], y, y_pred, np.arange(2000), 2000, seed=0)
    expected = (y_pred["b"] ** 2 - y_pred["a"] ** 2).std() / np.sqrt(2000)
    assert (drawn["b"] - drawn["a"]).std() == pytest.approx(expected, rel=0.06)
    assert drawn["a"].std() > 2 * expected  # two separate errors would have hidden the difference


def test_rows_of_one_unit_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    errors = np.repeat(rng.normal(size=(500, 1)), 4, axis=0)  # four copies of each row tell no more than one
    y, y_pred = np.zeros_like(errors), {"a": errors}
    alone = bootstrap_scores(METRICS["mae"], y, y_pred, np.arange(2000), 1000, 0)["a"].std()
    together = bootstrap_scores(METRICS["mae"], y, y_pred, np.repeat(np.arange(500), 4), 1000, 0)["a"].std()
    assert together == pytest.approx(2 * alone, rel=0.1)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if fast(metric)])
def test_the_fast_form_equals_the_plain_one(name: str) -> None:
    y, y_pred = made_up()
    units = np.arange(300) // 3
    fast_scores = bootstrap_scores(METRICS[name], y, y_pred, units, 10, seed=4)
    plain = _one_by_one(METRICS[name], y, y_pred, units)(next(_counts(100, 300, 10, seed=4)))
    for column in y_pred:
        np.testing.assert_allclose(fast_scores[column], plain[column], rtol=1e-10)


def test_every_metric_has_a_spread() -> None:
    y, y_pred = made_up(100)
    for metric in METRICS.values():
        drawn = bootstrap_scores(metric, y, y_pred, np.arange(100), 20, seed=0)
        assert np.isfinite(drawn["a"]).all()
        assert drawn["a"].std() > 0


def test_draws_do_not_depend_on_how_many_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    y, y_pred = made_up(100)
    at_once = bootstrap_scores(METRICS["mae"], y, y_pred, np.arange(100), 50, seed=0)
    monkeypatch.setattr("submissions.bootstrap.CELLS_AT_ONCE", 700)
    in_parts = bootstrap_scores(METRICS["mae"], y, y_pred, np.arange(100), 50, seed=0)
    np.testing.assert_allclose(at_once["b"], in_parts["b"], rtol=1e-12)
