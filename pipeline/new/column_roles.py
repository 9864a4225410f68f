"""The role of one column: molecules, text, numbers, categories, or none.

Every role is a guess with a reason, which `./run.sh new` prints and writes into the YAML.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from competition.cells import count_new_values, dates_in_any_form, day_is_first, is_missing_cell, to_numbers
from competition.labels import PATTERN as CENSORED
from competition.labels import describe_placeholder
from competition.molecules import canonical_smiles
from folds.units import MIN_GROUPS
from pipeline.new.yaml_writer import to_yaml

Role = Literal["smiles", "text", "numeric", "categorical", "left out"]

MAX_SAMPLED = 200
"""Number of distinct values that are parsed to detect molecules."""
MIN_PARSED = 0.95
"""Share of the values that RDKit must parse in a column without a telling name."""
SMILES_NAME = re.compile(r"smiles|^mol(ecule)?s?$|structure", re.IGNORECASE)
ID_NAME = re.compile(r"(^|[\s_.:-])(id|Id|ID|idx|index|uuid)$|[a-z](ID|Id)$|(^|_)[CS]ID$")
ROW_NUMBERS = re.compile(r"\s*|Unnamed: \d+|__index_level_\d+__")
"""Names under which pandas writes the index of a table, and reads it again."""
STRUCTURE = re.compile(r"[=#()\[\]\d]")
"""Characters of SMILES that words do not have: bonds, branches, brackets, rings."""
NOTATIONS = {
    "SELFIES": re.compile(r"(\[[^\[\]\s,'\"]*[A-Za-z][^\[\]\s,'\"]*\])+"),
    "InChIKey": re.compile(r"[A-Z]{14}-[A-Z]{10}-[A-Z]"),
    "HELM": re.compile(r"(PEPTIDE|RNA|CHEM|BLOB)\d+\{.*\}.*"),
    "BigSMILES": re.compile(r".*\{.*(\[[<>$]\d*\]).*\}.*"),
    "an RDKit object": re.compile(r"<rdkit\..* object at 0x[0-9A-Fa-f]+>"),
}
"""Notations of molecules that are not read; some of their cells could be SMILES by chance."""
LINK = re.compile(r"(https?://|www\.)\S+", re.IGNORECASE)
SIGNS = ("<", ">", "<=", ">=", "≤", "≥", "<<", ">>", "~")
"""Signs of bounds in a column of their own, as in exports of ChEMBL."""
WEIGHT_NAME = re.compile(r"^(sample[ _]?)?weights?$|confidence", re.IGNORECASE)
GROUP_NAME = re.compile(r"group|cluster|scaffold|fold|split|series|batch", re.IGNORECASE)
NUMBER = r"[+-]?[\d.]+(e[+-]?\d+)?|nan|none"
NUMBER_LIST = re.compile(rf"[\[({{]\s*(({NUMBER})([\s,;]+({NUMBER}))*[\s,;]*)?[\])}}]", re.IGNORECASE)
"""Numbers in brackets, as Python and NumPy write lists, such as [0.3, 0.7] and [1.0]."""
TEXT_LIST = re.compile(r'\[\s*("|null\b).*\]', re.DOTALL)
"""Texts in brackets, as JSON writes lists, such as the turns of a conversation."""
DECORATED = (
    r"(?!\d+\.\d+\.)[<>=~≤≥$€£]{0,2}\s?[+-]?[\d.,]*\d(\s?[%$€£°]\w?|\s?[a-zµμ][^\s\d]{0,5}|\s[^\s\d]{1,6})?"
)
"""Numbers with a sign, commas or a unit."""
MIN_SEQUENCE = 8
"""Mean number of letters above which a column of single words, without digits and signs, has sequences."""
MAX_LETTERS_OF_WORD = 100
"""Mean number of letters above which sequences are one unknown token to tokenizers of words, as MiniLM's."""
MIN_LENGTH = 20
"""Mean number of characters of single words above which they say more than an id."""
MIN_PASSAGE = 50
"""Mean number of words from which values are texts, however often they repeat."""
MIN_NEW = 0.5
"""Share of the test rows with a value that no training row has, above which words are no category."""
MIN_DISTINCT_WORDS = 10
"""Number of distinct training values above which n-grams of characters can learn from words."""
MIN_VOWELS = 0.26
"""Share of vowels among Latin letters; short German words may have .27, letters at random have .23."""
MIN_LETTERS = 8
"""Number of different Latin letters, which texts of DNA do not have."""
MIN_CAPITALS = 5
"""Number of letters from which capitals are a word such as BERLIN; shorter ones are codes such as DEU and EGFR."""
VOWELS = set("aeiouy")
LETTERS = re.compile(r"[^\W\d_]+")
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")
"""A word, or one Chinese or Japanese character."""


