"""What user code next to a YAML may import, for stages, networks, losses, folds, candidates and features.

These names stay where they are; other modules may change. A notebook reads the predictions of a run with
`pipeline.api.load`.
"""

from competition.dataset import Dataset
from competition.descriptors import descriptors
from core.files import read_json, write_json
from folds.splitters import SplitData
from models.context import Context
from models.inputs.fingerprints import morgan
from models.inputs.skops_files import from_bytes
from models.stage import Stage
from models.training.batches import Batches
from models.training.neural_stage import NeuralStage

__all__ = [
    "Batches",
    "Context",
    "Dataset",
    "NeuralStage",
    "SplitData",
    "Stage",
    "descriptors",
    "from_bytes",
    "morgan",
    "read_json",
    "write_json",
]
