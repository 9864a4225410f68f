"""What every kind of stage must do; a kind that is added to `StageConfig` is covered without a new test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from competition.config import load_competition
from competition.files import sha256_of, write_table
from competition.paths import Paths
from competition.prepare import prepare
from competition.tables import Rows, read_rows
from competition.task import Task
from folds.make import load_folds_config
from folds.make import run as make_folds
from folds.table import read_folds
from models.config import StageConfig
from models.jobs.plan import Job
from models.jobs.work import run_job
from models.registry import build_stage
from models.stage import Context
from models.stages import trees
from models.training import trainer
from tests.conftest import mixed_tables, write_competition
from tests.models.encoders import publish
from tests.models.theirs import write_theirs

SMALL: dict[str, dict[str, Any]] = {
    "unimol": {"layers": 1, "width": 32, "heads": 4, "epochs": 2},
    "unimol2": {"layers": 2, "width": 32, "heads": 2, "pair_width": 8, "pair_hidden_width": 4, "epochs": 2},
    "gnn": {"width": 32, "hidden_width": 32, "epochs": 3, "batch_size": 16},
    "bert": {"layers": 1, "width": 32, "heads": 2, "epochs": 2, "vocabulary": 100},
    "custom": {"code": f"{Path(__file__).with_name('own_stage.py')}:Noisy", "settings": {"noise": 0.1}},
    "embedding": {"parameters": {"solver": "sag"}},  # the one that knows chance
    "lightgbm": {"n_bits": 64, "max_trees": 30, "search_trials": 2},
    "catboost": {"n_bits": 64, "max_trees": 30, "depth": 3, "topics": 8, "search_trials": 2},
    "file": {},
    "sklearn": {"n_bits": 64, "regressor": "ExtraTreesRegressor", "parameters": {"n_estimators": 20}},
}
SMALL["bert, spellings"] = {
    **SMALL["bert"], "kind": "bert", "columns": ["SMILES"], "enumerate_smiles": True, "test_forms": 3,
    "pretrain_epochs": 1,
}  # fmt: skip
MODELS = {model.model_fields["kind"].annotation.__args__[0]: model for model in get_args(get_args(StageConfig)[0])}
KINDS = [*MODELS, *(name for name in SMALL if name not in MODELS)]


@pytest.fixture(scope="module", autouse=True)
def _an_encoder_to_read_with_and_predictions_made_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> None:
    SMALL["embedding"]["weights"] = str(publish(tmp_path_factory.mktemp("published")))
    SMALL["file"]["folder"] = str(write_theirs(tmp_path_factory.mktemp("theirs"), *mixed_tables(), ["lumo", "mu"]))


def block(kind: str) -> dict[str, Any]:
    return {"kind": kind, **SMALL.get(kind, {})}


def settings(kind: str) -> Any:
    return MODELS[block(kind)["kind"]].model_validate(block(kind))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rows, Rows]:
    folder = tmp_path_factory.mktemp("contract")
    config = load_competition(str(write_competition(folder, *mixed_tables())))
    prepared = prepare(config)
    write_table(folder / "a.parquet", prepared.train)
    write_table(folder / "b.parquet", prepared.test)
    return read_rows(folder / "a.parquet", config, True), read_rows(folder / "b.parquet", config, False)


def context(cache: Path, seed: int = 1) -> Context:
    return Context(["SMILES"], ["note"], ["pH"], ["site"], Task(["lumo", "mu"]), seed, cache)


def fit(kind: str, train: Rows, folder: Path, cache: Path, seed: int = 1) -> Any:
    folder.mkdir(parents=True)
    stage = build_stage(settings(kind), context(cache, seed))
    stage.fit(train, None, folder)
    return stage


@pytest.fixture(scope="module", params=KINDS)
def fitted(request: Any, tables: Any, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    kind = request.param
    folder = tmp_path_factory.mktemp(kind) / "job"
    train, test = tables
    before = train.inputs.copy(), train.y.copy()
    stage = fit(kind, train, folder, cache)
    return kind, stage, folder, train, test, before


def test_predictions_have_one_finite_row_per_input_and_one_column_per_target(fitted: Any) -> None:
    _, stage, folder, _, test, _ = fitted
    y_pred = stage.predict(test, folder)
    assert y_pred.shape == (len(test), 2)
    assert np.isfinite(y_pred).all()


def test_the_order_of_rows_and_their_company_do_not_change_a_prediction(fitted: Any) -> None:
    _, stage, folder, train, test, _ = fitted
    y_pred = stage.predict(test, folder)
    order = np.random.default_rng(0).permutation(len(test))
    scale = np.nanstd(train.y, axis=0)
    assert np.abs(stage.predict(test.take(order), folder) - y_pred[order]).max() < 1e-5 * scale.min()
    assert np.abs(stage.predict(test.take(order[:1]), folder) - y_pred[order[:1]]).max() < 1e-5 * scale.min()


def test_a_fresh_object_predicts_the_same_from_the_folder_alone(fitted: Any, cache: Path) -> None:
    kind, stage, folder, _, test, _ = fitted
    again = build_stage(settings(kind), context(cache, seed=99)).predict(test, folder)
    assert np.array_equal(again, stage.predict(test, folder))


def test_fit_and_predict_leave_their_arguments_and_the_working_folder_alone(
    fitted: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, _, _, train, test, (inputs, y) = fitted
    monkeypatch.chdir(tmp_path)
    stage = fit(kind, train, tmp_path / "job", cache)
    stage.predict(test, tmp_path / "job")
    assert train.inputs.equals(inputs)
    assert np.array_equal(train.y, y, equal_nan=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(fitted: Any, cache: Path, tmp_path: Path) -> None:
    kind, stage, folder, train, test, _ = fitted
    fit(kind, train, tmp_path / "same", cache)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files
    for name in files:
        assert sha256_of(tmp_path / "same" / name) == sha256_of(folder / name), name
    if kind == "file":
        return  # it has no chance and fits nothing
    other = fit(kind, train, tmp_path / "other", cache, seed=2)
    assert not np.array_equal(other.predict(test, tmp_path / "other"), stage.predict(test, folder))


def test_predictions_are_in_the_targets_own_units(fitted: Any, cache: Path, tmp_path: Path) -> None:
    kind, stage, folder, train, test, _ = fitted
    moved = Rows(train.ids, train.inputs, train.y * 100 + 5000)
    again = fit(kind, moved, tmp_path / "moved", cache).predict(test, tmp_path / "moved")
    if kind == "file":  # as their makers wrote them, whatever the labels
        assert np.array_equal(again, stage.predict(test, folder))
        return
    assert np.allclose(again, stage.predict(test, folder) * 100 + 5000, atol=100 * 0.5)
    assert np.abs(again.mean(axis=0) - np.nanmean(moved.y, axis=0)).max() < 3 * np.nanstd(moved.y, axis=0).max()


def test_bf16_changes_a_neural_stage_a_little(
    fitted: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, stage, folder, train, test, _ = fitted
    if "precision" not in type(settings(kind)).model_fields:
        return
    monkeypatch.setattr(trainer, "cpu_has_bf16", lambda: True)  # a processor without it emulates it
    half = build_stage(settings(kind).model_copy(update={"precision": "bf16"}), context(cache))
    half.fit(train, None, tmp_path)
    difference = np.abs(half.predict(test, tmp_path) - stage.predict(test, folder))
    assert 0 < difference.max() < 0.2 * np.nanstd(train.y, axis=0).min()


def test_a_refit_takes_over_what_its_folds_chose(
    fitted: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refit with one fold, on the rows and with the seed of that fold, predicts the same and chooses nothing."""
    kind, stage, folder, train, test, _ = fitted

    def refuse(*rest: Any) -> Any:
        raise AssertionError("a refit must not choose")

    monkeypatch.setattr(trees, "choice", refuse)
    refit = build_stage(settings(kind), replace(context(cache), folds=[folder]))
    refit.fit(train, None, tmp_path)
    np.testing.assert_allclose(refit.predict(test, tmp_path), stage.predict(test, folder), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_the_held_out_fold_change_no_prediction_for_it(kind: str, tmp_path: Path) -> None:
    """Scalers, tree counts, vocabularies, checkpoints: whatever is fitted, is fitted without the held-out labels."""
    train, test = mixed_tables()
    config_path = write_competition(tmp_path, train, test, stages={"one": block(kind)})
    config, paths = load_competition(str(config_path)), Paths("mixed")
    prepared = prepare(config)
    write_table(paths.test, prepared.test)
    write_table(paths.train, prepared.train)
    make_folds(config, load_folds_config(str(config_path)), paths)
    held_out = read_folds(paths.folds, list(prepared.train["id"])) == 0
    changed = prepared.train.copy()
    changed.loc[held_out, "lumo"] *= -1000.0
    changed.loc[held_out, "mu"] = 1000.0
    oof = []
    for table in (prepared.train, changed):
        write_table(paths.train, table)
        job = Job("one", "key", 0, 0, tmp_path / f"job_{len(oof)}")
        run_job(job, settings(kind), config, paths, "test")
        oof.append(job.oof_file.read_bytes())
    assert oof[0] == oof[1]
