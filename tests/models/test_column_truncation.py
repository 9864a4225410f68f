"""Texts that are too long lose the ends of their columns, and keep the words of the template."""

import numpy as np
import pytest

from core.errors import DataError
from models.inputs import tokenization
from models.inputs.texts import Template, shorten_columns
from tests.models import made
from tests.models.encoders import WORDS

TOKENIZER = tokenization.train_word_piece_tokenizer(
    [" ".join([*WORDS, "rate", "answer"])] * 2, 200, lowercase=True
)
TEMPLATE = Template(["a", "b"], ["rate ", "[SEP]", " answer"], frozenset())


def shortened(max_length: int, a: str, b: str) -> tuple[str, int]:
    """The text of a row, and whether it was cut."""
    TOKENIZER.model_max_length = max_length
    inputs, n_cut = shorten_columns(TOKENIZER, TEMPLATE, made.rows(a=[a], b=[b]), "[SEP]")
    (text,) = TEMPLATE.texts(inputs, "[SEP]")
    assert len(TOKENIZER(text)["input_ids"]) <= max_length
    return text, n_cut


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [
        (
            13,
            "rate red blue cold[SEP]old new fast slow small answer",
        ),  # 5 tokens of the template, 8 of columns
        (12, "rate red blue cold[SEP]old new fast slow answer"),
        (11, "rate red blue cold[SEP]old new fast answer"),
        (9, "rate red blue[SEP]old new answer"),
        (7, "rate red[SEP]old answer"),
        (6, "rate [SEP]answer"),
    ],
)
def test_the_longest_column_loses_its_end_first_and_the_template_stays(
    max_length: int, expected: str
) -> None:
    text, n_cut = shortened(max_length, "red blue cold", "old new fast slow small")
    assert (text.replace("[SEP] ", "[SEP]"), n_cut) == (expected, int(max_length < 13))


def test_a_text_that_fits_is_unchanged_and_a_template_that_does_not_fit_is_an_error() -> None:
    assert shortened(40, "red blue", "old") == ("rate red blue[SEP]old answer", 0)
    with pytest.raises(DataError, match=r"row r0: the template alone takes all of the 5 tokens of an input"):
        shortened(5, "red blue", "old")


def test_the_index_of_the_rows_does_not_matter() -> None:
    TOKENIZER.model_max_length = 7
    rows = made.rows(a=["red", "red blue"], b=["old", "old new fast"])
    inputs, n_cut = shorten_columns(TOKENIZER, TEMPLATE, rows.take(np.array([1])), "[SEP]")
    assert (inputs.to_numpy().tolist(), n_cut) == ([["red", "old"]], 1)
    assert rows.inputs["a"].tolist() == ["red", "red blue"]
