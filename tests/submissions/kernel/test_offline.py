"""What the notebook runs: each lack of its inputs is named in a sentence; an earlier output is taken over."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from competition.errors import DataError
from competition.files import write_table
from competition.paths import Bundle, Paths
from submissions.kernel import offline
from submissions.kernel.offline import find_table, in_order_of, require_image, train
from tests.submissions.kernel.conftest import SLUG


def test_packages_of_the_image_out_of_range_are_named_with_what_was_found() -> None:
    require_image(["numpy>=2,<3"])
    with pytest.raises(DataError, match=r"numpy 2.*, needed <2,>=1; not-there is missing, needed not-there>=2"):
        require_image(["pandas>=1", "numpy>=1,<2", "not-there>=2"])


def test_the_test_table_is_that_of_the_competition_wherever_it_is_mounted(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path / "datasets/me/mixed-pack")
    bundle.work.mkdir(parents=True)
    for file in (bundle.manifest, bundle.work / "test.csv"):  # in a bundle: none of the competition's
        file.touch()
    with pytest.raises(DataError, match=rf"one test\.csv below .*{SLUG}; found none. Attach"):
        find_table("test.csv", SLUG, tmp_path)
    for folder in ("datasets/you/other", "datasets/you/another"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "test.csv").touch()
    with pytest.raises(DataError, match=r"found .*another/test\.csv, .*other/test\.csv\. Attach"):
        find_table("test.csv", SLUG, tmp_path)
    (tmp_path / SLUG / "data").mkdir(parents=True)
    (tmp_path / SLUG / "data" / "test.csv").touch()
    assert find_table("test.csv", SLUG, tmp_path) == tmp_path / SLUG / "data" / "test.csv"


def test_rows_have_the_order_of_the_sample_only_if_it_names_the_same_rows(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["a", "b", "c"], "y": np.arange(3.0)})
    sample = tmp_path / "sample.csv"
    assert in_order_of(sample, table, "id") is table
    write_table(sample, table.iloc[[2, 0, 1]])
    ordered = in_order_of(sample, table, "id")
    assert (list(ordered["id"]), list(ordered["y"])) == (["c", "a", "b"], [2.0, 0.0, 1.0])
    write_table(sample, table.iloc[:2])
    assert in_order_of(sample, table, "id") is table


@pytest.mark.parametrize("earlier", ["notebooks/me/first/work/mixed", "datasets/me/mixed-pack/work/mixed", None])
def test_an_earlier_output_is_taken_over_where_one_is_attached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: str | None
) -> None:
    """One of a bundle for prediction is none."""
    bundle = Bundle(tmp_path / "datasets/me/mixed-pack")
    bundle.root.mkdir(parents=True)
    bundle.manifest.touch()
    if earlier:
        (tmp_path / earlier / "models").mkdir(parents=True)
    monkeypatch.setenv("WORK_DIR", "")  # so that it is set back

    def full(command: list[str], cwd: Path) -> SimpleNamespace:
        ran.append(command)
        paths = Paths("mixed")
        paths.run("r").mkdir(parents=True)
        paths.latest_run.write_text("r\n")
        (paths.run("r") / "submission.csv").write_text("id\n")
        return SimpleNamespace(returncode=0)

    ran: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", full)
    (tmp_path / "working").mkdir()
    train(bundle, "mixed", tmp_path, tmp_path / "working" / "submission.csv", ["--budget", "8h"])
    taken_over = ["--from", str(tmp_path)] if earlier and earlier.startswith("notebooks") else []
    assert ran[0][2:] == ["full", "mixed.yaml", "--budget", "8h", *taken_over]
    assert (tmp_path / "working" / "submission.csv").read_text() == "id\n"
    assert os.environ["WORK_DIR"] == str(tmp_path / "working" / "work")


def test_a_training_that_fails_fails_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_DIR", "")
    monkeypatch.setattr(offline.subprocess, "run", lambda *arguments, **options: SimpleNamespace(returncode=2))
    with pytest.raises(SystemExit, match="2"):
        train(Bundle(tmp_path), "mixed", tmp_path, tmp_path / "submission.csv", [])
