"""The paired bootstrap, compared with formulas."""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from competition.metrics import METRICS, Metric
from competition.task import Task
from submissions.blend import scoring
from submissions.blend.scoring import Scorer


@pytest.fixture(autouse=True)
def many_resamples(monkeypatch):
    monkeypatch.setattr(scoring, "MAX_RESAMPLES", 2000)


def scorer(metric, y, groups=None):
    rows = np.arange(len(y))
    groups = rows if groups is None else groups
    return Scorer(metric=METRICS[metric], task=Task(["y"]), y=y, folds=0 * rows, groups=groups)


def test_the_standard_error_of_a_difference_of_means_is_the_textbook_formula():
    rng = np.random.default_rng(1)
    a = rng.normal(size=(2000, 1))
    y = np.arange(2000)[:, None] * 1e-12  # labels that are not all equal
    y_pred = {"a": a, "b": a + 0.3 * rng.normal(size=(2000, 1))}
    of_metric = scorer("mse", y)
    paired = of_metric.compare(y_pred, "a").loc["b"]
    differences = y_pred["b"] ** 2 - a**2
    expected = differences.std() / np.sqrt(2000)
    assert paired["difference"] == pytest.approx(differences.mean())
    assert of_metric.gain(1.0) == -1.0  # less is better
    assert paired["standard_error"] == pytest.approx(expected, rel=0.06)
    assert paired["score_standard_error"] > 2 * expected  # unpaired errors would hide the difference
    small = of_metric.resampled(y_pred, n_rows=500)
    assert (small["b"] - small["a"]).std() == pytest.approx(2 * expected, rel=0.06)


def test_rows_of_a_group_are_drawn_together():
    rng = np.random.default_rng(0)
    y, errors = (np.repeat(rng.normal(size=(200, 1)), 4, axis=0) for _ in range(2))
    alone, together = (
        scorer("rmse", y, groups).resampled({"a": y + errors})["a"].std()
        for groups in (None, np.repeat(np.arange(200), 4))
    )
    assert together == pytest.approx(2 * alone, rel=0.1)


@pytest.mark.parametrize("n_rows", [500, 150])
def test_a_metric_that_averages_over_groups_of_rows_has_the_standard_error_of_a_mean_over_groups(n_rows):
    """By a metric that would take two copies of a group for one."""
    groups = np.repeat(np.arange(100), 5)
    y = np.random.default_rng(0).lognormal(size=100)[groups]

    def mean_over_groups(y_true, y_pred, rows):
        return pd.Series(y_true[:, 0]).groupby(rows["group"].to_numpy()).mean().mean()

    metric = Metric("mean_over_groups", False, None, mean_over_groups, True)
    rows = pd.DataFrame({"group": groups})
    grouped = replace(scorer("mse", y[:, None], groups), metric=metric, rows=rows)
    error = grouped.resampled({"a": y[:, None]}, n_rows)["a"].std()
    assert error == pytest.approx(y[::5].std(ddof=1) / np.sqrt(n_rows / 5), rel=0.06)


def test_large_tables_have_fewer_resamples(monkeypatch):
    y = np.arange(100.0)[:, None]
    for max_labels, n_resamples in ((6000, 60), (100, 50)):
        monkeypatch.setattr(scoring, "MAX_LABELS", max_labels)
        assert len(scorer("mae", y).resampled({"a": y})) == n_resamples


def test_probabilities_of_many_classes_have_fewer_resamples_and_their_labels_do_not(monkeypatch):
    monkeypatch.setattr(scoring, "MAX_LABELS", 20_000)
    task = Task(["y"], problem_type="multiclass", classes=["a", "b", "c"])
    y = np.arange(99.0)[:, None] % 3
    of_probabilities = replace(scorer("log_loss", y), task=task)
    assert len(of_probabilities.resampled({"a": np.full((99, 3), 1 / 3)})) == 67
    of_labels = replace(scorer("accuracy", y), task=replace(task, scores_labels=True))
    assert len(of_labels.resampled({"a": y})) == 202


@pytest.mark.parametrize("name", ["r2", "pearson"])
def test_resamples_with_equal_labels_have_no_score(name):
    """Five labels of 200 differ from the others, so that some resamples have none of them."""
    y = np.full((200, 1), 0.1)
    y[:5] = 3.7
    scores = scorer(name, y).resampled({"a": 0.9 * y})["a"]
    assert 0 < scores.isna().sum() < 100
    assert scores.min() > 0.9 and scores.max() <= 1 + 1e-9


def test_targets_are_scored_together_and_each_on_its_labelled_rows():
    y = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, np.nan]])
    y_pred = np.array([[1.0, 2.0], [1.0, 4.0], [4.0, 9.0]])
    both = replace(scorer("mae", y), task=Task(["y0", "y1"]))
    assert both.target_scores(y_pred) == {"all": 2.5, "y0": 2.0, "y1": 3.0}
    assert scorer("mae", y[:, :1]).target_scores(y_pred[:, :1]) == {"y": 2.0}


@pytest.fixture
def user_metric(monkeypatch):
    """A function that returns a scorer by a metric of the user's, which takes some seconds, and a list of its calls."""
    monkeypatch.setattr(scoring, "MAX_RESAMPLES", 60)

    def make(seconds):
        calls = []

        def score(y, y_pred):
            calls.append(len(y))
            time.sleep(seconds(len(calls)))
            return float(np.abs(y - y_pred).mean())

        labels = np.arange(40.0)[:, None]
        return replace(scorer("mae", labels), metric=Metric("mine", False, None, score)), calls

    return make


def test_a_slow_metric_of_the_user_has_few_resamples_and_their_number_is_kept(user_metric):
    slow, calls = user_metric(lambda n_calls: 0.03)
    a, b = slow.y + 1.0, slow.y**2
    assert set(slow.compare({"a": a, "b": b}, "a")["n_resamples"]) == {20}
    assert len(calls) == 2 * (1 + 20)
    fast, _ = user_metric(lambda n_calls: 0.03 if n_calls == 1 else 0.0)  # a library is imported
    assert len(fast.resampled({"a": a})) == 60
    assert len(replace(fast, n_resamples=20).resampled({"a": a})) == 20
    np.testing.assert_array_equal(fast.resampled({"b": b})[:20], slow.resampled({"b": b}))
    assert len(replace(slow, metric=METRICS["mae"]).resampled({"a": a})) == 60


def test_built_in_metrics_have_as_many_resamples_however_slow_the_machine_is(monkeypatch):
    monkeypatch.setattr(scoring, "SLOW_CALL", -1.0)
    y = np.arange(40.0)[:, None]
    assert len(scorer("mae", y).resampled({"a": y})) == 2000


def test_a_prediction_is_scored_once_on_the_resamples_of_some_rows(user_metric):
    fast, calls = user_metric(lambda n_calls: 0.0)
    a, b = fast.y + 1.0, fast.y**2
    first = fast.resampled({"a": a, "same": a.copy(), "b": b})
    assert len(calls) == 2 * 60
    again = fast.resampled({"c": b, "d": 2 * a})
    assert len(calls) == 3 * 60
    np.testing.assert_array_equal(first["b"], again["c"])
    fast.resampled({"a": a}, n_rows=7)
    assert len(calls) == 4 * 60 and calls[-1] == 7  # other resamples
