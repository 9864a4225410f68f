"""Stage `unimol`: the UniMolModel of `unimol_tools` on 3-D conformers, as a plain module under our trainer.

Source: Zhou et al., Uni-Mol: A Universal 3D Molecular Representation Learning Framework, ICLR 2023.
What is ours and why: token ids in the order of the released checkpoints (unimol_tools 0.1.5 and later permute
them silently), every dropout rate reachable, weights checked key by key, distances built on the device.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem
from torch import Tensor, nn

from competition.files import read_json, write_json
from competition.tables import Rows
from models.config import UnimolStage
from models.inputs.weights import find_weights
from models.stages.pairs import Encoder, pair_bias
from models.stages.unimol_shared import OnConformers, load_checkpoint, quiet_import
from models.training.batches import Batches
from models.training.neural import side_by_side

with quiet_import():
    from unimol_tools.models.unimol import (
        GaussianLayer,
        NonLinearHead,
        NumericalEmbed,
        molecule_architecture,
        oled_architecture,
    )

KERNEL_WIDTH = 128  # number of basis functions of a distance, the same in every published model
SPECIAL_TOKENS = {
    "file": ["[PAD]", "[CLS]", "[SEP]", "[UNK]"],
    "unimol_tools": ["[CLS]", "[UNK]", "[PAD]", "[SEP]"],
}
FOREIGN_KEYS = ("lm_head.", "pair2coord_proj.", "dist_head.", "encoder.final_head_layer_norm.", "classification_head.")
"""Parts of a checkpoint that only its pre-training or an earlier fine-tuning used."""


class UnimolBackbone(nn.Module):
    """UniMolModel without its head, in any size: its constructor wants a checkpoint and knows fixed sizes only.

    The parts are the package's own, run faster (`pairs.py`); tests hold both published architectures to the
    package's constructor parameter by parameter and output by output, and all gradients to those of its modules.
    """

    def __init__(self, config: UnimolStage, vocabulary: list[str]) -> None:
        super().__init__()
        args = oled_architecture() if config.architecture == "oled" else molecule_architecture()
        if config.architecture == "compact":
            args.encoder_layers, args.encoder_embed_dim = config.layers, config.width
            args.encoder_ffn_embed_dim, args.encoder_attention_heads = 4 * config.width, config.heads
        self.padding_idx = vocabulary.index("[PAD]")
        self.embed_tokens = nn.Embedding(len(vocabulary), args.encoder_embed_dim, self.padding_idx)
        self.encoder = Encoder(
            encoder_layers=args.encoder_layers,
            embed_dim=args.encoder_embed_dim,
            ffn_embed_dim=args.encoder_ffn_embed_dim,
            attention_heads=args.encoder_attention_heads,
            emb_dropout=args.emb_dropout,
            dropout=args.dropout,
            attention_dropout=args.attention_dropout,
            activation_dropout=args.activation_dropout,
            max_seq_len=args.max_seq_len,
            activation_fn=args.activation_fn,
            no_final_head_layer_norm=args.delta_pair_repr_norm_loss < 0,
        )
        self.gbf_proj = NonLinearHead(KERNEL_WIDTH, args.encoder_attention_heads, args.activation_fn)
        kernel = GaussianLayer if args.kernel == "gaussian" else NumericalEmbed
        self.gbf = kernel(KERNEL_WIDTH, len(vocabulary) ** 2)
        self.width: int = args.encoder_embed_dim

    def forward(self, tokens: Tensor, coordinates: Tensor) -> Tensor:
        """Vector of [CLS], (n_rows, width).

        Args:
            tokens: (n_rows, n_tokens) ids, [CLS] atoms [SEP] padding.
            coordinates: (n_rows, n_tokens, 3) in angstrom around the centroid, where [CLS] and [SEP] stand.
        """
        bias = pair_bias(self.gbf, self.gbf_proj, tokens, coordinates, self.padding_idx)
        return self.encoder(self.embed_tokens(tokens), bias)


class Unimol(OnConformers):
    """The stage; see `models.training.neural.Neural`."""

    def start(self, train: Rows, folder: Path) -> nn.Module:
        """The configured weights, or random ones where none are configured."""
        files = find_weights(self.config.weights) if self.config.weights else {}
        vocabulary = read_vocabulary(files, self.config.token_order)
        write_json(folder / "vocabulary.json", vocabulary)
        backbone = UnimolBackbone(self.config, vocabulary)
        if files:
            load_checkpoint(backbone, files, FOREIGN_KEYS)
        self.count_statuses(train, folder)
        return self.per_column(backbone)

    def restore(self, folder: Path) -> nn.Module:
        """The same architecture for each molecule column."""
        return self.per_column(UnimolBackbone(self.config, read_json(folder / "vocabulary.json")))

    def encode(self, rows: Rows, folder: Path, view: int, seed: int) -> Batches:
        """Tokens and centred coordinates of each molecule; a view is a conformer."""
        vocabulary = read_json(folder / "vocabulary.json")
        padding = vocabulary.index("[PAD]")
        columns = []
        for column in self.columns:
            conformers = dict(zip(rows.inputs[column], self.conformers(rows, column, view), strict=True))
            encoded = {s: encode(conformers[s], vocabulary, self.config.remove_hydrogens) for s in conformers}
            items = [encoded[smiles] for smiles in rows.inputs[column]]
            lengths = np.array([len(tokens) for tokens, _ in items])
            columns.append(Batches(items, lengths, lambda part: collate(part, padding)))
        return side_by_side(columns, once=self.config.backbone_dropout == 0)


def read_vocabulary(files: dict[str, Path], token_order: str) -> list[str]:
    """Symbols by token id: the special tokens in the checkpoint's own order, the atoms of its dictionary, [MASK].

    Args:
        files: of the weights; a dictionary among them wins over the one that ships with unimol_tools.
        token_order: a key of SPECIAL_TOKENS.
    """
    own = [path for name, path in files.items() if name.endswith("dict.txt")]
    spec = importlib.util.find_spec("unimol_hf")
    assert spec is not None and spec.origin is not None
    path = own[0] if own else Path(spec.origin).parent / "pretrained" / "unimol-v1-allh" / "mol.dict.txt"
    symbols = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    atoms = [symbol for symbol in symbols if symbol not in SPECIAL_TOKENS["file"] and symbol != "[MASK]"]
    return [*SPECIAL_TOKENS[token_order], *atoms, "[MASK]"]


def encode(
    conformer: NDArray[np.float32], vocabulary: list[str], remove_hydrogens: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Token ids (n_tokens,) and centred coordinates (n_tokens, 3) of a conformer (n_atoms, 4)."""
    atoms = conformer[conformer[:, 0] != 1] if remove_hydrogens else conformer
    if len(atoms) == 0:  # molecular hydrogen has nothing but hydrogens
        atoms = conformer
    table, unknown = Chem.GetPeriodicTable(), vocabulary.index("[UNK]")
    id_of = {symbol: i for i, symbol in enumerate(vocabulary)}
    # Atomic number 0 is '*', the open end of a repeat unit; its symbol is not in the dictionary.
    ids = [id_of.get(table.GetElementSymbol(int(number)), unknown) if number else unknown for number in atoms[:, 0]]
    centred = atoms[:, 1:] - atoms[:, 1:].mean(axis=0)
    centroid = np.zeros((1, 3), dtype=np.float32)
    tokens = np.array([id_of["[CLS]"], *ids, id_of["[SEP]"]], dtype=np.int64)
    return tokens, np.concatenate([centroid, centred, centroid]).astype(np.float32)


def collate(items: list[tuple[NDArray[np.int64], NDArray[np.float32]]], padding: int) -> dict[str, Tensor]:
    """Encoded molecules to the arguments of `UnimolBackbone.forward`, padded to the longest."""
    longest = max(len(tokens) for tokens, _ in items)
    tokens = np.full((len(items), longest), padding, dtype=np.int64)
    coordinates = np.zeros((len(items), longest, 3), dtype=np.float32)
    for i, (ids, positions) in enumerate(items):
        tokens[i, : len(ids)] = ids
        coordinates[i, : len(ids)] = positions
    return {"tokens": torch.from_numpy(tokens), "coordinates": torch.from_numpy(coordinates)}
