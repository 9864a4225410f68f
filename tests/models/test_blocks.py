"""Feature blocks by hand: what they learn from training rows, and what other rows become."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.inputs import blocks
from tests.models.made import context, rows

NAN = np.nan
TRAIN = rows(x=[1.0, 3.0, NAN, 2.0], c=[5.0, 5.0, 5.0, 5.0], k=["b", "a", "b", "a"])


def test_columns_are_standardised_cut_and_marked_where_training_had_gaps(tmp_path: Path) -> None:
    """x: mean 2, standard deviation sqrt(2 / 3); c is constant; a gap that training has not is no column."""
    told = context(tmp_path, numeric=["x", "c"], categorical=["k"])
    config = SimpleNamespace(columns_before_head=True)
    blocks.fit_columns(TRAIN, config, told, tmp_path)
    found = blocks.read_columns(rows(x=[3.0, NAN, 1e9], c=[6.0, NAN, 5.0], k=["a", "b", "new"]), config, told, tmp_path)
    assert found == pytest.approx(
        np.array([[1.5**0.5, 1, 0, 1, 0], [0, 0, 1, 0, 1], [5, 0, 0, 0, 0]], dtype=np.float32), abs=1e-6
    )


def test_codes_are_numbers_of_sorted_training_values_and_minus_one_is_new() -> None:
    learned = blocks.learn_categories(TRAIN, ["k"])
    assert blocks.codes(rows(k=["b", "new", "a"]), learned)[:, 0].tolist() == [1, -1, 0]


def test_words_are_those_that_two_training_rows_share_weighted_by_their_rarity(tmp_path: Path) -> None:
    """Of 4 rows `red` is in 3 and `pear` in 2: idf 1 + ln(5 / 4) and 1 + ln(5 / 3); a row has length 1."""
    train = rows(note=["red pear", "red plum", "red apple", "green pear"])
    learned = blocks.learn_words(train, 10, context(tmp_path, text=["note"]))
    assert sorted(learned["note"]["vocabulary"]) == ["pear", "red"]
    found = blocks.words(rows(note=["pear red", "red red", "kiwi"]), learned).toarray()
    pear, red = 1 + np.log(5 / 3), 1 + np.log(5 / 4)
    length = np.hypot(pear, red)
    assert found == pytest.approx(np.array([[pear / length, red / length], [0, 1], [0, 0]]), abs=1e-6)


def test_numbers_and_molecules_stand_side_by_side_with_gaps(tmp_path: Path) -> None:
    table = rows(s=["CC", "CO"], t=["O", "CC"], x=[1.0, NAN])
    told = context(tmp_path, smiles=["s", "t"], numeric=["x"])
    config = SimpleNamespace(features=["maccs"], n_bits=64)
    found = blocks.molecules(table, config, told)  # type: ignore[arg-type]
    assert found.shape == (2, 2 * 167)
    assert np.array_equal(found[0, :167], found[1, 167:])
    assert np.array_equal(blocks.numbers(table, told), [[1.0], [NAN]], equal_nan=True)
