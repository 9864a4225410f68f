"""The candidates of a blend, from simple to complex; the table at the end is the registry.

A candidate is one function, `fit(P, y, metric, folds, weights) -> predictor`:

    P: (n_rows, n_columns, n_outputs), out-of-fold predictions.
    y: (n_rows, n_targets), NaN where a label is missing.
    metric: a `competition.metrics.Metric`.
    folds: (n_rows,), for what is tuned by cross-fitting.
    weights: "per_target" or "shared", as the YAML says.

A predictor is a dataclass of numbers, texts and arrays with `predict(P)`, which returns (n_rows, n_outputs); weights
(n_columns,) will do as well. One of your own is named `mine.py:fit` in the YAML. A function sees the rows that it is
fitted on and no other: scores come from fits without each fold.

A weighted mean can also be a solver, `solve(problem) -> Solution`, which finds its weights from sums that are kept of
each fold, and so is refitted in no time. Where a single fold is left nothing can be cross-fitted, and what is tuned by
cross-fitting is the exact convex blend: nearer to what is submitted than the mean, which knows no label.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import numpy as np

from competition.metrics import Metric
from competition.types import Array, Integers
from competition.user_code import load_user_code, user_code_errors
from submissions.blend.convex import least_absolute_weights, least_squares_weights
from submissions.blend.logits import PENALTIES as LOGIT_PENALTIES
from submissions.blend.logits import Link, logits, probabilities
from submissions.blend.serialization import Predictor, require_predictions, serializable
from submissions.blend.weight_problem import NO_FOLDS, BlendData, FoldSet, Solution, Solver, WeightProblem

SMALLEST_PENALTY, LARGEST_PENALTY = 1e-4, 10.0
PENALTIES = np.geomspace(SMALLEST_PENALTY, LARGEST_PENALTY, 21, dtype=np.float64)
GREEDY_STEPS = 25
CLIMBING_STEPS = np.delete(np.arange(-50, 51), 50) / 100
QUANTILES = np.linspace(0, 1, 501)


@serializable
@dataclass(frozen=True)
class Blend:
    """A weighted sum of columns, or of their logits.

    weights: (n_columns, n_outputs); intercept: (n_outputs,); settings: what was tuned, by name, for each target.
    link: on which scale columns are summed.
    """

    weights: Array
    intercept: Array
    settings: list[dict[str, float]] = field(default_factory=list)
    link: Link = "identity"

    def predict(self, P: Array) -> Array:
        """See `Predictor`."""
        return probabilities(np.einsum("nco,co->no", logits(P, self.link), self.weights) + self.intercept, self.link)


@dataclass(eq=False, repr=False)
class Candidate:
    """A function that fits a predictor, refitted without some folds; named: of a user's own, in the YAML."""

    function: Callable[..., Any]
    named: str = ""

    def fit(self, m: BlendData, without: FoldSet = NO_FOLDS) -> Predictor:
        """The predictor fitted on the rows of all folds but some; the plain mean where none is left."""
        left = m.rows_outside(without)
        if not left.any():
            return WeightedCandidate(mean).fit(m, without)
        P, y, folds = m.preds[left], m.y[left], m.folds[left]  # copies, into which a user's function may write
        if not self.named:
            return self.function(P, y, m.metric, folds, m.weights)
        with user_code_errors(self.named, f"return weights ({P.shape[1]},) or a dataclass with predict(P)"):
            found: Any = self.function(P, y, m.metric, folds, m.weights)
            if not is_dataclass(type(found)):
                weights = np.asarray(found, dtype=np.float64).reshape(P.shape[1], -1)
                found = Blend(weights + np.zeros(P.shape[1:]), np.zeros(P.shape[2]))
            require_predictions(found.predict(m.preds[left]), (len(P), P.shape[2]), m.link)
            return found


@dataclass(eq=False, repr=False)
class WeightedCandidate(Candidate):
    """A solver for weights as a candidate; in_logits: whether they are weights of logits, where columns have any."""

    in_logits: bool = False

    def fit(self, m: BlendData, without: FoldSet = NO_FOLDS) -> Blend:
        """Weights in the targets' own units; the plain mean for a target without a labelled row left."""
        parts, link = [], m.link if self.in_logits else "identity"
        for problem in (each.without(without) for each in m.problems):
            for t, n in enumerate(problem.units[0]):
                found = problem.solve(self.function if n else mean)
                added = problem.offset(found.weights, found.intercept)[t] if link == "identity" else 0.0
                parts.append((found.weights[np.argsort(problem.order)], added, found.settings))
        weights, intercepts, settings = zip(*parts, strict=True)
        of_outputs = np.column_stack(weights).repeat(m.outputs_per_target, axis=1)
        return Blend(of_outputs, np.array(intercepts).repeat(m.outputs_per_target), list(settings), link)


