"""Choice of folds and stages by `./run.sh new`, each with its reason."""

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from competition.cells import parse_times
from competition.config import validate
from competition.metrics import CLASS_TYPES
from competition.swap import Swap
from competition.units import Unit, units_of
from core.errors import PIP_INSTALL, ConfigError, DataError, join_first
from core.settings import StrictModel
from core.yaml_files import load_yaml
from folds.kinds import FOLD_KINDS
from folds.recommended import Recommendation, recommend, tied_rows
from folds.units import compare_units
from models.inputs.weights import WEIGHT_SETS, installed_folder, reads_molecules
from pipeline.new.column_roles import WORD
from pipeline.new.detect import DetectedTables
from pipeline.new.problem_type import ProblemGuess
from pipeline.new.swap import find_swap

PRESETS = Path(__file__).with_name("presets.yaml")
MIN_WORDS_OF_LONG_TEXT = 150
"""Mean number of words above which texts are long."""
MAX_TARGETS_OF_TEN_FOLDS = 2
"""Number of targets up to which small tables have ten folds: cross-fitting a blend takes targets times folds cubed."""

ADME = re.compile(
    "cl_?int|clearance|microsom|hepatocyt|(?<![a-z])[hmr]lm(?![a-z])|caco|mdck|mdr1|papp|permeab|pampa|efflux|ppb|"
    "protein.?binding|unbound|solub|ksol|log_?d(?![a-z])|half.?life|vdss|bioavail",
    re.IGNORECASE,
)
"""Parts of the names of targets of absorption, distribution, metabolism and excretion."""
LETTER = re.compile(r"[^\W\d_]")
LATIN = r"A-Za-z\u00c0-\u024f"
SCRIPTS_OF_USE = LATIN + r"\u0400-\u04ff\u0600-\u06ff\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Latin, Cyrillic, Arabic, Thai, Japanese, Chinese and Korean letters, which use_multilingual knows."""
ENGLISH_WORDS = re.compile(r"\b(?:the|and|of|to|is|that|for|with|it|this|was|not|you|are|on)\b")
FOREIGN_WORDS = re.compile(
    r"\b(?:der|die|das|und|nicht|ist|ein|eine|ich|le|la|les|des|et|est|une|pas|que|el|los|y|un|una|il|che|di|non|het|een|"
    r"van|niet|nie|jest|bir|ve)\b"
)
"""Frequent words of German, French, Spanish, Italian, Dutch, Polish and Turkish."""
MIN_FOREIGN = 0.2
"""Share of the rows in other languages from which texts are not taken for English."""
Need = Literal[
    "molecules", "adme", "no_adme", "several_molecules", "reactions", "text", "latin", "short_english", "long_english",
    "other_language", "multilingual", "english_pairs", "multilingual_pairs", "other_pairs", "table",
]  # fmt: skip


class PresetStage(StrictModel):
    """One stage of the presets, written if the tables have what it needs."""

    name: str
    presets: list[str] = []
    """The presets that it is in; empty: all."""
    needs: list[Need]
    """Any of: molecules (also with or without a target that is called like one of ADME), several columns of them,
    reactions, texts (in Latin letters, in others, or in those of use_multilingual, also with pairs that are compared),
    or only numbers and categories.
    """
    targets: Literal["numbers", "classes"] | None = None
    """Targets that it is for, ordinal levels being numbers; null: both."""
    max_rows: int = sys.maxsize
    """Number of training rows up to which it is written; the time of kernel methods grows with the square of
    the rows or faster.
    """
    min_rows: int = 0
    """Number of training rows from which it is written."""
    package: str | None = None
    """Package, no requirement of this project, without which the stage is not written."""
    weights: str | None = None
    """Weight set with `install`, without whose files the stage is not written."""
    reason: str
    """Comment above the stage; {features} is what trees read."""
    settings: dict[str, Any]


class Preset(StrictModel):
    """What `new` writes for a preset besides its stages."""

    budget: str
    warning: str | None = None
    """Warning that is printed after the YAML is written."""


class PresetTable(StrictModel):
    """All presets, and their stages in the order of their priority."""

    presets: dict[str, Preset]
    stages: list[PresetStage]


def read_presets() -> PresetTable:
    """Return the table of presets."""
    return _presets_in(PRESETS)


@cache
def _presets_in(file: Path) -> PresetTable:
    """Return the presets in a file; PyYAML takes a tenth of a second for them."""
    return validate(PresetTable, load_yaml(file), file)


class Block(NamedTuple):
    """A stage of the YAML."""

    name: str
    settings: dict[str, Any]
    comment: str


