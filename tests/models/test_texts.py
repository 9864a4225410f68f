"""From the columns of a row to token ids: templates, truncation of columns, randomized SMILES, and tokenizers
compared with tokens and ids written by hand.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from core.errors import ConfigError, DataError
from core.files import PROJECT
from models.inputs import tokenization
from models.inputs.encoder_settings import TextStage
from models.inputs.texts import (
    RANDOM_SMILES_TOKENS,
    Template,
    count_tokens,
    mirror_stereo,
    randomize_smiles,
    read_template,
    shorten_columns,
)
from models.inputs.weights import find_weights
from tests.models import made
from tests.models.encoders import SMILES, WORDS, needs_rxnfp, publish

INPUTS = pd.DataFrame({
    "a": ["CC", "", "C"], "b": ["O", "N", ""], "c": ["CCO", "N", "C"], "s t": ["hot", "{x}", ""],
})  # fmt: skip


def read(template=None, text=("s t",), **settings):
    stage = TextStage(template=template, **settings)
    return read_template(stage, made.context(Path("unused"), smiles=["a", "b", "c"], text=list(text)))


@pytest.mark.parametrize(
    ("template", "columns", "expected"),
    [
        (None, ["a", "b", "s t"], ["CC.O</s>hot", "N</s>{x}", "C</s>"]),
        (None, [], ["hot", "{x}", ""]),  # all text
        (None, ["s t", "a", "b"], ["hot</s>CC.O", "{x}</s>N", "</s>C"]),
        ("{a}.{b}>>{c}", [], ["CC.O>>CCO", "N>>N", "C>>C"]),
        ("{c} >> {a} . {b}", [], ["CCO>>CC.O", "N>>N", "C>>C"]),
        ("to: {s t} [SEP] {a}", [], ["to: hot</s>CC", "to: {x}</s>", "to: </s>C"]),
    ],
)
def test_columns_are_joined_by_a_template_and_an_empty_molecule_has_no_dot(template, columns, expected):
    assert read(template, columns=columns).texts(INPUTS, "</s>") == expected


@pytest.mark.parametrize(
    ("template", "is_reaction"),
    [("{a}.{b}>>{c}", True), ("{a} . {b} >> {c}", True), ("{a}.{b}", False), ("{a}>>{s t}", False)],
)
def test_a_reaction_is_randomized_as_one_smiles_and_other_texts_column_by_column(template, is_reaction):
    parsed, randomized = read(template), list[str]()

    def randomize(smiles, row):
        assert row == "\n".join(INPUTS[name][0] for name in parsed.columns)
        randomized.append(smiles)
        return smiles

    text = parsed.texts(INPUTS.iloc[:1], "|", randomize)[0]
    by_column = [INPUTS[name][0] for name in parsed.columns if name in "abc"]
    assert randomized == ([text] if is_reaction else by_column)


def test_a_template_that_cannot_be_read_is_a_config_error():
    with pytest.raises(ConfigError, match="in braces"):
        read("{a")
    with pytest.raises(ConfigError, match="columns of the template"):
        read("{a}>>{b}", columns=["a"])


PIECES = tokenization.train_word_piece_tokenizer(
    [" ".join([*WORDS, "rate", "answer"])] * 2, 200, lowercase=True
)
TEMPLATE = Template(["a", "b"], ["rate ", "[SEP]", " answer"], frozenset())
ROWS = made.rows(a=["red", "red blue cold"], b=["old", "old new fast slow small"])


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [
        (13, "rate red blue cold[SEP]old new fast slow small answer"),  # 5 tokens of the template
        (11, "rate red blue cold[SEP]old new fast answer"),
        (9, "rate red blue[SEP]old new answer"),
        (6, "rate [SEP]answer"),
    ],
)
def test_the_longest_column_loses_its_end_first_and_the_template_stays(max_length, expected):
    """The row is not the first of its table."""
    PIECES.model_max_length = max_length
    inputs, n_cut = shorten_columns(PIECES, TEMPLATE, ROWS.take(np.array([1])), "[SEP]")
    (text,) = TEMPLATE.texts(inputs, "[SEP]")
    assert (text.replace("[SEP] ", "[SEP]"), n_cut) == (expected, int(max_length < 13))


def test_a_template_that_does_not_fit_is_an_error():
    PIECES.model_max_length = 5
    with pytest.raises(DataError, match=r"row r0: the template alone takes all of the 5 tokens of an input"):
        shorten_columns(PIECES, TEMPLATE, ROWS, "[SEP]")


DRUG = "C[C@@H](C(=O)N1CCN(c2ncnc3[nH]ccc23)CC1)c1ccc(/C=C/C)cc1"
PLATINUM = "[NH3]->[Pt](<-[NH3])(Cl)Cl"


def canonical(smiles):
    """Return the canonical SMILES of the molecules on each side of the arrows."""
    sides = [side.split(".") for side in smiles.split(">")]
    return [sorted(Chem.CanonSmiles(molecule) for molecule in side) for side in sides]


@pytest.mark.parametrize("smiles", [*SMILES, DRUG, "[Na+].CC(=O)[O-]", f"CCO.{DRUG}>[Pd].O>CCN", "CCO>>CCN"])
def test_a_randomized_smiles_has_the_same_molecules_on_each_side_of_the_arrows(smiles):
    for augmentation in range(20):
        assert canonical(randomize_smiles(smiles, "row", augmentation, seed=3)) == canonical(smiles)


def test_augmentation_0_is_the_smiles_itself_and_others_differ_by_number_seed_and_row_only():
    assert randomize_smiles(DRUG, "row", 0, 1) == DRUG
    for text in ("", "CCO heated", "C1CC"):
        assert randomize_smiles(text, "row", 5, 0) == text
    arguments = [("row", 1, 1), ("row", 1, 2), ("row", 2, 1), ("other", 1, 1)]
    randomized = [randomize_smiles(DRUG, *each) for each in arguments]
    assert len({DRUG, *randomized}) == 5
    randomize_smiles("CCO", "row", 1, 1)  # another molecule in between changes nothing
    assert [randomize_smiles(DRUG, *each) for each in arguments] == randomized


def test_the_molecules_on_a_side_of_a_reaction_are_shuffled():
    randomized = {randomize_smiles("C.O>>S.P", "row", number, 0) for number in range(50)}
    assert randomized == {"C.O>>S.P", "C.O>>P.S", "O.C>>S.P", "O.C>>P.S"}
    randomized = {randomize_smiles(f"{PLATINUM}>>O", "row", number, 0) for number in range(50)}
    assert len(randomized) > 1 and all(text.endswith(">>O") for text in randomized)  # arrows of its bonds


def test_a_vocabulary_from_canonical_smiles_has_the_tokens_of_all_randomized_smiles():
    smiles = [*SMILES, DRUG, "C1CC2CCC1CC2", "F/C=C\\F", "C[S@](=O)CC"]
    randomized = [randomize_smiles(each, "row", number, 0) for each in smiles for number in range(50)]
    tokenizer = tokenization.train_smiles_tokenizer([*mirror_stereo(smiles), RANDOM_SMILES_TOKENS])
    assert tokenization.unknown_share(tokenizer, tokenization.encode(tokenizer, randomized)[0]) == 0


def pieces(tokenizer, value):
    (ids,), _ = tokenization.encode(tokenizer, [value])
    return list(tokenizer.convert_ids_to_tokens(ids.tolist()))


@pytest.mark.parametrize(
    "expected",
    ["c 1 c c c c c 1 Cl", "C [C@H] ( N ) C ( = O ) O", "Br C %12 . [Na+] >> C B", "F / C = C \\ F", "C %(100) N",
     "[nH] 1 c c 1 ~ * $ O"],
)  # fmt: skip
def test_a_smiles_is_split_into_atoms_bonds_and_rings(expected):
    smiles = expected.replace(" ", "")
    tokenizer = tokenization.train_smiles_tokenizer([smiles])
    assert pieces(tokenizer, smiles) == ["[CLS]", *expected.split(), "[SEP]"]


def test_tokens_are_numbered_in_their_order_and_one_that_is_not_in_the_vocabulary_is_unknown():
    tokenizer = tokenization.train_smiles_tokenizer(["OCl", "CO"])
    assert pieces(tokenizer, "CNO") == ["[CLS]", "C", "[UNK]", "O", "[SEP]"]
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "C", "Cl", "O"]) == [0, 1, 5, 6, 7]


def test_atoms_that_will_be_cut_are_counted_by_max_length_and_by_what_the_encoder_reads(tmp_path):
    """Cl is one token, and a text has two more."""
    rows = pd.DataFrame({"smiles": ["CCCCCCl", "CCCCCCO", "CC(=O)O"]})
    context = made.context(tmp_path, smiles=["smiles"])
    counted = count_tokens(TextStage(tokenizer="smiles", max_length=8), context, rows)
    assert counted == (3, 2, 8 + 9 + 9, 0)
    assert count_tokens(TextStage(max_length=8), context, rows) == counted  # from scratch
    texts = rows.assign(note=["red " * 50, "blue", "red"])
    weights = publish(tmp_path / "published")  # whose encoder has 24 positions
    stage = TextStage(weights=str(weights), max_length=512)
    assert count_tokens(stage, made.context(tmp_path, text=["note"]), texts)[:2] == (3, 1)


@needs_rxnfp
def test_rxnfp_has_the_ids_of_its_vocabulary():
    """vocab.txt by line, from 0: c 15, C 16, ( 17, ) 18, O 19, 1 20, = 22, N 23, . 24, n 25, Cl 28."""
    vocabulary = tokenization.read_vocabulary(find_weights("rxnfp")["vocab.txt"])
    tokens = tokenization.build_smiles_tokenizer(vocabulary)
    (ids,), _ = tokenization.encode(tokens, ["CC(=O)Cl.c1ccncc1"])
    assert ids.tolist() == [12, 16, 16, 17, 22, 19, 18, 28, 24, 15, 20, 15, 15, 25, 15, 15, 20, 13]
    assert (tokens.pad_token_id, tokens.unk_token_id, tokens.mask_token_id, len(tokens)) == (0, 11, 14, 591)


def test_a_long_text_loses_its_end():
    tokenizer = tokenization.train_smiles_tokenizer(["BCNOPSFI"])
    tokenizer.model_max_length = 8
    assert pieces(tokenizer, "BCNOPSFI") == ["[CLS]", *"BCNOPS", "[SEP]"]
    assert sum(tokenization.encode(tokenizer, ["BCNOPSFI", "BCNOPS"])[1]) == 1


def test_word_pieces_are_the_same_each_time():
    """The trainer of the library numbers the pieces in the order of a hash map with a random seed."""
    tweets = PROJECT / "competition" / "data" / "tweet_sentiment" / "train.csv"
    notes = list(pd.read_csv(tweets)["text"][:300])
    one, *others = [
        tokenization.train_word_piece_tokenizer(notes, 1000, lowercase=True).get_vocab() for _ in range(3)
    ]
    assert others == [one, one]


def test_word_pieces_are_lowercase_and_columns_are_separated():
    PIECES.model_max_length = 40
    assert pieces(PIECES, "Red[SEP]SLOW") == ["[CLS]", "red", "[SEP]", "slow", "[SEP]"]
