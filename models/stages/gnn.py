"""Stage `gnn`: directed message passing over the bonds of the molecular graph, by chemprop, under our
trainer.

Source: Yang et al., Analyzing Learned Molecular Representations for Property Prediction, JCIM 2019.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from competition.dataset import Dataset
from core.files import read_json, write_json
from core.modules import load
from core.settings import UniqueList
from models.context import Context
from models.inputs.encoder_settings import Width
from models.inputs.weights import find_weights
from models.training.batches import Batches
from models.training.neural_stage import MoleculeStage

if TYPE_CHECKING:
    from torch import nn

SHAPE = "message_passing.json"


class Gnn(MoleculeStage):
    """Message passing over bonds (D-MPNN, Yang et al., JCIM 2019), by chemprop."""

    packages = ("torch", "chemprop", "rdkit")
    network_module = "models.networks.message_passing"
    kind: Literal["gnn"]
    width: Width = 300
    """Width of a bond message. Pretrained weights determine it, and `depth`."""
    depth: PositiveInt = 3
    """Number of message passing steps."""
    aggregation: Annotated[list[Literal["mean", "sum", "norm"]], UniqueList] = Field(
        default=["mean", "norm"], min_length=1
    )
    """How atom vectors become a molecule vector: their mean, their sum, or their sum divided by 10
    (norm). Several are concatenated. A mean alone cannot count atoms."""
    hidden_width: Width = 300
    """Width of the hidden layer between the molecule vector and the head."""
    epochs: PositiveInt = 30
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 2e-3
    warmup: NonNegativeFloat = 0.1

    @model_validator(mode="after")
    def _check_single_layer(self) -> Self:
        if self.layer_decay < 1 or self.gradient_checkpointing:
            raise ValueError(
                "message passing repeats one layer; remove layer_decay and gradient_checkpointing"
            )
        return self

    def initial_backbone(self, train: Dataset, folder: Path, context: Context) -> "nn.Module":
        """Return message passing with the configured weights, or random ones, and write its shape."""
        shape = {"d_h": self.width, "depth": self.depth}
        published = None
        if self.weights:
            shape, published = load(self.network_module).read_message_passing(
                next(iter(find_weights(self.weights).values()))
            )
        write_json(folder / SHAPE, shape)
        backbone: Any = self.backbone(folder, context)
        if published is not None:
            backbone.message_passing.load_state_dict(published.state_dict())
        return backbone

    def backbone(self, folder: Path, context: Context) -> "nn.Module":
        """Return message passing of the shape in the folder."""
        network = load(self.network_module)
        shape = read_json(folder / SHAPE)
        backbone: nn.Module = network.GnnBackbone(
            message_passing=network.Messages(**shape, dropout=self.backbone_dropout),
            width=shape["d_h"],
            aggregation=list(self.aggregation),
            hidden_width=self.hidden_width,
            dropout=self.backbone_dropout,
        )
        return backbone

    def encode_molecules(
        self, smiles: list[str], folder: Path, context: Context, augmentation: int
    ) -> Batches:
        """Return the molecular graphs of a column."""
        network = load(self.network_module)

        shape = read_json(folder / SHAPE)
        cached = functools.cache(functools.partial(network.graph_of, depth=shape["depth"]))
        shared = self.backbone_dropout == 0 and not shape.get("undirected", False)
        equal = np.ones(len(smiles), dtype=np.int64)  # atoms of a batch stand in one table
        return Batches(list(map(cached, smiles)), equal, functools.partial(network.collate, shared=shared))
