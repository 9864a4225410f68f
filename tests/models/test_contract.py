"""The interface of stages: every kind with every problem type. A kind in `models.registry.KINDS` is covered."""

import contextlib
import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.config import load_competition
from competition.dataset import read_rows
from competition.task import Task
from core.files import read_table, write_table
from core.paths import Paths
from folds.make import read_folds
from models import job_folder
from models.context import Context
from models.jobs.job import Job
from models.jobs.plan import JobPlan, made_by
from models.jobs.run_job import run_job
from models.registry import KINDS, make_stage
from models.stages.lightgbm import Lightgbm
from models.training import network
from tests.conftest import mixed_tables
from tests.models import made
from tests.models.encoders import publish, publish_decoder
from tests.models.external_predictions import write_external_predictions
from tests.models.jobs.common import planned
from tests.models.published import small_unimol2

SMALL_BERT = {"kind": "bert", "layers": 1, "width": 32, "heads": 2, "epochs": 1}
SMALL: dict[str, dict[str, Any]] = {
    "unimol": {"layers": 1, "width": 32, "heads": 4, "epochs": 1},
    "unimol2": {"epochs": 1},
    "gnn": {"width": 32, "hidden_width": 32, "epochs": 1, "batch_size": 16, "molecule_features": ["maccs"]},
    "bert": SMALL_BERT,
    "lightgbm": {"n_bits": 64, "max_trees": 30},
    "sklearn": {
        "n_bits": 64, "estimator": "sklearn.ensemble.ExtraTreesRegressor", "parameters": {"n_estimators": 20},
    },
    "own": {"kind": f"{Path(__file__).with_name('skeleton.py')}:Nearest"},
    "bert, augmented": {
        **SMALL_BERT, "columns": ["SMILES"], "enumerate_smiles": True, "test_augmentations": 3,
    },
    "bert, lora": {"kind": "bert", "lora": {"rank": 4}, "pooling": "last", "columns": ["note"], "epochs": 1},
    "sklearn, dotted": {
        "kind": "sklearn", "estimator": "lightgbm.LGBMRegressor", "n_bits": 64,
        "parameters": {"n_estimators": 20, "verbosity": -1, "subsample": 0.5, "subsample_freq": 1},
    },
}  # fmt: skip
CLASS_SETTINGS: dict[str, dict[str, Any]] = {
    "sklearn": {"estimator": "sklearn.ensemble.ExtraTreesClassifier"},
}
TASKS = {
    "regression": Task(["lumo", "mu"]),
    "binary": Task(["lumo"], problem_type="binary", classes=["no", "yes"]),
    "multilabel": Task(["lumo", "mu"], problem_type="multilabel", classes=["no", "yes"]),
    "ordinal": Task(["lumo"], problem_type="ordinal", classes=["low", "middle", "high"]),
    "multiclass": Task(["lumo"], problem_type="multiclass", classes=["unseen", "low", "middle", "high"]),
}
"""No row has the first class of multiclass. Classes of external predictions are in test_file."""
NUMBERS = [(kind, "regression") for kind in {**KINDS, **SMALL}]
NETWORKS = [case for case in NUMBERS if "epochs" in SMALL.get(case[0], {})]
PROBABILITIES = [
    (kind, problem_type)
    for problem_type in ("binary", "multiclass", "multilabel")
    for kind in [*KINDS, "own", "bert, lora"]
    if kind != "file"
]
CASES = [*NUMBERS, *PROBABILITIES, ("lightgbm", "ordinal"), ("bert, lora", "ordinal")]


def settings(kind, problem="regression"):
    values = {"kind": kind, **SMALL.get(kind, {})}
    if problem not in ("regression", "ordinal"):
        values |= CLASS_SETTINGS.get(kind, {})
    return make_stage(values)


