"""The base class of the settings of all stages, what they share, and the kinds `file` and `custom`.

This module imports no library of any stage.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt

from core.settings import StrictModel, UniqueList, UserCodeRef, UserPath
from core.types import ProblemType

Width = Annotated[int, Field(ge=8)]
Share = Annotated[float, Field(gt=0, le=1)]
Feature = Literal["morgan", "avalon", "erg", "maccs", "descriptors", "maplight"]
CLASS_WEIGHTS = (
    "is_unbalance",
    "unbalance",
    "scale_pos_weight",
    "class_weights",
    "auto_class_weights",
    "class_weight",
)
"""Parameters of LightGBM, CatBoost and scikit-learn that weight classes differently."""


def _check_single_gpu(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(
            "must be true, false, or a share of one card up to 1; several cards for one job are not supported"
        )
    return share


GpuShare = Annotated[float, AfterValidator(_check_single_gpu)]
"""Share of one GPU that a job takes if there is a GPU. With 0.25, four jobs train on it at the same
time. true means 1; false means 0, which is training on CPU cores."""


class PseudoLabels(StrictModel):
    """Pseudo-labelling: train also on test rows, labelled with predictions of other stages.

    Source: Lee, Pseudo-Label, 2013.
    """

    stages: list[str] = Field(min_length=1)
    """Stages that predict the labels, as their mean; they must not use pseudo-labels themselves.
    The job of fold k uses their models of fold k, which did not see its labels either. A refit uses
    the mean over all folds."""
    weight: Share = 0.3
    """Weight of a test row; a row of the training table has weight 1."""


class StageConfig(StrictModel):
    """Settings that every stage has."""

    if TYPE_CHECKING:
        kind: str  # a field of every subclass, with its name as the only value

    seeds: Annotated[list[int], UniqueList] = Field(default=[0], min_length=1)
    """Random seeds. The stage predicts the mean over its seeds. Adding a seed trains only the jobs
    of that seed."""
    target_transform: Literal["none", "standard", "robust", "min_max", "quantile", "power", "log1p"] = "none"
    """Transform of the targets by scikit-learn, fitted on the training rows of the fold and
    inverted on predictions. quantile and power make the targets normally distributed."""
    extra_rows: Literal["train", "pretrain", "ignore"] = "train"
    """What to do with the rows of competition.extra_train. train: add them to the training rows
    with their weight. pretrain (neural stages): train on them first, then only on the competition's
    rows. ignore: do not use them. Rows with labels of auxiliary targets only are used by neural
    stages with an `auxiliary_weight` above 0."""
    final_fit: Literal["folds", "refit", "both"] = "folds"
    """What predicts the test rows. folds: the mean of the models of all folds. refit: one model per
    seed, fitted on all rows with the number of trees and the tuned settings of the folds. both: the
    mean of the two. A refit has no held-out rows: the score of the stage is then the score of its
    folds, and every table marks it."""
    pseudo_labels: PseudoLabels | None = None
    class_weights: Literal["none", "balanced"] = "none"
    """For classification. balanced: every class has the same total weight in training. This distorts the
    probabilities. For a metric of labels, tuned thresholds have the same effect without it."""

    @property
    def gpu_share(self) -> float:
        """Share of a GPU that a job takes if there is a GPU; 0 for a kind that never uses one."""
        return getattr(self, "gpu", 0.0)

    @property
    def learns_auxiliary_targets(self) -> bool:
        """Whether the stage has outputs for competition.auxiliary_targets."""
        return False

    @property
    def encoders(self) -> "list[EncoderFeature]":
        """Frozen encoders that give pooled features to the stage."""
        return []

    @property
    def reweights_classes(self) -> bool:
        """Whether classes are weighted differently, by `class_weights` or by a parameter of the library."""
        parameters = getattr(self, "parameters", {})
        return self.class_weights != "none" or any(parameters.get(name) for name in CLASS_WEIGHTS)

    def config_errors(self, problem_type: ProblemType) -> Iterator[str]:
        """Yield an error message for each setting that does not fit the problem type of the stage.

        Args:
            problem_type: problem type of `models.registry.task_for_stage`. It is ordinal only for
                external predictions.
        """
        if problem_type != "regression" and self.target_transform != "none":
            yield "target_transform requires regression, but this stage learns classes; remove it"
        if problem_type == "regression" and self.class_weights != "none":
            yield "class_weights requires classification, but this stage learns regression; remove it"


class TextStage(StrictModel):
    """Settings of stages that read columns as one text through a Hugging Face encoder."""

    columns: list[str] = []
    """Columns that are joined into one text, in this order. Empty: all text columns, or all
    molecule columns if the competition has no text columns."""
    template: str | None = None
    """How the columns are joined, each by its name in braces: "{a}.{b}>>{c}" for a reaction,
    "{context} [SEP] {text}" with [SEP] for the separator of the encoder. null: "." between two
    molecules, the separator between all others."""
    tokenizer: Literal["auto", "smiles"] = "auto"
    """Tokenizer. auto: the tokenizer of the weights; from scratch, atoms for molecule columns and
    word pieces for text. smiles: one token per atom, by the vocab.txt of the weights. Text columns
    must then contain SMILES, for example of reactions."""
    max_length: Width = 256
    """Maximum input length in tokens. The encoder may have a lower limit."""
    truncation: Literal["end", "middle"] = "end"
    """What to do with a longer input. end: keep the start; in the kind bert, if `template` has words, such as an
    instruction, keep them and cut the end of the longest columns. middle: fill a quarter of the length with
    the start and the rest with the end.
    Source of middle: Sun et al., How to Fine-Tune BERT for Text Classification?, 2019."""


class EncoderFeature(TextStage, validate_by_name=True):
    """A frozen encoder that gives its pooled features to a stage.

    An encoder of text reads the text of `columns`. MiniMol (minimol) and message passing (chemeleon, or a .pt
    file of chemprop) read each molecule column.
    """

    weights: str = Field(alias="encoder")
    """Name of a weight set, folder, or repository of the Hugging Face hub."""
    pooling: Literal["mean", "cls", "last"] = "mean"
    """How token vectors become one vector: their mean, the first, or the last one. Atom vectors of
    message passing are always averaged."""
    pca: PositiveInt | None = None
    """Number of principal components of its features that are used, fitted on the training rows of the fold.
    null: all features. Models that learn in context need few features."""


class FileConfig(StageConfig):
    """External predictions, for example of another notebook or of AutoGluon. Nothing is trained."""

    kind: Literal["file"]
    folder: UserPath
    """Folder with oof.csv and test.csv. Both contain the id and the columns of the submission. For
    classification, they may instead contain a column of probabilities per target, or a column
    `target=class` per class. oof.csv may contain a column `fold`."""
    seeds: list[int] = Field(default=[0], min_length=1, max_length=1)
    """Exactly one seed, since files do not depend on it. Use one stage per file."""
    target_transform: Literal["none"] = "none"
    extra_rows: Literal["ignore"] = "ignore"
    final_fit: Literal["folds"] = "folds"
    pseudo_labels: None = None
    class_weights: Literal["none"] = "none"


class CustomConfig(StageConfig):
    """A user-defined class with the two methods of `models.stage.StageModel`."""

    kind: Literal["custom"]
    code: UserCodeRef
    """`file.py:Class`. The class is called with its settings and a `models.stage.Context`."""
    settings: dict[str, Any] = {}
    """Settings that the class is called with. If the class has an attribute `Settings`, a pydantic
    model, this model validates them."""
    class_weights: Literal["none"] = "none"
    gpu: GpuShare = 1.0
    """Share of a GPU for each job. false: each job computes on one CPU core, and many run in parallel."""
