"""Groups of training rows, of molecules that differ by salts, and of rows that are in no fold."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from competition.clean import input_keys
from competition.dataset import INPUT_KEY
from competition.molecules import canonical_smiles, desalted, normalised_text, parent, plain_text
from competition.pairs import WORD
from core.words import WORD_OF_TWO
from folds.groups import clusters, scaffold, scaffolds, stereo_scaffold
from folds.kinds import FoldsConfig
from folds.make import compute_groups, groups_outside_folds
from tests.folds.made import competition

ACID = "O=C(O)c1ccccc1"
ION = "O=C([O-])c1ccccc1"
ROLES = competition(smiles=["smiles"], group="g")


def table(*smiles, roles=ROLES, **columns):
    rows = pd.DataFrame({"id": range(len(smiles)), "smiles": map(canonical_smiles, smiles), **columns})
    return rows.assign(**{INPUT_KEY: input_keys(rows, roles)})


def groups_of(kind, rows, roles=ROLES):
    return compute_groups(FoldsConfig(kind=kind), rows, roles).tolist()


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("C[NH+](C)Cc1ccccc1.[Cl-]", "CN(C)Cc1ccccc1"),
        ("O=C([O-])c1ccccc1.O=C([O-])c1ccccc1.[Ca+2]", ACID),
        ("NCc1ccccc1.Cc1ccc(S(=O)(=O)O)cc1.O", "NCc1ccccc1"),
        ("C[N+](C)(C)CCO.[Br-]", "C[N+](C)(C)CCO"),
        ("[Cl-].[Na+]", "[Cl-].[Na+]"),  # salts alone stay
        ("CC(=O)[O-].[Na+]", "CC(=O)[O-].[Na+]"),
        ("CCCn1cc[n+](C)c1.F[B-](F)(F)F", "CCCn1cc[n+](C)c1.F[B-](F)(F)F"),  # an ionic liquid
        ("c1cc[cH-]c1.c1cc[cH-]c1.[Fe+2]", "[Fe+2].c1cc[cH-]c1"),  # no neutral form can be written
        ("C[NH+](C)Cc1ccccc1", "C[NH+](C)Cc1ccccc1"),  # an ion without a counter-ion
    ],
)
def test_a_molecule_without_its_salts_is_neutral_and_never_empty(smiles, expected):
    assert parent(canonical_smiles(smiles)) == canonical_smiles(expected)


@pytest.mark.parametrize("kind", ["kfold", "scaffold", "cluster"])
def test_salts_of_one_molecule_are_one_group(kind):
    rows = table(ACID, f"{ION}.[Na+]", ION, "CCO", "CCO.Cl", "C1CCCCCCC1")
    assert groups_of(kind, rows) == [0, 0, 0, 1, 1, 2]
    assert desalted(f"{ION}.[Na+]") == canonical_smiles(ION)


def test_only_salts_and_equal_inputs_tie_rows_and_other_inputs_keep_them_apart():
    assert groups_of("kfold", table(ACID, ION, "OCC", "CCO", "C[NH3+]", "CN")) == [0, 1, 2, 2, 3, 4]
    with_number = competition(smiles=["smiles"], numeric=["pH"])
    rows = table(ACID, f"{ACID}.Cl", f"{ACID}.Cl", roles=with_number, pH=[7.0, 7.0, 2.0])
    assert groups_of("kfold", rows, with_number) == [0, 0, 1]


def test_groups_that_an_equal_input_ties_together_are_one():
    assert groups_of("group", table("C", "CC", "CC", "CCC", g=list("aabc"))) == [0, 0, 0, 1]


def outside(kind, rows, groups, others):
    return groups_outside_folds(FoldsConfig(kind=kind), rows, np.array(groups), others, ROLES).tolist()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("kfold", [3, 2, 4, 5]), ("group", [3, 2, 0, 4]), ("scaffold", [3, 2, 0, 0]), ("cluster", [3, 2, 4, 0])],
)
def test_rows_outside_of_folds_join_the_groups_of_the_training_rows_or_form_new_ones(kind, expected):
    """A new molecule, a salt, a molecule of another group, and a similar one of no group."""
    rows = table("CCCCCCCCc1ccccc1", "C1CCCCC1", "CCN", g=["a", "b", "c"])
    others = table("FC(F)(F)I", "CCN.Cl", "Brc1ccccc1", "CCCCCCCCCc1ccccc1", g=["", "", "a", np.nan])
    assert outside(kind, rows, [0, 1, 2], others) == expected


def test_a_salt_of_a_molecule_of_another_group_is_in_no_group():
    """Its job would train on it while the molecule is held out; a row with equal inputs is recognised by them."""
    rows = table("CCN", "CCO", g=["a", "b"])
    others = table("CCN.Cl", "CCN.Cl", "CCN", "CCCN", g=["b", "a", "b", "b"])
    assert outside("group", rows, [0, 1], others) == [-1, 0, 1, 1]


@pytest.mark.parametrize("kind", ["scaffold", "cluster"])
def test_rows_outside_of_folds_that_belong_together_share_a_new_group(kind):
    rows, others = table("C1CCCCC1", "CCN"), table("CCCCCCCc1ccccc1", "CCCCCCCCc1ccccc1", "FC(F)(F)I")
    assert outside(kind, rows, [1, 0], others) == [2, 2, 3]
    assert outside(kind, rows, [1, 0], others[:0]) == []


def test_scaffolds_by_hand():
    keys = scaffolds(["Cc1ccccc1", "OCc1ccccc1", "CCO", "CCC"])
    assert keys.tolist() == ["c1ccccc1", "c1ccccc1", "acyclic CCO", "acyclic CCC"]
    left, right = "O1CCC[C@H]1c1ccccc1", "O1CCC[C@@H]1c1ccccc1"
    assert scaffold(left) == scaffold(right) and stereo_scaffold(left) != stereo_scaffold(right)


def test_similar_molecules_are_one_cluster_others_are_not_and_the_order_of_rows_does_not_matter():
    smiles = ["CCCCCCCCO", "CCCCCCCCCO", "CCCCCCCCCCO", "Clc1ccccc1", "Brc1ccccc1", "CCCCCCCCO"]
    centre_of = clusters(smiles, similarity=0.4)
    alcohols, others = ({centre_of[text] for text in part} for part in (smiles[:3], smiles[3:5]))
    assert len(alcohols) == 1 and not alcohols & others
    assert len({*clusters(smiles, similarity=0.99).values()}) > 2
    chains = ["C" * n + ring for n in range(12) for ring in ("c1ccccc1", "C1CCCCC1", "c1ccncc1", "O")]
    assert clusters(chains[::-1], 0.4) == clusters(chains, 0.4)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("RT @me: So  good! 5 https://t.co/a1", "so good"),
        ("so good ☺️ www.example.org/1", "so good"),
        ("It's 3.5 well-known", "it's well-known"),
        ("@me 12 https://t.co/a", "@me 12 https://t.co/a"),  # nothing would be left
        ("12 34", "12 34"),
        ("w5", "w5"),
        ("[Na+].[Cl-]", "[na+].[cl-]"),  # one word, as molecules and codes are
        ("Ba0.5 Sr0.5 and 1,4-dioxane", "ba0.5 sr0.5 and 1,4-dioxane"),
        ("你好世界！ 5", "你好世界"),
        ("你好世界！", "你好世界"),  # no word, though without blanks
        ("CC.C1CCCCC1>>CC=O |f:0.1|", "CC.C1CCCCC1>>CC=O |f:0.1|"),  # a reaction
        ("CC>[Pd]>C1CC1", "CC>[Pd]>C1CC1"),
    ],
)
def test_a_plain_text_has_no_links_names_of_users_numbers_and_punctuation(text, plain):
    assert plain_text(normalised_text(text)) == plain


def test_signs_of_a_letter_belong_to_their_word():
    """The boy and the girl, in Hindi: they differ in vowel signs alone."""
    boy, girl = "यह लड़का पढ़ता है", "यह लड़की पढ़ती है।"
    assert plain_text(boy) != plain_text(girl) == girl.rstrip("।")
    assert WORD.findall(girl) == re.findall(WORD_OF_TWO, girl) == girl.rstrip("।").split()
    assert WORD.findall("東京 tower") == ["東", "京", "tower"]
    text = "Hello, it's 3 co-op foo_bar x2 naïve 1,4-dioxane."
    assert re.findall(WORD_OF_TWO, text) == CountVectorizer(lowercase=False).build_analyzer()(text)


def test_a_reaction_of_a_ring_is_not_that_of_an_aromatic_one():
    assert normalised_text("C1CCCCC1>>CC") != normalised_text("c1ccccc1>>CC")


def texts(*rows, **roles):
    """Prepared rows of texts, as many as make the copies among them less than a tenth, and their groups."""
    settings = competition(**roles)
    names = settings.inputs
    others = [[f"other thing w{k} {name}" for name in names] for k in range(40)]
    table = pd.DataFrame([*rows, *others], columns=names).assign(id=range(len(rows) + 40))
    return settings, table.assign(**{INPUT_KEY: input_keys(table, settings)})


def test_copies_of_a_text_are_one_group_and_numbers_alone_are_not():
    copies = "So good!", "RT @me so good", "so good https://t.co/1"
    settings, rows = texts(*([text] for text in (*copies, "so bad", "1 2", "3 4")), text=["t"])
    assert groups_of("kfold", rows, settings)[:6] == [0, 0, 0, 1, 2, 3]
    assert groups_of("column", rows, settings)[:6] == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]  # folds of the user may divide copies


def test_rows_of_several_inputs_are_copies_only_if_all_their_texts_are_and_the_other_inputs_are_equal():
    rows = ["so good!", "at home 1", "a"], ["So good", "at home", "a"], ["so good", "at work", "a"]
    settings, table = texts(*rows, ["so good", "at home", "b"], text=["t", "u"], categorical=["c"])
    assert groups_of("kfold", table, settings)[:4] == [0, 0, 1, 2]


@pytest.mark.parametrize(("n_copies", "n_groups"), [(4, 41), (5, 45)])
def test_a_form_that_numbers_fill_in_is_no_copy(n_copies, n_groups):
    """Four of 44 rows are less than a tenth, and five of 45 are more."""
    settings, rows = texts(*([f"it took {k} minutes"] for k in range(n_copies)), text=["t"])
    assert len(set(groups_of("kfold", rows, settings))) == n_groups


def test_a_row_outside_of_folds_has_the_group_of_the_training_row_that_it_copies():
    settings, rows = texts(["so good!"], ["so bad"], text=["t"])
    _, others = texts(["So good @me"], ["neither of them"], text=["t"])
    groups = compute_groups(FoldsConfig(kind="kfold"), rows, settings)
    outer = groups_outside_folds(
        FoldsConfig(kind="kfold"), rows, groups, others.iloc[[*[0] * 9, 1]], settings
    )
    assert outer.tolist() == [*[0] * 9, 42]  # however many copies there are