def best_single(problem: WeightProblem) -> Solution:
    """All weight on the column with the best score; for a metric of the user's own, the least squared error."""
    each = np.eye(problem.n_columns)
    return Solution(each[np.argmin(problem.loss(each))])


def mean(problem: WeightProblem) -> Solution:
    """The plain mean of the columns."""
    return Solution(np.full(problem.n_columns, 1.0 / problem.n_columns))


def convex(problem: WeightProblem) -> Solution:
    """Weights of at least 0 that sum to 1, exact for squared and absolute errors; the former serve other metrics."""
    if problem.m.convex_objective == "absolute":
        return Solution(least_absolute_weights(problem.errors))
    return Solution(least_squares_weights(problem.moments[2:, 2:]))


def common(problem: WeightProblem) -> Solution:
    """What a target with few labels is best drawn to: the convex weights of all targets together, each of which counts
    the same; equal ones where there is no other target."""
    if len(problem.m.problems) == 1:
        return mean(problem)
    return Solution(least_squares_weights(problem.of_all_targets))


def shrunk_ridge(problem: WeightProblem) -> Solution:
    """Convex and common weights mixed, corrected by a ridge on what they leave; both amounts tuned by Optuna.

    w = w0 + v; w0 = t * common + (1 - t) * convex; v the ridge solution on the residual y - columns w0 with penalty
    a * n_rows, in standard units. (t, a) minimise the cross-fitted error: each fold left is predicted by weights,
    convex ones included, that were fitted without it.
    Ours; what it gains is measured by benchmarks/blenders.py, and common weights in docs/benchmarks.md.
    """
    if len(problem.folds) < 2:
        return problem.solve(convex)

    def weights_of(problems: list[WeightProblem]) -> Callable[..., Array]:
        gram, _, _, with_errors = _products(problems)
        exact, usual = (np.array([each.solve(solver).weights for each in problems]) for solver in (convex, common))

        def weights(towards_common: float, penalty: float) -> Array:
            start = towards_common * usual + (1 - towards_common) * exact
            return start + _ridge_solution(gram, np.einsum("pij,pj->pi", with_errors, start), penalty)

        return weights

    held_out = weights_of(problem.inner)

    def error(trial: Any) -> float:
        towards_common = trial.suggest_float("towards_common", 0.0, 1.0)
        penalty = trial.suggest_float("penalty", SMALLEST_PENALTY, LARGEST_PENALTY, log=True)
        return problem.loss(held_out(towards_common, penalty)[:, None])[0]

    # first the corners: common and convex weights, hardly corrected
    corners = [{"towards_common": corner, "penalty": LARGEST_PENALTY} for corner in (1.0, 0.0)]
    settings = _tuned(error, corners, problem.m.trials, problem.seed)
    return Solution(weights_of([problem])(**settings)[0], settings=settings)


def ridge(problem: WeightProblem) -> Solution:
    """Signed weights with an intercept, penalty a * n_rows in standard units; a has the least cross-fitted error.

    Source: Hoerl and Kennard, "Ridge regression", Technometrics 1970; as a blend, Breiman, "Stacked regressions",
    Machine Learning 1996.
    """
    if len(problem.folds) < 2:
        return problem.solve(convex)

    def solutions(problems: list[WeightProblem], penalties: Array) -> tuple[Array, Array]:
        """Weights (n_problems, n_penalties, n_columns) and intercepts (n_problems, n_penalties)."""
        gram, means, with_y, _ = _products(problems)
        gram = gram - means[:, :, None] * means[:, None, :]
        weights = np.stack([_ridge_solution(gram, with_y, penalty) for penalty in penalties], axis=1)
        return weights, -(means[:, None] * weights).sum(axis=2)

    best = PENALTIES[[np.argmin(problem.loss(*solutions(problem.inner, PENALTIES)))]]
    weights, intercepts = solutions([problem], best)
    return Solution(weights[0, 0], intercepts[0, 0], {"penalty": best[0]})


