"""What `./run.sh folds` sees: a shift that is there, none that is not, and the kind of folds that fits."""

import numpy as np
import pandas as pd
import pytest

from competition.dataset import GROUP, INPUT_KEY
from competition.descriptors import DESCRIPTORS
from core.files import sha256_of
from core.paths import Paths
from folds import adversarial
from folds.adversarial import adversarial_validation, readable_features, rows_like_test
from folds.compare import describe_evidence, describe_similarity
from folds.comparison import read_comparison
from folds.similarity import similarities
from pipeline import commands
from tests.conftest import mixed_tables, write_competition
from tests.folds.made import competition

pytestmark = pytest.mark.draws_figures


def config(**settings):
    return competition(**{"numeric": ["x", "z"], **settings})


def tables(n=200, moved=0.0):
    """Two tables of two numbers, of which x is larger in the second."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=2 * n), "z": rng.normal(size=2 * n), INPUT_KEY: range(2 * n)})
    table = table.assign(**{GROUP: range(2 * n)}, id=[f"r{i}" for i in range(2 * n)])
    test = table[n:].reset_index(drop=True)
    return table[:n], test.assign(x=test["x"] + moved)


def validated(train, test):
    return adversarial_validation(train, test, config(), 0, weights)


def weights(smiles):
    """Descriptors that are all 0 but the first one, the number of characters."""
    table = np.zeros((len(smiles), len(DESCRIPTORS)))
    table[:, 0] = [len(text) for text in smiles]
    return table


def test_a_shift_is_detected_with_the_feature_that_moved():
    """Where every input stands four times in its table, a row would without groups be known by its copies."""
    alike = validated(*tables())
    twins = validated(*(pd.concat([table] * 4) for table in tables(60)))
    train, test = tables(moved=2.0)
    moved = validated(train, test)
    assert validated(*tables(19)) is None
    assert 0.4 < alike.auc < 0.6 and twins.auc < 0.65 and moved.auc > 0.85
    is_like_test = train["id"].isin(moved.like_test)
    assert is_like_test.mean() == 0.2 and alike.like_test == []
    assert train["x"][is_like_test].mean() > train["x"].quantile(0.8)
    assert alike.standard_error == pytest.approx(0.029, abs=0.001)  # sqrt((n + n + 1) / (12 n n)) at 0.5
    first = moved.features[0]
    assert first["feature"] == "x" and first["gain"] > 0.7
    assert first["mean_in_test"] - first["mean_in_train"] == pytest.approx(2, abs=0.3)
    assert f"differ (AUC {moved.auc:.2f}), most in x" in describe_evidence(moved)


def test_that_the_tables_share_no_group_is_no_shift_beyond_the_groups():
    """Each group has a number of its own, by which all of its rows would be recognized."""
    train, test = tables(200)
    groups = np.arange(200) // 10
    train, test = train.assign(**{GROUP: groups}), test.assign(**{GROUP: groups + 20})
    numbers = np.random.default_rng(1).normal(size=40)
    train, test = (table.assign(z=numbers[table[GROUP]]) for table in (train, test))
    of_groups = validated(train, test)
    of_rows = validated(*(table.assign(**{GROUP: range(200)}) for table in (train, test)))
    assert of_rows.is_clear and not of_groups.is_clear
    assert of_groups.standard_error > 3 * of_rows.standard_error  # 20 groups, not 200 rows
    assert validated(train, test.assign(**{GROUP: 20})).is_clear  # one group is compared by its rows


def test_molecules_whose_rows_are_all_in_one_table_are_not_recognized_by_each_other():
    """Each molecule has five rows of other inputs, and a number of its own; then both tables have all molecules."""
    rng = np.random.default_rng(2)
    rows = pd.DataFrame({"s": [f"m{k // 5}" for k in range(400)], "x": rng.normal(size=400)})
    rows = rows.assign(
        z=rng.normal(size=80).repeat(5), id=range(400), **{INPUT_KEY: range(400), GROUP: range(400)}
    )
    settings = config(smiles=["s"])
    train, test = rows[:200], rows[200:].reset_index(drop=True)
    known = adversarial_validation(train, test, config(), 0, weights)
    of_new_molecules = adversarial_validation(train, test, settings, 0, weights)
    assert known.is_clear and not of_new_molecules.is_clear
    assert of_new_molecules.standard_error > 2 * known.standard_error  # 40 molecules, not 200 rows
    train, test = (rows[np.arange(400) % 2 == k].reset_index(drop=True) for k in (0, 1))
    assert adversarial_validation(train, test, settings, 0, weights).standard_error < 0.03


def test_of_a_large_table_a_sample_is_compared_and_no_rows_are_chosen(monkeypatch):
    monkeypatch.setattr(adversarial, "MAX_TRAIN_ROWS", 199)
    monkeypatch.setattr(adversarial, "MAX_ROWS", 100)
    moved = validated(*tables(moved=2.0))
    assert moved.is_clear and moved.like_test == []
    assert moved.standard_error == adversarial._error_of_auc(moved.auc, 100, 100)


def test_the_fifth_most_like_test_rows_has_whole_groups_and_none_that_is_most_of_the_table():
    groups = np.repeat([0, 1, 2, 3], [60, 10, 10, 20])
    likeness = np.repeat([0.9, 0.2, 0.8, 0.7], [60, 10, 10, 20]) + np.tile([-0.1, 0.1], 50)
    assert set(groups[rows_like_test(likeness, groups)]) == {2, 3}


def test_features_have_names_that_can_be_read():
    two = pd.DataFrame({"s": ["CCO", "c1ccccc1"], "t": ["good day", "so bad :("], "c": ["a", "b"]})
    rows = pd.concat([two] * 20, ignore_index=True)
    settings = competition(smiles=["s"], text=["t"], categorical=["c"])
    result = readable_features(rows, settings, weights)
    assert {"t: characters ' :('", "c: is b"} <= {*result.columns}
    assert result[f"s: {next(iter(DESCRIPTORS))}"].tolist()[:2] == [3.0, 8.0]
    assert result["t: word 'good'"].tolist()[:2] == [1.0, 0.0]


def test_similarity_is_to_rows_of_other_folds_and_of_test_rows_to_all():
    train = pd.DataFrame({"s": ["CCO", "CCO", "CCCCCCCC", "c1ccccc1"], "r": ["C", "C", "C", "N"]})
    test = pd.DataFrame({"s": ["CCO", "c1ccccc1"], "r": ["C", "C"]})
    folds = {"kfold": np.array([0, 0, 1, 1]), "time": np.array([-1, 0, 1, -1])}
    (result,) = similarities(train, test, config(smiles=["s"]), folds)
    assert result.test.tolist() == [1.0, 1.0]
    assert result.held_out["kfold"].max() < 0.5  # the other ethanol shares the fold
    assert sorted(result.held_out["time"])[1:] == [1.0]  # and here is earlier; rows of -1 are never held out
    folds["file"] = np.full(4, -1)  # no row of the sample is held out
    (result,) = similarities(train, test, config(smiles=["s", "r"]), folds)
    assert list(result.held_out) == ["kfold", "time"] and "held out, file" not in describe_similarity(result)
    assert result.test[0] == 1.0 > result.test[1]  # benzene was seen with another reagent


def test_texts_are_compared_in_any_script():
    train, test = (
        pd.DataFrame({"t": ["今天天气很好", "red fox"]}),
        pd.DataFrame({"t": ["今天天气很好", "xyz"]}),
    )
    (result,) = similarities(train, test, config(text=["t"]), {"kfold": np.arange(2)})
    np.testing.assert_allclose(result.test, [1.0, 0.0], atol=1e-12)


def test_the_command_writes_a_picture_and_its_result(tmp_path, capsys):
    """Then without molecules and text: there is no similarity, and the picture of the older run is gone."""
    train, test = mixed_tables(60, 30)
    path = write_competition(tmp_path, train, test)
    commands.main(["folds", str(path)])
    output, paths = capsys.readouterr().out, Paths.for_competition(str(path))
    for words in (
        "mean lumo",
        "held out, scaffold",
        "Morgan",
        "TF-IDF",
        "AUC",
        "recommended: folds.kind",
        "share a unit",
    ):
        assert words in output
    picture = paths.similarity
    assert picture.exists()
    assert read_comparison(paths).made_from["folds.csv"] == sha256_of(paths.folds)
    numbers = {"smiles": [], "text": [], "categorical": []}
    write_competition(tmp_path, train[["id", "pH", "lumo", "mu"]], test[["id", "pH"]], competition=numbers)
    commands.main(["folds", str(path)])
    assert not picture.exists()
    paths.folds.write_text(paths.folds.read_text().replace(",1", ",2"))
    assert read_comparison(paths) is None  # of other folds
    paths.shift.write_text('{"made_from": {}, "recommended": null}')
    assert read_comparison(paths) is None  # of another version
