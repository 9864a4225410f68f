"""What code next to a YAML may import: stages, networks, losses, candidates and features of your own.

These names stay where they are; other modules may change. A notebook reads the columns of a run with
`submissions.run.latest_run`.
"""

from typing import TYPE_CHECKING, Any

from competition.dataset import Dataset
from competition.descriptors import descriptors
from core.files import read_json, write_json
from models.context import Context
from models.inputs.fingerprints import morgan
from models.inputs.skops_files import from_bytes
from models.stage import Stage
from models.training.settings import NeuralStage

if TYPE_CHECKING:
    from models.training.batches import Batches

__all__ = [
    "Batches",
    "Context",
    "Dataset",
    "NeuralStage",
    "Stage",
    "descriptors",
    "from_bytes",
    "morgan",
    "read_json",
    "write_json",
]


def __getattr__(name: str) -> Any:
    """Return `Batches`, whose module imports torch, when it is first asked for."""
    if name != "Batches":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models.training.batches import Batches

    return Batches
