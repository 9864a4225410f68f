"""Stage `lightgbm`: gradient-boosted trees, leaf by leaf.

Early stopping on a split inside the training rows chooses the number of trees; the booster is then fitted
again on all of them. A refit on all rows uses the mean number of trees of the fold models.

Sources: Friedman, Greedy Function Approximation, Annals of Statistics 2001; Ke et al., LightGBM, NeurIPS
2017; the refit as in AutoGluon's refit_full (Erickson et al., 2020).
"""

import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt, field_validator

from competition.dataset import Dataset
from competition.task import Task
from core.files import read_json, write_json
from core.modules import load
from core.settings import nearest
from core.types import Array, ProblemType
from models.context import CheckTables, Context
from models.features import encoder_block, fit_encoders, molecule_blocks, named_molecule_blocks
from models.hardware import require_opencl
from models.inputs.columns import category_block, fit_categories, numeric_block
from models.job_folder import TRAINING, write_notes
from models.stages.inner_split import inner_split
from models.stages.tabular import NGRAMS, FeatureStage, TargetData, library_seed

if TYPE_CHECKING:
    import lightgbm

BLOCKS = "blocks.json"
DESCRIPTORS = "competition.descriptors"
"""Module with the names of the descriptors, which takes long to import."""
MIN_ROWS = 20
"""Minimum number of rows for subsampling them."""
RESERVED_PARAMETERS = (
    "seed", "num_threads", "device_type", "boosting", "num_iterations", "early_stopping_round", "metric",
    "num_class",
)  # fmt: skip
"""Parameters of LightGBM that the stage sets itself."""
RAW_OBJECTIVES = ("poisson", "gamma", "tweedie", "mape")
"""Objectives of unscaled labels."""
N_MADE_UP = 200
"""Number of made-up rows, and of their features, more than parameters usually ask for."""
PATIENCE = 100
"""Early stopping: trees without improvement on the inner validation split."""
DEFAULTS: dict[str, Any] = {
    "num_leaves": 31, "min_data_in_leaf": 10, "feature_fraction": 0.3, "bagging_fraction": 0.8,
    "lambda_l2": 1.0,
}  # fmt: skip
"""Parameters of LightGBM that differ from its defaults."""
SQUARED = {"objective": "regression", "metric": "rmse"}
HUBER = {"objective": "huber", "metric": "huber", "alpha": 0.5}
"""For metrics of absolute errors, in standardised labels; absolute errors have a larger MAE on held-out rows
(docs/benchmarks.md).
"""
BINARY = "binary", "cross_entropy"
"""Objectives that learn the probability of class 1, the default first."""
MULTICLASS = "multiclass", "softmax"
"""Objectives that learn a probability per class, the default first."""


