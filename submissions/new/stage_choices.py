"""What `./run.sh new` chooses for what it found: folds and stages, each with its reason."""

import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from competition.config import StrictModel, validate
from competition.errors import ConfigError, DataError
from competition.metrics import CLASS_TYPES
from competition.molecules import canonical_smiles
from competition.yaml_files import load_yaml
from folds.kinds import FOLD_KINDS
from folds.molecule_groups import scaffold_shift_reason, scaffolds
from submissions.new.detect import WORD, DetectedTables
from submissions.new.problem_type import ProblemGuess

PRESETS = Path(__file__).with_name("presets")
LONG = 150
"""Words of a text, on average, above which it is a long one."""

Need = Literal[
    "molecules", "one_molecule", "several_molecules", "reactions", "text", "short_text", "long_text", "table"
]


class PresetStage(StrictModel):
    """One stage of a preset, written where the tables have what it needs."""

    name: str
    needs: list[Need]
    """Any of: columns of molecules, one or several of them, reactions, texts, or numbers and categories
    alone.
    """
    targets: Literal["numbers", "classes"] | None = None
    """What it learns, grades being numbers; null: both."""
    gaps: bool = False
    """Whether it is for several targets of which some rows lack labels alone."""
    max_rows: int = sys.maxsize
    """Largest training table that it is for; the time of kernel methods grows with the square of the rows or
    faster.
    """
    reason: str
    """Stands above the stage; {features} is what trees read."""
    settings: dict[str, Any]


class Preset(StrictModel):
    """Stages in the order of their worth, and the time that `new` writes for them."""

    budget: str
    warning: str | None = None
    """Printed after the YAML is written."""
    stages: list[PresetStage]


def read_preset(name: str) -> Preset:
    """The file of a preset."""
    path = PRESETS / f"{name}.yaml"
    return validate(Preset, load_yaml(path), path)


class Block(NamedTuple):
    """A stage of the YAML."""

    name: str
    settings: dict[str, Any]
    comment: str


def choose_folds(
    found: DetectedTables, problem: ProblemGuess, group: str | None, kind: str | None
) -> tuple[str, int, str]:
    """Kind and number of folds, and the reason."""
    smiles, train = found.named("smiles"), found.train
    if kind is not None and (FOLD_KINDS[kind].needs == "group") != (group is not None):
        raise ConfigError("--folds group and --group COL belong together; add the other, or leave both out.")
    if kind is not None and FOLD_KINDS[kind].needs == "smiles" and not smiles:
        raise ConfigError(f"--folds {kind} needs a column of molecules, and none was found.")
    if kind is not None:
        reason = "named with --folds"
    elif group is not None:
        kind = "stratified_group" if problem.classes else "group"
        reason = f"rows of one {group!r} share a fold"
    elif len(smiles) == 1 and (
        unlike := scaffold_shift_reason(_molecules(train, smiles), _molecules(found.test, smiles))
    ):
        kind, reason = "scaffold", f"{unlike}: the folds hold out scaffolds too"
    elif problem.classes:
        kind, reason = "stratified", "like shares of each class in every fold"
    elif len(found.targets) == 1:
        kind, reason = "stratified", "one target: like values in every fold"
    else:
        kind, reason = "kfold", "several targets: at random"
    for name in smiles if group is None and len(smiles) > 1 else []:
        if (
            train[name].duplicated(keep=False).mean() > 0.5
            and found.test[name].isin(train[name]).mean() < 0.05
        ):
            reason += f"; WARNING: test rows have other {name!r} than training rows: consider --group {name}"
    if group is not None:
        n_groups = train[group].nunique()
    elif kind == "scaffold":
        n_groups = len(set(scaffolds(_molecules(train, smiles))))
    else:
        n_groups = len(train[found.inputs].drop_duplicates())
    if n_groups < 2:
        raise DataError(f"folds need two groups or distinct inputs; there is {n_groups}.")
    n_folds = min(3 if len(train) < 30 else 10 if len(train) < 500 else 5, n_groups)
    if n_folds == n_groups or len(train) < 30:
        reason += f"; {n_folds} folds, as there are no more groups"
    elif n_folds == 10:
        reason += "; 10 folds, since below 500 rows each row to train on matters"
    return kind, n_folds, reason


def _molecules(table: pd.DataFrame, smiles: list[str]) -> list[str]:
    """Canonical SMILES of the molecules of the first column that parse."""
    return [text for text in map(canonical_smiles, table[smiles[0]]) if text]


def choose_stages(preset: Preset, found: DetectedTables, problem: ProblemGuess) -> list[Block]:
    """The stages of a preset that fit to the tables."""
    smiles, reactions = found.named("smiles"), [column.name for column in found.columns if column.reaction]
    text, numbers = found.named("text"), found.named("numeric", "categorical")
    notes = [name for name in text if name not in reactions]
    columns: dict[Need, list[str]] = {
        "molecules": smiles,
        "several_molecules" if len(smiles) > 1 else "one_molecule": smiles,
        "reactions": reactions,
        "text": notes,
        "long_text" if _n_words(found.train[notes]) > LONG else "short_text": notes,
        "table": [] if smiles or text else numbers,
    }
    parts = {"fingerprints and descriptors": smiles, "TF-IDF": text, "the numbers and categories": numbers}
    features = ", ".join(words for words, there in parts.items() if there)
    learned, blocks = "classes" if problem.type in CLASS_TYPES else "numbers", []
    labels = found.train[found.targets].apply(pd.to_numeric, errors="coerce")
    has_gaps = labels.shape[1] > 1 and bool(labels.isna().any(axis=None))
    for stage in preset.stages:
        read = next(filter(None, map(columns.get, stage.needs)), None)
        fits_size = len(found.train) <= stage.max_rows
        if read and fits_size and stage.targets in (None, learned) and has_gaps >= stage.gaps:
            settings = dict(stage.settings)
            if read != (text or smiles):  # what a language model takes without `columns`
                if settings.get("kind") == "bert":
                    settings["columns"] = read
                elif "features" in settings:
                    parts = settings["features"]
                    settings["features"] = [
                        p if isinstance(p, str) else {**p, "columns": read} for p in parts
                    ]
            blocks.append(Block(stage.name, settings, stage.reason.format(features=features)))
    return blocks


def _n_words(texts: pd.DataFrame) -> float:
    """Of all texts of a row together, as the mean over some 200 rows."""
    words = texts.iloc[:: max(1, len(texts) // 200)].map(lambda text: len(WORD.findall(text)))
    return float(words.sum(axis=1).mean())
