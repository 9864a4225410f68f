"""One standard form of the molecules of all tables: what it changes, what is reported, what stays as it was."""

import pytest

from competition.config import load_competition
from competition.dataset import INPUT_KEY
from competition.molecules import canonical_smiles, standard_form
from competition.prepare import describe, prepare, prepare_test
from tests.competition.small import prepared, write_small

TRAIN = ["id,SMILES,y", "a,CS(C)=O,1", "b,C[S+](C)[O-],2", "c,CC(=O)[O-].[Na+],3", "d,CC(=O)O,4", "e,CCO,5"]
TEST = "id,SMILES t1,CCS(C)=O t2,CCN"
WITHOUT_FORM = "CCOC(=O)[N-]c1c[n+](N2CCOCC2)no1"
"""A sydnone imine of tox21; RDKit cannot read the SMILES of its cleanup."""


def test_a_molecule_has_one_canonical_form_or_none():
    for smiles, canonical in {"OCC": "CCO", " OCC ": "CCO", "CCO |$;;$|": "CCO"}.items():
        assert canonical_smiles(smiles) == canonical
    assert canonical_smiles("C1=CC=CC=C1") == "c1ccccc1"
    assert not any(
        map(canonical_smiles, ("", "CC O", "CCO ethanol", "CCO pure ethanol", "C1CC", "CC>>CO", "yes"))
    )


SULFOXIDE = "C[S+](C)[O-]"


@pytest.mark.parametrize(
    ("setting", "forms", "n_inputs", "n_changed"),
    [
        ("none", ["CS(C)=O", SULFOXIDE, "CC(=O)[O-].[Na+]", "CC(=O)O", "CCO"], 5, 0),
        ("cleanup", [SULFOXIDE, SULFOXIDE, "CC(=O)[O-].[Na+]", "CC(=O)O", "CCO"], 4, 1),
        ("parent", [SULFOXIDE, SULFOXIDE, "CC(=O)O", "CC(=O)O", "CCO"], 3, 2),
    ],
)
def test_all_tables_have_the_standard_form_and_equal_forms_are_equal_inputs(
    tmp_path, setting, forms, n_inputs, n_changed
):
    tables = prepared(tmp_path, TRAIN, TEST, standardise=setting)
    assert tables.train["SMILES"].tolist() == forms
    assert tables.train[INPUT_KEY].nunique() == n_inputs
    assert tables.test["SMILES"][0] == ("CC[S+](C)[O-]" if n_changed else "CCS(C)=O")
    changes = [
        f"{setting} changed {n_changed} of 5 molecules of train.csv, for example id a: CS(C)=O -> C[S+](C)[O-]",
        f"{setting} changed 1 of 2 molecules of test.csv, for example id t1: CCS(C)=O -> CC[S+](C)[O-]",
    ]
    lines = describe(tables.report).splitlines()
    assert [line for line in lines if " changed " in line] == (changes if n_changed else [])


def test_new_rows_and_extra_rows_are_standardised_in_the_same_way(tmp_path):
    (tmp_path / "more.csv").write_text(
        "SMILES,y\nCC[S+](C)[O-],1\nCCCS(C)=O,2\n"
    )  # the first is a test molecule
    (tmp_path / "hidden.csv").write_text("id,SMILES\nh1,[Na+].CC(=O)[O-]\n")
    settings = {"standardise": "parent", "extra_train": [{"file": "more.csv"}]}
    config = load_competition(str(write_small(tmp_path, TRAIN, TEST, **settings)))
    tables = prepare(config)
    assert tables.train["SMILES"].tolist()[5:] == ["CCC[S+](C)[O-]"]
    line = "parent changed 1 of 2 molecules of more.csv, for example id row 3: CCCS(C)=O ->"
    assert line in describe(tables.report)
    assert prepare_test(config, tmp_path / "hidden.csv")[0]["SMILES"].tolist() == ["CC(=O)O"]


def test_a_molecule_without_a_readable_form_stays_unchanged_and_is_reported(tmp_path):
    assert standard_form(WITHOUT_FORM, "cleanup") is None
    assert standard_form("[SbH6+3]", "parent") is None  # RDKit raises an error
    lines = [*TRAIN, f"f,{WITHOUT_FORM},6", "g, ,7"]
    tables = prepared(tmp_path, lines, TEST, standardise="cleanup", empty_smiles="[Ar]")
    assert tables.train["SMILES"].tolist()[5:] == [WITHOUT_FORM, "[Ar]"]
    note = (
        "1 molecules of train.csv have no cleanup that RDKit can read and stay unchanged, for example "
        f"id f: {WITHOUT_FORM}"
    )
    assert note in describe(tables.report).splitlines()
