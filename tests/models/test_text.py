"""Tokenizers against tokens and ids known by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from competition.errors import ConfigError, DataError
from competition.paths import PROJECT
from models.inputs import tokens as text
from tests.models.encoders import WORDS, needs_rxnfp


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
    tokens = text.learn_smiles_tokens([smiles])
    assert pieces(tokens, smiles) == ["[CLS]", *expected, "[SEP]"]


def test_what_the_expression_does_not_know_becomes_unknown_and_is_not_dropped() -> None:
    tokens = text.learn_smiles_tokens(["CCO"])
    assert pieces(tokens, "CXO") == ["[CLS]", "C", "[UNK]", "O", "[SEP]"]
    assert pieces(tokens, "CNO") == ["[CLS]", "C", "[UNK]", "O", "[SEP]"]


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
    (tmp_path / "a").write_text("[PAD]\nC\nO")
    (tmp_path / "b").write_text("[PAD]\nC\nO\n")
    assert text.read_vocabulary(tmp_path / "a") == text.read_vocabulary(tmp_path / "b") == ["[PAD]", "C", "O"]


def test_a_vocabulary_without_special_tokens_is_a_config_error_that_names_them() -> None:
    with pytest.raises(ConfigError, match=r"lacks \[UNK\], \[CLS\], \[SEP\]"):
        text.smiles_tokens(["[PAD]", "C", "O"])


def test_the_separator_between_columns_is_one_token() -> None:
    tokens = text.learn_word_pieces(["red blue"] * 2, 100, lowercase=True)
    assert pieces(tokens, "red[SEP]blue") == ["[CLS]", "red", "[SEP]", "blue", "[SEP]"]


def test_what_is_too_long_loses_its_end_or_its_middle_or_is_an_error() -> None:
    tokens = text.learn_smiles_tokens(["BCNOPSFI"])
    texts = ["BCNOPSFI", "BCNOPS"]
    for too_long, expected in [
        ("cut_end", ["[CLS]", "B", "C", "N", "O", "P", "S", "[SEP]"]),
        ("cut_middle", ["[CLS]", "B", "O", "P", "S", "F", "I", "[SEP]"]),
    ]:
        ids, n_cut = tokens.encode(texts, 8, too_long)
        assert [tokens.tokenizer.id_to_token(int(i)) for i in ids[0]] == expected
        assert (n_cut, len(ids[1])) == (1, 8)
    with pytest.raises(DataError, match=r"at most 8 tokens; 1 of 2 have more \(the longest 10\)"):
        tokens.encode(texts, 8, "error")
    assert tokens.encode(texts[1:], 8, "error")[1] == 0


LEARN = """
import csv, hashlib
from models.inputs.tokens import learn_word_pieces
rows = csv.DictReader(open("competition/data/tweet_sentiment/train.csv"))
tokens = learn_word_pieces([row["text"] for row in rows][:300], 1000, lowercase=True)
print(hashlib.sha256(tokens.tokenizer.to_str().encode()).hexdigest())
"""


def test_word_pieces_are_the_same_in_every_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own trainer numbers the pieces in the order of a hash map with a random seed per process."""
    monkeypatch.chdir(PROJECT)
    exec(LEARN, {})
    here = capsys.readouterr().out
    other = subprocess.run([sys.executable, "-c", LEARN], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert here == other.stdout


def test_word_pieces_keep_to_their_number_and_spell_every_training_word() -> None:
    tokens = text.learn_word_pieces([" ".join(WORDS)] * 2, 100, lowercase=True)
    assert tokens.tokenizer.get_vocab_size() <= 100
    assert pieces(tokens, "Red SLOW") == ["[CLS]", "red", "slow", "[SEP]"]
    ids, _ = tokens.encode(WORDS, 16)
    assert tokens.unknown_share(ids) == 0


def test_a_cut_input_still_ends_with_the_separator() -> None:
    tokens = text.learn_smiles_tokens(["CCCCCCCC"])
    assert pieces(tokens, "CCCCCCCC", max_length=5) == ["[CLS]", "C", "C", "C", "[SEP]"]