def shrunk_logits(problem: WeightProblem) -> Solution:
    """Weights of logits with the least log loss, shrunk towards convex ones; the amount is tuned across the folds.

    w >= 0 minimise the mean log loss of sum_j w_j logit_j, and penalty * |w - convex|^2, the convex weights of all
    targets together; the sum of w, an inverse temperature, is free but for `TOWARDS_ONE`. The penalty has the least
    cross-fitted loss of the metric, or log loss where that is a poor guide (`Problem.measure`); it is one of a few, so
    that a fit serves many problems.

    Not towards equal weights: a column of test rows is the mean of K models, to which a blend of many columns adds less
    than it seems to out of fold; benchmarks/class_blenders.py has the measurements.
    Sources: Ting and Witten, "Issues in stacked generalization", JAIR 1999, for weights of at least 0 by the squared
    errors of probabilities; Guo et al., "On calibration of modern neural networks", ICML 2017, for the temperature.
    """
    if len(problem.folds) < 2:
        return Solution(problem.log_loss_weights[-1])
    held_out = np.stack([each.log_loss_weights for each in problem.inner])
    best = np.argmin(problem.loss(held_out, in_logits=True))
    return Solution(problem.log_loss_weights[best], settings={"penalty": LOGIT_PENALTIES[best]})


def _products(problems: list[WeightProblem]) -> tuple[Array, ...]:
    """X'X, X'1, X'y and X'E over n_rows of each of several problems, X = columns in standard units."""
    n_columns = problems[0].n_columns
    to_columns = np.hstack([np.tile([0.0, 1.0], (n_columns, 1)), -np.eye(n_columns)])  # X = y - E, of 1, y and E
    products = to_columns @ np.array([problem.moments for problem in problems])
    return products @ to_columns.T, products[:, :, 0], products[:, :, 1], products[:, :, 2:]


def _ridge_solution(gram: Array, right: Array, penalty: float) -> Array:
    """(gram + penalty) v = right, (n_problems, n_columns)."""
    return np.asarray(np.linalg.solve(gram + penalty * np.eye(gram.shape[1]), right[:, :, None])[:, :, 0])


def greedy(problem: WeightProblem) -> Solution:
    """Greedy selection: 25 times the column whose addition to the mean helps most; cut where the loss was least.

    Source: Caruana et al., "Ensemble selection from libraries of models", ICML 2004; with replacement and cut at the
    best step as in AutoGluon's EnsembleSelection.
    """
    each = np.eye(problem.n_columns)
    taken, best, least = np.zeros(problem.n_columns), each[0], np.inf
    for step in range(1, GREEDY_STEPS + 1):
        losses = problem.loss((taken + each) / step)
        nearest = np.argmin(losses)
        taken = taken + each[nearest]
        if losses[nearest] < least:
            best, least = taken / step, losses[nearest]
    return Solution(best)


def hill_climb(problem: WeightProblem) -> Solution:
    """Signed hill climbing: from the best column, mix in the one that helps most, by -0.5 to 0.5, while one does.

    Each column is mixed in once; weights sum to 1. Source: the package hillclimbers, with negative weights.
    """
    each, steps = np.eye(problem.n_columns), CLIMBING_STEPS[:, None]
    losses, unused = problem.loss(each), list(range(problem.n_columns))
    weights, least = each[unused.pop(np.argmin(losses))], losses.min()
    while unused:
        found = {j: problem.loss((1 - steps) * weights + steps * each[j]) for j in unused}
        j = min(unused, key=lambda j: found[j].min())
        if not found[j].min() < least:
            break
        step, least = CLIMBING_STEPS[np.argmin(found[j])], found[j].min()
        weights = (1 - step) * weights + step * each[j]
        unused.remove(j)
    return Solution(weights)


def optuna(problem: WeightProblem) -> Solution:
    """Weights of at least 0 that sum to 1, by Optuna on the metric itself, from the convex and the equal ones.

    For metrics without an exact form, as rank correlations; for the others `convex` has the answer already.
    Probabilities are weighed in logits, from `shrunk_logits`, whose sum of weights is kept.
    """
    in_logits, names = problem.m.has_probabilities, [f"column_{j}" for j in range(problem.n_columns)]
    start = problem.solve(shrunk_logits if in_logits else convex).weights
    total = start.sum() if in_logits else 1.0

    def normalised(found: dict[str, float]) -> Array:
        weights = np.array([found[name] for name in names])
        return total * (weights / weights.sum() if weights.sum() > 0 else np.full(len(names), 1 / len(names)))

    def error(trial: Any) -> float:
        weights = normalised({name: trial.suggest_float(name, 0.0, 1.0) for name in names})
        return problem.loss(weights[None], in_logits=in_logits)[0]

    first = [start / max(start.max(), 1e-300), np.ones(len(names))]
    trials = [dict(zip(names, weights.tolist(), strict=True)) for weights in first]
    return Solution(normalised(_tuned(error, trials, problem.m.weight_trials, problem.seed)))


