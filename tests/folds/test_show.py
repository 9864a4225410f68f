"""What `./run.sh folds` sees: a shift that is there, none that is not, and the kind of folds that fits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.config import CompetitionConfig, load_competition
from competition.files import read_json, sha256_of
from competition.paths import Paths
from competition.tables import INPUT_KEY, TIME
from folds import show
from folds.shift import adversarial_validation, readable_features
from folds.show import recommend
from folds.similarity import Similarity, molecule_similarity, text_similarity
from tests.conftest import mixed_tables, write_competition


def config(**settings: Any) -> CompetitionConfig:
    files = {"train": "a", "test": "b", "sample_submission": "c", "id": "id", "metric": "rmse", "targets": ["y"]}
    return CompetitionConfig.model_validate({**files, "numeric": ["x", "z"], **settings})


def tables(n: int = 200, moved: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables of two numbers, of which x is larger in the second."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=2 * n), "z": rng.normal(size=2 * n), INPUT_KEY: range(2 * n)})
    test = table[n:].reset_index(drop=True)
    return table[:n], test.assign(x=test["x"] + moved)


def test_tables_of_one_kind_cannot_be_told_apart() -> None:
    shift = adversarial_validation(*tables(), config(), seed=0)
    assert shift is not None
    assert 0.4 < shift.auc < 0.6
    assert len(shift.aucs) == 5


def test_the_feature_that_moved_is_found_with_its_means() -> None:
    shift = adversarial_validation(*tables(moved=2.0), config(), seed=0)
    assert shift is not None
    assert shift.auc > 0.85
    first = shift.features.iloc[0]
    assert first["feature"] == "x"
    assert first["gain"] > 0.7
    assert first["mean_in_test"] - first["mean_in_train"] == pytest.approx(2, abs=0.3)


def test_a_row_is_not_recognised_by_its_twins() -> None:
    """Every input stands four times in its table: without groups each held-out row would be known by its copies."""
    train, test = (pd.concat([table] * 4, ignore_index=True) for table in tables(60))
    shift = adversarial_validation(train, test, config(), seed=0)
    assert shift is not None
    assert shift.auc < 0.65


def test_features_have_names_that_can_be_read() -> None:
    rows = pd.DataFrame(
        {
            "s": ["CCO", "c1ccccc1"] * 20,
            "t": ["good day", "so bad :("] * 20,
            "x": [1.0, np.nan] * 20,
            "c": ["a", "b"] * 20,
        }
    )
    found = readable_features(rows, config(smiles=["s"], text=["t"], numeric=["x"], categorical=["c"]))
    assert {"MolWt", "number of words", "word 'good'", "characters ' :('", "c is 'a'"} <= {*found.columns, "x"}
    assert found["MolWt"][0] == pytest.approx(46.07, abs=0.01)
    assert found["word 'good'"].tolist()[:2] == [1.0, 0.0]


def test_similarity_is_to_rows_of_other_folds_and_of_test_rows_to_all() -> None:
    train = pd.DataFrame({"s": ["CCO", "CCO", "CCCCCCCC", "c1ccccc1"]})
    test = pd.DataFrame({"s": ["CCO", "c1ccccc1"]})
    folds = {"kfold": np.array([0, 0, 1, 1]), "time": np.array([-1, 0, 1, -1])}
    found = molecule_similarity(train, test, ["s"], folds, seed=0)
    assert found.test.tolist() == [1.0, 1.0]
    assert found.held_out["kfold"].max() < 0.5  # the other ethanol shares the fold
    assert found.held_out["time"][0] == 1.0  # and here is earlier; rows of -1 are never held out
    assert len(found.held_out["time"]) == 2


def test_texts_are_compared_in_any_script() -> None:
    train = pd.DataFrame({"t": ["今天天气很好", "red fox", "the red fox runs"]})
    found = text_similarity(train, pd.DataFrame({"t": ["今天天气很好", "xyz"]}), ["t"], {"kfold": np.arange(3)}, seed=0)
    np.testing.assert_allclose(found.test, [1.0, 0.0], atol=1e-12)
    assert found.held_out["kfold"][0] == 0.0
    assert found.held_out["kfold"][1] > 0.3


def chains() -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.DataFrame({"s": ["CCO"] * 20}), pd.DataFrame({"s": ["CCN"] * 20})


def similarity(test: float, **held_out: float) -> Similarity:
    return Similarity("made up", np.full(50, test), {kind: np.full(50, value) for kind, value in held_out.items()})


@pytest.mark.parametrize(
    ("test", "kind"),
    [(0.69, "stratified"), (0.40, "scaffold"), (0.31, "cluster"), (0.1, "cluster"), (0.95, "stratified")],
)
def test_the_kind_whose_held_out_rows_are_as_far_as_the_test_rows_is_recommended(test: float, kind: str) -> None:
    seen = similarity(test, stratified=0.7, scaffold=0.4, cluster=0.3)
    found, reason = recommend(config(smiles=["s"]), "stratified", *chains(), [seen], None)
    assert found == kind
    assert f"{test:.2f}" in reason


def test_the_simplest_of_kinds_that_fit_alike_is_recommended() -> None:
    seen = similarity(0.5, kfold=0.51, scaffold=0.5, cluster=0.5)
    assert recommend(config(smiles=["s"]), "scaffold", *chains(), [seen], None)[0] == "stratified"


def test_scaffolds_that_are_new_in_the_test_table_are_held_out() -> None:
    train, test = chains()
    train["s"], test["s"] = ["Cc1ccccc1", "CCc1ccccc1"] * 10, ["Cc1ccoc1"] * 20
    kind, why = recommend(config(smiles=["s"]), "stratified", train, test, [similarity(0.7, stratified=0.7)], None)
    assert kind == "scaffold"
    assert "0% of the test molecules with rings" in why


def test_time_and_groups_come_before_what_is_guessed() -> None:
    train, test = tables()
    train = train.assign(**{TIME: train["x"]})
    assert recommend(config(time="when"), "kfold", train, test, [], None)[0] == "time"
    assert recommend(config(time="x"), "kfold", train, test, [], None)[0] == "kfold"  # test rows are not later
    later = recommend(config(time="x"), "kfold", train, test.assign(x=99.0), [], None)
    assert (later[0], "100% of the test rows" in later[1]) == ("time", True)
    assert recommend(config(group="g"), "kfold", train, test, [], None)[0] == "stratified_group"
    shared = {"train": train.assign(c="a"), "test": test.assign(c="a")}
    grouped = config(categorical=["c"], group="c")
    assert recommend(grouped, "kfold", **shared, similarities=[], shift=None)[0] == "kfold"
    shared["test"]["c"] = "b"
    assert recommend(grouped, "kfold", **shared, similarities=[], shift=None)[0] == "stratified_group"


def test_a_shift_that_no_kind_imitates_is_said() -> None:
    train, test = tables(moved=3.0)
    shift = adversarial_validation(train, test, config(), seed=0)
    kind, why = recommend(config(), "kfold", train, test, [], shift)
    assert kind == "kfold"
    assert "differ (AUC 0.9" in why
    assert "most in x" in why


def test_the_command_writes_pictures_and_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_competition(tmp_path, *mixed_tables(60, 30))
    monkeypatch.setattr(sys, "argv", ["show", str(path)])
    show.main()
    said, paths = capsys.readouterr().out, Paths.of(str(path))
    for words in ("mean lumo", "held out, kfold (as configured)", "Morgan", "TF-IDF", "AUC", "recommended: folds.kind"):
        assert words in said
    folder = paths.shift.parent
    for name in ("targets", "similarity", "adversarial"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    found = read_json(paths.shift)
    assert found["made_from"]["folds.csv"] == sha256_of(paths.folds)
    assert set(found["similarity"][0]["held_out"]) == {"kfold", "scaffold", "cluster"}
    assert len(found["adversarial"]["fold_aucs"]) == 5
    assert found["recommended"]["kind"] in ("kfold", "scaffold", "cluster")
    first = paths.shift.read_bytes()
    show.main()
    assert paths.shift.read_bytes() == first


def test_a_table_of_numbers_has_no_similarity_and_drops_the_picture_of_an_older_run(tmp_path: Path) -> None:
    train, test = mixed_tables(60, 30)
    columns = ["id", "pH", "lumo", "mu"]
    path = write_competition(
        tmp_path, train[columns], test[["id", "pH"]], competition={"smiles": [], "text": [], "categorical": []}
    )
    from competition import prepare
    from folds import make

    settings, paths = load_competition(str(path)), Paths.of(str(path))
    prepare.run(settings, paths, path)
    folds = make.load_folds_config(str(path))
    make.run(settings, folds, paths)
    (paths.shift.parent / "similarity.png").write_bytes(b"old")
    said = show.run(settings, folds, paths)
    assert "similarity to the nearest" not in said
    assert not (paths.shift.parent / "similarity.png").exists()
    assert read_json(paths.shift)["similarity"] == []
