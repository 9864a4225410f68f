"""Folds: every row once, what belongs together stays together, and the same rows get the same folds."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.dataset import INPUT_KEY
from core.errors import DataError
from folds.groups import clusters, scaffolds
from folds.kinds import FOLD_KINDS, FoldKind, FoldsConfig
from folds.make import assign_folds, compute_groups
from folds.splitters import SplitData, target_bins, time_blocks
from tests.folds.made import competition

RINGS = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNCC1", "c1ccoc1", "c1ccsc1"]
every_kind = pytest.mark.parametrize(
    "kind", ["kfold", "stratified", "group", "stratified_group", "scaffold", "cluster"]
)


def molecules(n=120):
    """Chains on six rings, sixteen acyclic chains among them; the group is the last digit of the row."""
    rng = np.random.default_rng(0)
    smiles = ["C" * (1 + i // 7) + (RINGS[i % 7] if i % 7 < 6 else "O") for i in range(n)]
    table = pd.DataFrame({"id": [f"m{i}" for i in rng.permutation(n)], "smiles": smiles, INPUT_KEY: smiles})
    table["y"] = rng.normal(size=n) ** 3
    table["z"] = np.where(rng.random(n) < 0.7, np.nan, rng.normal(size=n))
    return table.assign(g=[f"g{i % 10}" for i in range(n)])


def divided(table, kind, seed=0, **roles):
    settings = competition(smiles=["smiles"], group="g", **roles)
    return assign_folds(FoldsConfig(kind=kind), table, settings, seed)


def divided_by(table, group):
    """Groups of the rows of a table."""
    roles = competition(smiles=["smiles"], targets=["z"], group=group)
    return compute_groups(FoldsConfig(kind="group"), table, roles)


def split(*rest, **roles):
    return pd.Series(divided(*rest, **roles)[0])


@pytest.mark.parametrize("targets", [["y"], ["y", "z"]])
@every_kind
def test_every_row_is_in_one_fold_by_the_seed_and_not_by_the_order_of_rows(kind, targets):
    table = molecules()
    folds, shuffled = split(table, kind, targets=targets), table.sample(frac=1, random_state=3)
    assert (len(folds), set(folds)) == (120, {0, 1, 2, 3, 4})
    if kind in ("kfold", "stratified"):
        assert set(np.bincount(folds)) == {24}
    of_shuffled = split(shuffled.reset_index(drop=True), kind, targets=targets)
    assert of_shuffled.set_axis(shuffled.index)[table.index].tolist() == folds.tolist()
    if kind != "stratified_group":  # where the seed decides among ties alone
        assert not split(table, kind, seed=1, targets=targets).equals(folds)


@every_kind
def test_rows_of_one_group_share_a_fold_and_groups_are_those_of_the_kind(kind):
    table = molecules()
    table.loc[60:, ["smiles", INPUT_KEY]] = table.loc[:59, ["smiles", INPUT_KEY]].to_numpy()
    folds, groups = map(pd.Series, divided(table, kind))
    assert folds.groupby(groups).nunique().max() == 1
    assert set(groups) == set(range(groups.max() + 1))
    smiles = list(table["smiles"])
    centres = table["smiles"].map(clusters(smiles, 0.4))
    keys = {"scaffold": scaffolds(smiles), "cluster": centres}.get(kind, table["g"].to_numpy())
    assert groups.groupby(table[INPUT_KEY]).nunique().max() == 1
    if kind in ("kfold", "stratified"):
        assert groups.nunique() == table[INPUT_KEY].nunique()
    else:
        assert groups.groupby(keys).nunique().max() == 1


def with_several_targets():
    """Three targets with few positives, of which some labels are missing."""
    rng, table = np.random.default_rng(2), molecules(1000)
    is_labelled = rng.random((1000, 3)) < [0.6, 0.8, 0.95]
    is_positive = rng.random((1000, 3)) < [0.02, 0.04, 0.15]
    return table.assign(**dict(zip("abc", np.where(is_labelled, is_positive, np.nan).T, strict=True)))


def with_groups():
    """Sixty groups of one to twenty rows, each with a rate of positives of its own, which are also the scaffolds."""
    rng = np.random.default_rng(1)
    groups = rng.permutation(np.repeat(range(60), 1 + np.arange(60) % 20))
    is_positive = rng.random(len(groups)) < rng.beta(0.3, 3, 60)[groups]
    table = molecules(len(groups)).assign(g=groups.astype(str), y=is_positive.astype(float))
    return table.assign(smiles=[f"C1{'C' * (2 + group)}1" for group in groups])


ONE_OF_50 = molecules(600).assign(y=(np.arange(600) % 50 == 0) * 1.0)
SEVEN = molecules(600).assign(
    y=np.repeat(np.arange(7.0), [397, 120, 48, 17, 11, 4, 3]), g=np.arange(600).astype(str)
)
BINARY: dict[str, Any] = {"problem_type": "binary", "classes": ["0", "1"], "metric": "roc_auc"}
MULTICLASS = {"problem_type": "multiclass", "classes": list("abcdefg"), "metric": "accuracy"}
MULTILABEL = {**BINARY, "problem_type": "multilabel", "targets": ["a", "b", "c"]}


def gap(table, kind, roles):
    """How far the number of rows of any class, or without a label, is in any fold from a fifth of them."""
    folds = split(table, kind, **roles)
    counts = [pd.crosstab(folds, table[name].fillna(-1)) for name in roles.get("targets", ["y"])]
    return max((count - count.mean()).abs().to_numpy().max() for count in counts)


@pytest.mark.parametrize(
    ("kind", "table", "roles", "limit"),
    [
        ("stratified", ONE_OF_50, BINARY, 0.9),  # 12 positives: 2 or 3 in a fold
        ("stratified", SEVEN, MULTICLASS, 0.9),
        ("group", SEVEN, MULTICLASS, 0.9),
        ("stratified", with_several_targets(), MULTILABEL, 2),
        ("group", with_groups(), BINARY, 3),
        ("stratified_group", with_groups(), BINARY, 3),
        ("scaffold", with_groups(), BINARY, 3),
    ],
)
def test_classes_are_shared_out_also_where_they_are_rare_missing_or_come_in_groups(kind, table, roles, limit):
    assert np.ptp(np.bincount(split(table, kind, **roles))) <= limit
    assert gap(table, kind, roles) <= limit < gap(table, "kfold", roles)


def test_stratified_folds_have_even_means_and_share_out_the_labels_of_a_sparse_target():
    table = molecules(300).assign(y=np.random.default_rng(1).normal(size=300))

    def std_of_means(kind):
        folds_of_seeds = [split(table, kind, seed) for seed in range(5)]
        return np.mean([table["y"].groupby(folds).mean().std() for folds in folds_of_seeds])

    assert std_of_means("stratified") < 0.4 * std_of_means("kfold")
    table["z"] = table.index.where(table.index < 20)
    for seed in range(5):
        n_labels = table["z"].groupby(split(table, "stratified", seed, targets=["y", "z"])).count()
        assert 3 <= n_labels.min() <= n_labels.max() <= 5


def test_groups_are_stratified_if_configured():
    """Forty groups of three rows, a quarter of them high: at random a fold gets more of them or fewer."""
    table = molecules().assign(g=[f"g{i // 3}" for i in range(120)])
    table["y"] = [float(i // 3 % 4 == 0) + 0.001 * i for i in range(120)]
    folds = split(table, "stratified_group")
    assert folds.groupby(table["g"]).nunique().max() == 1
    assert np.ptp((table["y"] > 0.9).groupby(folds).sum()) <= 3  # one group


def test_bins_are_quantiles_of_a_target_and_as_many_as_give_every_fold_a_row():
    y = np.array([5.0, 1.0, 4.0, 2.0, 3.0, 6.0])[:, None]
    assert target_bins(y, n_folds=2, seed=0).tolist() == [2, 0, 2, 1, 1, 2]
    assert len(set(target_bins(np.arange(10.0)[:, None], n_folds=5, seed=0))) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("targets", [["y"], ["y", "z"]])
def test_labels_that_are_mostly_equal_are_divided_without_a_warning(targets):
    table = molecules(30).assign(y=[0.0] * 27 + [1.0, 2.0, 3.0], z=[np.nan] * 28 + [1.0, 2.0])
    assert set(split(table, "stratified", targets=targets)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("kind", ["kfold", "stratified", "group", "stratified_group", "scaffold"])
def test_few_groups_make_a_fold_each_and_a_group_larger_than_all_folds_but_one_is_refused(kind):
    assert sorted(split(molecules(4), kind)) == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"1 groups .*, has 1 of 1 rows"):
        split(molecules(1), kind)
    sizes = np.repeat(range(21), [80, *[1] * 20]).astype(str)
    folds = split(molecules(100).assign(g=sizes), "group")
    assert np.bincount(folds).max() == 80
    sizes[99] = "0"
    with pytest.raises(DataError, match=r"id 'm\d+', has 81 of 100 rows"):
        split(molecules(100).assign(g=sizes), "group")


@pytest.mark.parametrize("targets", [["y"], ["y", "z"]])
@pytest.mark.parametrize("kind", ["group", "stratified_group"])
def test_a_few_large_groups_leave_no_fold_empty(kind, targets):
    table = molecules().assign(g=np.repeat(list("abcdef"), [40, 30, 20, 15, 10, 5]))
    assert set(split(table, kind, targets=targets)) == {0, 1, 2, 3, 4}


def test_rows_that_share_one_of_several_units_are_tied_and_rows_without_one_are_not():
    """Six rows: two of a plate, of which one has the scaffold of another row; two have the prefix of their ids."""
    table = molecules(6).assign(
        id=["a", "b", "c", "p1_a", "p1_b", "d"],
        smiles=["Cc1ccccc1", "Cc1ccncc1", "CCc1ccccc1", "CO", "CN", "CS"],
        plate=["1", "1", "", "", "2", "3"],
    )
    table[INPUT_KEY] = table["smiles"]
    group = ["plate", {"scaffold": "smiles"}, {"prefix": "id"}]
    groups = divided_by(table, group)
    assert groups[0] == groups[1] == groups[2] and groups[3] == groups[4]
    assert len(set(groups)) == 3


def test_a_pool_ties_the_values_of_its_columns():
    table = molecules(4).assign(x=list("abcd"), y=list("bexy"))
    groups = divided_by(table, {"pool": ["x", "y"]}).tolist()
    assert groups[0] == groups[1] and len(set(groups)) == 3


@pytest.mark.parametrize("kind", [name for name, kind in FOLD_KINDS.items() if kind.needs])
def test_a_kind_without_what_it_needs_is_refused(kind):
    with pytest.raises(DataError, match=rf"{kind} needs competition\.{FOLD_KINDS[kind].needs}\."):
        assign_folds(FoldsConfig(kind=kind), molecules(), competition(), 0)


def test_a_new_kind_of_folds_is_a_function_and_an_entry_of_the_registry(
    monkeypatch,
):
    kind = FoldKind(
        lambda data: data.groups % data.n_folds,
        lambda rows, *_: [rows["smiles"].str.len().astype(str)],
    )
    monkeypatch.setitem(FOLD_KINDS, "alternating", kind)
    table = molecules()
    folds, groups = divided(table, "alternating")
    assert (folds == groups % 5).all()
    assert pd.Series(groups).groupby(table["smiles"].str.len()).nunique().max() == 1


def test_a_kind_of_folds_can_read_the_molecules(monkeypatch):
    by_size = FoldKind(lambda data: (data.rows[data.smiles[0]].str.len() % data.n_folds).to_numpy())
    monkeypatch.setitem(FOLD_KINDS, "size", by_size)
    table = molecules()
    assert (divided(table, "size")[0] == table["smiles"].str.len() % 5).all()


def test_an_unknown_kind_is_an_error_that_lists_all_kinds():
    with pytest.raises(ValueError, match="must be one of kfold, .*, file"):
        FoldsConfig(kind="alternating")


def blocks(times, n_folds, groups=range(8)):
    y = pd.DataFrame(index=range(len(times)))
    data = SplitData(y, False, np.array([*groups][: len(times)]), np.array(times), n_folds, 0, y, [])
    return time_blocks(data).tolist()


def test_time_is_cut_into_blocks_of_like_size_the_first_of_which_always_trains():
    assert blocks([5, 1, 8, 3, 2, 7, 4, 6], 3) == [1, -1, 2, 0, -1, 2, 0, 1]
    assert blocks([1, 1, 2, 2, 3, 3], 2) == [-1, -1, 0, 0, 1, 1]  # equal times share a block
    group_of_latest_row = blocks([1, 1, 2, 2, 1, 3], 2, [0, 1, 2, 3, 4, 4])
    assert group_of_latest_row == [-1, -1, 0, 0, 1, 1]


@pytest.mark.parametrize("times", [[1, 1, 2, 2, 2, 2], [1, 2, 2, 2, 2, 3]])
def test_times_that_leave_a_block_empty_are_refused(times):
    with pytest.raises(DataError, match=r"divide into 4 blocks .* most frequent with 4 of 6 rows"):
        blocks(times, n_folds=3)


@pytest.mark.parametrize(
    ("times", "n_folds", "advice"),
    [([1, 2, 3, 4], 5, "Lower folds.n_folds, or"), ([1, 1, 1, 1], 3, "Choose")],
)
def test_a_lower_number_of_folds_is_advised_where_it_may_help(times, n_folds, advice):
    with pytest.raises(DataError, match=rf"leave some empty\. {advice}"):
        blocks(times, n_folds)
