"""The linear blends, from simple to complex: the page of their names is the registry.

Every candidate has one signature, `(target, without) -> Blend`: it is fitted on the labelled rows of all folds but
those in `without`, and nothing of those folds enters, so the same functions serve the submission (`without` empty)
and the cross-fitted scores. Weights stand in the order in which `target` shows its columns, intercepts in standard
units; `Target.fit` translates.

Where a single fold is left nothing can be cross-fitted, and what is tuned by cross-fitting is the exact convex blend,
which needs no tuning: nearer to what is submitted than the plain mean, which knows no label at all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from competition.metrics import Array
from submissions.convex import least_absolute_weights, least_squares_weights
from submissions.target import Blend, Folds, Loss, Target, exact_problem

SMALLEST_PENALTY, LARGEST_PENALTY = 1e-4, 10.0
PENALTIES = np.geomspace(SMALLEST_PENALTY, LARGEST_PENALTY, 21, dtype=np.float64)
GREEDY_STEPS = 25
CLIMBING_STEPS = np.delete(np.arange(-50, 51), 50) / 100


def best_single(target: Target, without: Folds) -> Blend:
    """All weight on the column with the best score; for a metric of the user's own, the least squared error."""
    each = np.eye(target.n_stages)
    return Blend(each[int(np.argmin(_in_sample(target, without)(each)))])


def mean(target: Target, without: Folds) -> Blend:
    """The plain mean of the columns."""
    return Blend(np.full(target.n_stages, 1.0 / target.n_stages))


def convex(target: Target, without: Folds) -> Blend:
    """Weights of at least 0 that sum to 1, exact for squared and absolute errors; the former serve other metrics."""
    if exact_problem(target.metric) == "absolute":
        return Blend(least_absolute_weights(target.errors(without)))
    return Blend(least_squares_weights(target.moments(without)[2:, 2:]))


def convex_and_ridge(target: Target, without: Folds) -> Blend:
    """Halfway between `convex` and `ridge`."""
    parts = [target.solve(name, without) for name in ("convex", "ridge")]
    weights, intercept = (np.mean([getattr(part, name) for part in parts], axis=0) for name in ("weights", "intercept"))
    return Blend(weights, float(intercept), parts[1].settings)


def shrunk_ridge(target: Target, without: Folds) -> Blend:
    """Convex and equal weights mixed, corrected by a ridge on what they leave; both amounts tuned by Optuna.

    w = w0 + v; w0 = t * equal + (1 - t) * convex; v the ridge solution on the residual y - columns w0 with penalty
    a * n_rows, in standard units. (t, a) minimise the cross-fitted error: each fold left is predicted by weights,
    convex ones included, that were fitted without it.
    Ours; what it gains is measured by benchmarks/blenders.py.
    """
    inner = target.folds_left(without)
    if len(inner) < 2:
        return target.solve("convex", without)

    def weights_of(sets: list[Folds]) -> Callable[..., Array]:
        ridges = _Ridges(target, sets, centred=False)
        exact = np.array([target.solve("convex", left_out).weights for left_out in sets])

        def weights(towards_equal: float, penalty: float) -> Array:
            start = towards_equal / target.n_stages + (1 - towards_equal) * exact
            return start + ridges.solve(np.einsum("sij,sj->si", ridges.with_errors, start), penalty)

        return weights

    loss = Loss(target, without, cross_fitted=True)
    held_out = weights_of([without | {fold} for fold in inner])

    def error(suggest: Callable[..., float]) -> float:
        towards_equal = suggest("towards_equal", 0.0, 1.0)
        penalty = suggest("penalty", SMALLEST_PENALTY, LARGEST_PENALTY, log=True)
        return float(loss(held_out(towards_equal, penalty)[None])[0])

    # the corners: equal and convex weights, hardly corrected
    corners = [{"towards_equal": corner, "penalty": LARGEST_PENALTY} for corner in (1.0, 0.0)]
    settings = _tuned(error, corners, target.trials, target.seed)
    return Blend(weights_of([without])(**settings)[0], settings=settings)


def ridge(target: Target, without: Folds) -> Blend:
    """Signed weights with an intercept, penalty a * n_rows in standard units; a has the least cross-fitted error.

    Source: Hoerl and Kennard, "Ridge regression", Technometrics 1970; as a blend, Breiman, "Stacked regressions",
    Machine Learning 1996.
    """
    inner = target.folds_left(without)
    if len(inner) < 2:
        return target.solve("convex", without)

    def solutions(sets: list[Folds], penalties: Array) -> tuple[Array, Array]:
        """Weights (n_penalties, n_sets, n_stages) and intercepts (n_penalties, n_sets)."""
        ridges = _Ridges(target, sets, centred=True)
        weights = np.array([ridges.solve(ridges.with_y, penalty) for penalty in penalties])
        return weights, -(ridges.means * weights).sum(axis=2)

    losses = Loss(target, without, cross_fitted=True)(*solutions([without | {fold} for fold in inner], PENALTIES))
    best = int(np.argmin(losses))
    weights, intercepts = solutions([without], PENALTIES[best : best + 1])
    return Blend(weights[0, 0], float(intercepts[0, 0]), {"penalty": float(PENALTIES[best])})


