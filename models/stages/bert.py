"""Stage `bert`: a Hugging Face encoder on text or SMILES, pretrained or from scratch.

Prediction needs only the folder of a job, which has the encoder's config.json, its tokenizer and the weights.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast as Tokenizer

from competition.dataset import Dataset
from models.inputs.encoders import new_encoder, pooled, pretrained, set_config_rates
from models.inputs.smiles_augmentation import RANDOM_SMILES_TOKENS, mirror_stereo, randomize_smiles
from models.inputs.text_template import SEPARATOR, read_template
from models.inputs.tokenization import (
    Ids,
    encode,
    pad,
    separator_of,
    train_smiles_tokenizer,
    train_word_piece_tokenizer,
    unknown_share,
)
from models.neural_config import BertConfig
from models.stage import Context, write_notes
from models.training.batches import Batches
from models.training.neural_model import NeuralModel
from models.training.partial_embedding import train_only


class BertBackbone(nn.Module):
    """An encoder and the pooling of its token vectors."""

    def __init__(self, encoder: transformers.PreTrainedModel, pooling: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.width: int = encoder.config.hidden_size
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return pooled features (n_rows, width).

        Args:
            input_ids: (n_rows, n_tokens).
            attention_mask: (n_rows, n_tokens), 0 for padding.
        """
        # Token types are left out: all columns are one sequence, and every encoder then takes type 0.
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pooled(tokens.float(), attention_mask, self.pooling)


class Bert(NeuralModel):
    """Stage `bert`; `models.training.neural_model.NeuralModel` documents its methods."""

    def __init__(self, config: BertConfig, context: Context) -> None:
        super().__init__(config, context)
        self.template = read_template(config, context)

    @property
    def n_augmentations(self) -> tuple[int | None, int]:
        """Number of randomized SMILES: a new one per epoch, and `test_augmentations` in prediction."""
        return None if self.config.enumerate_smiles else 1, self.config.test_augmentations

    def init_backbone(self, train: Dataset, folder: Path) -> nn.Module:
        """Return the encoder with the configured weights, or random ones; write its tokenizer and shape."""
        rate = self.config.backbone_dropout
        encoder, tokenizer = (
            pretrained(self.config, rate) if self.config.weights else self._from_scratch(train, rate)
        )
        if self.config.precision == "bf16" and not torch.cuda.is_available():
            # The backward pass of the fused kernel is slower on a CPU in bf16 than in float32.
            encoder.set_attn_implementation("eager")
        items, n_cut = self._items(train, tokenizer)
        unknown = unknown_share(tokenizer, items)
        notes = self.template.notes(self.config, unknown, n_cut, len(train), tokenizer.model_max_length)
        if notes:
            write_notes(folder, notes)
        encoder.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        backbone = BertBackbone(encoder, self.config.pooling)
        sees_other_tokens = self.config.enumerate_smiles or self.config.extra_rows == "pretrain"
        if not sees_other_tokens:
            train_only(encoder, np.concatenate(items))
        return backbone

    def restore_backbone(self, folder: Path) -> nn.Module:
        """Return an encoder of the shape in the folder; the hub and the original weights are not needed."""
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        return BertBackbone(new_encoder(config), self.config.pooling)

    def encode(self, rows: Dataset, folder: Path, augmentation: int, seed: int) -> Batches:
        """Return the token ids of all rows."""
        tokenizer = Tokenizer.from_pretrained(folder, local_files_only=True)
        items, _ = self._items(rows, tokenizer, augmentation, seed)
        return Batches(items, np.array(list(map(len, items))), partial(pad, pad_id=tokenizer.pad_token_id))

    def _items(
        self, rows: Dataset, tokenizer: Tokenizer, augmentation: int = 0, seed: int = 0
    ) -> tuple[list[Ids], int]:
        """Return the token ids of each row, and the number of truncated texts."""
        order_only = self.config.enumerate_smiles == "order"
        spell = partial(randomize_smiles, augmentation=augmentation, seed=seed, order_only=order_only)
        texts = self.template.texts(rows.inputs, separator_of(tokenizer), spell)
        return encode(tokenizer, texts, self.config.truncation)

    def _from_scratch(self, train: Dataset, rate: float) -> tuple[transformers.PreTrainedModel, Tokenizer]:
        if self.template.smiles >= set(self.template.columns):
            texts = self.template.texts(train.inputs, SEPARATOR)
            if self.config.enumerate_smiles:
                texts = [*mirror_stereo(texts), RANDOM_SMILES_TOKENS]
            # "." joins molecules, and may not be inside of one.
            tokenizer = train_smiles_tokenizer([*texts, "."])
        else:
            texts = self.template.texts(train.inputs, " ")
            tokenizer = train_word_piece_tokenizer(
                texts, self.config.vocab_size, lowercase=not self.template.smiles
            )
        config = transformers.BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.config.width,
            num_hidden_layers=self.config.layers,
            num_attention_heads=self.config.heads,
            intermediate_size=4 * self.config.width,
            max_position_embeddings=self.config.max_length,
            pad_token_id=tokenizer.pad_token_id,
        )
        set_config_rates(config, rate)
        tokenizer.model_max_length = self.config.max_length
        return new_encoder(config), tokenizer
