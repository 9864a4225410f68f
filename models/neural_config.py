"""Settings of the neural stages and of their parts. This module imports no library of any stage.

docs/stages.md and docs/evidence.md report the measurements that the defaults are based on.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from core.settings import StrictModel, UniqueList, UserCodeRef
from core.types import ProblemType
from models.context import CheckTables, Context, molecule_columns
from models.inputs.cache import Cache
from models.inputs.conformers import conformer_cache
from models.inputs.encoder_settings import EncoderFeature, Width
from models.old_style import OldStyle
from models.stage import Feature, GpuShare, Share
from models.training.hardware import cards_in_new_process, cpu_has_bf16, require_precision
from models.training.labels import require_auxiliary

Dropout = Annotated[float, Field(ge=0, lt=1)]
Mask = Annotated[float, Field(gt=0, lt=1)]


class LinearHead(StrictModel):
    """One linear layer on the pooled features."""

    kind: Literal["linear"] = "linear"


class MultiSampleHead(StrictModel):
    """Multi-sample dropout: several dropout masks share one linear layer, and their losses are averaged."""

    kind: Literal["multi_sample"]
    samples: PositiveInt = 5
    """Dropout masks per step."""
    dropout: Mask | list[Mask] = 0.2
    """Dropout rate of all masks, or a list with one rate per mask."""

    @property
    def rates(self) -> list[float]:
        """Dropout rate of each mask."""
        return self.dropout if isinstance(self.dropout, list) else [self.dropout] * self.samples

    @model_validator(mode="after")
    def _has_a_rate_per_sample(self) -> Self:
        if len(self.rates) != self.samples:
            raise ValueError(f"dropout must list one rate per sample ({self.samples}), got {len(self.rates)}")
        return self


LossName = Literal["mse", "mae", "huber", "bce", "cross_entropy"]
CLASS_LOSSES = {"binary": "bce", "multilabel": "bce", "multiclass": "cross_entropy"}
"""Problem type -> its loss on logits. All other losses are for standardised regression targets."""
Schedule = Literal[
    "constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "one_cycle", "warmup_stable_decay"
]  # fmt: skip


class NeuralConfig(OldStyle):
    """Settings of every neural stage, which its training loop reads (`models/training/trainer.py`)."""

    reports_progress = True
    depends_on_seed = True
    predicts_on_gpu = True
    encoder_setting = "molecule_features"
    epochs: PositiveInt = 10
    """Number of passes over the training rows."""
    batch_size: PositiveInt = 32
    """Rows per forward pass."""
    gradient_accumulation_steps: PositiveInt = 1
    """Gradient accumulation: batches per optimizer step."""
    learning_rate: PositiveFloat = 1e-4
    """Peak learning rate of the schedule."""
    head_learning_rate: PositiveFloat | None = None
    """Peak learning rate of the layers after the backbone; null: the same as `learning_rate`."""
    layer_decay: Share = 1.0
    """Factor of the learning rate from one layer of the backbone to the layer below. The embeddings
    have the lowest rate."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of AdamW on weight matrices. Norms and biases are not decayed."""
    schedule: Schedule = "linear"
    """Shape of the learning rate after the warm-up."""
    warmup: NonNegativeFloat = 0.06
    """Length of the linear warm-up. Below 1: a share of all steps. From 1 on: a number of steps."""
    cycles: PositiveInt = 3
    """cosine_with_restarts: number of cycles."""
    decay: Share = 0.2
    """warmup_stable_decay: share of the steps in which the learning rate falls."""
    clip_norm: PositiveFloat = 1.0
    """Maximum norm of the gradient."""
    weight_averaging: Literal["none", "ema"] = "none"
    """Weights that are saved. none: the weights of the last step. ema: their exponential moving
    average over steps."""
    ema_decay: Mask = 0.999
    """Share of the previous average that each step keeps."""
    label_smoothing: Dropout = 0.0
    """For classification: share of a label that is distributed evenly over all classes.
    Source: Szegedy et al., 2016."""
    loss: LossName | UserCodeRef | None = None
    """Training loss. null: mse for regression, cross_entropy for multiclass, bce (per target) for
    binary and multilabel. The other losses are for standardised regression targets. `file.py:name`:
    a user-defined function from outputs and labels (n_rows, n_targets) to the error of each label;
    missing labels are passed as 0. For classification the outputs are logits; for multiclass they
    are (n_rows, n_classes), and labels are class indices."""
    auxiliary_weight: NonNegativeFloat = 0.3
    """Loss weight of each of competition.auxiliary_targets; 0 ignores them. For binary and
    multilabel competitions they must be columns of 0 and 1. Multiclass competitions cannot have
    them."""
    head: Annotated[LinearHead | MultiSampleHead, Field(discriminator="kind")] = LinearHead()
    pooler_dropout: Dropout = 0.0
    """Dropout rate on the pooled features, before the head."""
    backbone_dropout: Dropout = 0.0
    """Rate of every dropout inside the backbone. If it is 0, each fold verifies that no dropout is active."""
    r_drop: NonNegativeFloat = 0.0
    """R-Drop: weight of the difference between two forward passes with different dropout masks."""
    molecule_features: list[Feature | EncoderFeature] = []
    """Features of the molecule columns, and of frozen encoders, that are concatenated with the pooled features
    before the head."""
    use_tabular_columns: bool = True
    """Whether the competition's numeric and categorical columns are concatenated with the pooled
    features as well."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """Numerical precision of training. auto: on a GPU bf16 if the hardware supports it, otherwise
    fp16 with a gradient scaler; on a CPU float32 (bf16 on a CPU requires avx512_bf16). Predictions
    are computed in float32, except on a GPU if bf16 or fp16 is set here."""
    gradient_checkpointing: bool = False
    """Gradient checkpointing: recompute each layer in the backward pass instead of storing its
    activations. This takes less memory and a third more time."""
    gpu: GpuShare = 1.0

    @model_validator(mode="after")
    def _check_dropout(self) -> Self:
        has_dropout = self.pooler_dropout or self.backbone_dropout
        if self.r_drop and not has_dropout:
            raise ValueError("r_drop needs pooler_dropout or backbone_dropout above 0")
        if isinstance(self.head, MultiSampleHead) and (self.r_drop or self.pooler_dropout):
            raise ValueError(
                "head multi_sample applies dropout itself; remove r_drop and pooler_dropout, or this head"
            )
        return self

    def config_errors(self, problem_type: ProblemType) -> Iterator[str]:
        """Yield the errors of `Stage.config_errors`, and of a loss or label smoothing that
        does not fit.
        """
        yield from super().config_errors(problem_type)
        class_loss = CLASS_LOSSES.get(problem_type)
        is_user_defined = ":" in (self.loss or "")
        fits = self.loss == class_loss if class_loss else self.loss not in CLASS_LOSSES.values()
        if self.loss and not (fits or is_user_defined):
            yield (
                f"loss: {self.loss} does not fit problem type {problem_type}; "
                f"remove it to use the default ({class_loss or 'mse'})"
            )
        if self.label_smoothing and (is_user_defined or not class_loss):
            yield "label_smoothing requires a built-in classification loss; remove it"

    @property
    def molecule_feature_names(self) -> list[str]:
        """Names that `molecule_features` contains."""
        return [feature for feature in self.molecule_features if isinstance(feature, str)]

    @property
    def learns_auxiliary_targets(self) -> bool:
        """Whether the network has heads for competition.auxiliary_targets."""
        return self.auxiliary_weight > 0

    @property
    def dropout_note(self) -> str:
        """Dropout rates of the backbone and before the last layer."""
        rates: object = self.pooler_dropout
        if isinstance(self.head, MultiSampleHead):
            rates = self.head.rates
        return f"dropout {self.backbone_dropout} in the backbone, {rates} before the last layer"

    def check_machine(self) -> None:
        """Raise a ConfigError if the hardware does not support `precision`."""
        if self.precision not in ("bf16", "fp16"):
            return
        cards = cards_in_new_process()[0] if self.gpu else []
        has_bf16 = all(card.has_bf16 for card in cards) if cards else cpu_has_bf16()
        require_precision(self.precision, bool(cards), has_bf16)

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Check the auxiliary targets as well; see `Stage.check`."""
        yield from super().check(tables)
        if self.learns_auxiliary_targets:
            names = tables.competition.auxiliary_targets
            require_auxiliary(tables.train[names].to_numpy(), names, tables.task.problem_type)


