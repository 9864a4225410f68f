"""The interval of the expected score: hand-computed ends, how often it holds, and when there is none."""

import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from competition.metrics import METRICS, Metric
from competition.task import Task
from core.files import PROJECT, read_table, write_table
from core.modules import code_without_comments
from folds.comparison import ErrorRatio, Shift
from submissions.blend.scoring import Scorer
from submissions.columns import scored_rows
from submissions.expected_score import (
    compare_predictions,
    drawn_scores,
    interval_of,
    rows_to_expect,
    why_no_interval,
    why_unknown,
    with_factor,
    with_means,
)
from submissions.run import CODE, DIGESTS_OF_CODE
from tests.submissions.fakes import fake_competition, finished
from tests.submissions.test_shift import comparison_of

MAE = """def mae(y, y_pred, rows):
    size = rows["size"].to_numpy()[:, None]
    return float((size * abs(y - y_pred)).sum() / size.sum())
"""


def expected_of(path):
    """The expected score of a run of made-up jobs, on tables that are prepared now."""
    run = finished(path)
    return run.name, run.choice.expected, run.choice.submitted.score, (run.folder / "mixed.yaml").read_text()


@pytest.mark.parametrize(
    ("n_test", "settings", "edited"),
    [
        (5, {"kaggle": "essays"}, {}),
        (5, {"answers": None}, {}),
        (60, {}, {"test": {"plate": "new"}}),
        (60, {}, {"train": {"size": 1}}),
    ],
)
def test_settings_after_others_have_the_expected_score_that_they_have_alone(
    tmp_path, n_test, settings, edited
):
    """Columns that no setting reads may be the unit of the test table, or what a metric weights rows by."""
    (tmp_path / "mine.py").write_text(MAE)
    metric = {"metric": "mine.py:mae", "greater_is_better": False}

    def competition(settings, edited):
        path = fake_competition(tmp_path, n_train=500, n_test=n_test, competition={**metric, **settings})
        for name in ("train", "test"):
            table = read_table(tmp_path / f"{name}.csv")
            rows = np.arange(len(table))
            table = table.assign(plate=np.char.add("p", (rows % 40).astype(str)), size=1 + rows % 7)
            write_table(tmp_path / f"{name}.csv", table.assign(**edited.get(name, {})))
        return path

    before = expected_of(competition({}, {}))
    after = expected_of(competition(settings, edited))
    assert after != before and after[0] == before[0]
    shutil.rmtree(tmp_path / "work")
    assert expected_of(competition(settings, edited)) == after


def test_a_comment_in_the_code_of_submissions_makes_no_submission_anew(tmp_path):
    def digests_of(addition):
        digests = []
        for file in (file for pattern in CODE for file in sorted(PROJECT.glob(pattern))):
            copy = tmp_path / file.name
            copy.write_text(file.read_text() + addition)
            digests.append(code_without_comments(copy))
        return digests

    assert digests_of("") == digests_of("# a comment") == DIGESTS_OF_CODE
    assert digests_of("changed = 1") != DIGESTS_OF_CODE


def scorer_of(y, metric="rmse", groups=None):
    rows = np.arange(len(y))
    return Scorer(
        metric=METRICS[metric],
        task=Task(["y"]),
        y=y[:, None],
        folds=rows % 5,
        groups=rows if groups is None else groups,
    )


def share_that_hold(draw_errors, n_test_rows=60, n_groups=None):
    """How often the interval of a training table with some errors holds the RMSE of a test table."""
    n_held = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        (train, groups), (test, _) = draw_errors(rng, 300), draw_errors(rng, n_test_rows)
        scorer = scorer_of(train, groups=groups)
        scores = drawn_scores(scorer, np.zeros((300, 1)), n_test_rows)
        interval = interval_of(scores, n_groups or scorer.n_groups)
        n_held += interval.lower <= np.sqrt(np.mean(test**2)) <= interval.upper
    return n_held / 150


def test_eight_of_ten_intervals_hold_the_score_of_test_rows_like_the_training_rows():
    assert 0.7 < share_that_hold(lambda rng, n: (rng.standard_t(5, n), np.arange(n))) < 0.9


