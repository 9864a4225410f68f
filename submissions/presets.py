"""What `./run.sh new` chooses for what it found: metric, folds and stages, each with its reason.

Times are estimates for two CPU cores, from one-thread measurements on 1,200 rows of molecules with 9 heavy atoms
(18 with hydrogens): gnn 30 epochs 25 s, bert with rxnfp 4 epochs 45 s, compact Uni-Mol 15 epochs 27 s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import TypeAdapter
from rdkit import Chem

from competition.detect import WORD, Found
from competition.errors import ConfigError, DataError
from competition.molecules import canonical_smiles
from folds.groups import scaffolds, why_scaffolds
from models.config import StageConfig

Preset = Literal["quick", "cpu", "gpu"]

CORES = 2
USUAL_BATCH = 32
# Seconds on one thread per row and epoch, and what they grow with.
GNN_PER_ATOM = 25 / (1200 * 30) / 9
BERT_PER_TOKEN = 45 / (1200 * 4) / 14
MINILM_PER_TOKEN = 1.7 * BERT_PER_TOKEN  # by its weights per layer
UNIMOL_PER_PAIR = 27 / (1200 * 15) / 18**2
CONFORMER_PER_PAIR = 0.02 / 18**2
TREES_PER_ROW = {"smiles": 0.004, "text": 0.0007, "table": 0.0005}  # and per target
CATBOOST_PER_ROW = 0.044  # and per target
MLP_PER_ROW = 0.005  # and per molecule column and target
SVR_PER_PAIR_OF_ROWS = 1e-6  # and per target
SECONDS_PER_STAGE = {"quick": 400, "cpu": 900}


@dataclass(frozen=True)
class Size:
    """What a stage's time depends on: rows of a fold's training, and means over a sample of them."""

    n_rows: float
    n_all_rows: int
    n_targets: int
    n_fits: float
    """Folds times the part of the cores that one of them takes."""
    heavy_atoms: float
    pairs: float
    """Of atoms, hydrogens included."""
    smiles_length: float
    words: float


@dataclass(frozen=True)
class Block:
    """A stage of the YAML. A stage that is not enabled is written as a comment."""

    name: str
    settings: dict[str, Any]
    comment: str
    seconds: float
    enabled: bool = True


def choose_metric(found: Found) -> tuple[str, str]:
    """Metric and reason, where the user names none."""
    if len(found.targets) == 1:
        return "rmse", "GUESS, the usual one for a single target"
    spread = found.y.std()
    ratio = float(spread.max() / spread.min()) if spread.min() > 0 else float("inf")
    if ratio <= 2:
        return (
            "rmse",
            f"GUESS, mean over the targets, whose spreads are alike (the widest is {ratio:.1f} times the narrowest)",
        )
    return "r2", f"GUESS, mean over the targets, whose spreads differ {ratio:.0f}-fold: in rmse the widest would decide"


def choose_folds(found: Found, group: str | None, kind: str | None) -> tuple[str, int, str]:
    """Kind and number of folds, and the reason.

    Raises:
        ConfigError: if `kind` does not fit to what is there.
        DataError: if there is too little to divide.
    """
    smiles = found.named("smiles")
    if kind is not None and (kind in ("group", "stratified_group")) != (group is not None):
        raise ConfigError("--folds group and --group COL must be given together; add the other, or leave both out.")
    if kind in ("scaffold", "cluster") and not smiles:
        raise ConfigError(f"--folds {kind} must have a column of molecules; none was found.")
    new_scaffolds = ""
    if len(smiles) == 1 and kind is None and group is None:
        new_scaffolds = why_scaffolds(_molecules(found.train[smiles[0]]), _molecules(found.test[smiles[0]]))
    if kind is not None:
        reason = "named with --folds"
    elif group is not None:
        kind, reason = "group", f"rows of one {group!r} share a fold"
    elif new_scaffolds:
        kind, reason = "scaffold", f"{new_scaffolds}: the folds hold out scaffolds too"
    elif len(found.targets) == 1:
        kind, reason = "stratified", "one target: like values in every fold"
    else:
        kind, reason = "kfold", "several targets: at random"
    inputs = [column.name for column in found.columns if column.role != "left out"]
    n_units = len(found.train[inputs].drop_duplicates())
    if group is not None:
        n_units = found.train[group].nunique()
    elif kind == "scaffold":
        n_units = len(set(scaffolds(_molecules(found.train[smiles[0]]), acyclic_alone=True)))
    if n_units < 2:
        raise DataError(f"there must be two groups or distinct inputs to divide into folds; found {n_units}.")
    n_rows = len(found.train)
    n_folds = min(3 if n_rows < 30 else 10 if n_rows < 500 else 5, n_units)
    if n_folds == n_units or n_rows < 30:
        reason += f"; {n_folds} folds, as there is no more to divide"
    elif n_folds == 10:
        reason += "; 10 folds, as each row counts below 500"
    return kind, n_folds, reason


def _molecules(smiles: pd.Series) -> list[str]:
    """Canonical SMILES of the molecules that parse."""
    return [text for text in map(canonical_smiles, smiles) if text]


def measure(found: Found, n_folds: int) -> Size:
    """Sizes for the estimates, from a sample of the training rows."""
    sample = found.train.iloc[:: max(1, len(found.train) // 200)]
    heavy, pairs, length = 0.0, 0.0, [0.0]
    smiles, text = found.named("smiles"), found.named("text")
    for name in smiles:
        molecules = [molecule for value in sample[name] if (molecule := Chem.MolFromSmiles(value)) is not None]
        # Of several columns a batch encodes each distinct molecule once.
        share = min(1.0, found.train[name].nunique() / USUAL_BATCH) if len(smiles) > 1 else 1.0
        heavy += share * float(np.mean([molecule.GetNumAtoms() for molecule in molecules] or [0]))
        pairs += share * float(np.mean([Chem.AddHs(molecule).GetNumAtoms() ** 2 for molecule in molecules] or [0]))
    length += [sum(len(value) for value in row) for row in sample[smiles].itertuples(index=False)]
    words = [sum(len(WORD.findall(value)) for value in row) for row in sample[text].itertuples(index=False)]
    return Size(
        n_rows=len(found.train) * (1 - 1 / n_folds),
        n_all_rows=len(found.train) + len(found.test),
        n_targets=len(found.targets),
        n_fits=n_folds / min(CORES, n_folds),
        heavy_atoms=heavy,
        pairs=pairs,
        smiles_length=float(np.mean(length[1:] or [0])),
        words=float(np.mean(words or [0])),
    )


def choose_stages(preset: Preset, found: Found, size: Size) -> list[Block]:
    """Stages of a preset, in the YAML's order."""
    smiles = found.named("smiles")
    reactions = [column.name for column in found.columns if column.reaction]
    text = [name for name in found.named("text") if name not in reactions]
    blocks = _trees(preset, found, size)
    if smiles:
        blocks += _graphs(preset, size)
        # Without `columns` a bert stage would take the text columns where there are any.
        columns = smiles if found.named("text") else []
        blocks += _language_models(preset, "smiles", columns, size.smiles_length, size, len(smiles) == 1)
    if reactions:
        length = float(found.train[reactions].iloc[:200].map(len).sum(axis=1).mean())
        blocks += _language_models(preset, "reaction", reactions, length, size)
    if text:
        columns = text if reactions else []
        blocks += _language_models(preset, "text", columns, 1.4 * size.words, size)
    order = {"lightgbm": 0, "sklearn": 1, "embedding": 2, "gnn": 3, "bert": 4, "unimol": 5, "catboost": 6}
    blocks.sort(key=lambda block: order[block.settings["kind"]])
    if preset == "gpu":
        chance = [block for block in blocks if block.settings["kind"] not in ("sklearn", "embedding")]
        blocks = [
            replace(block, settings={**block.settings, "seeds": [0, 1, 2]}) if block in chance else block
            for block in blocks
        ]
    else:
        blocks = [_within(SECONDS_PER_STAGE[preset], block) for block in blocks]
    return [replace(block, settings=only_changes(block.settings)) for block in blocks]


