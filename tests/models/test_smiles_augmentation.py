"""Randomized SMILES: the same molecules, determined by (SMILES, row, augmentation, seed)."""

import pytest
from rdkit import Chem

from models.inputs.texts import RANDOM_SMILES_TOKENS, mirror_stereo, randomize_smiles
from models.inputs.tokenization import encode, train_smiles_tokenizer, unknown_share
from tests.models.encoders import SMILES

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
