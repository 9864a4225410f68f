"""The candidates of a blend: which weights of the columns give the best predictions?

**A candidate is a function** `fit(data, folds)` that returns a predictor fitted on the rows of some folds;
`CANDIDATES` has them. A predictor is a dataclass of numbers, strings and arrays with a method
`predict(preds)` that returns predictions (n_rows, n_outputs) from columns (n_rows, n_models, n_outputs).
Every candidate is fitted K + 1 times: on all folds, and without each of them.

A function of the user's, `mine.py:fit` in the YAML, gets arrays instead: `fit(preds, y, folds)` returns
weights, (n_models,) or (n_models, n_outputs), or a dataclass with `predict(preds)`.
"""

import math
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import numpy as np

from core.files import derive_seed
from core.types import Array
from core.user_code import load_user_code, user_code_errors
from submissions.blend.data import Blend, BlendData, FoldSet, Predictor, System
from submissions.blend.logits import LABEL_LINKS, Link, log_loss_weights, margins
from submissions.blend.scoring import computed_once

LIGHTGBM_STACK = "lightgbm_stack"
"""Name of the candidate in `stack.py`, which corrects the default blend."""
MIN_PENALTY = 1e-4
MAX_PENALTY = 10.0
"""Bounds of the penalty of the shrunk ridge, in units of the labels' variance."""
LOGIT_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Factors of the squared distance between the weights of logits and the convex weights."""


def ridge_corrected(system: System, start: Array, penalty: float) -> Array:
    """Return start weights (n_models,) plus the ridge solution on the residual of their blend."""
    n_models = len(start)
    columns = system.y[:, None] - system.errors
    residual = system.y - columns @ start
    rows = np.vstack([columns, math.sqrt(penalty) * np.eye(n_models)])
    return start + np.linalg.lstsq(rows, np.append(residual, np.zeros(n_models)), rcond=None)[0]


def single_column(data: BlendData, column: int, folds: FoldSet) -> Blend:
    """Put all weight of all targets on one column."""
    return data.blend([np.eye(data.n_models)[column]] * len(data.targets), folds)


def best_single(data: BlendData, folds: FoldSet) -> Blend:
    """Put all weight of each target on the column with the smallest loss."""
    one_hot = np.eye(data.n_models)
    weights = []
    for target in data.targets:
        if data.system(target, folds) is None:
            weights.append(data.pooled(folds))
        else:
            losses = [data.loss_of_weights(target, folds, column) for column in one_hot]
            weights.append(one_hot[np.argmin(losses)])
    return data.blend(weights, folds)


def mean(data: BlendData, folds: FoldSet) -> Blend:
    """Return the blend with equal weights."""
    return data.blend([np.full(data.n_models, 1 / data.n_models)] * len(data.targets), folds)


def convex(data: BlendData, folds: FoldSet) -> Blend:
    """Find the weights >= 0 with sum 1 and the least squared error."""
    return data.blend([data.convex(target, folds) for target in data.targets], folds)


def shrunk_ridge(data: BlendData, folds: FoldSet) -> Blend:
    """The default for numbers: mix pooled and convex weights and correct them by a ridge on the residual.

    The weights are w0 + v with w0 = t * pooled + (1 - t) * convex; v is the ridge solution on the residual of
    w0 with a penalty. Optuna tunes both numbers on the cross-fitted loss: each fold is predicted by weights,
    convex ones included, that were fitted without it. With one fold the weights are convex: nothing can be
    tuned, and they are closer to what is submitted than equal weights. docs/benchmarks.md has the gain over
    other blends.
    """
    weights = []
    settings = []
    for target in data.targets:
        tuned = _tuned_shares(data, target, folds)
        weights.append(_shrunk(data, target, folds, **tuned) if tuned else data.convex(target, folds))
        settings.append(tuned)
    return data.blend(weights, folds, settings)


def _tuned_shares(data: BlendData, target: int, folds: FoldSet) -> dict[str, float]:
    """Return the two settings of the shrunk ridge of a target; empty if nothing can be tuned."""
    import optuna

    if not data.can_tune(folds) or data.system(target, folds) is None:
        return {}
    if data.tuned:
        return data.tuned[target]

    def loss(trial: Any) -> float:
        shares = {
            "towards_pooled": trial.suggest_float("towards_pooled", 0.0, 1.0),
            "penalty": trial.suggest_float("penalty", MIN_PENALTY, MAX_PENALTY, log=True),
        }
        return data.loss(target, folds, lambda k: _shrunk(data, target, folds - {k}, **shares))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = derive_seed(data.seed, "blend", data.task.targets[target])
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    for share in (1.0, 0.0):  # pooled and convex weights with almost no correction
        study.enqueue_trial({"towards_pooled": share, "penalty": MAX_PENALTY})
    study.optimize(loss, n_trials=data.n_trials)
    return study.best_params


def _shrunk(data: BlendData, target: int, folds: FoldSet, towards_pooled: float, penalty: float) -> Array:
    start = towards_pooled * data.pooled(folds) + (1 - towards_pooled) * data.convex(target, folds)
    system = data.system(target, folds)
    return start if system is None else ridge_corrected(system, start, penalty)


def shrunk_logits(data: BlendData, folds: FoldSet) -> Blend:
    """The default for classes: weights of logits with the smallest log loss, shrunk towards convex weights.

    The penalty, one of `LOGIT_PENALTIES`, has the best cross-fitted loss. Equal weights would be a worse
    target: a column of a test row is the mean of K fold models, to which a blend of many columns adds less
    than out of fold. Sources: Ting and Witten, "Issues in stacked generalization", JAIR 1999, for weights of
    at least 0; Guo et al., "On calibration of modern neural networks", ICML 2017, for their sum, the inverse
    temperature.
    """
    weights = []
    settings = []
    for target in data.targets:
        number = len(LOGIT_PENALTIES) - 1
        if data.tuned:
            number = int(data.tuned[target]["penalty_number"])
        elif data.can_tune(folds):
            losses = []
            for penalty in range(len(LOGIT_PENALTIES)):
                held_out = {k: _logit_weights(data, target, folds - {k})[penalty] for k in folds}
                losses.append(data.loss(target, folds, held_out.__getitem__, in_logits=True))
            number = int(np.argmin(losses))
        weights.append(_logit_weights(data, target, folds)[number])
        settings.append({"penalty": LOGIT_PENALTIES[number], "penalty_number": number})
    return data.blend(weights, folds, settings, in_logits=True)


@computed_once
def _logit_weights(data: BlendData, target: int, folds: FoldSet) -> Array:
    """Return the weights of logits for each of `LOGIT_PENALTIES`, (n_penalties, n_models)."""
    prior = data.convex(target, folds) if len(data.targets) == 1 else data.pooled(folds)
    if data.system(target, folds) is None:
        return np.tile(prior, (len(LOGIT_PENALTIES), 1))
    parts = [data.labelled(target, fold) for fold in sorted(folds)]
    z = np.concatenate([margins(preds, labels, data.link) for preds, labels in parts])
    return log_loss_weights(z, prior, LOGIT_PENALTIES)


Candidate = Callable[[BlendData, FoldSet], Predictor]
CANDIDATES: dict[str, Candidate] = {
    function.__name__: function for function in (best_single, mean, convex, shrunk_ridge, shrunk_logits)
}
"""Candidates from simple to complex."""
ALWAYS = ("best_single", "mean", "convex")
"""Candidates that every run compares with the default, since they take almost no time."""


def user_candidate(code_ref: str, data: BlendData, folds: FoldSet) -> Predictor:
    """Return what a function of the user's returns for the rows of some folds.

    Raises:
        ConfigError: if it raises, or returns neither weights nor a dataclass with `predict(preds)`.
    """
    function = load_user_code("submissions.candidates", code_ref, "fit(preds, y, folds)")
    rows = data.rows_in(folds)
    preds = data.preds[rows]  # a copy, since the function may write into it
    n_rows, n_models, n_outputs = preds.shape
    with user_code_errors(code_ref, f"return weights ({n_models},) or a dataclass with predict(preds)"):
        predictor: Any = function(preds, data.y[rows], data.folds[rows])
        if not is_dataclass(type(predictor)):
            weights = np.asarray(predictor, dtype=np.float64).reshape(n_models, -1)
            predictor = Blend(weights + np.zeros((n_models, n_outputs)), np.zeros(n_outputs))
        require_predictions(predictor.predict(data.preds[rows]), (n_rows, n_outputs), data.link)
        return predictor


def require_predictions(y_pred: Any, shape: tuple[int, ...], link: Link = "identity") -> None:
    """Raise a ValueError if predictions of user-defined code have the wrong shape or invalid values.

    Values must be finite. With the links of classes they must be probabilities: between 0 and 1
    and, with "softmax", with sum 1 in each row.
    """
    values = np.asarray(y_pred, dtype=np.float64)
    if values.shape != shape:
        raise ValueError(f"expected predictions of shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("expected finite predictions, got NaN or infinite values")
    in_range = link in ("identity", *LABEL_LINKS) or (values.min() >= 0 and values.max() <= 1)
    if not in_range:
        raise ValueError("expected probabilities between 0 and 1")
    if link == "softmax" and not np.allclose(values.sum(axis=1), 1):
        raise ValueError("expected probabilities of all classes that sum to 1")


@computed_once
def fit_candidate(data: BlendData, name: str, folds: FoldSet) -> Predictor:
    """Return a candidate fitted on the rows of some folds; it is fitted once.

    Args:
        name: a name of CANDIDATES, or a function of the user's, `file.py:name`.
    """
    built_in = CANDIDATES.get(name)
    return built_in(data, folds) if built_in else user_candidate(name, data, folds)


def complexity(name: str) -> int:
    """Return the rank of a candidate from simple to complex; user-defined ones come before the stack."""
    names = [*CANDIDATES]
    if name in names:
        return names.index(name)
    return len(names) + (name == LIGHTGBM_STACK)
