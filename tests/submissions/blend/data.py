"""Made-up columns with labels, and candidates that are fitted on them."""

from functools import partial

import numpy as np
from scipy.special import expit, softmax

from competition.metrics import METRICS
from competition.task import Task
from submissions.blend.candidates import CANDIDATES, LIGHTGBM_STACK, fit_candidate
from submissions.blend.data import BlendData
from submissions.blend.selection import cross_fit, select
from submissions.blend.stack import fit_stack

N_OUTPUTS = {"binary": 1, "multiclass": 3}


def noisy_numbers(n=100, n_models=3):
    """Columns (n, n_models) with independent errors, later ones with larger errors; labels (n,)."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=n)
    return y[:, None] + rng.normal(size=(n, n_models)) * np.linspace(0.3, 0.6, n_models), y


def numbers(
    preds,
    y,
    folds=None,
    metric="rmse",
    n_trials=12,
):
    """Data of one target from columns (n_rows, n_models), or of several from (n_rows, n_models, n_targets)."""
    rows = np.arange(len(y))
    y = y.reshape(len(rows), -1)
    return BlendData(
        metric=METRICS[metric],
        task=Task([f"y{target}" for target in range(y.shape[1])]),
        y=y,
        folds=rows % 5 if folds is None else folds,
        groups=rows,
        preds=preds.reshape(*preds.shape[:2], -1),
        n_trials=n_trials,
    )


def noisy_classes(problem_type, n=400, n_models=3, is_nonlinear=False):
    """Columns (n, n_models, n_outputs) from noisy logits, later ones with more noise; labels (n, 1).

    Args:
        is_nonlinear: whether the labels come from a nonlinear function of these logits.
    """
    rng = np.random.default_rng(0)
    k = N_OUTPUTS[problem_type]
    truth = 1.5 * rng.normal(size=(n, k))
    noisy = truth[:, None] + rng.normal(size=(n, n_models, k)) * np.linspace(0.5, 2, n_models)[:, None]
    if is_nonlinear:
        truth[:, 0] += 5 * np.abs(truth[:, 0]) - 4
    if k == 1:
        return expit(noisy), (rng.random((n, 1)) < expit(truth)).astype(float)
    labels = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)[:, None].astype(float)
    return softmax(noisy, axis=2), labels


def classes(preds, y, metric="log_loss"):
    """Data of classes from probabilities (n_rows, n_models, n_outputs); several labels are multilabel."""
    rows, n_outputs, n_targets = np.arange(len(y)), preds.shape[2], y.shape[1]
    one_target = "multiclass" if n_outputs > 1 else "binary"
    task = Task(
        [f"y{target}" for target in range(n_targets)],
        problem_type=one_target if n_targets == 1 else "multilabel",
        classes=["a", "b", "c"] if n_outputs > n_targets else ["a", "b"],
        scores_labels=METRICS[metric].kind == "labels",
    )
    return BlendData(metric=METRICS[metric], task=task, y=y, folds=rows % 5, groups=rows, preds=preds)


def fit(name, data, folds=None):
    """Fit a candidate of the project on some folds, or on all."""
    return CANDIDATES[name](data, folds or data.all_folds)


def cross_fitted(name, data):
    """Fit a candidate, or the stack on the default, on all folds and without each of them."""
    default = "shrunk_logits" if data.task.has_probabilities else "shrunk_ridge"
    is_stack = name == LIGHTGBM_STACK
    return cross_fit(
        data, partial(*((fit_stack, data, default) if is_stack else (fit_candidate, data, name)))
    )


def chosen_of(data, names, margin=1.0):
    """Return the candidate that the rule selects with the shrunk ridge as the default."""
    compared = data.compare({name: cross_fitted(name, data).scored for name in names}, "shrunk_ridge")
    return select(data, compared, "shrunk_ridge", margin)[0]
