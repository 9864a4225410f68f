"""Fitted estimators on disk, without pickle.

Those of scikit-learn are kept by skops, whose files hold types that are trusted and numbers. One of another package
whose file would hold other types is kept as the rows that it was fitted on, and is fitted again where it predicts. That
costs little for one that learns in context. A network is fitted again for one epoch, which makes all of its parts, and
then gets the tensors that its training gave. Which of the three predicts what the fitted estimator does is tried at
once, so a folder that is written predicts the same.
"""

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from competition.errors import ConfigError
from competition.files import sha256_of, write_atomically
from competition.types import Array
from models.estimators import build_estimator, estimator_class

TRUSTED = [
    "numpy.dtype", "scipy.sparse._csr.csr_matrix", "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier", "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace", "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.ConstantKernel", "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.gaussian_process.kernels.Product", "sklearn.gaussian_process.kernels.Sum",
    "sklearn.metrics._dist_metrics.EuclideanDistance64", "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.neighbors._ball_tree.BallTree", "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer", "sklearn.tree._tree.Tree",
]  # fmt: skip
"""Types that a file may hold beside those skops trusts by itself: all plain containers of numbers. No whole package is
trusted: numpy alone has a class that deletes the folder it names when it is collected, `numpy.lib.npyio.DataSource`.
Nor is a type because a file has it: of another package's only the class is that the settings name."""
EPOCHS = ("n_epochs", "max_epochs", "num_epochs", "epochs")
"""How estimators that are networks call their number of epochs."""
NEAR, TRIED = 1e-3, 200
"""How far predictions of standardised labels may be off when it is fitted again, as on a GPU; rows that are tried."""
MOST = 32
"""Estimators that a process keeps once they are fitted again."""
_AGAIN: dict[Any, Any] = {}


@dataclass(frozen=True)
class Named:
    """What an estimator is made of: its name and parameters in the settings, its seed, and whether it is of classes."""

    name: str
    parameters: dict[str, Any]
    seed: int
    classes: bool

    def build(self, **changes: Any) -> Any:
        """The estimator, not fitted."""
        return build_estimator(self.name, {**self.parameters, **changes}, self.seed, self.classes)

    def predictions(self, fitted: Any, x: Any) -> Array:
        """Predictions (n_rows,), or probabilities (n_rows, n_classes)."""
        return np.asarray(fitted.predict_proba(x) if self.classes else fitted.predict(x))


def write_estimator(path: Path, fitted: Any, named: Named, x: Any, y: Array, weighed: dict[str, Any]) -> None:
    """Write an estimator that was fitted on these rows to `path` with endings.

    Args:
        weighed: what its fit was told of weights.

    Raises:
        ConfigError: it predicts otherwise when it is fitted again.
    """
    whole, rows, tensors = (path.with_suffix(ending) for ending in (".skops", ".npz", ".safetensors"))
    if "." not in named.name:
        write_atomically(whole, as_bytes(fitted))
        return
    tried = x[:TRIED]
    expected = named.predictions(fitted, tried)

    def error() -> float:
        return float(np.abs(named.predictions(read_estimator(path, named), tried) - expected).max())

    with suppress(Exception):  # skops and foreign classes raise many kinds: each means that it cannot be kept so
        write_atomically(whole, as_bytes(fitted))
        if error() == 0:
            return
    whole.unlink(missing_ok=True)
    np.savez_compressed(buffer := io.BytesIO(), x=x, y=y, **weighed)
    write_atomically(rows, buffer.getvalue())
    if _one_epoch(fitted) and (state := _tensors(fitted)):
        from safetensors.torch import save

        with suppress(Exception):  # a network that is made otherwise than by its fit
            write_atomically(tensors, save({key: tensor.cpu().clone() for key, tensor in state.items()}))
            if error() < NEAR:
                return
        tensors.unlink(missing_ok=True)
    if (off := error()) > NEAR:
        raise ConfigError(
            f"{named.name} cannot be kept: fitted again on the same rows, it predicts otherwise by up to {off:.2g}. "
            "Set what it draws at random, such as a seed, in parameters, or take another estimator."
        )


def read_estimator(path: Path, named: Named) -> Any:
    """What `write_estimator` was given, as it predicts."""
    whole, *others = (path.with_suffix(ending) for ending in (".skops", ".npz", ".safetensors"))
    if whole.exists():
        return from_bytes(whole.read_bytes(), named)
    key = (repr(named), *(sha256_of(file) for file in others if file.exists()))
    if key not in _AGAIN:
        if len(_AGAIN) >= MOST:
            _AGAIN.clear()
        _AGAIN[key] = _again(path, named)
    return _AGAIN[key]


def _again(path: Path, named: Named) -> Any:
    """The estimator, fitted again on its rows."""
    with np.load(path.with_suffix(".npz")) as arrays:
        weighed = dict(arrays)
    x, y = weighed.pop("x"), weighed.pop("y")
    estimator, tensors = named.build(), path.with_suffix(".safetensors")
    if not tensors.exists():
        return estimator.fit(x, y, **weighed)
    import torch
    from safetensors.torch import load_file

    stored = load_file(tensors)
    own = _tensors(estimator.set_params(**_one_epoch(estimator)).fit(x, y, **weighed))
    if own.keys() != stored.keys():
        raise ConfigError(f"{tensors} has other tensors than {named.name}; install the version it was trained with.")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])
    return estimator


def _one_epoch(estimator: Any) -> dict[str, int]:
    """The parameter that makes a network train for one epoch; none of other estimators."""
    return dict.fromkeys([name for name in EPOCHS if name in estimator.get_params(deep=False)][:1], 1)


def _tensors(estimator: Any) -> dict[str, Any]:
    """Tensors of all networks that a fitted estimator holds in its attributes, lists and dictionaries."""
    from torch import nn

    found, seen, waiting = dict[str, Any](), set[int](), [estimator]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type | ModuleType | FunctionType):
            continue
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            n_networks = len({key.partition(".")[0] for key in found})
            found |= {f"{n_networks}.{key}": tensor for key, tensor in thing.state_dict().items()}
            seen |= set(map(id, thing.modules()))
        parts = thing.values() if isinstance(thing, dict) else getattr(thing, "__dict__", {}).values()
        waiting += list(thing if isinstance(thing, list | tuple) else parts)
    return found


def as_bytes(estimator: Any) -> bytes:
    """A fitted estimator in the form of skops."""
    import skops.io  # here, since it imports torch, which a check of the settings must not

    return skops.io.dumps(estimator)


def from_bytes(content: bytes, named: Named | None = None) -> Any:
    """What `as_bytes` was given; a type in it that is not trusted is an error, and nothing of it is run.

    Args:
        named: the estimator of the settings, whose class is trusted, too.
    """
    import skops.io

    own = []
    if named is not None and "." in named.name:
        found = estimator_class(named.name)
        own = [f"{found.__module__}.{found.__qualname__}"]
    return skops.io.loads(content, trusted=TRUSTED + own)
