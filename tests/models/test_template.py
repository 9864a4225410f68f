"""From the columns of a row to one text."""

from __future__ import annotations

import pandas as pd
import pytest

from competition.errors import ConfigError
from models.config import BertStage
from models.inputs.template import parse, read_template

INPUTS = pd.DataFrame({"a": ["CC", "", "C"], "b": ["O", "N", ""], "c": ["CCO", "N", "C"], "s t": ["hot", "{x}", ""]})


def texts(template: str | None, columns: list[str] | None = None, separator: str = "[SEP]") -> list[str]:
    return read_template(template, columns or [], ["a", "b", "c"], ["s t"], []).texts(INPUTS, separator)


def test_without_a_template_molecules_are_joined_by_a_dot_and_texts_by_the_separator() -> None:
    assert texts(None, ["a", "b", "s t"], "</s>") == ["CC.O</s>hot", "N</s>{x}", "C</s>"]
    assert texts(None, ["s t", "a", "b"]) == ["hot[SEP]CC.O", "{x}[SEP]N", "[SEP]C"]


def test_a_template_makes_a_reaction_and_an_empty_molecule_leaves_no_lone_dot() -> None:
    assert texts("{a}.{b}>>{c}") == ["CC.O>>CCO", "N>>N", "C>>C"]
    assert texts("{c}>>{a}.{b}") == ["CCO>>CC.O", "N>>N", "C>>C"]
    assert texts("{c} >> {a} . {b}") == texts("{c}>>{a}.{b}")


def test_the_separator_of_the_encoder_takes_the_place_of_its_name_and_the_blanks_around_it() -> None:
    assert texts("context: {s t} [SEP] {a}", separator="</s>")[0] == "context: hot</s>CC"


@pytest.mark.parametrize(
    ("template", "whole"),
    [
        ("{a}.{b}>>{c}", True),
        ("{a} . {b} >> {c}", True),
        ("{a}.{b}", False),
        ("{a} [SEP] {b}", False),
        ("{a}>>{s t}", False),
        ("x>{a}", False),
        ("{a}>{b}>{c}>", False),
    ],
)
def test_a_reaction_is_respelled_as_a_whole_and_all_else_column_by_column(template: str, whole: bool) -> None:
    read = read_template(template, [], ["a", "b", "c"], ["s t"], [])
    assert read.is_reaction == whole
    seen: list[str] = []
    rows: set[str] = set()

    def spell(smiles: str, row: str) -> str:
        seen.append(smiles)
        rows.add(row)
        return smiles

    text = read.texts(INPUTS.iloc[:1], "|", spell)[0]
    assert seen == ([text] if whole else [INPUTS[name][0] for name in read.columns if name in "abc"])
    assert rows == {"\n".join(INPUTS[name][0] for name in read.columns)}


def test_a_text_column_holds_smiles_where_the_stage_reads_atoms() -> None:
    assert read_template(None, [], [], ["rxn"], [], reads_atoms=True).smiles == {"rxn"}
    assert read_template(None, [], [], ["rxn"], []).smiles == set()


@pytest.mark.parametrize("template", ["{a}>>{d}", "{A}"])
def test_a_wrong_name_in_a_template_is_a_config_error_that_lists_the_inputs(template: str) -> None:
    with pytest.raises(ConfigError, match=r"\(a, b, c, s t\); found (d|A)\."):
        texts(template)


@pytest.mark.parametrize("template", ["no column", "{a", "{}>>{a}"])
def test_a_template_that_names_no_column_is_refused_with_the_settings(template: str) -> None:
    with pytest.raises(ValueError, match=r"must name columns|expected '}'"):
        BertStage.model_validate({"kind": "bert", "template": template})


def test_columns_that_are_not_those_of_the_template_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be those of the template \(a, b\)"):
        BertStage.model_validate({"kind": "bert", "template": "{a}>>{b}", "columns": ["a"]})
    BertStage.model_validate({"kind": "bert", "template": "{a}>>{b}", "columns": ["b", "a"]})


def test_a_colon_may_stand_in_a_columns_name() -> None:
    assert parse("x {a:b} y") == ([("x ", "a:b")], " y")