def _tuned(error: Callable[[Any], float], first: list[dict[str, float]], trials: int, seed: int) -> dict[str, float]:
    """The settings of least error, which takes them from a trial of Optuna; the trials `first` come first."""
    import optuna as library

    library.logging.set_verbosity(library.logging.WARNING)
    study = library.create_study(sampler=library.samplers.TPESampler(seed=seed))
    for settings in first:
        study.enqueue_trial(settings)
    study.optimize(error, n_trials=trials)
    return study.best_params


@serializable
@dataclass(frozen=True)
class Median:
    """The median of the columns; of the logarithms of what has to sum to 1, where columns may leave no class but 0."""

    link: Link = "identity"

    def predict(self, P: Array) -> Array:
        """See `Predictor`."""
        return probabilities(np.median(logits(P, self.link), axis=1), self.link)


def median(P: Array, y: Array, metric: Metric, folds: Integers, weights: str) -> Median:
    """The median of the columns, which no single column that goes astray can move far."""
    return Median("softmax" if P.shape[2] > y.shape[1] else "identity")


@serializable
@dataclass(frozen=True)
class MeanOfRanks:
    """The mean rank of the columns, as the label of that rank.

    columns: (n_outputs, n_columns, n_quantiles) of the out-of-fold predictions; labels: (n_outputs, n_quantiles).
    """

    columns: Array
    labels: Array

    def predict(self, P: Array) -> Array:
        """See `Predictor`; a rank is looked up in the stored quantiles, so one row alone gets the same prediction."""
        y_pred = []
        for t, (columns, labels) in enumerate(zip(self.columns, self.labels, strict=True)):
            ranks = np.mean([np.interp(P[:, j, t], known, QUANTILES) for j, known in enumerate(columns)], axis=0)
            y_pred.append(np.interp(ranks, QUANTILES, labels))
        return np.column_stack(y_pred)


def mean_of_ranks(P: Array, y: Array, metric: Metric, folds: Integers, weights: str) -> MeanOfRanks:
    """The mean of the columns' ranks: for a metric of ranks, where columns are on scales of their own.

    Where labels are classes, the mean of the columns has the rank, which then is a probability.
    """
    of_ranks = y if "regression" in metric.types else P.mean(axis=1)
    labels = [np.nanquantile(each, QUANTILES) if np.isfinite(each).any() else QUANTILES * 0 for each in of_ranks.T]
    return MeanOfRanks(np.moveaxis(np.quantile(P, QUANTILES, axis=0), 0, -1).swapaxes(0, 1), np.array(labels))


SOLVERS: list[Solver] = [best_single, mean, convex, shrunk_logits, shrunk_ridge, ridge, greedy, hill_climb, optuna]
CANDIDATES: dict[str, Candidate] = {
    **{solver.__name__: WeightedCandidate(solver, in_logits=solver in (shrunk_logits, optuna)) for solver in SOLVERS},
    **{function.__name__: Candidate(function) for function in (median, mean_of_ranks)},
}
CLASS_CANDIDATES = ("best_single", "mean", "convex", "shrunk_logits", "greedy", "optuna", "median", "mean_of_ranks")
REGRESSION_CANDIDATES = tuple(name for name in CANDIDATES if name != "shrunk_logits")
"""Candidates for columns of probabilities, and for columns of numbers."""
ALWAYS_REGRESSION = ("best_single", "mean", "convex", "shrunk_ridge", "ridge")
ALWAYS_CLASSES = CLASS_CANDIDATES[:4]
"""Candidates that every run compares with the default: they cost next to nothing."""


def get_candidate(named: str) -> Candidate:
    """A candidate by its name in the YAML."""
    if named in CANDIDATES:
        return CANDIDATES[named]
    function = load_user_code("submissions.candidates", named, "fit(P, y, metric, folds, weights)")
    return Candidate(function, named)
