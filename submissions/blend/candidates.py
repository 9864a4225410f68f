"""The candidates of a blend, from simple to complex; the table at the end of the file is the registry.

**A candidate is a function** `fit(preds, y, metric, folds, weights) -> predictor`:

    preds: base predictions (n_rows, n_models, n_outputs), out of fold.
    y: (n_rows, n_targets), NaN for missing labels.
    metric: a `competition.metrics.Metric`.
    folds: (n_rows,), for settings that are tuned by cross-fitting.
    weights: "per_target" or "shared", from the YAML.

A predictor is a dataclass of numbers, strings and arrays with a method `predict(preds)` that returns
predictions (n_rows, n_outputs). A function may also return weights, (n_models,) or (n_models, n_outputs).
A user-defined candidate is written in the YAML as `mine.py:fit`. A function only gets the rows it is
fitted on; scores come from fits without each fold.

**A weighted mean can be a solver** `solve(problem) -> Solution` instead, which is refitted faster; see
solvers.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import numpy as np

from competition.metrics import Metric
from competition.types import Array, Integers
from competition.user_code import load_user_code, user_code_errors
from submissions.blend import solvers
from submissions.blend.logits import Link, logits, probabilities
from submissions.blend.serialization import Predictor, require_predictions, serializable
from submissions.blend.solvers import mean
from submissions.blend.weight_problem import NO_FOLDS, BlendData, FoldSet, Solver

QUANTILES = np.linspace(0, 1, 501)


@serializable
@dataclass(frozen=True)
class Blend:
    """A weighted sum of base predictions or of their logits.

    Attributes:
        weights: (n_models, n_outputs).
        intercept: (n_outputs,).
        settings: for each target, tuned settings by name.
        link: scale on which base predictions are summed.
    """

    weights: Array
    intercept: Array
    settings: list[dict[str, float]] = field(default_factory=list)
    link: Link = "identity"

    def predict(self, preds: Array) -> Array:
        """Return predictions (n_rows, n_outputs) from base predictions (n_rows, n_models, n_outputs)."""
        sums = np.einsum("nmo,mo->no", logits(preds, self.link), self.weights) + self.intercept
        return probabilities(sums, self.link)


@dataclass(eq=False, repr=False)
class Candidate:
    """A function that fits a predictor, with refits without some folds.

    Attributes:
        function: `fit` of the module docstring.
        code_ref: `file.py:name` of a user-defined function; empty for functions of this project.
    """

    function: Callable[..., Any]
    code_ref: str = ""

    def fit(self, data: BlendData, excluded_folds: FoldSet = NO_FOLDS) -> Predictor:
        """Fit a predictor on the rows outside `excluded_folds`; the plain mean if no row remains."""
        rows = data.rows_outside(excluded_folds)
        if not rows.any():
            return WeightedCandidate(mean).fit(data, excluded_folds)
        preds = data.preds[rows]  # copies, since user-defined code may write into them
        y = data.y[rows]
        folds = data.folds[rows]
        if not self.code_ref:
            return self.function(preds, y, data.metric, folds, data.weights)
        n_rows, n_models, n_outputs = preds.shape
        expected = f"return weights ({n_models},) or a dataclass with predict(preds)"
        with user_code_errors(self.code_ref, expected):
            predictor: Any = self.function(preds, y, data.metric, folds, data.weights)
            if not is_dataclass(type(predictor)):
                weights = np.asarray(predictor, dtype=np.float64).reshape(n_models, -1)
                predictor = Blend(weights + np.zeros((n_models, n_outputs)), np.zeros(n_outputs))
            require_predictions(predictor.predict(data.preds[rows]), (n_rows, n_outputs), data.link)
            return predictor


@dataclass(eq=False, repr=False)
class WeightedCandidate(Candidate):
    """A solver as a candidate.

    Attributes:
        in_logits: whether the weights are weights of logits if the base models predict probabilities.
    """

    in_logits: bool = False

    def fit(self, data: BlendData, excluded_folds: FoldSet = NO_FOLDS) -> Blend:
        """Return weights and intercepts in the units of the targets; the mean for targets without labels."""
        link: Link = data.link if self.in_logits else "identity"
        weights: list[Array] = []
        intercepts: list[float] = []
        settings: list[dict[str, float]] = []
        for all_folds in data.problems:
            problem = all_folds.excluding(excluded_folds)
            for target, n_labels in enumerate(problem.label_stats.count):
                solution = problem.solve(self.function if n_labels else mean)
                target_intercepts = problem.intercepts_in_label_units(solution.weights, solution.intercept)
                weights.append(solution.weights[np.argsort(problem.model_order)])
                intercepts.append(target_intercepts[target] if link == "identity" else 0.0)
                settings.append(solution.settings)
        return Blend(
            weights=np.column_stack(weights).repeat(data.outputs_per_target, axis=1),
            intercept=np.array(intercepts).repeat(data.outputs_per_target),
            settings=settings,
            link=link,
        )


@serializable
@dataclass(frozen=True)
class Median:
    """The median of the base predictions.

    Attributes:
        link: "softmax" for multiclass probabilities: the median of their logarithms is normalized to
            sum 1.
    """

    link: Link = "identity"

    def predict(self, preds: Array) -> Array:
        """Return predictions (n_rows, n_outputs) from base predictions (n_rows, n_models, n_outputs)."""
        return probabilities(np.median(logits(preds, self.link), axis=1), self.link)


def median(preds: Array, y: Array, metric: Metric, folds: Integers, weights: str) -> Median:
    """Predict the median of the base models, which a single outlier cannot move far."""
    return Median("softmax" if preds.shape[2] > y.shape[1] else "identity")


@serializable
@dataclass(frozen=True)
class MeanOfRanks:
    """The mean rank of the base predictions, converted to the label of that rank.

    Attributes:
        columns: quantiles of the out-of-fold predictions of each base model, (n_outputs, n_models,
            n_quantiles).
        labels: quantiles of the labels, (n_outputs, n_quantiles).
    """

    columns: Array
    labels: Array

    def predict(self, preds: Array) -> Array:
        """Return predictions (n_rows, n_outputs) by the stored quantiles, row by row."""
        y_pred = []
        for output, label_quantiles in enumerate(self.labels):
            ranks = []
            for model, quantiles in enumerate(self.columns[output]):
                ranks.append(np.interp(preds[:, model, output], quantiles, QUANTILES))
            y_pred.append(np.interp(np.mean(ranks, axis=0), QUANTILES, label_quantiles))
        return np.column_stack(y_pred)


def mean_of_ranks(preds: Array, y: Array, metric: Metric, folds: Integers, weights: str) -> MeanOfRanks:
    """Average the ranks of the base predictions, for metrics of ranks and models on different scales.

    For classification a rank is converted to a quantile of the mean probabilities, which is a
    probability.
    """
    values = y if "regression" in metric.types else preds.mean(axis=1)
    label_quantiles = []
    for column in values.T:
        has_label = np.isfinite(column).any()
        label_quantiles.append(np.nanquantile(column, QUANTILES) if has_label else np.zeros_like(QUANTILES))
    quantiles = np.moveaxis(np.quantile(preds, QUANTILES, axis=0), 0, -1).swapaxes(0, 1)
    return MeanOfRanks(quantiles, np.array(label_quantiles))


SOLVERS: list[Solver] = [
    solvers.best_single, solvers.mean, solvers.convex, solvers.shrunk_logits, solvers.shrunk_ridge,
    solvers.ridge, solvers.greedy, solvers.hill_climb, solvers.optuna,
]  # fmt: skip
LOGIT_SOLVERS = (solvers.shrunk_logits, solvers.optuna)
CANDIDATES: dict[str, Candidate] = {
    **{solver.__name__: WeightedCandidate(solver, in_logits=solver in LOGIT_SOLVERS) for solver in SOLVERS},
    **{function.__name__: Candidate(function) for function in (median, mean_of_ranks)},
}
ALWAYS_CLASSIFICATION = ("best_single", "mean", "convex", "shrunk_logits")
"""Candidates that every run with probabilities compares with the default, since they take almost no time."""
CLASSIFICATION_CANDIDATES = (*ALWAYS_CLASSIFICATION, "greedy", "optuna", "median", "mean_of_ranks")
"""Candidates for base models that predict probabilities."""
REGRESSION_CANDIDATES = tuple(name for name in CANDIDATES if name != "shrunk_logits")
"""Candidates for base models that predict values."""
ALWAYS_REGRESSION = ("best_single", "mean", "convex", "shrunk_ridge", "ridge")
"""Candidates that every regression run compares with the default."""


def get_candidate(code_ref: str) -> Candidate:
    """Return a candidate by its name in the YAML, which is a name of CANDIDATES or `file.py:name`."""
    if code_ref in CANDIDATES:
        return CANDIDATES[code_ref]
    function = load_user_code("submissions.candidates", code_ref, "fit(preds, y, metric, folds, weights)")
    return Candidate(function, code_ref)
