"""User-defined features: `competition.features` names a function that returns numbers for each row."""

from typing import Any

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig
from competition.dataset import FEATURE, INPUT_KEY
from competition.errors import ConfigError
from competition.user_code import load_user_code, user_code_errors


def with_user_features(table: pd.DataFrame, config: CompetitionConfig) -> pd.DataFrame:
    """Return a prepared table with the columns of the user's function, if one is configured.

    Raises:
        ConfigError: if the function fails, returns other than finite numbers, or gives a row other numbers
            when other rows are missing.
    """
    if config.features is None:
        return table
    function = load_user_code("competition.features", config.features, "a function of a table of inputs")
    features = _call(function, table[config.inputs], config.features)
    is_infinite = features.abs() == np.inf
    n_infinite = is_infinite.to_numpy().sum()
    is_tolerant = config.unparsable == "drop"  # in a notebook, an error would cost the submission
    if n_infinite and is_tolerant:
        print(f"WARNING: {n_infinite} values of competition.features are infinite, and are missing values")
    features = features.mask(is_infinite)
    if not is_tolerant and (n_infinite or features.isna().to_numpy().all()):
        raise ConfigError(
            f"competition.features {config.features} returned only missing values, or infinite ones."
        )
    # Counts, means and ranks change if the function sees fewer rows.
    some_rows = np.flatnonzero(~table[INPUT_KEY].duplicated())[::-2]
    for rows in (some_rows, some_rows[:1]):
        subset = table[config.inputs].iloc[rows].reset_index(drop=True)
        recomputed = _call(function, subset, config.features)
        recomputed = recomputed.mask(np.isinf(recomputed))
        is_same = list(recomputed) == list(features)
        if not is_same or not np.allclose(recomputed, features.iloc[rows], equal_nan=True):
            raise ConfigError(
                f"competition.features {config.features} gives a row other numbers when other rows are "
                "missing. They have to depend on that row alone: fit and count nothing on the table inside "
                "the function."
            )
    return pd.concat([table, features.add_prefix(FEATURE)], axis=1)


def _call(function: Any, inputs: pd.DataFrame, code_ref: str) -> pd.DataFrame:
    with user_code_errors(code_ref, "return a table of numbers for one of inputs"):
        features = pd.DataFrame(function(inputs.copy())).reset_index(drop=True)
        features = features.astype(float).rename(columns=str)
    if len(features) != len(inputs) or not features.columns.is_unique:
        raise ConfigError(
            f"competition.features {code_ref} has to return a row of finite numbers (NaN: missing) for each "
            f"row, in columns of different names; it returned {features.shape} for {len(inputs)} rows."
        )
    return features
