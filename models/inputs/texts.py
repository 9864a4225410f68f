"""How the columns of a row become one text: template, truncation of columns, and randomized SMILES.

A randomized SMILES depends only on (SMILES, inputs of its row, number of the augmentation, seed),
and so not on the other rows of a batch.

This module does not import torch.

Sources: Bjerrum, SMILES Enumeration, arXiv 1703.07076; Schwaller et al., Data augmentation
strategies to improve reaction yield predictions, 2020 (randomized SMILES, and the order of the
molecules of a reaction).
"""

import bisect
import functools
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import tokenizers
from rdkit import Chem

from competition.dataset import Dataset
from core.errors import ConfigError, DataError
from core.files import derive_seed, read_json
from core.types import Integers
from models.context import Context
from models.inputs.encoder_settings import TextStage
from models.inputs.weights import WEIGHT_SETS, find_weights

SMILES_TOKEN = (
    r"(\%\([0-9]{3}\)|\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\||\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>>?|\*|\$"
    r"|\%[0-9]{2}|[0-9]|.)"
)
"""Atoms, bonds and ring closures. The last alternative, any other character, is an addition of this
project.

Source: Schwaller et al., Molecular Transformer, ACS Central Science 2019, as in the package rxnfp.
"""
RANDOM_SMILES_TOKENS = "()/\\123456789%10%11%12"
"""Branches, bond directions and ring closures: tokens that a randomized SMILES may need and the
canonical one may not."""
SEPARATOR = "[SEP]"
"""Placeholder in a template for the separator of the encoder."""
UNKNOWN_TOKENS = ("[UNK]", "<unk>")
"""Names of the token for what a vocabulary does not contain."""
PIECE = 1_000
"""Number of texts that are tokenized at a time."""
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
        self, weights: str | None, unknown_share: float, n_cut: int, n_texts: int, longest: int
    ) -> list[str]:
        """Return a message if training texts were truncated; otherwise an empty list.

        Args:
            weights: name of the weights.
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
                f"{weights!r}; use other columns or weights, or set tokenizer: smiles if vocab.txt "
                "contains atoms."
            )
        if not n_cut:
            return []
        return [f"{n_cut} of {n_texts} training texts have more than {longest} tokens and were cut."]


def read_template(stage: TextStage, inputs: Context) -> Template:
    """Return the template of a stage.

    Without the setting `template`, "." joins neighbouring molecule columns and [SEP] all others.
    Without the setting `columns`, all text columns are read, or all molecule columns if the
    competition has no text columns.

    Raises:
        ConfigError: the template cannot be parsed, or a column is not an input.
    """
    if stage.template is None:
        columns = list(stage.columns or inputs.text or inputs.smiles)
        joints = ["." if {*pair} <= {*inputs.smiles} else SEPARATOR for pair in pairwise(columns)]
        literals = ["", *joints, ""]
    else:
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
    return Template(columns, literals, molecules)


def read_templates(stage: TextStage, inputs: Context) -> list[Template]:
    """Return the templates of all texts that a stage reads of a row.

    It is one, but one per text column for a frozen encoder without the setting `template`.

    Raises:
        ConfigError: as `read_template`, or an encoder compares pairs, and the competition has none.
    """
    template = read_template(stage, inputs)
    columns = stage.separate_columns(template.columns, template.smiles, inputs.pairs)
    return [Template([column], ["", ""], template.smiles & {column}) for column in columns] or [template]


def longest_input(stage: TextStage) -> int:
    """Return the number of tokens beyond which a text is cut: `max_length`, or what the weights have positions for."""
    files = find_weights(stage.weights) if stage.weights else {}
    config = read_json(files["config.json"]) if "config.json" in files else {}
    return min(stage.max_length, max_positions(config))


def max_positions(config: dict[str, Any]) -> int:
    """Return the number of positions by the configuration of an encoder; 2**31 if they are relative or unlimited."""
    limit = config.get("max_position_embeddings")
    are_relative = not config.get("position_biased_input", True)  # as in DeBERTa-v3
    return limit if isinstance(limit, int) and limit > 0 and not are_relative else 2**31


def count_tokens(stage: TextStage, inputs: Context, rows: pd.DataFrame) -> tuple[int, int, int, int]:
    """Return the numbers of texts, of those with more tokens than are read, of all tokens, and of unknown ones.

    They are 0 for word pieces that are made from the training rows, and for weights without a tokenizer.json. Unknown
    tokens of SMILES are not counted.
    """
    files = find_weights(stage.weights) if stage.weights else {}
    max_length = longest_input(stage)
    templates = read_templates(stage, inputs)
    texts: list[str] = []
    for template in templates:
        texts += template.texts(rows, " ")
    are_molecules = all(template.smiles >= {*template.columns} for template in templates)
    if reads_atoms(stage) or (not stage.weights and are_molecules):
        lengths = [2 + len(re.findall(SMILES_TOKEN, text)) for text in texts]
        return len(texts), sum(length > max_length for length in lengths), sum(lengths), 0
    if "tokenizer.json" not in files:
        return 0, 0, 0, 0
    tokenizer = tokenizers.Tokenizer.from_file(str(files["tokenizer.json"]))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    unknown = {tokenizer.token_to_id(token) for token in UNKNOWN_TOKENS}
    n_cut = n_tokens = n_unknown = 0
    for piece in pieces(texts):
        for text in tokenizer.encode_batch(piece):
            n_cut += len(text.ids) > max_length
            n_tokens += len(text.ids)
            n_unknown += sum(map(unknown.__contains__, text.ids))
    return len(texts), n_cut, n_tokens, n_unknown


def reads_atoms(stage: TextStage) -> bool:
    """Return whether all columns of a stage are SMILES, with one token per atom."""
    return stage.tokenizer == "smiles" or (stage.weights in WEIGHT_SETS and WEIGHT_SETS[stage.weights].atoms)


def shorten_columns(
    tokenizer: Any, template: Template, rows: Dataset, separator: str
) -> tuple[pd.DataFrame, int]:
    """Return the inputs of rows with shorter cells where the text is too long, and the number of such rows.

    The end of the longest column is cut first, then the ends of the longest columns together.

    Args:
        tokenizer: a fast tokenizer; its `model_max_length` is the maximum length.
        template: how the columns of a row become one text.
        rows: rows with the columns of the template.
        separator: separator of the encoder.

    Raises:
        DataError: if the text has too many tokens even without its columns.
    """
    limit = tokenizer.model_max_length
    n_tokens: list[int] = []
    for texts in pieces(template.texts(rows.inputs, separator)):
        n_tokens += map(len, tokenizer(texts, verbose=False)["input_ids"])
    too_long = [i for i, n in enumerate(n_tokens) if n > limit]
    columns = {name: list(rows.inputs[name].astype(str)) for name in template.columns}
    for i in too_long:
        cells = [columns[name][i] for name in template.columns]
        encoded = tokenizer(cells, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [[0, *(end for _, end in offsets)] for offsets in encoded["offset_mapping"]]
        counts = np.array(list(map(len, ends))) - 1
        n = n_tokens[i]
        room = counts.sum()
        while n > limit:  # tokens at a cut may merge or split
            room -= n - limit
            if room <= 0:
                raise DataError(
                    f"row {rows.ids[i]}: the template alone takes all of the {limit} tokens of an "
                    "input. Raise max_length as far as the model allows, or shorten the template."
                )
            longest = _longest(counts, room)
            cut = [_cut(cell, cell_ends, longest) for cell, cell_ends in zip(cells, ends, strict=True)]
            (text,) = template.texts(pd.DataFrame([cut], columns=template.columns), separator)
            n = len(tokenizer(text, verbose=False)["input_ids"])
        for name, cell in zip(template.columns, cut, strict=True):
            columns[name][i] = cell
    return rows.inputs.assign(**columns), len(too_long)


def pieces(texts: list[str]) -> Iterator[list[str]]:
    """Yield the texts in lists of at most PIECE, since a tokenizer returns some hundred bytes per token."""
    for start in range(0, len(texts), PIECE):
        yield texts[start : start + PIECE]


def _longest(counts: Integers, room: int) -> int:
    """Return the length to which columns with so many tokens are cut, so that they have at most `room` together."""
    return (
        bisect.bisect_right(range(counts.max()), room, key=lambda length: np.minimum(counts, length).sum())
        - 1
    )


def _cut(cell: str, ends: list[int], n: int) -> str:
    """Return the first n tokens of a cell; `ends` has the positions after 0, 1, 2, ... tokens."""
    return cell[: ends[n]] if n < len(ends) - 1 else cell


def randomize_smiles(smiles: str, row: str, augmentation: int, seed: int) -> str:
    """Return a randomized SMILES of a molecule, a mixture or a reaction.

    The molecules on each side of a ">" are shuffled. A SMILES that RDKit cannot parse is returned
    unchanged.

    Args:
        smiles: canonical SMILES.
        row: all values of the row as text, so that a molecule is written differently in each of its
            rows.
        augmentation: number of the randomized SMILES; 0 is `smiles` itself.
        seed: seed of the job.
    """
    if augmentation == 0 or len(smiles.split()) != 1:
        return smiles
    generator = random.Random(derive_seed(seed, augmentation, smiles, row))
    sides = []
    for side in re.split("(?<!-)>", smiles):  # "->" is a dative bond
        molecules = [_parse(component) for component in side.split(".") if component]
        if None in molecules:
            return smiles
        components = [Chem.MolToRandomSmilesVect(mol, 1, generator.getrandbits(31))[0] for mol in molecules]
        generator.shuffle(components)
        sides.append(".".join(components))
    return ">".join(sides)


@functools.lru_cache(maxsize=10_000)  # parsing takes longer than writing; about 10 kB each
def _parse(smiles: str) -> Chem.Mol | None:
    return Chem.MolFromSmiles(smiles)


def mirror_stereo(texts: Iterable[str]) -> list[str]:
    """Return all texts twice, with every chirality as "@" and as "@@", since a randomized SMILES
    may contain either.
    """
    one_way = [text.replace("@@", "@") for text in texts]
    return [*one_way, *(text.replace("@", "@@") for text in one_way)]
