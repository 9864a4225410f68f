"""`full`: its work is done once."""

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from competition import command
from competition.errors import ConfigError
from competition.paths import Paths
from competition.prepare import prepare
from folds.splitters import divide
from models.jobs.plan import plan
from submissions.full import full
from tests.conftest import mixed_tables, write_competition


def options(path: Path, *more: str) -> Any:
    return command.parser("full").parse_args([str(path), "--workers", "1", *more])


def small(folder: Path, **sections: object) -> Path:
    stages = {"trees": {"kind": "lightgbm", "n_bits": 64, "max_trees": 5}}
    submissions = {"trials": 4, "bootstrap": 100}
    sections = {"competition": {"smiles": []}, "stages": stages, "submissions": submissions, **sections}
    return write_competition(folder, *mixed_tables(), **sections)


def test_full_prepares_divides_and_plans_once(tmp_path: Path) -> None:
    names, calls = {function.__code__: function.__name__ for function in (prepare, divide, plan)}, Counter[str]()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in names:
            calls[names[frame.f_code]] += 1

    path = small(tmp_path)
    sys.setprofile(count)
    try:
        assert full(options(path)) == 0
    finally:
        sys.setprofile(None)
    assert calls == {"prepare": 1, "divide": 1, "plan": 1}
    paths = Paths.of(str(path))
    assert (
        paths.submission.read_bytes()
        == (paths.run(paths.latest_run.read_text().strip()) / "submission.csv").read_bytes()
    )


def test_full_does_not_divide_its_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="full does not divide its work"):
        full(options(tmp_path / "any.yaml", "--shard", "1/2"))
