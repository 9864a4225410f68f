"""What `./run.sh new` chooses for what it found: folds and stages, each with its reason."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
from pydantic import TypeAdapter
from rdkit import Chem

from competition.config import StrictModel, load_yaml, validate
from competition.errors import ConfigError, DataError
from competition.metrics import PROBABILITIES
from competition.molecules import canonical_smiles
from folds.groups import scaffolds, why_scaffolds
from models.config import StageConfig
from submissions.new.detect import WORD, Found
from submissions.new.problem_type import Problem

PRESETS = Path(__file__).with_name("presets.yaml")
USUAL_BATCH = 32
LONGEST = 256  # characters or words of an input that count: the usual max_length

Need = Literal[
    "molecules", "one_molecule", "several_molecules", "reactions", "text", "short_text", "long_text", "table"
]
Size = Literal["atoms", "atom_pairs", "characters", "words", "labels", "row_pairs"]


class PresetStage(StrictModel):
    """One stage of one or more presets; `presets.yaml` says how they are read."""

    name: str
    needs: list[Need]
    targets: Literal["numbers", "classes"] | None = None
    reason: str
    settings: dict[str, Any]
    presets: dict[str, dict[str, Any]]
    size: Size = "labels"
    largest: dict[str, float] = {}


class Presets(StrictModel):
    """The stages of all presets, in the order in which they are written."""

    stages: list[PresetStage]


def read_presets() -> list[PresetStage]:
    """The stages of presets.yaml."""
    return validate(Presets, load_yaml(PRESETS), PRESETS).stages


class Block(NamedTuple):
    """A stage of the YAML. A stage that is not enabled is written as a comment."""

    name: str
    settings: dict[str, Any]
    comment: str
    enabled: bool = True


def choose_folds(found: Found, problem: Problem, group: str | None, kind: str | None) -> tuple[str, int, str]:
    """Kind and number of folds, and the reason."""
    smiles, train = found.named("smiles"), found.train
    if kind is not None and (kind in ("group", "stratified_group")) != (group is not None):
        raise ConfigError("--folds group and --group COL belong together; add the other, or leave both out.")
    if kind in ("scaffold", "cluster") and not smiles:
        raise ConfigError(f"--folds {kind} needs a column of molecules, and none was found.")
    if kind is not None:
        reason = "named with --folds"
    elif group is not None:
        kind = "stratified_group" if problem.classes else "group"
        reason = f"rows of one {group!r} share a fold"
    elif len(smiles) == 1 and (unlike := why_scaffolds(_molecules(train, smiles), _molecules(found.test, smiles))):
        kind, reason = "scaffold", f"{unlike}: the folds hold out scaffolds too"
    elif problem.classes:
        kind, reason = "stratified", "like shares of each class in every fold"
    elif len(found.targets) == 1:
        kind, reason = "stratified", "one target: like values in every fold"
    else:
        kind, reason = "kfold", "several targets: at random"
    if group is not None:
        n_groups = train[group].nunique()
    elif kind == "scaffold":
        n_groups = len(set(scaffolds(_molecules(train, smiles), acyclic_alone=True)))
    else:
        n_groups = len(train[found.inputs].drop_duplicates())
    if n_groups < 2:
        raise DataError(f"folds need two groups or distinct inputs; there is {n_groups}.")
    n_folds = min(3 if len(train) < 30 else 10 if len(train) < 500 else 5, n_groups)
    if n_folds == n_groups or len(train) < 30:
        reason += f"; {n_folds} folds, as there is no more to divide"
    elif n_folds == 10:
        reason += "; 10 folds, since below 500 rows each row to train on matters"
    return kind, n_folds, reason


def _molecules(table: pd.DataFrame, smiles: list[str]) -> list[str]:
    """Canonical SMILES of the molecules of the first column that parse."""
    return [text for text in map(canonical_smiles, table[smiles[0]]) if text]


def choose_stages(preset: str, found: Found, problem: Problem) -> list[Block]:
    """The stages of a preset that fit to the tables, with fewer epochs or as a comment where these are large."""
    smiles, reactions = found.named("smiles"), [column.name for column in found.columns if column.reaction]
    text, numbers = found.named("text"), found.named("numeric", "categorical")
    notes = [name for name in text if name not in reactions]
    is_long = _length("words", notes, found) > 200
    columns: dict[Need, list[str]] = {
        "molecules": smiles,
        "several_molecules" if len(smiles) > 1 else "one_molecule": smiles,
        "reactions": reactions,
        "text": notes,
        "long_text" if is_long else "short_text": notes,
        "table": [] if smiles or text else numbers,
    }
    parts = {"fingerprints and descriptors": smiles, "TF-IDF": text, "the numbers and categories": numbers}
    features = ", ".join(words for words, there in parts.items() if there)
    learned, blocks = "classes" if problem.type in PROBABILITIES else "numbers", []
    for stage in read_presets():
        read = next(filter(None, map(columns.get, stage.needs)), None)
        if read and preset in stage.presets and stage.targets in (None, learned):
            block = _fitted(stage, preset, read, found, problem.n_outputs, features)
            # Without `columns` a language model takes the text columns where there are any.
            if block.settings["kind"] in ("bert", "embedding") and read != (text or smiles):
                block.settings["columns"] = read
            blocks.append(block)
    return blocks


def _fitted(stage: PresetStage, preset: str, columns: list[str], found: Found, n_outputs: int, features: str) -> Block:
    """A stage with as many epochs as the tables allow, without settings that are the defaults of its kind."""
    settings, reason, n_rows = stage.settings | stage.presets[preset], stage.reason, len(found.train)
    epochs, largest = settings.get("epochs"), stage.largest.get(preset, math.inf)
    sizes = {"labels": n_rows * n_outputs, "row_pairs": n_rows**2 * n_outputs}
    size = sizes.get(stage.size) or n_rows * _length(stage.size, columns, found)
    size *= len(settings.get("seeds", [0]))
    if epochs and size * (epochs - 0.5) > largest:
        settings["epochs"] = max(round(largest / size), (epochs + 2) // 3)
        reason += f"; {settings['epochs']} epochs instead of {epochs}, as the tables are large"
    enabled = size * settings.get("epochs", 1) <= largest * (3 if epochs else 1)
    reason += "" if enabled else "; the tables are large for it: remove the # to train it"
    fields = type(TypeAdapter[Any](StageConfig).validate_python(settings)).model_fields
    changes = {key: value for key, value in settings.items() if key == "kind" or fields[key].default != value}
    return Block(stage.name, changes, reason.format(features=features), enabled)


def _length(size: str, columns: list[str], found: Found) -> float:
    """How long the inputs of a row are, as the mean over some 200 training rows."""
    sample = found.train.iloc[:: max(1, len(found.train) // 200)]
    lengths = {name: float(sample[name].map(LENGTHS[size]).mean()) for name in columns}
    if size in ("characters", "words"):
        return min(LONGEST, sum(lengths.values()))
    # Of several columns a batch encodes each distinct molecule once.
    several, distinct = len(columns) > 1, found.train[columns].nunique()
    return sum(n * (min(1, distinct[name] / USUAL_BATCH) if several else 1) for name, n in lengths.items())


def _atoms(smiles: str, hydrogens: bool) -> int:
    molecule = Chem.MolFromSmiles(smiles)
    return 0 if molecule is None else (Chem.AddHs(molecule) if hydrogens else molecule).GetNumAtoms()


LENGTHS: dict[str, Callable[[str], float]] = {
    "characters": len,
    "words": lambda text: 1.4 * len(WORD.findall(text)),  # in word pieces
    "atoms": lambda smiles: _atoms(smiles, hydrogens=False),
    "atom_pairs": lambda smiles: _atoms(smiles, hydrogens=True) ** 2,
}
