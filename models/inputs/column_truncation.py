"""Truncation of the columns in a text, so that the words of its template stay: an instruction, an answer's prompt."""

import pandas as pd
from transformers import PreTrainedTokenizerFast as Tokenizer

from competition.dataset import Dataset
from core.errors import DataError
from models.inputs.text_template import Template


def shorten_columns(
    tokenizer: Tokenizer, template: Template, rows: Dataset, separator: str
) -> tuple[pd.DataFrame, int]:
    """Return the inputs of rows with shorter cells where the text is too long, and the number of such rows.

    The end of the longest column is cut first, then the ends of the longest columns together.

    Args:
        tokenizer: its `model_max_length` is the maximum length.
        template: how the columns of a row become one text.
        rows: rows with the columns of the template.
        separator: separator of the encoder.

    Raises:
        DataError: if the text has too many tokens even without its columns.
    """
    texts = template.texts(rows.inputs, separator)
    ids = tokenizer(texts, verbose=False)["input_ids"]
    too_long = [i for i, row in enumerate(ids) if len(row) > tokenizer.model_max_length]
    columns = {name: list(rows.inputs[name].astype(str)) for name in template.columns}
    for i in too_long:
        cells = [columns[name][i] for name in template.columns]
        shortened = _shorten_cells(tokenizer, template, cells, separator)
        if shortened is None:
            raise DataError(
                f"row {rows.ids[i]}: the template alone takes all of the {tokenizer.model_max_length} tokens of an "
                "input. Raise max_length as far as the model allows, or shorten the template."
            )
        for name, cell in zip(template.columns, shortened, strict=True):
            columns[name][i] = cell
    return rows.inputs.assign(**columns), len(too_long)


def _shorten_cells(
    tokenizer: Tokenizer, template: Template, cells: list[str], separator: str
) -> list[str] | None:
    """Return the cells of a row, cut until its text fits; None if it does not fit with empty cells.

    Tokens at a cut may merge or split, so the number of tokens is counted again after each cut.
    """

    def n_tokens(values: list[str]) -> int:
        (text,) = template.texts(pd.DataFrame([values], columns=template.columns), separator)
        return len(tokenizer(text, verbose=False)["input_ids"])

    encoded = tokenizer(cells, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ends = [[end for _, end in offsets] for offsets in encoded["offset_mapping"]]
    budget = tokenizer.model_max_length - n_tokens([""] * len(cells))
    while budget > 0:
        longest = _longest_that_fits([len(tokens) for tokens in ends], budget)
        shortened = [
            cell[: tokens[longest - 1] if longest else 0] if len(tokens) > longest else cell
            for cell, tokens in zip(cells, ends, strict=True)
        ]
        excess = n_tokens(shortened) - tokenizer.model_max_length
        if excess <= 0:
            return shortened
        budget -= excess
    return None


def _longest_that_fits(lengths: list[int], budget: int) -> int:
    """Return the largest length to which all longer columns may be cut, so that the sum is within the budget."""
    longest = 0
    while sum(min(length, longest + 1) for length in lengths) <= budget and longest < max(lengths):
        longest += 1
    return longest
