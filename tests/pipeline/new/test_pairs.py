"""Which text columns `./run.sh new` takes for a pair that is compared."""

import numpy as np
import pytest

from pipeline.new.detect import detect
from pipeline.new.pairs import MAX_PAIRS, are_named_as_pair, find_pairs, with_compared_texts
from pipeline.new.series import numbered_series
from tests.submissions.made_up import files_in, write

WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("ado", "elin", "oru", "una", "ifet")]


def sentences(n=80, n_words=8, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, n_words, replace=False)) for _ in range(n)]


def edited(texts, seed=1):
    """Return the texts with the half of their words replaced."""
    others = sentences(len(texts), seed=seed)
    return [
        " ".join([*one.split()[:4], *other.split()[:4]]) for one, other in zip(texts, others, strict=True)
    ]


def phrases(texts):
    return [" ".join(text.split()[1:3]) for text in texts]


def pairs_of(folder, **columns):
    write(folder, **columns)
    return {tuple(pair.columns): pair.reason for pair in find_pairs(detect(files_in(folder)))}


def test_texts_that_share_more_words_with_their_partner_than_with_others_are_a_pair(tmp_path):
    texts = sentences()
    pairs = pairs_of(tmp_path, here=texts, there=edited(texts), other=sentences(seed=5))
    assert [*pairs] == [("here", "there")]
    assert "of the words of the shorter text" in pairs["here", "there"]


def test_a_phrase_and_its_long_context_are_a_pair(tmp_path):
    texts = sentences(n_words=20)
    assert [*pairs_of(tmp_path, here=texts, there=phrases(texts)).values()] == [
        "GUESS: one text is a part of the other one"
    ]


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_a_word_that_repeats_is_a_text_if_it_is_in_its_sentence(tmp_path, is_shuffled):
    """Each of twenty words is in four sentences; in the table of a category they are those of other rows."""
    texts = sentences(20, n_words=20) * 4
    words = [text.split()[3] for text in texts]
    write(
        tmp_path,
        sentence=[f"{text} {k}" for k, text in enumerate(texts)],
        w=words[1:] + words[:1] if is_shuffled else words,
    )
    tables = with_compared_texts(detect(files_in(tmp_path)))
    assert ("w" in tables.with_roles("text")) == (not is_shuffled)


@pytest.mark.parametrize("name", ["query", "category"])
def test_phrases_that_repeat_are_texts_if_they_are_compared(tmp_path, name):
    """Four queries of two words, which are in the titles of products or not; a category with such a name is one too."""
    queries = ["wooden table lamp", "garden hose reel", "kitchen sink drain", "leather office chair"] * 20
    is_shuffled = name == "category"
    titles = [
        f"{brand} {query} {other}"
        for brand, query, other in zip(
            sentences(80, 2), queries[::-1] if is_shuffled else queries, sentences(80, 3, 1), strict=True
        )
    ]
    write(tmp_path, **{name: queries, "title": titles})
    tables = with_compared_texts(detect(files_in(tmp_path)))
    assert (name in tables.with_roles("text")) == (not is_shuffled)
    assert [pair.columns for pair in find_pairs(tables)] == ([] if is_shuffled else [[name, "title"]])


def test_long_passages_are_texts_however_often_they_repeat(tmp_path):
    passages = [" ".join(sentences(8, seed=seed)) for seed in (2, 3)]
    write(tmp_path, prompt=passages * 40, answer=sentences())
    assert detect(files_in(tmp_path)).with_roles("text") == ["prompt", "answer"]


def test_texts_with_shuffled_partners_are_no_pair(tmp_path):
    texts = sentences()
    assert not pairs_of(tmp_path, here=texts, there=edited(texts)[::-1])


@pytest.mark.parametrize(
    ("first", "second", "is_pair"),
    [
        ("sentence1", "sentence2", True), ("Text_A", "text_b", True), ("question", "best_answer", True),
        ("response_b", "response_a", True), ("premise", "hypothesis", True), ("sentence", "token", True),
        ("Text1_en", "Text2_en", True),
        ("title", "body", False), ("text1", "note2", False), ("sentence1", "sentence3", False), ("a", "note", False),
    ],
)  # fmt: skip
def test_names_tell_that_columns_are_compared(first, second, is_pair):
    assert are_named_as_pair(first, second) == are_named_as_pair(second, first) == is_pair


def test_columns_with_telling_names_are_a_pair_without_common_words(tmp_path):
    columns = {"premise": sentences(), "hypothesis": sentences(seed=3)}
    assert pairs_of(tmp_path, **columns) == {
        ("premise", "hypothesis"): "GUESS: named like texts that are compared"
    }


def test_one_text_is_compared_with_each_of_its_options(tmp_path):
    columns = {f"choice_{k}": sentences(seed=k) for k in range(1, 5)}
    pairs = pairs_of(tmp_path, situation=sentences(seed=9), **columns)
    assert {*pairs} == {("situation", name) for name in columns}
    assert {*pairs.values()} == {"GUESS: one text and each of its options"}


def test_options_with_words_in_common_are_compared_with_their_question_only(tmp_path):
    texts = sentences()
    columns = {f"choice_{k}": edited(texts, seed=k) for k in range(1, 5)}
    assert {*pairs_of(tmp_path, situation=texts, **columns)} == {("situation", name) for name in columns}


def test_series_of_names_differ_in_digits_or_letters_from_the_first_one_on_at_the_end_of_a_word():
    assert numbered_series(["x_b", "z", "x_a", "y1", "x_1"]) == [["x_a", "x_b"]]
    assert numbered_series(["C", "B", "A"]) == [["A", "B", "C"]]
    assert numbered_series(["Drug2_SMILES", "Drug1_SMILES"]) == [["Drug1_SMILES", "Drug2_SMILES"]]
    assert numbered_series(["x1", "x3", "x2", "y_2", "y_3"]) == [["x1", "x2", "x3"]]
    assert numbered_series(["cab", "cat", "rat", "bat", "data"]) == []
    assert numbered_series(["x_a", "x_2"]) == []


def test_options_without_a_question_are_no_pairs(tmp_path):
    assert not pairs_of(tmp_path, **{f"c{k}": sentences(seed=k) for k in range(1, 6)})


def test_options_do_not_hide_other_texts_that_are_named_as_a_pair(tmp_path):
    columns = {f"choice_{k}": sentences(seed=k) for k in range(1, 4)}
    pairs = pairs_of(tmp_path, premise=sentences(seed=8), hypothesis=sentences(seed=9), **columns)
    assert [*pairs] == [("premise", "hypothesis")]


def test_one_text_may_have_words_in_common_with_more_texts_than_three(tmp_path):
    parts = {name: sentences(seed=k) for k, name in enumerate("qrst")}
    texts = [" ".join(row) for row in zip(*parts.values(), strict=True)]
    pairs = pairs_of(tmp_path, hub=texts, **parts)
    assert {*pairs} == {("hub", name) for name in parts}


def test_few_pairs_are_written_those_with_most_in_common_first(tmp_path):
    texts = sentences()
    pairs = pairs_of(tmp_path, a=texts, b=edited(texts), c=edited(texts, seed=2), d=texts)
    assert len(pairs) == MAX_PAIRS
    assert [*pairs][0] == ("a", "d")
