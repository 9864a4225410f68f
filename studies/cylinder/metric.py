"""Score of the bins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def accuracy(y_true: NDArray[np.float64], y_pred: NDArray[np.float64]) -> float:
    """Share of rows whose largest prediction is in the column of their bin; (n_rows, n_bins) each."""
    return float((y_true.argmax(axis=1) == y_pred.argmax(axis=1)).mean())
