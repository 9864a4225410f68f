"""Choice of folds and stages by `./run.sh new`, each with its reason."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from competition.config import validate
from competition.metrics import CLASS_TYPES
from competition.molecules import canonical_smiles
from core.errors import ConfigError, DataError
from core.settings import StrictModel
from core.yaml_files import load_yaml
from folds.groups import scaffold_shift_reason, scaffolds
from folds.kinds import FOLD_KINDS
from models.inputs.weights import reads_molecules
from pipeline.new.column_roles import WORD
from pipeline.new.detect import DetectedTables
from pipeline.new.problem_type import ProblemGuess

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
LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
Need = Literal[
    "molecules", "adme", "no_adme", "several_molecules", "reactions", "text", "latin", "short_latin", "long_latin",
    "other_script", "table",
]  # fmt: skip


class PresetStage(StrictModel):
    """One stage of the presets, written if the tables have what it needs."""

    name: str
    presets: list[str] = []
    """The presets that it is in; empty: all."""
    needs: list[Need]
    """Any of: molecules (also with or without a target that is called like one of ADME), several columns of them,
    reactions, texts (in Latin letters or in others), or only numbers and categories.
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
    return validate(PresetTable, load_yaml(PRESETS), PRESETS)


class Block(NamedTuple):
    """A stage of the YAML."""

    name: str
    settings: dict[str, Any]
    comment: str


def choose_folds(
    tables: DetectedTables, problem: ProblemGuess, group: str | None, kind: str | None
) -> tuple[str, int, str]:
    """Return kind and number of folds, and the reason.

    Args:
        group: column of the groups, if the user gives it.
        kind: kind of folds, if the user gives it.
    """
    smiles = tables.with_roles("smiles")
    train = tables.train
    if kind is not None and (FOLD_KINDS[kind].needs == "group") != (group is not None):
        raise ConfigError("--folds group and --group COL belong together; add the other, or leave both out.")
    if kind is not None and FOLD_KINDS[kind].needs == "smiles" and not smiles:
        raise ConfigError(f"--folds {kind} needs a column of molecules, and none was detected.")
    reason = "set with --folds"
    if kind is None:
        kind, reason = _choose_kind(tables, problem, group)
    if group is None and len(smiles) > 1:
        for name in smiles:
            is_repeated = train[name].duplicated(keep=False).mean() > 0.5
            if is_repeated and tables.test[name].isin(train[name]).mean() < 0.05:
                reason += (
                    f"; WARNING: few test rows share a {name!r} with training rows: consider --group {name}"
                )
    if group is not None:
        n_groups = train[group].nunique()
    elif kind == "scaffold":
        n_groups = len(set(scaffolds(_molecules(train, smiles))))
    else:
        n_groups = len(train[tables.inputs or [tables.id]].drop_duplicates())
    if n_groups < 2:
        raise DataError(f"folds need two groups or distinct inputs; there is {n_groups}.")
    if len(train) < 30:
        n_folds = 3
    elif len(train) < 500 and len(tables.targets) <= MAX_TARGETS_OF_TEN_FOLDS:
        n_folds = 10
    else:
        n_folds = 5
    n_folds = min(n_folds, n_groups)
    if n_folds == n_groups or len(train) < 30:
        reason += f"; {n_folds} folds, since there are few groups or rows"
    elif n_folds == 10:
        reason += "; 10 folds, since below 500 rows every training row matters"
    return kind, n_folds, reason


def _choose_kind(tables: DetectedTables, problem: ProblemGuess, group: str | None) -> tuple[str, str]:
    """Return the kind of folds and the reason."""
    smiles = tables.with_roles("smiles")
    if group is not None:
        kind = "stratified_group" if problem.classes else "group"
        return kind, f"rows of one {group!r} share a fold"
    if len(smiles) == 1:
        reason = scaffold_shift_reason(_molecules(tables.train, smiles), _molecules(tables.test, smiles))
        if reason:
            return "scaffold", f"{reason}: the folds hold out scaffolds too"
    if problem.classes:
        return "stratified", "balanced classes in every fold"
    if len(tables.targets) == 1:
        return "stratified", "one target: similar values in every fold"
    return "kfold", "several targets: at random"


