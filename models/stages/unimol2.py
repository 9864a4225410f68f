"""Stage `unimol2`: the UniMolV2Model of `unimol_tools` on graphs and 3-D conformers.

Source: Ji et al., Uni-Mol2: Exploring Molecular Pretraining Model at Scale, NeurIPS 2024.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from core.modules import load
from models.context import Context
from models.inputs.conformers import build_molecule
from models.stages.conformer_stage import COMMON, ConformerStage

if TYPE_CHECKING:
    from torch import nn


class Unimol2(ConformerStage):
    """Uni-Mol2 (Ji et al., NeurIPS 2024): atom and pair representations of graph and conformer;
    heavy atoms only.
    """

    network_module = "models.networks.unimol2"
    ignored_checkpoint_prefixes = ("lm_head.", "movement_pred_head.", "classification_head")
    pads = True
    kind: Literal["unimol2"]
    architecture: Literal["84m", "164m", "310m", "570m", "1.1b"] = "84m"
    """Published size, as its number of weights."""

    def backbone(self, folder: Path, context: Context) -> "nn.Module":
        """Return a backbone of the architecture in the settings."""
        backbone: nn.Module = load(self.network_module).Unimol2Backbone(self.architecture)
        return backbone

    def reader(self, folder: Path) -> Any:
        """Return a function that makes the graph and coordinates of the heavy atoms of a molecule."""
        featurise = load(self.network_module).featurise
        return lambda smiles, conformer: featurise(build_molecule(smiles, self.fragments), conformer)

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Return features of atoms and pairs, padded to the longest molecule."""
        batch: dict[str, Any] = load(COMMON).collate(items)
        return batch
