"""Faster versions of the costly parts of Uni-Mol, with the parameters and outputs of `unimol_tools`.

Pair features take most of a step of a small model. Here they are computed for pairs without padding only,
once for (i, j) and (j, i) if both are equal, and in chunks that fit into the cache of a core. The pair bias
of a layer is one `baddbmm`, and the last layer is computed for [CLS] only, since nothing else of it is read.
`benchmarks/moltrain.py` measures entire trainings.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.stages.unimol_shared import quiet_import

with quiet_import():
    from unimol_tools.models.transformers import TransformerEncoderLayer, TransformerEncoderWithPair

CPU_CHUNK = 1024
"""Pairs per chunk on a CPU. The time differs by a tenth from 512 to 4096 pairs."""
ROOT_TWO_PI = (2 * 3.14159) ** 0.5  # pi as in the package, whose published weights were trained with it


def gaussian_head(x: Tensor, mean: Tensor, std: Tensor, first: Any, second: Any) -> Tensor:
    """Return the outputs (n_out, n) of normal densities, a linear layer, GELU and another linear layer.

    Everything is computed in float32. Exponents are at least -60, since a CPU takes ten times as long for an
    exponential that underflows, and for products with one.

    Args:
        x: (n,) scalars.
        mean: (k,) means of the densities.
        std: (k,) standard deviations of the densities.
        first: the first linear layer.
        second: the second linear layer.
    """
    with torch.autocast(x.device.type, enabled=False):
        scale = 0.5**0.5 / std
        weight = first.weight / (ROOT_TWO_PI * std)
        parts = []
        for part in x.split(CPU_CHUNK if x.device.type == "cpu" else len(x)):
            exponent = torch.addcmul(-mean * scale, part[:, None], scale).square().neg().clamp_min(-60.0)
            parts.append(second(F.gelu(F.linear(exponent.exp(), weight, first.bias))).T)
        return torch.cat(parts, dim=1)


def pair_bias(gbf: Any, gbf_proj: Any, tokens: Tensor, coordinates: Tensor, padding: int) -> Tensor:
    """Return the attention bias of each head and pair, (n_heads * n_rows, n_tokens, n_tokens), head by head.

    The features of a pair depend on its two tokens, in their order, and on their distance. So (i, j) and (j, i)
    have the same features if their tokens are equal, and are then computed once. Padded keys have minus
    infinity.

    Args:
        gbf: module of the package that maps distances to densities.
        gbf_proj: module of the package that maps densities to the bias of each head.
        tokens: (n_rows, n_tokens).
        coordinates: (n_rows, n_tokens, 3) in angstrom.
    """
    n_rows, n_tokens = tokens.shape
    real = tokens != padding
    equal = tokens[:, :, None] == tokens[:, None, :]
    computed = (real[:, :, None] & real[:, None, :]) & ~equal.tril(-1)
    row, i, j = computed.nonzero(as_tuple=True)
    distance = (coordinates[row, i] - coordinates[row, j]).norm(dim=-1)
    n_types = round(gbf.mul.num_embeddings**0.5)
    edge_type = tokens[row, i] * n_types + tokens[row, j]
    if hasattr(gbf, "means"):
        with torch.autocast(tokens.device.type, enabled=False):
            # The same numbers as gbf.mul(edge_type), whose backward pass is slow for vectors of length 1.
            mul, shift = (table.weight.squeeze(1).index_select(0, edge_type) for table in (gbf.mul, gbf.bias))
            x = mul * distance + shift
        std = gbf.stds.weight.view(-1).abs() + 1e-5
        values = gaussian_head(x, gbf.means.weight.view(-1), std, gbf_proj.linear1, gbf_proj.linear2)
    else:
        values = gbf_proj(gbf(distance, edge_type)).float().T

    # The column of `values` for each pair. Two more columns follow: 0 for a padded row, and minus infinity for
    # a padded key.
    source = torch.where(real, len(row), len(row) + 1)[:, None, :].repeat(1, n_tokens, 1)
    source[row, i, j] = torch.arange(len(row), device=tokens.device)
    twice = equal[row, i, j]
    source[row[twice], j[twice], i[twice]] = source[row[twice], i[twice], j[twice]]
    padded = values.new_tensor([0.0, float("-inf")]).expand(len(values), 2)
    return torch.cat([values, padded], dim=1).index_select(1, source.view(-1)).view(-1, n_tokens, n_tokens)


class UnimolEncoderLayer(TransformerEncoderLayer):
    """Layer of the package, with heads before rows, so that the pair bias is never transposed."""

    def forward(self, x: Tensor, bias: Tensor, first_only: bool = False) -> tuple[Tensor, Tensor]:
        """Return tokens (n_rows, n_tokens, width) and the bias of the next layer.

        The bias has the shape (n_heads * n_rows, n_tokens, n_tokens).

        Args:
            first_only: compute the first token only; the shapes are then (n_rows, 1, width) and
                (n_heads * n_rows, 1, n_tokens).
        """
        attention = self.self_attn
        n_rows, n_tokens, width = x.shape
        heads, head_width = attention.num_heads, attention.head_dim
        split = attention.in_proj(self.self_attn_layer_norm(x)).view(n_rows, n_tokens, 3, heads, head_width)
        q, k, v = split.permute(2, 3, 0, 1, 4).reshape(3, heads * n_rows, n_tokens, head_width)
        if first_only:
            x, q, bias = x[:, :1], q[:, :1], bias[:, :1]
        with torch.autocast(x.device.type, enabled=False):  # float32, since the bias adds up over layers
            bias = torch.baddbmm(bias, q.float(), k.float().transpose(1, 2), alpha=attention.scaling)
        weights = F.dropout(bias.softmax(-1), attention.dropout, self.training)
        mixed = torch.bmm(weights, v).view(heads, n_rows, -1, head_width).permute(1, 2, 0, 3)
        mixed = attention.out_proj(mixed.reshape(n_rows, -1, width))
        x = x + F.dropout(mixed, self.dropout, self.training)
        hidden = self.activation_fn(self.fc1(self.final_layer_norm(x)))
        hidden = self.fc2(F.dropout(hidden, self.activation_dropout, self.training))
        return x + F.dropout(hidden, self.dropout, self.training), bias


class UnimolEncoder(TransformerEncoderWithPair):
    """Encoder of the package, for the first token only and without the losses of pre-training.

    It is made without layers, and the caller adds them.
    """

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return the first token, (n_rows, width).

        Args:
            x: embedded tokens (n_rows, n_tokens, width).
            bias: output of `pair_bias`.
        """
        x = F.dropout(self.emb_layer_norm(x), self.emb_dropout, self.training)
        for layer in self.layers[:-1]:
            x, bias = layer(x, bias)
        x, _ = self.layers[-1](x, bias, first_only=True)
        return self.final_layer_norm(x[:, 0])
