"""Importances are of the saved models of a run, bounded in time, and absent rather than late."""

import time
from dataclasses import replace
from unittest import mock

import pytest

from models.jobs.budget_stages import Clock
from submissions.levels import Level
from submissions.report import importances
from submissions.report.importances import column_importances, feature_importances
from tests.submissions.fakes import built, fake_classes, fake_competition, train_all


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with trained models of labels that depend on one of two columns."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        stages = {"ridge": {"kind": "sklearn"}, "trees": {"kind": "lightgbm", "max_trees": 20}}
        path = fake_competition(folder, competition={"targets": ["height"]}, stages=stages)
        train_all(path)
        yield built(path)


@pytest.fixture(autouse=True)
def _at_home(run, monkeypatch):
    monkeypatch.setenv("WORK_DIR", str(run.folder.parents[2]))


def timed(run, seconds=3600.0):
    """The run in a command with so many seconds left."""
    return replace(run, clock=Clock(time.monotonic(), seconds))


def tables(run, seconds=3600.0):
    """The tables of the section in a command with so many seconds left."""
    run = timed(run, seconds)
    return [
        part for part in [*feature_importances(run), *column_importances(run)] if not isinstance(part, str)
    ]


def test_the_column_that_labels_depend_on_is_the_first_of_the_trees_and_of_the_permutations(run):
    features, columns = tables(run)
    assert features.header == ["trees"] and [row[0].split()[1] for row in features.rows] == ["x", "z"]
    (first, loss), (second, no_loss) = columns.rows
    assert (first, second) == ("x", "z")
    assert 1 < float(loss.partition(" +- ")[0]) < 3
    assert abs(float(no_loss.partition(" +- ")[0])) < 0.3


def test_labels_of_a_rare_class_are_those_of_the_tuned_threshold(tmp_path, monkeypatch):
    """At a probability of .5, hardly a row is of the class, whatever is permuted."""
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    path = fake_classes(tmp_path, "binary", "f1", exponent=8, stages={"logistic": {"kind": "sklearn"}})
    train_all(path)
    ((first, loss), _) = column_importances(timed(built(path)))[1].rows
    assert first == "x"
    assert float(loss.partition(" +- ")[0]) > 0.15


def test_there_are_none_without_the_clock_of_a_command_or_at_the_end_of_its_budget(run):
    assert feature_importances(run) == column_importances(run) == []
    assert tables(run, 25.0) == []


def test_no_level_of_a_submission_waits_for_them_but_the_last(run, monkeypatch):
    earlier = run.manifest.model_copy(update={"level": Level.BLEND})
    assert tables(run) != []
    monkeypatch.setattr(type(run), "manifest", earlier)
    assert tables(run) == []


def test_permutations_end_with_their_time_and_compute_no_features(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(importances, "MAX_SECONDS", 1e-9)
        assert [table.header for table in tables(run)] == [["trees"]]
    empty = mock.Mock(missing=lambda keys: keys)
    monkeypatch.setattr(importances, "feature_caches", lambda *given: [(empty, ["a text"])])
    assert [table.header for table in tables(run)] == [["trees"]]