def test_rows_of_a_group_are_resampled_together_so_that_the_interval_is_wider():
    def draw(rng, n):
        groups = np.arange(n) // 10
        return rng.normal(size=n // 10)[groups] + 0.3 * rng.normal(size=n), groups

    assert 0.7 < share_that_hold(draw) < 0.92
    assert share_that_hold(lambda rng, n: (draw(rng, n)[0], np.arange(n))) < 0.6


def test_with_folds_in_time_the_interval_is_that_of_blocks(tmp_path):
    roles = {"time": "day", "targets": ["height"]}
    path = fake_competition(tmp_path, competition=roles, folds={"kind": "time", "n_folds": 4})
    for name, first_day in (("train", 0), ("test", 1000)):
        table = read_table(tmp_path / f"{name}.csv")
        write_table(tmp_path / f"{name}.csv", table.assign(day=first_day + np.arange(len(table))))
    run = finished(path)
    interval, columns = run.choice.expected.interval, run.columns
    scored = scored_rows(run.folder, run.task).loc[columns.ids].to_numpy()
    blocks = replace(columns, groups=columns.folds)  # four of them, with their errors
    assert interval == interval_of(drawn_scores(blocks, scored, len(columns.test_ids)), 4)


def test_of_few_groups_the_quantiles_are_further_out():
    """Five groups in the training table and three in the test table. Without it too few intervals hold."""

    def draw(rng, n):
        groups = np.arange(n) // 60
        return rng.normal(size=n // 60)[groups] + 0.3 * rng.normal(size=n), groups

    assert share_that_hold(draw, 180) > 0.7 > share_that_hold(draw, 180, n_groups=10_000)


def test_scores_of_resamples_that_are_all_the_same_are_no_interval():
    """Predictions are perfect, or wrong by the same number everywhere; of a class there may be three rows."""
    y = np.append(np.zeros(397), np.ones(3))
    task = Task(["y"], problem_type="binary", classes=["no", "yes"])
    areas = replace(scorer_of(y, "roc_auc"), task=task)
    for scorer, scored in ((areas, y), (scorer_of(y), y + 0.1), (scorer_of(y), y)):
        scores = drawn_scores(scorer, scored[:, None], 100)
        assert why_no_interval(scorer, scores).startswith(
            "Resamples of the training rows have the same score"
        )
    assert why_no_interval(areas, np.ones(9)).endswith("The rarest class has 3 training rows.")
    noisy = y + np.random.default_rng(0).normal(size=400)
    assert why_no_interval(scorer_of(y), drawn_scores(scorer_of(y), noisy[:, None], 100)) == ""


def test_a_small_test_table_has_a_wide_interval_and_a_large_one_that_of_the_score():
    y = np.random.default_rng(0).normal(size=400)
    scorer = scorer_of(y)
    widths = []
    for n_test_rows in (25, 400, 40_000):
        interval = interval_of(drawn_scores(scorer, np.zeros((400, 1)), n_test_rows), 400)
        widths.append(interval.upper - interval.lower)
    error = 1 / np.sqrt(2 * 400)  # of the standard deviation of 400 normal numbers
    expected = [2 * 1.2816 * error * np.sqrt(1 + 400 / n) for n in (25, 400, 40_000)]
    assert widths == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("n_test_rows", "n_train_rows", "expected"),
    [(3, 17_000, 17_000), (36, 36_000, 36_000), (4, 300, 4), (60, 36_000, 60), (50, 5_000, 5_000)],
)
def test_on_kaggle_a_test_table_of_a_few_rows_stands_for_one_like_the_training_table(
    n_test_rows, n_train_rows, expected
):
    assert rows_to_expect(True, n_test_rows, n_train_rows) == expected
    assert rows_to_expect(False, n_test_rows, n_train_rows) == n_test_rows


def test_a_score_below_zero_of_a_metric_of_the_user_where_less_is_better_is_in_its_interval():
    def log_of_error(y, y_pred):
        return np.log(np.abs(y - y_pred).mean())

    scorer = scorer_of(np.random.default_rng(0).normal(size=200) / 100)
    scorer = replace(scorer, metric=Metric("log_of_error", False, None, log_of_error))
    interval = interval_of(drawn_scores(scorer, np.zeros((200, 1)), 50), 200)
    assert -6 < interval.lower < scorer.score(np.zeros((200, 1))) < interval.upper < -4


def test_a_factor_multiplies_the_error_and_its_spread_widens_the_interval():
    scores = np.full(40_000, 0.9)
    of_error = with_factor(scores, METRICS["rmse"], 1.5)
    assert of_error == pytest.approx(np.full(40_000, 1.35))
    of_area = with_factor(scores, METRICS["roc_auc"], 1.5, 0.2, seed=0)
    interval = interval_of(of_area, 40_000)
    ends = [1 - 0.15 * np.exp(sign * 1.2816 * 0.2) for sign in (1, -1)]
    assert [interval.lower, interval.upper] == pytest.approx(ends, rel=0.01)
    assert with_factor(np.array([1.2]), METRICS["roc_auc"], 1.0) == [1.0]  # the best there is
    assert with_factor(np.array([0.2]), METRICS["accuracy"], 1.5) == [0.0]  # the worst
    assert with_factor(np.array([-0.1]), METRICS["mcc"], 1.5) == pytest.approx([-0.1])
    assert with_factor(np.array([0.2]), METRICS["r2"], 1.5) == pytest.approx([-0.2])


def test_a_share_of_the_rows_gets_the_mean_that_test_rows_get_which_cannot_be_read():
    y = np.random.default_rng(0).normal(5, 1, 1000)
    scorer = scorer_of(y)
    scored = with_means(y[:, None], 0.25, scorer.task, [5.0])
    assert (scored == 5.0).sum() == 250 and (scored[:, 0] == y).sum() == 750
    assert scorer.score(scored) == pytest.approx(np.sqrt(0.25), rel=0.1)  # a quarter has the error 1
    labels = Task(["y"], problem_type="multiclass", classes=["a", "b", "c"], scores_labels=True)
    assert with_means(np.zeros((4, 1)), 0.5, labels, [0.2, 0.3, 0.5])[:, 0].tolist().count(2) == 2


CLEAR = Shift(auc=0.9, standard_error=0.01, features=[{"feature": "x"}], like_test=["a"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"adversarial_validation": None}, ""),
        ({"adversarial_validation": CLEAR.model_copy(update={"auc": 0.55})}, ""),
        ({"adversarial_validation": CLEAR.model_copy(update={"like_test": []})}, ""),  # all groups are large
        ({"error_ratio": ErrorRatio(stage="line", ratio=1.2, standard_error=0.1)}, ""),
        ({"error_ratio": None}, "was not measured"),
        ({"error_ratio": ErrorRatio(standard_error=None, seconds=9.0)}, "takes at most 9 s a fold"),
        ({"error_ratio": ErrorRatio(stage="line", standard_error=None)}, "The error of line"),
    ],
)
def test_without_a_measured_error_of_rows_like_test_rows_the_reason_is_said(values, words):
    comparison = comparison_of(None, **{"adversarial_validation": CLEAR, **values})
    reason = why_unknown(comparison, [], 1000)
    assert reason.endswith(".") == bool(words) and words in reason


