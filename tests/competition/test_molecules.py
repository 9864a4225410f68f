"""One standard form of the molecules of all tables: what it changes, what is reported, what stays as it was."""

from pathlib import Path
from typing import Any

import pytest

from competition.config import load_competition
from competition.dataset import INPUT_KEY
from competition.molecules import standard_form
from competition.prepare import describe, prepare, prepare_test
from core.errors import ConfigError
from tests.competition.small import SAMPLE, write_small

TRAIN = ["id,SMILES,y", "a,CS(C)=O,1", "b,C[S+](C)[O-],2", "c,CC(=O)[O-].[Na+],3", "d,CC(=O)O,4", "e,CCO,5"]
TEST = ["id,SMILES", "t1,CCS(C)=O", "t2,CCN"]
WITHOUT_FORM = "CCOC(=O)[N-]c1c[n+](N2CCOCC2)no1"
"""A sydnone imine of tox21; RDKit cannot read the SMILES of its cleanup."""


def prepared(folder: Path, train: list[str] = TRAIN, **settings: Any) -> Any:
    return prepare(load_competition(str(write_small(folder, train, TEST, SAMPLE, **settings))))


@pytest.mark.parametrize(
    ("setting", "forms", "shared", "line"),
    [
        ("none", ["CS(C)=O", "C[S+](C)[O-]", "CC(=O)[O-].[Na+]", "CC(=O)O", "CCO"], [], None),
        (
            "cleanup",
            ["C[S+](C)[O-]", "C[S+](C)[O-]", "CC(=O)[O-].[Na+]", "CC(=O)O", "CCO"],
            [("a", "b")],
            "cleanup changed 1 of 5 molecules of train.csv, for example id a: CS(C)=O -> C[S+](C)[O-]",
        ),
        (
            "parent",
            ["C[S+](C)[O-]", "C[S+](C)[O-]", "CC(=O)O", "CC(=O)O", "CCO"],
            [("a", "b"), ("c", "d")],
            "parent changed 2 of 5 molecules of train.csv, for example id a: CS(C)=O -> C[S+](C)[O-]",
        ),
    ],
)
def test_all_tables_have_the_standard_form_and_equal_forms_are_equal_inputs(
    tmp_path: Path, setting: str, forms: list[str], shared: list[tuple[str, str]], line: str | None
) -> None:
    result = prepared(tmp_path, standardise=setting)
    assert result.train["SMILES"].tolist() == forms
    assert result.test["SMILES"][0] == ("CCS(C)=O" if setting == "none" else "CC[S+](C)[O-]")
    keys = result.train.set_index("id")[INPUT_KEY]
    pairs = [(one, other) for one in "abcde" for other in "abcde" if one < other and keys[one] == keys[other]]
    assert pairs == shared
    lines = describe(result.report).splitlines()
    assert [text for text in lines if " changed " in text and "train.csv" in text] == ([line] if line else [])
    of_test = f"{setting} changed 1 of 2 molecules of test.csv, for example id t1: CCS(C)=O -> CC[S+](C)[O-]"
    assert (of_test in lines) == (setting != "none")


def test_new_rows_and_extra_rows_are_standardised_in_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("SMILES,y\nCC[S+](C)[O-],1\nCCCS(C)=O,2\n")
    extra = {"extra_train": [{"file": "more.csv"}]}
    plain = prepared(tmp_path, **extra).train["SMILES"].tolist()
    assert plain[-2:] == ["CC[S+](C)[O-]", "CCCS(C)=O"]  # the first is a test molecule in another form
    result = prepared(tmp_path, standardise="cleanup", **extra)
    assert result.train["SMILES"].tolist()[-2:] == ["CCO", "CCC[S+](C)[O-]"]
    said = describe(result.report)
    assert "1 extra training rows from more.csv; left out: 1 with the input of a test row" in said
    assert "cleanup changed 1 of 2 molecules of more.csv, for example id row 3: CCCS(C)=O ->" in said
    config = load_competition(str(write_small(tmp_path, TRAIN, TEST, SAMPLE, standardise="parent")))
    (tmp_path / "hidden.csv").write_text("id,SMILES\nh1,[Na+].CC(=O)[O-]\n")
    assert prepare_test(config, tmp_path / "hidden.csv")[0]["SMILES"].tolist() == ["CC(=O)O"]


def test_a_molecule_without_a_readable_form_stays_unchanged_and_is_reported(tmp_path: Path) -> None:
    assert standard_form(WITHOUT_FORM, "cleanup") is None
    assert standard_form("[SbH6+3]", "parent") is None  # RDKit raises an error
    result = prepared(tmp_path, [*TRAIN, f"f,{WITHOUT_FORM},6"], standardise="cleanup")
    assert result.train["SMILES"].iloc[-1] == WITHOUT_FORM
    note = (
        "1 molecules of train.csv have no cleanup that RDKit can read and stay unchanged, for example "
        f"id f: {WITHOUT_FORM}"
    )
    assert note in describe(result.report).splitlines()


def test_an_empty_molecule_and_one_that_does_not_parse_are_treated_as_before(tmp_path: Path) -> None:
    lines = [*TRAIN[:-1], "e, ,5", "f,C(C,6"]
    result = prepared(tmp_path, lines, standardise="parent", empty_smiles="[Ar]", unparsable="drop")
    assert result.train["SMILES"].iloc[-1] == "[Ar]"
    assert "1 empty molecules are read as empty_smiles" in describe(result.report)
    assert result.report["dropped_train_ids"] == ["f"]


def test_other_values_and_a_competition_without_molecules_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"standardise.*'none', 'cleanup' or 'parent'"):
        prepared(tmp_path, standardise="tautomer")
    with pytest.raises(ConfigError, match=r"standardise: parent needs molecule columns, and smiles is empty"):
        prepared(tmp_path, smiles=None, text=["SMILES"], standardise="parent")
