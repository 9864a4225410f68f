"""Stage `unimol`: the UniMolModel of `unimol_tools` on 3-D conformers, in the training loop of all networks.

The differences to training by unimol_tools: token ids have the order of the released checkpoints, every
dropout rate can be set, weights are checked key by key, and distances are computed on the device.

Source: Zhou et al., Uni-Mol: A Universal 3D Molecular Representation Learning Framework, ICLR 2023.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import PositiveInt, model_validator

from competition.dataset import Dataset
from core.files import read_json, write_json
from core.modules import load
from models.context import Context
from models.inputs.encoder_settings import Width
from models.inputs.weights import find_weights
from models.stages.conformer_stage import ConformerStage

if TYPE_CHECKING:
    from torch import nn

VOCABULARY = "vocabulary.json"


class Unimol(ConformerStage):
    """Uni-Mol (Zhou et al., ICLR 2023): a transformer over the atoms and distances of a 3-D conformer."""

    network_module = "models.networks.unimol"
    ignored_checkpoint_prefixes = (
        "lm_head.", "pair2coord_proj.", "dist_head.", "encoder.final_head_layer_norm.",
        "classification_head.",
    )  # fmt: skip
    pads = False
    kind: Literal["unimol"]
    architecture: Literal["compact", "molecule", "oled"] = "compact"
    """molecule, oled: the published sizes. compact: the same layers in the size of `layers`,
    `width` and `heads`."""
    remove_hydrogens: bool = False
    """Whether the model reads heavy atoms only. Required with the no_h, OLED and small weights."""
    layers: PositiveInt = 6
    """Number of layers of the architecture compact."""
    width: Width = 128
    """Width of an atom vector of the architecture compact."""
    heads: PositiveInt = 8
    """Attention heads per layer of the architecture compact."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got heads {self.heads} and width {self.width}")
        if self.architecture != "compact":
            self.require_defaults(("layers", "width", "heads"), f"with architecture {self.architecture}")
        return self

    def initial_backbone(self, train: Dataset, folder: Path, context: Context) -> "nn.Module":
        """Return the backbone with its initial weights, random or pretrained, and write their vocabulary."""
        files = find_weights(self.weights) if self.weights else {}
        write_json(folder / VOCABULARY, load(self.network_module).read_vocabulary(files))
        return super().initial_backbone(train, folder, context)

    def backbone(self, folder: Path, context: Context) -> "nn.Module":
        """Return a backbone with the vocabulary in the folder."""
        vocabulary = read_json(folder / VOCABULARY)
        sizes = self.layers, self.width, self.heads
        backbone: nn.Module = load(self.network_module).UnimolBackbone(vocabulary, self.architecture, *sizes)
        return backbone

    def unknown_elements(self, symbols: set[str], folder: Path) -> set[str]:
        """Return those of some elements that the vocabulary lacks, by their symbols."""
        return symbols.difference(read_json(folder / VOCABULARY))

    def reader(self, folder: Path) -> Any:
        """Return a function that makes tokens and centred coordinates of a molecule."""
        encode = load(self.network_module).encode
        vocabulary = read_json(folder / VOCABULARY)
        return lambda smiles, conformer: encode(conformer, vocabulary, self.remove_hydrogens)

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Return tokens, pairs and their places in groups of similar lengths."""
        batch: dict[str, Any] = load(self.network_module).collate(items)
        return batch
