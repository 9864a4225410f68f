"""Stacks: chosen where they earn it, else the default blend; nothing of a fold where it is left out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge as ScikitRidge

from competition.errors import ConfigError, DataError
from competition.files import read_table, write_table
from competition.metrics import METRICS
from competition.prepare import prepare
from submissions import blend, report, stack, stacker
from submissions.apply import predict_candidate
from submissions.config import load_config
from submissions.crossfit import CrossFitted, choose, compare, cross_fit, cross_fitted_choice, fit_of
from submissions.features import features_of
from submissions.run import open_run
from submissions.stacker import Corrector, Stack, fit_ridge, fit_stack, fit_trees, regressor, simplest
from submissions.target import NONE, Folds, Target
from tests.conftest import mixed_tables, write_competition
from tests.submissions.fakes import (
    TARGETS,
    columns_like,
    fake_competition,
    near_duplicates,
    prepare_and_fake_jobs,
    run_steps,
)
from tests.submissions.test_crossfit import rule

TREE = regressor("DecisionTreeRegressor", {"max_depth": 3, "min_samples_leaf": 10}, 0)
CORRECTORS = {"lightgbm_stack": fit_trees, "ridge_stack": fit_ridge, "sklearn_stack": TREE}


def target(columns: np.ndarray, y: np.ndarray, folds: np.ndarray, features: np.ndarray | None = None) -> Target:
    return Target(columns, y, folds, METRICS["rmse"], trials=8, features=features)


def cross_fitted(of: Target, corrector: Corrector, n_folds: int = 5) -> CrossFitted:
    return cross_fit([of], partial(fit, corrector), n_folds)


def fit(corrector: Corrector, of: Target, without: Folds = NONE) -> Stack:
    return fit_stack(of, "shrunk_ridge", without, corrector)


def chosen_of(of: Target, correctors: dict[str, Corrector]) -> str:
    found = {"shrunk_ridge": cross_fit([of], fit_of("shrunk_ridge"), 5)}
    found |= {name: cross_fitted(of, corrector) for name, corrector in correctors.items()}
    judged = rule(of.y, of.folds)
    scored = of.folds >= 0
    return choose(judged, compare(judged, {n: p.cross_fitted for n, p in found.items()}, scored, 1000), scored)[0]


@pytest.mark.parametrize("name", CORRECTORS)
def test_a_stack_is_chosen_where_a_feature_says_what_the_columns_do_not(name: str) -> None:
    columns, y, folds = columns_like("independent", 300)
    feature = np.random.default_rng(7).normal(size=300)
    y = y + (0.5 * feature if name == "ridge_stack" else np.abs(feature) - np.abs(feature).mean())
    assert chosen_of(target(columns, y, folds, feature[:, None]), {name: CORRECTORS[name]}) == name
    assert chosen_of(target(columns, y, folds), {name: CORRECTORS[name]}) == "shrunk_ridge"


@pytest.mark.parametrize("name", CORRECTORS)
def test_features_of_noise_do_not_make_a_stack_win(name: str) -> None:
    found = []
    for seed in range(3):
        columns, y, folds = columns_like("independent", 200, seed=seed)
        noise = np.random.default_rng(100 + seed).normal(size=(200, 10))
        found.append(chosen_of(target(columns, y, folds, noise), {name: CORRECTORS[name]}))
    assert found == ["shrunk_ridge"] * 3


@pytest.mark.parametrize("seed", [5, 16])
def test_near_duplicates_do_not_make_a_stack_with_features_win(seed: int) -> None:
    columns, y, folds, x = near_duplicates(seed, 400)
    assert chosen_of(target(columns, y, folds, x), {n: CORRECTORS[n] for n in ("lightgbm_stack", "ridge_stack")}) == (
        "shrunk_ridge"
    )


@pytest.mark.parametrize("name", CORRECTORS)
def test_labels_and_features_of_a_fold_reach_nothing_that_was_fitted_without_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(stacker, "simplest", lambda losses: min(20, len(losses) - 1))
    columns, y, folds = columns_like("trees", 120, seed=3)
    folds, fold = np.arange(120) % 4, 2
    features = np.random.default_rng(1).normal(size=(120, 3))
    features[::5, 0] = np.nan
    own = folds == fold
    changed_y, changed = np.where(own, 50 - y, y), np.where(own[:, None], 100 * features + 7, features)
    before = cross_fitted(target(columns, y, folds, features), CORRECTORS[name], 4)
    for after in (
        cross_fitted(target(columns, changed_y, folds, features), CORRECTORS[name], 4),
        cross_fitted(target(columns, y, folds, changed), CORRECTORS[name], 4),
    ):
        np.testing.assert_array_equal(before.nested[fold], after.nested[fold])
    relabelled = cross_fitted(target(columns, changed_y, folds, features), CORRECTORS[name], 4)
    np.testing.assert_array_equal(before.cross_fitted[own], relabelled.cross_fitted[own])
    assert (before.cross_fitted[~own] != relabelled.cross_fitted[~own]).any()  # the canary sings where it may


@pytest.mark.parametrize("name", CORRECTORS)
def test_without_a_correction_a_stack_is_its_blend_to_the_last_byte(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    columns, y, folds = columns_like("trees", 100)
    of, features = target(columns, y, folds, np.ones((100, 1))), np.ones((100, 1))
    monkeypatch.setattr(stacker, "simplest", lambda losses: 0)
    found = fit(CORRECTORS[name], of)
    assert found.correction is None
    assert found.predict(np.hstack([columns, features])).tobytes() == of.fit("shrunk_ridge").predict(columns).tobytes()


def test_the_simplest_model_within_one_standard_error_of_the_best_is_taken() -> None:
    # Differences to the last, best row: (4, 2) mean 3, error 1; (2, 0) mean 1, error 1; (0, 0).
    assert simplest([[5.0, 3.0], [3.0, 1.0], [1.0, 1.0]]) == 1
    assert simplest([[5.0, 3.0], [3.0, 2.0], [1.0, 1.0]]) == 2
    assert simplest([[1.0, 1.0], [1.0, 1.0]]) == 0


def test_the_ridge_is_that_of_scikit_learn_with_a_shrunk_intercept() -> None:
    rng = np.random.default_rng(0)
    x, folds = rng.normal(size=(90, 4)), np.arange(90) % 3
    residual = x @ [0.5, 0.0, -0.3, 0.1] + 0.2 + 0.3 * rng.normal(size=90)
    found = fit_ridge(x, residual, folds, 2)
    assert found is not None
    with_ones = np.hstack([x, np.ones((90, 1))])
    expected = ScikitRidge(alpha=found.penalty * 90, fit_intercept=False).fit(with_ones, residual)
    np.testing.assert_allclose(found.weights, expected.coef_, rtol=1e-9)
    np.testing.assert_allclose(found.predict(x), expected.predict(with_ones), rtol=1e-9)
    assert found.predict(x[3:5]).tobytes() == found.predict(x)[3:5].tobytes()
    assert fit_ridge(x, rng.normal(size=90), folds, 2) is None


def test_a_candidate_that_predicts_a_fold_as_the_default_does_is_not_chosen_for_it() -> None:
    rng = np.random.default_rng(0)
    y, folds = rng.normal(size=60), np.arange(60) % 3
    default = (y + rng.normal(size=60))[:, None]
    better = np.where((folds == 1)[:, None], default, y[:, None])
    nested = {
        name: np.stack([np.where((folds == k)[:, None], np.nan, part) for k in range(3)])
        for name, part in (("shrunk_ridge", default), ("ridge_stack", y[:, None]))
    }
    y_pred, chosen = cross_fitted_choice(rule(y, folds), {"shrunk_ridge": default, "ridge_stack": better}, nested, 3)
    assert chosen == ["ridge_stack", "shrunk_ridge", "ridge_stack"]
    np.testing.assert_array_equal(y_pred, better)


def test_a_regressor_that_cannot_be_fitted_or_is_not_known_is_an_error_with_its_name(tmp_path: Path) -> None:
    columns, y, folds = columns_like("independent", 30)
    with pytest.raises(ConfigError, match=r"stack_regressor must fit the 30 labelled .* KNeighborsRegressor: Expected"):
        fit(regressor("KNeighborsRegressor", {"n_neighbors": 29}, 0), target(columns, y, folds))
    for wrong, message in (
        ({"name": "RandomForest"}, r"submissions\.stack_regressor.*close to it: .*RandomForestRegressor"),
        ({"name": "Ridge", "parameters": {"alfa": 1}}, "close to it: alpha"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(str(fake_competition(tmp_path, submissions={"stack_regressor": wrong})))


def test_features_are_descriptors_numbers_and_lengths_of_texts_in_the_order_of_the_table(tmp_path: Path) -> None:
    train, test = mixed_tables(12, 4)
    path = write_competition(tmp_path, train, test, submissions={"stack_features": True})
    config = load_config(str(path))
    prepared = prepare(config.competition).train
    write_table(tmp_path / "prepared.parquet", prepared)
    found = features_of(config, tmp_path / "prepared.parquet", tmp_path / "cache")
    assert len(found) == 12
    np.testing.assert_array_equal(found[:, -3], prepared["pH"])
    np.testing.assert_array_equal(found[:, -2:], [[len(text), 4] for text in prepared["note"]])
    assert found.shape[1] > 200
    off = load_config(str(write_competition(tmp_path, train, test)))
    assert features_of(off, tmp_path / "prepared.parquet", tmp_path / "cache").shape == (12, 0)


@pytest.mark.parametrize("name", ["lightgbm_stack", "ridge_stack", "sklearn_stack"])
def test_a_stored_stack_predicts_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(stacker, "simplest", lambda losses: len(losses) - 1)  # every correction is used
    monkeypatch.setattr(stack, "_best", lambda *_: name)
    own = {"name": "DecisionTreeRegressor", "parameters": {"max_depth": 2}}
    path = fake_competition(tmp_path, submissions={"stack_features": True, "stack_regressor": own})
    prepare_and_fake_jobs(path)
    run = open_run(str(path))
    blend.blend(run)
    stack.stack(run)
    loaded, features = run.columns, features_of(run.config, run.paths.test, run.paths.cache)
    assert features.shape == (30, 2)
    found = predict_candidate(run, name, loaded.test, features)
    stack_file = read_table(run.folder / "stack.csv", ["id"]).set_index("id").loc[loaded.test_ids, TARGETS].to_numpy()
    np.testing.assert_allclose(found, stack_file, rtol=1e-6)
    nothing = np.empty((30, 0))
    assert (found != predict_candidate(run, "shrunk_ridge", loaded.test, nothing)).any(axis=0).all()
    assert (found != predict_candidate(run, name, loaded.test, features[::-1])).any()
    (run.folder / "stack" / "sklearn_stack_1.skops").write_bytes(b"")
    with pytest.raises(DataError, match="changed or gone: stack/sklearn_stack_1.skops"):
        predict_candidate(run, name, loaded.test, features)


def test_trees_that_no_held_out_row_has_tried_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacker, "simplest", lambda losses: 3 if len(losses[0]) == 3 else 0)  # trees on all rows only
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    run = run_steps(path)
    found = run.part("stack")
    assert found["same_as_default"] == ["lightgbm_stack", "ridge_stack"]
    for candidate in found["candidates"].values():
        assert [model["correction"]["kind"] for model in candidate["models"].values()] == ["none", "none"]
        assert candidate["optimism"] == run.part("blend")["candidates"]["shrunk_ridge"]["optimism"]
    columns = run.columns
    default = predict_candidate(run, "shrunk_ridge", columns.test, np.empty((len(columns.test_ids), 0)))
    written = read_table(run.folder / "stack.csv", ["id"]).set_index("id").loc[columns.test_ids].to_numpy()
    np.testing.assert_allclose(written, default, rtol=1e-6)


def test_a_stack_without_trees_is_said_to_be_the_default_and_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacker, "simplest", lambda losses: 3 if len(losses[0]) < 3 else 0)  # trees without a fold only
    path = fake_competition(tmp_path, submissions={"margin": 0.0})
    prepare_and_fake_jobs(path)
    run = run_steps(path)
    selection = run.part("choice")
    assert selection["same_as_default"] == ["lightgbm_stack", "ridge_stack"]
    assert selection["candidates"]["lightgbm_stack"]["difference"] != 0
    assert selection["chosen"] not in selection["same_as_default"]
    assert "lightgbm_stack: no trees: the default blend" in stack.describe(run.part("stack"))
    line = next(line for line in report.report(run).splitlines() if line.startswith("| lightgbm_stack"))
    assert [cell.strip() for cell in line.split("|")[-4:-1]] == ["", "", "no trees"]  # no gain: it cannot be chosen
