"""`./run.sh full --holdout`: rows that nothing but the final scoring sees."""

from __future__ import annotations

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
from tests.conftest import mixed_tables, write_competition


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


def test_the_share_is_kept_also_where_it_is_not_one_over_a_number(tmp_path: Path) -> None:
    _, tables = made(tmp_path, 0.3)
    assert len(tables["test"]) == 18


def test_equal_inputs_and_groups_are_kept_out_together(tmp_path: Path) -> None:
    train, test = mixed_tables()
    train["plate"] = np.arange(len(train)) // 6
    path = write_competition(
        tmp_path, train, test, folds={"kind": "group", "n_folds": 3}, competition={"group": "plate"}
    )
    hold_out(str(path), 0.2)
    raw = Paths.of(str(holdout_yaml(str(path), 0.2))).raw
    left, kept_out = (set(read_text_table(raw / name)["id"]) for name in ("train.csv", "test.csv"))
    plate_of = dict(zip(train["id"], train["plate"], strict=True))
    assert not {plate_of[i] for i in left} & {plate_of[i] for i in kept_out}


def test_few_groups_are_divided_into_as_many_parts_as_there_are(tmp_path: Path) -> None:
    train, test = mixed_tables()
    train["plate"] = np.arange(len(train)) // 10
    path = write_competition(
        tmp_path, train, test, folds={"kind": "group", "n_folds": 3}, competition={"group": "plate"}
    )
    assert "10 of 60 training rows (17%) are kept out" in hold_out(str(path), 0.15)


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
    with pytest.raises(ConfigError, match=r"--holdout must be a share from 0\.05 to 0\.5 of the training rows; found"):
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
    with pytest.raises(ConfigError, match=r"--holdout needs stages that can be trained without the rows.*theirs"):
        hold_out(str(path), 0.2)


def test_the_finished_submission_is_scored_on_the_rows_kept_out(tmp_path: Path) -> None:
    train, test = mixed_tables()
    path = write_competition(tmp_path, train, test)
    done = subprocess.run(
        [PROJECT / "run.sh", "full", str(path), "--holdout", "0.2", "--workers", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    paths = Paths.of(str(holdout_yaml(str(path), 0.2)))
    submission = read_table(paths.run(paths.latest_run.read_text().strip()) / "submission.csv", ["id"]).set_index("id")
    kept_out = train.set_index("id").loc[submission.index]
    assert len(kept_out) == 12
    expected = METRICS["rmse"](kept_out[["lumo", "mu"]].to_numpy(), submission[["lumo", "mu"]].to_numpy())
    page = done.stdout.split("holdout_score")[-1]
    assert f"| submission.csv | {expected:#.5g} " in page
    assert not Paths.of(str(path)).root.exists()  # the competition itself is not touched
