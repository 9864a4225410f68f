"""What a Uni-Mol backbone learns before it sees a competition: masked atoms, true positions and distances, and labels.

Sources: Zhou et al., Uni-Mol, ICLR 2023, for the three losses of noised conformers, their weights and the distances'
scale; Burns et al., Deep learning foundation models from classical molecular descriptors (CheMeleon), 2025, for
computed descriptors as labels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from competition.types import Array, Integers
from models.stages.pairs import pair_bias
from models.stages.unimol import FIRST, PADDING, SPECIAL_TOKENS
from models.stages.unimol_shared import collate
from models.training.batches import Batches
from models.training.losses import Labels
from models.training.trainer import Trainer

CHOSEN, MASKED, RANDOM = 0.15, 0.8, 0.1
"""Share of the atoms of a noised molecule that are chosen; of these masked, and replaced by any other."""
NOISE = 1.0
"""Angstrom by which each coordinate of a chosen atom moves at most."""
OF_ATOMS, OF_POSITIONS, OF_DISTANCES = 1.0, 5.0, 10.0
"""Weights of the losses; that of the labels is the YAML's."""
MEAN_DISTANCE, SPREAD_OF_DISTANCES = 6.3126, 3.3899
NOT_CHOSEN = -1


@dataclass(frozen=True)
class Molecules:
    """Molecules as Uni-Mol reads them, one behind the other.

    tokens: (n_tokens,), of each molecule [CLS] atoms [SEP]; coordinates: (n_tokens, 3) in angstrom.
    lengths: (n_molecules,) tokens.
    """

    tokens: Integers
    coordinates: Array
    lengths: Integers

    def noised(self, share: float, n_symbols: int, generator: np.random.Generator) -> Batches:
        """Batches in which a share of the molecules has masked, replaced and moved atoms; the others are as they are.

        The last symbol is that of the mask.
        """
        row = np.repeat(np.arange(len(self.lengths)), self.lengths)
        is_noised = generator.random(len(self.lengths)) < share
        is_atom = self.tokens >= len(SPECIAL_TOKENS)
        chosen = is_atom & is_noised[row] & (generator.random(len(row)) < CHOSEN)
        fate, tokens = generator.random(len(row)), self.tokens.copy()
        tokens[chosen & (fate < MASKED)] = n_symbols - 1
        at_random = chosen & (fate >= MASKED) & (fate < MASKED + RANDOM)
        tokens[at_random] = generator.choice(self.tokens[is_atom], int(at_random.sum()))
        moves = generator.uniform(-NOISE, NOISE, self.coordinates.shape) * chosen[:, None]
        parts: dict[str, Any] = {
            "tokens": tokens,
            "coordinates": (self.coordinates + moves).astype(np.float32),
            "symbols": np.where(chosen, self.tokens, NOT_CHOSEN),
            "positions": self.coordinates,
        }
        cuts = np.cumsum(self.lengths)[:-1]
        split = {name: np.split(values, cuts) for name, values in parts.items()}
        items = [dict(zip(split, values, strict=True)) for values in zip(*split.values(), strict=True)]
        for item, noised in zip(items, is_noised, strict=True):
            item["is_noised"] = np.array([noised])
        return Batches(items, self.lengths, padded)


def padded(items: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Molecules side by side, padded tokens with nothing to guess."""
    batch = collate(items)
    batch["symbols"][batch["tokens"] == PADDING] = NOT_CHOSEN
    return batch


class Guesses(nn.Module):
    """The backbone with a head for each thing that it guesses; `backbone` is what is kept."""

    def __init__(self, backbone: Any, n_symbols: int, n_labels: int) -> None:
        super().__init__()
        width, heads = backbone.width, backbone.gbf_proj.linear2.out_features
        self.backbone = backbone
        self.symbols = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, n_symbols)
        )
        self.pairs = nn.LayerNorm(heads)
        self.moves = nn.Sequential(nn.Linear(heads, heads), nn.GELU(), nn.Linear(heads, 1))
        self.distances = nn.Sequential(nn.Linear(heads, heads), nn.GELU(), nn.LayerNorm(heads), nn.Linear(heads, 1))
        self.labels = nn.Linear(width, n_labels)

    def forward(self, tokens: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """States of all tokens (n_rows, n_tokens, width), and what the layers added to each pair
        (n_rows, n_tokens, n_tokens, n_heads), 0 where a token is padding."""
        whole, encoder = self.backbone, self.backbone.encoder
        first = bias = pair_bias(whole.gbf, whole.gbf_proj, tokens, coordinates, PADDING)
        x = encoder.emb_layer_norm(whole.embed_tokens(tokens))
        for layer in encoder.layers:
            x, bias = layer(x, bias)
        added = (bias - first).view(-1, *tokens.shape, tokens.shape[1]).permute(1, 2, 3, 0)
        real = tokens != PADDING
        return encoder.final_layer_norm(x), added.where((real[:, :, None] & real[:, None])[..., None], 0.0)


class Pretraining(Trainer):
    """The training loop on what `Guesses` guesses; `of_labels` is the weight of the labels."""

    of_labels: float = 1.0

    def loss_of(self, batch: dict[str, Tensor], labels: Labels) -> Tensor:
        """The weighted sum of the losses of a batch, and of labels those of molecules without noise."""
        network: Any = self.network
        states, added = network(batch["tokens"], batch["coordinates"])
        clean = labels.weights * ~batch["is_noised"]
        errors = (network.labels(states[:, 0]).float() - labels.y).square()
        loss = self.of_labels * (errors * clean).sum() / clean.sum().clamp(min=1)
        row, i = (batch["symbols"] != NOT_CHOSEN).nonzero(as_tuple=True)
        if len(row) == 0:
            return loss
        scores = network.symbols(states[row, i]).float()
        real = (batch["tokens"][row] != PADDING) & (batch["tokens"][row] != FIRST)
        pairs, one, others = network.pairs(added[row, i]), batch["coordinates"][row, i], batch["coordinates"][row]
        towards = (one[:, None] - others) * network.moves(pairs) * real[..., None]
        moved = one + towards.sum(dim=1) / real.sum(dim=1, keepdim=True)
        true = batch["positions"][row, i]
        distances = (true[:, None] - batch["positions"][row]).norm(dim=-1)
        scaled = (distances - MEAN_DISTANCE) / SPREAD_OF_DISTANCES
        off = F.smooth_l1_loss(network.distances(pairs)[..., 0].float(), scaled, reduction="none") * real
        return (
            loss
            + OF_ATOMS * F.cross_entropy(scores, batch["symbols"][row, i])
            + OF_POSITIONS * F.smooth_l1_loss(moved.float(), true)
            + OF_DISTANCES * off.sum() / real.sum().clamp(min=1)
        )
