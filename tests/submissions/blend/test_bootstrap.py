"""The paired bootstrap, compared with formulas, and its fast statistics, compared with resampled rows."""

import numpy as np
import pytest

from competition.metrics import METRICS, Metric, get_metric
from competition.types import ProblemType
from submissions.blend import bootstrap
from submissions.blend.bootstrap import bootstrap_scores, row_statistics

METRICS_WITHOUT_FAST_FORM = {
    "explained_variance", "rmsle", "wmae", "rae", "median_ae", "mape", "max_error", "spearman", "kendall", "roc_auc",
    "average_precision",
}  # fmt: skip


def regression_data(n: int = 300, n_targets: int = 2) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(n, n_targets)) + 50
    y_pred = {"a": y + rng.normal(size=y.shape), "b": np.round(y + rng.normal(size=y.shape))}  # b has ties
    y[rng.random(y.shape) < 0.1] = np.nan
    return y, y_pred


def test_the_standard_error_of_a_difference_of_means_is_the_textbook_formula() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(2000, 1))
    y = np.zeros((2000, 1))
    y_pred = {"a": a, "b": a + 0.3 * rng.normal(size=(2000, 1))}
    scores = bootstrap_scores(METRICS["mse"], y, y_pred, np.arange(2000), 2000, seed=0)
    expected = (y_pred["b"] ** 2 - a**2).std() / np.sqrt(2000)
    assert (scores["b"] - scores["a"]).std() == pytest.approx(expected, rel=0.06)
    assert scores["a"].std() > 2 * expected  # unpaired standard errors would hide the difference
    small = bootstrap_scores(METRICS["mse"], y, y_pred, np.arange(2000), 2000, seed=0, n_groups=500)
    assert (small["b"] - small["a"]).std() == pytest.approx(2 * expected, rel=0.06)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_without_a_fast_form_get_a_tenth_of_the_resamples(name: str) -> None:
    """A new metric needs an entry in `SUMS`, a row loss, a confusion matrix, or an entry in the set above."""
    metric = METRICS[name]
    y, y_pred = data_for(metric, metric.types[0], 30)
    scores = bootstrap_scores(metric, y, y_pred, np.arange(30), 1100, seed=0)
    assert len(scores) == (110 if name in METRICS_WITHOUT_FAST_FORM else 1100)


def data_for(metric: Metric, problem_type: str, n: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels and what the metric scores; for classification with a rare class."""
    if problem_type == "regression":
        return regression_data(n)
    rng = np.random.default_rng(0)
    n_targets = 3 if problem_type == "multilabel" else 1
    k = 4 if problem_type in ("multiclass", "ordinal") else 2
    y = np.minimum(rng.integers(k, size=(n, n_targets)), rng.integers(k + 1, size=(n, n_targets))).astype(
        float
    )
    y[:, -1] = np.where(np.arange(n) < 6, y[:, -1], 0)  # some resamples have a single class
    if metric.kind == "labels":
        y_pred = {
            name: np.where(rng.random(y.shape) < 0.5, y, rng.integers(k, size=y.shape)) for name in "ab"
        }
    else:
        y_pred = {"a": rng.dirichlet(np.ones(4), n) if problem_type == "multiclass" else rng.random(y.shape)}
        y_pred["b"] = np.round(y_pred["a"], 1)  # ties
    y[rng.random(y.shape) < 0.1] = np.nan
    return y, y_pred


METRICS_AND_TYPES = []
for metric_name in METRICS:
    METRICS_AND_TYPES += [(metric_name, problem_type) for problem_type in METRICS[metric_name].types]


@pytest.mark.parametrize(("name", "problem_type"), METRICS_AND_TYPES)
def test_fast_scores_equal_the_scores_of_resampled_rows_for_any_batch_size(
    name: str, problem_type: ProblemType, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = get_metric(name, problem_type)
    assert metric is not None
    y, y_pred = data_for(metric, problem_type, 90)
    scores = bootstrap_scores(metric, y, y_pred, np.arange(90) // 3, 30, seed=4)
    assert scores["a"].std() > 0
    assert problem_type != "regression" or np.isfinite(scores["a"]).all()
    for statistics in ("sum_statistics", "confusion_statistics"):
        monkeypatch.setattr(bootstrap, statistics, row_statistics)
    monkeypatch.setattr(bootstrap, "MAX_CELLS", 300)
    expected = bootstrap_scores(metric, y, y_pred, np.arange(90) // 3, 30, seed=4)
    for prediction in y_pred:
        np.testing.assert_allclose(scores[prediction], expected[prediction], rtol=1e-10)


@pytest.mark.parametrize("name", ["r2", "pearson"])
def test_resamples_with_equal_labels_have_no_score(name: str) -> None:
    """Five labels of 200 differ from the others, so that some resamples have none of them."""
    y = np.full((200, 1), 0.1)
    y[:5] = 3.7
    scores = bootstrap_scores(METRICS[name], y, {"a": 0.9 * y}, np.arange(200), 2000, seed=0)["a"]
    assert 0 < scores.isna().sum() < 100
    assert scores.min() > 0.9 and scores.max() <= 1 + 1e-9
