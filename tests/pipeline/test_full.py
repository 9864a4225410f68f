"""`full`: what is trained again is announced, and without a finished stage there is no submission."""

import re
from functools import partial

import pandas as pd
import pytest

from core.errors import ConfigError, NothingToSubmit
from core.paths import Paths
from models.jobs.budget import Budget
from models.jobs.scheduler import JobResult
from pipeline import commands
from pipeline.full import full, prepare_tables, with_baseline
from submissions.config import load_config
from tests.pipeline.made import options, small

pytestmark = pytest.mark.usefixtures("jobs_in_process")

MEAN = """import numpy as np
from models.api import Stage

class Mean(Stage):
    def fit(self, train, folder, context):
        np.save(folder / "mean.npy", np.nanmean(train.y, axis=0))

    def predict(self, rows, folder, context):
        return np.tile(np.load(folder / "mean.npy"), (len(rows), 1))

def split(data):
    return data.groups % data.n_folds
"""


@pytest.mark.parametrize("kind", ["kfold", "mine.py:split"])
def test_after_an_edit_check_and_full_say_which_finished_jobs_are_trained_again(tmp_path, capsys, kind):
    (tmp_path / "mine.py").write_text(MEAN)
    folds = {"kind": kind, "n_folds": 3}
    path = small(tmp_path, stages={"constant": {"kind": "mine.py:Mean"}}, folds=folds)
    line = r"stage constant: 3 finished jobs \(.*\) will be trained again: changes of mine\.py; --reuse keeps"

    def check_and_full(*flags):
        commands.main(["check", str(path), *flags])
        checked = capsys.readouterr().out
        assert full(options(path, *flags)) == 0
        return [re.search(line, output) is not None for output in (checked, capsys.readouterr().out)]

    assert check_and_full() == [False, False]
    (tmp_path / "mine.py").write_text(MEAN.replace("nanmean", "nanmedian"))
    assert check_and_full("--reuse") == [False, False]
    assert check_and_full() == [True, True]
    assert check_and_full() == [False, False]


def test_fewer_folds_than_configured_are_said_once(tmp_path, capsys):
    groups = [f"g{i % 2}" for i in range(60)]
    path = small(tmp_path, competition={"smiles": [], "group": "g"}, folds={"kind": "group", "n_folds": 5})
    train = pd.read_csv(tmp_path / "train.csv")
    train.assign(g=groups).to_csv(tmp_path / "train.csv", index=False)
    warning = "2 folds instead of the 5 of folds.n_folds"
    given = options(path)
    for command in (partial(commands.check, given), partial(prepare_tables, given, load_config(str(path)))):
        command()
        printed = capsys.readouterr().out
        assert printed.count(warning) == 1
    assert re.search(r"fold +rows", printed)


def test_without_a_finished_stage_there_is_nothing_to_submit(tmp_path, monkeypatch):
    failed = {"trees/seed_0/fold_0": JobResult("trees/seed_0/fold_0", "failed", "error", "ValueError: no")}
    monkeypatch.setattr(Budget, "train", lambda *given: failed)
    path = small(tmp_path)
    with pytest.raises(NothingToSubmit, match=r"(?s)no stage has finished.*\| trees .*ValueError: no"):
        full(options(path))
    assert not Paths("mixed").submission.exists()


def test_a_budget_that_ends_before_the_first_job_is_refused_with_the_smallest_one(tmp_path):
    words = r"a budget of 1 s is too short for a first submission: .* The smallest budget here is --budget [1-9]m;"
    with pytest.raises(ConfigError, match=words):
        full(options(small(tmp_path), "--budget", "1s"))


def test_a_yaml_without_a_stage_that_comes_first_gets_one_under_a_budget(tmp_path, capsys):
    trees = {"kind": "lightgbm", "n_bits": 64, "max_trees": 5}
    config = load_config(str(small(tmp_path, stages={"baseline": trees, "trees": trees})))
    with_first = with_baseline(config)
    assert {name: stage.kind for name, stage in with_first.stages.items()} == {
        "baseline_2": "baseline", "baseline": "lightgbm", "trees": "lightgbm",
    }  # fmt: skip
    assert "stage baseline_2 is added" in capsys.readouterr().out
    assert with_baseline(with_first) is with_first
