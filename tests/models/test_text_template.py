"""How the columns of a row become one text."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from core.errors import ConfigError
from models.inputs.texts import Template, read_template, require_molecules
from models.stages.bert import Bert
from tests.models.made import context

INPUTS = pd.DataFrame({
    "a": ["CC", "", "C"], "b": ["O", "N", ""], "c": ["CCO", "N", "C"], "s t": ["hot", "{x}", ""],
})  # fmt: skip


def read(
    template: str | None = None, smiles: str = "abc", texts: Any = ("s t",), **settings: Any
) -> Template:
    stage = Bert.model_validate({"kind": "bert", "template": template, **settings})
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
