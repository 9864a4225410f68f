"""What the notebook runs: each lack of its inputs is named in a sentence; an earlier output is taken over."""

from contextlib import nullcontext
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from core.errors import DataError
from core.files import write_atomically
from core.paths import Paths
from submissions.kaggle import offline
from submissions.kaggle.offline import find_table, in_order_of_sample, moved_tables, train
from submissions.kaggle.paths import Bundle
from submissions.manifest import LeftOut
from tests.submissions.kaggle.conftest import SLUG

PACK = "datasets/me/mixed-pack"


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        ([], rf"one test\.csv of the competition {SLUG} below .*; got none\. Attach"),
        (["datasets/you/a", "datasets/you/b"], r"got .*a/test\.csv, .*b/test\.csv\. Attach"),
        (["datasets/you/a", f"{SLUG}/data"], f"{SLUG}/data"),
        (["datasets/you/a"], "datasets/you/a"),
    ],
)
def test_the_test_table_is_that_of_the_competition_wherever_it_is_mounted(tmp_path, folders, found):
    for folder in (f"{PACK}/work", *folders):  # in a bundle: none of the competition's
        write_atomically(tmp_path / folder / "test.csv", "id\n")
    write_atomically(Bundle(tmp_path / PACK).manifest, "")
    if found in folders:
        assert find_table("test.csv", SLUG, tmp_path) == tmp_path / found / "test.csv"
    else:
        with pytest.raises(DataError, match=found):
            find_table("test.csv", SLUG, tmp_path)


def test_tables_that_are_mounted_elsewhere_than_in_the_yaml_are_found(tmp_path):
    tables = {"train": "data/train.csv", "test": "/kaggle/input/competitions/tides/test.csv"}
    yaml_file = tmp_path / PACK / "mixed.yaml"
    write_atomically(
        yaml_file, yaml.safe_dump({"competition": {**tables, "sample_submission": "s.csv", "kaggle": SLUG}})
    )
    for name in (f"{PACK}/data/train.csv", f"{PACK}/s.csv", f"{SLUG}/test.csv"):
        write_atomically(tmp_path / name, "id\n")
    assert moved_tables(yaml_file, tmp_path) == [f"--set=competition.test={tmp_path / SLUG / 'test.csv'}"]


@pytest.mark.parametrize(
    ("status", "files", "copied", "message"),
    [
        (0, ["final"], "final", ""),
        (3, ["final"], "final", "status 3. Left out:\n\n| stage | seed | reason "),
        (130, ["final", "so_far"], "so_far", "130; this is the submission of the stages finished by then"),
        (1, [], "", ""),
    ],
)
def test_the_submission_that_exists_is_copied_whatever_the_status_of_the_training(
    tmp_path, monkeypatch, capsys,
    status, files, copied, message,
):  # fmt: skip
    paths, written = Paths("mixed"), tmp_path / "submission.csv"
    places = {"final": paths.submission, "so_far": paths.run("so_far") / "submission.csv"}
    for name in files:
        write_atomically(places[name], name)
    left_out = [LeftOut("gnn", 0, "timeout", "no end after 60 s")]
    monkeypatch.setattr(offline, "latest_run", lambda name: SimpleNamespace(left_out=left_out))
    monkeypatch.setattr(offline, "run", lambda *given: status)
    monkeypatch.setattr(offline, "moved_tables", lambda *given: [])
    with nullcontext() if copied else pytest.raises(SystemExit):
        train(Bundle(tmp_path / "pack"), "mixed", tmp_path, written, [])
    assert (written.read_text() if written.exists() else "") == copied
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sample", "expected"), [("", "abc"), ("y,id 0,c 0,a 0,b", "cab"), ("id,y b,0 a,0", "abc")]
)
def test_rows_have_the_order_of_the_sample_only_if_it_names_the_same_rows(tmp_path, capsys, sample, expected):
    table, file = pd.DataFrame({"y": [0.0, 1.0, 2.0], "id": list("abc")}), tmp_path / "sample.csv"
    if sample:
        file.write_text(sample.replace(" ", "\n") + "\n")
    reordered = in_order_of_sample(file, table, "id")
    assert "".join(reordered["id"]) == expected
    assert reordered.set_index("id")["y"].to_dict() == {"a": 0.0, "b": 1.0, "c": 2.0}
    warning = "has 2 ids, of which 2 are in the test table, which has 3"
    assert (warning in capsys.readouterr().out) == (sample == "id,y b,0 a,0")
    assert list(reordered) == ["y", "id"]