@dataclass(frozen=True)
class Column:
    """An input column, or one that is left out."""

    name: str
    role: Role
    reason: str
    reaction: bool = False  # whether a text column holds reaction SMILES
    is_sequence: bool = False  # whether a text column holds words too long for encoders of texts
    notation: str = ""  # name of a notation of molecules that is not read
    is_given: bool = False  # whether the user gives the role
    is_name: bool = False  # whether a text column holds another word in nearly every row


def without_censored(cells: pd.Series) -> pd.Series:
    """Return cells in which censored numbers such as >100 are empty, if nearly all others are numbers or missing."""
    is_censored = cells.str.strip().str.match(CENSORED)
    others = cells.mask(is_censored, "")
    return others if is_censored.any() and (is_numeric(others) or describe_damage(others)) else cells


def repeats(cells: pd.Series) -> bool:
    """Return whether values are repeated in several rows, as names of classes are."""
    filled = cells[cells.str.strip() != ""]
    return 1 < filled.nunique() <= 0.5 * len(filled)


def describe_damage(cells: pd.Series) -> str:
    """Return what is wrong with a column of numbers: few other cells, or commas, signs and units; "" for others."""
    numbers, is_invalid = to_numbers(cells)
    invalid = cells[is_invalid].str.strip()
    n_filled = numbers.count() + len(invalid)
    has_commas = invalid.str.fullmatch(r"[+-]?[\d,]*,\d+").all()
    are_decorated = has_commas or (invalid.str.fullmatch(DECORATED).mean() >= 0.8 and not repeats(cells))
    # Such as - for a missing number; of a few numbers, - may be a class.
    are_decorated |= invalid.str.fullmatch(r"\W+").all() and numbers.nunique() > MIN_DISTINCT_WORDS
    if invalid.empty or not (are_decorated or len(invalid) <= 0.2 * n_filled):
        return ""
    return f"{len(invalid)} of {n_filled} cells are not numbers ({invalid.iloc[0]!r})"


def is_numeric(cells: pd.Series) -> bool:
    """Return whether every cell is a finite number or missing, and some are numbers."""
    numbers, is_invalid = to_numbers(cells)
    return bool(numbers.notna().any() and not is_invalid.any())


def counts_rows(cells: pd.Series) -> bool:
    """Return whether the cells are consecutive whole numbers, one per row, in any order."""
    numbers = pd.to_numeric(cells, errors="coerce").sort_values()
    return len(cells) > 1 and bool((numbers.diff()[1:] == 1).all() and numbers.iloc[0] % 1 == 0)


def label_columns(train: pd.DataFrame, names: list[str]) -> tuple[list[str], list[str]]:
    """Return those of some columns that may be labels: numbers, and names that repeat."""
    candidates = [name for name in names if not GROUP_NAME.search(name)]
    labels = {name: without_censored(train[name]) for name in candidates}
    numeric = [name for name in candidates if is_numeric(labels[name]) and not counts_rows(labels[name])]
    return numeric, [name for name in candidates if name not in numeric and repeats(train[name])]


def all_cells(train: pd.Series, test: pd.Series) -> pd.Series:
    """Return the cells of both tables, once if the training table stands for a missing test table."""
    return train if test.equals(train) else pd.concat([train, test], ignore_index=True)


