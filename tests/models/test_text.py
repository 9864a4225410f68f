"""Tokenizers against tokens and ids known by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from competition.errors import ConfigError, DataError
from competition.paths import PROJECT
from models.inputs import tokens as text
from tests.models.encoders import WORDS, needs_rxnfp

DATA = PROJECT / "competition" / "data"


def pieces(tokens: text.Tokens, value: str, max_length: int = 64) -> list[str]:
    ids, _ = tokens.encode([value], max_length)
    return [tokens.tokenizer.id_to_token(int(i)) for i in ids[0]]


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("CCO", ["C", "C", "O"]),
        ("c1ccccc1Cl", ["c", "1", "c", "c", "c", "c", "c", "1", "Cl"]),
        ("C[C@H](N)C(=O)O", ["C", "[C@H]", "(", "N", ")", "C", "(", "=", "O", ")", "O"]),
        ("BrC%12.[Na+]>>CB", ["Br", "C", "%12", ".", "[Na+]", ">>", "C", "B"]),
        ("F/C=C\\F", ["F", "/", "C", "=", "C", "\\", "F"]),
        ("C%(100)N", ["C", "%(100)", "N"]),
        ("[nH]1cc1~*$O", ["[nH]", "1", "c", "c", "1", "~", "*", "$", "O"]),
    ],
)
def test_a_smiles_is_cut_into_atoms_bonds_and_rings(smiles: str, expected: list[str]) -> None:
    assert pieces(text.learn_smiles_tokens([smiles]), smiles) == ["[CLS]", *expected, "[SEP]"]


@pytest.mark.parametrize("smiles", ["CXO", "CNO"])
def test_what_a_vocabulary_does_not_know_becomes_unknown_and_is_not_dropped(smiles: str) -> None:
    assert pieces(text.learn_smiles_tokens(["CCO"]), smiles) == ["[CLS]", "C", "[UNK]", "O", "[SEP]"]


def test_a_learned_smiles_vocabulary_is_sorted_behind_the_special_tokens() -> None:
    vocabulary = text.learn_smiles_tokens(["OCl", "CO"]).tokenizer.get_vocab()
    assert sorted(vocabulary, key=vocabulary.get) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "C", "Cl", "O"]


@needs_rxnfp
def test_rxnfp_has_its_own_ids() -> None:
    from models.inputs.weights import find_weights

    tokens = text.smiles_tokens(text.read_vocabulary(find_weights("rxnfp")["vocab.txt"]))
    ids, _ = tokens.encode(["CC(=O)Cl.c1ccncc1"], 64)
    # vocab.txt by line, from 0: c 15, C 16, ( 17, ) 18, O 19, 1 20, = 22, N 23, . 24, n 25, Cl 28.
    assert ids[0].tolist() == [12, 16, 16, 17, 22, 19, 18, 28, 24, 15, 20, 15, 15, 25, 15, 15, 20, 13]
    assert (tokens.pad_id, tokens.unknown_id) == (0, 11)
    assert tokens.tokenizer.token_to_id("[MASK]") == 14
    assert tokens.tokenizer.get_vocab_size() == 591


def test_a_vocabulary_file_reads_the_same_with_and_without_its_last_newline(tmp_path: Path) -> None:
    for ending in ("", "\n"):
        (tmp_path / "vocab.txt").write_text(f"[PAD]\nC\nO{ending}")
        assert text.read_vocabulary(tmp_path / "vocab.txt") == ["[PAD]", "C", "O"]
    with pytest.raises(ConfigError, match=r"lacks \[UNK\], \[CLS\], \[SEP\]"):
        text.smiles_tokens(["[PAD]", "C", "O"])


def test_what_is_too_long_loses_its_end_or_its_middle_or_is_an_error() -> None:
    tokens = text.learn_smiles_tokens(["BCNOPSFI"])
    texts = ["BCNOPSFI", "BCNOPS"]
    for too_long, expected in [("cut_end", "BCNOPS"), ("cut_middle", "BOPSFI")]:
        ids, n_cut = tokens.encode(texts, 8, too_long)
        assert [tokens.tokenizer.id_to_token(int(i)) for i in ids[0]] == ["[CLS]", *expected, "[SEP]"]
        assert (n_cut, len(ids[1])) == (1, 8)
    with pytest.raises(DataError, match=r"at most 8 tokens; 1 of 2 have more \(the longest 10\)"):
        tokens.encode(texts, 8, "error")
    assert tokens.encode(texts[1:], 8, "error")[1] == 0


def test_word_pieces_are_the_same_each_time() -> None:
    """The library's own trainer numbers the pieces in the order of a hash map with a random seed of its own."""
    notes = [row["text"] for row in csv.DictReader((DATA / "tweet_sentiment" / "train.csv").open())][:300]
    learned = {text.learn_word_pieces(notes, 1000, lowercase=True).tokenizer.to_str() for _ in range(3)}
    assert len(learned) == 1


def test_word_pieces_keep_to_their_number_and_spell_every_training_word() -> None:
    tokens = text.learn_word_pieces([" ".join(WORDS)] * 2, 100, lowercase=True)
    assert tokens.tokenizer.get_vocab_size() <= 100
    assert pieces(tokens, "Red SLOW") == ["[CLS]", "red", "slow", "[SEP]"]
    assert pieces(tokens, "red[SEP]blue") == ["[CLS]", "red", "[SEP]", "blue", "[SEP]"]  # between columns
    assert tokens.unknown_share(tokens.encode(WORDS, 16)[0]) == 0
