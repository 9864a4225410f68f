"""Masked-language modelling of an encoder on the inputs, before it is trained on labels.

Source: Devlin et al., BERT, NAACL 2019: 15 % of the tokens, of which 80 % masked, 10 % random, 10 % as they are.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast as Tokenizer

from competition.errors import ConfigError
from competition.files import write_json
from models.inputs.tokens import Ids, pad
from models.settings import BertStage
from models.stage import Context
from models.training.batches import Batches
from models.training.heads import Network
from models.training.losses import Labels
from models.training.trainer import Trainer

CHOSEN, MASKED, RANDOM = 0.15, 0.8, 0.1
NOT_CHOSEN = -1
FILE = "pretraining.json"


class TiedDecoder(nn.Module):
    """Token vectors to scores of all tokens, by the encoder's own input embeddings."""

    def __init__(self, embeddings: nn.Embedding, width: int) -> None:
        super().__init__()
        size, narrow = embeddings.weight.shape  # ALBERT's embeddings are narrower than its layers
        self.transform = nn.Sequential(nn.Linear(width, narrow), nn.GELU(), nn.LayerNorm(narrow))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, tokens: Tensor, embeddings: Tensor) -> Tensor:
        """Scores (n, n_vocabulary) of vectors (n, width)."""
        return nn.functional.linear(self.transform(tokens), embeddings, self.bias)


class Pretraining(Trainer):
    """The training loop on guessing masked tokens."""

    def loss_of(self, batch: dict[str, Tensor], labels: Labels) -> Tensor:
        """Mean cross-entropy of the chosen tokens; only these go through the decoder, which is most of the time."""
        encoder: Any = self.network.backbone.encoder
        states = encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        chosen = batch["labels"] != NOT_CHOSEN
        scores = self.network.head(states[chosen], encoder.get_input_embeddings().weight).float()
        return nn.functional.cross_entropy(scores, batch["labels"][chosen], reduction="sum") / chosen.sum().clamp(min=1)


def pretrain(
    backbone: Any,
    tokenizer: Tokenizer,
    items: Callable[[int], list[Ids]],
    settings: BertStage,
    context: Context,
    folder: Path,
) -> None:
    """Train `backbone.encoder` to guess masked tokens; writes the loss of each epoch to pretraining.json.

    Args:
        items: epoch, from 1 on (0: before the first) -> token ids of each text, in another spelling where that is set.
    """
    mask_id, ordinary = mask_and_ordinary(tokenizer)

    def encoded(epoch: int) -> Batches:
        # By row and epoch, not by batch: a run that was killed goes on with the same masks.
        generator = np.random.default_rng([context.seed, epoch])
        pairs = [masked(ids, mask_id, ordinary, generator) for ids in items(epoch)]
        return Batches(pairs, np.array([len(ids) for ids, _ in pairs]), collate)

    def collate(part: list[tuple[Ids, Ids]]) -> dict[str, Tensor]:
        labels = pad([labels for _, labels in part], NOT_CHOSEN)["input_ids"]
        return {**pad([ids for ids, _ in part], tokenizer.pad_token_id), "labels": labels}

    own = {
        "epochs": settings.pretrain_epochs, "learning_rate": settings.pretrain_learning_rate,
        "head_learning_rate": None, "layer_decay": 1.0, "average": "none", "r_drop": 0.0,
    }  # fmt: skip
    network = Network(backbone, TiedDecoder(backbone.encoder.get_input_embeddings(), backbone.width))
    n_rows = len(items(0))
    every_row = Labels(torch.zeros(n_rows, 1), torch.ones(n_rows, 1))
    training = Pretraining(network, settings.model_copy(update=own), context.seed, folder, context.progress)
    history, _ = training.train_epochs(encoded, every_row, "_mlm")
    write_json(folder / FILE, {"rows": n_rows, "history": history})


def mask_and_ordinary(tokenizer: Tokenizer) -> tuple[int, Ids]:
    """The id of the mask, and those of all tokens that are not special; a ConfigError if there is no mask."""
    if tokenizer.mask_token_id is None:
        raise ConfigError("pretrain_epochs needs a tokenizer with a token for a mask; set it to 0, or other weights.")
    return tokenizer.mask_token_id, np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)


def masked(ids: Ids, mask_id: int, ordinary: Ids, generator: np.random.Generator) -> tuple[Ids, Ids]:
    """Ids with some replaced, and the labels: the true id where a token was chosen, else -1; one at least."""
    labels = np.full_like(ids, NOT_CHOSEN)
    possible = np.flatnonzero(np.isin(ids, ordinary))
    if not len(possible):
        return ids, labels
    chosen = generator.choice(possible, max(1, round(CHOSEN * len(possible))), replace=False)
    labels[chosen] = ids[chosen]
    fate = generator.random(len(chosen))
    replaced = ids.copy()
    replaced[chosen[fate < MASKED]] = mask_id
    at_random = chosen[(fate >= MASKED) & (fate < MASKED + RANDOM)]
    replaced[at_random] = generator.choice(ordinary, len(at_random))
    return replaced, labels
