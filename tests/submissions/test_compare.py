"""`./run.sh compare`: settings that differ, and paired differences on the rows that both runs have."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.metrics import METRICS
from competition.task import Task
from core.errors import ConfigError, DataError
from core.files import read_json, read_table, sha256_of, write_json, write_table
from core.paths import Paths
from pipeline import commands
from submissions.blend.scoring import Scorer
from submissions.compare import comparison, differences
from submissions.run import scored_rows
from tests.submissions.fakes import built, fake_classes, fake_competition, prepare_and_fake_jobs, with_setting

Command = Callable[..., str]


def labels_of(y: np.ndarray, metric: str) -> Scorer:
    rows = np.arange(len(y))
    return Scorer(
        metric=METRICS[metric],
        task=Task(["height"]),
        y=y,
        folds=0 * rows,
        groups=rows,
        ids=[f"r{i}" for i in range(len(y))],
    )


def test_a_paired_difference_and_its_error_by_hand() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(500, 1))
    far = rng.uniform(2, 9, size=(500, 1))  # what both share takes no part in the error of their difference
    this, other = y + far, y + far + rng.choice([0.8, -0.5], size=(500, 1))
    paired = labels_of(y, "mae").compare({"this": this, "other": other}, "other").loc["this"]
    gains = np.abs(other - y) - np.abs(this - y)
    assert paired.difference == pytest.approx(-gains.mean())
    assert paired.standard_error == pytest.approx(gains.std() / np.sqrt(500), rel=0.1)
    assert labels_of(y, "mae").gain(paired.difference) > 0  # less is better: above 0, this one is better


def test_rows_are_joined_on_id_and_those_of_one_run_alone_are_left_out() -> None:
    y = np.arange(6.0)[:, None]
    labels, other = labels_of(y, "mae"), y + 2.0
    cells = {"height": [9.0, 5.0, 3.0, np.nan, 1.0]}
    this = labels.aligned(pd.DataFrame(cells, index=["new", "r5", "r3", "r2", "r1"]))
    on_both = labels.on_rows_of(this, other)
    assert np.flatnonzero(on_both.has_fold).tolist() == [1, 3, 5]
    paired = on_both.compare({"this": this, "other": other}, "other").loc["this"]
    assert (paired.difference, paired.standard_error) == (-2.0, 0.0)  # r1, r3, r5, all without error
    other_target = labels.aligned(pd.DataFrame({"HEIGHT": y[:, 0]}, index=labels.ids))
    assert not labels.on_rows_of(other_target).has_fold.any()


def test_only_settings_that_differ_are_listed() -> None:
    older = {"stages": {"a": {"epochs": 3, "seeds": [0]}, "b": {"kind": "gnn"}}, "seed": 0}
    newer = {"stages": {"a": {"epochs": 5, "seeds": [0]}, "c": {"kind": "gnn"}}, "seed": 0}
    assert list(differences(older, newer)) == [
        "stages.a.epochs: 3 -> 5",
        "stages.b: removed",
        "stages.c: added",
    ]


@pytest.fixture
def compare_text(done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """What `./run.sh compare` prints of a run of three stages and, later, one of two, given options."""
    stages = {
        "fair": {"kind": "lightgbm", "parameters": {"num_leaves": 5}},
        "poor": {"kind": "lightgbm", "parameters": {"num_leaves": 6}},
    }
    built(fake_competition(done.parent, stages=stages, submissions={"stack": False}))

    def run(*options: str) -> str:
        commands.main(["compare", str(done), *options])
        return capsys.readouterr().out

    return run


def folders() -> tuple[Path, Path]:
    """Folders of the first and the second run."""
    paths = Paths.for_competition("mixed")
    second = paths.run(paths.latest_run.read_text().strip())
    (first,) = [manifest.parent for manifest in second.parent.glob("*/run.json") if manifest.parent != second]
    return first, second


def sign_manifest(folder: Path, **changes: object) -> None:
    """Make the digests those of the files as they are now; other changes of run.json."""
    stored = {**read_json(folder / "run.json"), **changes}
    stored["files"] = {name: sha256_of(folder / name) for name in stored["files"]}
    times = (folder / "run.json").stat()
    write_json(folder / "run.json", stored)
    os.utime(folder / "run.json", ns=(times.st_atime_ns, times.st_mtime_ns))


def test_all_runs_stand_in_one_table_against_the_latest(compare_text: Command, tmp_path: Path) -> None:
    page, (first, second) = compare_text(), folders()
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    assert list(rows) == ["run", second.name, first.name]
    assert "reference" in rows[second.name]
    assert "Runs that were tried: 2." in page
    changes = page.partition("## What changed, from the older run to the newer\n\n")[2]
    assert changes.startswith(f"{first.name} -> {second.name}:\n")
    assert "- stages.good: removed" in changes  # the first run had three stages, the second has two
    assert "- jobs." not in changes
    y = read_table(tmp_path / "train.csv", ["id"]).set_index("id")[["height", "depth"]]
    tables = (
        read_table(f / "cross_fitted.csv", ["id"]).set_index("id").loc[y.index, [*y]] for f in folders()
    )
    scores = [METRICS["rmse"](y.to_numpy(), table.to_numpy()) for table in tables]
    gain = float(rows[first.name].split("|")[-3])
    assert gain == pytest.approx(scores[1] - scores[0], rel=1e-3) and gain > 0
    (second.parent / "latest").write_text(f"{first.name}\n")  # full was run again on its settings
    swapped = compare_text("--with", first.name)
    assert compare_text() == swapped
    assert changes in swapped  # they do not depend on the reference
    assert f"{-gain:#.4g}" in swapped


def test_a_changed_budget_is_shown(compare_text: Command) -> None:
    first, second = folders()
    assert "- budget" not in compare_text()
    sign_manifest(first, budget=300.0)
    sign_manifest(second, budget=600.0)
    assert f'{first.name} -> {second.name}:\n- budget: "5 min" -> "10 min"\n' in compare_text()
    sign_manifest(second, budget=None)
    assert '- budget: "5 min" -> "none"\n' in compare_text()


def test_a_run_of_other_rows_folds_or_metric_says_so_and_a_damaged_one_not(
    compare_text: Command, tmp_path: Path
) -> None:
    first, second = folders()
    table = read_table(first / "cross_fitted.csv", ["id"])
    write_table(first / "cross_fitted.csv", table.iloc[10:])
    sign_manifest(first, tables=read_json(first / "run.json")["tables"] | {"folds.csv": "other"})
    page = compare_text()
    assert f"{first.name} is compared on the 140 rows that both runs predict." in page
    assert f"{first.name} has other folds, from which part of the difference may come." in page
    with_setting(tmp_path / "mixed.yaml", "competition", metric="mae")
    row = next(line for line in compare_text().splitlines() if line.startswith(f"| {first.name}"))
    assert re.search(r"by rmse +\| - +\| - +\| - +\| +", row)
    user_file = tmp_path / "m.py"
    user_file.write_text("def metric(y_true, y_pred):\n    return 0.0\n")
    with_setting(
        tmp_path / "mixed.yaml", "competition", metric=f"{user_file}:metric", greater_is_better=False
    )
    config = read_json(first / "run.json")["config"]
    config["competition"]["metric"] = f"{user_file}:metric"
    for digest, is_scored in ((sha256_of(user_file), True), ("of an older function", False)):
        sign_manifest(first, config=config, user_code=[[user_file.name, digest]])
        row = next(line for line in compare_text().splitlines() if line.startswith(f"| {first.name}"))
        assert (f"by {user_file}:metric" not in row) == is_scored
    (first / "cross_fitted.csv").write_text("id\n")
    page = compare_text()
    assert f"{first.name} is left out: " in page and f"| {second.name} " in page
    with pytest.raises(ConfigError, match=f"--with takes one of {second.name}; got '{first.name}'"):
        compare_text("--with", first.name)
    shutil.rmtree(first.parent)
    with pytest.raises(DataError, match="has no finished run"):
        compare_text()


def test_a_run_of_an_older_version_of_the_code_is_left_out(compare_text: Command) -> None:
    first, second = folders()
    sign_manifest(first, format=None)
    page = compare_text()
    assert f"{first.name} is left out: " in page and "was made by an older version" in page
    assert f"| {second.name} " in page


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["f1", "no", "yes"], ["log_loss", "no", "yes"]),
        (["accuracy", "no", "yes"], ["accuracy", "yes", "no"]),
    ],
)
def test_runs_of_labels_and_of_probabilities_or_of_other_classes_are_not_compared(
    before: list[str], after: list[str], tmp_path: Path
) -> None:
    settings = {"stack": False, "default": "mean"}
    runs = []
    for metric, *classes in (before, after):
        path = fake_classes(
            tmp_path, "binary", metric, competition={"classes": classes}, submissions=settings
        )
        prepare_and_fake_jobs(path)
        runs.append(built(path))
    assert [scored_rows(run.folder, runs[1].task).empty for run in runs] == [True, False]
    manifests = {run.name: run.stored for run in runs}
    compare_text = comparison(manifests, runs[1].name, runs[1].config, runs[1].paths)
    assert f"{runs[0].name} has other targets, rows or classes, and is not compared." in compare_text