def only_changes(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` without those that are the defaults of the kind."""
    fields = type(TypeAdapter[Any](StageConfig).validate_python(settings)).model_fields
    return {key: value for key, value in settings.items() if key == "kind" or fields[key].default != value}


def _trees(preset: Preset, found: Found, size: Size) -> list[Block]:
    smiles, text = found.named("smiles"), found.named("text")
    parts = ["fingerprints and descriptors"] if smiles else []
    parts += ["TF-IDF"] if text else []
    parts += ["the numbers and categories"] if found.named("numeric") or found.named("categorical") else []
    per_row = len(smiles) * TREES_PER_ROW["smiles"] + len(text) * TREES_PER_ROW["text"] + TREES_PER_ROW["table"]
    seconds = per_row * size.n_rows * size.n_targets * size.n_fits
    if smiles or text:
        blocks = [Block("lightgbm", {"kind": "lightgbm"}, f"boosted trees on {', '.join(parts)}", seconds)]
        if smiles:
            svr = {"kind": "sklearn", "regressor": "SVR", "parameters": {"C": 10.0}}
            once = SVR_PER_PAIR_OF_ROWS * size.n_rows**2 * size.n_targets * size.n_fits
            blocks.append(Block("svr", svr, "support vectors on the same features: another view for the blend", once))
        if len(smiles) > 1:
            # Held-out R2 on yields of four columns: .95, trees .93, support vectors .89; of one column it adds nothing.
            layers = {"hidden_layer_sizes": [256, 128], "max_iter": 100, "alpha": 0.001}
            seeds = [0] if preset == "quick" else [0, 1]
            mlp = {"kind": "sklearn", "regressor": "MLPRegressor", "parameters": layers, "seeds": seeds}
            once = MLP_PER_ROW * len(smiles) * size.n_rows * size.n_targets * size.n_fits * len(seeds)
            blocks.append(Block("mlp", mlp, "a network on the same features: molecules that act together", once))
        if smiles and preset != "quick":
            slow = CATBOOST_PER_ROW * size.n_rows * size.n_targets * size.n_fits
            said = "boosted trees on MapLight's features"
            blocks.append(Block("catboost", {"kind": "catboost"}, said, slow))
        return blocks
    common = {"kind": "lightgbm", "feature_fraction": 0.8}  # the default is for thousands of fingerprint bits
    small = {**common, "num_leaves": 7, "min_data_in_leaf": 20, "lambda_l2": 10.0}
    return [
        Block("lightgbm", common, "boosted trees on the numbers and categories", seconds),
        Block("lightgbm_small", small, "smaller trees, more strongly regularised: another view for the blend", seconds),
    ]


def _graphs(preset: Preset, size: Size) -> list[Block]:
    gnn: dict[str, Any] = {"kind": "gnn", "epochs": 30 if preset == "quick" else 50}
    if preset == "cpu":
        gnn["seeds"] = [0, 1]
    unimol: dict[str, Any] = {"kind": "unimol", "epochs": 15 if preset == "quick" else 30}
    said = "Uni-Mol on 3-D conformers, compact, from random weights"
    if preset == "gpu":
        unimol |= {
            "architecture": "molecule", "weights": "unimol_all_h", "epochs": 60, "batch_size": 32,
            "learning_rate": 1e-4, "schedule": "linear", "warmup": 0.06,
        }  # fmt: skip
        said = "Uni-Mol as published (191 MB from the hub); batches of 32 fit 16 GB, also without bf16"
    conformers = CONFORMER_PER_PAIR * size.pairs * size.n_all_rows / CORES
    return [
        _neural("gnn", gnn, "message passing over bonds (chemprop)", GNN_PER_ATOM * size.heavy_atoms, size),
        _neural("unimol", unimol, said, UNIMOL_PER_PAIR * size.pairs, size, conformers),
    ]


def _language_models(
    preset: Preset, what: str, columns: list[str], n_tokens: float, size: Size, one_molecule: bool = False
) -> list[Block]:
    chosen: dict[str, Any] = {"columns": columns} if columns else {}
    n_tokens = min(n_tokens, 256)
    if what == "text":
        minilm = {"kind": "bert", "weights": "minilm", **chosen}
        # Held-out RMSE on the embedded tweets: .58 after four epochs at 5e-5, .60 after one at 1e-4.
        minilm |= {"epochs": 1, "learning_rate": 1e-4} if preset == "quick" else {"epochs": 4, "learning_rate": 5e-5}
        blocks = [_neural("minilm", minilm, "sentence encoder, fine-tuned", MINILM_PER_TOKEN * n_tokens, size)]
        if preset != "quick":
            frozen = {"kind": "embedding", "weights": "minilm", **chosen, "parameters": {"alpha": 100.0}}
            once = MINILM_PER_TOKEN / 3 * n_tokens * size.n_all_rows
            blocks.append(Block("minilm_frozen", frozen, "ridge on the sentence encoder as it is", once))
        if preset == "gpu":
            long = 1.4 * size.words > 200
            deberta = {
                "kind": "bert", "weights": "microsoft/deberta-v3-base", **chosen, "epochs": 4, "learning_rate": 2e-5,
                "batch_size": 8 if long else 16, "max_length": 512 if long else 256,
            }  # fmt: skip
            said = f"DeBERTa v3 from the hub; batches of {deberta['batch_size']} fit 16 GB, also without bf16"
            blocks.append(Block("deberta", deberta, said, 0))
        return blocks
    name = "rxnfp" if what == "smiles" else "rxnfp_reaction"
    rxnfp = {
        "kind": "bert",
        "weights": "rxnfp",
        **chosen,
        "epochs": 10 if preset == "cpu" else 4,
        "learning_rate": 3e-4,
    }
    if what == "reaction":
        rxnfp["tokens"] = "smiles"
    if preset != "quick" and one_molecule:
        # Of several molecules, random spellings take far more epochs: docs/evidence.md, reaction_yield.
        rxnfp["enumerate_smiles"] = True
    if preset == "gpu":
        rxnfp |= {"epochs": 15, "learning_rate": 1e-4}
    blocks = [_neural(name, rxnfp, "BERT pretrained on reaction SMILES", BERT_PER_TOKEN * n_tokens, size)]
    if preset == "gpu" and what == "smiles":
        chemberta = {
            "kind": "bert", "weights": "seyonec/ChemBERTa-zinc-base-v1", **chosen, "epochs": 10,
            "learning_rate": 3e-5, "batch_size": 32,
        }  # fmt: skip
        said = "RoBERTa of base size pretrained on ZINC, from the hub; batches of 32 fit 16 GB, also without bf16"
        blocks.append(Block("chemberta", chemberta, said, 0))
    return blocks


def _neural(name: str, settings: dict[str, Any], comment: str, per_row: float, size: Size, once: float = 0.0) -> Block:
    runs = settings["epochs"] * len(settings.get("seeds", [0]))
    return Block(name, settings, comment, once + per_row * size.n_rows * size.n_fits * runs)


def _within(budget: float, block: Block) -> Block:
    """A block with fewer epochs where it would take longer than `budget` seconds, at least a third of them;
    as a comment where these take more than three times as long.
    """
    if "epochs" in block.settings and block.seconds > budget:
        wanted = block.settings["epochs"]
        epochs = max(round(wanted * budget / block.seconds), (wanted + 2) // 3)
        block = replace(
            block,
            settings={**block.settings, "epochs": epochs},
            comment=f"{block.comment}; {epochs} epochs instead of {wanted}, for the time",
            seconds=block.seconds * epochs / wanted,
        )
    if block.seconds > (1 if block.settings["kind"] == "catboost" else 3) * budget and block.name != "lightgbm":
        slow = f"{block.comment}; about {block.seconds / 3600:.1f} h on {CORES} cores: remove the # to train it"
        return replace(block, comment=slow, enabled=False)
    return block
