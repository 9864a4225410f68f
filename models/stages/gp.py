"""Stage `gp`: exact Gaussian process regression on MinMax kernels of fingerprints and RBF kernels of numbers.

Kernels are averaged; their weights and the noise maximize the marginal likelihood. Classes are learned
as 0 and 1, and calibrated on predictions without the group of the row. Source: Griffiths et al., GAUCHE, NeurIPS 2023.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zipfile import ZIP_DEFLATED

import numpy as np

from competition.dataset import REFIT_FOLD, Dataset
from competition.task import Task
from core.errors import ConfigError
from core.modules import load
from core.types import Array
from folds.training_rows import trains_fold
from models.context import CheckTables, Context
from models.features import feature_blocks, fit_encoders
from models.hardware import memory_bytes
from models.inputs.cache import Cache, distinct_values
from models.inputs.columns import table_blocks
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.scaling import Blocks, fit_scaling, scaled_blocks
from models.inputs.skops_files import from_bytes
from models.stage import FINGERPRINTS, Stage
from models.stages.gp_regression import (
    calibrate,
    cholesky_factor,
    fit_columns,
    latent_variance,
    weighted_sum,
)
from models.targets import labelled_rows

MANY_ROWS = 6000
"""Training rows above which a fold takes more than one or two minutes on a core."""
MODEL = "gp.skops"
MEDIAN_ROWS = 1000
"""Maximum number of training rows for the medians of the distances."""
BLOCK_ROWS = 1000
"""Number of rows that are predicted at a time."""
MATRICES = 10
"""Number of matrices of n_rows^2 numbers that a fit keeps in memory."""
MULTIPLIED = "fingerprints", "molecules", "encoders"
"""Kernels that are multiplied with that of numbers and categories, in their order; the last two are of encoders."""


@dataclass(frozen=True)
class Inputs:
    """What the kernels read of some rows.

    Attributes:
        fingerprints: molecule column -> sparse counts by `load_fingerprints`, for each name in the settings.
        numbers: kernel -> scaled numbers (n_rows, width) of its RBF kernel.
    """

    fingerprints: list[list[Any]]
    numbers: dict[str, Array]

    @cached_property
    def lengths(self) -> dict[str, float]:
        """Median m of the squared distances for each RBF kernel, exp(-d^2 / m).

        It is computed for the training rows only.
        """
        from scipy.spatial.distance import pdist

        lengths = {}
        for name, numbers in self.numbers.items():
            some = numbers[:: -(-len(numbers) // MEDIAN_ROWS)]
            lengths[name] = float(np.median(pdist(some, "sqeuclidean"))) or 1.0
        return lengths

    def kernels(self, train: "Inputs") -> list[Array]:
        """Return the kernels with the training rows, (n_rows, n_train) each, in a fixed order.

        Beside those of fingerprints and encoders are their products with the kernel of numbers and categories.
        """
        from sklearn.metrics.pairwise import rbf_kernel

        kernels: dict[str, Array] = {}
        if self.fingerprints:
            minmax_kernel = load(FINGERPRINTS).minmax_kernel
            columns = zip(self.fingerprints, train.fingerprints, strict=True)
            of_column = [sum(map(minmax_kernel, *column)) / len(column[0]) for column in columns]
            kernels["fingerprints"] = math.prod(of_column)
        for name, numbers in self.numbers.items():
            both = numbers.astype(np.float64), train.numbers[name].astype(np.float64)
            kernels[name] = rbf_kernel(*both, gamma=1 / train.lengths[name])
        products = []
        if "numbers" in kernels:  # rows of one molecule differ by their conditions
            products = [kernels[name] * kernels["numbers"] for name in MULTIPLIED if name in kernels]
        return [*kernels.values(), *products]

    def take(self, start: int, stop: int) -> "Inputs":
        """Return rows `start` to `stop`."""
        fingerprints = []
        for column in self.fingerprints:
            fingerprints.append([counts[start:stop] for counts in column])
        return Inputs(fingerprints, {name: values[start:stop] for name, values in self.numbers.items()})


class Gp(Stage):
    """Exact Gaussian process regression. Its kernels are averaged, with weights by the marginal likelihood.

    Time grows with the cube and memory with the square of the number of training rows.
    """

    packages = ("scipy", "scikit-learn", "numpy", "rdkit")
    encoder_setting = "kernels"
    no_effect = ("seeds", "gpu")
    kind: Literal["gp"]
    kernels: list[Literal["ecfp4", "atom_pairs", "fcfp4", "descriptors"] | EncoderFeature] = [
        "ecfp4",
        "atom_pairs",
        "fcfp4",
        "descriptors",
    ]
    """What the kernels compare. ecfp4, atom_pairs, fcfp4: unfolded counts of environments in molecules, by
    their MinMax similarity. descriptors: ranks of RDKit descriptors. `{encoder: minilm}`: pooled features of
    a frozen encoder. Numeric and categorical columns always have a separate kernel,
    and its products with those of fingerprints and encoders, by which conditions act differently on each molecule."""

    @property
    def fingerprints(self) -> list[str]:
        """Names of the fingerprints that `kernels` contains."""
        return [kernel for kernel in self.kernels if isinstance(kernel, str) and kernel != "descriptors"]

    def modules(self, context: Context) -> list[str]:
        """Return the modules of `Stage.modules`, and what computes fingerprints and descriptors."""
        has_features = any(isinstance(kernel, str) for kernel in self.kernels)
        return [*super().modules(context), *([FINGERPRINTS] if has_features else [])]

    def _features(self, names: Sequence[str], context: Context) -> list[Cache]:
        """Return the caches of fingerprints and descriptors."""
        caches = load(FINGERPRINTS).molecule_features(names, 0, context.cache) if names else []
        return list(caches)

    def caches(self, context: Context, tables: Sequence[Dataset]) -> list[tuple[Cache, list[str]]]:
        """Return the caches of the fingerprints and descriptors; see `Stage.caches`."""
        names = [kernel for kernel in self.kernels if isinstance(kernel, str)]
        molecules = distinct_values(context.smiles, tables)
        return [(cache, molecules) for cache in self._features(names, context)]

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Check the columns and the memory of the kernels, and warn of many rows; see also `Stage.check`."""
        yield from super().check(tables)
        context = tables.context
        has_numbers = bool(context.numeric or context.categorical)
        self._require_columns(bool(context.smiles), has_numbers)
        if tables.here:
            _require_memory(_largest_fit(tables, has_refit=self.final_fit != "folds"))
        n_labelled = int(tables.train[tables.task.targets].notna().any(axis=1).sum())
        if n_labelled > MANY_ROWS:
            yield (
                f"the time of an exact Gaussian process grows with the cube of the rows, and {n_labelled:,} "
                f"rows take from minutes to hours a fold (docs/benchmarks.md has times)"
            )

    def _require_columns(self, has_molecules: bool, has_numbers: bool) -> None:
        """Raise a ConfigError if a kernel has no columns, or the stage has no kernel."""
        of_molecules = [name for name in self.kernels if isinstance(name, str)]
        if of_molecules and not has_molecules:
            raise ConfigError(
                f"kernels: {', '.join(of_molecules)} need a column of competition.smiles, which is empty. "
                "Set kernels: [] for the numbers and categories alone, or name an encoder of texts."
            )
        if not (self.kernels or has_numbers):
            raise ConfigError(
                "kernels: [] uses the numbers and categories alone, and the competition has none. "
                "Name a kernel."
            )

    def fit(self, train: Dataset, folder: Path, context: Context) -> None:
        """Fit the scales and weights of the kernels, the noise and, for classes, the calibration."""
        import skops.io

        self._require_columns(bool(context.smiles), bool(context.numeric or context.categorical))
        labelled_rows(train.y, context.task.targets)
        _require_memory(len(train))
        fit_encoders(train, self, context, folder)
        fit_scaling(self._blocks(train, folder, context), folder, ranked=["descriptors"])
        inputs = self._inputs(train, folder, context)
        y, row_weights = self._labels(train, context.task)
        kernels = inputs.kernels(inputs)
        groups = None
        if context.task.has_probabilities:
            groups = np.arange(len(train)) if train.groups is None else train.groups
        fitted = fit_columns(kernels, y, row_weights, context.progress, groups)
        model: dict[str, Any] = {
            "fingerprints": inputs.fingerprints,
            "numbers": inputs.numbers,
            "row_weights": row_weights,
            **fitted,
        }
        if groups is not None:
            model |= _calibrate(fitted["left_out"], y, row_weights, context.task)
        skops.io.dump(model, folder / MODEL, compression=ZIP_DEFLATED)

    def predict(self, rows: Dataset, folder: Path, context: Context) -> Array:
        """Return predictions (n_rows, n_outputs) in the units of the targets, or probabilities."""
        model, train = load_model(folder)
        inputs = self._inputs(rows, folder, context)
        latent = np.tile(model["mean"], (len(rows), 1))
        for start in range(0, len(rows), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(rows))
            kernels = inputs.take(start, stop).kernels(train)
            for kernel, kernel_weights in zip(kernels, model["kernel_weights"], strict=True):
                latent[start:stop] += kernel @ (model["coefficients"] * kernel_weights)
        return _probabilities(latent, model, context.task) if context.task.has_probabilities else latent

    def predict_std(self, rows: Dataset, folder: Path, context: Context) -> Array:
        """Return the standard deviation of the label of each row, function and noise, (n_rows, n_outputs).

        For regression only.
        """
        model, train = load_model(folder)
        inputs = self._inputs(rows, folder, context)
        train_kernels = train.kernels(train)
        factors = []
        for column, kernel_weights in enumerate(model["kernel_weights"].T):
            row_weights = model["row_weights"][:, column]
            is_used = row_weights > 0
            kernel = weighted_sum(train_kernels, kernel_weights, is_used, is_used)
            factors.append((is_used, cholesky_factor(kernel, model["noise"][column], row_weights[is_used])))
        del train_kernels
        std = np.empty((len(rows), len(factors)))
        for start in range(0, len(rows), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(rows))
            cross_kernels = inputs.take(start, stop).kernels(train)
            all_rows = np.ones(stop - start, dtype=bool)
            for column, (is_used, lower) in enumerate(factors):
                cross = weighted_sum(cross_kernels, model["kernel_weights"][:, column], all_rows, is_used)
                variance = latent_variance(lower, cross) + model["noise"][column]
                std[start:stop, column] = np.sqrt(model["variance"][column] * variance)
        return std

    def _labels(self, train: Dataset, task: Task) -> tuple[Array, Array]:
        """Return labels and row weights of each output, (n_rows, n_outputs); weight 0 for a missing label."""
        y = task.one_hot(train.y)
        weights = np.ones_like(train.y)
        if train.weights is not None:
            weights *= train.weights[:, None]
        return y, np.where(np.isnan(y), 0.0, np.broadcast_to(weights, y.shape))

    def _blocks(self, rows: Dataset, folder: Path, context: Context) -> Blocks:
        """Return the unscaled numbers and categories of the RBF kernels."""
        blocks: Blocks = {}
        if "descriptors" in self.kernels:
            (cache,) = self._features(["descriptors"], context)
            per_column = [np.concatenate(cache.load(rows.inputs[column])) for column in context.smiles]
            blocks["descriptors"] = np.hstack(per_column)
        return blocks | feature_blocks(rows, self, context, folder) | table_blocks(rows, context)

    def _inputs(self, rows: Dataset, folder: Path, context: Context) -> Inputs:
        fingerprints = []
        caches = self._features(self.fingerprints, context)
        for column in context.smiles if caches else []:
            fingerprints.append(
                [load(FINGERPRINTS).load_fingerprints(cache, rows.inputs[column]) for cache in caches]
            )
        scaled = scaled_blocks(self._blocks(rows, folder, context), folder)
        scaled["numbers"] = np.hstack([scaled["numbers"], scaled.pop("categories")])
        # float32, so that the file of a job is half as large.
        numbers = {name: block.astype(np.float32) for name, block in scaled.items() if block.shape[1]}
        return Inputs(fingerprints, numbers)


