"""Any Hugging Face encoder on text or SMILES, pretrained or from scratch, under the one training loop.

A job's folder holds all that prediction needs: encoder.json (the encoder's shape), tokenizer.json, text.json
(columns, lengths, rows that were cut), and the trainer's weights.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from competition.files import read_json, write_atomically, write_json
from competition.tables import Rows
from models.config import BertStage
from models.inputs.encoders import (
    check_vocabulary,
    config_json,
    cut_note,
    new_encoder,
    position_limit,
    pretrained,
    set_config_rates,
)
from models.inputs.spelling import ANY_SPELLING, mirrored, spelled
from models.inputs.template import SEPARATOR, read_template, require_molecules
from models.inputs.tokens import Tokens, learn_smiles_tokens, learn_word_pieces, pad
from models.notes import write_notes
from models.stage import Context
from models.training.batches import Batches
from models.training.heads import AttentionPooling, pool
from models.training.mlm import pretrain
from models.training.neural import Neural
from models.training.seen import train_only

ENCODER, TOKENIZER, TEXT = "encoder.json", "tokenizer.json", "text.json"


class BertBackbone(nn.Module):
    """An encoder and the pooling of its token vectors."""

    def __init__(self, encoder: transformers.PreTrainedModel, pooling: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.width = int(encoder.config.hidden_size)
        self.attention = AttentionPooling(self.width) if pooling == "attention" else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Pooled features (n_rows, width) of token ids (n_rows, n_tokens) and their mask, 1 for a real token."""
        # Token types are left out: all columns are one sequence, and every encoder then takes type 0.
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pool(self.pooling, tokens, attention_mask, self.attention)


class Bert(Neural):
    """The stage; see `models.training.neural.Neural`."""

    def __init__(self, config: BertStage, context: Context) -> None:
        super().__init__(config, context)
        self.template = read_template(config, context)
        self.order_only = config.enumerate_smiles == "order"
        if config.enumerate_smiles:
            require_molecules(self.template, self.order_only)

    @property
    def n_augmentations(self) -> tuple[int | None, int]:
        """Other spellings: a fresh one each epoch, and `test_forms` in prediction."""
        return None if self.config.enumerate_smiles else 1, self.config.test_forms

    def start(self, train: Rows, folder: Path) -> nn.Module:
        """The configured weights, or random ones, pre-trained if so set; writes tokenizer, shape, and counts."""
        rate = self.config.backbone_dropout
        encoder, tokens = pretrained(self.config, rate) if self.config.weights else self._from_scratch(train, rate)
        if self.config.precision == "bf16" and not torch.cuda.is_available():
            # On a CPU the fused kernel's backward pass is slower in bf16 than in float32; plain products are not.
            encoder.set_attn_implementation("eager")
        max_length = min(self.config.max_length, position_limit(encoder))
        items, n_cut = self._items(train, tokens, max_length)
        check_vocabulary(tokens.unknown_share(items), self.config.weights, self.template.columns)
        write_atomically(folder / ENCODER, config_json(encoder))
        tokens.save(folder / TOKENIZER)
        report = {"pad_id": tokens.pad_id, "unknown_id": tokens.unknown_id, "separator": tokens.separator}
        write_json(folder / TEXT, {**report, "max_length": max_length, "cut_rows": n_cut})
        if n_cut:
            write_notes(folder, [cut_note(n_cut, len(train), max_length, self.config.too_long)])
        backbone = BertBackbone(encoder, self.config.pooling)
        if self.config.pretrain_epochs:
            self._pretrain(backbone, train, tokens, max_length, folder)
        if not self.config.enumerate_smiles and self.config.extra_rows != "pretrain":  # else more tokens come by
            train_only(encoder, np.concatenate(items))
        return backbone

    def restore(self, folder: Path) -> nn.Module:
        """The encoder's shape from `folder` alone: neither hub nor package nor the original weights are asked."""
        config = transformers.AutoConfig.from_pretrained(folder / ENCODER, local_files_only=True)
        return BertBackbone(new_encoder(config), self.config.pooling)

    def encode(self, rows: Rows, folder: Path, augmentation: int, seed: int) -> Batches:
        """Token ids of all rows."""
        text = read_json(folder / TEXT)
        tokens = Tokens.load(folder / TOKENIZER, text["pad_id"], text["unknown_id"], text["separator"])
        items, _ = self._items(rows, tokens, text["max_length"], augmentation, seed)
        lengths = np.array([len(ids) for ids in items], dtype=np.int64)
        return Batches(items, lengths, lambda batch: pad(batch, tokens.pad_id))

    def _items(
        self, rows: Rows, tokens: Tokens, max_length: int, augmentation: int = 0, seed: int = 0
    ) -> tuple[list[NDArray[np.int64]], int]:
        """Token ids of each row's text, and how many texts were too long."""
        spell = partial(spelled, augmentation=augmentation, seed=seed, order_only=self.order_only)
        texts = self.template.texts(rows.inputs, tokens.separator, spell)
        return tokens.encode(texts, max_length, self.config.too_long)

    def _pretrain(self, backbone: nn.Module, train: Rows, tokens: Tokens, max_length: int, folder: Path) -> None:
        rows = train
        if self.config.pretrain_on == "all_inputs":
            assert self.context.unlabelled is not None
            rows = train.followed_by(self.context.unlabelled)

        def items(epoch: int) -> list[NDArray[np.int64]]:
            augmentation = epoch if self.config.enumerate_smiles else 0
            return self._items(rows, tokens, max_length, augmentation, self.context.seed)[0]

        pretrain(backbone, tokens, items, self.config, self.context.seed, folder, self.context.progress)

    def _from_scratch(self, train: Rows, rate: float) -> tuple[transformers.PreTrainedModel, Tokens]:
        if self.template.smiles >= set(self.template.columns):
            texts = self.template.texts(train.inputs, SEPARATOR)
            if self.config.enumerate_smiles:
                texts = [*mirrored(texts), ANY_SPELLING]
            # "." joins molecules and need not stand inside one.
            tokens = learn_smiles_tokens([*texts, "."])
        else:
            texts = self.template.texts(train.inputs, " ")
            tokens = learn_word_pieces(texts, self.config.vocabulary, lowercase=not self.template.smiles)
        config = transformers.BertConfig(
            vocab_size=tokens.tokenizer.get_vocab_size(),
            hidden_size=self.config.width,
            num_hidden_layers=self.config.layers,
            num_attention_heads=self.config.heads,
            intermediate_size=4 * self.config.width,
            max_position_embeddings=self.config.max_length,
            pad_token_id=tokens.pad_id,
        )
        set_config_rates(config, rate)
        return new_encoder(config), tokens
