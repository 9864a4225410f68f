"""Settings of the stage kind `bert`: encoders and decoders of text or SMILES. This module imports no library of
any stage.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, StrictBool, model_validator

from core.settings import StrictModel, UniqueList
from models.inputs.encoder_settings import TextStage, Width
from models.neural_config import NeuralConfig


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


class BertConfig(TextStage, NeuralConfig):
    """Any encoder or decoder of Hugging Face's transformers on text or SMILES, pretrained or from scratch.

    layers, width and heads are the size of an encoder from scratch.
    """

    packages = ("torch", "transformers", "tokenizers")
    kind: Literal["bert"]
    weights: str | None = None
    """Name of a weight set, folder, or repository of the Hugging Face hub. null: train an encoder
    from scratch."""
    lora: Lora | None = None
    """Train only low-rank adapters and the head; the weights stay as they are. A job then stores the
    adapters, the head and the name of the base model, not the base model. null: train all weights."""
    quantization: Literal["nf4"] | None = None
    """nf4: keep the weights below `lora` in 4 bits (QLoRA, Dettmers et al., NeurIPS 2023), about 0.6
    bytes each. It requires the package bitsandbytes. null: 4 bytes each, in float32."""
    pooling: Literal["mean", "cls", "last"] = "mean"
    """How token vectors become one vector. mean: their mean. cls: the vector of the first token, for
    encoders. last: the vector of the last token, usual for decoders, in which only the last token
    has read the whole text."""
    enumerate_smiles: StrictBool | Literal["order"] = False
    """SMILES augmentation. true: in every epoch each molecule is written as another randomized
    SMILES, and the molecules of a cell, or of one side of a reaction, are in random order. order:
    only the order is randomized."""
    test_augmentations: PositiveInt
    """Test-time augmentation: number of SMILES per row that are averaged for a prediction, the
    canonical one first. Unset: 5 with enumerate_smiles, otherwise 1."""
    layers: PositiveInt = 4
    width: Width = 128
    heads: PositiveInt = 4
    vocab_size: int = Field(default=4000, ge=100)
    """From scratch: maximum number of word pieces, which are learned from the training rows of the fold."""
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
    def text_settings(self) -> list[Any]:
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
        learning_rate = 5e-5 if is_pretrained else 1e-3
        if values.get("lora") is not None:
            learning_rate = 2e-4  # up to 8 billion parameters (docs/stages.md names sources)
        defaults: dict[str, float] = {
            "learning_rate": learning_rate,
            "epochs": 4 if is_pretrained else 20,
        }
        # 600 QM9 molecules, mean R2 of 3 targets, one seed: 0.38 without enumeration, 0.38 with it and
        # 1 SMILES in prediction, 0.59 with 5.
        defaults["test_augmentations"] = 5 if values.get("enumerate_smiles") in (True, "order") else 1
        return defaults | {
            name: value for name, value in values.items() if name not in defaults or value is not None
        }

    @model_validator(mode="after")
    def _check_heads_and_augmentations(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got heads {self.heads} and width {self.width}")
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
