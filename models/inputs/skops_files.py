"""Objects of scikit-learn in files of skops, from which nothing is loaded that can run code."""

from typing import Any

TRUSTED = [
    "numpy.dtype", "scipy.sparse._csr.csr_array", "scipy.sparse._csr.csr_matrix",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier", "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.RBF", "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.WhiteKernel", "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.Sum",
    "sklearn.metrics._dist_metrics.EuclideanDistance64", "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.neighbors._ball_tree.BallTree", "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer", "sklearn.tree._tree.Tree",
]  # fmt: skip
"""Types that a skops file may contain in addition to those that skops trusts itself: plain
containers of numbers.

No whole package is trusted: numpy alone has a class that deletes the folder it names when it is
garbage-collected, `numpy.lib.npyio.DataSource`."""


def from_bytes(content: bytes) -> Any:
    """Return the object that `skops.io.dumps` wrote.

    An untrusted type in it raises an error before any of it runs.
    """
    import skops.io  # it imports torch

    return skops.io.loads(content, trusted=TRUSTED)
