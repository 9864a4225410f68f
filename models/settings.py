"""Settings that stages share: of every stage, of every neural one. Imports no library of any stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from competition.config import EachOnce, GivenPath, StrictModel, UserCode
from competition.errors import ConfigError

Number = Annotated[int, Field(ge=1)]
Passes = Annotated[int, Field(ge=0)]
Width = Annotated[int, Field(ge=8)]
Weight = Annotated[float, Field(ge=0)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
VARIANT = "__"
"""What stands between the name of a stage and that of its variant in a study: `minilm__rate=0.1`."""
StageName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*(__[A-Za-z0-9_]+=[A-Za-z0-9_=.,+-]+)?$")]
"""Letters, digits and underscores; variants in a study name their values, too."""


REMOVED = {
    "reinitialise_layers": "remove it, and set layer_decay below 1 to keep the lower layers as they were",
    "token_order": "remove it; the special tokens are read in the order of the released checkpoints",
    "atom_features": "remove it, and name molecule_features: [descriptors], which join before the head",
}
"""Keys that stages had, and what to do instead."""


class PseudoLabels(StrictModel):
    """Test rows to train on, with predictions of other stages as their labels.

    Source: Lee, Pseudo-Label, ICML workshop on challenges in representation learning 2013.
    """

    of: list[str] = Field(min_length=1)
    """Stages, without pseudo-labels of their own, whose mean is the label. The job of fold k takes what their models
    of fold k predict, which saw no label of fold k either; a refit takes the mean over all folds."""
    weight: Share = 0.3
    """Weight of a test row in training, where a row of the training table has 1."""


class Stage(StrictModel):
    """What every stage has."""

    seeds: Annotated[list[int], EachOnce] = Field(default=[0], min_length=1)
    """Names of the seeds; the stage's column is the mean over them. Adding one trains only its jobs."""
    target_transform: Literal["none", "standard", "robust", "min_max", "quantile", "power", "log1p"] = "none"
    """What the targets go through before the stage sees them (scikit-learn's scalers), fitted on the training rows
    of the fold and inverted on predictions. quantile and power make them normal."""
    extra_rows: Literal["train", "pretrain", "ignore"] = "train"
    """What to do with the rows of competition.extra_train: train on them with their weight; in a neural stage,
    train on them first and then on the competition's own rows alone; or leave them out."""
    final_fit: Literal["folds", "refit", "both"] = "folds"
    """What predicts the test rows: the mean of the folds' models; one model per seed, fitted again on all rows with
    the number of trees and the searched settings of the folds; or the mean of the two. The stage's score is that of the
    folds; no held-out row scores a refit, and every table says so."""
    pseudo_labels: PseudoLabels | None = None
    """Whether test rows are trained on as well, and by whose predictions."""

    @model_validator(mode="before")
    @classmethod
    def _no_key_is_of_the_past(cls, values: Any) -> Any:
        if gone := [f"{key} is no longer there; {REMOVED[key]}" for key in values if key in REMOVED]:
            raise ValueError(". ".join(gone))
        return values

    @property
    def user_code(self) -> dict[str, str]:
        """Settings that name code of the user's, `file.py:name`: its content is in the job's key, its place is not."""
        return {}

    @property
    def sees_test_inputs(self) -> bool:
        """Whether a job reads the inputs of test rows: they are in its key, and every table says so."""
        return self.pseudo_labels is not None

    @property
    def can_label(self) -> bool:
        """Whether pseudo-labels may come from it: the model of a fold must not know a label of that fold."""
        return self.pseudo_labels is None


class FileStage(Stage):
    """Predictions made elsewhere: another notebook, AutoGluon, a colleague."""

    kind: Literal["file"]
    folder: GivenPath
    """Folder with oof.csv and test.csv. Both have the id and the submission's columns, oof.csv
    may have a column fold."""
    target_transform: Literal["none"] = "none"
    """Predictions are in the targets' own units."""
    extra_rows: Literal["ignore"] = "ignore"
    final_fit: Literal["folds"] = "folds"
    pseudo_labels: None = None
    """Nothing is trained here."""

    @property
    def can_label(self) -> bool:
        """Their test predictions may come from models that saw the labels of any fold."""
        return False

    @field_validator("seeds")
    @classmethod
    def _one_seed(cls, seeds: list[int]) -> list[int]:
        if len(seeds) > 1:
            raise ValueError("must name one seed, since files are the same for all; make a stage for each file instead")
        return seeds


