"""What every kind of stage must do; a kind that is added to `StageConfig` is covered without a new test."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from competition.config import load_competition
from competition.files import read_table, write_table
from competition.paths import Paths
from competition.tables import Rows, read_rows
from competition.task import Task
from folds.table import read_folds
from models.config import StageConfig
from models.jobs.plan import Job, Plan
from models.jobs.work import run_job
from models.registry import build_stage
from models.stage import Context
from models.stages.trees import Trees
from models.training import trainer
from tests.conftest import mixed_tables
from tests.models.encoders import publish
from tests.models.jobs.common import planned
from tests.models.theirs import write_theirs

SMALL: dict[str, dict[str, Any]] = {
    "unimol": {"layers": 1, "width": 32, "heads": 4, "epochs": 2},
    "unimol2": {"layers": 2, "width": 32, "heads": 2, "pair_width": 8, "pair_hidden_width": 4, "epochs": 2},
    "gnn": {"width": 32, "hidden_width": 32, "epochs": 3, "batch_size": 16, "molecule_features": ["maccs"]},
    "bert": {"layers": 1, "width": 32, "heads": 2, "epochs": 2, "vocabulary": 100},
    "custom": {"code": f"{Path(__file__).with_name('own_stage.py')}:Noisy", "settings": {"noise": 0.1}},
    "embedding": {"parameters": {"solver": "sag"}},  # the one that knows chance
    "lightgbm": {"n_bits": 64, "max_trees": 30, "search_trials": 2},
    "catboost": {"n_bits": 64, "max_trees": 30, "depth": 3, "topics": 8, "search_trials": 2},
    "file": {},
    "sklearn": {"n_bits": 64, "regressor": "ExtraTreesRegressor", "parameters": {"n_estimators": 20}},
}
SPELLINGS = {"kind": "bert", "columns": ["SMILES"], "enumerate_smiles": True, "test_forms": 3, "pretrain_epochs": 1}
SMALL["bert, spellings"] = {**SMALL["bert"], **SPELLINGS}
MODELS = {model.model_fields["kind"].annotation.__args__[0]: model for model in get_args(get_args(StageConfig)[0])}
KINDS = [*MODELS, *(name for name in SMALL if name not in MODELS)]
NEURAL = [kind for kind in KINDS if "precision" in MODELS[SMALL.get(kind, {}).get("kind", kind)].model_fields]


def block(kind: str) -> dict[str, Any]:
    return {"kind": kind, **SMALL.get(kind, {})}


def settings(kind: str) -> Any:
    return MODELS[block(kind)["kind"]].model_validate(block(kind))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tables, folds, caches, an encoder to read with and predictions made elsewhere."""
    folder = tmp_path_factory.mktemp("contract")
    SMALL["embedding"]["weights"] = str(publish(folder / "published"))
    SMALL["file"]["folder"] = str(write_theirs(folder / "theirs", *mixed_tables(), ["lumo", "mu"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        planned(folder, stages={kind: block(kind) for kind in MODELS})
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_DIR", str(home / "work"))


def context(home: Path, seed: int = 1) -> Context:
    return Context(["SMILES"], ["note"], ["pH"], ["site"], Task(["lumo", "mu"]), seed, home / "work" / "cache")


def fit(kind: str, train: Rows, folder: Path, told: Context, **changes: Any) -> Any:
    folder.mkdir(parents=True)
    stage = build_stage(settings(kind).model_copy(update=changes), told)
    stage.fit(train, None, folder)
    return stage


@pytest.fixture(scope="module", params=KINDS)
def fitted(request: Any, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Kind, folder, tables, predictions of the object that was fitted, and the training table as it was."""
    config, work = load_competition(str(home / "mixed.yaml")), home / "work" / "mixed" / "prepared"
    train, test = (read_rows(work / f"{name}.parquet", config, name == "train") for name in ("train", "test"))
    here, before = tmp_path_factory.mktemp("here"), (train.inputs.copy(), train.y.copy())
    with contextlib.chdir(here):
        y_pred = fit(request.param, train, here / "job", context(home)).predict(test, here / "job")
    return request.param, here / "job", train, test, y_pred, before


def test_predictions_are_finite_and_the_same_of_a_fresh_object_in_any_order_and_alone(fitted: Any, home: Path) -> None:
    """And neither the arguments nor the working folder are touched."""
    kind, folder, train, test, y_pred, (inputs, y) = fitted
    assert train.inputs.equals(inputs)
    assert np.array_equal(train.y, y, equal_nan=True)
    assert [path.name for path in folder.parent.iterdir()] == ["job"]
    assert y_pred.shape == (len(test), 2)
    assert np.isfinite(y_pred).all()
    fresh, near = build_stage(settings(kind), context(home, seed=99)), 1e-5 * np.nanstd(train.y, axis=0).min()
    order = np.random.default_rng(0).permutation(len(test))
    assert np.array_equal(fresh.predict(test, folder), y_pred)
    assert np.abs(fresh.predict(test.take(order), folder) - y_pred[order]).max() < near
    assert np.abs(fresh.predict(test.take(order[:1]), folder) - y_pred[order[:1]]).max() < near


def test_the_same_seed_predicts_the_same_and_a_refit_takes_over_what_its_folds_chose(
    fitted: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refit with one fold, on the rows and with the seed of that fold, predicts the same and chooses nothing."""
    kind, folder, train, test, y_pred, _ = fitted
    monkeypatch.delattr(Trees, "_choose")
    refit = fit(kind, train, tmp_path / "job", replace(context(home), folds=[folder]))
    np.testing.assert_allclose(refit.predict(test, tmp_path / "job"), y_pred, rtol=1e-6)


def test_predictions_are_in_the_targets_own_units_with_weights_and_another_seed_gives_others(
    fitted: Any, home: Path, tmp_path: Path
) -> None:
    kind, _, train, test, y_pred, _ = fitted
    weights = np.random.default_rng(0).uniform(0.5, 1.5, len(train))
    moved = replace(train, y=train.y * 100 + 5000, weights=weights)
    again = fit(kind, moved, tmp_path / "moved", context(home, seed=2)).predict(test, tmp_path / "moved")
    if kind == "file":  # as their makers wrote them, whatever the labels
        assert np.array_equal(again, y_pred)
        return
    assert 1e-3 < np.abs(again - (y_pred * 100 + 5000)).max() < 100 * 2 * np.nanstd(train.y, axis=0).max()
    assert np.abs(again.mean(axis=0) - np.nanmean(moved.y, axis=0)).max() < 0.5 * np.nanstd(moved.y, axis=0).max()


def test_bf16_changes_a_neural_stage_a_little(
    fitted: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, _, train, test, y_pred, _ = fitted
    if kind in NEURAL:
        monkeypatch.setattr(trainer, "cpu_has_bf16", lambda: True)  # a processor without it emulates it
        half = fit(kind, train, tmp_path / "half", context(home), precision="bf16").predict(test, tmp_path / "half")
        assert 0 < np.abs(half - y_pred).max() < 0.2 * np.nanstd(train.y, axis=0).min()


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_the_held_out_fold_change_no_prediction_for_it(kind: str, home: Path, tmp_path: Path) -> None:
    """Scalers, tree counts, vocabularies, checkpoints: whatever is fitted, is fitted without the held-out labels."""
    config, paths = load_competition(str(home / "mixed.yaml")), Paths("mixed")
    train = read_table(paths.train)
    held_out = read_folds(paths.folds, list(train["id"])) == 0
    changed, oof = train.copy(), list[bytes]()
    changed.loc[held_out, "lumo"] *= -1000.0
    changed.loc[held_out, "mu"] = 1000.0
    for table in (changed, train):
        write_table(paths.train, table)
        job = Job("one", "key", 0, 0, tmp_path / f"job_{len(oof)}")
        run_job(job, Plan([job], {}, 3, "test", {"one": settings(kind)}, config, paths))
        oof.append(job.oof_file.read_bytes())
    assert oof[0] == oof[1]
