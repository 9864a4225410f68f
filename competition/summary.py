"""Summary of clean tables: counts, and warnings about cells that are probably wrong."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain

import numpy as np
import pandas as pd

from competition.cells import count_new, count_new_values
from competition.clean import empty_molecule, is_empty_text, keys_of_inputs, keys_of_near_inputs, share_keys
from competition.config import CompetitionConfig
from competition.dataset import INPUT_KEY
from competition.labels import describe_code
from competition.molecules import (
    MAX_ATOMS,
    is_large,
    normalised_text,
)
from core.errors import join_first
from core.words import WORD_OF_TWO

MAX_FLOAT32 = 3.4e38
"""Largest number that stages read."""
DIFFERENCES = "links, names of users, numbers or punctuation"
"""What copies of a text differ in."""
IN_TRAIN = "; models train on its label, and the expected score is for new inputs"
"""What the inputs of a test row in the training table mean."""
MAX_REPEATED = 0.05
"""Share of the test rows up to which equal numbers and categories of a training row are no warning."""
MIN_KNOWN = 0.01
"""Share of the test rows with known inputs from which they are a warning: fewer hardly change the score."""
MAX_NEW = 0.1
"""Share of the test rows with a new value of a category up to which the scores hardly depend on it."""


def describe_clean_tables(
    train: pd.DataFrame, test: pd.DataFrame, config: CompetitionConfig
) -> Iterator[str]:
    """Yield lines about the clean training and test rows."""
    of_test = (
        f"{len(test)} test rows"
        if config.has_test_table
        else "which are predicted, since there is no test table"
    )
    yield f"{len(train)} training rows, {of_test}"
    yield from _describe_large_molecules(train, test, config)
    yield from _describe_texts(train, test, config)
    if config.classes:
        yield from _class_lines(train, config)
    yield from _describe_equal_inputs(train, config)
    if config.text:
        yield from _describe_copies(train, config)
    if config.has_test_table:
        yield from _describe_repeated_inputs(train, test, config)
    yield from _describe_cells(train, test, config)
    yield from describe_new_categories(train, test, config)
    yield from _describe_values(train, config)


def _describe_equal_inputs(train: pd.DataFrame, config: CompetitionConfig) -> Iterator[str]:
    """Yield a line about training rows with the inputs of another one."""
    repeated = train[INPUT_KEY].duplicated()
    if not repeated.any():
        return
    line = f"{repeated.sum()} training rows repeat the input of another row (they share its fold)"
    if config.swap and config.swap.labels:  # which are exchanged in the other order of the columns
        yield line
        return
    labels = train[config.targets]
    first = labels.groupby(train[INPUT_KEY]).transform("first")
    n_other = ((labels != first) & labels.notna())[repeated].any(axis=1).sum()
    warning = "WARNING: " if n_other and config.classes else ""
    yield f"{warning}{line}, {n_other} of them with another label"


def _describe_cells(train: pd.DataFrame, test: pd.DataFrame, config: CompetitionConfig) -> Iterator[str]:
    """Yield lines about empty molecules, huge numbers, and columns that are empty in the test table."""
    molecules = pd.concat([train, test])[config.smiles]
    n_empty = (molecules == empty_molecule(config)).sum().sum()
    if n_empty:
        yield f"{n_empty} empty molecules are read as empty_smiles"
    for name in config.numeric:
        n_huge = (pd.concat([train, test])[name].abs() > MAX_FLOAT32).sum()
        if n_huge:
            yield f"WARNING: {n_huge} numbers of {name} are beyond {MAX_FLOAT32:.0e}, and are clipped to it"
    inputs = {"numeric": config.numeric, "text": config.text, "categorical": config.categorical}
    for role, names in inputs.items():
        for name in names:
            n_filled = train[name].notna().sum() - (train[name] == "").sum()
            if n_filled and (test[name].isna() | (test[name] == "")).all():
                yield (
                    f"WARNING: {name} is filled in {n_filled} training rows, and empty in all test rows: "
                    f"scores depend on it, and test predictions cannot use it. Take it out of competition.{role}."
                )


def _describe_values(train: pd.DataFrame, config: CompetitionConfig) -> Iterator[str]:
    """Yield lines about missing labels, columns with one value, and classes that are read as numbers."""
    n_missing = {name: train[name].isna().sum() for name in config.targets}
    missing = [f"{name} {n}" for name, n in n_missing.items() if n]
    if missing:
        yield f"missing labels: {join_first(missing, str)}"
    constant = [name for name in [*config.inputs, *config.targets] if train[name].nunique() <= 1]
    if constant:
        yield f"columns with only one value: {join_first(constant, str)}"
    if not config.classes:
        binary = [name for name in config.targets if set(train[name].dropna()) == {0, 1}]
        if binary:
            yield (
                f"only 0 and 1 in {join_first(binary, str)}, which is predicted by regression; for "
                "probabilities set problem_type: binary or multilabel, and a metric of classification"
            )


def describe_new_categories(
    train: pd.DataFrame, test: pd.DataFrame, config: CompetitionConfig
) -> Iterator[str]:
    """Yield warnings about values of categories that no training row has."""
    for name in config.categorical:
        n_unknown, _ = count_new_values(train[name], test[name])
        n_respelled = count_new(train[name], test[name])[0] - n_unknown
        if n_respelled:
            yield (
                f"WARNING: category {name}: {n_respelled} test cells differ from those of training rows only "
                "in case, blanks or the form of a number, and count as other values. Write them alike in "
                "both tables."
            )
        if n_unknown > MAX_NEW * len(test):
            yield (
                f"WARNING: category {name}: {n_unknown} of {len(test)} test rows have a value that no "
                "training row has, so that it tells nothing about them"
            )


def _describe_copies(train: pd.DataFrame, config: CompetitionConfig) -> Iterator[str]:
    """Yield the number of training rows with copies of the texts of another row, but other inputs."""
    keys = keys_of_near_inputs(train, config, len(train))
    n_copies = train[INPUT_KEY].nunique() - keys.nunique()
    if n_copies:
        yield (
            f"{n_copies} training rows differ from another row only in {DIFFERENCES} (they share its fold, "
            "except in folds of yours)"
        )


def _describe_repeated_inputs(
    train: pd.DataFrame, test: pd.DataFrame, config: CompetitionConfig
) -> Iterator[str]:
    """Yield the numbers of test rows that repeat a labelled training row: its inputs, a salt, or a copy."""
    labelled = train[train[config.targets].notna().any(axis=1)]
    is_in_train = test[INPUT_KEY].isin(labelled[INPUT_KEY])
    if is_in_train.any():
        # Few categories and rounded numbers repeat by design.
        share = is_in_train.mean()
        share_in_train = train[INPUT_KEY].duplicated().mean()
        is_rare = share > max(MAX_REPEATED, 2 * share_in_train)
        what = f"test rows have an input that is also in the training table{IN_TRAIN}"
        warning = _warning_of(share) if config.smiles or config.text or is_rare else ""
        yield f"{warning}{is_in_train.sum()} {what}"
    is_salt = share_keys(keys_of_inputs(test, config), keys_of_inputs(labelled, config)) & ~is_in_train
    if is_salt.any():
        what = f"test rows differ from a training row only in salts or charges{IN_TRAIN}"
        yield f"{_warning_of(is_salt.mean())}{is_salt.sum()} {what}"
    if config.text:
        rows = pd.concat([labelled, test], ignore_index=True)
        keys = keys_of_near_inputs(rows, config, len(labelled))
        is_near = keys[len(labelled) :].isin(keys[: len(labelled)]).to_numpy()
        is_copy = is_near & ~(is_in_train | is_salt).to_numpy()
        if is_copy.any():
            what = f"test rows differ from a training row only in {DIFFERENCES}{IN_TRAIN}"
            yield f"{_warning_of(is_copy.mean())}{is_copy.sum()} {what}"


def _warning_of(share: float) -> str:
    """Return the mark of a warning if so large a share of the test rows has known inputs that the score changes."""
    return "WARNING: " if share >= MIN_KNOWN else ""


def _describe_texts(train: pd.DataFrame, test: pd.DataFrame, config: CompetitionConfig) -> Iterator[str]:
    """Yield lines about empty texts, and about texts without n-grams of words."""
    n_rows = len(train) + len(test)
    for name in config.text:
        n_empty = is_empty_text(pd.concat([train, test])[name]).sum()
        if n_empty:
            yield f"{n_empty} of {n_rows} texts of {name} are empty"
        n_words = _count_without_common_word(train[name], test[name])
        if n_words > 0.1 * n_rows:
            common = f"have no word of {name} in common with other rows"
            yield f"{n_words} of {n_rows} rows {common}, so that only n-grams of characters can be their features"


def _count_without_common_word(train: pd.Series, test: pd.Series) -> int:
    """Return the number of filled texts without a word that is in two training texts, as n-grams are."""

    def words(text: str) -> set[str]:
        return {*re.findall(WORD_OF_TWO, text.lower())}

    n_texts = Counter(chain.from_iterable(map(words, train)))
    texts = [text for text in pd.concat([train, test]) if text.strip()]
    return sum(all(n_texts[word] < 2 for word in words(text)) for text in texts)


def _describe_large_molecules(
    train: pd.DataFrame, test: pd.DataFrame, config: CompetitionConfig
) -> Iterator[str]:
    """Yield a warning if some features of molecules with very many atoms are not computed."""
    rows = pd.concat([train, test])
    large = rows[config.id][rows[config.smiles].map(is_large).any(axis=1)]
    if len(large):
        yield (
            f"WARNING: {len(large)} rows have a molecule with more than {MAX_ATOMS} atoms: "
            f"{join_first(large)}. They get no descriptors, atom pairs, Avalon or ErG fingerprints or "
            "MiniMol features; each is its own scaffold"
        )


def _class_lines(train: pd.DataFrame, config: CompetitionConfig) -> Iterator[str]:
    """Yield the number of rows of each class, and warnings about classes that are probably others."""
    by_form: dict[str, list[str]] = {}
    for label in config.classes:
        by_form.setdefault(normalised_text(label), []).append(label)
    alike = [" and ".join(labels) for labels in by_form.values() if len(labels) > 1]
    if alike:
        yield f"WARNING: classes that differ only in case or blanks: {join_first(alike, str)}. Unify them."
    words = {label: label.split() for label in config.classes}
    split = {
        label: words[label] if {*words[label]} <= {*config.classes} else re.split("[,;|]", label)
        for label in config.classes
    }
    lists = [label for label, parts in split.items() if len(parts) > 1]
    parts = {part.strip() for parts in split.values() for part in parts}
    if len(parts) < len(config.classes) and len(lists) > 1:
        yield (
            f"WARNING: {len(lists)} classes are lists of {len(parts)} labels, such as {lists[0]!r}. To "
            "predict each label by itself, make a column of 0 and 1 of it."
        )
    y = train[config.targets]
    if len(config.targets) > 2 and set(np.unique(y.sum(axis=1))) == {1.0} and y.notna().all(axis=None):
        yield (
            f"WARNING: exactly one of {join_first(config.targets)} is 1 in every row. If a row has one "
            "class, make one column of classes (problem_type: multiclass), and name the sample's columns in "
            "submission_columns."
        )
    numbers = pd.to_numeric(pd.Series(config.classes), errors="coerce")
    for name in config.targets:
        counts = [f"{label} {(train[name] == index).sum()}" for index, label in enumerate(config.classes)]
        yield f"{name}: {join_first(counts, str)}"
        codes = describe_code(name, train[name].map(dict(enumerate(numbers))))
        if codes:
            yield f"WARNING: {codes}, and run new again, since they are a class now"
    if config.problem_type in ("binary", "multilabel"):
        yield f"problem_type {config.problem_type}, where {config.classes[1]!r} is the positive class"
    else:
        yield f"problem_type {config.problem_type}"