class CustomStage(Stage):
    """A class of your own with the two methods of `models.stage.FittedStage`."""

    kind: Literal["custom"]
    code: UserCode
    """`file.py:Class`. The class is called with its settings and a `models.stage.Context`."""
    settings: dict[str, Any] = {}
    """What the class is called with; checked by its attribute `Settings`, a pydantic model, where it has one."""
    gpu: bool = True
    """Whether a job takes a GPU for itself, where there is one; false: it computes on a core, many side by side."""

    @property
    def user_code(self) -> dict[str, str]:
        """The class."""
        return {"code": self.code}


Mask = Annotated[float, Field(gt=0, lt=1)]


class LinearHead(StrictModel):
    """One linear layer on the pooled features."""

    kind: Literal["linear"] = "linear"


class MultiSampleHead(StrictModel):
    """Multi-sample dropout: several dropout masks share one linear layer, their losses are averaged."""

    kind: Literal["multi_sample"]
    samples: Number = 5
    """Masks per step; 1 is plain dropout before the last layer."""
    dropout: Mask | list[Mask] = 0.2
    """Rate of the masks, or a list with one rate for each; above 0, or all masks would be the same."""

    @model_validator(mode="after")
    def _consistent(self) -> MultiSampleHead:
        if isinstance(self.dropout, list) and len(self.dropout) != self.samples:
            raise ValueError(f"dropout must list one rate per sample ({self.samples}); found {len(self.dropout)}")
        return self


Feature = Literal["morgan", "avalon", "erg", "maccs", "descriptors", "maplight"]
LossName = Literal["mse", "mae", "huber", "weighted_mae", "gaussian"]
Head = Annotated[LinearHead | MultiSampleHead, Field(discriminator="kind")]
Schedule = Literal[
    "constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "one_cycle", "warmup_stable_decay"
]  # fmt: skip


