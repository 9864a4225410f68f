"""Stacks: chosen where they earn it, else the default blend; nothing of a fold where it is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge as ScikitRidge

from competition.errors import ConfigError
from competition.files import write_table
from competition.metrics import METRICS
from competition.prepare import prepare
from submissions.blend import stacks
from submissions.blend.candidates import CANDIDATES
from submissions.blend.crossfit import CrossFitted, cross_fit, decide
from submissions.blend.problem import Matrices
from submissions.blend.stacks import Corrector, Stacked, fit_ridge, fit_trees, regressor, simplest
from submissions.config import load_config
from submissions.stack_features import features_of
from tests.conftest import mixed_tables, write_competition
from tests.submissions.blend.test_crossfit import rule
from tests.submissions.fakes import columns_like, fake_competition, near_duplicates

TREE = regressor("DecisionTreeRegressor", {"max_depth": 3, "min_samples_leaf": 10}, 0)
CORRECTORS = {"lightgbm_stack": fit_trees, "ridge_stack": fit_ridge, "sklearn_stack": TREE}
DEFAULT = CANDIDATES["shrunk_ridge"]


def matrices(columns: np.ndarray, y: np.ndarray, folds: np.ndarray, features: np.ndarray | None = None) -> Matrices:
    return Matrices(columns[:, :, None], y[:, None], folds, METRICS["rmse"], trials=8, features=features)


def chosen_of(m: Matrices, correctors: dict[str, Corrector]) -> str:
    found = {"shrunk_ridge": cross_fit(DEFAULT, m, 5)}
    found |= {name: cross_fit(Stacked(DEFAULT, corrector), m, 5) for name, corrector in correctors.items()}
    return decide(rule(m.y, m.folds), found)[0]


@pytest.mark.parametrize("name", CORRECTORS)
def test_a_stack_is_chosen_where_a_feature_says_what_the_columns_do_not_and_not_for_noise(name: str) -> None:
    columns, y, folds = columns_like("independent", 300)
    feature, noise = np.random.default_rng(7).normal(size=300), np.random.default_rng(100).normal(size=(300, 10))
    corrector = {name: CORRECTORS[name]}
    assert chosen_of(matrices(columns, y, folds, noise), corrector) == "shrunk_ridge"
    y = y + (0.5 * feature if name == "ridge_stack" else np.abs(feature) - np.abs(feature).mean())
    assert chosen_of(matrices(columns, y, folds, feature[:, None]), corrector) == name


def test_near_duplicates_do_not_make_a_stack_with_features_win() -> None:
    columns, y, folds, x = near_duplicates(5, 400)
    assert chosen_of(matrices(columns, y, folds, x), {n: CORRECTORS[n] for n in ("lightgbm_stack", "ridge_stack")}) == (
        "shrunk_ridge"
    )


def test_trees_on_a_residual_of_noise_are_none_at_all() -> None:
    grown = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=300)
        m = matrices(y[:, None] + 0.5 * rng.normal(size=(300, 4)), y, np.arange(300) % 5)
        grown.append(Stacked(CANDIDATES["ridge"], fit_trees).fit(m).parts[0])
    assert sum(trees is not None for trees in grown) <= 2  # without the one-standard-error rule there are more


@pytest.mark.parametrize("name", CORRECTORS)
def test_labels_and_features_of_a_fold_reach_nothing_that_was_fitted_without_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(stacks, "simplest", lambda losses: min(20, len(losses) - 1))
    columns, y, folds = columns_like("trees", 120, seed=3)
    folds, fold = np.arange(120) % 4, 2
    features = np.random.default_rng(1).normal(size=(120, 3))
    features[::5, 0] = np.nan
    own = folds == fold

    def fitted(y: np.ndarray, features: np.ndarray) -> CrossFitted:
        return cross_fit(Stacked(DEFAULT, CORRECTORS[name]), matrices(columns, y, folds, features), 4)

    before, relabelled = fitted(y, features), fitted(np.where(own, 50 - y, y), features)
    other_features = fitted(y, np.where(own[:, None], 100 * features + 7, features))
    for after in (relabelled, other_features):
        np.testing.assert_array_equal(before.nested[fold], after.nested[fold])
    np.testing.assert_array_equal(before.cross_fitted[own], relabelled.cross_fitted[own])
    assert (before.cross_fitted[~own] != relabelled.cross_fitted[~own]).any()  # the canary sings where it may


@pytest.mark.parametrize("name", CORRECTORS)
def test_without_a_correction_a_stack_is_its_blend_and_the_order_of_columns_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    columns, y, folds = columns_like("trees", 200)
    features, order = np.random.default_rng(0).normal(size=(200, 1)), [2, 0, 1]
    one = Stacked(DEFAULT, CORRECTORS[name]).fit(matrices(columns, y, folds, features))
    other = Stacked(DEFAULT, CORRECTORS[name]).fit(matrices(columns[:, order], y, folds, features))
    assert one.parts[0] is not None
    y_pred = one.predict(columns[:, :, None], features)
    np.testing.assert_allclose(other.predict(columns[:, order, None], features), y_pred, rtol=1e-9)
    np.testing.assert_allclose(one.predict(columns[5:6, :, None], features[5:6]), y_pred[5:6], rtol=1e-12)
    monkeypatch.setattr(stacks, "simplest", lambda losses: 0)
    m = matrices(columns, y, folds, features)
    found = Stacked(DEFAULT, CORRECTORS[name]).fit(m)
    assert found.parts[0] is None
    np.testing.assert_array_equal(found.predict(m.P, features), DEFAULT.fit(m).predict(m.P))


def test_the_simplest_model_within_one_standard_error_of_the_best_is_taken() -> None:
    # Differences to the last, best row: (4, 2) mean 3, error 1; (2, 0) mean 1, error 1; (0, 0).
    assert simplest(np.array([[5.0, 3.0], [3.0, 1.0], [1.0, 1.0]])) == 1
    assert simplest(np.array([[5.0, 3.0], [3.0, 2.0], [1.0, 1.0]])) == 2
    assert simplest(np.array([[1.0, 1.0], [1.0, 1.0]])) == 0


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
    assert fit_ridge(x, rng.normal(size=90), folds, 2) is None


def test_a_regressor_that_cannot_be_fitted_or_is_not_known_is_an_error_with_its_name(tmp_path: Path) -> None:
    m = matrices(*columns_like("independent", 30))
    with pytest.raises(ConfigError, match=r"KNeighborsRegressor cannot be fitted on the 30 labelled .* Expected"):
        Stacked(DEFAULT, regressor("KNeighborsRegressor", {"n_neighbors": 29}, 0)).fit(m)
    for wrong, message in (
        ({"name": "RandomForest"}, r"submissions\.stack_regressor.*RandomForestRegressor"),
        ({"name": "Ridge", "parameters": {"alfa": 1}}, "alpha"),
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
