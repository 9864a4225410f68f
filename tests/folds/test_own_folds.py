"""Folds of the user's own, from a column or a file, and blocks in time: what is taken, refused, and trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from competition import prepare
from competition.config import load_competition
from competition.errors import ConfigError, DataError
from competition.files import read_json, read_text_table
from competition.paths import Paths
from competition.tables import read_rows
from folds import make
from folds.table import read_folds, read_groups, time_ordered
from models.jobs.plan import plan
from models.jobs.work import training_rows
from submissions.config import load_config
from tests.competition.small import write_small

MOLECULES = ["CCO", "CCC", "CCN", "c1ccccc1", "CC(=O)O", "CCCl"]
IDS = list("abcdef")


def write(
    folder: Path, kind: str, cells: list[str] | None = None, smiles: list[str] | None = None, **folds: Any
) -> Path:
    """Six rows with a cell each of a column `own`, which is the time and the fold column alike."""
    cells = cells or list("001122")
    lines = [f"{i},{s},{n},{c}" for n, (i, s, c) in enumerate(zip(IDS, smiles or MOLECULES, cells, strict=True))]
    role = {"time": "own"} if kind == "time" else {"fold_column": "own"}
    path = write_small(folder, ["id,SMILES,y,own", *lines], **role)
    document = yaml.safe_load(path.read_text())
    document["folds"] = {"kind": kind, **folds}
    path.write_text(yaml.safe_dump(document))
    return path


def made(path: Path) -> tuple[str, Paths, list[int]]:
    """Prepare and divide: what was said, the paths, the fold of each row."""
    config, paths = load_competition(str(path)), Paths.of(str(path))
    prepare.run(config, paths, path)
    said = make.run(config, make.load_folds_config(str(path)), paths)
    return said, paths, read_folds(paths.folds, IDS).tolist()


def test_a_column_of_the_users_own_is_taken_as_it_is(tmp_path: Path) -> None:
    _, paths, folds = made(write(tmp_path, "column", ["2", "0", "1", "0", "-1", "2"]))
    assert folds == [2, 0, 1, 0, -1, 2]
    assert read_json(paths.folds_report)["sizes"] == [2, 1, 2]


def test_a_file_of_the_users_own_is_joined_on_the_id_and_read_again_when_it_changes(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("fold,id\n0,f\n1,e\n1,d\n0,c\n2,b\n2,a\n")
    path = write(tmp_path, "file", file="mine.csv")
    assert made(path)[2] == [2, 2, 0, 1, 1, 0]
    (tmp_path / "mine.csv").write_text("id,fold\n" + "".join(f"{i},{n % 2}\n" for n, i in enumerate(IDS)))
    assert made(path)[2] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("id,fold\na,0\nb,1\nc,0\nd,1\ne,0\nx,1\n", r"1 are no training rows \('x'\); 1 lack in it \('f'\)"),
        ("id,fold\na,0\na,1\nb,1\nc,0\nd,1\ne,0\nf,1\n", r"1 stand in it more than once \('a'\)"),
        ("id,fold\na,0\nb,\nc,0\nd,1\ne,0\nf,1\n", r"column 'fold' has folds that are .* row 3 \(id 'b'\)"),
        ("id,part\na,0\n", "lacking: fold"),
        ("id,fold\na,0\nb,2\nc,0\nd,2\ne,0\nf,2\n", r"folds 0 to n-1.* found \[0, 2\]"),
        ("id,fold\na,0\nb,0\nc,0\nd,0\ne,0\nf,-1\n", r"found \[0\]"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, lines: str, words: str) -> None:
    (tmp_path / "mine.csv").write_text(lines)
    with pytest.raises(DataError, match=words):
        made(write(tmp_path, "file", file="mine.csv"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*absent\.csv"):
        made(write(tmp_path, "file", file="absent.csv"))


def test_the_kind_file_and_its_setting_come_together(tmp_path: Path) -> None:
    for folds in ({"kind": "file"}, {"kind": "kfold", "file": "mine.csv"}):
        path = write(tmp_path, **folds)
        with pytest.raises(ConfigError, match="kind: file and the setting file must be given together"):
            make.load_folds_config(str(path))


def test_own_folds_that_split_equal_inputs_are_refused_or_counted_and_said(tmp_path: Path) -> None:
    twins = ["CCO", "OCC", *MOLECULES[2:]]  # a and b
    cells = list("011201")
    with pytest.raises(DataError, match=r"1 inputs stand in several \(the first: 'a' in 0, 'b' in 1\)"):
        made(write(tmp_path, "column", cells, twins))
    said, paths, folds = made(write(tmp_path, "column", cells, twins, equal_inputs_may_cross=True))
    assert folds == [0, 1, 1, 2, 0, 1]
    assert "1 inputs stand in several folds" in said
    assert read_json(paths.folds_report)["inputs_in_several_folds"] == 1
    units = read_groups(paths.groups, IDS)
    assert units[0] == units[1]
    assert len(set(units)) == 5


def test_units_are_written_beside_the_folds_and_must_fit_the_ids(tmp_path: Path) -> None:
    _, paths, _ = made(write(tmp_path, "column"))
    assert read_text_table(paths.groups).columns.tolist() == ["id", "group"]
    with pytest.raises(DataError, match=r"groups\.csv must name every training id once"):
        read_groups(paths.groups, IDS[:-1])


def test_a_job_of_time_ordered_folds_trains_on_earlier_blocks_alone(tmp_path: Path) -> None:
    dates = ["2021-03-01", "2020-01-01", "2023-01-01", "2022-05-05", "2020-06-01", "2024-01-01"]
    path = write(tmp_path, "time", dates, n_folds=2)
    _, paths, folds = made(path)
    assert folds == [0, -1, 1, 0, -1, 1]
    assert time_ordered(paths.folds_report)
    rows = read_rows(paths.train, load_competition(str(path)), labelled=True)
    for fold in (0, 1):
        trains = training_rows(rows, np.array(folds), fold, "train", time_ordered(paths.folds_report))
        first_held_out = min(date for date, of_row in zip(dates, folds, strict=True) if of_row == fold)
        assert trains.any()
        assert all(date < first_held_out for date, used in zip(dates, trains, strict=True) if used)


def test_jobs_of_equal_folds_have_other_keys_where_time_orders_them(tmp_path: Path) -> None:
    keys = []
    for kind in ("time", "column"):
        path = write(tmp_path, kind, ["-1", "-1", "0", "0", "1", "1"], **({"n_folds": 2} if kind == "time" else {}))
        config, paths = load_config(str(path)), made(path)[1]
        keys.append(plan(config.competition, dict(config.stages), paths).keys["trees"])
        if kind == "time":
            by_time = paths.folds.read_bytes()
    assert paths.folds.read_bytes() == by_time
    assert keys[0] != keys[1]
