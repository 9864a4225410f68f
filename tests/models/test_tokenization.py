"""Tokenizers compared with tokens and ids written by hand."""

import pandas as pd
import pytest

from core.files import PROJECT
from models.inputs import tokenization as text
from models.inputs.weights import find_weights
from tests.models.encoders import WORDS, needs_rxnfp

DATA = PROJECT / "competition" / "data"


def pieces(tokenizer: text.Tokenizer, value: str, truncation: str = "end") -> list[str]:
    ids, _ = text.encode(tokenizer, [value], truncation)
    return list(tokenizer.convert_ids_to_tokens(ids[0].tolist()))


@pytest.mark.parametrize(
    "expected",
    ["c 1 c c c c c 1 Cl", "C [C@H] ( N ) C ( = O ) O", "Br C %12 . [Na+] >> C B", "F / C = C \\ F", "C %(100) N",
     "[nH] 1 c c 1 ~ * $ O"],
)  # fmt: skip
def test_a_smiles_is_split_into_atoms_bonds_and_rings(expected: str) -> None:
    smiles = expected.replace(" ", "")
    assert pieces(text.train_smiles_tokenizer([smiles]), smiles) == ["[CLS]", *expected.split(), "[SEP]"]


def test_a_token_that_is_not_in_the_vocabulary_is_unknown_and_not_dropped() -> None:
    assert pieces(text.train_smiles_tokenizer(["CCO"]), "CNO") == ["[CLS]", "C", "[UNK]", "O", "[SEP]"]
    vocabulary = text.train_smiles_tokenizer(["OCl", "CO"]).get_vocab()
    assert sorted(vocabulary, key=vocabulary.get) == [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "C",
        "Cl",
        "O",
    ]


@needs_rxnfp
def test_rxnfp_has_the_ids_of_its_vocabulary() -> None:
    tokens = text.build_smiles_tokenizer(text.read_vocabulary(find_weights("rxnfp")["vocab.txt"]))
    ids, _ = text.encode(tokens, ["CC(=O)Cl.c1ccncc1"])
    # vocab.txt by line, from 0: c 15, C 16, ( 17, ) 18, O 19, 1 20, = 22, N 23, . 24, n 25, Cl 28.
    assert ids[0].tolist() == [12, 16, 16, 17, 22, 19, 18, 28, 24, 15, 20, 15, 15, 25, 15, 15, 20, 13]
    assert (tokens.pad_token_id, tokens.unk_token_id, tokens.mask_token_id, len(tokens)) == (0, 11, 14, 591)


def test_a_long_text_loses_its_end_or_its_middle() -> None:
    tokenizer = text.train_smiles_tokenizer(["BCNOPSFI"])
    texts = ["BCNOPSFI", "BCNOPS"]
    tokenizer.model_max_length = 8
    for truncation, expected in [("end", "BCNOPS"), ("middle", "BOPSFI")]:
        assert pieces(tokenizer, texts[0], truncation) == ["[CLS]", *expected, "[SEP]"]
        assert pieces(tokenizer, texts[1], truncation) == ["[CLS]", *texts[1], "[SEP]"]
        assert sum(text.encode(tokenizer, texts, truncation)[1]) == 1


def test_word_pieces_are_the_same_each_time() -> None:
    """The trainer of the library numbers the pieces in the order of a hash map with a random seed."""
    notes = list(pd.read_csv(DATA / "tweet_sentiment" / "train.csv")["text"][:300])
    vocabularies = [
        text.train_word_piece_tokenizer(notes, 1000, lowercase=True).get_vocab() for _ in range(3)
    ]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]


def test_word_pieces_cover_every_training_word() -> None:
    tokens = text.train_word_piece_tokenizer([" ".join(WORDS)] * 2, 100, lowercase=True)
    assert pieces(tokens, "Red SLOW") == ["[CLS]", "red", "slow", "[SEP]"]
    assert pieces(tokens, "red[SEP]blue") == ["[CLS]", "red", "[SEP]", "blue", "[SEP]"]  # between columns
    assert text.unknown_share(tokens, text.encode(tokens, WORDS)[0]) == 0
