"""The ledger: a row per submission."""

from pathlib import Path

import pytest

from core.errors import ConfigError
from submissions.leaderboard.ledger import find_submission, read, write
from tests.submissions.leaderboard.conftest import one


def test_a_submission_comes_back_as_it_went_in_and_is_replaced_by_its_id(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.csv"
    assert read(path) == []
    first = one("e12345", message="two\nlines", status="submitting")
    full = one(
        "fedcba", 2, status="scored", run="cda943de32b5", chosen="shrunk_ridge", public=0.0,
        cross_fitted_score=0.1 + 0.2, standard_error=-0.5, private=123456789.125, message='a "quoted", é',
        file="submission, 2.csv", file_digest="ab" * 32, revision="0a1b-dirty", ref="ref,1",
    )  # fmt: skip
    write(path, first)
    write(path, full)
    assert read(path) == [first, full]
    write(path, first.with_changes(status="failed"))
    assert [each.status for each in read(path)] == ["failed", "scored"]
    mine = path.read_text().replace("submission,", "mine,submission,", 1).replace("\ne12345", "\n,e12345")
    mine = mine.replace("\nfedcba", "\n7,fedcba").replace(
        "\n", "\r\n"
    )  # saved by a spreadsheet, with one more column
    path.write_bytes(b"\xef\xbb\xbf" + mine.encode())
    assert read(path)[1] == full == find_submission(full.submission, read(path))
    with pytest.raises(ConfigError, match="Unknown submission 'x'; the ledger has e12345, "):
        find_submission("x", read(path))


def test_damaged_cells_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    write(path, one("a1", status="scored", cross_fitted_score=0.5))
    path.write_text(path.read_text().replace("0.5", "much").replace("scored", "sent"))
    with pytest.raises(
        ConfigError,
        match=r"ledger\.csv has 2 error[^$]*row\.2\.status[^$]*row\.2\.cross_fitted_score.*'much'",
    ):
        read(path)
