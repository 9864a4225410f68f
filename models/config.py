"""The `stages:` section: one settings class per kind of stage, those of networks in `models/settings.py`.

Imports no library of any stage.
"""

import inspect
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from competition.config import GivenPath, StrictModel, UserCode, read_yaml, validate
from competition.types import ProblemType
from models.estimators import build_estimator, require_known
from models.gpu_share import GpuShare
from models.settings import BertStage, Encoder, Feature, GnnStage, Share, Stage, Unimol2Stage, UnimolStage


class FileStage(Stage):
    """Predictions made elsewhere: another notebook, AutoGluon, a colleague. Nothing is trained here."""

    kind: Literal["file"]
    folder: GivenPath
    """Folder with oof.csv and test.csv. Both have the id and the submission's columns, or of classes a column of
    probabilities for each target, or `target=class` for each class; oof.csv may have a column fold."""
    seeds: list[int] = Field(default=[0], min_length=1, max_length=1)
    """One, since files are the same for all; make a stage for each file."""
    target_transform: Literal["none"] = "none"
    extra_rows: Literal["ignore"] = "ignore"
    final_fit: Literal["folds"] = "folds"
    pseudo_labels: None = None
    class_weights: Literal["none"] = "none"
    ordinal: Literal["regression"] = "regression"


class CustomStage(Stage):
    """A class of your own with the two methods of `models.stage.FittedStage`."""

    kind: Literal["custom"]
    code: UserCode
    """`file.py:Class`. The class is called with its settings and a `models.stage.Context`."""
    settings: dict[str, Any] = {}
    """What the class is called with; checked by its attribute `Settings`, a pydantic model, where it has one."""
    class_weights: Literal["none"] = "none"
    gpu: GpuShare = 1.0
    """Share of a card for each job; false: it computes on a core, many side by side."""


class FeatureStage(Stage):
    """What every stage on features of molecules, TF-IDF of text, numbers and categories has."""

    extra_rows: Literal["train", "ignore"] = "train"
    features: list[Feature | Encoder] = Field(default=["morgan", "descriptors"], min_length=1)
    """For each molecule column: counts of Morgan environments of radius 2, Avalon counts, ErG, MACCS keys, RDKit's
    descriptors; maplight is morgan, avalon, erg and descriptors. `{encoder: minilm}`: pooled features of a frozen
    encoder, side by side with the others."""
    n_bits: int = Field(default=1024, ge=64)
    """morgan, avalon: length of the count vector."""
    tfidf_features: int = Field(default=5000, ge=0)
    """For each text column: most words and word pairs; 0 leaves them out."""
    predicted_targets: Literal["all"] | list[str] = []
    """Targets whose predictions are features of the other targets: of training rows by models that did not see their
    labels, inside the fold's training rows. It fits as many more models as there are folds."""
    gpu: GpuShare = 0.0
    """Share of a card for each job: trees are then grown on it, and an estimator can compute on it. Features of frozen
    encoders are computed before the jobs, on a card where there is one, whatever this is."""

    @property
    def encoders(self) -> list[Encoder]:
        """Those among the features."""
        return [feature for feature in self.features if isinstance(feature, Encoder)]


OURS = (
    "seed", "random_seed", "num_threads", "thread_count", "device_type", "device", "task_type", "devices", "boosting",
    "num_iterations", "iterations", "early_stopping_round", "early_stopping_rounds", "metric", "eval_metric",
    "custom_metric", "num_class", "classes_count", "class_names",
)  # fmt: skip
"""Parameters of LightGBM and CatBoost that a job sets itself."""
OBJECTIVE = ("objective", "objective_type", "app", "application", "loss", "loss_function")
"""Names that the two have for it."""


