"""Uni-Mol2: features of graphs and 3-D conformers, and the UniMolV2Model of `unimol_tools` as a plain module.

The differences to the package:

- A batch may have padding: attention does not see it, and modules that divide by the padded length in the
  package divide by the length of each molecule.
- RDKit computes the shortest paths.
- The same numbers take less work. The outer product is contracted with its weights one side at a time, which
  divides its cost by the number of atoms. The head that moves atoms, and the pairs of the last layer, are not
  computed, since nothing reads them.

Source: Ji et al., Uni-Mol2: Exploring Molecular Pretraining Model at Scale, NeurIPS 2024.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rdkit import Chem
from torch import Tensor, nn

from models.networks.unimol_common import MoleculeInput, quiet_import, with_atoms

with quiet_import():
    from unimol_tools.data.conformer import convert_to_single_emb, get_graph
    from unimol_tools.models.transformersv2 import (
        AtomFeature,
        EdgeFeature,
        OuterProduct,
        SE3InvariantKernel,
        TransformerEncoderLayerV2,
        TransformerEncoderWithPairV2,
    )
    from unimol_tools.models.unimolv2 import molecule_architecture

N_TOKENS = 128
"""Number of atomic numbers in the vocabulary."""
UNKNOWN = 127
"""Token of a masked atom, also used for '*': its atomic number 0 is the padding of the package."""
UNREACHABLE = 510
"""Length of a path between fragments."""
SHARED_SETTINGS = (
    "ffn_embedding_dim", "num_attention_heads", "dropout", "attention_dropout", "activation_dropout",
    "activation_fn", "droppath_prob", "pair_dropout",
)  # fmt: skip
"""Settings of a layer that have the same name in the architecture of unimol_tools."""


class Unimol2Backbone(nn.Module):
    """UniMolV2Model without its heads, from the parts of the package."""

    def __init__(self, architecture: str) -> None:
        super().__init__()
        args = molecule_architecture(architecture.replace("b", "B"))
        self.width: int = args.encoder_embed_dim
        self.embed_tokens = nn.Embedding(N_TOKENS, self.width, padding_idx=0)
        settings = {name: getattr(args, name) for name in SHARED_SETTINGS} | {
            "embedding_dim": self.width, "pair_dim": args.pair_embed_dim,
            "pair_hidden_dim": args.pair_hidden_dim,
        }  # fmt: skip
        self.encoder = TransformerEncoderWithPairV2(num_encoder_layers=0, **settings)
        for number in range(1, args.num_encoder_layers + 1):
            self.encoder.layers.append(EncoderLayer(number == args.num_encoder_layers, **settings))
        # Sizes of vocabularies as in the package's constructor.
        self.atom_feature = AtomFeature(num_atom=512, num_degree=128, hidden_dim=self.width)
        self.edge_feature = EdgeFeature(pair_dim=args.pair_embed_dim, num_edge=64, num_spatial=512)
        self.se3_invariant_kernel = SE3InvariantKernel(
            pair_dim=args.pair_embed_dim,
            num_pair=512,
            num_kernel=128,
            std_width=args.gaussian_std_width,
            start=args.gaussian_mean_start,
            stop=args.gaussian_mean_stop,
        )

    def forward(
        self,
        tokens: Tensor,
        atom_features: Tensor,
        degree: Tensor,
        bond_features: Tensor,
        shortest_path: Tensor,
        coordinates: Tensor,
    ) -> Tensor:
        """Return the vector of the virtual atom, (n_rows, width).

        The arguments are the features of `featurise`, padded with 0: (n_rows, n_atoms, ...) for atoms and
        (n_rows, n_atoms, n_atoms, ...) for pairs.
        """
        n_rows, n_atoms = tokens.shape
        x = self.atom_feature({"atom_feat": atom_features, "degree": degree}, self.embed_tokens(tokens))
        pair = x.new_zeros(n_rows, n_atoms + 1, n_atoms + 1, self.edge_feature.pair_dim)
        pair = self.edge_feature(
            {"shortest_path": shortest_path.int(), "edge_feat": bond_features.int()}, pair
        )
        # In the package, the type of a pair is the first feature of both atoms, with separate ranges of ids.
        kind = atom_features[:, :, 0]
        pair_type = torch.stack(torch.broadcast_tensors(kind[:, :, None] + 1, kind[:, None, :] + 129), dim=-1)
        distance = (coordinates[:, None] - coordinates[:, :, None]).norm(dim=-1)
        pair[:, 1:, 1:] += self.se3_invariant_kernel(distance, pair_type)

        is_real = F.pad(tokens != 0, (1, 0), value=True)  # the virtual atom is the first
        lengths = is_real.sum(dim=1)[:, None, None]
        scaled = is_real[:, :, None] * lengths**-0.5
        masks = {
            "self_attn_mask": torch.where(is_real, 0.0, float("-inf"))[:, None, None, :],
            "op_mask": scaled,
            "op_norm": (1 / (1e-3 + scaled * scaled.transpose(1, 2)))[..., None],
            # The package divides by the root of the padded length.
            "pair_mask": is_real[:, :, None] * is_real[:, None, :] * ((n_atoms + 1) / lengths) ** 0.5,
        }
        x = self.encoder.layer_norm(x)
        pair = self.encoder.pair_layer_norm(pair)
        for layer in self.encoder.layers:
            x, pair = layer(x, pair, **masks)
        return x[:, 0]


class EncoderLayer(TransformerEncoderLayerV2):
    """Layer of the package; the last layer does not update the pairs."""

    def __init__(self, is_last: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.is_last = is_last
        self.opm = OuterProductByParts(
            settings["embedding_dim"], settings["pair_dim"], d_hid=settings["pair_hidden_dim"]
        )

    def forward(self, x: Tensor, pair: Tensor, **masks: Any) -> tuple[Tensor, Tensor]:
        """Return the atoms (n_rows, n, width) and pairs (n_rows, n, n, pair_width) of the next layer."""
        if not self.is_last:
            return super().forward(x, pair, **masks)
        normed = self.self_attn_layer_norm(x)
        attended = self.self_attn(normed, normed, normed, pair=pair, mask=masks["self_attn_mask"])
        x = x + self.dropout_module(attended)
        return x + self.dropout_module(self.ffn(self.final_layer_norm(x))), pair


class OuterProductByParts(OuterProduct):
    """Linear map of outer products a_i b_j, computed as a_i (W b_j).

    The package makes an array of n * n * hidden * hidden numbers instead.
    """

    def forward(self, m: Tensor, op_mask: Tensor, op_norm: Tensor) -> Tensor:
        """Return pairs (n_rows, n, n, d_pair) of atoms m (n_rows, n, d_atom).

        Args:
            op_mask: factor of each atom, (n_rows, n, 1), 0 for padding.
            op_norm: factor of each pair, (n_rows, n, n, 1).
        """
        a, b = (self.linear_in(m) * op_mask).chunk(2, dim=-1)
        by_parts = self.linear_out.weight.view(self.d_pair, self.d_hid, self.d_hid)
        half = torch.einsum("bje,pde->bdjp", b, by_parts).flatten(2)
        outer = torch.bmm(a, half).view(*a.shape[:2], -1, self.d_pair)
        return (outer + self.linear_out.bias) * op_norm


def featurise(molecule: Chem.Mol, conformer: NDArray[np.float32]) -> MoleculeInput:
    """Return the features of the heavy atoms of a molecule, which `mol2unimolv2` of the package also returns.

    Args:
        conformer: (n_atoms, 4) of the molecule with hydrogens.
    """
    with_hydrogens = Chem.AddHs(molecule)
    heavy = Chem.RemoveAllHs(with_hydrogens)
    atoms = with_atoms(conformer, remove_hydrogens=True)
    if (atoms[:, 0] == 1).all():
        heavy = with_hydrogens
    features, bonds, bond_features = get_graph(heavy)
    n_atoms = len(features)
    pair_features = np.zeros((n_atoms, n_atoms, 3), dtype=np.uint8)
    pair_features[bonds[0], bonds[1]] = convert_to_single_emb(bond_features, [16, 16, 16]) + 1
    degree = np.bincount(bonds[0], minlength=n_atoms)
    paths = np.minimum(Chem.GetDistanceMatrix(heavy), UNREACHABLE)
    numbers = atoms[:, 0].astype(np.int64)
    # The added numbers are as in the package, which reserves the first ids of each feature.
    return {
        "tokens": np.where(numbers == 0, UNKNOWN, numbers),
        "atom_features": convert_to_single_emb(features[:, 1:], [16] * 8) + 2,
        "degree": degree + 2,
        "bond_features": pair_features + np.uint8(2),
        "shortest_path": paths.astype(np.int16) + np.int16(1),
        "coordinates": atoms[:, 1:],
    }