def test_in_a_large_training_table_the_error_of_rows_like_test_rows_is_not_known():
    comparison = comparison_of(None, adversarial_validation=CLEAR.model_copy(update={"like_test": []}))
    assert why_unknown(comparison, [], 20_001).startswith("Above 20,000 training rows")


@pytest.mark.parametrize(
    ("share", "test_share", "is_warned"), [(0.005, 0.005, False), (0.3, 0.3, True), (0.005, 0.5, True)]
)
def test_probabilities_of_a_class_with_few_rows_are_not_compared(share, test_share, is_warned):
    """Whether its rows are predicted with .9 or .3, which is chance for a few of them."""
    task = Task(["y"], problem_type="binary", classes=["no", "yes"])
    out_of_fold, test = (
        np.where(np.arange(1000) < 1000 * of_rows, high, 0.001)[:, None]
        for of_rows, high in ((share, 0.9), (test_share, 0.3))
    )
    columns = SimpleNamespace(test=None, has_fold=np.full(1000, True))
    run: Any = SimpleNamespace(columns=columns, task=task, facts=SimpleNamespace(has_test_table=True))
    chosen: Any = SimpleNamespace(outputs=out_of_fold, final=SimpleNamespace(outputs=lambda _: test))
    assert bool(compare_predictions(run, chosen)) == is_warned


def test_folds_that_do_not_hold_out_what_the_test_table_does_are_the_first_reason():
    reason = why_unknown(None, ["WARNING: folds split plates", "WARNING: other"], 1000)
    assert reason == "folds split plates."
    assert why_unknown(None, [], 1000) == ""
