"""Uni-Mol: token ids and coordinates of a conformer, and the network of `unimol_tools` in a faster version.

Parameters and outputs equal those in the package. Linear layers are computed for real tokens only, and
attention in groups of rows with similar lengths, so that little of either is for padding. Pair features
are computed for pairs without padding only, once for (i, j) and (j, i) if both are equal, and in chunks
that fit into the cache of a core. The pair bias of a layer is one `baddbmm`, and the last layer is
computed for [CLS] only, since nothing else of it is read. `benchmarks/speed.py` measures training steps.

Token ids have the order of the released checkpoints; unimol_tools 0.1.5 and later permute them silently.
"""

from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rdkit import Chem
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from models.networks.unimol_common import MoleculeInput, quiet_import, with_atoms

with quiet_import():
    from unimol_tools.models.transformers import TransformerEncoderLayer, TransformerEncoderWithPair
    from unimol_tools.models.unimol import (
        GaussianLayer,
        NonLinearHead,
        NumericalEmbed,
        molecule_architecture,
        oled_architecture,
    )

CPU_CHUNK = 2048
"""Pairs per chunk on a CPU. The time differs by a tenth from 512 to 8192 pairs."""
CPU_GROUP = 4
"""Rows per group on a CPU. Smaller groups have less padding and take more calls."""
ROOT_TWO_PI = (2 * 3.14159) ** 0.5  # pi as in the package: its published weights were trained with it
KERNEL_WIDTH = 128
"""Number of basis functions that encode a distance, in all published models."""
COMPACT_KERNEL_WIDTH = 32
"""Number of basis functions in the compact model: its steps are much shorter with fewer."""
SPECIAL_TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
PADDING, FIRST, LAST, UNKNOWN = range(4)
SHARED_SETTINGS = ("dropout", "attention_dropout", "activation_dropout", "activation_fn")
"""Settings of a layer that have the same name in the architectures of unimol_tools."""


class Groups(NamedTuple):
    """Rows of a batch in groups of similar lengths; the fields are described in `collate`."""

    shapes: list[tuple[int, int]]
    padded: Tensor
    real: Tensor
    first: Tensor

    def pad(self, tokens: Tensor) -> list[Tensor]:
        """Return the tokens of each group, (size, length, width), from all real tokens (n_real, width)."""
        sizes = [size * length for size, length in self.shapes]
        parts = tokens.index_select(0, self.padded).split(sizes)
        return [part.view(*shape, -1) for part, shape in zip(parts, self.shapes, strict=True)]


def collate(items: list[MoleculeInput]) -> dict[str, Any]:
    """Return the arguments of the backbone for some molecules, which depend on tokens and coordinates only.

    - place: (n_rows,), position of each molecule by increasing length, which is the order of all others.
    - shapes: number of rows of each group of similar lengths, and of tokens of its longest row. A GPU has one
      group.
    - tokens: (n_real,), ids of all tokens.
    - first: (n_rows,), position of the first token of each row among all tokens.
    - padded: (n_padded,), for each token of the padded groups its position among all tokens; for padding, the
      position of the first token of the row.
    - real: (n_real,), position of each token in the padded groups.
    - pair_tokens, distance: (2, n_pairs) and (n_pairs,), ids of two tokens and their distance in angstrom.
    - source: for each pair of positions of the padded groups the pair it has the features of; n_pairs for a
      padded row, and n_pairs + 1 for a padded key.
    """
    lengths = torch.tensor([len(item["tokens"]) for item in items])
    order = lengths.argsort(stable=True)
    tokens = [torch.from_numpy(items[i]["tokens"]) for i in order]
    coordinates = [torch.from_numpy(items[i]["coordinates"]) for i in order]
    size = len(items) if torch.cuda.is_available() else CPU_GROUP
    shapes = []
    firsts = []
    padded = []
    is_real = []
    pairs = []
    n_tokens = n_pairs = 0
    for start in range(0, len(items), size):
        group = pad_sequence(tokens[start : start + size], batch_first=True)
        positions = pad_sequence(coordinates[start : start + size], batch_first=True)
        shapes.append((len(group), group.shape[1]))
        real = group != PADDING
        n_of_rows = real.sum(dim=1)
        firsts.append(n_tokens + n_of_rows.cumsum(0) - n_of_rows)
        padded.append((firsts[-1][:, None] + torch.arange(group.shape[1]) * real).view(-1))
        is_real.append(real.view(-1))
        n_tokens += int(n_of_rows.sum())
        ids, distance, source = _pairs(group, positions, n_pairs)
        pairs.append((ids, distance, source.view(-1)))
        n_pairs += len(distance)
    pair_tokens, distances, sources = zip(*pairs, strict=True)
    return {
        "place": order.argsort(),
        "shapes": shapes,
        "tokens": torch.cat(tokens),
        "first": torch.cat(firsts),
        "padded": torch.cat(padded),
        "real": torch.cat(is_real).nonzero()[:, 0],
        "pair_tokens": torch.cat(pair_tokens, dim=1),
        "distance": torch.cat(distances),
        "source": torch.cat(sources) % (n_pairs + 2),
    }