def labels(y, problem):
    """Return labels of a problem type from two columns of numbers: their half, or third for three classes."""
    if problem == "regression":
        return y
    shares = [1 / 3, 2 / 3] if problem in ("ordinal", "multiclass") else [0.5]
    exceeded = [(y > np.nanquantile(y, share, axis=0)).astype(float) for share in shares]
    first_class = 1 if problem == "multiclass" else 0
    class_indices = np.where(np.isnan(y), np.nan, sum(exceeded) + first_class)
    return class_indices[:, : len(TASKS[problem].targets)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder with tables, folds, caches, an encoder, a decoder and external predictions."""
    folder = tmp_path_factory.mktemp("contract")
    encoder = {"encoder": str(publish(folder / "published")), "columns": ["note"]}
    SMALL["bert, lora"]["weights"] = str(publish_decoder(folder / "decoder"))
    for kind in ("sklearn", "lightgbm"):
        SMALL[kind]["features"] = ["morgan", encoder]
    SMALL["file"] = {"folder": str(folder / "external")}
    write_external_predictions(folder / "external", *mixed_tables(), ["lumo", "mu"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        planned(folder, stages={kind: settings(kind).model_dump(mode="json") for kind in KINDS})
    return folder


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_unimol2():
        yield


@pytest.fixture(autouse=True)
def _at_home(home, monkeypatch):
    monkeypatch.setenv("WORK_DIR", str(home / "work"))


def context(home, problem, seed=1):
    return Context(["SMILES"], ["note"], ["pH"], ["site"], TASKS[problem], seed, home / "work" / "cache")


def fit(case, train, folder, stage_context, **changes):
    stage_context = replace(stage_context, fold_ids=np.arange(len(train)) % 3)
    return made.fitted(settings(*case).model_copy(update=changes), stage_context, train, folder)


def cases(selected):
    return pytest.mark.parametrize("case", selected, ids=" of ".join)


@pytest.fixture(scope="module")
def fitted(home, tmp_path_factory):
    """Return a function of kind and problem type that returns the folder, tables, and predictions of a fitted object.

    Neither the arguments nor the working folder have changed.
    """
    config = load_competition(str(home / "mixed.yaml"))
    work = home / "work" / "mixed" / "prepared"
    rows, test = (
        read_rows(work / f"{name}.parquet", config.columns, name == "train") for name in ("train", "test")
    )

    @functools.cache
    def fit_once(case):
        train = replace(rows, y=labels(rows.y, case[1]))
        here = tmp_path_factory.mktemp("here")
        inputs, y = train.inputs.copy(), train.y.copy()
        with contextlib.chdir(here):
            stage = fit(case, train, here / "job", context(home, case[1]))
            y_pred = stage.predict(test, here / "job")
        assert train.inputs.equals(inputs)
        assert np.array_equal(train.y, y, equal_nan=True)
        assert [path.name for path in here.iterdir()] == ["job"]
        return here / "job", train, test, y_pred

    return fit_once


@cases(CASES)
def test_predictions_are_finite_and_equal_for_a_new_object_in_any_order_and_one_by_one(case, fitted, home):
    kind, problem = case
    folder, train, test, y_pred = fitted(case)
    assert y_pred.shape == (len(test), len(TASKS[problem].outputs))
    assert np.isfinite(y_pred).all()
    tolerance = 1e-5 * np.nanstd(train.y, axis=0).min()
    fresh = made.build_stage(settings(kind, problem), context(home, problem, seed=99))
    shares = fresh.importances(test.take(np.array([0])), folder)
    assert shares.empty or shares.sum() == pytest.approx(1)
    order = np.random.default_rng(0).permutation(len(test))
    assert np.array_equal(fresh.predict(test, folder), y_pred)
    assert np.abs(fresh.predict(test.take(order), folder) - y_pred[order]).max() < tolerance
    assert np.abs(fresh.predict(test.take(order[:1]), folder) - y_pred[order[:1]]).max() < tolerance


@cases(CASES)
def test_the_same_seed_predicts_the_same_and_a_refit_uses_the_selections_of_its_folds(
    case, fitted, home, tmp_path, monkeypatch
):
    """A refit with one fold, on the rows and with the seed of that fold, predicts the same and selects
    nothing.
    """
    folder, train, test, y_pred = fitted(case)
    monkeypatch.delattr(Lightgbm, "best_n_trees")
    refit = fit(case, train, tmp_path / "job", replace(context(home, case[1]), fold_model_dirs=[folder]))
    np.testing.assert_allclose(refit.predict(test, tmp_path / "job"), y_pred, rtol=1e-6)


@cases(PROBABILITIES)
def test_probabilities_are_valid_and_0_for_a_class_without_training_rows(case, fitted):
    *_, y_pred = fitted(case)
    assert 0 <= y_pred.min() <= y_pred.max() <= 1
    is_multiclass = case[1] == "multiclass"
    if is_multiclass:
        np.testing.assert_allclose(y_pred.sum(axis=1), 1, atol=1e-6)
        assert y_pred[:, 0].max() < 1e-3
        y_pred = y_pred[:, 1:]
    expected_share = 1 / 3 if is_multiclass else 0.5
    assert np.abs(y_pred.mean(axis=0) - expected_share).max() < 0.25


@cases([case for case in NUMBERS if case[0] != "file"])
def test_predictions_are_in_the_units_of_the_targets(case, fitted, home, tmp_path):
    _, train, test, y_pred = fitted(case)
    moved = replace(train, y=train.y * 100 + 5000)
    stage = fit(case, moved, tmp_path, context(home, case[1]))
    y_moved = stage.predict(test, tmp_path)
    scale = np.nanstd(moved.y, axis=0).max()
    change = np.abs(y_moved - (y_pred * 100 + 5000)).max()
    assert change < 2 * scale, "predictions are not in the units of the targets"
    assert np.abs(y_moved.mean(axis=0) - np.nanmean(moved.y, axis=0)).max() < 0.5 * scale


@cases([case for case in NUMBERS if case[0] != "file"])
def test_weights_of_rows_and_the_seed_change_predictions(case, fitted, home, tmp_path):
    _, train, test, y_pred = fitted(case)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, len(train))
    smallest = 1e-6 * np.nanstd(train.y, axis=0).min()
    stage = fit(case, replace(train, weights=weights), tmp_path / "weights", context(home, case[1]))
    of_weights = np.abs(stage.predict(test, tmp_path / "weights") - y_pred).max()
    assert of_weights > smallest, "weights of rows change nothing: fit with train.weights, (n_rows,) or None"
    stage = fit(case, train, tmp_path / "seed", context(home, case[1], seed=2))
    of_seed = np.abs(stage.predict(test, tmp_path / "seed") - y_pred).max()
    assert of_seed > smallest or not stage.stage.depends_on_seed, (
        "another seed changes nothing: use context.seed"
    )


@cases(NETWORKS)
def test_bf16_changes_a_neural_stage_a_little(case, fitted, home, tmp_path, monkeypatch):
    _, train, test, y_pred = fitted(case)
    monkeypatch.setattr(network, "cpu_has_bf16", lambda: True)  # a processor without it emulates it
    stage = fit(case, train, tmp_path, context(home, case[1]), precision="bf16")
    y_half = stage.predict(test, tmp_path)
    assert 0 < np.abs(y_half - y_pred).max() < 0.2 * np.nanstd(train.y, axis=0).min()


@cases(CASES)
def test_every_file_that_a_stage_writes_is_described(case, fitted):
    folder, *_ = fitted(case)
    files = {re.sub(r"_\d+\.", "_<t>.", path.name) for path in folder.rglob("*") if path.is_file()}
    new = {name for name in files if name not in job_folder.__doc__}
    assert not new, f"name {new} in the docstring of models/job_folder.py"


@cases(CASES)
def test_labels_of_the_held_out_fold_do_not_change_its_predictions(case, home, tmp_path):
    """Scalers, numbers of trees, vocabularies and checkpoints are fitted without the held-out labels."""
    paths, task = Paths("mixed"), TASKS[case[1]]
    original = read_table(paths.train)
    changes = {"problem_type": case[1], "classes": task.classes, "targets": task.targets}
    config = load_competition(str(home / "mixed.yaml")).model_copy(update=changes)
    y = labels(original[["lumo", "mu"]].to_numpy(), case[1])
    train = original.assign(**dict(zip(config.targets, y.T, strict=True)))
    held_out = read_folds(paths.folds, list(train["id"])) == 0
    changed = train.copy()
    oof = list[bytes]()
    for name in config.targets:  # 1000, or all of one class
        changed.loc[held_out, name] = 1000.0 if case[1] == "regression" else train[name].max()
    stage = settings(*case)
    for table in (changed, train):
        write_table(paths.train, table)
        job = Job("one", 0, 0, tmp_path / f"job_{len(oof)}")
        plan = JobPlan(
            [job],
            {},
            3,
            "test",
            {"one": stage},
            config,
            paths,
            made_by={"one": made_by(stage, context(home, case[1]))},
        )
        run_job(job, plan)
        oof.append(job.oof_file.read_bytes())
    write_table(paths.train, original)
    assert oof[0] == oof[1]
