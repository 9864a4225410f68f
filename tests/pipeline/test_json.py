"""`--json`: one object on the last line of stdout, whatever happens, and everything else on stderr."""

import json
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from core.files import PROJECT
from models.jobs.budget_stages import HAS_ENDED
from pipeline import commands, full
from tests.pipeline.made import small, written

FAILS = """
from models.api import Stage

class Fails(Stage):
    def fit(self, train, folder, context):
        print("fits")
        raise RuntimeError("on purpose")

    def predict(self, rows, folder, context):
        return rows
"""

FAILS_ON_THE_TABLE = """
import numpy as np

def fails(preds, y, folds):
    if len(y) == 60:
        raise ValueError("on purpose")
    return np.ones(preds.shape[1])
"""
STAGE = "stages.more={kind: lightgbm, n_bits: 64, max_trees: 9}"


@pytest.fixture
def called(tmp_path, jobs_in_process):
    """Runs a command in this process; returns the only line of stdout as an object, and stderr."""

    def call(command, path, *options):
        files = tmp_path / "stdout", tmp_path / "stderr"
        with files[0].open("w") as out, files[1].open("w") as err, redirect_stdout(out), redirect_stderr(err):
            status = commands.main([command, str(path), *options, "--json"])
        return parsed(files[0].read_text(), status), files[1].read_text()

    return call


def parsed(stdout, status):
    (line,) = stdout.splitlines()
    result = json.loads(line)
    assert result["status"] == status and result["seconds"] >= 0
    return result


@pytest.mark.parametrize("command", ["check", "full"])
def test_each_cell_that_is_wrong_is_a_record_with_its_place_and_remedy(tmp_path, called, command):
    path = written(tmp_path, train={"pH": ["acid", *["7"] * 58, "base"]})
    result, printed = called(command, path)
    assert result["status"] == 2 and "DataError" in printed
    places = [(each["row"], each["id"], each["column"], each["value"]) for each in result["mistakes"]]
    ids = pd.read_csv(tmp_path / "train.csv")["id"]
    assert places == [(2, ids[0], "pH", "acid"), (61, ids[59], "pH", "base")]
    for each in result["mistakes"]:
        assert Path(each["file"]).name == "train.csv" and "finite" in each["message"] and each["remedy"]


def test_each_setting_that_is_wrong_is_a_record_with_its_key(tmp_path, called):
    path = small(tmp_path)
    result, _ = called("check", path, "--set", "folds.n_fold=3", "--set", "competition.metric=rsme")
    assert {each["setting"] for each in result["mistakes"]} == {"folds.n_fold", "competition.metric"}


def test_a_run_has_its_scores_files_and_its_gain_over_the_previous_one(tmp_path, called):
    path = small(tmp_path)
    checked, printed = called("check", path)
    assert checked["warnings"] == [] and any("stage " in line for line in checked["lines"])
    assert "checked" in printed
    first, printed = called("full", path, "--workers", "1")
    assert first["gain"] is None and first["left_out"] == [] and first["holdout_score"] is None
    assert "cross_fitted_score of the candidates" in printed
    assert Path(first["submission"]).parent.name == first["run"] and Path(first["report"]).exists()
    stage = first["stages"]["trees"]
    assert stage["target_scores"].keys() == stage["fold_scores"].keys() == {"all", "lumo", "mu"}
    assert stage["score"] == stage["target_scores"]["all"] and len(stage["fold_scores"]["mu"]) == 3
    assert stage["weights"].keys() == {"lumo", "mu"} and stage["training_seconds"] > 0
    errors = first["largest_errors"]
    assert {each["id"] for each in errors} <= {*pd.read_csv(tmp_path / "train.csv")["id"]}
    residuals = [abs(each["residual_in_sd"] or 0) for each in errors]  # None without a label
    assert max(residuals[:2]) == max(residuals)  # a row has two targets
    second, printed = called("full", path, "--workers", "1", "--set", "competition.seed=7")
    difference = first["cross_fitted_score"] - second["cross_fitted_score"]  # of errors: above 0 is better
    assert second["gain"]["gain"] == pytest.approx(difference) and second["gain"]["over"] == first["run"]
    assert second["gain"]["standard_error"] > 0 and any("seed" in line for line in second["gain"]["changes"])
    assert f"Gain over the previous run, {first['run']}: " in printed
    assert second["gain"]["comparable"] is False and "different folds" in second["gain"]["remarks"][0]
    again, _ = called("full", path, "--workers", "1", "--set", "competition.seed=7")
    assert again["run"] == second["run"] and again["gain"] is None
    compared, _ = called("compare", path)
    latest, other = compared["runs"]
    assert [latest["run"], other["run"]] == [second["run"], first["run"]]
    assert other["gain"] == pytest.approx(-difference) and latest["gain"] is None
    assert (latest["comparable"], other["comparable"]) == (None, False)
    assert compared["luck"] == pytest.approx(
        0.416, abs=0.001
    )  # Blom: the quantile of 1.625 / 2.25, over the root of 2
    third, _ = called("full", path, "--workers", "1", "--set", "competition.seed=7", "--set", STAGE)
    assert third["gain"]["comparable"] is True and third["gain"]["remarks"] == []
    assert third["stages"].keys() == {"trees", "more"}
    assert third["stages"]["more"]["gain_in_blend_standard_error"] >= 0


