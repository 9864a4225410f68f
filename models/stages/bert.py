"""Stage `bert`: an encoder or decoder of transformers on text or SMILES, pretrained or from scratch.

Prediction needs only the folder of a job, which has the encoder's config.json, its tokenizer and the weights. With
`lora` it needs the base model too: the folder then has the weights of the adapter and the head, and base_model.json.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast as Tokenizer

from competition.dataset import Dataset
from models.bert_config import BertConfig
from models.context import Context
from models.inputs.base_models import find_base_model, write_base_model
from models.inputs.column_truncation import shorten_columns
from models.inputs.encoders import (
    add_adapters,
    load_encoder,
    new_encoder,
    pooled,
    pretrained,
    pretrained_tokenizer,
    set_config_rates,
)
from models.inputs.smiles_augmentation import RANDOM_SMILES_TOKENS, mirror_stereo, randomize_smiles
from models.inputs.text_template import SEPARATOR, read_template, reads_atoms
from models.inputs.tokenization import (
    Ids,
    encode,
    pad,
    separator_of,
    train_smiles_tokenizer,
    train_word_piece_tokenizer,
    unknown_share,
)
from models.stage import write_notes
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


class AdaptedBackbone(BertBackbone):
    """A frozen encoder with low-rank adapters.

    Its state has the adapters only: checkpoints and the weights of a job do not repeat the base model.
    """

    def __init__(self, encoder: transformers.PreTrainedModel, pooling: str) -> None:
        super().__init__(encoder, pooling)
        self.register_state_dict_post_hook(_remove_base_model)
        self.register_load_state_dict_post_hook(_expect_no_base_model)


def _remove_base_model(backbone: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Remove everything that is not trained from the state of a backbone."""
    trained = {prefix + name for name, p in backbone.named_parameters() if p.requires_grad}
    for name in list(state):
        if name.startswith(prefix) and name not in trained:
            del state[name]


def _expect_no_base_model(backbone: nn.Module, keys: Any) -> None:
    """Remove the tensors of the base model from the missing keys of `load_state_dict`."""
    frozen = [name for name, p in backbone.named_parameters() if not p.requires_grad]
    absent = (*frozen, *(name for name, _ in backbone.named_buffers()))
    keys.missing_keys[:] = [name for name in keys.missing_keys if not name.endswith(absent)]


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
        if self.config.lora:
            write_base_model(self.config.weights, tokenizer.model_max_length, folder)
            return self._adapted(encoder)
        encoder.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        backbone = BertBackbone(encoder, self.config.pooling)
        sees_other_tokens = self.config.enumerate_smiles or self.config.extra_rows == "pretrain"
        if not sees_other_tokens:
            train_only(encoder, np.concatenate(items))
        return backbone

    def restore_backbone(self, folder: Path) -> nn.Module:
        """Return an encoder of the shape in the folder; only adapters need the original weights, the base model."""
        if self.config.lora:
            base_folder, _ = find_base_model(self.config.weights, folder)
            return self._adapted(
                load_encoder(
                    base_folder,
                    self.config.weights,
                    rate=self.config.backbone_dropout,
                    quantization=self.config.quantization,
                )
            )
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        return BertBackbone(new_encoder(config), self.config.pooling)

    def _adapted(self, encoder: transformers.PreTrainedModel) -> AdaptedBackbone:
        """Return an encoder with new adapters; only these are trained."""
        add_adapters(encoder, self.config.lora, self.config.weights)
        return AdaptedBackbone(encoder, self.config.pooling)

    def encode(self, rows: Dataset, folder: Path, augmentation: int, seed: int) -> Batches:
        """Return the token ids of all rows."""
        tokenizer = self._saved_tokenizer(folder)
        items, _ = self._items(rows, tokenizer, augmentation, seed)
        return Batches(items, np.array(list(map(len, items))), partial(pad, pad_id=tokenizer.pad_token_id))

    def _saved_tokenizer(self, folder: Path) -> Tokenizer:
        """Return the tokenizer of a job."""
        if self.config.lora:
            base_folder, base = find_base_model(self.config.weights, folder)
            return pretrained_tokenizer(base_folder, reads_atoms(self.config), base.max_length)
        return Tokenizer.from_pretrained(folder, local_files_only=True)

    def _items(
        self, rows: Dataset, tokenizer: Tokenizer, augmentation: int = 0, seed: int = 0
    ) -> tuple[list[Ids], int]:
        """Return the token ids of each row, and the number of truncated texts."""
        order_only = self.config.enumerate_smiles == "order"
        spell = partial(randomize_smiles, augmentation=augmentation, seed=seed, order_only=order_only)
        separator = separator_of(tokenizer)
        if self.template.has_words and self.config.truncation == "end" and not self.config.enumerate_smiles:
            inputs, n_cut = shorten_columns(tokenizer, self.template, rows, separator)
            return encode(tokenizer, self.template.texts(inputs, separator))[0], n_cut
        texts = self.template.texts(rows.inputs, separator, spell)
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
