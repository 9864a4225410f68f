"""Stage `gp`: exact Gaussian process regression on MinMax kernels of fingerprints and RBF kernels of numbers.

Kernels are averaged; their weights and the noise are chosen by the marginal likelihood. Classes are learned as
0 and 1, and calibrated on the leave-one-out predictions. Source: Griffiths et al., GAUCHE, NeurIPS 2023.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED

import numpy as np
import skops.io
from scipy import sparse
from scipy.spatial.distance import pdist
from scipy.special import softmax
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, QuantileTransformer, StandardScaler

from competition.dataset import Dataset
from core.errors import ConfigError
from core.types import Array
from models.context import Context
from models.estimators import from_bytes
from models.feature_config import GpConfig
from models.inputs import feature_blocks
from models.inputs.count_fingerprints import (
    fingerprint_cache,
    load_fingerprints,
    minmax_kernel,
)
from models.inputs.features import molecule_features
from models.stages.gp_regression import calibrate, decompose, fit_target, latent_variance
from models.training.hardware import memory_bytes
from models.training.labels import balanced_weights, labelled_rows

MODEL = "gp.skops"
SCALERS = "scalers.skops"
QUANTILES = 200
"""Number of quantiles of the rank transform of descriptors."""
LENGTH_SCALE = 1.0
"""An RBF kernel is exp(-d^2 / (LENGTH_SCALE * m)), where m is the median of the squared distances d^2."""
WEIGHT_STEPS = 4
"""The weight of a kernel is a multiple of 1 / WEIGHT_STEPS."""
WEIGHT_ROWS = 1000
"""Maximum number of rows that choose the weights of the kernels."""
MEDIAN_ROWS = 1000
"""Maximum number of rows for the median of the distances."""
BLOCK_ROWS = 1000
"""Number of rows that are predicted at a time."""
MATRICES = 8
"""Number of matrices of n_rows^2 numbers that a fit keeps in memory."""


@dataclass(frozen=True)
class Inputs:
    """What the kernels read of some rows.

    Attributes:
        fingerprints: molecule column -> its counts by `load_fingerprints`, for each name in the settings.
        numbers: kernel -> scaled numbers (n_rows, width); its RBF kernel is exp(-squared distance).
    """

    fingerprints: list[list[sparse.csr_array]]
    numbers: dict[str, Array]

    def kernels(self, others: "Inputs") -> list[Array]:
        """Return the kernels between these rows and others, (n_rows, n_others) each, in a fixed order."""
        kernels = []
        if self.fingerprints:
            columns = zip(self.fingerprints, others.fingerprints, strict=True)
            of_column = [np.mean(list(map(minmax_kernel, *column)), axis=0) for column in columns]
            kernels.append(np.prod(of_column, axis=0))
        for name, numbers in self.numbers.items():
            kernels.append(rbf_kernel(numbers, others.numbers[name], gamma=1.0))
        return kernels

    def take(self, start: int, stop: int) -> "Inputs":
        """Return rows `start` to `stop`."""
        fingerprints = [[each[start:stop] for each in column] for column in self.fingerprints]
        return Inputs(fingerprints, {name: values[start:stop] for name, values in self.numbers.items()})


class Gp:
    """Stage `gp`; `models.stage.Stage` documents its methods."""

    def __init__(self, config: GpConfig, context: Context) -> None:
        self.config = config
        self.context = context
        of_molecules = [name for name in config.kernels if isinstance(name, str)]
        if of_molecules and not context.smiles:
            raise ConfigError(
                f"kernels: {', '.join(of_molecules)} need a column of competition.smiles, which is empty. Set "
                "kernels: [] for the numbers and categories alone, or name an encoder of texts."
            )
        if not (config.kernels or context.numeric or context.categorical):
            raise ConfigError(
                "kernels: [] uses the numbers and categories alone, and the competition has none. Name a kernel."
            )

    def fit(self, train: Dataset, folder: Path) -> None:
        """Fit the scales and weights of the kernels, the noise and, for classes, the calibration."""
        labelled_rows(train.y, self.context.task.targets)
        _require_memory(len(train))
        feature_blocks.fit_encoders(train, self.config, self.context, folder)
        self._fit_scalers(train, folder)
        inputs = self._inputs(train, folder)
        y, row_weights = self._labels(train)
        kernels = inputs.kernels(inputs)
        fitted = _fit_columns(kernels, y, row_weights, self.context.progress)
        model: dict[str, Any] = {**vars(inputs), **fitted, "row_weights": row_weights}
        if self.context.task.has_probabilities:
            model |= self._calibrate(fitted["leave_one_out"], y, row_weights)
        skops.io.dump(model, folder / MODEL, compression=ZIP_DEFLATED)

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Return predictions (n_rows, n_outputs) in the units of the targets, or probabilities."""
        model, train = load_model(folder)
        inputs = self._inputs(rows, folder)
        latent = np.tile(model["mean"], (len(rows), 1))
        for start in range(0, len(rows), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(rows))
            kernels = inputs.take(start, stop).kernels(train)
            for kernel, kernel_weights in zip(kernels, model["kernel_weights"], strict=True):
                latent[start:stop] += kernel @ (model["coefficients"] * kernel_weights)
        return self._probabilities(latent, model) if self.context.task.has_probabilities else latent

    def predict_std(self, rows: Dataset, folder: Path) -> Array:
        """Return the standard deviation of the label of each row, function and noise, (n_rows, n_outputs).

        For regression only.
        """
        model, train = load_model(folder)
        inputs = self._inputs(rows, folder)
        std = np.empty((len(rows), len(model["mean"])))
        train_kernels, cross_kernels = train.kernels(train), inputs.kernels(train)
        for column, kernel_weights in enumerate(model["kernel_weights"].T):
            row_weights = model["row_weights"][:, column]
            is_used = row_weights > 0
            variance = latent_variance(
                kernel=_weighted_sum(train_kernels, kernel_weights, is_used, is_used),
                cross=_weighted_sum(cross_kernels, kernel_weights, np.ones(len(rows), dtype=bool), is_used),
                noise=model["noise"][column],
                weights=row_weights[is_used],
            )
            std[:, column] = np.sqrt(model["variance"][column] * (variance + model["noise"][column]))
        return std

    def _labels(self, train: Dataset) -> tuple[Array, Array]:
        """Return labels and row weights of each output, (n_rows, n_outputs); the weight 0 for a missing label."""
        y = self.context.task.one_hot(train.y)
        weights = np.ones_like(train.y)
        if train.weights is not None:
            weights *= train.weights[:, None]
        if self.config.class_weights == "balanced":
            weights = balanced_weights(train.y, weights)
        return y, np.where(np.isnan(y), 0.0, np.broadcast_to(weights, y.shape))

    def _fit_scalers(self, train: Dataset, folder: Path) -> None:
        """Write the scaler of each block of numbers, and the length that its squared distances are divided by."""
        ranks = QuantileTransformer(n_quantiles=min(QUANTILES, len(train)), random_state=0)
        impute = SimpleImputer(strategy="median", keep_empty_features=True)
        # Clipped to the training range, since nothing is known about the function outside of it.
        numbers = make_pipeline(impute, MinMaxScaler(clip=True), StandardScaler())
        categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        columns = [
            ("number", numbers, self.context.numeric),
            ("category", categories, self.context.categorical),
        ]
        scalers = {
            "descriptors": make_pipeline(impute, ranks),
            "molecule encoders": StandardScaler(),
            "text encoders": StandardScaler(),
            "columns": ColumnTransformer(columns),
        }
        fitted = {}
        for name, block in self._blocks(train, folder).items():
            scaled = scalers[name].fit_transform(block)
            some = scaled[:: -(-len(scaled) // MEDIAN_ROWS)]
            fitted[name] = (scalers[name], LENGTH_SCALE * float(np.median(pdist(some, "sqeuclidean"))) or 1.0)
        skops.io.dump(fitted, folder / SCALERS)

    def _blocks(self, rows: Dataset, folder: Path) -> dict[str, Any]:
        """Return the unscaled numbers of each RBF kernel, (n_rows, width)."""
        blocks: dict[str, Any] = {}
        if "descriptors" in self.config.kernels:
            (cache,) = molecule_features(["descriptors"], 0, self.context.cache)
            per_column = [np.concatenate(cache.load(rows.inputs[column])) for column in self.context.smiles]
            blocks["descriptors"] = np.hstack(per_column, dtype=np.float64)
        blocks["molecule encoders"] = feature_blocks.molecule_block(rows, self.config, self.context, folder)
        blocks["text encoders"] = feature_blocks.encoder_block(rows, self.config, self.context, folder)
        blocks["columns"] = rows.inputs[[*self.context.numeric, *self.context.categorical]]
        return {name: block for name, block in blocks.items() if block.shape[1]}

    def _inputs(self, rows: Dataset, folder: Path) -> Inputs:
        fingerprints = []
        caches = [fingerprint_cache(name, self.context.cache) for name in self.config.fingerprints]
        for column in self.context.smiles if caches else []:
            fingerprints.append([load_fingerprints(cache, rows.inputs[column]) for cache in caches])
        scalers = from_bytes((folder / SCALERS).read_bytes())
        numbers = {}
        for name, block in self._blocks(rows, folder).items():
            scaler, length = scalers[name]
            numbers[name] = np.asarray(scaler.transform(block), dtype=np.float64) / np.sqrt(length)
        return Inputs(fingerprints, numbers)

    def _calibrate(self, leave_one_out: Array, y: Array, weights: Array) -> dict[str, Array]:
        """Return the slope and the intercepts of the probabilities of each target."""
        slopes, intercepts = [], []
        for t, (scores, one_hot) in enumerate(zip(self._scores(leave_one_out), self._scores(y), strict=True)):
            is_used = weights[:, t] > 0
            slope, target_intercepts = calibrate(scores[is_used], one_hot[is_used], weights[is_used, t])
            slopes.append(slope)
            intercepts.append(target_intercepts)
        return {"slopes": np.array(slopes), "intercepts": np.array(intercepts)}

    def _probabilities(self, latent: Array, model: dict[str, Array]) -> Array:
        probabilities = []
        parts = zip(self._scores(latent), model["slopes"], model["intercepts"], strict=True)
        for scores, slope, intercepts in parts:
            probabilities.append(softmax(slope * scores + intercepts, axis=1))
        if self.context.task.problem_type == "multiclass":
            return np.asarray(probabilities[0])
        return np.column_stack([each[:, 1] for each in probabilities])

    def _scores(self, values: Array) -> list[Array]:
        """Return a score per class of each target, (n_rows, n_classes), from values (n_rows, n_outputs)."""
        if self.context.task.problem_type == "multiclass":
            return [values]
        return [np.column_stack([1 - column, column]) for column in values.T]


def _fit_columns(
    kernels: list[Array], y: Array, row_weights: Array, progress: Callable[[int, int], None]
) -> dict[str, Array]:
    """Fit each label column; columns with equal row weights and kernel weights share a decomposition.

    Args:
        kernels: (n_rows, n_rows) each.
        y: (n_rows, n_columns).
        row_weights: (n_rows, n_columns), 0 for rows that are not used.

    Returns:
        Arrays with a column, or a number, for each label column. Coefficients and leave-one-out predictions are
        0 for rows that are not used.
    """
    n_columns = y.shape[1]
    fitted: dict[str, Array] = {name: np.zeros(n_columns) for name in ("mean", "variance", "noise")}
    fitted |= {name: np.zeros(y.shape) for name in ("coefficients", "leave_one_out")}
    fitted["kernel_weights"] = np.zeros((len(kernels), n_columns))
    for columns in _equal_columns(row_weights):
        fitted["kernel_weights"][:, columns] = _choose_kernel_weights(kernels, y, row_weights, columns)
    groups = _equal_columns(np.vstack([row_weights, fitted["kernel_weights"]]))
    for done, columns in enumerate(groups):
        progress(done, len(groups))
        is_used = row_weights[:, columns[0]] > 0
        kernel = _weighted_sum(kernels, fitted["kernel_weights"][:, columns[0]], is_used, is_used)
        decomposition = decompose(kernel, row_weights[is_used, columns[0]])
        for column in columns:
            target = fit_target(decomposition, y[is_used, column])
            fitted["mean"][column] = target.mean
            fitted["variance"][column] = target.variance
            fitted["noise"][column] = target.noise
            fitted["coefficients"][is_used, column] = target.coefficients
            fitted["leave_one_out"][is_used, column] = target.leave_one_out
    return fitted


def _choose_kernel_weights(kernels: list[Array], y: Array, row_weights: Array, columns: list[int]) -> Array:
    """Return the weights with the largest marginal likelihood, (n_kernels, n_chosen_columns).

    Args:
        columns: label columns with equal row weights.
    """
    weights = row_weights[:, columns[0]]
    rows = np.flatnonzero(weights)
    rows = rows[:: -(-len(rows) // WEIGHT_ROWS)]
    steps = itertools.product(range(WEIGHT_STEPS + 1), repeat=len(kernels))
    simplex = [np.array(step) / WEIGHT_STEPS for step in steps if sum(step) == WEIGHT_STEPS]
    if len(simplex) == 1:
        return np.ones((1, len(columns)))
    log_likelihoods = []
    for kernel_weights in simplex:
        decomposition = decompose(_weighted_sum(kernels, kernel_weights, rows, rows), weights[rows])
        log_likelihoods.append(
            [fit_target(decomposition, y[rows, column]).log_likelihood for column in columns]
        )
    return np.array(simplex)[np.argmax(log_likelihoods, axis=0)].T


def _equal_columns(table: Array) -> list[list[int]]:
    """Return the indices of equal columns of a table, a list for each distinct one, the first column first."""
    groups: dict[bytes, list[int]] = {}
    for index, column in enumerate(table.T):
        groups.setdefault(column.tobytes(), []).append(index)
    return list(groups.values())


def _weighted_sum(kernels: list[Array], weights: Array, rows: Any, columns: Any) -> Array:
    """Return the weighted sum of a part of each kernel."""
    used = [(kernel, weight) for kernel, weight in zip(kernels, weights, strict=True) if weight > 0]
    return np.sum([weight * kernel[np.ix_(rows, columns)] for kernel, weight in used], axis=0)


def load_model(folder: Path) -> tuple[dict[str, Any], Inputs]:
    """Return the fitted arrays of a job by name, and what its kernels read of the training rows."""
    model = from_bytes((folder / MODEL).read_bytes())
    return model, Inputs(model["fingerprints"], model["numbers"])


def _require_memory(n_rows: int) -> None:
    """Raise a ConfigError if the matrices of a fit do not fit into the memory of this machine."""
    required = MATRICES * 8 * n_rows**2
    if required > memory_bytes():
        raise ConfigError(
            f"an exact Gaussian process of {n_rows:,} training rows needs {required / 2**30:.0f} GiB of memory for "
            f"its kernels, and this machine has {memory_bytes() / 2**30:.0f} GiB. Remove the stage."
        )
