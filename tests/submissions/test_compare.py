"""`./run.sh compare`: settings that differ, and paired differences on the rows that both runs have."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from competition.metrics import METRICS
from core.errors import DataError
from core.files import read_json, read_table, sha256_of, write_json, write_table
from core.paths import Paths
from pipeline import commands
from submissions.columns import labels_of
from submissions.compare import _gain_over, compare, describe_gain, gain_over
from submissions.config import load_config
from submissions.run import latest_run
from tests.submissions.blend.data import numbers
from tests.submissions.fakes import (
    TARGETS,
    built,
    by_id,
    fake_classes,
    fake_competition,
    finished,
    with_setting,
)

Command = Callable[..., str]


def test_a_gain_on_rows_of_few_groups_has_to_be_larger():
    """By the t distribution of 5 groups, 3.2 of their standard errors are as rare as 2 of many groups."""
    y = np.random.default_rng(0).normal(size=100)
    rows = numbers(y[:, None], y)
    scored = {"new": y[:, None] + 0.1, "old": y[:, None] + 0.2}
    few = replace(rows, groups=np.arange(100) % 5)
    assert _gain_over(rows, scored, "new", "old")["remarks"] == []
    (remark,) = _gain_over(few, scored, "new", "old")["remarks"]
    assert "only 5 groups, so a gain below 3.2 standard errors may be chance" in remark


@pytest.fixture
def compare_text(done, capsys):
    """What `./run.sh compare` prints of a run of three stages and, later, one of two, given options."""
    leaves = {"fair": 5, "poor": 6}
    stages = {name: {"kind": "lightgbm", "parameters": {"num_leaves": n}} for name, n in leaves.items()}
    built(fake_competition(done.parent, stages=stages, submissions={"stack": False}))

    def run(*options):
        commands.main(["compare", str(done), *options])
        return capsys.readouterr().out

    return run


def folders():
    """Folders of the first and the second run."""
    paths = Paths.for_competition("mixed")
    second = paths.run(paths.latest_run.read_text().strip())
    (first,) = [manifest.parent for manifest in second.parent.glob("*/run.json") if manifest.parent != second]
    return first, second


def sign_manifest(folder, **changes):
    """Make the digests those of the files as they are now; other changes of run.json."""
    stored = {**read_json(folder / "run.json"), **changes}
    stored["files"] = {name: sha256_of(folder / name) for name in stored["files"]}
    times = (folder / "run.json").stat()
    write_json(folder / "run.json", stored)
    os.utime(folder / "run.json", ns=(times.st_atime_ns, times.st_mtime_ns))


def line_of(page, run):
    return next(line for line in page.splitlines() if line.startswith(f"| {run.name} "))


def test_all_runs_stand_in_one_table_against_the_latest(compare_text, tmp_path):
    page, (first, second) = compare_text(), folders()
    assert page.index(f"| {second.name} ") < page.index(f"| {first.name} ")
    assert "reference" in line_of(page, second)
    assert "Runs tried: 2." in page
    changes = page.partition("## What changed, from the older run to the newer\n\n")[2]
    assert changes.startswith(f"{first.name} -> {second.name}:\n")
    assert "- stages.good: removed" in changes  # the first run had three stages, the second has two
    assert "jobs" not in changes and "- budget" not in changes
    y = by_id(tmp_path / "train.csv")[TARGETS]
    of_runs = [by_id(run / "cross_fitted.csv").loc[y.index, TARGETS] for run in (first, second)]
    scores = [METRICS["rmse"](y.to_numpy(), table.to_numpy()) for table in of_runs]
    gain = float(line_of(page, first).split("|")[-3])
    assert gain == pytest.approx(scores[1] - scores[0], rel=1e-3) and gain > 0
    (second.parent / "latest").write_text(f"{first.name}\n")  # full was run again on its settings
    swapped = compare_text()
    assert changes in swapped  # they do not depend on the reference
    assert f"{-gain:#.4g}" in swapped


def test_other_rows_or_folds_of_a_run_are_named_and_by_another_metric_it_has_no_score(compare_text, tmp_path):
    first, second = folders()
    sign_manifest(second, budget=600.0, level="blend")
    table = read_table(first / "cross_fitted.csv")
    write_table(first / "cross_fitted.csv", table.iloc[10:])
    stored = read_json(first / "run.json")
    stages = {name: record | {"key": "other"} for name, record in stored["stages"].items()}
    sign_manifest(first, tables=stored["tables"] | {"folds.csv": "other"}, stages=stages)
    page = compare_text()
    assert f'{first.name} -> {second.name}:\n- budget: "none" -> "10 min"\n' in page
    both = ", ".join(name for name in stages if name != "good")
    assert f"\n- tables differ: folds.csv\n- jobs differ: {both}\n" in page
    assert f"{first.name} is compared on the 140 rows that both runs predict." in page
    assert f"{first.name} has different folds, which may explain part of the difference." in page
    assert f"{first.name} was blended at the level full, the run that it is compared with at blend" in page
    write_table(first / "cross_fitted.csv", table.rename(columns={"height": "size"}))
    sign_manifest(first)
    assert f"{first.name} has other targets, rows, labels or classes, and is not compared." in compare_text()
    with_setting(tmp_path / "mixed.yaml", "competition", metric="mae")
    assert re.search(r"by rmse +\| - +\| - +\| - +\| +", line_of(compare_text(), first))


def test_a_damaged_run_and_one_of_an_older_version_of_the_code_are_left_out(compare_text):
    first, second = folders()
    sign_manifest(first, format=None)
    page = compare_text()
    assert f"{first.name} is left out: " in page and "was made by an older version" in page
    assert line_of(page, second)
    sign_manifest(first, format=read_json(second / "run.json")["format"])
    (first / "cross_fitted.csv").write_text("id\n")
    assert f"{first.name} is left out: " in compare_text()
    sign_manifest(second, format=None)
    with pytest.raises(
        DataError, match=f"has no finished run; .*\n.*\n{second.name} is left out: .*older version"
    ):
        compare_text()
    shutil.rmtree(first.parent)
    with pytest.raises(DataError, match="has no finished run"):
        compare_text()


def test_a_run_is_compared_with_the_previous_one_if_the_scores_of_both_are_known(compare_text, tmp_path):
    """A metric that failed for the predictions of a run would fail again."""
    first, second = folders()
    run, config = latest_run(str(tmp_path / "mixed.yaml")), load_config(str(tmp_path / "mixed.yaml"))
    compared = gain_over(first.name, run, config)
    gain_of_first = float(line_of(compare_text(), first).split("|")[-3])
    assert compared and compared["gain"] == pytest.approx(-gain_of_first, rel=1e-3)
    (line,) = describe_gain(compared)
    assert line.startswith(f"Gain over the previous run, {first.name}: -0.")
    assert gain_over(second.name, run, config) is None
    choice = read_json(first / "run.json")["choice"]
    choice["candidates"][choice["chosen"]]["score"] = None
    sign_manifest(first, choice=choice)
    assert gain_over(first.name, run, config) is None
    assert describe_gain(None) == []


@pytest.mark.parametrize(("n_changed", "words"), [(150, "and is not compared"), (40, "on the 110 rows")])
def test_rows_with_other_labels_are_not_compared_and_the_runs_are_not_comparable(
    compare_text, done, n_changed, words
):
    """The labels of the training table were corrected between two runs, of all rows or of some."""
    first, second = folders()
    table = read_table(first / "oof.csv")
    labels = table["height"].where(np.arange(len(table)) >= n_changed, 10 * table["height"])
    write_table(first / "oof.csv", table.assign(height=labels))
    sign_manifest(first, tables=read_json(first / "run.json")["tables"] | {"train.parquet": "other"})
    _, result = compare(load_config(str(done)))
    older = result["runs"][1]
    assert older["comparable"] is False
    assert (older["gain"] is None) == (n_changed == 150)
    remarks = " ".join(older["remarks"])
    assert words in remarks
    assert f"{first.name} was made with other labels of {n_changed} rows, which are not compared." in remarks
    compared = gain_over(first.name, latest_run(str(done)), load_config(str(done)))
    (line,) = describe_gain(compared)
    assert compared["comparable"] is False and "other labels" in line
    assert ("not known" in line) == (n_changed == 150)


def test_labels_of_classes_are_compared_by_their_names(tmp_path):
    path = fake_classes(tmp_path, "multiclass", "accuracy", competition={"classes": ["1", "0", "b", "a"]})
    run = finished(path)
    task = run.task
    assert (labels_of(run.folder, task).loc[run.columns.ids, task.targets] == run.columns.y).all(axis=None)


@pytest.mark.parametrize(
    ("budget", "seeds", "left_out", "comparable"),
    [
        (None, [0], [], True),  # the settings say that there is no such stage
        (None, [0], [("good", None, "time")], False),
        (None, [0], [("fair", 0, "epochs")], False),
        (None, [0], [("new", None, "time")], True),  # the other run has no such stage
        (None, [0, 1], [], True),  # the settings say so
        (600.0, [0, 1], [], False),  # there was time for it
    ],
)
def test_runs_are_comparable_if_no_stage_is_left_out_of_one_that_is_in_the_other(
    compare_text, done, budget, seeds, left_out, comparable
):
    _, second = folders()
    config = read_json(second / "run.json")["config"]
    config["stages"]["fair"]["seeds"] = seeds
    rows = [{"stage": name, "seed": seed, "reason": why, "error": why} for name, seed, why in left_out]
    sign_manifest(second, left_out=rows, config=config, budget=budget)
    _, result = compare(load_config(str(done)))
    older = result["runs"][1]
    assert older["comparable"] is comparable and result["runs"][0]["comparable"] is None
    assert any("seeds or epochs" in line for line in older["remarks"]) is not comparable
