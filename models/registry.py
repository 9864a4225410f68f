"""Which class serves which kind of stage, and which caches a stage shares with others.

A kind of this project is a settings class in `models/config.py` and a file of its name in `models/stages/`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from competition.tables import Rows
from models.config import CustomStage, EmbeddingStage, TreesStage
from models.inputs.cache import Cache
from models.inputs.conformers import conformer_cache
from models.inputs.features import stage_features
from models.inputs.frozen import encoder_cache
from models.inputs.template import SEPARATOR, read_template
from models.settings import ConformerStage, NeuralStage, Stage
from models.stage import Context, FittedStage


def build_stage(config: Stage, context: Context) -> FittedStage:
    """The stage of a settings block: of the kind `gnn` the class `Gnn` in `models/stages/gnn.py`. Imports no other."""
    kind: str = config.kind  # type: ignore[attr-defined]  # every kind's own settings have it
    module = importlib.import_module(f"models.stages.{kind}")
    stage: FittedStage = getattr(module, kind.capitalize())(config, context)
    if config.target_transform == "none":
        return stage
    from models.stages.targets import Transformed

    return Transformed(stage, config.target_transform)


def shared_caches(config: Stage, context: Context, tables: Sequence[Rows]) -> list[tuple[Cache, list[str]]]:
    """The caches that the jobs of a stage read, each with the molecules or texts of some rows, sorted and once each.

    They are filled before the jobs start. Without torch, since the parent process of all workers asks.
    """

    def molecules(columns: list[str]) -> list[str]:
        return sorted({smiles for rows in tables for column in columns for smiles in rows.inputs[column]})

    found = [(cache, molecules(context.smiles)) for cache in stage_features(config, context)]
    if isinstance(config, ConformerStage):
        conformers = conformer_cache(context.cache, **config.conformer_settings)
        found.append((conformers, molecules(config.columns or context.smiles)))
    if isinstance(config, EmbeddingStage):
        template = read_template(config, context)
        texts = {text for rows in tables for text in template.texts(rows.inputs, SEPARATOR)}
        found.append((encoder_cache(config, context.cache), sorted(texts)))
    return found


def asks_for_gpu(config: Stage) -> bool:
    """Whether a job of a stage takes a GPU for itself, where there is one; all others compute on cores."""
    return isinstance(config, NeuralStage) or (isinstance(config, CustomStage) and config.gpu)


def asks_for_threads(config: Stage) -> bool:
    """Whether a job of a stage may use several cores, since its result does not depend on their number."""
    return isinstance(config, TreesStage)
