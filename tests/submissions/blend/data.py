"""Made-up columns with labels, for the tests of blends."""

import numpy as np
from scipy.special import expit, softmax

from competition.metrics import METRICS
from competition.task import Task
from submissions.blend.data import BlendData

N_OUTPUTS = {"binary": 1, "multiclass": 3}


def numbers(
    preds: np.ndarray,
    y: np.ndarray,
    folds: np.ndarray | None = None,
    metric: str = "rmse",
    n_trials: int = 40,
) -> BlendData:
    """Data of one target from columns (n_rows, n_models), or of several from (n_rows, n_models, n_targets)."""
    y = y.reshape(len(preds), -1)
    folds = np.arange(len(y)) % 5 if folds is None else folds
    task = Task([f"y{target}" for target in range(y.shape[1])])
    return BlendData(
        metric=METRICS[metric],
        task=task,
        y=y,
        folds=folds,
        groups=np.arange(len(y)),
        preds=preds.reshape(len(preds), preds.shape[1], -1),
        n_trials=n_trials,
    )


def classes(preds: np.ndarray, y: np.ndarray, metric: str = "log_loss") -> BlendData:
    """Data of classes from probabilities (n_rows, n_models, n_outputs); several labels are multilabel."""
    problem_type = (
        "multiclass" if preds.shape[2] > y.shape[1] else "binary" if y.shape[1] == 1 else "multilabel"
    )
    names = ["a", "b", "c"][: max(2, preds.shape[2] // y.shape[1])]
    task = Task(
        [f"y{target}" for target in range(y.shape[1])],
        problem_type=problem_type,  # type: ignore[arg-type]
        classes=names,
        scores_labels=METRICS[metric].kind == "labels",
    )
    rows = np.arange(len(y))
    return BlendData(metric=METRICS[metric], task=task, y=y, folds=rows % 5, groups=rows, preds=preds)


def noisy_classes(
    problem_type: str, n: int = 400, n_models: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Columns (n, n_models, n_outputs) from noisy logits, later ones with more noise; labels (n, 1)."""
    rng = np.random.default_rng(seed)
    k = N_OUTPUTS[problem_type]
    truth = 1.5 * rng.normal(size=(n, k))
    noisy = truth[:, None] + rng.normal(size=(n, n_models, k)) * np.linspace(0.5, 2, n_models)[:, None]
    if k == 1:
        return expit(noisy), (rng.random((n, 1)) < expit(truth)).astype(float)
    labels = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)[:, None].astype(float)
    return softmax(noisy, axis=2), labels
