"""How the columns of a row become one text: templates, truncation of columns, randomized SMILES."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from core.errors import ConfigError, DataError
from models.inputs import tokenization
from models.inputs.encoder_settings import TextStage
from models.inputs.texts import (
    RANDOM_SMILES_TOKENS,
    Template,
    mirror_stereo,
    randomize_smiles,
    read_template,
    require_molecules,
    shorten_columns,
)
from models.inputs.tokenization import encode, train_smiles_tokenizer, unknown_share
from tests.models import made
from tests.models.encoders import SMILES, WORDS
from tests.models.made import context

INPUTS = pd.DataFrame({
    "a": ["CC", "", "C"], "b": ["O", "N", ""], "c": ["CCO", "N", "C"], "s t": ["hot", "{x}", ""],
})  # fmt: skip


def read(
    template: str | None = None, smiles: str = "abc", texts: Any = ("s t",), **settings: Any
) -> Template:
    stage = TextStage(template=template, **settings)
    return read_template(stage, context(Path("unused"), smiles=list(smiles), text=list(texts)))


def texts(template: str | None, separator: str = "[SEP]", **settings: Any) -> list[str]:
    return read(template, **settings).texts(INPUTS, separator)


def test_without_a_template_molecules_are_joined_by_a_dot_and_texts_by_the_separator() -> None:
    assert texts(None, "</s>", columns=["a", "b", "s t"]) == ["CC.O</s>hot", "N</s>{x}", "C</s>"]
    assert texts(None, columns=["s t", "a", "b"]) == ["hot[SEP]CC.O", "{x}[SEP]N", "[SEP]C"]
    assert read().columns == ["s t"]  # all text, else all molecules
    assert read(texts=()).columns == ["a", "b", "c"]


def test_a_template_makes_a_reaction_and_an_empty_molecule_has_no_dot() -> None:
    assert texts("{a}.{b}>>{c}") == ["CC.O>>CCO", "N>>N", "C>>C"]
    assert texts("{c}>>{a}.{b}") == ["CCO>>CC.O", "N>>N", "C>>C"]
    assert texts("{c} >> {a} . {b}") == texts("{c}>>{a}.{b}")
    assert texts("context: {s t} [SEP] {a}", "</s>")[0] == "context: hot</s>CC"


@pytest.mark.parametrize(
    ("template", "is_reaction"),
    [("{a}.{b}>>{c}", True), ("{a} . {b} >> {c}", True), ("{a}.{b}", False), ("{a} [SEP] {b}", False),
     ("{a}>>{s t}", False), ("x>{a}", False)],
)  # fmt: skip
def test_a_reaction_is_randomized_as_one_smiles_and_other_texts_column_by_column(
    template: str, is_reaction: bool
) -> None:
    parsed = read(template)
    randomized = list[str]()

    def randomize(smiles: str, row: str) -> str:
        assert row == "\n".join(INPUTS[name][0] for name in parsed.columns)
        randomized.append(smiles)
        return smiles

    text = parsed.texts(INPUTS.iloc[:1], "|", randomize)[0]
    by_column = [INPUTS[name][0] for name in parsed.columns if name in "abc"]
    assert randomized == ([text] if is_reaction else by_column)


def test_a_template_that_cannot_be_read_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="in braces"):
        read("{a")
    with pytest.raises(ConfigError, match="columns of the template"):
        read("{a}>>{b}", columns=["a"])
    with pytest.raises(ConfigError, match=r"enumerate_smiles: order requires .* side of a reaction"):
        require_molecules(read(columns=["a", "b"]), "order")


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


DRUG = "C[C@@H](C(=O)N1CCN(c2ncnc3[nH]ccc23)CC1)c1ccc(/C=C/C)cc1"
PLATINUM = "[NH3]->[Pt](<-[NH3])(Cl)Cl"


def canonical(smiles: str) -> list[list[str]]:
    """Return the canonical SMILES of the molecules on each side of the arrows."""
    sides = []
    for side in smiles.split(">"):
        sides.append(sorted(Chem.CanonSmiles(molecule) for molecule in side.split(".") if molecule))
    return sides


def randomized_drugs() -> list[str]:
    """Return four randomized SMILES of DRUG: two augmentations with each of two seeds."""
    pairs = [(1, 1), (1, 2), (2, 1), (2, 2)]
    return [randomize_smiles(DRUG, "row", augmentation, seed) for augmentation, seed in pairs]


@pytest.mark.parametrize("smiles", [*SMILES, DRUG, "[Na+].CC(=O)[O-]", f"CCO.{DRUG}>[Pd].O>CCN", "CCO>>CCN"])
def test_a_randomized_smiles_has_the_same_molecules_on_each_side_of_the_arrows(smiles: str) -> None:
    for augmentation in range(20):
        assert canonical(randomize_smiles(smiles, "row", augmentation, seed=3)) == canonical(smiles)


def test_augmentation_0_is_the_smiles_itself_and_others_differ_by_number_seed_and_row_only() -> None:
    assert randomize_smiles(DRUG, "row", 0, 1) == DRUG
    for text in ("", "CCO heated", "C1CC"):
        assert randomize_smiles(text, "row", 5, 0) == text
    randomized = randomized_drugs()
    assert len({DRUG, *randomized}) == 5
    assert len({randomize_smiles(DRUG, row, 1, 1) for row in "abc"}) == 3
    randomize_smiles("CCO", "row", 1, 1)  # another molecule in between changes nothing
    assert randomized_drugs() == randomized


def test_molecules_are_shuffled_on_each_side_of_a_reaction_and_with_order_only_not_randomized() -> None:
    assert len({randomize_smiles("C.N.O>>S.P", "row", number, 0) for number in range(1, 200)}) == 6 * 2
    shuffled = {
        randomize_smiles("C(N)O.OCC>>S.CP", "row", number, 0, order_only=True) for number in range(50)
    }
    assert shuffled == {"C(N)O.OCC>>S.CP", "C(N)O.OCC>>CP.S", "OCC.C(N)O>>S.CP", "OCC.C(N)O>>CP.S"}


def test_the_arrow_of_a_dative_bond_is_not_a_reaction() -> None:
    randomized = {randomize_smiles(PLATINUM, "row", number, 0) for number in range(1, 20)}
    assert len(randomized) > 3
    assert len({Chem.CanonSmiles(smiles) for smiles in randomized}) == 1
    sides = {
        randomize_smiles(f"{PLATINUM}.CCO>>CC", "row", number, 0, order_only=True) for number in range(20)
    }
    assert sides == {f"{PLATINUM}.CCO>>CC", f"CCO.{PLATINUM}>>CC"}


def test_a_vocabulary_from_canonical_smiles_has_the_tokens_of_all_randomized_smiles() -> None:
    canonical_smiles = [*SMILES, DRUG, "C1CC2CCC1CC2", "F/C=C\\F", "C[S@](=O)CC"]
    randomized = []
    for smiles in canonical_smiles:
        randomized += [randomize_smiles(smiles, "row", number, 0) for number in range(50)]
    complete = [*mirror_stereo(canonical_smiles), RANDOM_SMILES_TOKENS]
    for texts, is_complete in ((complete, True), (canonical_smiles[-1:], False)):
        tokenizer = train_smiles_tokenizer(texts)
        assert (unknown_share(tokenizer, encode(tokenizer, randomized)[0]) == 0) is is_complete
