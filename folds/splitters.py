"""Folds of the training rows, by scikit-learn's splitters over units that must stay together."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from competition.errors import DataError
from competition.files import derive_seed
from competition.tables import INPUT_KEY
from folds.config import FoldsConfig


def make_folds(
    config: FoldsConfig,
    table: pd.DataFrame,
    id_column: str,
    targets: list[str],
    smiles: list[str],
    group: str | None,
    seed: int,
) -> NDArray[np.int64]:
    """Fold of each row of the prepared training table, (n_rows,); it does not depend on the order of rows.

    Raises:
        DataError: if there are fewer units than folds, or what the kind needs is not there.
    """
    if config.kind == "group" and group is None:
        raise DataError("folds.kind group needs competition.group, the column whose equal values share a fold.")
    if config.kind == "scaffold" and not smiles:
        raise DataError("folds.kind scaffold needs a column under competition.smiles.")
    order = np.argsort(table[id_column].to_numpy().astype(str), kind="stable")
    rows = table.iloc[order].reset_index(drop=True)
    unit = _joined([rows[INPUT_KEY].to_numpy(), *_extra_units(config, rows, smiles, group)])
    n_units = int(unit.max()) + 1
    if n_units < config.n_folds:
        raise DataError(
            f"folds.n_folds must not exceed the units that can be divided; there are {n_units} "
            f"(rows with equal input{' or group' if config.kind in ('group', 'scaffold') else ''} count once) "
            f"for {config.n_folds} folds. Lower folds.n_folds."
        )
    state = derive_seed(seed, "folds") % 2**31
    fold_of_row = _split(config, rows, unit, targets, state)
    folds = np.empty(len(table), dtype=np.int64)
    folds[order] = fold_of_row
    return folds


def _extra_units(config: FoldsConfig, rows: pd.DataFrame, smiles: list[str], group: str | None) -> list[np.ndarray]:
    if config.kind == "group":
        return [rows[group].to_numpy()]
    if config.kind == "scaffold":
        return [scaffolds(list(rows[smiles[0]]), config.acyclic_alone)]
    return []


def scaffolds(smiles: list[str], acyclic_alone: bool) -> np.ndarray:
    """Bemis-Murcko scaffold of each molecule, (n_rows,) text. Source: Bemis and Murcko, J. Med. Chem. 1996."""
    found = {text: MurckoScaffold.MurckoScaffoldSmiles(mol=Chem.MolFromSmiles(text)) for text in set(smiles)}
    return np.array([found[text] or (f"acyclic {text}" if acyclic_alone else "acyclic") for text in smiles])


def _joined(labels: list[np.ndarray]) -> NDArray[np.int64]:
    """Units 0..n-1 in which rows with an equal entry in any of the label columns are together."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(labels[0])
    rows, nodes, offset = [], [], n
    for column in labels:
        codes, names = pd.factorize(column)
        rows.append(np.arange(n))
        nodes.append(codes + offset)
        offset += len(names)
    edges = coo_matrix((np.ones(n * len(labels)), (np.concatenate(rows), np.concatenate(nodes))), shape=(offset, offset))
    return pd.factorize(connected_components(edges, directed=False)[1][:n])[0].astype(np.int64)


def _split(
    config: FoldsConfig, rows: pd.DataFrame, unit: NDArray[np.int64], targets: list[str], state: int
) -> NDArray[np.int64]:
    from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

    folds = np.empty(len(rows), dtype=np.int64)
    if config.kind in ("group", "scaffold"):
        splitter = GroupKFold(config.n_folds, shuffle=True, random_state=state)
        for fold, (_, held_out) in enumerate(splitter.split(rows, groups=unit)):
            folds[held_out] = fold
        return folds
    first_row = np.unique(unit, return_index=True)[1]
    of_unit = np.empty(len(first_row), dtype=np.int64)
    if config.kind == "stratified":
        means = rows[targets].groupby(unit).mean().to_numpy()
        bins = target_bins(means, config.n_bins, config.n_folds, state)
        splits = StratifiedKFold(config.n_folds, shuffle=True, random_state=state).split(first_row, bins)
    else:
        splits = KFold(config.n_folds, shuffle=True, random_state=state).split(first_row)
    for fold, (_, held_out) in enumerate(splits):
        of_unit[held_out] = fold
    return of_unit[unit]


def target_bins(y: np.ndarray, n_bins: int, n_folds: int, state: int) -> NDArray[np.int64]:
    """Bin of each row: quantiles of one target; k-means of the ranks, and of which labels exist, of several.

    Args:
        y: (n_rows, n_targets), NaN for a missing label.
        n_bins: lowered where a bin could not give every fold a row.
    """
    n_bins = max(1, min(n_bins, len(y) // n_folds))
    ranks = pd.DataFrame(y).rank(pct=True)
    if y.shape[1] == 1 and not ranks[0].isna().any():
        return np.minimum((ranks[0].to_numpy() * n_bins).astype(np.int64), n_bins - 1)
    from sklearn.cluster import KMeans

    features = np.hstack([ranks.fillna(0.5).to_numpy(), ranks.isna().to_numpy().astype(float)])
    n_bins = min(n_bins, len(np.unique(features, axis=0)))
    return KMeans(n_bins, n_init=3, random_state=state).fit_predict(features).astype(np.int64)
