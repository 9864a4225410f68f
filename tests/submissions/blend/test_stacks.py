"""The stack: chosen where it earns it, else the default blend; nothing of a fold where it is left out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from competition.files import write_table
from competition.metrics import METRICS
from competition.prepare import prepare
from submissions.blend import stacks
from submissions.blend.candidates import CANDIDATES
from submissions.blend.crossfit import cross_fit, cross_fitted, decide
from submissions.blend.logits import probabilities
from submissions.blend.problem import Matrices
from submissions.blend.stacks import Stacked
from submissions.blend.stored import from_json, to_json
from submissions.config import load_config
from submissions.stack_features import features_of
from tests.conftest import mixed_tables, write_competition
from tests.submissions.blend.test_crossfit import rule
from tests.submissions.fakes import columns_like

DEFAULT = CANDIDATES["shrunk_ridge"]


def matrices(columns: np.ndarray, y: np.ndarray, folds: np.ndarray, features: np.ndarray | None = None) -> Matrices:
    return Matrices(columns[:, :, None], y[:, None], folds, METRICS["rmse"], trials=8, features=features)


def test_the_stack_is_chosen_where_a_feature_says_what_the_columns_do_not_and_not_for_noise() -> None:
    columns, y, folds = columns_like("independent", 300)
    feature, noise = np.random.default_rng(7).normal(size=300), np.random.default_rng(100).normal(size=(300, 10))
    bent = y + np.abs(feature) - np.abs(feature).mean()
    for labels, seen, chosen in ((y, noise, "shrunk_ridge"), (bent, feature[:, None], "stack")):
        m = matrices(columns, labels, folds, seen)
        found = {"shrunk_ridge": cross_fit(DEFAULT, m, 5), "stack": cross_fit(Stacked(DEFAULT), m, 5)}
        assert decide(rule(labels, folds), found)[0] == chosen


@pytest.mark.parametrize("problem_type", ["regression", "binary", "multiclass"])
def test_labels_and_features_of_a_fold_reach_nothing_that_was_fitted_without_it(
    monkeypatch: pytest.MonkeyPatch, problem_type: str
) -> None:
    monkeypatch.setattr(stacks, "least", lambda losses: min(20, len(losses) - 1))
    stacked, fold = Stacked(DEFAULT), 2
    if problem_type == "regression":
        columns, y, _ = columns_like("trees", 120, seed=3)
        m = matrices(columns, y, np.arange(120) % 4, np.random.default_rng(1).normal(size=(120, 3)))
        m.seen_by_stacks[::5, 0] = np.nan
    else:
        m, stacked = classes(problem_type, n=200), Stacked(CANDIDATES["convex"])
    own = (m.folds == fold)[:, None]
    turned = replace(m, y=np.where(own, 50 - m.y if problem_type == "regression" else (m.y + 1) % 2, m.y))
    other_features = replace(m, features=np.where(own, 100 * m.seen_by_stacks + 7, m.seen_by_stacks))
    n_folds = int(m.folds.max()) + 1
    before, relabelled, seen = (cross_fit(stacked, each, n_folds) for each in (m, turned, other_features))
    for after in (relabelled, seen):
        np.testing.assert_array_equal(before.nested[fold], after.nested[fold])
    np.testing.assert_array_equal(before.cross_fitted[own[:, 0]], relabelled.cross_fitted[own[:, 0]])
    assert (before.cross_fitted != relabelled.cross_fitted)[~own[:, 0]].any()  # the canary sings where it may


def test_without_a_correction_the_stack_is_its_blend_and_the_order_of_columns_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns, y, folds = columns_like("trees", 200)
    features, order = np.random.default_rng(0).normal(size=(200, 1)), [2, 0, 1]
    one = Stacked(DEFAULT).fit(matrices(columns, y, folds, features))
    other = Stacked(DEFAULT).fit(matrices(columns[:, order], y, folds, features))
    assert one.parts[0] is not None
    y_pred = one.predict(columns[:, :, None], features)
    np.testing.assert_allclose(other.predict(columns[:, order, None], features), y_pred, rtol=1e-9)
    np.testing.assert_allclose(one.predict(columns[5:6, :, None], features[5:6]), y_pred[5:6], rtol=1e-12)
    monkeypatch.setattr(stacks, "least", lambda losses: 0)
    m = matrices(columns, y, folds, features)
    found = Stacked(DEFAULT).fit(m)
    assert found.parts[0] is None
    np.testing.assert_array_equal(found.predict(m.P, features), DEFAULT.fit(m).predict(m.P))


def test_trees_see_the_columns_of_other_targets_in_whatever_order() -> None:
    rng = np.random.default_rng(0)
    truth, order = rng.normal(size=(500, 2)), [2, 0, 1]
    P, y = truth[:, None] + 0.3 * rng.normal(size=(500, 3, 2)), truth + np.abs(truth[:, ::-1]) * [1, 0]
    m = Matrices(P, y, rng.permutation(np.arange(500) % 5), METRICS["rmse"], trials=8)
    blend, stack = (cross_fitted(each, m, 5) for each in (DEFAULT, Stacked(DEFAULT)))
    errors = [METRICS["rmse"](y[:, :1], y_pred[:, :1]) for y_pred in (blend, stack)]
    assert errors[1] < 0.9 * errors[0]
    one, other = (Stacked(DEFAULT).fit(each) for each in (m, replace(m, P=P[:, order])))
    np.testing.assert_allclose(other.predict(P[:, order]), one.predict(P), rtol=1e-9)


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


# Classes: trees that start from the logits of the blend


def classes(problem_type: str, seen: bool = True, n: int = 600) -> Matrices:
    """Columns that know the logits of three classes, or of two, and a feature that has a part of them, or none."""
    rng, k = np.random.default_rng(3), 3 if problem_type == "multiclass" else 1
    truth, feature = rng.normal(size=(n, k)), rng.uniform(-2, 2, size=(n, 2))
    P = truth[:, None] + 0.3 * rng.normal(size=(n, 3, k))
    truth[:, 0] += 2.0 * np.abs(feature[:, 0]) - 2 if seen else 0
    if k == 1:
        P, y = probabilities(P, "logistic"), (rng.logistic(size=(n, 1)) < truth).astype(float)
    else:
        P, y = probabilities(P, "softmax"), (truth + rng.gumbel(size=(n, k))).argmax(axis=1)[:, None].astype(float)
    folds = rng.permutation(np.arange(n) % 5)
    return Matrices(P, y, folds, METRICS["log_loss"], trials=8, features=feature, has_probabilities=True)


@pytest.mark.parametrize("problem_type", ["binary", "multiclass"])
def test_the_trees_of_classes_start_from_the_blend_and_help_where_a_feature_says_what_the_columns_do_not(
    problem_type: str,
) -> None:
    default = CANDIDATES["shrunk_logits"]
    for seen in (True, False):
        m = classes(problem_type, seen)
        fitted = Stacked(default).fit(m)
        y_pred = fitted.predict(m.P, m.features)
        loss = {name: METRICS["log_loss"](m.y, cross_fitted(each, m, 5)) for name, each in
                (("blend", default), ("stack", Stacked(default)))}  # fmt: skip
        assert loss["stack"] < (0.95 if seen else 1.01) * loss["blend"]
        if not seen:
            continue
        assert y_pred.min() >= 0 and (problem_type == "binary" or np.allclose(y_pred.sum(axis=1), 1))
        assert m.features is not None
        np.testing.assert_allclose(fitted.predict(m.P[7:8], m.features[7:8]), y_pred[7:8], rtol=1e-12)
        stored = from_json(json.loads(json.dumps(to_json(fitted))))
        np.testing.assert_allclose(stored.predict(m.P, m.features), y_pred, rtol=1e-12)
        swapped = replace(m, P=m.P[:, [1, 2, 0]])
        np.testing.assert_allclose(Stacked(default).fit(swapped).predict(swapped.P, m.features), y_pred, rtol=1e-6)


def test_the_first_loss_of_the_trees_is_that_of_the_blend_as_lightgbm_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(stacks, "least", lambda losses: seen.append(losses) or 0)
    monkeypatch.setitem(stacks.PARAMETERS, "learning_rate", 1e-9)
    for problem_type in ("binary", "multiclass"):
        Stacked(CANDIDATES["mean"]).fit(classes(problem_type))
        np.testing.assert_allclose(seen[-1][1], seen[-1][0], rtol=1e-6)


def test_a_label_without_positives_in_some_folds_is_left_as_the_blend_has_it() -> None:
    m = classes("binary", n=200)
    rare = np.where(np.arange(200) == 0, 1.0, 0.0)
    both = replace(m, P=np.repeat(m.P, 2, axis=2), y=np.column_stack([m.y[:, 0], rare]))
    fitted = Stacked(CANDIDATES["shrunk_logits"]).fit(both)
    assert np.isfinite(fitted.predict(both.P, both.features)).all()
    assert fitted.only(np.array([False, False])).parts == [None, None]
