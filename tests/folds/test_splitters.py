"""Folds: every row once, what belongs together stays together, and the same rows get the same folds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.errors import DataError
from competition.tables import INPUT_KEY
from folds.config import FoldsConfig
from folds.groups import clusters, scaffold_overlap, scaffolds
from folds.splitters import divide, largest_first, target_bins, time_blocks

RINGS = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNCC1", "c1ccoc1", "c1ccsc1"]
KINDS = ["kfold", "stratified", "group", "stratified_group", "scaffold", "cluster"]


def molecules(n: int = 120) -> pd.DataFrame:
    """Chains on six rings, sixteen acyclic chains among them; the group is the last digit of the row."""
    rng = np.random.default_rng(0)
    smiles = ["C" * (1 + i // 7) + (RINGS[i % 7] if i % 7 < 6 else "O") for i in range(n)]
    table = pd.DataFrame({"id": [f"m{i}" for i in rng.permutation(n)], "smiles": smiles, INPUT_KEY: smiles})
    table["y"] = rng.normal(size=n) ** 3
    table["z"] = np.where(rng.random(n) < 0.7, np.nan, rng.normal(size=n))
    table["g"] = [f"g{i % 10}" for i in range(n)]
    return table


def split(
    table: pd.DataFrame, kind: str, seed: int = 0, targets: tuple[str, ...] = ("y",), **settings: Any
) -> np.ndarray:
    config = FoldsConfig.model_validate({"kind": kind, **settings})
    return divide(config, table, "id", list(targets), ["smiles"], "g", seed).folds


@pytest.mark.parametrize("targets", [("y",), ("y", "z")])
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_in_one_fold_and_every_fold_has_rows(kind: str, targets: tuple[str, ...]) -> None:
    folds = split(molecules(), kind, targets=targets)
    assert folds.shape == (120,)
    assert set(folds) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("kind", ["kfold", "stratified"])
def test_folds_of_single_rows_are_of_equal_size(kind: str) -> None:
    assert set(np.bincount(split(molecules(), kind))) == {24}


@pytest.mark.parametrize("kind", KINDS)
def test_folds_do_not_depend_on_the_order_of_rows(kind: str) -> None:
    table = molecules()
    shuffled = table.sample(frac=1, random_state=3)
    again = pd.Series(split(shuffled.reset_index(drop=True), kind), index=shuffled["id"].to_numpy())
    assert again[table["id"]].tolist() == split(table, kind).tolist()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "stratified_group"])  # it decides among ties alone
def test_the_seed_decides(kind: str) -> None:
    table = molecules()
    assert split(table, kind, seed=1).tolist() == split(table, kind, seed=1).tolist()
    assert split(table, kind, seed=1).tolist() != split(table, kind, seed=2).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_with_the_same_input_share_a_fold(kind: str) -> None:
    table = molecules()
    table.loc[60:, ["smiles", INPUT_KEY]] = table.loc[:59, ["smiles", INPUT_KEY]].to_numpy()
    folds = pd.Series(split(table, kind))
    assert folds.groupby(table[INPUT_KEY].to_numpy()).nunique().max() == 1


def test_groups_never_cross_folds_and_neither_does_what_duplicates_tie_to_them() -> None:
    table = molecules()
    table.loc[[0, 1], INPUT_KEY] = "same"  # rows of g0 and g1: both whole groups now share a fold
    folds = pd.Series(split(table, "group"))
    assert folds.groupby(table["g"]).nunique().max() == 1
    assert folds[0] == folds[1]
    assert len(set(folds)) == 5


def test_scaffolds_stay_together() -> None:
    table = molecules()
    folds = pd.Series(split(table, "scaffold"))
    found = scaffolds(list(table["smiles"]), acyclic_alone=True)
    assert folds.groupby(found).nunique().max() == 1


def test_acyclic_molecules_are_divided_or_kept_together_by_setting() -> None:
    table = molecules()
    acyclic = np.array(["1" not in smiles for smiles in table["smiles"]])
    assert acyclic.sum() > 10
    assert len(set(split(table, "scaffold", acyclic_alone=True)[acyclic])) > 1
    assert len(set(split(table, "scaffold", acyclic_alone=False)[acyclic])) == 1


def test_scaffolds_by_hand() -> None:
    found = scaffolds(["Cc1ccccc1", "OCc1ccccc1", "CCO", "CCC"], acyclic_alone=True)
    assert found.tolist() == ["c1ccccc1", "c1ccccc1", "acyclic CCO", "acyclic CCC"]
    assert scaffolds(["CCO", "CCC"], acyclic_alone=False).tolist() == ["acyclic", "acyclic"]


def test_the_overlap_of_scaffolds_by_hand() -> None:
    """Train: benzene twice, pyridine once, one chain; test: benzene, furan, one chain."""
    train, test = ["Cc1ccccc1", "CCc1ccccc1", "Cc1ccncc1", "CCC"], ["Nc1ccccc1", "Nc1ccoc1", "CCN"]
    assert scaffold_overlap(train, test) == (1 / 2, 2 / 3, 2)
    assert scaffold_overlap(train, ["CCN"]) == (1.0, 1.0, 0)


def test_large_groups_are_spread_so_that_folds_are_of_like_size() -> None:
    sizes = np.array([7, 1, 5, 1, 3, 1, 3, 1, 1, 1])
    folds = largest_first(sizes, 3, state=0)
    assert [int(sizes[folds == fold].sum()) for fold in range(3)] == [8, 8, 8]


def test_stratified_folds_have_more_even_means_than_random_ones() -> None:
    table = molecules(300)
    table["y"] = np.random.default_rng(1).normal(size=300)

    def spread_of_means(kind: str) -> float:
        return float(np.mean([table["y"].groupby(split(table, kind, seed)).mean().std() for seed in range(5)]))

    assert spread_of_means("stratified") < 0.4 * spread_of_means("kfold")


def test_stratified_folds_share_out_the_labels_of_a_sparse_target() -> None:
    table = molecules(300)
    table.loc[20:, "z"] = np.nan
    table.loc[:19, "z"] = np.arange(20.0)
    counts = np.array([table["z"].notna().groupby(split(table, "stratified", s, ("y", "z"))).sum() for s in range(5)])
    assert counts.min() >= 3
    assert counts.max() <= 5


def test_bins_of_one_target_are_its_quantiles() -> None:
    assert target_bins(np.array([[5.0], [1.0], [4.0], [2.0], [3.0], [6.0]]), 3, 2, 0).tolist() == [2, 0, 2, 1, 1, 2]


def test_there_are_at_most_as_many_bins_as_give_every_fold_a_row() -> None:
    assert len(set(target_bins(np.arange(10.0)[:, None], n_bins=10, n_folds=5, state=0))) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("targets", [("y",), ("y", "z")])
def test_labels_that_are_mostly_equal_are_divided_without_a_warning(targets: tuple[str, ...]) -> None:
    table = molecules(30)
    table["y"] = [0.0] * 27 + [1.0, 2.0, 3.0]
    table["z"] = [np.nan] * 28 + [1.0, 2.0]
    assert set(split(table, "stratified", targets=targets)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("kind", ["kfold", "stratified", "group", "stratified_group", "scaffold"])
def test_fewer_units_than_folds_are_refused(kind: str) -> None:
    table = molecules(4)
    with pytest.raises(DataError, match=r"n_folds must not exceed the groups .* there are 4 .* for 5 folds"):
        split(table, kind)


def test_equal_inputs_count_as_one_unit() -> None:
    table = molecules(10)
    table[INPUT_KEY] = ["a", "b"] * 5
    with pytest.raises(DataError, match="there are 2 "):
        split(table, "kfold")


def test_a_kind_without_what_it_needs_is_refused() -> None:
    with pytest.raises(DataError, match=r"needs competition\.group"):
        divide(FoldsConfig(kind="group"), molecules(), "id", ["y"], [], None, 0)
    with pytest.raises(DataError, match=r"needs a column under competition\.smiles"):
        divide(FoldsConfig(kind="scaffold"), molecules(), "id", ["y"], [], None, 0)
    with pytest.raises(DataError, match=r"stratified_group needs competition\.group"):
        divide(FoldsConfig(kind="stratified_group"), molecules(), "id", ["y"], [], None, 0)
    with pytest.raises(DataError, match=r"cluster needs a column under competition\.smiles"):
        divide(FoldsConfig(kind="cluster"), molecules(), "id", ["y"], [], None, 0)
    with pytest.raises(DataError, match=r"time needs competition\.time"):
        divide(FoldsConfig(kind="time"), molecules(), "id", ["y"], [], None, 0)
    with pytest.raises(DataError, match=r"column needs competition\.fold_column"):
        divide(FoldsConfig(kind="column"), molecules(), "id", ["y"], [], None, 0)


def test_groups_are_stratified_where_asked_and_stay_whole() -> None:
    """Forty groups of three rows, a quarter of them high: at random a fold gets more of them or fewer."""
    table = molecules()
    table["g"] = [f"g{i // 3}" for i in range(120)]
    table["y"] = [float(i // 3 % 4 == 0) + 0.001 * i for i in range(120)]
    folds = pd.Series(split(table, "stratified_group", n_bins=4))
    assert folds.groupby(table["g"]).nunique().max() == 1
    high = (table["y"] > 0.9).groupby(folds).sum()
    assert high.max() - high.min() <= 3  # one group


def test_similar_molecules_are_one_cluster_and_others_are_not() -> None:
    chains = ["CCCCCCCCO", "CCCCCCCCCO", "CCCCCCCCCCO"]
    rings = ["Clc1ccccc1", "Brc1ccccc1"]
    found = clusters([*chains, *rings, chains[0]], similarity=0.4)
    assert len(set(found[:3])) == 1
    assert found[5] == found[0]
    assert found[0] not in found[3:5]
    assert len(set(clusters([*chains, *rings], similarity=0.99))) > 2


def test_clusters_do_not_depend_on_the_order_of_rows() -> None:
    smiles = list(molecules()["smiles"])
    pairs = dict(zip(smiles, clusters(smiles, 0.4), strict=True))
    assert clusters(smiles[::-1], 0.4).tolist() == [pairs[text] for text in smiles[::-1]]


def test_molecules_of_one_cluster_share_a_fold() -> None:
    table = molecules()
    folds = pd.Series(split(table, "cluster"))
    assert folds.groupby(clusters(list(table["smiles"]), 0.4)).nunique().max() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_one_unit_share_a_fold_and_units_have_no_gap(kind: str) -> None:
    table = molecules()
    made = divide(FoldsConfig(kind=kind), table, "id", ["y"], ["smiles"], "g", 0)
    assert pd.Series(made.folds).groupby(made.groups).nunique().max() == 1
    assert set(made.groups) == set(range(made.groups.max() + 1))
    expected = {"group": "g", "stratified_group": "g", "kfold": INPUT_KEY, "stratified": INPUT_KEY}.get(kind)
    if expected:
        assert pd.Series(made.groups).groupby(table[expected]).nunique().max() == 1
        assert made.groups.max() + 1 == table[expected].nunique()


def test_a_group_larger_than_all_folds_but_one_is_refused() -> None:
    table = molecules(100)
    table["g"] = ["large"] * 81 + [f"g{i}" for i in range(19)]
    with pytest.raises(DataError, match=r"not be more than 4 of 5 folds of equal size hold; 81 of 100 rows .* id 'm"):
        split(table, "group")
    table["g"] = ["large"] * 80 + [f"g{i}" for i in range(20)]
    assert np.bincount(split(table, "group")).tolist().count(80) == 1


def test_time_is_cut_into_blocks_of_like_size_the_first_of_which_always_trains() -> None:
    times = np.array([5.0, 1.0, 8.0, 3.0, 2.0, 7.0, 4.0, 6.0])
    assert time_blocks(times, np.arange(8), n_folds=3).tolist() == [1, -1, 2, 0, -1, 2, 0, 1]


def test_equal_times_share_a_block_and_an_input_has_its_latest_time() -> None:
    times = np.array([1.0, 1.0, 2.0, 2.0, 3.0, 3.0])
    assert time_blocks(times, np.arange(6), n_folds=2).tolist() == [-1, -1, 0, 0, 1, 1]
    unit = np.array([0, 1, 2, 3, 4, 4])  # the last input was measured at time 1 as well
    assert time_blocks(np.array([1.0, 1.0, 2.0, 2.0, 1.0, 3.0]), unit, n_folds=2).tolist() == [-1, -1, 0, 0, 1, 1]


@pytest.mark.parametrize("times", [[1.0, 1.0, 2.0, 2.0, 2.0, 2.0], [1.0, 2.0, 2.0, 2.0, 2.0, 3.0]])
def test_times_that_leave_a_block_empty_are_refused(times: list[float]) -> None:
    with pytest.raises(DataError, match=r"divide into 4 blocks .* commonest with 4 of 6 rows.* Lower folds\.n_folds"):
        time_blocks(np.array(times), np.arange(6), n_folds=3)
