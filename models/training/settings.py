"""Settings of the training loop: the base class of all stages that train a network.

docs/stages.md and docs/evidence.md report the measurements that the defaults are based on.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, WithJsonSchema, model_validator

from core.settings import StrictModel, UserCodeRef, name_or_code_ref
from core.types import ProblemType
from core.user_code import short_ref
from models.inputs.encoder_settings import EncoderFeature
from models.stage import Feature, GpuShare, Stage
from models.training.schedules import ALL_SETTINGS, SCHEDULES, settings_of

Dropout = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
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
Schedule = Annotated[
    str, name_or_code_ref(SCHEDULES), WithJsonSchema({"enum": [*SCHEDULES, "file.py:function"]})
]


class TrainingSettings(Stage):
    """Settings of the training loop, `models/training/neural.py` and `models/training/trainer.py`."""

    packages: ClassVar[tuple[str, ...]] = ("torch",)
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
    """Peak learning rate of the layers after the backbone, in a gnn of those after message passing; null: the same
    as `learning_rate`."""
    layer_decay: Share = 1.0
    """Factor of the learning rate from one layer of the backbone to the layer below. The embeddings
    have the lowest rate."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of AdamW on weight matrices. Norms and biases are not decayed."""
    schedule: Schedule = "linear"
    """Shape of the learning rate after the warm-up. `file.py:function`: a user-defined function from the step
    and the number of steps, both counted from the end of the warm-up, to the factor of `learning_rate`."""
    warmup: NonNegativeFloat = 0.06
    """Length of the linear warm-up. Below 1: a share of all steps. From 1 on: a number of steps,
    at most half of all."""
    cycles: PositiveInt = 3
    """cosine_with_restarts: number of cycles."""
    decay: Share = 0.2
    """warmup_stable_decay: share of the steps in which the learning rate falls."""
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
    """The last layer, from the pooled features to the outputs."""
    pooler_dropout: Dropout = 0.0
    """Dropout rate on the pooled features, before the head."""
    backbone_dropout: Dropout = 0.0
    """Rate of every dropout inside the backbone. If it is 0, each fold verifies that no dropout is active."""
    r_drop: NonNegativeFloat = 0.0
    """R-Drop: weight of the difference between two forward passes with different dropout masks."""
    molecule_features: list[Feature | EncoderFeature] = []
    """Features of the molecule columns, and of frozen encoders, that are concatenated with the pooled
    features before the head."""
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

    @property
    def n_augmentations(self) -> tuple[int | None, int]:
        """Number of augmentations in training (None: a new one per epoch), and in prediction."""
        return 1, 1

    @property
    def head_rates(self) -> list[float]:
        """Dropout rate of each mask before the last layer; one mask except for multi-sample dropout."""
        return self.head.rates if isinstance(self.head, MultiSampleHead) else [self.pooler_dropout]

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

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        of_others = sorted(ALL_SETTINGS - settings_of(self.schedule))
        self.require_defaults(of_others, f"with schedule: {short_ref(self.schedule)}")
        return self

    def config_errors(self, problem_type: ProblemType) -> Iterator[str]:
        """Yield the errors of `Stage.config_errors`, and of a loss that does not fit."""
        yield from super().config_errors(problem_type)
        class_loss = CLASS_LOSSES.get(problem_type)
        is_user_defined = ":" in (self.loss or "")
        fits = self.loss == class_loss if class_loss else self.loss not in CLASS_LOSSES.values()
        if self.loss and not (fits or is_user_defined):
            yield (
                f"loss: {self.loss} does not fit problem type {problem_type}; "
                f"remove it to use the default ({class_loss or 'mse'})"
            )

    @property
    def n_epochs(self) -> int:
        """Number of passes over the training rows, the setting `epochs`."""
        return self.epochs

    def with_share_of_epochs(self, share: float) -> Self:
        """Return the stage with a share of its epochs."""
        return self.model_copy(update={"epochs": max(1, round(share * self.epochs))})

    @property
    def molecule_feature_names(self) -> list[str]:
        """Names of the features that `molecule_features` contains."""
        return [feature for feature in self.molecule_features if isinstance(feature, str)]

    @property
    def learns_auxiliary_targets(self) -> bool:
        """Whether the network has heads for competition.auxiliary_targets."""
        return self.auxiliary_weight > 0

    @property
    def dropout_note(self) -> str:
        """Dropout rates of the backbone and before the last layer."""
        rates = self.head_rates if isinstance(self.head, MultiSampleHead) else self.pooler_dropout
        return f"dropout {self.backbone_dropout} in the backbone, {rates} before the last layer"
