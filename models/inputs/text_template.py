"""How the columns of a row become one text: joined, or by the template of the settings.

This module does not import torch.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd
import tokenizers

from competition.config import CompetitionConfig
from core.errors import ConfigError
from models.bert_config import BertConfig
from models.context import Context
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.weights import WEIGHT_SETS, find_weights

SEPARATOR = "[SEP]"
"""Placeholder in a template for the separator of the encoder."""
MAX_UNKNOWN_SHARE = 0.5
"""Share of unknown tokens above which the vocabulary does not fit the columns."""


@dataclass(frozen=True)
class Template:
    """How the columns of a row become one text.

    Attributes:
        columns: columns in the order of the text.
        literals: text before each column and after the last one, one more than columns.
        smiles: the columns that contain SMILES.
    """

    columns: list[str]
    literals: list[str]
    smiles: frozenset[str]

    @property
    def is_reaction(self) -> bool:
        """Whether the text is the SMILES of a reaction, made of molecule columns."""
        joined = "".join(self.literals)
        return set(self.columns) <= self.smiles and 1 <= joined.count(">") <= 2 and not joined.strip(".>")

    @property
    def has_words(self) -> bool:
        """Whether there are words around the columns, such as an instruction."""
        return any(re.search(r"\w", literal.replace(SEPARATOR, "")) for literal in self.literals)

    def texts(
        self,
        inputs: pd.DataFrame,
        separator: str,
        randomize: Callable[[str, str], str] = lambda smiles, row: smiles,
    ) -> list[str]:
        """Return one text per row.

        Args:
            inputs: columns of the rows.
            separator: separator of the encoder.
            randomize: function from a SMILES and all values of its row to a randomized SMILES. A
                reaction is randomized as one SMILES. Otherwise each column is randomized
                separately, since the order of columns may have a meaning (a solute, its solvent).
        """
        randomized_columns = set() if self.is_reaction else self.smiles
        *literals, end = (
            re.sub(r"\s*\[SEP\]\s*", lambda match: separator, literal) for literal in self.literals
        )
        texts = []
        for values in inputs[self.columns].astype(str).itertuples(index=False, name=None):
            text = ""
            row = "\n".join(values)
            for literal, column, value in zip(literals, self.columns, values, strict=True):
                # An empty cell contains no molecule: its dot would be a token without a meaning.
                is_gap = literal == "." and (not value or not text or text.endswith((">", separator)))
                if not is_gap:
                    text += literal
                text += randomize(value, row) if column in randomized_columns else value
            text += end
            texts.append(randomize(text, row) if self.is_reaction else text)
        return texts

    def notes(
        self, stage: BertConfig | EncoderFeature, unknown_share: float, n_cut: int, n_texts: int, longest: int
    ) -> list[str]:
        """Return a message if training texts were truncated; otherwise an empty list.

        Args:
            stage: settings with the weights.
            unknown_share: share of the tokens that the vocabulary does not contain.
            n_cut: number of truncated texts, out of `n_texts`.
            longest: maximum length in tokens.

        Raises:
            ConfigError: so many tokens are unknown that the vocabulary cannot be meant for these
                columns.
        """
        if unknown_share > MAX_UNKNOWN_SHARE:
            raise ConfigError(
                f"{unknown_share:.0%} of the tokens of {', '.join(self.columns)} are unknown to the weights "
                f"{stage.weights!r}; use other columns or weights, or set tokenizer: smiles if vocab.txt "
                "contains atoms."
            )
        if not n_cut:
            return []
        return [f"{n_cut} of {n_texts} training texts have more than {longest} tokens and were cut."]


def read_template(stage: BertConfig | EncoderFeature, inputs: CompetitionConfig | Context) -> Template:
    """Return the template of a stage.

    Without the setting `template`, "." joins neighbouring molecule columns and [SEP] all others.
    Without the setting `columns`, all text columns are read, or all molecule columns if the
    competition has no text columns.

    Raises:
        ConfigError: the template cannot be parsed, a column is not an input, or enumerate_smiles
            has nothing to randomize.
    """
    columns, literals = _parse_template(stage, inputs)
    available = [*inputs.smiles, *inputs.text, *inputs.categorical]
    unknown = [column for column in columns if column not in available]
    if unknown or not columns:
        raise ConfigError(
            "a stage that reads text requires columns of molecules, text or categories "
            f"({', '.join(available) or 'none'}); got {', '.join(unknown) or 'none'}. "
            "Name the column under competition.text or competition.smiles."
        )
    molecules = frozenset(columns if reads_atoms(stage) else {*columns} & {*inputs.smiles})
    if molecules >= set(columns):  # whitespace around an arrow is for the reader only
        literals = [re.sub(r"\s*([.>]+)\s*", r"\1", literal) for literal in literals]
    template = Template(columns, literals, molecules)
    _require_molecules(stage, template)
    return template


def count_cut_texts(stage: BertConfig | EncoderFeature, inputs: CompetitionConfig, rows: pd.DataFrame) -> int:
    """Return how many rows have a text of more than `max_length` tokens.

    It is 0 for a tokenizer that is made from the training rows, or that has no tokenizer.json.
    """
    files = find_weights(stage.weights) if stage.weights else {}
    if "tokenizer.json" not in files or reads_atoms(stage):
        return 0
    tokenizer = tokenizers.Tokenizer.from_file(str(files["tokenizer.json"]))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = read_template(stage, inputs).texts(rows, " ")
    return sum(len(encoding.ids) > stage.max_length for encoding in tokenizer.encode_batch(texts))


def _parse_template(
    stage: BertConfig | EncoderFeature, inputs: CompetitionConfig | Context
) -> tuple[list[str], list[str]]:
    """Return the columns of a stage's text, and the literals around them."""
    if stage.template is None:
        columns = list(stage.columns or inputs.text or inputs.smiles)
        joints = ["." if {*pair} <= {*inputs.smiles} else SEPARATOR for pair in pairwise(columns)]
        return columns, ["", *joints, ""]
    pieces = re.split(r"\{([^{}]+)\}", stage.template)
    literals = pieces[::2]
    columns = pieces[1::2]
    if not columns or {*"{}"} & {*"".join(literals)}:
        raise ConfigError(
            f"a template names columns in braces, as in {{a}} [SEP] {{b}}; got {stage.template!r}"
        )
    if stage.columns and set(stage.columns) != set(columns):
        raise ConfigError(
            f"columns must be the columns of the template ({', '.join(columns)}), or be removed"
        )
    return columns, literals


def _require_molecules(stage: BertConfig | EncoderFeature, template: Template) -> None:
    """Check that `enumerate_smiles` has a SMILES to randomize, or molecules to shuffle."""
    if not stage.enumerate_smiles:
        return
    if not template.smiles:
        raise ConfigError(
            f"enumerate_smiles requires a molecule column, got {', '.join(template.columns)}. "
            "Name one, or set tokenizer: smiles if a text column contains SMILES."
        )
    if stage.enumerate_smiles == "order" and len(template.columns) > 1 and not template.is_reaction:
        raise ConfigError(
            "enumerate_smiles: order requires columns that are a side of a reaction. Set a template with "
            'an arrow, such as "{' + "}.{".join(template.columns) + '}>>".'
        )


def reads_atoms(stage: BertConfig | EncoderFeature) -> bool:
    """Return whether all columns of a stage are SMILES, with one token per atom."""
    return stage.tokenizer == "smiles" or (stage.weights in WEIGHT_SETS and WEIGHT_SETS[stage.weights].atoms)