class FoldChoice(NamedTuple):
    """Folds for the YAML.

    Attributes:
        units: for `competition.group`, as it is set or recommended.
        time: for `competition.time`; None without one.
    """

    kind: str
    n_folds: int
    reason: str
    units: list[Unit]
    time: str | None


def choose_folds(
    tables: DetectedTables,
    problem: ProblemGuess,
    group: str | None = None,
    kind: str | None = None,
    time: str | None = None,
) -> FoldChoice:
    """Return the folds that the user asks for, or those that hold out what the test table holds out.

    Args:
        group: column of the groups, if the user gives it.
        kind: kind of folds, if the user gives it.
        time: column of the times, if the user gives it.
    """
    train, columns = tables.train, tables.table_columns
    swap = find_swap(tables, problem)
    if swap is not None:
        columns = replace(columns, swap=Swap.model_validate(swap.setting))
    if kind is not None and (FOLD_KINDS[kind].needs == "group") != (group is not None):
        raise ConfigError("--folds group and --group COL belong together; add the other, or leave both out.")
    if kind is not None and FOLD_KINDS[kind].needs == "smiles" and not columns.smiles:
        raise ConfigError(f"--folds {kind} needs a column of molecules, and none was detected.")
    stratify = bool(problem.classes) or len(columns.targets) == 1
    units = units_of(group)
    if time is not None:
        parse_times(train, time, columns.id, "the training table")  # its error names the rows
    if kind is not None or group is not None or time is not None:
        tied_by = [Unit("scaffold", (columns.smiles[0],))] if kind == "scaffold" else units
        groups = tied_rows(tied_by, train, columns)
        reason = "set with --folds" if kind else f"rows of one {group!r} share a fold" if group else ""
        kind = kind or (("stratified_group" if stratify else "group") if group else "time")
        best = Recommendation(kind, reason or "blocks in the order of --time", [], groups, units, time or "")
    else:
        best = recommend(compare_units(train, tables.test, columns), train, columns, stratify)
    reasons = [best.reason] if best.reason else []
    if best.kind == "stratified" and kind is None:
        reasons.append("similar labels in every fold")
    reason = "; ".join([*reasons, *(f"WARNING: {warning}" for warning in best.warnings)]) or "at random"
    wanted = _number_of_folds(len(train), len(columns.targets))
    n_folds = best.n_folds(train, columns.id, wanted)
    if n_folds < 2:
        raise DataError(f"folds need two groups or distinct inputs; there is {n_folds}.")
    if n_folds < wanted or len(train) < 30:
        reason += f"; {n_folds} folds, since there are few groups or rows"
    elif n_folds == 10:
        reason += "; 10 folds, since below 500 rows every training row matters"
    return FoldChoice(best.kind, n_folds, reason, best.units, time or best.time or None)


def _number_of_folds(n_rows: int, n_targets: int) -> int:
    """Return the number of folds for a training table, if it has enough groups."""
    if n_rows < 30:
        return 3
    return 10 if n_rows < 500 and n_targets <= MAX_TARGETS_OF_TEN_FOLDS else 5


def choose_stages(
    preset: str,
    tables: DetectedTables,
    problem: ProblemGuess,
    compared: Sequence[str] = (),
    n_orders: int = 1,
    in_time: bool = False,
) -> list[Block]:
    """Return the stages of a preset that the tables have the columns, targets and rows for, the first of each name.

    A stage whose package or weights are not installed is left out and named.

    Args:
        compared: text columns of the pairs of the YAML.
        n_orders: number of orders in which rows are trained on (`competition.swap`).
        in_time: whether folds are blocks in time, so that only a refit trains on the latest rows.
    """
    columns = _columns_by_need(tables, compared)
    smiles, text = tables.with_roles("smiles"), tables.with_roles("text")
    blocks = {
        "fingerprints and descriptors": smiles,
        "n-grams of words and characters": text,
        "the numbers and categories": tables.with_roles("numeric", "categorical"),
    }
    features = ", ".join(name for name, block_columns in blocks.items() if block_columns)
    target_type = "classes" if problem.type in CLASS_TYPES else "numbers"
    n_rows = len(tables.train) * n_orders
    stages: dict[str, Block] = {}
    for stage in read_presets().stages:
        inputs = next(filter(None, map(columns.get, stage.needs)), None)
        is_in_preset = not stage.presets or preset in stage.presets
        has_rows = stage.min_rows <= n_rows <= stage.max_rows
        fits = has_rows and stage.targets in (None, target_type)
        if not (is_in_preset and inputs and fits) or stage.name in stages:
            continue
        reason = _why_not_installed(stage)
        if reason:
            print(f"left out: {stage.name}, {stage.reason}; {reason}")
            continue
        is_default = inputs == (text or smiles)  # the columns that a language model reads by default
        settings = stage.settings if is_default else _with_columns(stage.settings, inputs)
        if in_time:
            settings = {**settings, "final_fit": "refit"}
        stages[stage.name] = Block(stage.name, settings, stage.reason.format(features=features))
    return [*stages.values()]


