"""`./run.sh new NAME --kaggle SLUG`: the files come through the real client, once, and nothing leaves their
folder.
"""

from pathlib import Path

import pytest

from core.errors import ConfigError, DataError
from core.files import write_atomically
from pipeline import commands
from submissions.config import load_config
from submissions.kaggle.client import download, find_tables, slug_of
from submissions.kaggle.paths import kaggle_files
from tests.kaggle_server import archive
from tests.submissions.made_up import files_in, smiles, write


def test_new_downloads_once_finds_the_tables_and_writes_the_slug(server, tmp_path):
    """Among the files is one that only looks like an archive."""
    write(tmp_path / "source", s=smiles(80))
    train, test, sample = (file.read_bytes() for file in files_in(tmp_path / "source"))
    server.competitions["tides"]["files"] = {
        "train.csv": train,
        "data/Test.csv": test,
        "sampleSubmission.csv.zip": archive({"sampleSubmission.csv": sample, "__MACOSX/._train.csv": b""}),
        "notes.zip": b"no archive",
    }
    path = tmp_path / "mine.yaml"
    commands.main(["new", str(path), "--kaggle", "https://www.kaggle.com/competitions/tides/data"])
    written = load_config(str(path)).competition
    folder = kaggle_files("tides")
    assert (written.kaggle, written.train) == ("tides", folder / "train.csv")
    assert written.sample_submission == folder / "sampleSubmission.csv.zip" / "sampleSubmission.csv"
    assert written.test.read_bytes() == test
    assert [file.name for file in folder.parent.iterdir()] == ["tides"]
    assert (folder / "notes.zip").read_bytes() == b"no archive"
    download("tides")
    assert len(server.calls("/storage/")) == 1  # what is there is not downloaded again


def test_names_that_do_not_tell_the_tables_are_listed_and_may_be_named(tmp_path, capsys):
    names = ["train_values.csv", "train_labels.csv", "test.csv", "old/test.csv", "submission_format.csv"]
    for name in names:
        write_atomically(tmp_path / name, "id\n")
    unclear = r"--train \(none fits\), --test \(several fit\) with one of: old/test\.csv, "
    with pytest.raises(DataError, match=unclear):
        find_tables(tmp_path, train=None, test=None, sample=None)
    mine = tmp_path.parent / "mine.csv"
    found = find_tables(tmp_path, train=mine, test=Path("old/test.csv"), sample=None)
    assert found == {"train": mine, "test": tmp_path / names[3], "sample": tmp_path / names[4]}
    assert (
        "not read: test.csv, train_labels.csv, train_values.csv; extra_train reads" in capsys.readouterr().out
    )


def test_a_slug_is_read_from_what_a_browser_shows():
    address = "https://www.kaggle.com/competitions/high-tides/data?select=a"
    assert {*map(slug_of, ("high-tides", "c/high-tides#prizes", address))} == {"high-tides"}
    for text in ("Tides", "https://example.com/tides", "../tides"):
        with pytest.raises(ConfigError, match="takes a competition's slug"):
            slug_of(text)
