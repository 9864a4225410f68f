"""The score to expect of a submission: its cross-fitted score, and an interval for its test score.

A test row gets the mean of all fold models, which is a little better than the one that predicts it out of
fold. Where test rows differ from training rows, the interval has the error of rows like them
(`submissions.shift`). docs/benchmarks.md has how often it holds.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from competition.metrics import REGRESSION, Metric
from competition.task import Task, to_submission_columns
from core.errors import join_first
from core.files import derive_seed
from core.text import format_duration, format_number
from core.types import Array
from folds.adversarial import MAX_TRAIN_ROWS
from folds.comparison import Comparison
from models.stage import FOLD_MARKS
from submissions.blend.correction import best_constant
from submissions.blend.scoring import Scorer, widened
from submissions.blend.selection import CrossFit
from submissions.manifest import Expected, Interval
from submissions.run import Run
from submissions.shift import comparison_for, error_of, expected_under_shift

NO_TIME = "Your metric failed, or there was no time to call it; a larger --budget, or none, gives it time."
SQUARED = ("mse", "r2", "explained_variance", "pearson", "spearman", "brier", "quadratic_kappa")
"""Metrics of squared errors, also of ranks, whose logarithms vary twice as much."""
COVERAGE = 0.8
"""Probability with which the interval holds the score of the test rows."""
STD_OF_LOG_FACTOR = 0.2
"""Standard deviation of the logarithm of the factor by which the error of rows like test rows differs from
that of the test rows, where a classifier distinguishes all of them from training rows
(docs/benchmarks.md)."""
MIN_WIDTH = 1e-9
"""Width of an interval, as a share of its ends, below which it is the rounding of equal scores."""
MIN_GROUPS = 3
"""Number of groups of training rows below which their errors tell nothing about another group."""
MIN_ROWS = 30
"""Number of test rows, or of those of a class or of all others, below which their predictions are not compared with
those of training rows."""
MAX_EXAMPLE_ROWS = 50
MAX_EXAMPLE_SHARE = 0.01
"""Number of test rows, and share of the number of training rows, up to which the test table is taken for an example."""
MAX_DISTANCE = 0.5
MAX_RATIO = 1.5
"""Limits for the test predictions: distance of their mean, in standard deviations of those out of fold, and
ratio of the two standard deviations in either direction."""


def expected_score(run: Run, chosen: CrossFit, compared: pd.Series) -> Expected:
    """Return the score to expect on the test table.

    Args:
        compared: row of `Selection.compared` of the chosen candidate.
    """
    comparison = comparison_for(run)
    shift = expected_under_shift(comparison) if comparison else None
    unknown = why_unknown(comparison, run.facts.unit_warnings, run.n_train_rows)
    score = compared["score"]
    scored = chosen.scored
    n_predicted = len(run.columns.test_ids)
    n_dropped = run.facts.n_dropped
    if n_dropped:
        scored = with_means(scored, n_dropped / (n_predicted + n_dropped), run.task, run.columns.label_means)
        score = run.columns.score(scored)
    n_test = n_predicted + n_dropped
    n_expected = rows_to_expect(run.facts.is_on_kaggle, n_test, run.n_train_rows)
    warnings = [*compare_with_constant(run.columns, chosen.scored), *compare_predictions(run, chosen)]
    marks = {name: run.fold_mark(name) for name in run.config.stages}
    warnings += [f"WARNING: {name}: {FOLD_MARKS[mark]}" for name, mark in marks.items() if mark]
    if n_expected != n_test:
        warnings.append(
            f"WARNING: the test table has {n_test} rows, which may stand for a hidden one; "
            f"an interval is for a table of {n_expected:,} rows, like the training table."
        )
    scorer: Scorer = run.columns
    if run.config.folds.is_ordered_in_time:  # the test table is one more block
        scorer = replace(scorer, groups=scorer.folds)
    scores = drawn_scores(scorer, scored, n_expected)
    tables = comparison.adversarial_validation if comparison else None
    if tables and shift and shift.factor is not None:
        score = with_factor(np.array([score]), run.metric, shift.factor).item()
        log_std = STD_OF_LOG_FACTOR * tables.strength * (2 if run.metric.name in SQUARED else 1)
        scores = with_factor(scores, run.metric, shift.factor, log_std, run.columns.seed)
    unknown = NO_TIME if run.is_unscored else unknown or why_no_interval(scorer, scores)
    return Expected(
        score=score,
        interval=None if unknown else interval_of(scores, scorer.n_groups),
        unknown=unknown,
        shift=shift,
        warnings=warnings,
    )


def rows_to_expect(is_on_kaggle: bool, n_test_rows: int, n_train_rows: int) -> int:
    """Return how many rows a leaderboard scores: on Kaggle, with a test table of a few rows, as many as for training.

    In a code competition the test table is an example, and a notebook predicts a hidden one.
    """
    is_small = n_test_rows <= min(MAX_EXAMPLE_ROWS, MAX_EXAMPLE_SHARE * n_train_rows)
    return n_train_rows if is_on_kaggle and is_small else n_test_rows


def with_means(scored: Array, share: float, task: Task, label_means: Sequence[float]) -> Array:
    """Return what the metric scores, (n_rows, n_scored), with a constant in a share of the rows.

    The constant is the mean, or most frequent, label: test rows that cannot be read get it in the submission.
    """
    means = np.array([label_means])
    is_mean = np.random.default_rng(derive_seed(0, "means")).permutation(len(scored)) < share * len(scored)
    return np.where(is_mean[:, None], task.as_scored(means), scored)


def why_unknown(comparison: Comparison | None, unit_warnings: list[str], n_rows: int) -> str:
    """Return a sentence on why the error of the test rows is unknown; "" if it was measured.

    If all groups are too large to hold some of them out, the interval of few groups replaces it.

    Args:
        comparison: of training and test rows; None if they were not compared.
        unit_warnings: `folds.recommended.fold_warnings`.
        n_rows: number of training rows, without extra ones.
    """
    if unit_warnings:
        return f"{unit_warnings[0].removeprefix('WARNING: ')}."
    if comparison is None:
        return ""
    shift = comparison.adversarial_validation
    measured = comparison.error_ratio
    if shift is None or not shift.is_clear or (measured and measured.factor is not None):
        return ""
    if n_rows > MAX_TRAIN_ROWS:
        return f"Above {MAX_TRAIN_ROWS:,} training rows, the error of rows like test rows is not measured."
    if not shift.like_test:
        return ""
    if measured is None:
        return "The error of rows like test rows was not measured."
    if measured.stage:
        return f"The error of {measured.stage} on rows like test rows is undefined."
    seconds = format_duration(measured.seconds)
    without = f"No stage without a GPU takes at most {seconds} a fold"
    return f"{without}, so the error of rows like test rows was not measured."


def why_no_interval(scorer: Scorer, scores: Array) -> str:
    """Return a sentence on why scores of resamples, (n,), have no interval; "" if they have one."""
    if scorer.n_groups < MIN_GROUPS:
        return f"The training rows form only {scorer.n_groups} groups."
    if not len(scores):
        return "The metric is undefined on resamples of the training rows."
    interval = interval_of(scores, scorer.n_groups)
    if not np.isclose(interval.lower, interval.upper, rtol=MIN_WIDTH, atol=0):
        return ""
    y = scorer.y[scorer.has_fold]
    counts = [int((y == c).sum(axis=0).min()) for c in range(len(scorer.task.classes))]
    few = f" The rarest class has {min(counts)} training rows." if counts else ""
    return f"Resamples of the training rows have the same score, which does not tell how others vary.{few}"


def drawn_scores(scorer: Scorer, scored: Array, n_test_rows: int) -> Array:
    """Return scores of test rows like the training rows, (n_resamples ** 2,), the finite ones.

    Each is the score of a resample with the size of the test table, minus the error of the score in a
    resample of all training rows.
    """
    of_training = scorer.resampled({"": scored})[""]
    of_test = scorer.resampled({"": scored}, n_test_rows)[""]
    drawn = np.add.outer(of_test.to_numpy(), scorer.score(scored) - of_training.to_numpy()).ravel()
    drawn = drawn[np.isfinite(drawn)]
    error = error_of(scorer.metric, scorer.score(scored))
    if error is not None and error < 0:  # such as the logarithm of an error, by a metric of the user's
        return drawn
    return with_factor(drawn, scorer.metric, 1.0)


def with_factor(scores: Array, metric: Metric, factor: float, log_std: float = 0.0, seed: int = 0) -> Array:
    """Return scores (n,) with an error, at least 0, that is larger by a factor.

    Args:
        log_std: standard deviation of the logarithm of the factor.
    """
    errors = error_of(metric, scores)
    if errors is None:
        return scores
    normal = np.random.default_rng(derive_seed(seed, "interval")).normal(size=len(scores))
    larger = np.maximum(errors, 0.0) * factor * np.exp(log_std * normal)
    # Shares, areas and agreements are not below 0.
    if metric.types != REGRESSION and metric.greater_is_better:
        larger = np.minimum(larger, np.maximum(errors, 1.0))
    return 1 - larger if metric.greater_is_better else larger


def interval_of(scores: Array, n_groups: int) -> Interval:
    """Return the interval between two quantiles of scores of resamples, (n,).

    They are further out for few groups (`widened`, the expanded percentile interval).

    Args:
        n_groups: number of groups that were resampled, at least 2.
    """
    from scipy import stats

    share_below = stats.norm.cdf(widened(stats.norm.ppf((1 + COVERAGE) / 2), n_groups))
    lower, upper = np.quantile(scores, [1 - share_below, share_below])
    return Interval(lower=lower, upper=upper, coverage=COVERAGE)


def compare_with_constant(scorer: Scorer, scored: Array) -> list[str]:
    """Return a warning if predictions, (n_rows, n_scored), score no better than a constant; [] otherwise."""
    constant, constant_score = best_constant(scorer)
    score = scorer.score(scored)
    if np.isnan(constant_score) or np.isnan(score) or scorer.gain(score - constant_score) > 0:
        return []
    cells = to_submission_columns(scorer.task, constant[None]).iloc[0]
    described = [
        f"{name} {cell if isinstance(cell, str) else format_number(cell)}" for name, cell in cells.items()
    ]
    return [
        f"WARNING: the cross-fitted {scorer.metric.name} {format_number(score)} is not better than "
        f"{format_number(constant_score)}, that of the best constant prediction "
        f"({join_first(described, str)}), so nothing was learned that this metric rewards. Add features, "
        "or try other stages."
    ]


def compare_predictions(run: Run, chosen: CrossFit) -> list[str]:
    """Return a warning if test predictions have another mean or standard deviation than those out of fold."""
    test = chosen.final.outputs(run.columns.test)
    out_of_fold = chosen.outputs[run.columns.has_fold]
    if len(test) < MIN_ROWS or not run.facts.has_test_table:
        return []
    means = out_of_fold.mean(axis=0)
    stds = out_of_fold.std(axis=0)
    test_means = test.mean(axis=0)
    test_stds = test.std(axis=0)
    differs = np.abs(test_means - means) > MAX_DISTANCE * stds
    differs |= (test_stds > MAX_RATIO * stds) | (stds > MAX_RATIO * test_stds)
    differs &= test_stds > 0  # a corrected blend may be a constant
    if run.task.has_probabilities:  # of a class with few rows, both numbers depend on a handful of them
        rarest = np.maximum(np.minimum(means, 1 - means), np.minimum(test_means, 1 - test_means))
        smallest = rarest * min(len(test), len(out_of_fold))
        differs &= smallest >= MIN_ROWS
    differing = [
        f"{name} {format_number(test_means[k])} +- {format_number(test_stds[k])}, "
        f"not {format_number(means[k])} +- {format_number(stds[k])}"
        for k, name in enumerate(run.task.outputs)
        if differs[k]
    ]
    if not differing:
        return []
    return [
        "WARNING: test predictions differ in mean or standard deviation from out-of-fold ones: "
        f"{join_first(differing, str)}."
    ]
