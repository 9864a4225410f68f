"""Folds of the training rows, by scikit-learn's splitters over units that must stay together."""

from __future__ import annotations

import warnings

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
    ends = (np.concatenate(rows), np.concatenate(nodes))
    edges = coo_matrix((np.ones(n * len(labels)), ends), shape=(offset, offset))
    return pd.factorize(connected_components(edges, directed=False)[1][:n])[0].astype(np.int64)


def _split(
    config: FoldsConfig, rows: pd.DataFrame, unit: NDArray[np.int64], targets: list[str], state: int
) -> NDArray[np.int64]:
    from sklearn.model_selection import KFold, StratifiedKFold

    if config.kind in ("group", "scaffold"):
        return largest_first(np.bincount(unit), config.n_folds, state)[unit]
    of_unit: NDArray[np.int64] = np.empty(int(unit.max()) + 1, dtype=np.int64)
    bins: NDArray[np.int64] = np.zeros(len(of_unit), dtype=np.int64)
    splitter = KFold(config.n_folds, shuffle=True, random_state=state)
    if config.kind == "stratified":
        means = rows[targets].groupby(unit).mean().to_numpy()
        bins = target_bins(means, config.n_bins, config.n_folds, state)
        splitter = StratifiedKFold(config.n_folds, shuffle=True, random_state=state)
    with warnings.catch_warnings():
        # A bin with fewer rows than folds, as of equal labels, cannot be in every fold; it is spread as far as it goes.
        warnings.filterwarnings("ignore", message="The least populated class")
        for fold, (_, held_out) in enumerate(splitter.split(of_unit, bins)):
            of_unit[held_out] = fold
    return of_unit[unit]


def largest_first(sizes: NDArray[np.int64], n_folds: int, state: int) -> NDArray[np.int64]:
    """Fold of each group, (n_groups,): the largest groups first, each into the fold with the fewest rows so far.

    scikit-learn's GroupKFold shuffles groups only by giving every fold as many groups, and one large scaffold
    then makes a fold several times as large as another. Here the seed decides among groups of one size.

    Args:
        sizes: rows of each group, (n_groups,).
        n_folds: at most n_groups.
        state: seed of the order among groups of one size.
    """
    shuffled = np.random.default_rng(state).permutation(len(sizes))
    folds = np.empty(len(sizes), dtype=np.int64)
    rows_in_fold = np.zeros(n_folds, dtype=np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        folds[group] = rows_in_fold.argmin()
        rows_in_fold[folds[group]] += sizes[group]
    return folds


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
