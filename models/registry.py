"""The one place that knows which file serves which kind of stage.

A kind of this project is a settings class in `models/config.py`, a file `models/stages/<kind>.py` and a `case` here.
"""

from __future__ import annotations

from models.config import (
    BertStage,
    CatboostStage,
    ConformerStage,
    EmbeddingStage,
    GnnStage,
    LightgbmStage,
    SklearnStage,
    Unimol2Stage,
    UnimolStage,
)
from models.inputs.cache import MoleculeCache
from models.settings import CustomStage, FileStage, Stage
from models.stage import Context, FittedStage


def build_stage(config: Stage, context: Context) -> FittedStage:
    """The stage of a settings block. Imports the libraries of its kind only."""
    stage = _stage_of_kind(config, context)
    if config.target_transform == "none":
        return stage
    from models.stages.targets import Transformed

    return Transformed(stage, config.target_transform)


def _stage_of_kind(config: Stage, context: Context) -> FittedStage:
    match config:
        case UnimolStage():
            from models.stages.unimol import Unimol

            return Unimol(config, context)
        case Unimol2Stage():
            from models.stages.unimol2 import Unimol2

            return Unimol2(config, context)
        case GnnStage():
            from models.stages.gnn import Gnn

            return Gnn(config, context)
        case BertStage():
            from models.stages.bert import Bert

            return Bert(config, context)
        case EmbeddingStage():
            from models.stages.embedding import Embedding

            return Embedding(config, context)
        case LightgbmStage():
            from models.stages.lightgbm import Lightgbm

            return Lightgbm(config, context)
        case CustomStage():
            from models.stages.custom import Custom

            return Custom(config, context)
        case CatboostStage():
            from models.stages.catboost import Catboost

            return Catboost(config, context)
        case SklearnStage():
            from models.stages.sklearn import Sklearn

            return Sklearn(config, context)
        case FileStage():
            from models.stages.file import File

            return File(config, context)
    raise TypeError(f"no stage is registered for {type(config).__name__}")


def shared_caches(config: Stage, context: Context) -> list[MoleculeCache]:
    """Caches of molecules that a stage reads and that are filled in parallel before any job starts.

    Without torch, since the parent process asks.
    """
    match config:
        case ConformerStage():
            from models.inputs.conformers import conformer_cache

            return [conformer_cache(context.cache, **config.conformer_settings)]
        case LightgbmStage() | CatboostStage() | SklearnStage():
            from models.inputs.features import molecule_features

            return molecule_features(list(config.features), config.n_bits, context.cache)
    return []
