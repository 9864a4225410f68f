"""folds.csv: made once, kept while nothing changes, and refused when it does not fit."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from competition import prepare
from competition.errors import ConfigError, DataError
from competition.files import read_json, read_text_table
from competition.paths import Paths
from folds import make
from folds.table import read_folds
from tests.competition.small import TRAIN, write_small


def run(path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Paths:
    monkeypatch.setattr(sys, "argv", ["command", str(path), *options])
    prepare.main()
    make.main()
    return Paths.of(str(path))


def settings(path: Path, old: str, new: str) -> Path:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return path


def test_the_table_names_every_training_id_once_and_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = run(write_small(tmp_path), monkeypatch)
    table = read_text_table(paths.folds)
    assert table.columns.tolist() == ["id", "fold"]
    assert table["id"].tolist() == list("abcdef")
    assert sorted(table["fold"]) == ["0", "0", "1", "1", "2", "2"]
    assert read_json(paths.folds_report)["sizes"] == [2, 2, 2]
    assert "mean y" in capsys.readouterr().out


def test_folds_are_kept_while_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_small(tmp_path)
    folds = run(path, monkeypatch).folds
    folds.write_text("id,fold\n" + "".join(f"{i},{k}\n" for i, k in zip("abcdef", [-1, 0, 0, 1, 1, 2], strict=True)))
    by_hand = folds.read_bytes()
    run(path, monkeypatch)
    assert folds.read_bytes() == by_hand


@pytest.mark.parametrize("change", ["n_folds", "seed", "rows"])
def test_folds_are_made_again_when_settings_seed_or_rows_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = write_small(tmp_path)
    before = read_json(run(path, monkeypatch).folds_report)
    if change == "n_folds":
        settings(path, "n_folds: 3", "n_folds: 2")
    if change == "rows":
        write_small(tmp_path, [*TRAIN, "g,CCCCCC,7.0"])
    paths = run(path, monkeypatch, *(["--seed", "5"] if change == "seed" else []))
    after = read_json(paths.folds_report)
    assert after["made_from"] != before["made_from"]
    assert after["sizes"] == {"n_folds": [3, 3], "seed": [2, 2, 2], "rows": [3, 2, 2]}[change]
    assert len(read_text_table(paths.folds)) == sum(after["sizes"])


def test_an_interrupted_run_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_small(tmp_path)
    paths = run(path, monkeypatch)
    whole = paths.folds.read_bytes()
    paths.folds_report.unlink()
    paths.folds.write_text("id,fold\n")
    run(path, monkeypatch)
    assert paths.folds.read_bytes() == whole


def test_duplicates_are_counted_and_share_a_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = run(write_small(tmp_path, [*TRAIN, "g,OCC,7.0"]), monkeypatch)
    fold = dict(read_text_table(paths.folds).itertuples(index=False))
    assert fold["a"] == fold["g"]
    assert read_json(paths.prepare_report)["duplicates_in_train"] == 1


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    path = settings(write_small(tmp_path), "n_folds: 3", "folds: 3")
    with pytest.raises(ConfigError, match=r"folds\.folds: this key is not known"):
        make.load_folds_config(str(path))


def test_folds_need_the_prepared_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["make", str(write_small(tmp_path))])
    with pytest.raises(DataError, match=r"prepared/train\.parquet is not there"):
        make.main()


def test_folds_are_read_in_the_order_of_the_ids_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    path.write_text("id,fold\na,0\n007,1\nc,-1\n")
    np.testing.assert_array_equal(read_folds(path, ["c", "007", "a"]), [-1, 1, 0])


@pytest.mark.parametrize(
    "content",
    [
        "id,fold\na,0\n",
        "id,fold\na,0\nb,1\nc,1\n",
        "id,fold\na,0\na,1\n",
        "id,part\na,0\nb,1\n",
        "id,fold\na,0\nb,2\n",
        "id,fold\na,0\nb,0\n",
        "id,fold\na,0\nb,-2\n",
        "id,fold\na,0\nb,one\n",
        "id,fold\na,0\nb,\n",
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=r"folds\.csv must"):
        read_folds(path, ["a", "b"])
