"""`./run.sh full --holdout`: rows that nothing but the final scoring sees."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.metrics import METRICS
from competition.prepare import prepare
from core import cli
from core.errors import ConfigError, DataError
from core.files import PROJECT, read_table, read_text_table
from core.paths import Paths, holdout_yaml
from pipeline.full import full
from pipeline.hold_out import hold_out
from submissions.config import load_config
from submissions.report.report import report
from tests.conftest import mixed_tables, write_competition
from tests.submissions.fakes import TARGETS, built, fake_competition, prepare_and_fake_jobs
from tests.submissions.test_full import options


def made(path: Path, share: float = 0.2) -> dict[str, pd.DataFrame]:
    """The raw tables of a competition, by name, after rows were kept out."""
    hold_out(str(path), share)
    raw = Paths.for_competition(str(holdout_yaml(str(path), share))).raw
    return {file.stem: read_text_table(file) for file in raw.glob("*.csv")}


def test_rows_held_out_are_the_test_table_and_nowhere_else(tmp_path: Path) -> None:
    path = write_competition(tmp_path, *mixed_tables())
    tables = made(path)
    all_rows = read_text_table(tmp_path / "train.csv")
    held_out = list(tables["test"]["id"])
    assert len(held_out) == 12
    assert sorted([*tables["train"]["id"], *held_out]) == sorted(all_rows["id"])
    assert list(tables["answers"]["id"]) == list(tables["sample_submission"]["id"]) == held_out
    assert not {"lumo", "mu"} & set(tables["test"].columns)
    labels = all_rows.set_index("id").loc[held_out, ["lumo", "mu"]]
    assert (tables["answers"].set_index("id")[["lumo", "mu"]] == labels).all(axis=None)
    config = load_config(str(holdout_yaml(str(path), 0.2)))
    assert config.competition.holdout_of == "mixed"
    assert dict(config.stages) == dict(load_config(str(path)).stages)
    path = write_competition(
        tmp_path, *mixed_tables(), stages={"theirs": {"kind": "file", "folder": "theirs"}}
    )
    with pytest.raises(ConfigError, match=r"--holdout trains every stage without the held-out rows.*theirs"):
        hold_out(str(path), 0.2)  # whoever made these predictions may have seen the rows


def test_answers_have_all_columns_of_the_rows(tmp_path: Path) -> None:
    train, test = mixed_tables()
    train = train.assign(lumo=["<1", *train["lumo"][1:]], low=-9.0)
    answers = made(write_competition(tmp_path, train, test))["answers"]
    assert list(answers.columns) == list(train.columns)
    assert set(answers["low"]) == {"-9.0"} and len(answers) == 12


@pytest.mark.parametrize(
    ("kind", "share", "n"),
    [("kfold", 0.05, 3), ("kfold", 0.3, 18), ("time", 0.5, 30), ("group", 0.15, 10), ("file", 0.4, 24)],
)
def test_the_share_is_kept_in_whole_groups_the_latest_rows_or_the_last_of_user_defined_folds(
    tmp_path: Path, kind: str, share: float, n: int
) -> None:
    train, test = mixed_tables()
    train["day"], train["plate"] = np.arange(len(train)), np.arange(len(train)) // 10
    user_folds = pd.DataFrame({"id": train["id"], "fold": np.arange(len(train)) % 5})
    user_folds.to_csv(tmp_path / "theirs.csv", index=False)
    folds = {"kind": kind, "file": "theirs.csv"} if kind == "file" else {"kind": kind, "n_folds": 3}
    roles = {"time": "day"} if kind == "time" else {"group": "plate"} if kind == "group" else {}
    tables = made(write_competition(tmp_path, train, test, folds=folds, competition=roles), share)
    held_out = set(tables["test"]["id"])
    assert len(held_out) == n
    assert kind != "time" or held_out == set(train["id"][-n:])
    assert kind != "group" or train["plate"][train["id"].isin(held_out)].nunique() == 1
    if kind == "file":
        assert held_out == set(user_folds["id"][user_folds["fold"] >= 3])
        assert set(tables["folds"]["fold"]) == {"0", "1", "2"}


@pytest.mark.parametrize("layout", ["name", "column per class", "list"])
def test_classes_are_held_out_in_like_shares_and_in_the_layout_of_the_sample(
    tmp_path: Path, layout: str
) -> None:
    """Of forty rows 30 are calm, 9 glad, and one is sad, which may go either way."""
    train, test = mixed_tables(40)
    train["lumo"] = np.random.default_rng(0).permutation(["calm"] * 30 + ["glad"] * 9 + ["sad"])
    roles = {"targets": ["lumo"], "problem_type": "multiclass"}
    more = {
        "name": {"metric": "f1_macro"},
        "list": {"metric": "map_at_2"},
        "column per class": {"metric": "log_loss"},
    }
    columns = {"submission_columns": ["p1", "p2", "p3"]} if layout == "column per class" else {}
    path = write_competition(tmp_path, train, test, competition={**roles, **more[layout], **columns})
    sample = pd.DataFrame({"id": test["id"]}).assign(
        **dict.fromkeys(columns.get("submission_columns", ["lumo"]), "0")
    )
    sample.to_csv(tmp_path / "sample_submission.csv", index=False)
    tables = made(path, 0.2)
    counts = tables["answers"]["lumo"].value_counts()
    assert (counts["calm"], counts["glad"] in (1, 2), counts.sum()) == (6, True, 8)
    config = load_config(str(holdout_yaml(str(path), 0.2))).competition
    assert config.classes == ["calm", "glad", "sad"]
    first = {"name": ["calm"], "list": ["calm glad"], "column per class": ["0.0", "0.0", "0.0"]}[layout]
    assert tables["sample_submission"].drop(columns="id").iloc[0].tolist() == first
    tables["train"].loc[tables["train"]["lumo"] == "sad", "lumo"] = "calm"  # as if all were kept out
    tables["train"].to_csv(config.train, index=False)
    assert "sad 0" in prepare(config).report["said"][1]


def test_the_finished_submission_is_scored_on_the_rows_held_out(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    hold_out(str(path), 0.2)
    yaml_file = holdout_yaml(str(path), 0.2)
    shutil.copy(
        Paths.for_competition(str(yaml_file)).raw / "answers.csv", yaml_file.parent
    )  # of which the jobs are made up
    prepare_and_fake_jobs(yaml_file)
    run = built(yaml_file)
    submission = read_table(run.folder / "submission.csv", ["id"]).set_index("id")
    held_out = read_table(tmp_path / "train.csv", ["id"]).set_index("id").loc[submission.index]
    assert len(held_out) == 30
    expected = METRICS["rmse"](held_out[TARGETS].to_numpy(), submission[TARGETS].to_numpy())
    assert f"holdout_score on rows of {path.stem}: {expected:#.4g}, " in report(run)


@pytest.mark.slow
def test_full_with_holdout_ends_with_its_score_and_leaves_the_competition_alone(tmp_path: Path) -> None:
    path = write_competition(tmp_path, *mixed_tables())
    done = subprocess.run(
        [PROJECT / "run.sh", "full", str(path), "--holdout", "0.2", "--workers", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "holdout_score on rows of mixed: " in done.stdout
    assert not Paths.for_competition(str(path)).root.exists()


def test_a_second_command_that_is_refused_has_changed_no_file_of_the_first(tmp_path: Path) -> None:
    path = fake_competition(tmp_path, stages={"trees": {"kind": "lightgbm", "max_trees": 5}})
    assert full(options(path, "--holdout", "0.2")) == 0
    paths = Paths.for_competition(str(holdout_yaml(str(path), 0.2)))
    before = {file: file.read_bytes() for file in paths.root.rglob("*.csv")}
    with cli.locked(paths, paths.training_lock(1, 1)), pytest.raises(DataError, match="in use"):
        full(options(path, "--holdout", "0.2", "--seed", "1"))
    assert {file: file.read_bytes() for file in paths.root.rglob("*.csv")} == before
