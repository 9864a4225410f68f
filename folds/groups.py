"""Groups: rows that must share a fold."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.clean import input_keys
from competition.config import CompetitionConfig
from competition.dataset import INPUT_KEY
from core.types import Integers
from folds.config import FoldsConfig
from folds.molecule_groups import desalted, parent

STANDARDIZED = (desalted, parent)
N_INPUT_KEYS = 1 + len(STANDARDIZED)
"""Number of keys of the inputs of a row, which follow its key of the kind of folds."""


def compute_groups(config: FoldsConfig, rows: pd.DataFrame, competition: CompetitionConfig) -> Integers:
    """Return the group of each row of the prepared training table, (n_rows,), numbered from 0.

    Rows with equal inputs are one group, also if only salts make their molecules differ. So are rows with
    equal keys of the kind of folds (its `row_keys`), and all rows that are connected by such pairs.
    """
    return _connected(_keys(config, rows, competition, len(rows)))


def groups_outside_folds(
    config: FoldsConfig,
    rows: pd.DataFrame,
    groups: Integers,
    others: pd.DataFrame,
    competition: CompetitionConfig,
) -> Integers:
    """Return the group of rows that are in no fold, (n_others,): extra training rows and test rows.

    A row gets the group of the training rows with its `competition.group`, scaffold or cluster, otherwise
    that of the training rows with its inputs, otherwise a new one. If the first are in another group than a salt of
    its molecule, it gets -1 and is not trained on. The groups of the training rows stay unchanged.

    Args:
        rows: prepared training rows with the groups (n_rows,).
        others: prepared rows; an empty or missing `competition.group` belongs to no group.
    """
    n = len(rows)
    keys = _keys(config, pd.concat([rows, others], ignore_index=True), competition, n)
    group_of_key = dict(zip(keys[:, :n].ravel(), np.tile(groups, len(keys)), strict=True))
    matches = pd.DataFrame([pd.Series(key).map(group_of_key) for key in keys[:, n:]], dtype=np.float64)
    joined = matches.bfill().iloc[0]
    # A job excludes extra rows that have the group or the input of a held-out row, but does not know their salts.
    has_input = matches.iloc[-N_INPUT_KEYS].notna()
    joined[(matches.nunique() > 1) & ~has_input] = -1
    is_new = joined.isna().to_numpy()
    joined[is_new] = groups.max() + 1 + _connected(keys[:, n:][:, is_new])
    return joined.to_numpy().astype(np.int64)


def _keys(
    config: FoldsConfig, rows: pd.DataFrame, competition: CompetitionConfig, n_in_folds: int
) -> NDArray[Any]:
    """Return the keys of rows, (n_keys, n_rows) text: rows that share a key belong together.

    Args:
        rows: prepared rows, of which the first `n_in_folds` are in folds.
    """
    keys = [rows[INPUT_KEY]]
    for standardize in STANDARDIZED:
        molecules = {name: rows[name].map(standardize) for name in competition.smiles}
        keys.append(_changed_keys(rows.assign(**molecules), rows, competition))
    row_keys = config.definition.row_keys
    if row_keys is not None:
        keys.insert(0, row_keys(rows, competition, config.similarity, n_in_folds))
    return np.array(keys, dtype=object)


def _changed_keys(table: pd.DataFrame, rows: pd.DataFrame, competition: CompetitionConfig) -> pd.Series:
    """Return the input keys of rows after their molecules were replaced by those of `table`."""
    keys = rows[INPUT_KEY].copy()
    changed = (table[competition.smiles] != rows[competition.smiles]).any(axis=1)
    if changed.any():
        keys[changed] = input_keys(table[changed], competition)
    return keys


def _connected(keys: NDArray[Any]) -> Integers:
    """Return the connected component of each row, (n_rows,), numbered by first appearance.

    Args:
        keys: (n_keys, n_rows).
    """
    if (keys == keys[0]).all():
        return pd.factorize(keys[0])[0]
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n_keys, n = keys.shape
    row_of_key = np.tile(np.arange(n), n_keys)
    key_number = n + pd.factorize(keys.ravel())[0]
    edges = coo_matrix((np.ones(keys.size), (row_of_key, key_number)), shape=[n + keys.size] * 2)
    return pd.factorize(connected_components(edges, directed=False)[1][:n])[0]
