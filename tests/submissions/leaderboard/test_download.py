"""`./run.sh new NAME --kaggle SLUG`: the files come through the real client, once, and nothing leaves their
folder.
"""

from pathlib import Path

import pytest
import yaml

from core import paths
from core.errors import ConfigError, DataError
from pipeline import commands
from submissions.config import load_config
from submissions.leaderboard.client import download, find_tables, slug_of
from tests.kaggle_server import KaggleServer, archive
from tests.submissions.made_up import smiles, write


@pytest.fixture
def tables(server: KaggleServer, tmp_path: Path) -> dict[str, bytes]:
    """The three tables and notes that only look like an archive, which are the files of the competition
    `tides`.
    """
    write(tmp_path / "source", s=smiles(80))
    read = {name: (tmp_path / "source" / f"{name}.csv").read_bytes() for name in ("train", "test", "sample")}
    read["notes"] = b"no archive"
    server.competitions["tides"]["files"] = {
        "train.csv": read["train"],
        "data/Test.csv": read["test"],
        "sampleSubmission.csv.zip": archive(
            {"sampleSubmission.csv": read["sample"], "__MACOSX/._train.csv": b""}
        ),
        "notes.zip": read["notes"],
    }
    return read


def test_new_downloads_once_finds_the_tables_and_writes_the_slug(
    server: KaggleServer, tables: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    commands.main(["new", str(path), "--kaggle", "https://www.kaggle.com/competitions/tides/data"])
    written = yaml.safe_load(path.read_text())["competition"]
    folder = paths.kaggle_files("tides")
    assert written["kaggle"] == "tides"
    assert path.parent / written["train"] == folder / "train.csv"
    assert (
        path.parent / written["sample_submission"]
        == folder / "sampleSubmission.csv.zip" / "sampleSubmission.csv"
    )
    assert load_config(str(path)).competition.test.read_bytes() == tables["test"]
    assert [file.name for file in folder.parent.iterdir()] == ["tides"]
    assert (folder / "notes.zip").read_bytes() == tables["notes"]
    download("tides")
    assert len(server.calls("/storage/")) == 1  # what is there is not downloaded again


def test_names_that_do_not_tell_the_tables_are_listed_and_may_be_named(tmp_path: Path) -> None:
    for name in ("train_values.csv", "train_labels.csv", "test.csv", "old/test.csv", "submission_format.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("id\n")
    with pytest.raises(
        DataError, match=r"--train \(none fits\), --test \(several fit\) with one of: old/test\.csv, "
    ):
        find_tables(tmp_path, train=None, test=None, sample=None)
    mine = tmp_path.parent / "mine.csv"
    assert find_tables(tmp_path, train=mine, test=Path("old/test.csv"), sample=None) == {
        "train": mine, "test": tmp_path / "old" / "test.csv", "sample": tmp_path / "submission_format.csv"
    }  # fmt: skip


def test_a_slug_is_read_from_what_a_browser_shows() -> None:
    for text in (
        "high-tides",
        "c/high-tides#prizes",
        "https://www.kaggle.com/competitions/high-tides/data?select=a",
    ):
        assert slug_of(text) == "high-tides"
    for text in ("Tides", "https://example.com/tides", "../tides"):
        with pytest.raises(ConfigError, match="takes the end of the address"):
            slug_of(text)
