"""Stage `unimol`: the UniMolModel of `unimol_tools` on 3-D conformers, in the training loop of all networks.

The differences to training by unimol_tools: token ids have the order of the released checkpoints (unimol_tools
0.1.5 and later permute them silently), every dropout rate can be set, weights are checked key by key, and
distances are computed on the device.

Source: Zhou et al., Uni-Mol: A Universal 3D Molecular Representation Learning Framework, ICLR 2023.
"""

from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from torch import Tensor, nn

from competition.dataset import Dataset
from core.files import read_json, write_json
from models.inputs.weights import find_weights
from models.neural_config import UnimolConfig
from models.stages.unimol_pairs import Groups, UnimolEncoder, UnimolEncoderLayer, pair_bias
from models.stages.unimol_shared import ConformerModel, MoleculeInput, quiet_import, with_atoms

with quiet_import():
    from unimol_tools.models.unimol import (
        GaussianLayer,
        NonLinearHead,
        NumericalEmbed,
        molecule_architecture,
        oled_architecture,
    )

KERNEL_WIDTH = 128
"""Number of basis functions that encode a distance, in all published models."""
COMPACT_KERNEL_WIDTH = 32
"""Number of basis functions in the compact model, whose steps are much shorter with fewer."""
SPECIAL_TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
PADDING, FIRST, LAST, UNKNOWN = range(4)
VOCABULARY = "vocabulary.json"
SHARED_SETTINGS = ("dropout", "attention_dropout", "activation_dropout", "activation_fn")
"""Settings of a layer that have the same name in the architectures of unimol_tools."""


class UnimolBackbone(nn.Module):
    """UniMolModel without its head, in any size.

    The constructor of UniMolModel requires a checkpoint and has fixed sizes. The parts are those of
    unimol_tools, with a faster forward pass (`unimol_pairs.py`). Tests check for both published architectures
    that parameters and outputs equal those of the original UniMolModel.
    """

    def __init__(self, config: UnimolConfig, vocabulary: list[str]) -> None:
        super().__init__()
        args = oled_architecture() if config.architecture == "oled" else molecule_architecture()
        if config.architecture == "compact":
            args.encoder_layers, args.encoder_embed_dim = config.layers, config.width
            args.encoder_ffn_embed_dim, args.encoder_attention_heads = 4 * config.width, config.heads
        kernel_width = COMPACT_KERNEL_WIDTH if config.architecture == "compact" else KERNEL_WIDTH
        self.width: int = args.encoder_embed_dim
        self.embed_tokens = nn.Embedding(len(vocabulary), self.width, PADDING)
        layer_settings = {name: getattr(args, name) for name in SHARED_SETTINGS} | {
            "embed_dim": self.width, "ffn_embed_dim": args.encoder_ffn_embed_dim,
            "attention_heads": args.encoder_attention_heads,
        }  # fmt: skip
        self.encoder = UnimolEncoder(
            encoder_layers=0, emb_dropout=args.emb_dropout, no_final_head_layer_norm=True, **layer_settings
        )
        self.encoder.layers.extend(UnimolEncoderLayer(**layer_settings) for _ in range(args.encoder_layers))
        self.gbf_proj = NonLinearHead(kernel_width, args.encoder_attention_heads, args.activation_fn)
        kernel = GaussianLayer if args.kernel == "gaussian" else NumericalEmbed
        self.gbf = kernel(kernel_width, len(vocabulary) ** 2)

    def forward(self, tokens: Tensor, coordinates: Tensor) -> Tensor:
        """Return the vector of [CLS], (n_rows, width).

        Args:
            tokens: (n_rows, n_tokens) ids: [CLS], atoms, [SEP], padding.
            coordinates: (n_rows, n_tokens, 3) in angstrom around the centroid, at which [CLS] and [SEP] are.
        """
        is_real = tokens != PADDING
        groups = Groups.of(is_real.sum(dim=1))
        biases = pair_bias(self.gbf, self.gbf_proj, groups.split(tokens), groups.split(coordinates), PADDING)
        real_tokens = tokens[groups.order][is_real[groups.order]]
        first = self.encoder(self.embed_tokens(real_tokens), biases, groups)
        return first[groups.order.argsort()]


class Unimol(ConformerModel):
    """Stage `unimol`; `models.training.neural_model.NeuralModel` documents its methods."""

    ignored_checkpoint_prefixes = (
        "lm_head.", "pair2coord_proj.", "dist_head.", "encoder.final_head_layer_norm.", "classification_head.",
    )  # fmt: skip
    equal_lengths = False

    def init_backbone(self, train: Dataset, folder: Path) -> nn.Module:
        """Return the backbone with its initial weights, random or pretrained, and write their vocabulary."""
        files = find_weights(self.config.weights) if self.config.weights else {}
        write_json(folder / VOCABULARY, read_vocabulary(files))
        return super().init_backbone(train, folder)

    def restore_backbone(self, folder: Path) -> nn.Module:
        """Return a backbone with the vocabulary in the folder."""
        return UnimolBackbone(self.config, read_json(folder / VOCABULARY))

    def reader(self, folder: Path) -> Any:
        """Return a function that makes tokens and centred coordinates of a molecule."""
        vocabulary = read_json(folder / VOCABULARY)
        return lambda smiles, conformer: encode(conformer, vocabulary, self.config.remove_hydrogens)


def read_vocabulary(files: dict[str, Path]) -> list[str]:
    """Return the symbol of each token id: special tokens in the order of the checkpoints, atoms, [MASK].

    Args:
        files: files of the weights. A dictionary among them replaces that of unimol_tools.
    """
    bundled = distribution("unimol_tools").locate_file("unimol_hf/pretrained/unimol-v1-allh/mol.dict.txt")
    path = next((path for name, path in files.items() if name.endswith("dict.txt")), Path(str(bundled)))
    symbols = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    atoms = [symbol for symbol in symbols if symbol not in (*SPECIAL_TOKENS, "[MASK]")]
    return [*SPECIAL_TOKENS, *atoms, "[MASK]"]


def encode(conformer: NDArray[np.float32], vocabulary: list[str], remove_hydrogens: bool) -> MoleculeInput:
    """Return token ids (n_tokens,) and centred coordinates (n_tokens, 3) of a conformer.

    Args:
        conformer: (n_atoms, 4): atomic number, x, y, z.
    """
    atoms = with_atoms(conformer, remove_hydrogens)
    table = Chem.GetPeriodicTable()
    token_ids = {symbol: i for i, symbol in enumerate(vocabulary)}
    # Atomic number 0 is '*', the open end of a repeat unit; its symbol is not in the dictionary.
    ids = [token_ids.get(table.GetElementSymbol(int(number)), UNKNOWN) for number in atoms[:, 0]]
    centred = atoms[:, 1:] - atoms[:, 1:].mean(axis=0)
    centred = np.pad(centred, ((1, 1), (0, 0)))  # [CLS] and [SEP] are at the centroid
    return {"tokens": np.array([FIRST, *ids, LAST]), "coordinates": centred.astype(np.float32)}