class TreesStage(FeatureStage):
    """What every stage of boosted trees has, one booster per target."""

    of_two: ClassVar[tuple[str, ...]]
    of_several: ClassVar[tuple[str, ...]]
    """Objectives of the library that learn the probability of one class of two, or of each of several."""
    learning_rate: PositiveFloat = 0.03
    max_trees: PositiveInt = 2000
    """Upper end of the search for the number of trees."""
    patience: PositiveInt = 100
    """Trees without gain on the inner split before the search stops."""
    search_trials: int = Field(default=0, ge=0)
    """Optuna's trials per target, each on three folds inside the training rows; 0 takes the settings as they are."""
    parameters: dict[str, Any] = {}
    """The library's own, by its names, such as another objective (CatBoost's loss_function), by which the trees are
    then counted, too. Unset, it is the log loss of classes; of numbers the absolute error where the metric is made of
    it, else the squared one."""

    @classmethod
    def library_parameters(cls) -> set[str]:
        """Return the names of all parameters of the library; LightGBM silently takes others."""
        raise NotImplementedError(f"{cls.__name__} needs library_parameters")

    @field_validator("parameters")
    @classmethod
    def _parameters_are_known(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for name in parameters:
            if name in cls.model_fields or name in OURS:
                raise ValueError(f"{name} is set by the stage; remove it, or write it beside parameters, not in it")
            require_known(name, cls.library_parameters(), f"the library has no parameter {name!r}")
        return parameters

    @property
    def objective(self) -> str | None:
        """The objective that `parameters` name, by any of its names, without settings of its own."""
        named = [self.parameters[name] for name in OBJECTIVE if name in self.parameters]
        return str(named[0]).partition(":")[0] if named else None

    @property
    def learns_labels_as_they_are(self) -> bool:
        """Whether the objective means something of counts or shares of labels alone, not of standardised ones."""
        return str(self.objective).lower() in ("poisson", "gamma", "tweedie", "mape", "msle")

    def objectives(self, learns: ProblemType) -> tuple[str, ...]:
        """Those that learn classes of a problem type, the default first; none of numbers."""
        return {"regression": (), "multiclass": self.of_several}.get(learns, self.of_two)

    def mistakes(self, learns: ProblemType) -> Iterator[str]:
        """With an objective of another problem type, too."""
        yield from super().mistakes(learns)
        known, own = self.objectives(learns), self.objective
        if own and (own not in known if known else own in self.of_two + self.of_several):
            needed = f"classes of problem_type {learns} need {' or '.join(known)}" if known else "numbers need another"
            yield f"parameters: the objective {own} does not fit; {needed}"


class LightgbmStage(TreesStage):
    """Gradient-boosted trees (LightGBM)."""

    of_two, of_several = ("binary", "cross_entropy"), ("multiclass", "softmax")
    kind: Literal["lightgbm"]
    num_leaves: int = Field(default=31, ge=2)
    min_data_in_leaf: PositiveInt = 10
    feature_fraction: Share = 0.3
    bagging_fraction: Share = 0.8
    lambda_l2: NonNegativeFloat = 1.0

    @classmethod
    def library_parameters(cls) -> set[str]:
        """Return the names and aliases of LightGBM's parameters."""
        from lightgbm.basic import _ConfigAliases

        return set(_ConfigAliases._get_all_param_aliases())


class CatboostStage(TreesStage):
    """Gradient-boosted symmetric trees (CatBoost)."""

    of_two, of_several = ("Logloss", "CrossEntropy", "Focal"), ("MultiClass",)
    kind: Literal["catboost"]
    features: list[Feature | Encoder] = Field(default=["maplight"], min_length=1)
    topics: int = Field(default=64, ge=2)
    """For all text columns together: most topics, directions of a truncated SVD of the TF-IDF."""
    learning_rate: PositiveFloat = 0.05
    depth: int = Field(default=6, ge=1, le=16)
    l2_leaf_reg: NonNegativeFloat = 3.0
    random_strength: NonNegativeFloat = 1.0
    """Noise on the scores of splits, against overfitting."""
    rsm: Share = 0.3
    """Share of the features that each split may use; on a card CatBoost cannot sample them, and uses all."""
    subsample: Share = 0.8
    """Share of the rows that each tree is fitted on."""

    @classmethod
    def library_parameters(cls) -> set[str]:
        """Return the names of CatBoost's parameters."""
        from catboost import CatBoostClassifier

        return set(inspect.signature(CatBoostClassifier).parameters)  # includes those of CatBoostRegressor


class SklearnStage(FeatureStage):
    """An estimator of scikit-learn's form on the features of the trees, one per target. Most know no chance: more seeds
    change nothing."""

    kind: Literal["sklearn"]
    estimator: str | None = None
    """Name in scikit-learn of a regressor, or of classes of a classifier with predict_proba, or the dotted name of one
    of an installed package, as pytabkit.RealMLP_TD_Regressor. null: SVR, or LogisticRegression."""
    parameters: dict[str, Any] = {}
    """Its own settings, by its names, where they differ from its defaults."""

    def named(self, learns: ProblemType) -> str:
        """The estimator of what the stage learns."""
        return self.estimator or ("SVR" if learns == "regression" else "LogisticRegression")

    def mistakes(self, learns: ProblemType) -> Iterator[str]:
        """With an estimator that there is not, or is of the other kind, or does not have the parameters, too."""
        yield from super().mistakes(learns)
        try:
            build_estimator(self.named(learns), self.parameters, seed=0, classes=learns != "regression")
        except (ValueError, TypeError) as error:  # TypeError: it cannot be made without arguments
            yield f"estimator: {' '.join(str(error).split())} (this stage learns {learns})"


def _labels_come_from_stages_that_can_give_them(stages: dict[str, Any]) -> dict[str, Any]:
    """The model of a fold must not know a label of that fold, as those of a file may."""
    trained = {name: stage for name, stage in stages.items() if stage.kind != "file" and not stage.pseudo_labels}
    allowed = [name for name, stage in trained.items() if getattr(stage, "keep", "last") == "last"]
    named = {name: stage.pseudo_labels.of for name, stage in stages.items() if stage.pseudo_labels}
    if wrong := [f"{source} (of {name})" for name, of in named.items() for source in of if source not in allowed]:
        raise ValueError(
            "pseudo_labels.of must name stages that train here, have no pseudo-labels and do not choose by the "
            f"held-out fold ({', '.join(allowed) or 'there are none'}); found {', '.join(wrong)}"
        )
    return stages


StageName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*(__[A-Za-z0-9_]+=[A-Za-z0-9_=.,+-]+)?$")]
StageConfig = Annotated[
    UnimolStage | Unimol2Stage | GnnStage | BertStage | LightgbmStage | CatboostStage | SklearnStage | FileStage
    | CustomStage,
    Field(discriminator="kind"),
]  # fmt: skip
Stages = Annotated[
    dict[StageName, StageConfig], Field(min_length=1), AfterValidator(_labels_come_from_stages_that_can_give_them)
]
"""Names of letters, digits and underscores; variants in a study name their values, too."""


class StagesConfig(StrictModel):
    """The section as a whole, so that one check names every mistake."""

    stages: Stages


def load_stages(name: str) -> dict[str, Any]:
    """The `stages:` section of a YAML, in its order: name of the stage -> its settings."""
    path, document = read_yaml(name)
    return validate(StagesConfig, {"stages": document.get("stages", {})}, path).stages
