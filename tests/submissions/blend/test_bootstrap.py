"""The paired bootstrap: against formulas, and its fast forms against the plain one."""

import numpy as np
import pytest

from competition.metrics import METRICS, Metric, get_metric
from competition.types import ProblemType
from submissions.blend import bootstrap
from submissions.blend.bootstrap import bootstrap_scores


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


@pytest.mark.parametrize("name", METRICS)
def test_a_tenth_of_the_draws_is_for_metrics_that_are_no_sums_over_rows(name: str) -> None:
    """A new metric needs an entry in `SUMS`, a row loss, a confusion matrix, or a place in this set."""
    without_sums = {
        "explained_variance", "rmsle", "wmae", "median_ae", "mape", "max_error", "spearman", "kendall", "roc_auc",
        "average_precision",
    }  # fmt: skip
    metric = METRICS[name]
    y, y_pred = made_up_of(metric, metric.types[0], 30)
    scores = bootstrap_scores(metric, y, y_pred, np.arange(30), 1100, seed=0)
    assert len(scores) == (110 if name in without_sums else 1100)


def made_up_of(metric: Metric, problem_type: str, n: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The same of classes: labels, a few of them in a rare class, and what the metric scores."""
    if problem_type == "regression":
        return made_up(n)
    rng, n_targets = np.random.default_rng(0), 3 if problem_type == "multilabel" else 1
    k = 4 if problem_type in ("multiclass", "ordinal") else 2
    y = np.minimum(rng.integers(k, size=(n, n_targets)), rng.integers(k + 1, size=(n, n_targets))).astype(float)
    y[:, -1] = np.where(np.arange(n) < 6, y[:, -1], 0)  # some draws have one class alone
    if metric.kind == "decisions":
        y_pred = {name: np.where(rng.random(y.shape) < 0.5, y, rng.integers(k, size=y.shape)) for name in "ab"}
    else:
        shape = (n, 4) if problem_type == "multiclass" else y.shape
        y_pred = {"a": rng.dirichlet(np.ones(4), n) if shape[1] == 4 else rng.random(shape)}
        y_pred["b"] = np.round(y_pred["a"], 1)  # ties
    y[rng.random(y.shape) < 0.1] = np.nan
    return y, y_pred


@pytest.mark.parametrize(("name", "problem_type"), [(name, each) for name in METRICS for each in METRICS[name].types])
def test_the_fast_form_equals_the_plain_one_whatever_the_size_of_the_parts(
    name: str, problem_type: ProblemType, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = get_metric(name, problem_type)
    assert metric is not None
    y, y_pred = made_up_of(metric, problem_type, 90)
    scores = bootstrap_scores(metric, y, y_pred, np.arange(90) // 3, 30, seed=4)
    assert scores["a"].std() > 0 and (problem_type != "regression" or np.isfinite(scores["a"]).all())
    for form in ("_by_sums", "_by_confusion"):
        monkeypatch.setattr(bootstrap, form, bootstrap._one_by_one)
    monkeypatch.setattr(bootstrap, "CELLS_AT_ONCE", 300)
    plain = bootstrap_scores(metric, y, y_pred, np.arange(90) // 3, 30, seed=4)
    for column in y_pred:
        np.testing.assert_allclose(scores[column], plain[column], rtol=1e-10)
