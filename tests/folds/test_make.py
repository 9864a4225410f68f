"""folds.csv: made once, kept while nothing changes; folds of the user's own and blocks in time: taken and
refused.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.config import load_competition
from competition.dataset import GROUP, read_rows
from core.errors import DataError
from core.files import read_table, read_text_table, write_table
from folds import make
from folds.make import read_folds
from models.jobs.compute import training_rows
from models.jobs.plan import make_plan
from submissions.config import load_config
from tests.competition.small import TRAIN, write_small
from tests.folds.made import divided

MOLECULES = ["CCO", "CCC", "CCN", "c1ccccc1", "CC(=O)O", "CCCl"]
IDS = list("abcdef")


def user_folds(
    folder: Path, kind: str, cells: str | list[str] = "001122", twins: bool = False, **folds: Any
) -> Path:
    """Six rows with a cell each of a column `own`, which is the time and the fold column alike."""
    smiles = ["CCO", "OCC", *MOLECULES[2:]] if twins else MOLECULES
    lines = [f"{i},{s},{n},{c}" for n, (i, s, c) in enumerate(zip(IDS, smiles, cells, strict=True))]
    role = {"time" if kind == "time" else "fold_column": "own"}
    return write_small(folder, ["id,SMILES,y,own", *lines], folds={"kind": kind, **folds}, **role)


def test_the_table_names_every_training_id_once_and_is_described(tmp_path: Path) -> None:
    output, paths, folds = divided(write_small(tmp_path, [*TRAIN, "g,OCC,8.0"]))
    assert read_text_table(paths.folds).columns.tolist() == ["id", "fold"]
    assert sorted(np.bincount(folds)) == [2, 2, 3]
    assert folds[0] == folds[6]  # a and g are one molecule
    groups = read_table(paths.train)[GROUP].to_numpy()
    assert (groups[0] == groups[6], len(set(groups))) == (True, 6)
    lines = [line.split() for line in output.splitlines()]
    lines = lines[lines.index(["fold", "rows", "mean", "y"]) :]
    y = np.array([1, 2, 3, 4, 5, 6, 8])
    for fold, rows, mean in lines[1:]:
        held_out = np.array(folds) == int(fold)
        assert (int(rows), float(mean)) == (held_out.sum(), pytest.approx(y[held_out].mean(), abs=1e-3))


def test_folds_are_reused_while_nothing_changes_and_rebuilt_when_settings_seed_or_rows_do(
    tmp_path: Path,
) -> None:
    path = write_small(tmp_path)
    _, paths, first = divided(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(make, "assign_folds")
        assert divided(path)[2] == first
    assert np.bincount(divided(path, n_folds=2)[2]).tolist() == [3, 3]
    three = divided(path, n_folds=3)[2]
    path.write_text(path.read_text().replace("competition:", "competition:\n  seed: 5"))
    assert divided(path)[2] != three
    assert sorted(np.bincount(divided(write_small(tmp_path, [*TRAIN, "g,CCCCCC,7.0"]))[2])) == [2, 2, 3]


def test_folds_are_read_in_the_order_of_the_given_ids(tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    path.write_text("id,fold\na,0\n007,1\nc,-1\n")
    assert read_folds(path, ["c", "007", "a"]).tolist() == [-1, 1, 0]
    with pytest.raises(DataError, match=r"1 of its ids are not training rows \('c'\)"):
        read_folds(path, ["a", "007"])


def test_user_defined_folds_are_taken_as_they_are_and_reread_when_they_change(tmp_path: Path) -> None:
    assert divided(user_folds(tmp_path, "column", ["2", "0", "1", "0", "-1", "2"]))[2] == [2, 0, 1, 0, -1, 2]
    path = user_folds(tmp_path, "file", file="mine.csv")
    (path.parent / "mine.csv").write_text("fold,id\n0,f\n1,e\n1,d\n0,c\n2,b\n2,a\n")
    assert divided(path)[2] == [2, 2, 0, 1, 1, 0]
    (path.parent / "mine.csv").write_text("id,fold\n" + "".join(f"{i},{n % 2}\n" for n, i in enumerate(IDS)))
    assert divided(path)[2] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("id,fold a,0 b,1 c,0 d,1 e,0 x,1", r"1 of its ids are .* \('x'\), and 1 rows are missing \('f'\)"),
        ("id,fold a,0 a,1 b,1 c,0 d,1 e,0 f,1", "duplicate ids: 'a'"),
        (
            "id,fold a,0 b, c,0 d,1 e,-2 f,1",
            r"folds that are .* row 3 \(id 'b'\): '', row 6 \(id 'e'\): '-2'",
        ),
        ("id,part a,0", "missing columns: fold"),
        ("id,fold a,0 b,2 c,0 d,2 e,0 f,2", r"folds 0 to n-1.* got \[0, 2\]"),
        ("id,fold a,0 b,0 c,0 d,0 e,0 f,-1", r"got \[0\]"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, lines: str, words: str) -> None:
    (tmp_path / "mine.csv").write_text(lines.replace(" ", "\n") + "\n")
    with pytest.raises(DataError, match=words):
        divided(user_folds(tmp_path, "file", file="mine.csv"))


def test_user_defined_folds_that_split_equal_inputs_are_refused_or_counted_and_reported(
    tmp_path: Path,
) -> None:
    path = user_folds(tmp_path, "column", "011201", twins=True)
    with pytest.raises(DataError, match=r"1 inputs are in several \(the first: 'a' in 0, 'b' in 1\)"):
        divided(path)
    output, paths, folds = divided(path, allow_split_duplicates=True)
    assert folds == [0, 1, 1, 2, 0, 1]
    assert "1 inputs are in several folds" in output
    groups = read_table(paths.train)[GROUP].to_numpy()
    assert (groups[0] == groups[1], len(set(groups))) == (True, 5)
    with pytest.raises(DataError, match=r"fold_column must have the folds 0 to n-1"):
        divided(user_folds(tmp_path, "column", "002222"))


def test_a_job_of_time_ordered_folds_trains_on_earlier_blocks_alone(tmp_path: Path) -> None:
    dates = ["2021-03-01", "2020-01-01", "2023-01-01", "2022-05-05", "2020-06-01", "2024-01-01"]
    path = user_folds(tmp_path, "time", dates, n_folds=2)
    _, paths, folds = divided(path)
    assert folds == [0, -1, 1, 0, -1, 1]
    rows = read_rows(paths.train, load_competition(str(path)), labelled=True)
    for fold in (0, 1):
        trains = training_rows(rows, fold, in_time_order=True)
        first_held_out = min(date for date, of_row in zip(dates, folds, strict=True) if of_row == fold)
        assert trains.any()
        assert all(date < first_held_out for date, used in zip(dates, trains, strict=True) if used)


def test_jobs_of_equal_folds_have_other_keys_where_time_orders_them(tmp_path: Path) -> None:
    keys, tables = [], []
    for kind, folds in (("time", {"n_folds": 2}), ("column", {})):
        path = user_folds(tmp_path, kind, ["-1", "-1", "0", "0", "1", "1"], **folds)
        config, paths = load_config(str(path)), divided(path)[1]
        keys.append(make_plan(config.competition, dict(config.stages)).keys["trees"])
        tables.append(paths.folds.read_bytes())
    assert tables[0] == tables[1]
    assert keys[0] != keys[1]


def test_equal_folds_with_other_groups_give_other_keys(tmp_path: Path) -> None:
    path = user_folds(tmp_path, "column", ["0", "0", "0", "1", "1", "1"])
    config, paths = load_config(str(path)), divided(path)[1]
    keys = []
    for groups in ([0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2]):
        write_table(paths.train, read_table(paths.train).assign(**{GROUP: groups}))
        keys.append(make_plan(config.competition, dict(config.stages)).keys["trees"])
    assert keys[0] != keys[1]
