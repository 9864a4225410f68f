"""The modules and forward pass of unimol_tools in the size of a backbone, as a reference for it."""

import contextlib
from unittest import mock

import torch
from unimol_tools.models import unimolv2
from unimol_tools.models.unimol import UniMolModel

from models.networks.unimol import read_vocabulary
from models.training.network import set_rates


@contextlib.contextmanager
def small_unimol2(n_layers=2, pair_width=8):
    """Make every Uni-Mol2 small: the smallest official one has 84 million weights."""
    original = unimolv2.molecule_architecture

    def architecture(model_size):
        args = original(model_size)
        args.num_encoder_layers = n_layers
        args.encoder_embed_dim = args.ffn_embedding_dim = 32
        args.num_attention_heads = 2
        args.pair_embed_dim = pair_width
        args.pair_hidden_dim = 4
        return args

    with mock.patch("models.networks.unimol2.molecule_architecture", architecture):
        yield


def compare(backbone, batch, reference, batches):
    """Compare the outputs for a batch with those of the package for its parts, with gradients in both cases."""
    for network in (backbone, reference):
        set_rates(network, 0.0)
    outputs = backbone.train()(**batch)
    expected = torch.cat([reference.train()(**part) for part in batches])
    assert outputs.requires_grad
    assert (outputs - expected).abs().max() < 1e-5 * expected.abs().max()


class PackageModel(UniMolModel):
    """UniMolModel with a copy of the backbone's weights, and the same arguments."""

    def __init__(self, backbone, architecture, args, folder):
        """Build the model with the settings `args`. Its constructor reads a checkpoint, and rejects other
        shapes.
        """
        torch.save({"model": backbone.state_dict()}, folder / "model.pt")
        (folder / "dict.txt").write_text("\n".join(read_vocabulary({})[:-1]))  # [MASK] is added
        both = {"molecule_architecture": lambda: args, "oled_architecture": lambda: args}
        with mock.patch.multiple("unimol_tools.models.unimol", **both), contextlib.chdir(folder):
            super().__init__(1, architecture, str(folder / "model.pt"))
        self.padding_idx = 0  # its dictionary has the special tokens in another order

    def forward(self, tokens, coordinates):
        # The default mode of cdist for many points loses digits of short distances.
        distance = torch.cdist(coordinates, coordinates, compute_mode="donot_use_mm_for_euclid_dist")
        edge_type = tokens.unsqueeze(2) * len(self.embed_tokens.weight) + tokens.unsqueeze(1)
        return super().forward(tokens, distance, coordinates, edge_type, return_repr=True)


class PackageModel2(unimolv2.UniMolV2Model):
    """UniMolV2Model with a copy of the backbone's weights, and the same arguments."""

    def __init__(self, backbone):
        original = unimolv2.molecule_architecture
        layer = backbone.encoder.layers[0]

        def architecture(model_size):
            args = original(model_size)
            args.num_encoder_layers = len(backbone.encoder.layers)
            args.pair_embed_dim = backbone.edge_feature.pair_dim
            args.encoder_embed_dim = args.ffn_embedding_dim = backbone.width
            args.pair_hidden_dim = layer.opm.d_hid
            args.num_attention_heads = args.encoder_attention_heads = layer.num_attention_heads
            return args

        with (
            mock.patch.object(unimolv2, "molecule_architecture", architecture),
            mock.patch.object(unimolv2.UniMolV2Model, "load_pretrained_weights"),  # it requires a checkpoint
        ):
            super().__init__(1, "84m", pretrained_model_path="none")
        self.load_state_dict(backbone.state_dict(), strict=False)

    def forward(self, tokens, atom_features, coordinates, **pairs):
        n_rows, n_atoms = tokens.shape
        kind = atom_features[:, :, 0]
        return super().forward(
            atom_feat=atom_features,
            atom_mask=torch.ones_like(tokens),
            edge_feat=pairs["bond_features"].int(),
            shortest_path=pairs["shortest_path"].int(),
            degree=pairs["degree"],
            pair_type=torch.stack(
                torch.broadcast_tensors(kind[:, :, None] + 1, kind[:, None, :] + 129), dim=-1
            ),
            attn_bias=torch.zeros(n_rows, n_atoms + 1, n_atoms + 1),
            src_tokens=tokens,
            src_coord=coordinates,
            return_repr=True,
        )
