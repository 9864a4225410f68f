"""The list of all competitions with their last scores."""

from pathlib import Path

import pytest

from competition.config import load_competition
from competition.paths import Paths
from competition.prepare import prepare, write_prepared
from submissions.formatting import format_number
from submissions.list_competitions import HEADER, competitions, describe
from tests.submissions.fakes import built, fake_competition, prepare_and_fake_jobs


def test_a_competition_is_listed_with_the_score_of_its_latest_run(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    assert describe("a", str(path))[3:] == ["-", "-", "-"]
    prepare_and_fake_jobs(path)
    choice = built(path).stored["choice"]
    row = dict(zip(HEADER, describe("a", str(path)), strict=True))
    assert row["cross_fitted_score"].split()[0] == format_number(choice["procedure"]["cross_fitted_score"])
    assert row["chosen"] == choice["chosen"]


def test_a_yaml_elsewhere_is_identified_by_its_work_folder(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    paths = Paths.for_competition(str(path))
    write_prepared(prepare(load_competition(str(path))), paths, path)
    assert competitions()[paths.name] == str(path)


def test_a_yaml_with_mistakes_is_listed_too(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("competition: {metric: nonsense}")
    assert "has mistakes" in describe("broken", str(path))[1]


def test_embedded_competitions_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path))
    assert {"qm9_orbitals", "smoke"} <= set(competitions())
    assert not Paths.for_competition("smoke").root.exists()
