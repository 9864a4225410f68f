"""Folds: every row once, what belongs together stays together, and the same rows get the same folds."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.dataset import INPUT_KEY
from core.errors import DataError
from folds.groups import clusters, scaffold_shift_reason, scaffolds
from folds.kinds import FOLD_KINDS, FoldsConfig
from folds.make import assign_folds
from folds.splitters import SplitData, balanced_group_folds, target_bins, time_blocks
from tests.folds.made import competition

RINGS = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNCC1", "c1ccoc1", "c1ccsc1"]
KINDS = ["kfold", "stratified", "group", "stratified_group", "scaffold", "cluster"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def molecules(n: int = 120) -> pd.DataFrame:
    """Chains on six rings, sixteen acyclic chains among them; the group is the last digit of the row."""
    rng = np.random.default_rng(0)
    smiles = ["C" * (1 + i // 7) + (RINGS[i % 7] if i % 7 < 6 else "O") for i in range(n)]
    table = pd.DataFrame({"id": [f"m{i}" for i in rng.permutation(n)], "smiles": smiles, INPUT_KEY: smiles})
    table["y"] = rng.normal(size=n) ** 3
    table["z"] = np.where(rng.random(n) < 0.7, np.nan, rng.normal(size=n))
    return table.assign(g=[f"g{i % 10}" for i in range(n)])


def divided(table: pd.DataFrame, kind: str, seed: int = 0, **roles: Any) -> tuple[np.ndarray, np.ndarray]:
    settings = competition(smiles=["smiles"], group="g", **roles)
    return assign_folds(FoldsConfig.model_validate({"kind": kind}), table, settings, seed)


def split(*rest: Any, **roles: Any) -> pd.Series:
    return pd.Series(divided(*rest, **roles)[0])


@pytest.mark.parametrize("targets", [["y"], ["y", "z"]])
@every_kind
def test_every_row_is_in_one_fold_by_the_seed_and_not_by_the_order_of_rows(
    kind: str, targets: list[str]
) -> None:
    table = molecules()
    folds, shuffled = split(table, kind, targets=targets), table.sample(frac=1, random_state=3)
    assert (len(folds), set(folds)) == (120, {0, 1, 2, 3, 4})
    if kind in ("kfold", "stratified"):
        assert set(np.bincount(folds)) == {24}
    shuffled_folds = split(shuffled.reset_index(drop=True), kind, targets=targets).set_axis(
        shuffled["id"].to_numpy()
    )
    assert shuffled_folds[table["id"]].tolist() == folds.tolist()
    if kind != "stratified_group":  # where the seed decides among ties alone
        assert not split(table, kind, seed=1, targets=targets).equals(folds)


@every_kind
def test_rows_of_one_group_share_a_fold_and_groups_are_those_of_the_kind(kind: str) -> None:
    table = molecules()
    table.loc[60:, ["smiles", INPUT_KEY]] = table.loc[:59, ["smiles", INPUT_KEY]].to_numpy()
    folds, groups = map(pd.Series, divided(table, kind))
    smiles = list(table["smiles"])
    assert folds.groupby(groups).nunique().max() == 1
    assert set(groups) == set(range(groups.max() + 1))
    keys = {"scaffold": scaffolds(smiles), "cluster": clusters(smiles, 0.4)}.get(kind, table["g"].to_numpy())
    for label in [table[INPUT_KEY].to_numpy(), *([keys] if kind not in ("kfold", "stratified") else [])]:
        assert groups.groupby(label).nunique().max() == 1
    if kind in ("kfold", "stratified"):
        assert groups.nunique() == table[INPUT_KEY].nunique()


def test_groups_that_an_equal_input_ties_together_share_a_fold() -> None:
    table = molecules()
    table.loc[[0, 1], INPUT_KEY] = "same"  # rows of g0 and g1
    folds, groups = divided(table, "group")
    assert folds[0] == folds[1]
    assert groups.max() + 1 == 9
    assert pd.Series(folds).groupby(table["g"]).nunique().max() == 1


def test_scaffolds_and_their_overlap_by_hand() -> None:
    """Of 12 test molecules with rings 3 have a known scaffold; of 4 training molecules with rings 2 share
    one.
    """
    scaffold_keys = scaffolds(["Cc1ccccc1", "OCc1ccccc1", "CCO", "CCC"])
    assert scaffold_keys.tolist() == ["c1ccccc1", "c1ccccc1", "acyclic CCO", "acyclic CCC"]
    train = ["Cc1ccccc1", "CCc1ccccc1", "Cc1ccncc1", "CC1CCC1", "CCC"]
    test = [*["Nc1ccccc1"] * 2, *["Nc1ccoc1"] * 10, "CCN"]
    assert scaffold_shift_reason(train, test).startswith(
        "17% of the test molecules with rings have a scaffold of the training"
    )
    assert " 50% would" in scaffold_shift_reason(train, test)
    for enough in ([*["Nc1ccccc1"] * 3, *["Nc1ccoc1"] * 9], test[:9], ["CCN"] * 20):
        assert scaffold_shift_reason(train, enough) == ""


def test_large_groups_are_divided_so_that_folds_are_of_like_size() -> None:
    groups = np.repeat(range(10), [7, 1, 5, 1, 3, 1, 3, 1, 1, 1])
    assert np.bincount(balanced_group_folds(groups, pd.DataFrame(index=range(24)), 3, seed=0)).tolist() == [
        8,
        8,
        8,
    ]


BINARY: dict[str, Any] = {"problem_type": "binary", "classes": ["0", "1"], "metric": "roc_auc"}
MULTILABEL = {**BINARY, "problem_type": "multilabel", "targets": ["a", "row", "self"]}


def gap(labels: pd.Series, folds: pd.Series) -> float:
    """How far the number of rows of any class, or without a label, is in any fold from a fifth of them."""
    counts = pd.crosstab(folds, labels.fillna(-1))
    return float((counts - counts.mean()).abs().to_numpy().max())


def test_classes_are_shared_out_to_less_than_a_row_also_where_one_is_rare() -> None:
    """1 positive of 50; seven classes of falling numbers, the last two with fewer rows than folds."""
    table, n = molecules(600), np.arange(600)
    for seed in range(3):
        folds = split(table.assign(y=(n % 50 == 0) * 1.0), "stratified", seed, **BINARY)
        assert np.ptp(np.bincount(folds)) == 0
        assert gap((n % 50 == 0) * pd.Series(1.0, range(600)), folds) < 1  # 12 positives: 2 or 3 in a fold
    y = pd.Series(np.repeat(range(7), [397, 120, 48, 17, 11, 4, 3]), dtype=float)
    roles = {"problem_type": "multiclass", "classes": list("abcdefg"), "metric": "accuracy"}
    for kind in ("stratified", "group"):
        folds = split(table.assign(y=y, g=n.astype(str)), kind, **roles)
        assert (gap(y, folds) < 1, np.ptp(np.bincount(folds))) == (True, 0)
    assert gap(y, split(table.assign(y=y), "kfold", **roles)) > 1  # stays random


def test_labels_of_several_targets_are_shared_out_with_those_that_are_missing() -> None:
    rng, table = np.random.default_rng(2), molecules(1000)
    rates, is_labelled = np.array([0.02, 0.04, 0.15]), rng.random((1000, 3)) < [0.6, 0.8, 0.95]
    table[MULTILABEL["targets"]] = np.where(is_labelled, rng.random((1000, 3)) < rates, np.nan)
    folds = split(table, "stratified", **MULTILABEL)
    assert np.ptp(np.bincount(folds)) <= 2
    assert max(gap(table[name], folds) for name in MULTILABEL["targets"]) <= 2
    assert max(gap(table[name], split(table, "kfold", **MULTILABEL)) for name in MULTILABEL["targets"]) > 8


@pytest.mark.parametrize("kind", ["group", "stratified_group", "scaffold"])
def test_whole_groups_are_shared_out_by_their_classes(kind: str) -> None:
    """Sixty groups of one to twenty rows, each with a rate of positives of its own, which are also the
    scaffolds.
    """
    rng = np.random.default_rng(1)
    groups = rng.permutation(np.repeat(range(60), 1 + np.arange(60) % 20))
    n = len(groups)
    rings = [f"C1{'C' * (2 + i)}1" for i in range(60)]
    table = molecules(n).assign(
        g=groups.astype(str), y=(rng.random(n) < rng.beta(0.3, 3, 60)[groups]).astype(float)
    )
    table["smiles"] = [rings[g] for g in groups]
    folds = split(table, kind, **BINARY)
    assert (gap(table["y"], folds) <= 3, np.ptp(np.bincount(folds)) <= 3) == (True, True)
    assert folds.groupby(groups).nunique().max() == 1


def test_stratified_folds_have_even_means_and_share_out_the_labels_of_a_sparse_target() -> None:
    table = molecules(300).assign(y=np.random.default_rng(1).normal(size=300))

    def std_of_means(kind: str) -> float:
        return float(
            np.mean([table["y"].groupby(split(table, kind, seed)).mean().std() for seed in range(5)])
        )

    assert std_of_means("stratified") < 0.4 * std_of_means("kfold")
    table["z"] = np.where(np.arange(300) < 20, np.arange(300.0), np.nan)
    counts = [
        table["z"].notna().groupby(split(table, "stratified", s, targets=["y", "z"])).sum() for s in range(5)
    ]
    assert 3 <= np.min(counts) <= np.max(counts) <= 5


def test_groups_are_stratified_if_configured() -> None:
    """Forty groups of three rows, a quarter of them high: at random a fold gets more of them or fewer."""
    table = molecules().assign(g=[f"g{i // 3}" for i in range(120)])
    table["y"] = [float(i // 3 % 4 == 0) + 0.001 * i for i in range(120)]
    folds = split(table, "stratified_group")
    assert folds.groupby(table["g"]).nunique().max() == 1
    assert np.ptp((table["y"] > 0.9).groupby(folds).sum()) <= 3  # one group


def test_bins_are_quantiles_of_a_target_and_as_many_as_give_every_fold_a_row() -> None:
    assert target_bins(np.array([[5.0], [1.0], [4.0], [2.0], [3.0], [6.0]]), 2, 0).tolist() == [
        2,
        0,
        2,
        1,
        1,
        2,
    ]
    assert len(set(target_bins(np.arange(10.0)[:, None], n_folds=5, seed=0))) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("targets", [["y"], ["y", "z"]])
def test_labels_that_are_mostly_equal_are_divided_without_a_warning(targets: list[str]) -> None:
    table = molecules(30).assign(y=[0.0] * 27 + [1.0, 2.0, 3.0], z=[np.nan] * 28 + [1.0, 2.0])
    assert set(split(table, "stratified", targets=targets)) == {0, 1, 2, 3, 4}


def test_too_few_groups_and_a_group_larger_than_all_folds_but_one_are_refused() -> None:
    for kind in ("kfold", "stratified", "group", "stratified_group", "scaffold"):
        with pytest.raises(DataError, match="4 groups .* 5 folds"):
            split(molecules(4), kind)
    with pytest.raises(DataError, match="2 groups .* 5 folds"):
        split(molecules(10).assign(**{INPUT_KEY: ["a", "b"] * 5}), "kfold")
    large, small = ["large"] * 80, [f"g{i}" for i in range(20)]
    with pytest.raises(DataError, match=r"id 'm\d+', has 81 of 100 rows"):
        split(molecules(100).assign(g=[*large, "large", *small[1:]]), "group")
    assert np.bincount(split(molecules(100).assign(g=[*large, *small]), "group")).tolist().count(80) == 1


@pytest.mark.parametrize("kind", [name for name, kind in FOLD_KINDS.items() if kind.needs])
def test_a_kind_without_what_it_needs_is_refused(kind: str) -> None:
    with pytest.raises(DataError, match=rf"{kind} needs competition\.{FOLD_KINDS[kind].needs}\."):
        assign_folds(FoldsConfig.model_validate({"kind": kind}), molecules(), competition(), 0)


def test_similar_molecules_are_one_cluster_others_are_not_and_the_order_of_rows_does_not_matter() -> None:
    chains, rings = ["CCCCCCCCO", "CCCCCCCCCO", "CCCCCCCCCCO"], ["Clc1ccccc1", "Brc1ccccc1"]
    centres = clusters([*chains, *rings, chains[0]], similarity=0.4)
    assert len(set(centres[[0, 1, 2, 5]])) == 1 and centres[0] not in centres[3:5]
    assert len(set(clusters([*chains, *rings], similarity=0.99))) > 2
    smiles = list(molecules()["smiles"])
    assert clusters(smiles[::-1], 0.4).tolist() == clusters(smiles, 0.4)[::-1].tolist()


def timed_rows(times: Sequence[float], groups: Iterable[int], n_folds: int) -> SplitData:
    y = pd.DataFrame(index=range(len(times)))
    return SplitData(y, False, np.array([*groups]), np.array(times, dtype=float), n_folds, seed=0)


@pytest.mark.parametrize(
    ("times", "groups", "n_folds", "expected"),
    [
        ([5, 1, 8, 3, 2, 7, 4, 6], range(8), 3, [1, -1, 2, 0, -1, 2, 0, 1]),
        ([1, 1, 2, 2, 3, 3], range(6), 2, [-1, -1, 0, 0, 1, 1]),  # equal times share a block
        ([1, 1, 2, 2, 1, 3], [0, 1, 2, 3, 4, 4], 2, [-1, -1, 0, 0, 1, 1]),  # a group has its latest time
    ],
)
def test_time_is_cut_into_blocks_of_like_size_the_first_of_which_always_trains(
    times: list[int], groups: Any, n_folds: int, expected: list[int]
) -> None:
    assert time_blocks(timed_rows(times, groups, n_folds)).tolist() == expected


def test_times_that_leave_a_block_empty_are_refused() -> None:
    for times in ([1.0, 1.0, 2.0, 2.0, 2.0, 2.0], [1.0, 2.0, 2.0, 2.0, 2.0, 3.0]):
        with pytest.raises(DataError, match=r"divide into 4 blocks .* most frequent with 4 of 6 rows"):
            time_blocks(timed_rows(times, range(6), n_folds=3))
