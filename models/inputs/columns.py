"""Numbers and categories of the tables, as features."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.dataset import Dataset
from core.types import Array
from models.context import Context

MAX_FLOAT32 = float(np.finfo(np.float32).max)


def numeric_block(rows: Dataset, context: Context) -> Array:
    """Return the numeric columns and the user-defined features, (n_rows, n_numeric).

    A missing number is NaN. Numbers are clipped to the range of float32.
    """
    return np.clip(rows.inputs[context.numeric].to_numpy(dtype=np.float64), -MAX_FLOAT32, MAX_FLOAT32)


def table_blocks(rows: Dataset, context: Context) -> dict[str, Any]:
    """Return the numbers and the categories of rows, as `models/inputs/scaling.py` scales them."""
    return {"numbers": numeric_block(rows, context), "categories": rows.inputs[context.categorical]}


def fit_categories(train: Dataset, columns: list[str]) -> dict[str, list[str]]:
    """Return the sorted categories of each categorical column."""
    return {name: sorted(set(train.inputs[name])) for name in columns}


def category_block(rows: Dataset, categories: dict[str, list[str]]) -> NDArray[np.float32]:
    """Return the index of each category, (n_rows, n_categorical); -1 for a category without training rows."""
    blocks: list[Any] = [np.empty((len(rows), 0))]
    for name, values in categories.items():
        blocks.append(pd.Index(values).get_indexer(pd.Index(rows.inputs[name])))
    return np.column_stack(blocks).astype(np.float32)