def classify(name: str, train: pd.Series, test: pd.Series) -> Column:
    """Return the role of a column that both tables have."""
    column = partial(Column, name)
    cells = all_cells(train, test).str.strip()
    if ROW_NUMBERS.fullmatch(name):
        return column("left out", "has no name, like the row numbers that pandas writes")
    if train.str.strip().nunique() == 1:
        return column("left out", "the same in every training row")
    if not test.str.strip().any():
        return column("left out", "empty in all test rows")
    numbers, is_invalid = to_numbers(cells)
    is_code = cells.str.fullmatch(r"0\d+").any()  # 007 is a name, and would lose its zeros
    if numbers.notna().any() and not is_invalid.any() and not is_code:
        if counts_rows(train) or counts_rows(cells):
            return column("left out", "consecutive row numbers")
        if train.is_unique and ID_NAME.search(name):
            return column("left out", "has a unique value in every row and a name like an id")
        reason = "numbers" + (f", {numbers.isna().sum()} cells empty" if numbers.hasnans else "")
        placeholder = describe_placeholder(numbers)
        if placeholder:
            reason += f"; WARNING: {placeholder}"
        days = pd.to_datetime(cells[cells != ""], format="%Y%m%d", errors="coerce")
        if days.notna().all() and days.dt.year.between(1900, 2100).all():
            reason += "; if they are dates, rewrite them as 2025-05-31 to set time"
        n_distinct = train[train.str.strip() != ""].nunique()
        if n_distinct <= 10 and (numbers.dropna() % 1 == 0).all():
            reason += f", {n_distinct} distinct integers: move it to categorical if they are codes"
        return column("numeric", reason)
    damage = describe_damage(cells)
    if damage and not is_code:
        return column(
            "left out",
            f"WARNING: {damage}; rewrite them like 1234.5, or empty them, to use it, or add --categorical "
            f"{to_yaml(name)} if they are categories",
        )
    filled = cells[~is_missing_cell(cells)]
    if dates_in_any_form(filled) is not None:
        if day_is_first(filled) is None:
            return column(
                "left out", "dates, but days or months first? Rewrite them as 2025-05-31 to set time"
            )
        advice = f"dates; if test rows are later, set time: {to_yaml(name)} and folds.kind time"
        return column("left out", advice)
    return _classify_text(name, train.str.strip(), test.str.strip())


