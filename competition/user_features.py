"""User-defined features: `competition.features` names a function that returns numbers for each row.

It is called once for each distinct row of inputs. The numbers are kept in `work/cache/user_features/`, in a file per
version of the code, so that a new table only computes its new rows.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig
from competition.dataset import FEATURE, INPUT_KEY
from core.code_digest import code_digest_of
from core.errors import ConfigError, join_first
from core.files import digest, read_table, sha256_of, work_root, write_table
from core.user_code import (
    data_files,
    imported_versions,
    load_user_code,
    user_code_errors,
    with_helpers,
)


def with_user_features(table: pd.DataFrame, config: CompetitionConfig) -> pd.DataFrame:
    """Return a prepared table with the columns of the user's function, if one is configured.

    Raises:
        ConfigError: if the function fails, returns other than finite numbers, or gives a row other numbers
            when other rows are missing.
    """
    if config.features is None:
        return table
    features = _read_or_compute(table[config.inputs], config.features)
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
    return pd.concat([table, features.add_prefix(FEATURE)], axis=1)


def _read_or_compute(inputs: pd.DataFrame, code_ref: str) -> pd.DataFrame:
    """Return the features of a table of inputs, (n_rows, n_features); new ones are computed and kept."""
    function = load_user_code("competition.features", code_ref, "a function of a table of inputs")
    file = _cache_file(code_ref, inputs.columns.tolist())
    keys = [digest(row) for row in inputs.astype(str).to_numpy().tolist()]
    cached = read_table(file).set_index(INPUT_KEY) if file.exists() else None
    is_new = ~pd.Series(keys).duplicated()
    if cached is not None:
        is_new &= ~pd.Series(keys).isin(cached.index)
    if cached is None or is_new.any():
        rows = np.flatnonzero(is_new)
        computed = _compute(function, inputs.iloc[rows].reset_index(drop=True), code_ref)
        computed.index = pd.Index([keys[i] for i in rows], name=INPUT_KEY)
        if cached is not None and list(computed) != list(cached):
            raise ConfigError(
                f"competition.features {code_ref} returned the columns {join_first(computed, str)} for some rows, and "
                f"{join_first(cached, str)} for others."
            )
        cached = computed if cached is None else pd.concat([cached, computed])
        write_table(file, cached.reset_index())
    return cached.loc[keys].reset_index(drop=True)


def _cache_file(code_ref: str, inputs: list[str]) -> Path:
    """Return the file with the features of this version of the code, of its libraries and of the files it names."""
    path, _, name = code_ref.rpartition(":")
    code = with_helpers(Path(path))
    made_by = {
        "code": [code_digest_of(*code), name],
        "files": [[file.name, sha256_of(file)] for file in data_files(Path(path))],
        "libraries": imported_versions(code),
        "inputs": inputs,
    }
    return work_root() / "cache" / "user_features" / f"{digest(made_by)}.parquet"


def _compute(function: Any, inputs: pd.DataFrame, code_ref: str) -> pd.DataFrame:
    """Return the features of distinct rows, after a check that they do not depend on the other rows."""
    features = _call(function, inputs, code_ref)
    # Counts, means and ranks change if the function sees fewer rows.
    some_rows = np.arange(len(inputs))[::-2]
    for rows in (some_rows, some_rows[:1]):
        recomputed = _call(function, inputs.iloc[rows].reset_index(drop=True), code_ref)
        is_same = list(recomputed) == list(features)
        if not is_same or not np.allclose(recomputed, features.iloc[rows], equal_nan=True):
            raise ConfigError(
                f"competition.features {code_ref} gives a row other numbers when other rows are "
                "missing. They have to depend on that row alone: fit and count nothing on the table inside "
                "the function."
            )
    return features


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