class _Ridges:
    """Ridge solutions without each of several sets of folds, for any penalty and right-hand side.

    X = columns in standard units, centred on their own means or on that of the labels.

    means: (n_sets, n_stages), of X before it is centred on them.
    with_y: X'y / n_rows, (n_sets, n_stages).
    with_errors: X'E / n_rows, (n_sets, n_stages, n_stages), X not centred on its own means.
    """

    def __init__(self, target: Target, sets: list[Folds], centred: bool) -> None:
        # X = y - E as a combination of the entries 1, y, E
        to_columns = np.hstack([np.tile([0.0, 1.0], (target.n_stages, 1)), -np.eye(target.n_stages)])
        products = to_columns @ np.array([target.moments(without) for without in sets])
        self.means, self.with_y, self.with_errors = products[:, :, 0], products[:, :, 1], products[:, :, 2:]
        gram = products @ to_columns.T
        if centred:
            gram = gram - self.means[:, :, None] * self.means[:, None, :]
        values, self._vectors = np.linalg.eigh(gram)
        self._values = np.maximum(values, 0)

    def solve(self, right: Array, penalty: float) -> Array:
        """(X'X / n_rows + penalty) v = right, (n_sets, n_stages)."""
        rotated = np.einsum("sij,si->sj", self._vectors, right) / (self._values + penalty)
        return np.einsum("sij,sj->si", self._vectors, rotated)


def greedy(target: Target, without: Folds) -> Blend:
    """Greedy selection: 25 times the column whose addition to the mean helps most; cut where the loss was least.

    Source: Caruana et al., "Ensemble selection from libraries of models", ICML 2004; with replacement and cut at the
    best step as in AutoGluon's EnsembleSelection.
    """
    loss, each = _in_sample(target, without), np.eye(target.n_stages)
    taken, best, least = np.zeros(target.n_stages), each[0], np.inf
    for step in range(1, GREEDY_STEPS + 1):
        losses = loss((taken + each) / step)
        nearest = int(np.argmin(losses))
        taken = taken + each[nearest]
        if losses[nearest] < least:
            best, least = taken / step, losses[nearest]
    return Blend(best)


def hill_climb(target: Target, without: Folds) -> Blend:
    """Signed hill climbing: from the best column, mix in the one that helps most, by -0.5 to 0.5, while one does.

    Each column is mixed in once; weights sum to 1. Source: the package hillclimbers, with negative weights.
    """
    loss, each = _in_sample(target, without), np.eye(target.n_stages)
    losses = loss(each)
    unused = list(range(target.n_stages))
    weights, least = each[unused.pop(int(np.argmin(losses)))], losses.min()
    while unused:
        steps = CLIMBING_STEPS[:, None]
        mixed = {j: (1 - steps) * weights + steps * each[j] for j in unused}
        found = {j: loss(part) for j, part in mixed.items()}
        j = min(unused, key=lambda j: found[j].min())
        if not found[j].min() < least:
            break
        weights, least = mixed[j][int(np.argmin(found[j]))], found[j].min()
        unused.remove(j)
    return Blend(weights)


def optuna_weights(target: Target, without: Folds) -> Blend:
    """Weights of at least 0 that sum to 1, by Optuna on the metric itself, from the convex and the equal ones.

    For metrics without an exact form, as rank correlations; for the others `convex` has the answer already.
    """
    loss = _in_sample(target, without)
    start = target.solve("convex", without).weights
    names = [f"column_{j}" for j in range(target.n_stages)]

    def normalised(found: dict[str, float]) -> Array:
        weights = np.array([found[name] for name in names])
        return weights / weights.sum() if weights.sum() > 0 else np.full(len(names), 1 / len(names))

    settings = _tuned(
        lambda suggest: float(loss(normalised({name: suggest(name, 0.0, 1.0) for name in names})[None])[0]),
        [dict(zip(names, weights.tolist(), strict=True)) for weights in (start / start.max(), np.ones(len(names)))],
        target.weight_trials,
        target.seed,
    )
    return Blend(normalised(settings))


def _in_sample(target: Target, without: Folds) -> Callable[[Array], Array]:
    """Loss of blends (n_blends, n_stages) that sum to 1, on the rows left."""
    loss = Loss(target, without, cross_fitted=False)
    return lambda weights: loss(weights[:, None])


def _tuned(
    error: Callable[[Callable[..., float]], float], first: list[dict[str, float]], trials: int, seed: int
) -> dict[str, float]:
    """The settings of least error, which suggests them to itself by name and range; the trials `first` come first."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    for settings in first:
        study.enqueue_trial(settings)
    study.optimize(lambda trial: error(trial.suggest_float), n_trials=trials)
    return dict(study.best_params)


BLENDERS: dict[str, Callable[[Target, Folds], Blend]] = {
    "best_single": best_single,
    "mean": mean,
    "convex": convex,
    "convex_and_ridge": convex_and_ridge,
    "shrunk_ridge": shrunk_ridge,
    "ridge": ridge,
    "greedy": greedy,
    "hill_climb": hill_climb,
    "optuna": optuna_weights,
}
ALWAYS = ("best_single", "mean", "convex", "convex_and_ridge", "shrunk_ridge", "ridge")
"""Candidates that every run compares with the default: they cost next to nothing."""