def _classify_text(name: str, train: pd.Series, test: pd.Series) -> Column:
    """Return the role of a column of molecules, reactions, texts or categories, without blanks around its cells."""
    column = partial(Column, name)
    cells = all_cells(train, test)
    filled = cells[cells != ""]
    distinct = list(filled.unique())
    n_cells = len(filled)
    n_distinct = len(distinct)
    n_empty = len(cells) - n_cells
    sample = distinct[:: max(1, n_distinct // MAX_SAMPLED)][:MAX_SAMPLED]

    def nearly_all(holds: Callable[[str], object]) -> bool:
        return bool(np.mean([bool(holds(value)) for value in sample]) >= MIN_PARSED)

    if nearly_all(NUMBER_LIST.fullmatch):
        advice = "make a column of each number to use them"
        return column("left out", f"WARNING: lists of numbers such as {sample[0][:30]!r}; {advice}")
    for notation, pattern in NOTATIONS.items():
        if nearly_all(pattern.fullmatch):
            return column("left out", f"{notation}, which is not read", notation=notation)
    n_parsed = sum(canonical_smiles(value) is not None for value in sample)
    if looks_like_smiles(name, sample, n_parsed / max(1, len(sample))):
        reason = f"RDKit parses {n_parsed} of {len(sample)} distinct values"
        return column("smiles", reason + (f"; {n_empty} cells are empty" if n_empty else ""))
    if nearly_all(is_reaction):
        return column("text", "reaction SMILES (with >), a text for encoders and n-grams", reaction=True)
    if nearly_all(TEXT_LIST.fullmatch):
        return column("text", "WARNING: lists of texts in JSON; join their texts (json.loads) in all tables")
    n_words = np.mean([len(WORD.findall(value)) for value in sample])
    reason = f"{n_distinct} distinct values in {n_cells} cells"
    is_long = n_distinct > 10 and (n_words >= 5 or (n_words >= 3 and n_distinct > 0.2 * n_cells))
    if is_long or n_words >= MIN_PASSAGE or (n_words >= 2 and n_distinct > 0.5 * n_cells):
        return column("text", f"{reason}, {n_words:.1f} words on average")
    n_letters = np.mean([len(value) for value in sample])
    are_sequences = n_letters >= MIN_SEQUENCE and nearly_all(str.isalpha)
    n_new, n_filled = count_new_values(train, test)
    are_new = n_new > MIN_NEW * n_filled and train.nunique() > MIN_DISTINCT_WORDS
    if are_sequences and (are_new or n_distinct > 0.5 * n_cells):
        return column(
            "text",
            f"{reason}, sequences of {n_letters:.0f} letters on average",
            is_sequence=bool(n_letters > MAX_LETTERS_OF_WORD),
        )
    are_links = nearly_all(LINK.fullmatch)
    if (are_new or n_distinct > 0.5 * n_cells) and are_words(sample) and not are_links:
        reason += f", words; {describe_new(n_new, n_filled)}"
        return column("text", reason, is_name=n_distinct > 0.5 * n_cells)
    if n_distinct <= 0.5 * n_cells:
        if n_parsed == len(sample):
            reason += "; all parse as SMILES too: move it to smiles if they are molecules"
        return column("categorical", reason)
    is_long = n_letters >= MIN_LENGTH and not all(re.fullmatch("[0-9A-Fa-f-]+", value) for value in sample)
    warning = "WARNING: " if is_long else ""
    advice = f"if they are informative, --text {to_yaml(name)}"
    what = "links" if are_links else "single words like ids"
    return column("left out", f"{warning}{reason}, {what}; {advice}")


def describe_train_only(cells: pd.Series) -> str:
    """Return what a column that only the training table has may be for, as the reason to leave it out."""
    name = str(cells.name)
    signs = cells.str.strip()
    n_censored = signs.isin(SIGNS).sum()
    n_values = cells.nunique()
    reason = "only in train"
    if n_censored and signs.isin([*SIGNS, "=", ""]).all():
        reason += (
            f"; WARNING: {n_censored} of {len(cells)} rows have a sign such as > or <: if their labels are bounds, "
            "write the sign into the label, such as >100 (docs/folds.md)"
        )
    if WEIGHT_NAME.search(name) and is_numeric(cells):
        reason += f"; to weight rows by it in training, set weight: {to_yaml(name)}"
    if GROUP_NAME.search(name) and 1 < n_values < len(cells):
        reason += f"; if rows of one {name} belong together, set group: {to_yaml(name)} and folds.kind group"
    elif n_values >= MIN_GROUPS and not is_numeric(cells) and repeats(cells):
        reason += (
            f"; WARNING: it has {n_values} values that repeat; if test rows have others, the expected score is too "
            f"optimistic without --group {to_yaml(name)}"
        )
    return reason


def describe_new(n_new: int, n_filled: int) -> str:
    """Return the two numbers of `count_new` as text."""
    return f"{n_new} of {n_filled} test values are new"


def without_names(columns: list[Column]) -> list[Column]:
    """Return the columns, of which names in each row are left out beside molecules."""
    if not any(column.role == "smiles" for column in columns):
        return columns
    return [
        replace(
            column,
            role="left out",
            reason=f"{column.reason}, like names of the molecules; if they are informative, --text "
            f"{to_yaml(column.name)}",
        )
        if column.is_name
        else column
        for column in columns
    ]


def are_words(values: list[str]) -> bool:
    """Return whether words of a language tell most of the distinct values apart, rather than digits or abbreviations.

    P017, plate_3, 64-17-5, EGFR and hexadecimal numbers are codes; 2-propanol, Bad Homburg and MUNICH are words.
    """
    texts = set()
    for value in values:
        words = [run for run in LETTERS.findall(value) if _has_shape_of_word(run)]
        if 2 * sum(map(len, words)) >= len(value):
            texts.add(" ".join(words).lower())
    letters = [letter for letter in unicodedata.normalize("NFKD", "".join(texts)) if "a" <= letter <= "z"]
    n_vowels = sum(letter in VOWELS for letter in letters)
    are_read = len(set(letters)) >= MIN_LETTERS and n_vowels >= MIN_VOWELS * len(letters)
    return 2 * len(texts) >= len(values) and (are_read or not letters)


def _has_shape_of_word(run: str) -> bool:
    """Return whether letters are written like a word: small after the first, all capitals, or of a script without."""
    if run.upper() == run.lower():
        return True
    return len(run) >= 3 and (run[1:].islower() or (run.isupper() and len(run) >= MIN_CAPITALS))


def looks_like_smiles(name: str, values: list[str], share_parsed: float) -> bool:
    """Return whether distinct values are molecules, and not words or codes such as C, CO or NO.

    Half of them must parse if the name of the column or their characters suggest SMILES, otherwise nearly
    all: words of only the letters C, N, O, S, P and I are rare among words of five letters.

    Args:
        share_parsed: share of the values that RDKit parses.
    """
    if SMILES_NAME.search(name) or np.mean([bool(STRUCTURE.search(value)) for value in values]) >= 0.5:
        return share_parsed >= 0.5
    return share_parsed >= MIN_PARSED and bool(np.mean([len(value) for value in values]) >= 5)


def is_reaction(value: str) -> bool:
    """Return whether a value is reaction SMILES: reactants > agents > products, each may be empty."""
    parts = value.split(">")
    return len(parts) == 3 and all(part == "" or canonical_smiles(part) is not None for part in parts)