class NeuralStage(Stage):
    """What every neural stage has: the settings of the one training loop (`models/training/trainer.py`)."""

    epochs: Number = 10
    """Passes over the training rows."""
    batch_size: Number = 32
    """Rows that go through the network together."""
    accumulate: Number = 1
    """Batches per step of the optimizer; their gradients add up to that of one large batch."""
    learning_rate: Rate = 1e-4
    """Peak of the schedule."""
    head_learning_rate: Rate | None = None
    """Peak for the layers behind the backbone, where it differs."""
    layer_decay: Share = 1.0
    """Factor of the rate from each layer of the backbone to the one below it; the embeddings have the smallest."""
    freeze: list[str] = []
    """Parts of the backbone that are not trained, by the beginning of their names (embeddings, encoder.layer.0.)."""
    weight_decay: Weight = 0.01
    """AdamW's decay of weight matrices; norms and biases have none."""
    schedule: Schedule = "linear"
    """Shape of the learning rate after the warm-up."""
    warmup: Weight = 0.06
    """Steps in which the rate rises: below 1 a share of all steps, from 1 on a number of steps."""
    cycles: Number = 3
    """cosine_with_restarts: how often the rate falls."""
    decay: Share = 0.2
    """warmup_stable_decay: share of the steps in which the rate falls."""
    clip_norm: Rate = 1.0
    """Largest norm of the gradient."""
    average: Literal["none", "ema", "last_epochs"] = "none"
    """Which weights are kept: the last, their exponential moving average over steps, or the mean over the ends of
    the last epochs."""
    ema_decay: Mask = 0.999
    """ema: share of the old average that a step keeps."""
    average_epochs: Number = 3
    """last_epochs: how many."""
    loss: LossName | UserCode = "mse"
    """Of standardised targets. weighted_mae: each target by 1 over its range and root of its number of labels, as in
    the Open Polymer Prediction 2025. gaussian: likelihood of a normal distribution whose standard deviation is learned,
    too. `file.py:name`: a function of yours from outputs and labels, both (n_rows, n_targets), to
    the error of each label."""
    auxiliary_weight: Weight = 0.3
    """Weight of the loss of each of competition.auxiliary_targets; 0 leaves them out."""
    head: Head = LinearHead()
    """The layer that maps pooled features to targets."""
    pooler_dropout: Dropout = 0.0
    """Rate of dropout on the pooled features, before the head."""
    backbone_dropout: Dropout = 0.0
    """Rate of every dropout inside the backbone; audited before each fold where it is 0."""
    r_drop: Weight = 0.0
    """Weight of the difference between two passes with other dropout masks."""
    mc_dropout: Passes = 0
    """Passes with dropout on whose mean is the prediction; their spread is written beside it. 0: one pass without."""
    molecule_features: list[Feature] = []
    """Features of the molecule columns that join the numeric and categorical columns before the head."""
    columns_before_head: bool = True
    """Whether the competition's numeric and categorical columns join the pooled features before the head."""
    keep: Literal["last", "best_on_held_out"] = "last"
    """last: the weights at the end of the schedule. best_on_held_out: those of the epoch that scores best on
    the held-out fold; its score is then optimistic, and every table says so."""
    monitor: Literal["none", "held_out"] = "none"
    """held_out: write the loss of each epoch on training rows and on the held-out fold, each with dropout on and off,
    into training.json, and the last ones into measures.json. Nothing is chosen by them."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """auto: float32 on a CPU; on a GPU bf16 where the hardware has it, else fp16 with a gradient scaler. bf16: also on
    a CPU that has avx512_bf16. Whatever it says, predictions on a CPU are made in float32."""
    checkpoint_layers: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations: less memory, a third slower."""

    @model_validator(mode="after")
    def _passes_and_folds_agree(self) -> NeuralStage:
        drops = self.pooler_dropout > 0 or self.backbone_dropout > 0
        multi_sample = isinstance(self.head, MultiSampleHead)
        if self.r_drop and not drops:
            raise ValueError("r_drop needs two passes that differ; set pooler_dropout or backbone_dropout above 0")
        if self.mc_dropout and not drops and not multi_sample:
            raise ValueError("mc_dropout needs passes that differ; set pooler_dropout or backbone_dropout above 0")
        if multi_sample and (self.r_drop or self.pooler_dropout):
            raise ValueError("multi_sample has masks of its own; remove r_drop and pooler_dropout, or this head")
        if self.reads_held_out and self.final_fit != "folds":
            raise ValueError(
                "a refit on all rows has no held-out fold to choose an epoch on or to monitor; set keep: last and "
                "monitor: none"
            )
        return self

    @property
    def user_code(self) -> dict[str, str]:
        """A loss of the user's."""
        return {"loss": self.loss} if ":" in self.loss else {}

    @property
    def reads_held_out(self) -> bool:
        """Whether a job needs the labels of its held-out fold, to choose an epoch or to write their loss."""
        return self.keep == "best_on_held_out" or self.monitor == "held_out"

    @property
    def can_label(self) -> bool:
        """Not with an epoch that was chosen on the held-out labels."""
        return super().can_label and self.keep == "last"


def require_sources(stages: dict[str, Any], path: Path) -> None:
    """Check that pseudo-labels come from stages that can give them.

    Raises:
        ConfigError: with every stage named in `pseudo_labels.of` that cannot.
    """
    allowed = [name for name, stage in stages.items() if stage.can_label]
    mistakes = [
        f"  stages.{name}.pseudo_labels.of: must name stages that train here, have no pseudo-labels and do not "
        f"choose by the held-out fold: {', '.join(allowed) or 'there are none'} (found {source!r})"
        for name, stage in stages.items()
        for source in (stage.pseudo_labels.of if stage.pseudo_labels else [])
        if source not in allowed
    ]
    if mistakes:
        raise ConfigError("\n".join([f"{path} has {len(mistakes)} mistake(s):", *mistakes]))
