"""Stage `unimol`: the UniMolModel of `unimol_tools` on 3-D conformers, as a plain module under our trainer.

Source: Zhou et al., Uni-Mol: A Universal 3D Molecular Representation Learning Framework, ICLR 2023.
`models/inputs/poses.py` has the network and what it reads.
"""

from pathlib import Path
from typing import Any

from torch import nn

from competition.files import read_json, write_json
from competition.tables import Rows
from models.inputs.poses import FOREIGN_KEYS, UnimolBackbone, encode, read_vocabulary
from models.inputs.weights import find_weights
from models.stages.unimol_shared import OnConformers

VOCABULARY = "vocabulary.json"


class Unimol(OnConformers):
    """The stage; see `models.training.neural.Neural`."""

    foreign_keys = FOREIGN_KEYS
    equal_lengths = False

    def start(self, train: Rows, folder: Path) -> nn.Module:
        """Writes the vocabulary of the weights, too."""
        files = find_weights(self.config.weights) if self.config.weights else {}
        write_json(folder / VOCABULARY, read_vocabulary(files))
        return super().start(train, folder)

    def restore(self, folder: Path) -> nn.Module:
        """Of the vocabulary in the folder."""
        return UnimolBackbone(self.config, read_json(folder / VOCABULARY))

    def reader(self, folder: Path) -> Any:
        """Tokens and centred coordinates."""
        vocabulary, without = read_json(folder / VOCABULARY), self.config.remove_hydrogens
        return lambda smiles, conformer: encode(conformer, vocabulary, without)
