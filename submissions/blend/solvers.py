"""Solvers: the functions that find the weights of a blend, from simple to complex.

A solver `solve(problem) -> Solution` gets a `WeightProblem`, works in standard units and returns
weights in the order of the problem; the docstring of weight_problem.py has a worked example. Most
solvers read sums over folds and are therefore refitted quickly. This one weights each base model by its
inverse mean squared error:

    def inverse_error(problem: WeightProblem) -> Solution:
        mean_squares = np.diag(problem.moments[ERRORS, ERRORS])  # (n_models,), in standard units
        weights = 1 / mean_squares
        return Solution(weights / weights.sum())  # in the order of the problem

In `candidates.SOLVERS` it becomes the candidate `inverse_error`. Nothing can be tuned by cross-fitting
on a single fold. Solvers with tuned settings then return the convex blend, which is closer to what is
submitted than the mean, since it uses the labels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from competition.types import Array
from submissions.blend.blend_losses import blend_losses
from submissions.blend.convex import least_absolute_weights, least_squares_weights
from submissions.blend.logits import PENALTIES as LOGIT_PENALTIES
from submissions.blend.weight_problem import ERRORS, LABEL, ONE, Solution, WeightProblem

MIN_PENALTY = 1e-4
MAX_PENALTY = 10.0
PENALTIES = np.geomspace(MIN_PENALTY, MAX_PENALTY, 21, dtype=np.float64)
"""Ridge penalties per row, in standard units."""
GREEDY_STEPS = 25
CLIMBING_STEPS = np.delete(np.arange(-50, 51), 50) / 100
"""Weights of the model that a step of hill climbing mixes in: -0.5 to 0.5 without 0."""


def best_single(problem: WeightProblem) -> Solution:
    """Put all weight on the base model with the smallest `blend_losses`."""
    one_hot = np.eye(problem.n_models)
    return Solution(one_hot[np.argmin(blend_losses(problem, one_hot))])


def mean(problem: WeightProblem) -> Solution:
    """Weight all base models equally."""
    return Solution(np.full(problem.n_models, 1.0 / problem.n_models))


def convex(problem: WeightProblem) -> Solution:
    """Find the best weights >= 0 with sum 1, exact for squared and absolute errors.

    Metrics of other errors use squared errors.
    """
    if problem.data.convex_objective == "absolute":
        return Solution(least_absolute_weights(problem.errors))
    return Solution(least_squares_weights(problem.moments[ERRORS, ERRORS]))


def pooled_convex(problem: WeightProblem) -> Solution:
    """Find the convex weights of all targets together, each with the same influence.

    A target with few labels is shrunk towards these weights. With a single weight problem they are
    equal.
    """
    if len(problem.data.problems) == 1:
        return mean(problem)
    return Solution(least_squares_weights(problem.pooled_gram))


def shrunk_ridge(problem: WeightProblem) -> Solution:
    """Mix convex and pooled convex weights and correct them by a ridge on the residual.

    The weights are w0 + v with w0 = t * pooled + (1 - t) * convex. v is the ridge solution on the
    residual y - preds w0 with penalty a * n_rows, in standard units. Optuna tunes (t, a) on the
    cross-fitted error: each fold is predicted by weights, convex ones included, that were fitted
    without it. benchmarks/blenders.py measures the gain, and docs/ensembling.md the gain of the pooled
    weights.
    """
    if len(problem.folds) < 2:
        return problem.solve(convex)
    held_out_ridge = _ShrunkRidge(problem.leave_one_fold_out)

    def cross_fitted_loss(trial: Any) -> float:
        towards_common = trial.suggest_float("towards_common", 0.0, 1.0)
        penalty = trial.suggest_float("penalty", MIN_PENALTY, MAX_PENALTY, log=True)
        return blend_losses(problem, held_out_ridge.weights(towards_common, penalty)[:, None])[0]

    # The first trials are pooled and convex weights with almost no correction.
    first_trials = [{"towards_common": share, "penalty": MAX_PENALTY} for share in (1.0, 0.0)]
    settings = _tune(cross_fitted_loss, first_trials, problem.data.trials, problem.seed)
    return Solution(_ShrunkRidge([problem]).weights(**settings)[0], settings=settings)


class _ShrunkRidge:
    """Weights of the shrunk ridge for several problems, as a function of its settings."""

    def __init__(self, problems: list[WeightProblem]) -> None:
        self.products = _PredictionProducts.of_problems(problems)
        self.convex_weights = np.array([problem.solve(convex).weights for problem in problems])
        self.pooled_weights = np.array([problem.solve(pooled_convex).weights for problem in problems])

    def weights(self, towards_common: float, penalty: float) -> Array:
        """Return weights (n_problems, n_models).

        Args:
            towards_common: share of the pooled weights in the start, 0 to 1.
            penalty: ridge penalty per row.
        """
        start = towards_common * self.pooled_weights + (1 - towards_common) * self.convex_weights
        with_residual = np.einsum("pij,pj->pi", self.products.with_errors, start)
        return start + _solve_ridge(self.products.gram, with_residual, penalty)


def ridge(problem: WeightProblem) -> Solution:
    """Find signed weights and an intercept by ridge regression.

    The penalty is a * n_rows in standard units, with the a of `PENALTIES` that has the best
    cross-fitted score. Source: Hoerl and Kennard, "Ridge regression", Technometrics 1970; as a blend,
    Breiman, "Stacked regressions", Machine Learning 1996.
    """
    if len(problem.folds) < 2:
        return problem.solve(convex)
    losses = blend_losses(problem, *_ridge_path(problem.leave_one_fold_out, PENALTIES))
    best_penalty = PENALTIES[[np.argmin(losses)]]
    weights, intercepts = _ridge_path([problem], best_penalty)
    return Solution(weights[0, 0], intercepts[0, 0], {"penalty": best_penalty[0]})


def _ridge_path(problems: list[WeightProblem], penalties: Array) -> tuple[Array, Array]:
    """Return weights (n_problems, n_penalties, n_models) and intercepts (n_problems, n_penalties)."""
    products = _PredictionProducts.of_problems(problems)
    means = products.with_one
    covariance = products.gram - means[:, :, None] * means[:, None, :]
    solutions = [_solve_ridge(covariance, products.with_y, penalty) for penalty in penalties]
    weights = np.stack(solutions, axis=1)
    return weights, -(means[:, None] * weights).sum(axis=2)


@dataclass(frozen=True)
class _PredictionProducts:
    """Means over rows of products with base predictions X, in standard units, for several problems.

    Attributes:
        gram: X'X, (n_problems, n_models, n_models).
        with_one: X'1, (n_problems, n_models).
        with_y: X'y, (n_problems, n_models).
        with_errors: X'E, (n_problems, n_models, n_models).
    """

    gram: Array
    with_one: Array
    with_y: Array
    with_errors: Array

    @staticmethod
    def of_problems(problems: list[WeightProblem]) -> "_PredictionProducts":
        """Return the products from the moments of the problems."""
        n_models = problems[0].n_models
        # X = y - E as a linear function of z = (1, y, E)
        to_preds = np.hstack([np.tile([0.0, 1.0], (n_models, 1)), -np.eye(n_models)])
        products = to_preds @ np.array([problem.moments for problem in problems])
        return _PredictionProducts(
            gram=products @ to_preds.T,
            with_one=products[:, :, ONE],
            with_y=products[:, :, LABEL],
            with_errors=products[:, :, ERRORS],
        )


def _solve_ridge(gram: Array, right: Array, penalty: float) -> Array:
    """Return the solution v of (gram + penalty * identity) v = right, (n_problems, n_models).

    Equal columns whose products are large beside the penalty make the matrix singular: the shortest solution.
    """
    penalized = gram + penalty * np.eye(gram.shape[1])
    return np.stack(
        [np.linalg.lstsq(matrix, y, rcond=None)[0] for matrix, y in zip(penalized, right, strict=True)]
    )


def shrunk_logits(problem: WeightProblem) -> Solution:
    """Find weights of logits with the smallest log loss, shrunk towards convex weights.

    w >= 0 minimizes the mean log loss of sum_j w_j logit_j plus penalty * |w - convex|^2, with the
    convex weights of all targets together. The sum of w is an inverse temperature; only
    `logits.SUM_PENALTY` limits it. The penalty has the best cross-fitted score of
    `WeightProblem.tuning_metric`. There are few penalties to choose from, so that one fit serves many
    problems.

    Equal weights would be a worse target: a base prediction for a test row is the mean of K fold
    models, to which a blend of many models adds less than out of fold; benchmarks/class_blenders.py has
    the measurements. Sources: Ting and Witten, "Issues in stacked generalization", JAIR 1999, for
    weights of at least 0 by squared errors of probabilities; Guo et al., "On calibration of modern
    neural networks", ICML 2017, for the temperature.
    """
    if len(problem.folds) < 2:
        return Solution(problem.logit_weights[-1])
    held_out_weights = np.stack([part.logit_weights for part in problem.leave_one_fold_out])
    best = np.argmin(blend_losses(problem, held_out_weights, in_logits=True))
    return Solution(problem.logit_weights[best], settings={"penalty": LOGIT_PENALTIES[best]})


def greedy(problem: WeightProblem) -> Solution:
    """Select models greedily: add the model that helps the mean most, 25 times; return the best step.

    Source: Caruana et al., "Ensemble selection from libraries of models", ICML 2004; with replacement
    as in AutoGluon's EnsembleSelection.
    """
    one_hot = np.eye(problem.n_models)
    counts = np.zeros(problem.n_models)
    best_weights = one_hot[0]
    best_loss = np.inf
    for step in range(1, GREEDY_STEPS + 1):
        losses = blend_losses(problem, (counts + one_hot) / step)
        added = np.argmin(losses)
        counts = counts + one_hot[added]
        if losses[added] < best_loss:
            best_weights = counts / step
            best_loss = losses[added]
    return Solution(best_weights)


def hill_climb(problem: WeightProblem) -> Solution:
    """Climb from the best model: mix in the model that helps most, as long as one helps.

    A model is mixed in at most once, by -0.5 to 0.5; weights sum to 1. Source: the package
    hillclimbers.
    """
    one_hot = np.eye(problem.n_models)
    steps = CLIMBING_STEPS[:, None]
    unused = list(range(problem.n_models))
    losses = blend_losses(problem, one_hot)
    weights = one_hot[unused.pop(np.argmin(losses))]
    best_loss = losses.min()
    while unused:
        step_losses = {j: blend_losses(problem, (1 - steps) * weights + steps * one_hot[j]) for j in unused}
        added = min(unused, key=lambda j: step_losses[j].min())
        if not step_losses[added].min() < best_loss:
            break
        best_loss = step_losses[added].min()
        step = CLIMBING_STEPS[np.argmin(step_losses[added])]
        weights = (1 - step) * weights + step * one_hot[added]
        unused.remove(added)
    return Solution(weights)


def optuna(problem: WeightProblem) -> Solution:
    """Tune weights >= 0 with sum 1 on the metric itself by Optuna.

    The first trials are convex and equal weights. It is meant for metrics without an exact solution,
    such as rank correlations; for the others `convex` is exact. Probabilities are weighted in logits,
    starting from `shrunk_logits`, and the sum of its weights is kept.
    """
    in_logits = problem.data.has_probabilities
    names = [f"column_{j}" for j in range(problem.n_models)]
    start = problem.solve(shrunk_logits if in_logits else convex).weights
    total = start.sum() if in_logits else 1.0

    def normalize(settings: dict[str, float]) -> Array:
        weights = np.array([settings[name] for name in names])
        return total * (weights / weights.sum() if weights.sum() > 0 else np.full(len(names), 1 / len(names)))

    def loss(trial: Any) -> float:
        weights = normalize({name: trial.suggest_float(name, 0.0, 1.0) for name in names})
        return blend_losses(problem, weights[None], in_logits=in_logits)[0]

    first_weights = [start / max(start.max(), 1e-300), np.ones(len(names))]
    first_trials = [dict(zip(names, weights.tolist(), strict=True)) for weights in first_weights]
    return Solution(normalize(_tune(loss, first_trials, problem.data.weight_trials, problem.seed)))


def _tune(
    objective: Callable[[Any], float], first_trials: list[dict[str, float]], n_trials: int, seed: int
) -> dict[str, float]:
    """Return the settings that minimize an objective, after `n_trials` of Optuna including `first_trials`."""
    import optuna as library

    library.logging.set_verbosity(library.logging.WARNING)
    study = library.create_study(sampler=library.samplers.TPESampler(seed=seed))
    for settings in first_trials:
        study.enqueue_trial(settings)
    study.optimize(objective, n_trials=n_trials)
    return study.best_params
