"""What the notebook runs: each lack of its inputs is named in a sentence; an earlier output is taken over."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from core.errors import DataError
from core.files import write_atomically, write_table
from core.paths import Bundle, Paths
from submissions.kernel import offline
from submissions.kernel.offline import find_table, in_order_of, train
from submissions.run import LeftOut
from tests.submissions.kernel.conftest import SLUG


def test_the_test_table_is_that_of_the_competition_wherever_it_is_mounted(tmp_path: Path) -> None:
    def mount(*folders: str) -> None:
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / "test.csv").touch()

    mount("datasets/me/mixed-pack/work")  # in a bundle: none of the competition's
    Bundle(tmp_path / "datasets/me/mixed-pack").manifest.touch()
    with pytest.raises(
        DataError, match=rf"one test\.csv of the competition {SLUG} below .*; got none\. Attach"
    ):
        find_table("test.csv", SLUG, tmp_path)
    mount("datasets/you/other", "datasets/you/another")
    with pytest.raises(DataError, match=r"got .*another/test\.csv, .*other/test\.csv\. Attach"):
        find_table("test.csv", SLUG, tmp_path)
    mount(f"{SLUG}/data")
    assert find_table("test.csv", SLUG, tmp_path) == tmp_path / SLUG / "data" / "test.csv"


@pytest.mark.parametrize("earlier", ["notebooks/me/first/work/mixed", "datasets/me/mixed-pack/work/mixed"])
def test_an_earlier_output_is_taken_over_but_not_what_a_bundle_predicts_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: str
) -> None:
    bundle, ran = Bundle(tmp_path / "datasets/me/mixed-pack"), []
    for folder in (bundle.root, tmp_path / earlier / "models"):
        folder.mkdir(parents=True, exist_ok=True)
    bundle.manifest.touch()
    write_atomically(Paths("mixed").submission, "id\n")
    monkeypatch.setattr(offline, "run", lambda bundle, work, *arguments: ran.append([work, *arguments]))
    train(bundle, "mixed", tmp_path, tmp_path / "submission.csv", ["--budget", "8h"])
    taken_over = ["--from", str(tmp_path)] if earlier.startswith("notebooks") else []
    assert ran == [[tmp_path / "work", "full", "mixed.yaml", "--budget", "8h", *taken_over]]
    assert (tmp_path / "submission.csv").read_text() == "id\n"


@pytest.mark.parametrize(
    ("status", "files", "copied", "message"),
    [
        (0, ["final"], "final", ""),
        (3, ["final"], "final", "status 3. Left out:\n\n| stage | seed | reason "),
        (
            130,
            ["final", "so_far"],
            "so_far",
            "status 130; this is the submission of the stages finished by then",
        ),
        (1, [], "", ""),
    ],
)
def test_the_submission_that_exists_is_copied_whatever_the_status_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    status: int, files: list[str], copied: str, message: str,
) -> None:  # fmt: skip
    paths, written = Paths("mixed"), tmp_path / "submission.csv"
    places = {"final": paths.submission, "so_far": paths.run("so_far") / "submission.csv"}
    for name in files:
        write_atomically(places[name], name)
    left_out = [LeftOut("gnn", 0, "timeout", "no end after 60 s")]
    monkeypatch.setattr(offline, "latest_run", lambda name: SimpleNamespace(left_out=left_out))
    monkeypatch.setattr(offline, "run", lambda *given: status)
    with nullcontext() if copied else pytest.raises(SystemExit):
        train(Bundle(tmp_path / "pack"), "mixed", tmp_path, written, [])
    assert (written.read_text() if written.exists() else "") == copied
    assert message in capsys.readouterr().out


def test_rows_have_the_order_of_the_sample_only_if_it_names_the_same_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, sample = pd.DataFrame({"id": ["a", "b", "c"], "y": np.arange(3.0)}), tmp_path / "sample.csv"
    for order, expected in (([], ["a", "b", "c"]), ([2, 0, 1], ["c", "a", "b"]), ([1, 0], ["a", "b", "c"])):
        if order:
            write_table(sample, table.iloc[order])
        reordered = in_order_of(sample, table, "id")
        assert list(reordered["id"]) == expected
        assert dict(reordered.to_numpy()) == {"a": 0.0, "b": 1.0, "c": 2.0}
    assert "has 2 ids, of which 2 are in the test table, which has 3" in capsys.readouterr().out
    id_last = table[["y", "id"]]
    write_table(sample, id_last.iloc[::-1])
    assert list(in_order_of(sample, id_last, "id")) == ["y", "id"]
