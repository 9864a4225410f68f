"""Random spellings: the same molecules, other characters, from (SMILES, row, augmentation, seed) alone."""

import pytest
from rdkit import Chem

from models.inputs.spelling import ANY_SPELLING, mirrored, spelled
from models.inputs.tokens import encode, learn_smiles_tokens, unknown_share
from tests.models.encoders import SMILES

DRUG = "C[C@@H](C(=O)N1CCN(c2ncnc3[nH]ccc23)CC1)c1ccc(/C=C/C)cc1"
PLATINUM = "[NH3]->[Pt](<-[NH3])(Cl)Cl"


def canonical(smiles: str) -> list[list[str]]:
    return [sorted(Chem.CanonSmiles(part) for part in side.split(".") if part) for side in smiles.split(">")]


@pytest.mark.parametrize("smiles", [*SMILES, DRUG, "[Na+].CC(=O)[O-]", f"CCO.{DRUG}>[Pd].O>CCN", "CCO>>CCN"])
def test_a_spelling_has_the_same_molecules_on_each_side_of_the_arrows(smiles: str) -> None:
    assert all(canonical(spelled(smiles, "row", number, seed=3)) == canonical(smiles) for number in range(20))


def test_augmentation_0_is_the_smiles_itself_and_others_differ_by_number_seed_and_row_only() -> None:
    assert spelled(DRUG, "row", 0, 1) == DRUG
    assert [spelled(text, "row", 5, 0) for text in ("", "CCO heated", "C1CC")] == ["", "CCO heated", "C1CC"]
    forms = [spelled(DRUG, "row", number, seed) for number in (1, 2) for seed in (1, 2)]
    assert len({DRUG, *forms}) == 5
    assert len({spelled(DRUG, row, 1, 1) for row in "abc"}) == 3
    spelled("CCO", "row", 1, 1)  # another molecule in between moves no generator
    assert [spelled(DRUG, "row", number, seed) for number in (1, 2) for seed in (1, 2)] == forms


def test_molecules_change_places_on_their_own_side_only_and_with_order_alone_keep_their_spelling() -> None:
    assert len({spelled("C.N.O>>S.P", "row", number, 0) for number in range(1, 200)}) == 6 * 2
    forms = {spelled("C(N)O.OCC>>S.CP", "row", number, 0, order_only=True) for number in range(50)}
    assert forms == {f"{left}>>{right}" for left in ("C(N)O.OCC", "OCC.C(N)O") for right in ("S.CP", "CP.S")}


def test_the_arrow_of_a_dative_bond_is_no_reaction() -> None:
    forms = {spelled(PLATINUM, "row", number, 0) for number in range(1, 20)}
    assert len(forms) > 3
    assert len({Chem.CanonSmiles(form) for form in forms}) == 1
    sides = {spelled(f"{PLATINUM}.CCO>>CC", "row", number, 0, order_only=True) for number in range(20)}
    assert sides == {f"{PLATINUM}.CCO>>CC", f"CCO.{PLATINUM}>>CC"}


def test_a_vocabulary_from_canonical_smiles_knows_the_tokens_of_every_spelling() -> None:
    known = [*SMILES, DRUG, "C1CC2CCC1CC2", "F/C=C\\F", "C[S@](=O)CC"]
    forms = [spelled(smiles, "row", number, 0) for smiles in known for number in range(50)]
    for texts, complete in (([*mirrored(known), ANY_SPELLING], True), (known[-1:], False)):
        tokens = learn_smiles_tokens(texts)
        assert (unknown_share(tokens, encode(tokens, forms)[0]) == 0) is complete
