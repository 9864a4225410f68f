"""Stage `bert`: an encoder or decoder of transformers on text or SMILES, pretrained or from scratch.

Prediction needs only the folder of a job, which has the encoder's config.json, its tokenizer and the
weights. With `lora` it needs the base model too: the folder then has base_model.json instead of config.json,
and the weights are those of the adapter and the head.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, StrictBool, model_validator

from competition.dataset import Dataset
from core.errors import ConfigError
from core.modules import load
from core.settings import StrictModel, UniqueList
from core.types import Integers
from models.context import CheckTables, Context
from models.inputs.base_models import (
    find_base_model,
    require_layers,
    require_quantization,
    write_base_model,
)
from models.inputs.encoder_settings import TextStage, Width
from models.inputs.texts import (
    RANDOM_SMILES_TOKENS,
    SEPARATOR,
    mirror_stereo,
    randomize_smiles,
    read_template,
    shorten_columns,
)
from models.job_folder import write_notes
from models.training.batches import Batches
from models.training.neural_stage import NeuralStage

MAX_WORD_PIECES = 4000
"""Maximum number of word pieces of an encoder from scratch, learned from the training rows of the fold."""

TOKENIZATION = "models.inputs.tokenization"

if TYPE_CHECKING:
    from torch import nn


class Lora(StrictModel):
    """Low-rank adapters: each adapted layer W x becomes W x + alpha / rank * B A x, and only A and B are trained.

    Nothing in an adapter has dropout, and it is never merged into the base model.

    Source: Hu et al., LoRA, ICLR 2022 (arXiv 2106.09685), by the package peft.
    """

    rank: PositiveInt = 16
    """Number of rows of A and columns of B."""
    alpha: PositiveInt = 32
    """Numerator of the factor of the adapter, alpha / rank."""
    layers: Literal["all_linear"] | Annotated[list[str], UniqueList, Field(min_length=1)] = "all_linear"
    """Layers with an adapter. all_linear: every linear layer of the base model, those of the MLP
    included. A list: the layers with these names, such as [q_proj, v_proj]."""


class Bert(TextStage, NeuralStage):
    """Any encoder or decoder of Hugging Face's transformers on text or SMILES, pretrained or from scratch.

    layers, width and heads are the size of an encoder from scratch.
    """

    packages = ("torch", "transformers", "tokenizers")
    network_module = "models.networks.encoders"
    kind: Literal["bert"]
    lora: Lora | None = None
    """Train only low-rank adapters and the head; the weights stay as they are. A job then stores the
    adapters, the head, the tokenizer and the name of the base model, not the base model. null: train all
    weights."""
    quantization: Literal["nf4"] | None = None
    """nf4: keep the weights below `lora` in 4 bits (QLoRA, Dettmers et al., NeurIPS 2023), about 0.6
    bytes each. It requires the package bitsandbytes. null: 4 bytes each, in float32."""
    enumerate_smiles: StrictBool = False
    """SMILES augmentation: in every epoch each molecule is written as another randomized SMILES, and the
    molecules of a cell, or of one side of a reaction, are in random order."""
    test_augmentations: PositiveInt
    """Test-time augmentation: number of SMILES per row that are averaged for a prediction, the
    canonical one first. Unset: 5 with enumerate_smiles, otherwise 1."""
    layers: PositiveInt = 4
    """Number of layers of an encoder from scratch."""
    width: Width = 128
    """Width of a token vector of an encoder from scratch."""
    heads: PositiveInt = 4
    """Attention heads per layer of an encoder from scratch."""
    epochs: PositiveInt
    """Number of passes over the training rows. Unset: 4 with weights, 20 from scratch."""
    learning_rate: PositiveFloat
    """Peak learning rate of the schedule. Unset: 5e-5 with weights, 2e-4 with lora, 1e-3
    from scratch."""
    batch_size: PositiveInt = 16
    head_learning_rate: PositiveFloat | None = 1e-3
    warmup: NonNegativeFloat = 0.1

    @property
    def initial_weights(self) -> str | None:
        """The setting `weights`."""
        return self.weights

    @property
    def predicts_with_initial_weights(self) -> bool:
        """Whether the jobs have adapters only."""
        return self.lora is not None

    @property
    def text_settings(self) -> list[TextStage]:
        """These settings, and those of frozen encoders of text."""
        return [self, *super().text_settings]

    @property
    def optional_packages(self) -> set[str]:
        """The package of `quantization`."""
        return {"bitsandbytes"} if self.quantization else set()

    def libraries(self) -> set[str]:
        """Return the libraries of the network, and of its adapters."""
        names = super().libraries() | self.optional_packages
        return names | {"peft"} if self.lora else names

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Fill defaults that depend on other settings, so that the saved settings contain their values.

        Random weights need many larger steps.
        """
        is_pretrained = bool(values.get("weights"))
        defaults: dict[str, Any] = {
            "learning_rate": 5e-5 if is_pretrained else 1e-3,
            "epochs": 4 if is_pretrained else 20,
            # 600 QM9 molecules, mean R2 of 3 targets, one seed: 0.38 without enumeration, 0.38 with it and
            # 1 SMILES in prediction, 0.59 with 5.
            "test_augmentations": 5 if values.get("enumerate_smiles") else 1,
        }
        if values.get("lora") is not None:
            defaults["learning_rate"] = 2e-4  # up to 9 billion parameters (docs/stages.md names sources)
        return values | {name: value for name, value in defaults.items() if values.get(name) is None}

    @model_validator(mode="after")
    def _check_heads_and_augmentations(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got heads {self.heads} and width {self.width}")
        if self.weights:
            self.require_defaults(("layers", "width", "heads"), f"with weights {self.weights}")
        if self.test_augmentations > 1 and not self.enumerate_smiles:
            raise ValueError(
                "test_augmentations above 1 requires enumerate_smiles: training would see one SMILES per molecule"
            )
        return self

    @model_validator(mode="after")
    def _check_adapters(self) -> Self:
        if self.lora and not self.weights:
            raise ValueError("lora requires weights: an encoder from scratch has no weights to keep")
        if self.quantization and not self.lora:
            raise ValueError("quantization requires lora: weights of 4 bits cannot be trained themselves")
        return self

    @property
    def n_augmentations(self) -> tuple[int | None, int]:
        """Number of randomized SMILES: a new one per epoch, and `test_augmentations` in prediction."""
        return None if self.enumerate_smiles else 1, self.test_augmentations

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Check the layers of adapters and that there are SMILES to randomize, as well; see `Stage.check`."""
        yield from super().check(tables)
        require_quantization(self.quantization)
        if self.lora and self.weights and self.lora.layers != "all_linear":
            require_layers(self.weights, self.lora.layers)
        template = read_template(self, tables.context)
        if self.enumerate_smiles and not template.smiles:
            raise ConfigError(
                f"enumerate_smiles requires a molecule column, got {', '.join(template.columns)}. "
                "Name one, or set tokenizer: smiles if a text column contains SMILES."
            )

    def initial_backbone(self, train: Dataset, folder: Path, context: Context) -> "nn.Module":
        """Return the encoder with the configured weights, or random ones; write its tokenizer and shape."""
        import torch

        encoders = load(self.network_module)
        rate = self.backbone_dropout
        if self.weights:
            encoder, tokenizer = encoders.pretrained(self, rate, self.quantization)
        else:
            tokenizer = self._train_tokenizer(train, context)
            encoder = encoders.encoder_from_scratch(
                tokenizer, self.width, self.layers, self.heads, self.max_length, rate
            )
        if self.precision == "bf16" and not torch.cuda.is_available():
            # The backward pass of the fused kernel is slower on a CPU in bf16 than in float32.
            encoder.set_attn_implementation("eager")
        items, n_cut = self._items(train, tokenizer, context)
        unknown = load(TOKENIZATION).unknown_share(tokenizer, items)
        template = read_template(self, context)
        notes = template.notes(self.weights, unknown, n_cut, len(train), tokenizer.model_max_length)
        if notes:
            write_notes(folder, notes)
        tokenizer.save_pretrained(folder)
        if self.lora and self.weights:
            write_base_model(self.weights, folder)
            return encoders.AdaptedBackbone(encoder, self.pooling, self.weights, **self.lora.model_dump())
        encoder.config.save_pretrained(folder)
        if not self.enumerate_smiles:  # which has other tokens in each epoch
            encoders.train_only(encoder, np.concatenate(items))
        return encoders.BertBackbone(encoder, self.pooling)

    def backbone(self, folder: Path, context: Context) -> "nn.Module":
        """Return an encoder of the shape in the folder; only adapters need the original weights, the base model."""
        import transformers

        encoders = load(self.network_module)
        if self.lora and self.weights:
            base_model = encoders.load_encoder(
                find_base_model(self.weights, folder), self.weights, self.backbone_dropout, self.quantization
            )
            return encoders.AdaptedBackbone(base_model, self.pooling, self.weights, **self.lora.model_dump())
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        return encoders.BertBackbone(encoders.new_encoder(config), self.pooling)

    def encode(self, rows: Dataset, folder: Path, context: Context, augmentation: int, seed: int) -> Batches:
        """Return the token ids of all rows."""
        import transformers

        pad = load(TOKENIZATION).pad
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        items, _ = self._items(rows, tokenizer, context, augmentation, seed)
        return Batches(items, np.array(list(map(len, items))), partial(pad, pad_id=tokenizer.pad_token_id))

    def _items(
        self, rows: Dataset, tokenizer: Any, context: Context, augmentation: int = 0, seed: int = 0
    ) -> tuple[list[Integers], int]:
        """Return the token ids of each row, and the number of truncated texts."""
        tokenization = load(TOKENIZATION)
        template = read_template(self, context)
        separator = tokenization.separator_of(tokenizer)
        has_texts = len(template.columns) > 1 and not template.smiles
        if (template.has_words or has_texts) and not self.enumerate_smiles:
            inputs, n_cut = shorten_columns(tokenizer, template, rows, separator)
            return tokenization.encode(tokenizer, template.texts(inputs, separator))[0], n_cut
        randomize = partial(randomize_smiles, augmentation=augmentation, seed=seed)
        texts = template.texts(rows.inputs, separator, randomize)
        items, is_cut = tokenization.encode(tokenizer, texts)
        return items, sum(is_cut)

    def _train_tokenizer(self, train: Dataset, context: Context) -> Any:
        """Return a tokenizer of atoms for molecules, or of word pieces for texts, for an encoder from scratch."""
        tokenization = load(TOKENIZATION)
        template = read_template(self, context)
        if template.smiles >= set(template.columns):
            texts = template.texts(train.inputs, SEPARATOR)
            if self.enumerate_smiles:
                texts = [*mirror_stereo(texts), RANDOM_SMILES_TOKENS]
            # "." joins molecules, and may not be inside of one.
            tokenizer = tokenization.train_smiles_tokenizer([*texts, "."])
        else:
            texts = template.texts(train.inputs, " ")
            lowercase = not template.smiles
            tokenizer = tokenization.train_word_piece_tokenizer(texts, MAX_WORD_PIECES, lowercase)
        tokenizer.model_max_length = self.max_length
        return tokenizer
