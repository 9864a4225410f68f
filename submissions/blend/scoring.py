"""Scores of predictions of the training rows, and their standard errors.

Standard errors come from a paired bootstrap over groups of rows. All predictions are scored on the same
resamples, so the standard deviation of the difference of two scores over the resamples is the standard error
of that difference. Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 16.

A metric that takes rows may average over groups, and would take the copies of a group for one. For it half of
the groups are drawn, each once. Source: Shao and Wu, "A General Theory for Jackknife Variance Estimation", The
Annals of Statistics 1989 (delete-d jackknife).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from hashlib import sha256
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.metrics import REGRESSION, Metric, take_rows
from competition.task import Task
from core.files import derive_seed
from core.types import Array, Integers

Number = TypeVar("Number", float, pd.Series)
MAX_RESAMPLES = 200
"""Number of resamples, with which a standard error is accurate to 5 %."""
MIN_RESAMPLES = 50
"""Number of resamples of large tables."""
MAX_LABELS = 20_000_000
"""Labels, or probabilities of classes, that are scored of all resamples together, above which there are fewer."""
FEW_RESAMPLES = 20
"""Number of resamples for a slow metric, with which a standard error is accurate to 16 %."""
SLOW_CALL = 0.02
"""Seconds of a call from which a user-defined metric is slow. The time of most is far from it, so that a
repeated command has the same number of resamples."""
Function = TypeVar("Function", bound=Callable[..., Any])


def computed_once(function: Function) -> Function:
    """Decorate a function of a `Scorer` and other arguments to store its results in the memo of the scorer."""

    @wraps(function)
    def look_up(scorer: "Scorer", *arguments: Any) -> Any:
        key = (function.__name__, *arguments)
        if key not in scorer.memo:
            scorer.memo[key] = function(scorer, *arguments)
        return scorer.memo[key]

    return cast(Function, look_up)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scorer:
    """The labels of the training rows, with which predictions are scored on all rows and on resamples.

    Attributes:
        y: (n_rows, n_targets), NaN for missing labels.
        folds: (n_rows,); rows with fold -1 are never used.
        groups: (n_rows,); rows of one group share a fold, and the bootstrap resamples them together.
        ids: n_rows ids of the rows, with which tables of predictions are joined.
        rows: n_rows rows of the raw table, for a metric that takes them.
        seed: seed of the competition.
        n_resamples: number of resamples; None if it depends on the number of labels and the time of the
            metric.
        memo: what was computed already.
    """

    metric: Metric
    task: Task
    y: Array
    folds: Integers
    groups: Integers
    ids: list[str] = field(default_factory=list)
    rows: pd.DataFrame | None = None
    seed: int = 0
    n_resamples: int | None = None
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def has_fold(self) -> NDArray[np.bool_]:
        """Mask of the rows that are scored, (n_rows,)."""
        return self.folds >= 0

    @property
    def n_groups(self) -> int:
        """Number of groups of the rows with a fold."""
        return len(np.unique(self.groups[self.has_fold]))

    def score(self, scored: Array) -> float:
        """Return the metric of labels or predictions (n_rows, n_scored) on the rows with a fold."""
        return self.score_of_rows(np.flatnonzero(self.has_fold), scored)

    def score_of_rows(self, index: Integers, scored: Array) -> float:
        """Return the metric of labels or predictions (n_rows, n_scored) on some rows, an index (n,)."""
        return self.metric(self.y[index], scored[index], take_rows(self.rows, index))

    def target_scores(self, scored: Array) -> dict[str, float]:
        """Return "all" -> the score of all targets, and the score per target; only the latter for one target.

        A target has the score NaN by a user's metric, which may need all targets.
        """
        targets = self.task.targets
        scores = {"all": self.score(scored)}
        if len(targets) == 1:
            return {targets[0]: scores["all"]}
        rows = self.has_fold
        for target, y, y_pred in zip(targets, self.y[rows].T, scored[rows].T, strict=True):
            scores[target] = self.metric.score_column(y, y_pred) if self.metric.column_score else np.nan
        return scores

    def gain(self, difference: Number) -> Number:
        """Return a difference of scores, or several, with the sign turned so that positive is better."""
        return difference if self.metric.greater_is_better else 0.0 - difference  # no -0.0

    def aligned(self, table: pd.DataFrame) -> Array:
        """Return the scored columns of a table indexed by id, (n_rows, n_scored); NaN for missing ids."""
        return table.reindex(index=self.ids, columns=self.task.scored_columns).to_numpy()

    def on_rows_of(self, *scored: Array) -> "Scorer":
        """Return what scores only the rows that all predictions (n_rows, n_scored) have."""
        in_all = np.all([np.isfinite(values).all(axis=1) for values in scored], axis=0)
        return replace(self, folds=np.where(in_all, self.folds, -1))

    def resampled(self, scored: dict[str, Array], n_rows: int | None = None) -> pd.DataFrame:
        """Score several predictions on the same bootstrap resamples of the rows with a fold.

        Predictions that were scored before are not scored again.

        Args:
            scored: name -> what the metric scores, (n_rows, n_scored).
            n_rows: mean number of rows in a resample; None for all rows with a fold.

        Returns:
            (n_resamples, n_predictions), NaN where the metric is undefined, and where a regression target has
            only one label in a resample, for which R2 has no meaning.
        """
        saved: dict[str, list[float]] = self.memo.setdefault(("resampled", n_rows), {})
        keys = {name: sha256(values.tobytes()).hexdigest() for name, values in scored.items()}
        new = {key: scored[name] for name, key in keys.items() if key not in saved}
        if new:
            n_resamples = len(next(iter(saved.values()))) if saved else self.n_resamples
            saved.update(self._score_resamples(new, n_rows, n_resamples))
        table = pd.DataFrame({name: saved[key] for name, key in keys.items()})
        return table.where(np.isfinite(table))

    def _score_resamples(
        self, scored: dict[str, Array], n_rows: int | None, n_resamples: int | None
    ) -> dict[str, list[float]]:
        """Return name -> score on each resample.

        A slow metric gets FEW_RESAMPLES of them, unless their number is given.
        """
        scored_rows = np.flatnonzero(self.has_fold)
        groups = np.unique(self.groups[scored_rows], return_inverse=True)[1]
        n_groups = int(groups.max()) + 1
        n_drawn = n_groups if n_rows is None else max(1, round(n_rows / len(scored_rows) * n_groups))
        # A mean over so many groups, each drawn once, varies like that over n_drawn groups, drawn with copies.
        n_drawn_once = max(1, round(n_groups * n_drawn / (n_groups + n_drawn)))
        n_labels = len(scored_rows) * len(self.task.scored_columns)
        is_timed = n_resamples is None and self.metric.table_score is not None
        rng = np.random.default_rng(derive_seed(self.seed, "bootstrap"))
        scores: list[list[float]] = []
        fastest_call = math.inf
        for number in range(n_resamples or int(np.clip(MAX_LABELS / n_labels, MIN_RESAMPLES, MAX_RESAMPLES))):
            if number == FEW_RESAMPLES and is_timed and fastest_call > SLOW_CALL:
                break
            if self.metric.takes_rows:
                drawn_groups = rng.choice(n_groups, n_drawn_once, replace=False)
            else:
                drawn_groups = rng.integers(n_groups, size=n_drawn)
            counts = np.bincount(drawn_groups, minlength=n_groups)
            drawn = np.repeat(scored_rows, counts[groups])
            lowest, highest = np.fmin.reduce(self.y[drawn]), np.fmax.reduce(self.y[drawn])
            if self.metric.types == REGRESSION and not (lowest < highest).all():
                scores.append([np.nan] * len(scored))
            else:
                started = time.perf_counter()
                scores.append([self.score_of_rows(drawn, values) for values in scored.values()])
                fastest_call = min(fastest_call, (time.perf_counter() - started) / len(scored))
        return dict(zip(scored, np.transpose(scores).tolist(), strict=True))

    def compare(self, scored: dict[str, Array], reference: str) -> pd.DataFrame:
        """Compare predictions, (n_rows, n_scored) each, with the reference, in the unit of the metric.

        Returns:
            A row per name with the columns `score`, `difference` (it minus the score of the reference), and
            their bootstrap standard errors `score_standard_error` and `standard_error`, which is 0 for the
            reference, with their `n_resamples`.
        """
        scores = pd.Series({name: self.score(values) for name, values in scored.items()})
        resampled = self.resampled(scored)
        differences = resampled.sub(resampled[reference], axis=0)
        return pd.DataFrame(
            {
                "score": scores,
                "difference": scores - scores[reference],
                "score_standard_error": resampled.std(),
                "standard_error": differences.std(),
                "n_resamples": len(resampled),
            }
        )


def widened(n_errors: float, n_groups: int) -> float:
    """Return how many bootstrap standard errors of few groups are as improbable as so many of many groups.

    Resamples of few groups vary too little, and their error is itself uncertain, as for Student's t. Source:
    Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 2015.

    Args:
        n_groups: number of groups that are resampled, at least 2.
    """
    from scipy import stats

    quantile = stats.t.ppf(stats.norm.cdf(n_errors), n_groups - 1)
    return float(np.sqrt(n_groups / (n_groups - 1)) * quantile)


def describe_resamples(n_resamples: int | None) -> list[str]:
    """Return a sentence if a slow metric has reduced the number of resamples; [] otherwise."""
    if n_resamples != FEW_RESAMPLES:
        return []
    return [
        f"A call of the metric takes more than {SLOW_CALL} s, "
        f"so there are {FEW_RESAMPLES} bootstrap resamples instead of up to {MAX_RESAMPLES}."
    ]
