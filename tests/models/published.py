"""The package's own modules and forward pass in the size of a backbone of ours, to hold ours to."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from unimol_tools.models.transformers import TransformerEncoderWithPair
from unimol_tools.models.unimol import NonLinearHead, UniMolModel

from models.unimol import UnimolBackbone


class PackageModel(UniMolModel):
    """UniMolModel with a copy of the weights of ours, and the same arguments."""

    def __init__(self, ours: UnimolBackbone) -> None:
        nn.Module.__init__(self)
        layer = ours.encoder.layers[0]
        heads = layer.attention_heads
        self.padding_idx = ours.padding_idx
        self.embed_tokens = nn.Embedding(*ours.embed_tokens.weight.shape, ours.padding_idx)
        self.encoder = TransformerEncoderWithPair(
            len(ours.encoder.layers), ours.width, layer.fc1.out_features, heads, no_final_head_layer_norm=True
        )
        self.gbf_proj = NonLinearHead(128, heads, "gelu")
        self.gbf = type(ours.gbf)(128, ours.gbf.mul.num_embeddings)
        self.load_state_dict(ours.state_dict())

    def forward(self, tokens: Tensor, coordinates: Tensor) -> Tensor:
        # The default mode of cdist for many points loses digits of short distances.
        distance = torch.cdist(coordinates, coordinates, compute_mode="donot_use_mm_for_euclid_dist")
        edge_type = tokens.unsqueeze(2) * len(self.embed_tokens.weight) + tokens.unsqueeze(1)
        return super().forward(tokens, distance, coordinates, edge_type, return_repr=True)