def _calibrate(left_out: Array, y: Array, weights: Array, task: Task) -> dict[str, Array]:
    """Return the slope and the intercepts of the probabilities of each target."""
    slopes = []
    intercepts = []
    both = zip(_scores(left_out, task), _scores(y, task), strict=True)
    for target, (scores, one_hot) in enumerate(both):
        row_weights = weights[:, target]
        is_used = row_weights > 0
        slope, target_intercepts = calibrate(scores[is_used], one_hot[is_used], row_weights[is_used])
        slopes.append(slope)
        intercepts.append(target_intercepts)
    return {"slopes": np.array(slopes), "intercepts": np.array(intercepts)}


def _probabilities(latent: Array, model: dict[str, Array], task: Task) -> Array:
    """Return the calibrated probabilities (n_rows, n_outputs) of latent values (n_rows, n_outputs)."""
    from scipy.special import softmax

    probabilities = []
    parts = zip(_scores(latent, task), model["slopes"], model["intercepts"], strict=True)
    for scores, slope, intercepts in parts:
        probabilities.append(softmax(slope * scores + intercepts, axis=1))
    if task.problem_type == "multiclass":
        return np.asarray(probabilities[0])
    return np.column_stack([each[:, 1] for each in probabilities])


def _scores(values: Array, task: Task) -> list[Array]:
    """Return a score per class of each target, (n_rows, n_classes), from values (n_rows, n_outputs)."""
    if task.problem_type == "multiclass":
        return [values]
    return [np.column_stack([1 - column, column]) for column in values.T]


def load_model(folder: Path) -> tuple[dict[str, Any], Inputs]:
    """Return the fitted arrays of a job by name, and what its kernels read of the training rows."""
    model = from_bytes((folder / MODEL).read_bytes())
    return model, Inputs(model["fingerprints"], model["numbers"])


def _largest_fit(tables: CheckTables, has_refit: bool) -> int:
    """Return the number of rows of the competition in the largest fit, in all orders of columns."""
    swap = tables.context.swap
    folds = [*np.unique(tables.folds[tables.folds >= 0]), *([REFIT_FOLD] if has_refit else [])]
    n_rows = max(int(trains_fold(tables.folds, fold, tables.in_time_order).sum()) for fold in folds)
    return n_rows * (swap.n_orders if swap else 1)


def _require_memory(n_rows: int) -> None:
    """Raise a ConfigError if the matrices of a fit do not fit into the memory of this machine."""
    required = MATRICES * 8 * n_rows**2
    if required > memory_bytes():
        raise ConfigError(
            f"an exact Gaussian process of {n_rows:,} training rows needs {required / 2**30:.0f} GiB "
            f"of memory for its kernels, and this machine has {memory_bytes() / 2**30:.0f} GiB. "
            "Remove the stage."
        )