def _molecules(table: pd.DataFrame, smiles: list[str]) -> list[str]:
    """Return canonical SMILES of the first molecule column, without unparsable cells."""
    return [text for text in map(canonical_smiles, table[smiles[0]]) if text]


def choose_stages(preset: str, tables: DetectedTables, problem: ProblemGuess) -> list[Block]:
    """Return the stages of a preset that the tables have the columns, targets and rows for.

    A stage whose package is not installed is left out and named.
    """
    smiles = tables.with_roles("smiles")
    reactions = [column.name for column in tables.columns if column.reaction]
    text = tables.with_roles("text")
    numbers = tables.with_roles("numeric", "categorical")
    notes = [name for name in text if name not in reactions]
    latin = notes if notes and _are_latin(tables.train[notes]) else []
    are_long = _mean_words(tables.train[notes]) > MIN_WORDS_OF_LONG_TEXT
    columns: dict[Need, list[str]] = {
        "molecules": smiles,
        "adme" if any(map(ADME.search, tables.targets)) else "no_adme": smiles,
        "several_molecules": smiles if len(smiles) > 1 else [],
        "reactions": reactions,
        "text": notes,
        "latin": latin,
        "long_latin" if are_long else "short_latin": latin,
        "other_script": [] if latin else notes,
        "table": [] if smiles or text else numbers,
    }
    blocks = {
        "fingerprints and descriptors": smiles,
        "n-grams of words and characters": text,
        "the numbers and categories": numbers,
    }
    features = ", ".join(name for name, block_columns in blocks.items() if block_columns)
    target_type = "classes" if problem.type in CLASS_TYPES else "numbers"
    if notes and not latin:
        print("left out: English encoders, since most letters of the texts are not Latin")
    stages = []
    for stage in read_presets().stages:
        inputs = next(filter(None, map(columns.get, stage.needs)), None)
        is_in_preset = not stage.presets or preset in stage.presets
        has_rows = stage.min_rows <= len(tables.train) <= stage.max_rows
        fits = has_rows and stage.targets in (None, target_type)
        if not (is_in_preset and inputs and fits):
            continue
        if stage.package and find_spec(stage.package) is None:
            print(f"left out: {stage.name}, {stage.reason}; it needs pip install {stage.package}")
            continue
        is_default = inputs == (text or smiles)  # the columns that a language model reads by default
        settings = stage.settings if is_default else _with_columns(stage.settings, inputs)
        stages.append(Block(stage.name, settings, stage.reason.format(features=features)))
    return stages


def _with_columns(settings: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    """Return the settings of a stage with the columns that its language models read."""
    if settings.get("kind") == "bert":
        return {**settings, "columns": columns}
    features = []
    for feature in settings.get("features", []):
        reads_text = isinstance(feature, dict) and not reads_molecules(feature["encoder"])
        features.append({**feature, "columns": columns} if reads_text else feature)
    return {**settings, "features": features} if features else settings


def _are_latin(texts: pd.DataFrame) -> bool:
    """Return whether most letters of about 200 rows are Latin, which encoders of English know."""
    letters = LETTER.findall("".join(texts.iloc[:: max(1, len(texts) // 200)].to_numpy().ravel()))
    return sum(map(bool, map(LATIN.match, letters))) >= 0.5 * len(letters)


def _mean_words(texts: pd.DataFrame) -> float:
    """Return the mean number of words in all texts of a row, over about 200 rows."""
    n_words = texts.iloc[:: max(1, len(texts) // 200)].map(lambda text: len(WORD.findall(text)))
    return float(n_words.sum(axis=1).mean())
