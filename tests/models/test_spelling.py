"""Random spellings: the same molecules, other characters, from (SMILES, view, seed) alone."""

from __future__ import annotations

import pytest
from rdkit import Chem

from models.inputs.spelling import ANY_SPELLING, mirrored, spelled
from models.inputs.tokens import learn_smiles_tokens
from tests.models.encoders import SMILES

DRUG = "C[C@@H](C(=O)N1CCN(c2ncnc3[nH]ccc23)CC1)c1ccc(/C=C/C)cc1"


def canonical(smiles: str) -> list[list[str]]:
    return [sorted(Chem.CanonSmiles(part) for part in side.split(".") if part) for side in smiles.split(">")]


@pytest.mark.parametrize("smiles", [*SMILES, DRUG, "[Na+].CC(=O)[O-]", f"CCO.{DRUG}>[Pd].O>CCN", "CCO>>CCN"])
def test_a_spelling_has_the_same_molecules_on_each_side_of_the_arrows(smiles: str) -> None:
    assert all(canonical(spelled(smiles, "row", view, seed=3)) == canonical(smiles) for view in range(20))


def test_the_plain_view_is_the_smiles_itself_and_others_differ_by_view_seed_and_row_only() -> None:
    assert spelled(DRUG, "row", 0, 1) == DRUG
    forms = [spelled(DRUG, "row", view, seed) for view in (1, 2) for seed in (1, 2)]
    assert len({DRUG, *forms}) == 5
    assert len({spelled(DRUG, row, 1, 1) for row in "abc"}) == 3
    spelled("CCO", "row", 1, 1)  # another molecule in between moves no generator
    assert [spelled(DRUG, "row", view, seed) for view in (1, 2) for seed in (1, 2)] == forms


def test_the_molecules_of_a_reaction_change_places_on_their_own_side_only() -> None:
    forms = {spelled("C.N.O>>S.P", "row", view, 0) for view in range(1, 200)}
    assert len(forms) == 6 * 2


def test_the_arrow_of_a_dative_bond_is_no_reaction() -> None:
    platinum = "[NH3]->[Pt](<-[NH3])(Cl)Cl"
    forms = {spelled(platinum, "row", view, 0) for view in range(1, 20)}
    assert len(forms) > 3
    assert len({Chem.CanonSmiles(form) for form in forms}) == 1
    sides = {spelled(f"{platinum}.CCO>>CC", "row", view, 0, order_only=True) for view in range(20)}
    assert sides == {f"{platinum}.CCO>>CC", f"CCO.{platinum}>>CC"}


def test_with_order_alone_each_molecule_keeps_its_spelling() -> None:
    forms = {spelled("C(N)O.OCC>>S.CP", "row", view, 0, order_only=True) for view in range(50)}
    assert forms == {
        f"{left}>>{right}" for left in ("C(N)O.OCC", "OCC.C(N)O") for right in ("S.CP", "CP.S")
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "warm red", "CCO heated", "not.a.smiles", "C1CC"])
def test_what_is_no_smiles_stays_as_it_is(text: str) -> None:
    assert spelled(text, "row", 5, 0) == text


def test_a_vocabulary_from_canonical_smiles_knows_the_tokens_of_every_spelling() -> None:
    known = [*SMILES, DRUG, "C1CC2CCC1CC2", "F/C=C\\F", "C[S@](=O)CC"]
    tokens = learn_smiles_tokens([*mirrored(known), ANY_SPELLING])
    forms = [spelled(smiles, "row", view, 0) for smiles in known for view in range(50)]
    assert tokens.unknown_share(tokens.encode(forms, 200)[0]) == 0
    narrow = learn_smiles_tokens(known[-1:])
    assert narrow.unknown_share(narrow.encode([spelled(known[-1], "row", view, 0) for view in range(50)], 200)[0]) > 0
