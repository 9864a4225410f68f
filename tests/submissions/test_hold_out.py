"""`./run.sh full --holdout`: rows that nothing but the final scoring sees."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from competition.command import parser
from competition.config import load_yaml
from competition.errors import ConfigError
from competition.files import read_table, read_text_table
from competition.metrics import METRICS
from competition.paths import PROJECT, Paths, holdout_yaml
from submissions.config import load_config
from submissions.hold_out import hold_out
from submissions.report.__main__ import report
from tests.conftest import mixed_tables, write_competition
from tests.submissions.fakes import TARGETS, fake_competition, prepare_and_fake_jobs, run_steps


def made(folder: Path, share: float = 0.2, **sections: object) -> tuple[Path, dict[str, pd.DataFrame]]:
    """The YAML of a competition with rows kept out, and its raw tables."""
    train, test = mixed_tables()
    path = write_competition(folder, train, test, **sections)
    hold_out(str(path), share)
    raw = Paths.of(str(holdout_yaml(str(path), share))).raw
    tables = {name: read_text_table(raw / f"{name}.csv") for name in ("train", "test", "sample_submission", "answers")}
    return path, tables


def test_rows_kept_out_are_the_test_table_and_nowhere_else(tmp_path: Path) -> None:
    path, tables = made(tmp_path)
    whole = read_text_table(tmp_path / "train.csv")
    kept_out = list(tables["test"]["id"])
    assert len(kept_out) == 12
    assert sorted([*tables["train"]["id"], *kept_out]) == sorted(whole["id"])
    assert list(tables["answers"]["id"]) == list(tables["sample_submission"]["id"]) == kept_out
    assert not {"lumo", "mu"} & set(tables["test"].columns)
    labels = whole.set_index("id").loc[kept_out, ["lumo", "mu"]]
    assert (tables["answers"].set_index("id")[["lumo", "mu"]] == labels).all(axis=None)
    config = load_config(str(holdout_yaml(str(path), 0.2)))
    assert config.competition.holdout_of == "mixed"
    assert {name: stage.model_dump() for name, stage in config.stages.items()} == {
        name: stage.model_dump() for name, stage in load_config(str(path)).stages.items()
    }


@pytest.mark.parametrize("kind", ["kfold", "time"])
@pytest.mark.parametrize(("share", "n"), [(0.05, 3), (0.2, 12), (0.3, 18), (0.5, 30)])
def test_the_share_is_kept(tmp_path: Path, kind: str, share: float, n: int) -> None:
    train, test = mixed_tables()
    train["day"] = np.arange(len(train))
    path = write_competition(tmp_path, train, test, folds={"kind": kind}, competition={"time": "day"})
    assert f"{n} of 60 training rows" in hold_out(str(path), share)
    if kind == "time":
        kept_out = read_text_table(Paths.of(str(holdout_yaml(str(path), share))).raw / "test.csv")
        assert set(kept_out["id"]) == set(train["id"][-n:])  # the latest


@pytest.mark.parametrize(("rows_per_group", "share", "n"), [(6, 0.2, 12), (10, 0.15, 10)])
def test_groups_are_kept_out_whole_also_where_they_are_few(
    tmp_path: Path, rows_per_group: int, share: float, n: int
) -> None:
    train, test = mixed_tables()
    train["plate"] = np.arange(len(train)) // rows_per_group
    folds = {"kind": "group", "n_folds": 3}
    path = write_competition(tmp_path, train, test, folds=folds, competition={"group": "plate"})
    assert f"{n} of 60 training rows" in hold_out(str(path), share)
    raw = Paths.of(str(holdout_yaml(str(path), share))).raw
    left, kept_out = (set(read_text_table(raw / name)["id"]) for name in ("train.csv", "test.csv"))
    plate_of = dict(zip(train["id"], train["plate"], strict=True))
    assert len(kept_out) == n
    assert not {plate_of[i] for i in left} & {plate_of[i] for i in kept_out}


def test_the_last_of_the_users_own_folds_are_kept_out(tmp_path: Path) -> None:
    train, test = mixed_tables()
    folds = pd.DataFrame({"id": train["id"], "fold": np.arange(len(train)) % 5})
    folds.to_csv(tmp_path / "theirs.csv", index=False)
    path, tables = made(tmp_path, 0.4, folds={"kind": "file", "file": "theirs.csv"})
    assert set(tables["test"]["id"]) == set(folds["id"][folds["fold"] >= 3])
    raw = Paths.of(str(holdout_yaml(str(path), 0.4))).raw
    assert set(read_text_table(raw / "folds.csv")["fold"]) == {"0", "1", "2"}


def test_another_seed_keeps_out_other_rows_and_the_same_seed_the_same(tmp_path: Path) -> None:
    path, tables = made(tmp_path)
    raw = Paths.of(str(holdout_yaml(str(path), 0.2))).raw
    hold_out(str(path), 0.2)
    assert list(read_text_table(raw / "test.csv")["id"]) == list(tables["test"]["id"])
    hold_out(str(path), 0.2, seed=1)
    assert list(read_text_table(raw / "test.csv")["id"]) != list(tables["test"]["id"])


def test_files_that_the_yaml_names_are_found_from_the_new_yaml(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def score(y_true, y_pred):\n    return float(abs(y_true - y_pred).max())\n")
    path, _ = made(tmp_path, competition={"metric": "own.py:score", "greater_is_better": False})
    written = load_yaml(holdout_yaml(str(path), 0.2))["competition"]
    assert written["metric"] == f"{tmp_path / 'own.py'}:score"


@pytest.mark.parametrize("share", ["0", "0.6", "none", "-0.2"])
def test_a_share_that_is_none_is_refused(share: str) -> None:
    with pytest.raises(ConfigError, match=r"--holdout takes a share of the training rows from 0\.05 to 0\.5; found"):
        parser("").parse_args(["mixed", f"--holdout={share}"])


def test_with_holdout_a_command_is_about_the_competition_without_the_rows() -> None:
    args = parser("").parse_args(["qm9_orbitals", "--holdout", "0.25"])
    assert Paths.of(args.competition).name == "qm9_orbitals_holdout25"
    assert args.held_out_of == "qm9_orbitals"
    assert parser("").parse_args(["qm9_orbitals"]).competition == "qm9_orbitals"


def test_predictions_made_elsewhere_cannot_be_without_the_rows(tmp_path: Path) -> None:
    train, test = mixed_tables()
    path = write_competition(tmp_path, train, test)
    document = yaml.safe_load(path.read_text())
    document["stages"]["theirs"] = {"kind": "file", "folder": "theirs"}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=r"--holdout trains every stage without the rows.*theirs"):
        hold_out(str(path), 0.2)


def test_the_finished_submission_is_scored_on_the_rows_kept_out(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    hold_out(str(path), 0.2)
    yaml_file = holdout_yaml(str(path), 0.2)
    shutil.copy(Paths.of(str(yaml_file)).raw / "answers.csv", yaml_file.parent)  # of which the jobs are made up
    prepare_and_fake_jobs(yaml_file)
    run = run_steps(yaml_file)
    submission = read_table(run.folder / "submission.csv", ["id"]).set_index("id")
    kept_out = read_table(tmp_path / "train.csv", ["id"]).set_index("id").loc[submission.index]
    assert len(kept_out) == 30
    expected = METRICS["rmse"](kept_out[TARGETS].to_numpy(), submission[TARGETS].to_numpy())
    assert f"| submission.csv | {expected:#.5g} " in report(run).split("holdout_score")[-1]


@pytest.mark.slow
def test_full_with_holdout_ends_with_its_score_and_leaves_the_competition_alone(tmp_path: Path) -> None:
    path = write_competition(tmp_path, *mixed_tables())
    done = subprocess.run(
        [PROJECT / "run.sh", "full", str(path), "--holdout", "0.2", "--workers", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| submission.csv |" in done.stdout.split("holdout_score")[-1]
    assert not Paths.of(str(path)).root.exists()