def test_a_budget_that_has_ended_says_so_when_the_command_is_repeated(tmp_path, called):
    path = small(tmp_path)
    options = ("--budget", "2m", "--workers", "1")
    first, _ = called("full", path, *options)
    again, _ = called("full", path, *options)
    assert HAS_ENDED not in first["advice"] and again["advice"][0] == HAS_ENDED


def test_an_interrupted_command_says_so_in_its_object(tmp_path, called, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(full, "plan_jobs", interrupted)
    result, printed = called("full", small(tmp_path), "--workers", "1")
    assert result["status"] == 130 and "Interrupted" in printed
    assert "the same command continues from there" in result["mistakes"][0]["message"]


def test_a_mistake_that_a_stage_finds_is_a_record_with_its_stage(tmp_path, called):
    path = small(tmp_path)
    stages = (
        "--set",
        "stages.graph={kind: gnn}",
        "--set",
        "stages.shape={kind: unimol}",
    )  # without molecules
    result, _ = called("check", path, *stages)
    assert {each["setting"] for each in result["mistakes"]} == {"stages.graph", "stages.shape"}


def test_a_stage_that_fails_is_left_out_with_its_error_and_what_its_worker_prints_is_on_stderr(tmp_path):
    (tmp_path / "fails.py").write_text(FAILS)
    path = small(tmp_path)
    path.write_text(path.read_text().replace("stages:\n", "stages:\n  fails: {kind: fails.py:Fails}\n"))
    command = [sys.executable, "-m", "pipeline", "full", str(path), "--workers", "1", "--json"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    result = parsed(done.stdout, done.returncode)
    assert result["status"] == 3
    assert "fits" in done.stderr
    assert [each["stage"] for each in result["left_out"]] == ["fails"]
    assert "on purpose" in result["left_out"][0]["error"]


def test_status_3_without_a_stage_that_failed_has_its_reason_among_the_warnings(tmp_path, called):
    (tmp_path / "mine.py").write_text(FAILS_ON_THE_TABLE)
    path = small(tmp_path)
    candidates = f"submissions.candidates=['{tmp_path / 'mine.py'}:fails']"
    result, _ = called("full", path, "--workers", "1", "--set", candidates)
    assert result["status"] == 3, result["mistakes"]
    assert result["left_out"] == []
    assert any(line.startswith("WARNING") and "on purpose" in line for line in result["warnings"])


def test_without_a_finished_stage_the_reasons_are_records(tmp_path, called):
    (tmp_path / "fails.py").write_text(FAILS)
    path = small(tmp_path)
    path.write_text(path.read_text().split("stages:")[0] + "stages: {fails: {kind: fails.py:Fails}}\n")
    result, _ = called("full", path, "--workers", "1")
    assert result["status"] == 1
    assert [each["message"] for each in result["mistakes"]] == ["no stage has finished"]
    assert "on purpose" in result["left_out"][0]["error"]


def test_a_stage_that_was_finished_too_late_for_the_submission_is_left_out():
    finished, submitted = (
        SimpleNamespace(config=SimpleNamespace(stages=names)) for names in (["a", "b"], ["a"])
    )
    (row,) = full.without_submission(finished, submitted)
    assert (row.stage, row.seed, row.reason) == (
        "b",
        None,
        "time",
    ) and "before the command ended" in row.error


def test_each_seed_of_the_yaml_that_a_budget_does_not_train_is_left_out():
    budget = SimpleNamespace(
        decisions=SimpleNamespace(left_out=[("a", 8, "time ran out"), ("b", None, "no time")]),
        states={
            "a": SimpleNamespace(name="a", seeds=[7], is_shortened=False),
            "b": SimpleNamespace(name="b"),
        },
    )
    stages = {name: SimpleNamespace(seeds=[7, 8, 9]) for name in ("a", "b")}
    rows = full.left_out_by_budget(budget, SimpleNamespace(stages=["a"]), stages)
    assert [(row.stage, row.seed) for row in rows] == [("a", 8), ("b", None), ("a", 9)]


def test_commands_print_the_keys_that_the_page_for_agents_lists(tmp_path, called):
    page, path = (PROJECT / "AGENTS.md").read_text(), small(tmp_path)
    table = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([^|]+) \|", page, re.MULTILINE)
    for command in ("check", "folds", "full", "compare", "ledger"):
        result, _ = called(command, path, *(["--workers", "1"] if command == "full" else []))
        keys = {key for names, of in table if f"`{command}`" in of for key in re.findall(r"\w+", names)}
        assert keys and keys <= result.keys(), command