def _columns_by_need(tables: DetectedTables, compared: Sequence[str]) -> dict[Need, list[str]]:
    """Return the columns that stages with a need read, [] where the tables do not have it; print what is left out."""
    smiles = tables.with_roles("smiles")
    text = tables.with_roles("text")
    reactions = [column.name for column in tables.columns if column.reaction]
    sequences = [column.name for column in tables.columns if column.is_sequence]
    words = [name for name in text if name not in reactions]
    notes = [name for name in words if name not in sequences]
    latin, english, multilingual = _by_language(tables, notes)
    paired = [name for name in notes if name in compared]
    _, english_pairs, multilingual_pairs = _by_language(tables, paired)
    are_long = _mean_words(tables.train[notes]) > MIN_WORDS_OF_LONG_TEXT
    if sequences:
        print(f"left out: encoders of texts for {join_first(sequences)}, whose long words are unknown tokens")
    if notes and not latin:
        print("left out: English encoders, since most letters of the texts are not Latin")
    if latin and not english:
        print(
            "WARNING: many texts do not look English, as minilm expects; use_multilingual reads 16 languages, and "
            "xlm_roberta of --preset gpu a hundred"
        )
    return {
        "molecules": smiles,
        "adme" if any(map(ADME.search, tables.targets)) else "no_adme": smiles,
        "several_molecules": smiles if len(smiles) > 1 else [],
        "reactions": reactions,
        "text": words,
        "latin": latin,
        "long_english" if are_long else "short_english": english,
        "other_language": [] if english else notes,
        "multilingual": multilingual,
        "multilingual_pairs": multilingual_pairs,
        "english_pairs": english_pairs,
        "other_pairs": paired,
        "table": [] if smiles or text else tables.with_roles("numeric", "categorical"),
    }


def _why_not_installed(stage: PresetStage) -> str:
    """Return what a stage lacks, and how to install it; "" if it lacks nothing."""
    if stage.package and find_spec(stage.package) is None:
        return f"it needs a package: {PIP_INSTALL} {stage.package}"
    if stage.weights and installed_folder(stage.weights) is None:
        return f"{WEIGHT_SETS[stage.weights].install} says how to install its weights"
    return ""


def _with_columns(settings: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    """Return the settings of a stage with the columns that its language models read."""
    if settings.get("kind") == "bert":
        return {**settings, "columns": columns}
    features = []
    for feature in settings.get("features", []):
        is_encoder = isinstance(feature, dict) and "pairs" not in feature
        reads_text = is_encoder and not reads_molecules(feature["encoder"])
        # A list of its own: YAML would write a shared one as an anchor.
        features.append({**feature, "columns": [*columns]} if reads_text else feature)
    return {**settings, "features": features} if features else settings


def _by_language(tables: DetectedTables, columns: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the columns if their texts are in Latin letters, in English, and in letters of use_multilingual; else [].

    About 200 rows of each table count. Texts without letters, such as emojis, are read by use_multilingual only.
    """
    some = [table[columns].iloc[:: max(1, len(table) // 200)] for table in (tables.train, tables.test)]
    texts = [" ".join(row) for table in some for row in table.to_numpy()]
    all_texts = " ".join(texts)
    latin = columns if LETTER.search(all_texts) and _is_in(LATIN, all_texts) else []
    is_english = sum(map(_is_foreign, texts)) < MIN_FOREIGN * len(texts)
    return latin, latin if is_english else [], columns if _is_in(SCRIPTS_OF_USE, all_texts) else []


def _is_in(scripts: str, text: str) -> bool:
    """Return whether at least half of the letters are of some scripts; a text without letters is."""
    letters = LETTER.findall(text)
    return len(re.findall(f"[{scripts}]", "".join(letters))) >= 0.5 * len(letters)


def _is_foreign(text: str) -> bool:
    """Return whether most letters are not Latin, or more words are frequent ones of other languages than of English."""
    n_english = len(ENGLISH_WORDS.findall(text.lower()))
    return not _is_in(LATIN, text) or len(FOREIGN_WORDS.findall(text.lower())) > n_english


def _mean_words(texts: pd.DataFrame) -> float:
    """Return the mean number of words in all texts of a row, over about 200 rows."""
    n_words = texts.iloc[:: max(1, len(texts) // 200)].map(lambda text: len(WORD.findall(text)))
    return float(n_words.sum(axis=1).mean())
