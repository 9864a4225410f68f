"""How the columns of a row become one text: joined, or by the template of the settings. Without torch."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from competition.config import CompetitionConfig
from competition.errors import ConfigError
from models.inputs.weights import WEIGHT_SETS
from models.settings import BertStage, Encoder
from models.stage import Context

SEPARATOR = "[SEP]"
"""Stands in a template for the encoder's own separator."""
MOST_UNKNOWN = 0.5
"""Share of unknown tokens above which a vocabulary cannot be the one for these inputs."""


@dataclass(frozen=True)
class Template:
    """How a text is made of columns."""

    columns: list[str]
    literals: list[str]
    """What stands before each column, and behind the last."""
    smiles: frozenset[str]
    """Those of the columns that hold SMILES."""

    @property
    def is_reaction(self) -> bool:
        """Whether the template makes a reaction's SMILES of molecule columns, each of its sides a set of molecules."""
        around = "".join(self.literals)
        return set(self.columns) <= self.smiles and 1 <= around.count(">") <= 2 and not around.strip(".>")

    def texts(
        self, inputs: pd.DataFrame, separator: str, spell: Callable[[str, str], str] = lambda smiles, row: smiles
    ) -> list[str]:
        """One text per row, with the encoder's separator.

        `spell` gives another spelling of a SMILES: of a reaction as a whole, else of each column by itself, since the
        order of columns may tell what a molecule is there for (a solute, its solvent). It also gets all values of the
        row: a molecule that many rows have is to be spelled in as many ways.
        """
        whole = self.is_reaction
        spelled = set() if whole else self.smiles
        *literals, end = (re.sub(r"\s*\[SEP\]\s*", lambda found: separator, literal) for literal in self.literals)
        texts = []
        for values in inputs[self.columns].astype(str).itertuples(index=False, name=None):
            text, row = "", "\n".join(values)
            for literal, column, value in zip(literals, self.columns, values, strict=True):
                # An empty cell is no molecule: a lone dot would be a token that means nothing.
                is_gap = literal == "." and (not value or not text or text.endswith((">", separator)))
                text += ("" if is_gap else literal) + (spell(value, row) if column in spelled else value)
            texts.append(spell(text + end, row) if whole else text + end)
        return texts

    def notes(self, stage: BertStage | Encoder, unknown: float, n_cut: int, n_texts: int, longest: int) -> list[str]:
        """A sentence on the training texts that were cut; a ConfigError where the share of `unknown` tokens shows that
        the vocabulary is not the one for these columns.
        """
        if unknown > MOST_UNKNOWN:
            raise ConfigError(
                f"{unknown:.0%} of the tokens of {', '.join(self.columns)} are unknown to the weights "
                f"{stage.weights!r}; name other columns or weights, or set tokens: smiles for a vocab.txt of atoms."
            )
        what = f"{n_cut} of {n_texts} training texts have more than {longest} tokens and were cut"
        return [f"{what} (too_long: {stage.too_long})."] if n_cut else []


def read_template(stage: BertStage | Encoder, inputs: CompetitionConfig | Context) -> Template:
    """The template of a stage; without one, "." between neighbouring molecule columns and [SEP] between all others.

    Without columns, all text columns are read, or where there are none, all molecule columns. With enumerate_smiles
    there must be a SMILES to spell in another way, or molecules to put in another order.
    """
    template = stage.template
    if template is None:
        named = stage.columns or inputs.text or inputs.smiles
        joints = ["." if {*pair} <= {*inputs.smiles} else SEPARATOR for pair in pairwise(named)]
        template = "".join(f"{{{column}}}{joint}" for column, joint in zip(named, [*joints, ""], strict=False))
    parts = re.split(r"\{([^{}]+)\}", template)
    literals, columns = parts[::2], parts[1::2]
    if stage.template is not None and (not columns or {*"{}"} & {*"".join(literals)}):
        raise ConfigError(f"a template names columns in braces, as in {{a}} [SEP] {{b}}; found {template!r}")
    if stage.columns and set(stage.columns) != set(columns):
        raise ConfigError(f"columns must be those of the template ({', '.join(columns)}), or be left out")
    known = [*inputs.smiles, *inputs.text, *inputs.categorical]
    foreign = [column for column in columns if column not in known]
    if foreign or not columns:
        raise ConfigError(
            f"a stage that reads text takes columns of molecules, text or categories ({', '.join(known) or 'none'}); "
            f"found {', '.join(foreign) or 'none'}. Name the column under competition.text or competition.smiles."
        )
    molecules = frozenset(columns if reads_atoms(stage) else {*columns} & {*inputs.smiles})
    if molecules >= set(columns):  # blanks around an arrow are for the reader
        literals = [re.sub(r"\s*([.>]+)\s*", r"\1", literal) for literal in literals]
    found = Template(columns, literals, molecules)
    if enumerates := getattr(stage, "enumerate_smiles", False):
        if not molecules:
            raise ConfigError(
                f"enumerate_smiles needs a column of molecules; found {', '.join(columns)}. Name one, or set "
                "tokens: smiles where a text column holds SMILES."
            )
        if enumerates == "order" and len(columns) > 1 and not found.is_reaction:
            raise ConfigError(
                "enumerate_smiles: order needs columns that are a side of a reaction. Set a template with an arrow, "
                'such as "{' + "}.{".join(columns) + '}>>".'
            )
    return found


def reads_atoms(stage: BertStage | Encoder) -> bool:
    """Whether all columns are SMILES, cut into atoms."""
    return stage.tokens == "smiles" or (stage.weights in WEIGHT_SETS and WEIGHT_SETS[stage.weights].atoms)
