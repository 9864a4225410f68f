"""`./run.sh compare`: settings that differ, and paired differences on the rows that both runs have."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.errors import ConfigError, DataError
from competition.files import read_json, read_table, sha256_of, write_json, write_table
from competition.metrics import METRICS
from submissions import compare
from submissions.compare import Labels, differences, paired
from tests.submissions.fakes import TARGETS, fake_competition, prepare_and_fake_jobs, run_steps
from tests.submissions.pages import with_setting


def labels_of(y: np.ndarray, metric: str, draws: int = 2000) -> Labels:
    ids = [f"r{i}" for i in range(len(y))]
    frame = pd.DataFrame(y, index=ids, columns=["height"])
    return Labels(frame, pd.Series(range(len(y)), index=ids), METRICS[metric], None, draws, 0)


def sign_again(folder: Path) -> None:
    """Make the digests of the choice those of its files as they are now."""
    stored = read_json(folder / "run.json")
    stored["choice"]["files"] = {name: sha256_of(folder / name) for name in stored["choice"]["files"]}
    write_json(folder / "run.json", stored)


def table_of(values: np.ndarray, ids: list[str] | None = None) -> pd.DataFrame:
    ids = ids or [f"r{i}" for i in range(len(values))]
    return pd.DataFrame(values, index=ids, columns=["height"])


def test_a_paired_difference_and_its_error_by_hand() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(500, 1))
    this, other = y + 0.5, y + rng.choice([0.8, -1.0], size=(500, 1))
    found = paired(table_of(this), table_of(other), labels_of(y, "mae"))
    assert found is not None
    gains = np.abs(other - y) - np.abs(this - y)
    assert found.gain == pytest.approx(gains.mean())  # less is better: above 0, this one is better
    assert found.standard_error == pytest.approx(gains.std() / np.sqrt(500), rel=0.1)
    assert found.n_rows == 500
    back = paired(table_of(other), table_of(this), labels_of(y, "mae"))
    assert back is not None
    assert back.gain == pytest.approx(-found.gain)


def test_rows_are_joined_on_id_and_those_of_one_run_alone_are_left_out() -> None:
    y = np.arange(6.0)[:, None]
    this = table_of(np.array([[9.0], [5.0], [3.0], [np.nan], [1.0]]), ["new", "r5", "r3", "r2", "r1"])
    other = table_of(y + 2.0)
    found = paired(this, other, labels_of(y, "mae", 100))
    assert found is not None
    assert (found.gain, found.n_rows, found.standard_error) == (2.0, 3, 0.0)  # r1, r3, r5, all without error
    assert paired(this.iloc[:2], other, labels_of(y, "mae", 100)) is None


def test_only_settings_that_differ_are_listed() -> None:
    other = {"stages": {"a": {"epochs": 3, "seeds": [0]}, "b": {"kind": "gnn"}}, "seed": 0}
    this = {"stages": {"a": {"epochs": 5, "seeds": [0]}, "c": {"kind": "gnn"}}, "seed": 0}
    assert list(differences(this, other)) == ["stages.a.epochs: 3 -> 5", "stages.b: removed", "stages.c: added"]
    assert list(differences(this, this)) == []
    assert len(next(differences({"k": "x" * 500}, {"k": ""}))) < 80


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A competition with a run of three stages and, later, one of two."""
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    run_steps(path)
    stages = {"fair": {"kind": "lightgbm", "num_leaves": 5}, "poor": {"kind": "lightgbm", "num_leaves": 6}}
    run_steps(fake_competition(tmp_path, stages=stages))
    return path


def said(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *more: str) -> str:
    monkeypatch.setattr(sys, "argv", ["", str(path), *more])
    capsys.readouterr()
    compare.main()
    return capsys.readouterr().out


def folders_of(path: Path) -> tuple[Path, Path]:
    """Folders of the first and the second run."""
    latest = next(path.parent.glob("work/mixed/submissions/latest"))
    second = latest.parent / latest.read_text().strip()
    (first,) = [manifest.parent for manifest in latest.parent.glob("*/run.json") if manifest.parent != second]
    return first, second


def test_all_runs_stand_in_one_table_against_the_latest(
    two: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = folders_of(two)
    page = said(two, capsys, monkeypatch)
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    assert list(rows) == ["run", second.name, first.name]
    assert "reference" in rows[second.name]
    assert "- stages.good: added" in page
    y = read_table(two.parent / "train.csv", ["id", "x", "z"]).set_index("id")[TARGETS]
    scores = []
    for folder in (first, second):
        table = read_table(folder / "cross_fitted.csv", ["id"]).set_index("id").loc[y.index]
        scores.append(METRICS["rmse"](y.to_numpy(), table[TARGETS].to_numpy()))
    gain = float(rows[first.name].split("|")[-3])
    assert gain == pytest.approx(scores[1] - scores[0], rel=1e-3)
    assert gain > 0
    swapped = said(two, capsys, monkeypatch, "--with", first.name)
    assert "- stages.good: removed" in swapped
    assert f"{-gain:#.5g}" in swapped


def test_a_run_of_other_rows_and_folds_is_compared_on_the_common_ones_and_says_so(
    two: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = folders_of(two)
    file = first / "cross_fitted.csv"
    table = pd.read_parquet(first / "cross_fitted" / "mean.parquet")
    wanted = table[["id", *(f"cross_fitted {name}" for name in TARGETS)]].set_axis(["id", *TARGETS], axis=1)
    write_table(file, wanted.iloc[10:])
    sign_again(first)
    manifest = read_json(first / "run.json")
    manifest["tables"]["folds.csv"] = "other"
    write_json(first / "run.json", manifest)
    page = said(two, capsys, monkeypatch)
    assert f"{first.name}: compared on 140 rows that both have; it has 140, {second.name} has 150." in page
    assert f"{first.name}: other folds: part of the difference may come from them." in page
    write_table(file, wanted.assign(id="x" + wanted["id"]))
    sign_again(first)
    assert f"{first.name}: no two rows are predicted by both runs; not compared." in said(two, capsys, monkeypatch)


def test_runs_that_cannot_be_compared_are_named(
    two: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = folders_of(two)
    manifest = read_json(first / "run.json")
    write_json(first / "run.json", {**manifest, "targets": ["height"]})
    assert f"{first.name}: its targets are height; not compared." in said(two, capsys, monkeypatch)
    with pytest.raises(DataError, match=f"must predict height, depth, as the YAML says; {first.name} predicts height"):
        said(two, capsys, monkeypatch, "--with", first.name)
    del manifest["choice"]
    write_json(first / "run.json", manifest)
    assert "is not finished" in said(two, capsys, monkeypatch)
    with pytest.raises(ConfigError, match=f"--with must be one of .*; found '{first.name}'"):
        said(two, capsys, monkeypatch, "--with", first.name)
    shutil.rmtree(first.parent)
    with pytest.raises(DataError, match="must hold at least one finished run"):
        said(two, capsys, monkeypatch)


def test_scores_of_another_metric_are_not_shown_as_ours(
    two: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = folders_of(two)
    page = said(with_setting(two, "competition", metric="mae"), capsys, monkeypatch)
    row = next(line for line in page.splitlines() if line.startswith(f"| {first.name}"))
    assert re.search(r"by rmse +\| - +\| - +\| - +\| +\d", row)


def test_a_damaged_folder_is_named_and_the_others_are_compared(
    two: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = folders_of(two)
    (first / "blend.csv").write_text("{}")
    (first.parent / "latest").unlink()
    page = said(two, capsys, monkeypatch)
    assert f"{first.name}: left out." in page
    assert f"| {second.name} " in page
