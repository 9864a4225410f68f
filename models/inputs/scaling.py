"""How numbers and categories are prepared for kernels, estimators and networks. Trees read them unchanged.

A block is all numbers of one source, or all categories, of some rows. What is fitted is fitted on the
training rows. Each column of numbers has a curve, which maps it to ranks, or to standard deviations from its
mean. A value beyond the training range gets the end of the curve, since no training row shows the target
there.
"""

from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.types import Array
from models.job_folder import write_notes

SCALING = "scaling.npz"
QUANTILES = 200
"""Number of quantiles that ranks are interpolated between."""
MAX_ROWS = 10_000
"""Approximate number of training rows from which quantiles are computed."""
MAX_STANDARDISED = 5.0
"""Standard deviations from the mean at which a value is clipped, so that one outlier cannot
outweigh all other columns."""
STD_EPSILON = 1e-25
"""Standard deviation at or below which a column is constant: smaller than in any unit, but larger
than the rounding noise of a dead neuron."""
ROUNDING = 1e-14
"""Rounding noise of the standard deviation of equal numbers, as a share of them."""
MAX_CATEGORIES = 1000
"""Maximum number of values of a categorical column that have a column of their own, the most frequent ones."""
Blocks = dict[str, Any]
"""Name -> numbers (n_rows, n_columns), NaN for a missing one, or a DataFrame of categories."""


def fit_scaling(blocks: Blocks, folder: Path, ranked: Container[str] = ()) -> None:
    """Fit the curves and the categories on the blocks of training rows, and write them.

    A note names the columns of categories with more than MAX_CATEGORIES values.

    Args:
        folder: folder of the job.
        ranked: names of the blocks that become ranks. The others are standardised, which would move
            molecules with a rare substructure far from all others.
    """
    fitted: dict[str, Any] = {}
    for name, block in blocks.items():
        if isinstance(block, pd.DataFrame):
            for number, column in enumerate(block):
                fitted[f"{name} {number}"] = _categories(block[column], folder)
            continue
        is_missing = np.isnan(block)
        numbers = np.where(is_missing.all(axis=0), 0, block)
        medians = np.nanmedian(numbers, axis=0)
        if name in ranked:
            curves = _rank_curves(np.where(is_missing, medians, block))
        else:
            curves = _standard_curves(numbers.astype(np.float64))
        fitted |= {
            f"{name} medians": medians,
            f"{name} gaps": is_missing.any(axis=0),
            f"{name} curves": curves,
        }
    np.savez_compressed(folder / SCALING, **fitted)


def scaled_blocks(blocks: Blocks, folder: Path) -> Blocks:
    """Return the blocks of rows, scaled as the training rows were, (n_rows, n_columns) each.

    A missing number becomes the median. Each column with missing numbers in training has an indicator of
    them, after all numbers. Categories are one-hot, all zeros for a category without training rows, or one
    of the rarest of more than MAX_CATEGORIES.

    Args:
        folder: folder that `fit_scaling` wrote to.
    """
    scaled: Blocks = {}
    with np.load(folder / SCALING) as fitted:
        for name, block in blocks.items():
            if isinstance(block, pd.DataFrame):
                columns = [column.to_numpy(str) for _, column in block.items()]
                one_hot = [
                    cells[:, None] == fitted[f"{name} {number}"] for number, cells in enumerate(columns)
                ]
                scaled[name] = np.hstack([np.empty((len(block), 0), dtype=bool), *one_hot])
                continue
            is_missing = np.isnan(block)
            numbers = np.where(is_missing, fitted[f"{name} medians"], block)
            for column, knots, levels in zip(numbers.T, *fitted[f"{name} curves"], strict=True):
                column[:] = np.interp(column, knots, levels)
            scaled[name] = np.hstack([numbers, is_missing[:, fitted[f"{name} gaps"]]])
    return scaled


def scaled_matrix(blocks: Blocks, folder: Path) -> NDArray[Any]:
    """Return the blocks of `scaled_blocks` side by side, (n_rows, n_columns); float32 if all of them are."""
    scaled = [*scaled_blocks(blocks, folder).values()]
    return np.hstack([scaled[0][:, :0].astype(np.float32), *(block for block in scaled if block.shape[1])])


def _categories(column: "pd.Series[str]", folder: Path) -> NDArray[np.str_]:
    """Return the sorted values of a column of training rows, of many the MAX_CATEGORIES most frequent ones."""
    values, counts = np.unique(column.to_numpy(str), return_counts=True)
    if len(values) <= MAX_CATEGORIES:
        return values
    most_frequent = np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]
    n_rare = len(values) - MAX_CATEGORIES
    note = (
        f"{column.name}: only its {MAX_CATEGORIES} most frequent values are read, and not the other {n_rare}"
    )
    write_notes(folder, [note])
    return values[np.sort(most_frequent)]


def _rank_curves(numbers: NDArray[Any]) -> tuple[Array, Array]:
    """Return quantiles of columns, and their ranks from 0 to 1, (n_columns, QUANTILES) each.

    Equal quantiles have their mean rank. The smallest number has rank 0, also if most rows have it, such as
    the count 0; the largest has rank 1.
    """
    from scipy.stats import rankdata

    some = numbers[:: -(-len(numbers) // MAX_ROWS)]
    quantiles = np.quantile(some, np.linspace(0, 1, QUANTILES), axis=0)
    ranks = (rankdata(quantiles, axis=0) - 1) / (QUANTILES - 1)
    ranks[quantiles == quantiles[-1]] = 1
    ranks[quantiles == quantiles[0]] = 0
    return quantiles.T, ranks.T


def _standard_curves(numbers: Array) -> tuple[Array, Array]:
    """Return the ends of a line for each column, and how many standard deviations from the mean they are.

    Both are (n_columns, 2). A constant column is 0 everywhere.
    """
    mean = np.nanmean(numbers, axis=0)
    std = np.nanstd(numbers, axis=0)
    ends = np.array([np.nanmin(numbers, axis=0), np.nanmax(numbers, axis=0)])
    ends = np.clip(ends, mean - MAX_STANDARDISED * std, mean + MAX_STANDARDISED * std)
    is_constant = std <= STD_EPSILON + ROUNDING * np.abs(mean)
    levels = (ends - mean) / np.where(is_constant, np.inf, std)
    return ends.T, levels.T