class Lightgbm(FeatureStage):
    """Gradient-boosted decision trees, grown leaf by leaf, by LightGBM.

    Its features are sparse if there are n-grams; categories are the last columns.
    """

    packages = ("lightgbm",)
    depends_on_seed = True
    uses_several_cores = True
    kind: Literal["lightgbm"]
    learning_rate: PositiveFloat = 0.03
    """Factor of each tree; with a smaller one, early stopping takes more trees."""
    max_trees: PositiveInt = 2000
    """Maximum number of trees."""
    parameters: dict[str, Any] = {}
    """Parameters of LightGBM, by its names, in place of its defaults and the defaults of the stage. They
    include the objective, which then also decides the number of trees. Default objective: log loss for
    classification; for regression Huber's loss if the metric is made of absolute errors, otherwise the
    squared error."""

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        if not parameters:
            return parameters  # without LightGBM, which takes long to import
        from lightgbm.basic import _ConfigAliases

        valid_names = set(_ConfigAliases._get_all_param_aliases())  # LightGBM itself ignores unknown names
        for name in parameters:
            if name in cls.model_fields:
                raise ValueError(
                    f"{name} is a setting of the stage: write it next to `parameters`, not in it"
                )
            if name in RESERVED_PARAMETERS:
                raise ValueError(
                    f"{name} is set by the stage; remove it. Its settings are seeds, gpu and max_trees; threads come "
                    f"from --workers, classes from the task. It stops early after {PATIENCE} trees "
                    "without a lower error on a split of its training rows"
                )
            if name not in valid_names:
                raise ValueError(f"LightGBM has no parameter {name!r}; try {nearest(name, valid_names)}")
        return parameters

    @property
    def objective(self) -> str | None:
        """The objective in `parameters`; None for the default."""
        return self.parameters.get("objective")

    @property
    def needs_raw_labels(self) -> bool:
        """Whether the objective is defined for unscaled labels only, such as counts, and not for
        standardised ones.
        """
        return self.objective in RAW_OBJECTIVES

    def key_settings(self, task: Task) -> dict[str, Any]:
        """Return whether the default objective is of absolute errors, and the device.

        The share of a GPU is in no key: a network gives the same predictions on a GPU up to rounding. Trees
        do not: rounding changes splits.
        """
        device = "gpu" if self.gpu else "cpu"
        return {"absolute_errors": task.minimizes_absolute_error, "device": device}

    def config_errors(self, problem_type: ProblemType) -> Iterator[str]:
        """Yield the errors of `Stage.config_errors`, and of an objective that does not fit
        the problem type.
        """
        yield from super().config_errors(problem_type)
        of_classes = class_objectives(problem_type)
        if not self.objective:
            return
        if of_classes and self.objective not in of_classes:
            expected = f"problem type {problem_type} requires {' or '.join(of_classes)}"
        elif not of_classes and self.objective in BINARY + MULTICLASS:
            expected = "regression requires a regression objective"
        else:
            return
        yield f"parameters: the objective {self.objective} does not fit; {expected}"

    def library_errors(self) -> tuple[type[Exception], ...]:
        """Return the errors of LightGBM, also for values that are not numbers."""
        import lightgbm

        return lightgbm.basic.LightGBMError, TypeError, ValueError

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Fit a tree on made-up rows as well, which shows invalid parameters; see `Stage.check`.

        Lists and mappings among the parameters are for the columns, which made-up rows do not have.
        """
        yield from super().check(tables)
        values = {
            name: value
            for name, value in self.parameters.items()
            if not isinstance(value, list | dict) and "," not in str(value)
        }
        if values:
            tried = self.model_copy(update={"parameters": values, "gpu": 0.0})
            context = replace(tables.context, task=tables.task, categorical=[])
            with self.reported_errors(tables.task):
                tried._train(self._made_up_rows(tables.task), 1, context)

    def _made_up_rows(self, task: Task) -> TargetData:
        """Return random rows, on which a fit shows whether LightGBM accepts the parameters."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(N_MADE_UP, N_MADE_UP)).astype(np.float32)
        if task.has_probabilities:
            n_classes = len(task.classes)
            return TargetData(x, (np.arange(N_MADE_UP) % n_classes).astype(np.float64), None, n_classes)
        y: Array = rng.normal(size=N_MADE_UP)
        return TargetData(x, y**2 if self.needs_raw_labels else y, None)

    def check_machine(self) -> None:
        """Raise a ConfigError if the trees are to be grown on a GPU, and LightGBM cannot use it."""
        if self.gpu:
            require_opencl()

    def trains_on_gpu(self) -> bool:
        """Return whether boosters are trained on a GPU: one is requested, and this process sees one."""
        if self.gpu == 0:
            return False
        import torch  # here, since it takes seconds

        return torch.cuda.is_available()

    def fit_features(self, train: Dataset, folder: Path, context: Context) -> None:
        """Fit the frozen encoders, the n-grams and the categories."""
        if self.gpu > 0 and not self.trains_on_gpu():
            write_notes(folder, ["gpu is set, but torch sees no GPU; the trees were trained on the CPU"])
        fit_encoders(train, self, context, folder)
        ngrams = None
        if self.reads_texts(context):
            ngrams = load(NGRAMS).fit_ngrams(train, self.tfidf_features, context, folder)
        categories = fit_categories(train, context.categorical)
        write_json(folder / BLOCKS, {"ngrams": ngrams, "categories": categories})

    def build_features(self, rows: Dataset, folder: Path, context: Context) -> Any:
        """Return numbers, counts of n-grams and codes of categories, (n_rows, n_features)."""
        from scipy import sparse

        fitted = read_json(folder / BLOCKS)
        # The blocks are concatenated once, since a copy of 100,000 molecules takes a gigabyte.
        numbers: list[NDArray[np.float32]] = [
            *molecule_blocks(rows, self, context, folder),
            encoder_block(rows, self, context, folder),
            numeric_block(rows, context).astype(np.float32),
        ]
        codes = category_block(rows, fitted["categories"])
        if not fitted["ngrams"]:
            return np.hstack([*numbers, codes])
        counts = load(NGRAMS).ngram_counts(rows, fitted["ngrams"])
        dense = map(sparse.csr_matrix, numbers)
        return sparse.hstack([*dense, counts, sparse.csr_matrix(codes)], format="csr")

    def importances(self, rows: Dataset, folder: Path, context: Context) -> pd.Series:
        """Return shares of the gains of all splits, as a mean over targets; see `Stage.importances`.

        Features of one name, such as the bits of a fingerprint, count together.
        """
        import lightgbm

        shares = []
        for path in folder.glob("target_[0-9]*"):
            gains = lightgbm.Booster(model_str=path.read_text()).feature_importance("gain")
            shares.append(gains / (gains.sum() or 1.0))  # trees may have no split
        if not shares:  # each target has a single class
            return super().importances(rows, folder, context)
        names = list[str]()
        for name, block in named_molecule_blocks(rows, self, context, folder):
            if name.endswith(": descriptors"):
                names += [f"{name} {each}" for each in load(DESCRIPTORS).DESCRIPTORS]
            else:
                names += [name] * block.shape[1]
        names += ["frozen encoders of texts"] * encoder_block(rows, self, context, folder).shape[1]
        names += context.numeric
        for column, settings in read_json(folder / BLOCKS)["ngrams"] or []:
            names += [f"{column}: {word!r}" for word in settings["vocabulary"]]
        names += context.categorical
        return pd.Series(np.mean(shares, axis=0), names).groupby(level=0).sum()

    def fit_target(self, data: TargetData, target: int, path: Path, context: Context) -> dict[str, Any]:
        """Fit a booster and write it as text; a refit has the mean number of trees of the folds."""
        n_trees = mean_n_trees(context.fold_model_dirs, target) or self.best_n_trees(data, context)
        path.with_suffix(".txt").write_text(self._train(data, n_trees, context).model_to_string())
        context.progress(target + 1, len(context.task.targets))
        return {"n_trees": n_trees}

    def predict_target(self, x: Any, path: Path, context: Context) -> Array:
        """Return predictions (n_rows,) of a written model, or probabilities (n_rows, n_classes)."""
        import lightgbm

        booster = lightgbm.Booster(model_str=path.with_suffix(".txt").read_text())
        y_pred = np.asarray(booster.predict(x, num_threads=1))
        is_binary = context.task.has_probabilities and y_pred.ndim == 1
        return np.column_stack([1 - y_pred, y_pred]) if is_binary else y_pred

    def best_n_trees(self, data: TargetData, context: Context) -> int:
        """Return the number of trees with the smallest error on the held-out rows of an inner split."""
        fit_rows, stopping_rows = inner_split(data, library_seed(context))
        booster = self._train(data.take(fit_rows), self.max_trees, context, data.take(stopping_rows))
        return max(booster.best_iteration, 1)

    def _train(
        self, data: TargetData, n_trees: int, context: Context, validation: TargetData | None = None
    ) -> "lightgbm.Booster":
        """Return a booster of at most `n_trees`, stopped early with `validation`."""
        import lightgbm

        n_rows, n_features = data.x.shape
        task = context.task
        default = HUBER if task.minimizes_absolute_error else SQUARED
        of_classes = class_objectives(task.problem_type)
        if of_classes:
            default = {"objective": of_classes[0]}
        parameters = {
            **({} if self.objective else default),
            **({"num_class": data.n_classes} if task.problem_type == "multiclass" else {}),
            "learning_rate": self.learning_rate,
            "bagging_freq": 1,
            "seed": library_seed(context),
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": context.threads,
            # By OpenCL, which the wheels of PyPI have; "cuda" needs a special build.
            "device_type": "gpu" if self.trains_on_gpu() else "cpu",
            "verbosity": -1,
            **DEFAULTS,
            **self.parameters,
        }
        parameters["min_data_in_leaf"] = min(parameters["min_data_in_leaf"], max(1, n_rows // 20))
        # With LightGBM's 100, trees of small tables would never see a category of four values or more.
        parameters["min_data_per_group"] = min(
            parameters.get("min_data_per_group", 100), max(1, n_rows // 20)
        )
        if n_rows < MIN_ROWS:
            parameters["bagging_fraction"] = 1.0
        train = lightgbm.Dataset(
            data.x, data.y, weight=data.weights, params=parameters, free_raw_data=False,
            categorical_feature=list(range(n_features - len(context.categorical), n_features)),
        )  # fmt: skip
        stop: dict[str, Any] = {}
        if validation is not None:
            stop["valid_sets"] = [train.create_valid(validation.x, validation.y, weight=validation.weights)]
            stop["callbacks"] = [lightgbm.early_stopping(PATIENCE, verbose=False)]
        return lightgbm.train(parameters, train, n_trees, **stop)


def class_objectives(problem_type: ProblemType) -> tuple[str, ...]:
    """Return the objectives for the classes of a problem type, the default first; () for regression."""
    if problem_type == "regression":
        return ()
    return MULTICLASS if problem_type == "multiclass" else BINARY


def mean_n_trees(folders: list[Path], target: int) -> int | None:
    """Return the mean number of trees of the models of the folds, rounded; None without folds.

    It is not increased for the additional rows of a refit, since it depends little on them.
    """
    folds = [read_json(folder / TRAINING, "models")["models"][target] for folder in folders]
    # A fold with a single class has no trees.
    n_trees = [fold["n_trees"] for fold in folds if "n_trees" in fold]
    return round(statistics.mean(n_trees)) if n_trees else None