class MoleculeStage(NeuralConfig):
    """Settings of every neural stage on molecules."""

    weights: str | None = None
    """Name of a weight set, or file, to start from (gnn: chemeleon, or message passing that
    chemprop saved). null: random initialization."""
    columns: list[str] = []
    """Molecule columns. Each goes through the same backbone; a hidden layer combines them. Empty:
    all of them."""
    schedule: Schedule = "one_cycle"
    weight_decay: NonNegativeFloat = 0.0

    @property
    def initial_weights(self) -> str | None:
        """The setting `weights`."""
        return self.weights

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Check `columns` as well; see `Stage.check`."""
        molecule_columns(self.columns, tables.competition.smiles, self.kind)
        yield from super().check(tables)


class ConformerConfig(MoleculeStage):
    """Settings of both Uni-Mol stages, which read 3-D conformers."""

    packages = ("torch", "unimol_tools", "rdkit")
    conformers: PositiveInt = 1
    """Conformers per molecule. Each epoch of training reads the next one; a prediction is the mean
    over all."""
    fragments: Literal["all", "largest"] = "all"
    """For salts and mixtures: read all fragments, or the one with the most heavy atoms."""
    repeat_units: Literal["keep", "cap", "cyclic_dimer"] = "keep"
    """What to do with '*', the open ends of a polymer's repeat unit. keep: an atom of unknown
    element, without MMFF relaxation. cap: replace it by carbon. cyclic_dimer: join two units head
    to tail into a ring (three units if both ends are at one atom); molecules without exactly two
    single-bonded ends are capped. A molecule in which a '*' has more bonds than a carbon can have
    is kept."""
    epochs: PositiveInt = 15
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 1e-3

    @property
    def conformer_settings(self) -> dict[str, Any]:
        """Arguments of `models.inputs.conformers.conformer_cache`, by name."""
        return self.model_dump(include={"conformers", "fragments", "repeat_units"})

    def caches(self, context: Context) -> list[tuple[Cache, list[str]]]:
        """Return the cache of conformers."""
        return [(conformer_cache(context.cache, **self.conformer_settings), self.columns or context.smiles)]


class UnimolConfig(ConformerConfig):
    """Uni-Mol (Zhou et al., ICLR 2023): a transformer over the atoms and distances of a 3-D conformer."""

    small_weights: ClassVar[tuple[str, ...]] = ("unimol_small", "unimol_small_oled")
    """Weight sets of the architecture `compact`; all other sets are for published architectures."""
    kind: Literal["unimol"]
    architecture: Literal["compact", "molecule", "oled"] = "compact"
    """molecule, oled: the published sizes. compact: the same layers in the size of `layers`,
    `width` and `heads`."""
    remove_hydrogens: bool = False
    """Whether the model reads heavy atoms only. Required with the no_h, OLED and small weights."""
    layers: PositiveInt = 6
    width: Width = 128
    heads: PositiveInt = 8

    @model_validator(mode="after")
    def _check_architecture(self) -> Self:
        if self.architecture != "compact":
            return self
        is_file = self.weights is not None and self.weights.endswith((".pt", ".safetensors"))
        if self.weights and not is_file and self.weights not in self.small_weights:
            valid = ", ".join([*self.small_weights, "a file or null"])
            raise ValueError(f"architecture compact has no weights {self.weights}; use {valid}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got heads {self.heads} and width {self.width}")
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        size = (self.architecture, self.layers, self.width, self.heads)
        if self.weights in self.small_weights and size != ("compact", 6, 128, 8):
            raise ValueError(
                f"weights {self.weights} need architecture compact with layers 6, width 128 and heads 8"
            )
        if self.weights in ("unimol_no_h", "unimol_oled", *self.small_weights) and not self.remove_hydrogens:
            raise ValueError(
                f"weights {self.weights} were trained without hydrogens; set remove_hydrogens: true"
            )
        return self


class Unimol2Config(ConformerConfig):
    """Uni-Mol2 (Ji et al., NeurIPS 2024): atom and pair representations of graph and conformer;
    heavy atoms only.
    """

    kind: Literal["unimol2"]
    architecture: Literal["84m", "164m", "310m", "570m", "1.1b"] = "84m"
    """Published size, as its number of weights."""

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if (
            self.weights
            and self.weights.startswith("unimol2_")
            and self.weights != f"unimol2_{self.architecture}"
        ):
            raise ValueError(
                f"weights {self.weights} need architecture: {self.weights.removeprefix('unimol2_')}"
            )
        return self


class GnnConfig(MoleculeStage):
    """Message passing over bonds (D-MPNN, Yang et al., JCIM 2019), by chemprop."""

    packages = ("torch", "chemprop", "rdkit")
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
