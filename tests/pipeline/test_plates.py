"""Rows of a plate share a shift of their target, and the test plates are new: from the tables to the expected score."""

import numpy as np
import pandas as pd
import pytest

from core.files import write_table
from core.user_tables import read_text_table
from core.yaml_files import dump_yaml, load_yaml
from pipeline import commands
from submissions.report.report import build_report
from submissions.run import latest_run

pytestmark = pytest.mark.usefixtures("jobs_in_process")


@pytest.fixture
def plates(tmp_path, monkeypatch):
    """The YAML that `new` writes for 60 training and 15 test plates of 8 rows, with one cheap stage."""
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    rng = np.random.default_rng(0)
    plate = np.repeat(np.arange(75), 8)
    x = rng.normal(size=(600, 2)).round(3)
    y = x[:, 0] + rng.normal(size=75)[plate] + 0.2 * rng.normal(size=600)
    rows = pd.DataFrame(
        {"id": [f"r{i}" for i in rng.permutation(600)], "plate": [f"P{k:03d}" for k in plate]}
    )
    rows = rows.assign(x=x[:, 0], z=x[:, 1], y=y.round(3))
    is_test = plate >= 60
    tables = {
        "train": rows[~is_test].sample(frac=1, random_state=0),
        "test": rows[is_test].drop(columns="y"),
        "sample": rows.loc[is_test, ["id"]].assign(y=0.0),
        "answers": rows.loc[is_test, ["id", "y"]],
    }
    path = tmp_path / "plates.yaml"
    options = []
    for name, table in tables.items():
        write_table(tmp_path / f"{name}.csv", table)
        options.append(f"--{name}={tmp_path / name}.csv")
    assert commands.main(["new", str(path), *options]) in (0, None)
    document = load_yaml(path)
    document["stages"] = {"baseline": {"kind": "baseline"}}
    path.write_text(dump_yaml(document))
    return path


def finished(path):
    assert commands.main(["full", str(path), "--workers", "1"]) in (0, None)
    run = latest_run(str(path))
    test_score = float(build_report(run).facts["test_score"][0])
    return run, test_score


def test_new_holds_out_plates_and_the_interval_holds_the_score(plates):
    document = load_yaml(plates)
    assert document["folds"]["kind"] == "stratified_group" and document["competition"]["group"] == "plate"
    assert "plate" not in document["competition"].get("categorical", [])
    run, test_score = finished(plates)
    fold = run.columns.folds
    plate = read_text_table(plates.parent / "train.csv").set_index("id").loc[run.columns.ids, "plate"]
    assert pd.Series(fold, plate).groupby(level=0).nunique().max() == 1
    interval = run.choice.expected.interval
    assert interval.lower < test_score < interval.upper


def test_folds_that_split_plates_expect_no_score_and_say_why(plates):
    document = load_yaml(plates)
    document["folds"]["kind"] = "kfold"
    document["competition"] |= {"group": None, "categorical": ["plate"]}
    plates.write_text(dump_yaml(document))
    run, test_score = finished(plates)
    assert run.choice.submitted.score < 0.6 < test_score  # the score of plates that are known
    assert run.choice.expected.interval is None
    summary = build_report(run).summary
    assert summary.startswith("The error of the test rows is not known, and rmse 0.")
    assert "0 test rows share 'plate' with a training row" in summary