def _pairs(group: Tensor, positions: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return `pair_tokens` and `distance` of a group, and the `source` of its pairs; see `collate`.

    The features of a pair depend on its two tokens, in their order, and on their distance. So (i, j) and
    (j, i) have the same features if their tokens are equal, and are then computed once.

    Args:
        group: (size, length), ids of tokens.
        positions: (size, length, 3) in angstrom.
        start: number of pairs of the groups before.

    Returns:
        The third is (size, length, length), counted from the end for padding: -2 for a row, -1 for a key.
    """
    real = group != PADDING
    equal = group[:, :, None] == group[:, None, :]
    row, i, j = ((real[:, :, None] & real[:, None, :]) & ~equal.tril(-1)).nonzero(as_tuple=True)
    source = torch.where(real, -2, -1)[:, None, :].repeat(1, group.shape[1], 1)
    source[row, i, j] = torch.arange(start, start + len(row))
    twice = equal[row, i, j]
    source[row[twice], j[twice], i[twice]] = source[row[twice], i[twice], j[twice]]
    distance = (positions[row, i] - positions[row, j]).norm(dim=-1)
    return torch.stack([group[row, i], group[row, j]]), distance, source


def pair_values(gbf: Any, gbf_proj: Any, distance: Tensor, edge_type: Tensor) -> Tensor:
    """Return the bias of each head, (n_heads, n_pairs), for pairs with some distances and types, (n_pairs,).

    It is a function of normal densities of a scaled distance: a linear layer, GELU and another linear layer.
    Everything is computed in float32. Exponents are at least -60, since a CPU takes ten times as long for an
    exponential that underflows, and for products with one.
    """
    with torch.autocast(distance.device.type, enabled=False):
        if not hasattr(gbf, "means"):
            return gbf_proj(gbf(distance, edge_type)).T
        # Equals gbf.mul(edge_type), but an embedding has a slow backward pass for vectors of length 1.
        mul, shift = (table.weight.squeeze(1).index_select(0, edge_type) for table in (gbf.mul, gbf.bias))
        x = mul * distance + shift
        mean = gbf.means.weight.view(-1)
        std = gbf.stds.weight.view(-1).abs() + 1e-5
        scale = 0.5**0.5 / std
        weight = gbf_proj.linear1.weight / (ROOT_TWO_PI * std)
        parts = []
        for part in x.split(CPU_CHUNK if x.device.type == "cpu" else len(x)):
            exponent = torch.addcmul(-mean * scale, part[:, None], scale).square().neg().clamp_min(-60.0)
            hidden = F.gelu(F.linear(exponent.exp(), weight, gbf_proj.linear1.bias))
            parts.append(gbf_proj.linear2(hidden).T)
        return torch.cat(parts, dim=1)


class UnimolEncoderLayer(TransformerEncoderLayer):
    """Layer of the package for real tokens only.

    Heads are before rows, so that the pair bias is never transposed.
    """

    def forward(
        self, x: Tensor, biases: list[Tensor], groups: Groups, first_only: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Return all real tokens (n_real, width), and the biases of the next layer.

        A bias has the shape (n_heads * size, length, length).

        Args:
            first_only: compute the first token of each row only; the shapes are then (n_rows, width) and
                (n_heads * size, 1, length).
        """
        attention = self.self_attn
        heads = attention.num_heads
        head_width = attention.head_dim
        mixed = []
        next_biases = []
        parts = groups.pad(attention.in_proj(self.self_attn_layer_norm(x)))
        for part, bias in zip(parts, biases, strict=True):
            n_rows, n_tokens, _ = part.shape
            split = part.view(n_rows, n_tokens, 3, heads, head_width)
            q, k, v = split.permute(2, 3, 0, 1, 4).reshape(3, heads * n_rows, n_tokens, head_width)
            if first_only:
                q = q[:, :1]
                bias = bias[:, :1]
            with torch.autocast(x.device.type, enabled=False):  # float32, since the bias adds up over layers
                bias = torch.baddbmm(bias, q.float(), k.float().transpose(1, 2), alpha=attention.scaling)
            weights = F.dropout(bias.softmax(-1), attention.dropout, self.training)
            of_heads = torch.bmm(weights, v).view(heads, n_rows, -1, head_width)
            mixed.append(of_heads.permute(1, 2, 0, 3).reshape(-1, heads * head_width))
            next_biases.append(bias)
        x = x.index_select(0, groups.first) if first_only else x
        all_mixed = torch.cat(mixed) if first_only else torch.cat(mixed).index_select(0, groups.real)
        x = x + F.dropout(attention.out_proj(all_mixed), self.dropout, self.training)
        hidden = self.activation_fn(self.fc1(self.final_layer_norm(x)))
        hidden = self.fc2(F.dropout(hidden, self.activation_dropout, self.training))
        return x + F.dropout(hidden, self.dropout, self.training), next_biases


class UnimolBackbone(nn.Module):
    """UniMolModel without its head, in any size.

    The constructor of UniMolModel requires a checkpoint and has fixed sizes. The parts are from unimol_tools,
    with a faster forward pass (see the top of this file). Tests check for both published architectures that
    parameters and outputs equal the original UniMolModel.
    """

    def __init__(
        self, vocabulary: list[str], architecture: str, layers: int = 6, width: int = 128, heads: int = 8
    ) -> None:
        """Make a network with random weights.

        Args:
            vocabulary: symbol of each token id.
            architecture: molecule, oled, or compact, which has the size of the other arguments.
        """
        super().__init__()
        args = oled_architecture() if architecture == "oled" else molecule_architecture()
        if architecture == "compact":
            args.encoder_layers = layers
            args.encoder_embed_dim = width
            args.encoder_ffn_embed_dim = 4 * width
            args.encoder_attention_heads = heads
        kernel_width = COMPACT_KERNEL_WIDTH if architecture == "compact" else KERNEL_WIDTH
        self.width: int = args.encoder_embed_dim
        self.embed_tokens = nn.Embedding(len(vocabulary), self.width, PADDING)
        layer_settings = {name: getattr(args, name) for name in SHARED_SETTINGS} | {
            "embed_dim": self.width, "ffn_embed_dim": args.encoder_ffn_embed_dim,
            "attention_heads": args.encoder_attention_heads,
        }  # fmt: skip
        self.encoder = TransformerEncoderWithPair(
            encoder_layers=0, emb_dropout=args.emb_dropout, no_final_head_layer_norm=True, **layer_settings
        )
        self.encoder.layers.extend(UnimolEncoderLayer(**layer_settings) for _ in range(args.encoder_layers))
        self.gbf_proj = NonLinearHead(kernel_width, args.encoder_attention_heads, args.activation_fn)
        kernel = GaussianLayer if args.kernel == "gaussian" else NumericalEmbed
        self.gbf = kernel(kernel_width, len(vocabulary) ** 2)

    def forward(
        self,
        tokens: Tensor,
        pair_tokens: Tensor,
        distance: Tensor,
        source: Tensor,
        place: Tensor,
        **groups: Any,
    ) -> Tensor:
        """Return the vector of [CLS], (n_rows, width); `collate` returns the arguments."""
        of_rows = Groups(**groups)
        edge_type = pair_tokens[0] * len(self.embed_tokens.weight) + pair_tokens[1]
        values = pair_values(self.gbf, self.gbf_proj, distance, edge_type)
        values = F.pad(F.pad(values, (0, 1)), (0, 1), value=float("-inf"))
        sources = source.split([size * length**2 for size, length in of_rows.shapes])
        # The bias of each head and pair, (n_heads * size, length, length), head by head.
        biases = [
            values.index_select(1, part).view(-1, length, length)
            for part, (_, length) in zip(sources, of_rows.shapes, strict=True)
        ]
        encoder = self.encoder
        x = encoder.emb_layer_norm(self.embed_tokens(tokens))
        x = F.dropout(x, encoder.emb_dropout, self.training)
        for layer in encoder.layers[:-1]:
            x, biases = layer(x, biases, of_rows)
        first, _ = encoder.layers[-1](x, biases, of_rows, first_only=True)
        return encoder.final_layer_norm(first)[place]


def read_vocabulary(files: dict[str, Path]) -> list[str]:
    """Return the symbol of each token id: special tokens in the order of the checkpoints, atoms, [MASK].

    Args:
        files: files of the weights. A dictionary among them replaces the one in unimol_tools.
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
