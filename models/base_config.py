"""The base class of the settings of all stages, and what they share.

Other code asks a stage by the properties and methods of `StageConfig`, and never which kind it is.
This module imports no library of any stage.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, PositiveInt

from competition.config import CompetitionConfig
from competition.task import Task
from core.errors import ConfigError
from core.settings import StrictModel, UniqueList
from core.types import Integers, ProblemType
from models.inputs.cache import Cache
from models.inputs.weights import (
    MINIMOL_PACKAGES,
    MOLECULE_KINDS,
    is_minimol,
    reads_molecules,
    require_weights_of_kind,
)
from models.stage import CheckTables, Context
from models.training.labels import require_log1p

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
    """Settings that every stage has, and what other code asks a stage. A kind overrides what differs."""

    if TYPE_CHECKING:
        kind: str  # a field of every subclass, with its name as the only value

    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that train the stage; see `libraries`."""
    encoder_setting: ClassVar[str] = ""
    """Setting that lists names of features and frozen encoders; "" if the stage has none."""
    is_trained: ClassVar[bool] = True
    """Whether it is trained here. False for external predictions: they need no input columns, have no
    predictions of other rows, and their models may have seen any label."""
    requires_labels: ClassVar[bool] = True
    """Whether every target needs labels among the training rows of every fold."""
    reports_progress: ClassVar[bool] = False
    """Whether it is trained in epochs, so that its pace is known while it runs, and a budget may give
    it a share of them."""
    depends_on_seed: ClassVar[bool] = False
    """Whether another seed gives other predictions, so that a budget may add seeds."""
    uses_several_cores: ClassVar[bool] = False
    """Whether a job may train on several cores. Its result must not depend on their number."""
    predicts_on_gpu: ClassVar[bool] = False
    """Whether a job with a share of a GPU also predicts on it."""

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
        features = getattr(self, self.encoder_setting) if self.encoder_setting else []
        return [feature for feature in features if isinstance(feature, EncoderFeature)]

    @property
    def molecule_feature_names(self) -> list[str]:
        """Names of the features of each molecule column, without frozen encoders."""
        return []

    @property
    def count_bits(self) -> int:
        """Length of the count vectors among these features."""
        return 1024

    @property
    def initial_weights(self) -> str | None:
        """Weights that training starts from; None for random initialization, or if it has none."""
        return None

    @property
    def predicts_with_initial_weights(self) -> bool:
        """Whether predictions need `initial_weights` too, since a job only has what was trained of them."""
        return False

    @property
    def text_settings(self) -> list[Any]:
        """Settings, with the fields of `TextStage`, of every encoder of the stage that reads text."""
        return [encoder for encoder in self.encoders if not reads_molecules(encoder.weights)]

    @property
    def optional_packages(self) -> set[str]:
        """Modules, or dotted names in them, that the stage needs besides the requirements of the project."""
        return set()

    @property
    def dropout_note(self) -> str:
        """Dropout rates for the report; "" without dropout layers."""
        return ""

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

    def libraries(self) -> set[str]:
        """Return the packages whose versions are part of the job keys, so that an upgrade trains the stage again."""
        names = {*self.packages}
        if self.molecule_feature_names or self.encoders:
            names |= {"numpy", "rdkit"}
        for encoder in self.encoders:
            if is_minimol(encoder.weights):
                names |= {*MINIMOL_PACKAGES}
            else:
                names |= {"torch", "chemprop" if reads_molecules(encoder.weights) else "transformers"}
        return names

    def weight_names(self) -> list[str]:
        """Return the distinct weights that the stage starts from and that its frozen encoders use."""
        names = [self.initial_weights, *(encoder.weights for encoder in self.encoders)]
        return list(dict.fromkeys(name for name in names if name))

    def key_settings(self, task: Task) -> dict[str, Any]:
        """Return what the predictions depend on besides settings, weights, tables and code.

        It is part of the job keys and raises a ConfigError for a missing file.

        Args:
            task: task of the competition.
        """
        return {}

    def caches(self, context: Context) -> list[tuple[Cache, list[str]]]:
        """Return the caches of molecules that only this kind reads, each with its molecule columns."""
        return []

    def require_inputs(self, competition: CompetitionConfig) -> None:
        """Raise a ConfigError if the competition has no input column that the stage could read."""
        if self.is_trained and not competition.inputs:
            raise ConfigError(
                "the section competition must name at least one input column under smiles, text, numeric or "
                "categorical, unless all stages are of kind file; got none. Name a column, or remove this stage."
            )

    def check_machine(self) -> None:
        """Raise a ConfigError if this machine cannot train the stage with its settings."""

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Yield warnings about the stage with the tables of the competition.

        Raises:
            ConfigError: the stage cannot be trained on them.
            DataError: a table does not fit.
        """
        if self.initial_weights:
            require_weights_of_kind(self.initial_weights, [self.kind])
        for encoder in self.encoders:
            require_weights_of_kind(encoder.weights, ["bert", *MOLECULE_KINDS])
        if self.target_transform == "log1p":
            require_log1p(tables.y)
        yield from ()

    def fold_mark(self, folder: Path, id_column: str, ids: list[str], folds: Integers) -> str | None:
        """Return how the folds of external predictions differ from these folds; None if they do not.

        Args:
            folder: folder of a job.
            ids: ids of the rows, (n_rows,).
            folds: (n_rows,), -1 for rows without a fold.
        """
        return None


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
    lora: ClassVar[None] = None
    quantization: ClassVar[None] = None
    enumerate_smiles: ClassVar[bool] = False
