"""Importances are of the saved models of a run, and absent rather than late."""

import time
from dataclasses import replace

import pytest

from models.jobs.budget_stages import Clock
from submissions.report.importances import importance_section
from tests.submissions.fakes import built, fake_competition, train_all


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


def tables(run, seconds=3600.0):
    """The tables of the section in a command with so many seconds left."""
    clock = Clock(time.monotonic(), seconds)
    return [part for part in importance_section(replace(run, clock=clock)) if not isinstance(part, str)]


def test_the_column_that_labels_depend_on_is_the_first_of_the_trees(run):
    (features,) = tables(run)
    assert features.header == ["trees"] and [row[0].split()[1] for row in features.rows] == ["x", "z"]


def test_there_are_none_without_the_clock_of_a_command_or_at_the_end_of_its_budget(run):
    assert importance_section(run) == []
    assert tables(run, 25.0) == []
